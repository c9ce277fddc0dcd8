"""`/v1/events` as a list: a page of one cluster's history.

For: looking back. Not for: following, which the same path does when it is asked for an event
stream (`stream`). Invariant: pages that begin at the `next` of the one before hold every event of
the log once, in order.
"""

from __future__ import annotations

from dataclasses import dataclass

import orjson
from aiohttp import web

from meshd.core.event_filter import ALL_EVENTS, EventFilter
from meshd.core.telling import event_bytes
from meshd.edges.http.answers import json_answer, own_state
from meshd.edges.http.event_query import FILTERS, event_filter
from meshd.edges.http.limits import NODE
from meshd.edges.http.requests import bad_query, check_query, is_stream, query_number
from meshd.edges.http.stream import stream_events
from meshd.model.control import SEQ_MAX
from meshd.model.event import Told
from meshd.model.ids import ClusterName
from meshd.runtime.history import History

LIMIT_DEFAULT = 100
LIMIT_MAX = 1000
STREAM_ONLY = ("from", "since", "reset")
SCAN_MAX = 5000
"""How many events one page may look through for the wanted ones."""


@dataclass(frozen=True, slots=True)
class _Page:
    """next: the `after` of the following page; None at the log's end."""

    items: list[Told]
    next: int | None


def routes() -> list[web.AbstractRouteDef]:
    """The path that is served here. No HEAD: of a stream it would never end."""
    return [web.get("/v1/events", get_events, allow_head=False)]


async def get_events(request: web.Request) -> web.StreamResponse:
    """A page of events, or a stream of them."""
    if is_stream(request):
        return await stream_events(request)
    for name in STREAM_ONLY:
        if name in request.query:
            raise bad_query(name, "is for a stream: ask for one with Accept: text/event-stream")
    check_query(request, "cluster", "after", "limit", *FILTERS)
    node = request.app[NODE]
    own_state(node)
    cluster = ClusterName(request.query.get("cluster", node.projector.own))
    page = await _read_page(
        node.history,
        cluster,
        after=query_number(request, "after", 0, 0, SEQ_MAX),
        limit=query_number(request, "limit", LIMIT_DEFAULT, 1, LIMIT_MAX),
        wanted=event_filter(request, node),
    )
    items = [orjson.Fragment(event_bytes(told)) for told in page.items]
    return json_answer({"items": items, "next": page.next})


async def _read_page(
    history: History, cluster: ClusterName, *, after: int, limit: int, wanted: EventFilter
) -> _Page:
    items: list[Told] = []
    scanned = 0
    while scanned < SCAN_MAX:
        size = limit - len(items) if wanted == ALL_EVENTS else LIMIT_MAX
        batch = await history.read(cluster, after, size)
        for told in batch:
            after = told.position.seq
            if wanted.passes(told.event):
                items.append(told)
                if len(items) == limit:
                    return _Page(items, after)
        if len(batch) < size:
            return _Page(items, None)
        scanned += len(batch)
    return _Page(items, after)
