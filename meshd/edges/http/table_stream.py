"""`/v1/tables/stream`: the global services as this cluster sees them, and what becomes of them.

For: what a client may ask for, and where it goes on. Not for: telling it (`table_telling`), nor how
a stream is sent (`outlets`). Invariant: a place that can't be gone on from is never gone on from,
nor answered with everything unasked.
"""

from __future__ import annotations

from aiohttp import web

from meshd.core.table_changes import Selection
from meshd.edges.http.answers import own_state
from meshd.edges.http.event_query import LAST_EVENT_ID
from meshd.edges.http.limits import NODE
from meshd.edges.http.outlets import Outlet, serve_stream
from meshd.edges.http.problems import GONE, HttpProblem
from meshd.edges.http.requests import (
    bad_query,
    check_query,
    query_choice,
    query_flag,
    query_labels,
)
from meshd.edges.http.table_messages import TABLE_MESSAGES
from meshd.edges.http.table_telling import TableTelling, TableWish, gone_problem, out_of_reach
from meshd.model.errors import NotFoundError, RejectedError
from meshd.model.ids import ClusterName, ServiceKey, is_dns_label, parse_vector
from meshd.model.place import TablePlace
from meshd.runtime.node import Node


def routes() -> list[web.AbstractRouteDef]:
    """The path that is served here. No HEAD: of a stream it would never end."""
    return [web.get("/v1/tables/stream", stream_tables, allow_head=False)]


async def stream_tables(request: web.Request) -> web.StreamResponse:
    """Follow until the client goes, or meshd stops."""
    check_query(request, "delta", "namespace", "service", "label", "cluster", "after", "reset")
    node = request.app[NODE]
    own_state(node)
    wish = TableWish(
        _selection(request, node),
        by_deltas=query_flag(request, "delta"),
        is_reset=query_choice(request, "reset", "end", ("end", "snapshot")) == "snapshot",
        path=request.path,
    )
    place = _place(request, wish.selection)
    gone = _gone_because(node, place) if place is not None else ""
    if gone and not wish.is_reset:
        raise HttpProblem(GONE, gone, (gone_problem(gone),))

    async def tell(outlet: Outlet) -> None:
        telling = TableTelling(node.projector, request.app[TABLE_MESSAGES], wish, outlet)
        if gone:
            await telling.reset(gone)
        await telling.follow(None if place is None or gone else place.number)

    return await serve_stream(request, tell)


def _selection(request: web.Request, node: Node) -> Selection:
    """The services that are asked for."""
    query = request.query
    namespaces, clusters = query.getall("namespace", []), query.getall("cluster", [])
    for namespace in namespaces:
        if not is_dns_label(namespace):
            raise bad_query("namespace", f"{namespace!r} can't be a namespace")
    try:
        services = frozenset(map(ServiceKey.parse, query.getall("service", [])))
    except RejectedError as error:
        raise bad_query("service", str(error)) from None
    known = {node.projector.own, *node.peers.names(), *node.projector.states}
    unknown = sorted(set(clusters) - known)
    if unknown:
        raise NotFoundError(f"there is no cluster {unknown[0]!r} here")
    return Selection(
        frozenset(namespaces),
        services,
        tuple(query_labels(request)),
        frozenset(map(ClusterName, clusters)),
    )


def _place(request: web.Request, selection: Selection) -> TablePlace | None:
    """The place that a client brings back."""
    text = request.headers.get(LAST_EVENT_ID) or request.query.get("after")
    if text is None:
        return None
    try:
        place = TablePlace.parse(text)
    except RejectedError as error:
        raise bad_query("after", str(error)) from None
    if place.mark != selection.mark:
        what = "this place is of a stream that selects other services"
        raise bad_query("after", f"{what}: ask for the same, or without a place")
    return place


def _gone_because(node: Node, place: TablePlace) -> str:
    """Why a place can't be gone on from; '' if it can."""
    projector, feed = node.projector, node.projector.feed
    if place.run == feed.run:
        if place.number > feed.number:
            return f"change {place.number} never was; the last one is {feed.number}"
        return "" if feed.changes.reaches(place.number) else out_of_reach(place.number)
    at = parse_vector(place.events_after).get(projector.own)
    if at is None:
        return f"it is of another cluster's tables than those of {projector.own}"
    log_id = projector.log_ids[projector.own]
    if at.log_id != log_id:
        return f"log {at.log_id} of {projector.own} was replaced by log {log_id}"
    return "it was told by another meshd of this cluster, or before this one was started"
