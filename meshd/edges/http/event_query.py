"""Which events a request asks for, and where a stream of them begins.

For: the query of `/v1/events`. Not for: telling the events (`stream`, `events`). Invariant: a place
that can't be gone on from is an error, and never taken as another one: nobody is told everything
again, or nothing, without asking for that.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from meshd.core.event_filter import EventFilter, make_filter
from meshd.core.past import parse_time
from meshd.core.telling import EVENT_TYPE_PREFIX
from meshd.edges.http.limits import LIMITS, NODE
from meshd.edges.http.problems import (
    BAD_REQUEST,
    DEADLINE,
    GONE,
    HttpProblem,
    problem_of,
)
from meshd.edges.http.requests import bad_query, query_choice, query_labels
from meshd.model.errors import NotFoundError, Problem, RejectedError
from meshd.model.ids import ClusterName, Position, Seq
from meshd.model.place import EventPlace
from meshd.runtime.history import GoneError
from meshd.runtime.node import Node
from meshd.runtime.places import Places

LAST_EVENT_ID: Final = "Last-Event-ID"
FILTERS: Final = ("type", "namespace", "service", "label")
"""The parameters that say which events; beside `cluster`."""
NEWER: Final = "…"
"""How a state counts the types that are too many to be counted by name."""
REMEDY: Final = (
    "begin with ?from=snapshot, or ask with &reset=snapshot to get one here whenever this happens"
)


@dataclass(frozen=True, slots=True)
class Start:
    """Where a stream begins. place: None for a snapshot. reset: why it is that, where the client
    asked for something else.
    """

    place: EventPlace | None
    reset: HttpProblem | None = None


def event_filter(request: web.Request, node: Node) -> EventFilter:
    """Which events are wanted; raises HttpProblem with all that is wrong."""
    newer = {name for state in node.projector.states.values() for name in state.unknown}
    query = request.query
    try:
        return make_filter(
            types=[kind.removeprefix(EVENT_TYPE_PREFIX) for kind in query.getall("type", [])],
            namespaces=query.getall("namespace", []),
            services=query.getall("service", []),
            labels=query_labels(request),
            newer_types=newer - {NEWER},
        )
    except RejectedError as error:
        raise HttpProblem(BAD_REQUEST, str(error), error.problems) from None


def followed_clusters(request: web.Request, node: Node) -> frozenset[ClusterName]:
    """The clusters that are asked for; none means all, also those that join later."""
    named = frozenset(ClusterName(name) for name in request.query.getall("cluster", []))
    known = {node.projector.own, *node.peers.names(), *node.projector.states}
    unknown = sorted(named - known)
    if unknown:
        raise NotFoundError(f"there is no cluster {unknown[0]!r} here")
    return named


async def start_of(request: web.Request, clusters: frozenset[ClusterName]) -> Start:
    """Where to begin: at a position that the client names, at a time, or as `from` says.

    Last-Event-ID goes before the query: it is what a browser adds to the address that it was given.
    """
    node, query = request.app[NODE], request.query
    starts = [name for name in ("after", "since", "from") if name in query]
    if len(starts) > 1:
        raise bad_query(starts[0], f"does not go with ?{starts[1]}: both say where to begin")
    where = query_choice(request, "from", "now", ("now", "beginning", "snapshot"))
    has_resets = wants_resets(request)
    text = request.headers.get(LAST_EVENT_ID) or query.get("after")
    try:
        if text is not None:
            return Start(await _resume(text, node, clusters))
        if "since" in query:
            return Start(EventPlace(await _since(request, node, clusters)))
    except HttpProblem as problem:
        if problem.kind is not GONE or not has_resets:
            raise
        return Start(None, problem)
    return Start(None if where == "snapshot" else _edge(node, clusters, is_end=where == "now"))


def wants_resets(request: web.Request) -> bool:
    """Whether a place that is gone becomes a snapshot in the same stream, rather than its end."""
    return query_choice(request, "reset", "end", ("end", "snapshot")) == "snapshot"


def _edge(node: Node, clusters: frozenset[ClusterName], *, is_end: bool) -> EventPlace:
    """Where the followed logs end, or before their first event."""
    return node.history.place(
        {
            name: position if is_end else Position(name, position.log_id, Seq(0))
            for name, position in node.projector.log_vector().items()
            if not clusters or name in clusters
        }
    )


async def _resume(text: str, node: Node, clusters: frozenset[ClusterName]) -> EventPlace:
    """A place that a client brings back; raises for one that can't be gone on from.

    The own log is read to its end here, so an own position beyond it is of a history that a restore
    took back. A peer's may be: what was told from memory needn't be in the replica yet.
    """
    try:
        place = EventPlace.parse(text)
    except RejectedError as error:
        raise bad_query("after", str(error)) from None
    own, vector = node.projector.own, place.vector
    # Every id names the own log where that is followed: one without it is of another stream.
    expected = clusters & vector.keys() if clusters else {own} & vector.keys()
    if not expected:
        what = (
            f"has no position of {', '.join(sorted(clusters)) or own}, so it is of another stream"
        )
        raise bad_query("after", what)
    followed = {name: vector[name] for name in vector if not clusters or name in clusters}
    gone = [what for name in sorted(followed) if (what := _why_gone(node, followed[name]))]
    if own in followed and not _why_gone(node, followed[own]):
        gone += await _why_retaken(node, followed[own], place.mark)
    if gone:
        # All of them, since whoever hears it begins with all logs anew.
        problems = tuple(Problem(LAST_EVENT_ID, what, REMEDY) for what in gone)
        raise HttpProblem(GONE, "; ".join(gone), problems)
    return EventPlace(followed, place.mark if own in followed else "")


def _why_gone(node: Node, position: Position) -> str:
    """Why a log can't be gone on with behind a position; '' if it can."""
    name, head = position.cluster, node.projector.head(position.cluster)
    if head is None:
        return ""
    if position.log_id != head.log_id:
        return f"log {position.log_id} of {name} was replaced by log {head.log_id}"
    if name == node.projector.own and position.seq > head.seq:
        return f"seq {position.seq} of {name} was lost in a restore; it ends at {head.seq}"
    return ""


async def _why_retaken(node: Node, position: Position, mark: str) -> list[str]:
    """Why the own log can't be gone on with, though it reaches that far again. A place that was cut
    off is told as that, where its events are looked for.
    """
    found = await node.history.mark_at(position.seq) if mark else ""
    if not found or found == mark:
        return []
    name, seq = position.cluster, position.seq
    return [f"seq {seq} of {name} was lost in a restore; another event is there now"]


async def _since(
    request: web.Request, node: Node, clusters: frozenset[ClusterName]
) -> dict[ClusterName, Position]:
    """Behind which place of each log the events of a time and later are."""
    try:
        time_ms = parse_time(request.query["since"], "?since")
    except RejectedError as error:
        raise HttpProblem(BAD_REQUEST, str(error), error.problems) from None
    places = Places(node.kv, node.keyspace, node.projector, node.past.open)
    names = sorted(clusters or node.projector.log_vector())
    seconds = request.app[LIMITS].read_deadline_s
    try:
        async with asyncio.timeout(seconds):
            return await node.past.look_back(lambda: places.since(time_ms, names))
    except TimeoutError:
        raise HttpProblem(DEADLINE, f"there was no answer within {seconds:g} s") from None
    except GoneError as error:
        raise problem_of(error) from None
