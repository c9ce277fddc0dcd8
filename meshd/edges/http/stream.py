"""`/v1/events` as a stream.

For: following the logs of one, some or all clusters, with resumption. Not for: what is asked for
(`event_query`), what events mean, nor how a stream is sent (`outlets`). Invariant: a stream over
all its reconnections holds every wanted event after its start once, in order per cluster, or says
`meshd.reset` before it ends or starts over.

Every id is a vector: where *all* followed logs stand after that event. The first message is an id
alone, so that a client which lost its connection before any event still resumes where it began. A
snapshot has no id before its end, so that one which is cut in the middle is begun again.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

import orjson
from aiohttp import web

from meshd.core.event_filter import EventFilter
from meshd.core.telling import event_bytes
from meshd.edges.http.answers import own_state
from meshd.edges.http.event_query import (
    FILTERS,
    event_filter,
    followed_clusters,
    start_of,
    wants_resets,
)
from meshd.edges.http.limits import LIMITS, NODE
from meshd.edges.http.messages import SNAPSHOT_BEGIN, SNAPSHOT_END
from meshd.edges.http.outlets import (
    RESET,
    Batch,
    ClientGoneError,
    Message,
    Outlet,
    problem_message,
    serve_stream,
)
from meshd.edges.http.problems import HttpProblem, problem_of
from meshd.edges.http.requests import check_query
from meshd.model.ids import ClusterName, format_vector
from meshd.model.place import EventPlace
from meshd.runtime.existing import Existing, Snapshot
from meshd.runtime.fanout import SEEN_PER_TURN, Fanout
from meshd.runtime.feed import FLUSH_BYTES, Said
from meshd.runtime.history import GoneError
from meshd.runtime.node import Node
from meshd.telemetry import metrics


def make_fanout(node: Node, bytes_max: int) -> Fanout[Batch]:
    """The fan-out of one application."""
    press = (event_bytes, _pack)
    return Fanout(node.projector, node.history, node.clock, press, bytes_max)


FANOUT: Final = web.AppKey("FANOUT", Fanout[Batch])
EXISTING: Final = web.AppKey("EXISTING", Existing)


def _pack(said: Sequence[Said]) -> Batch:
    return Batch([Message(one.type, one.data, one.id) for one in said])


@dataclass(frozen=True, slots=True)
class _Following:
    """What one client follows."""

    request: web.Request
    clusters: frozenset[ClusterName]
    wanted: EventFilter
    has_resets: bool


async def stream_events(request: web.Request) -> web.StreamResponse:
    """Follow until the client goes, or meshd stops."""
    check_query(request, "cluster", *FILTERS, "after", "since", "from", "reset")
    node = request.app[NODE]
    own_state(node)
    clusters = followed_clusters(request, node)
    wanted = event_filter(request, node)
    following = _Following(request, clusters, wanted, wants_resets(request))
    start = await start_of(request, clusters)

    async def tell(outlet: Outlet) -> None:
        place, problem = start.place, start.reset
        while True:
            try:
                await _follow(following, outlet, place, problem)
            except GoneError as error:
                if not following.has_resets:
                    raise
                place, problem = None, problem_of(error)

    return await serve_stream(request, tell)


async def _follow(
    following: _Following,
    outlet: Outlet,
    place: EventPlace | None,
    problem: HttpProblem | None,
) -> None:
    """Tell all from a place on, or a snapshot and all after it, for ever. Raises GoneError."""
    request = following.request
    if problem is not None:
        metrics.STREAM_CUTS.labels("reset").inc()
        await outlet.send(Batch((problem_message(request, RESET, problem),)))
    if place is None:
        place = await _tell_snapshot(following, outlet)
    else:
        await outlet.send(Batch((Message("", b"", str(place)),)))
    fanout = request.app[FANOUT]
    events = fanout.subscribe(place.vector, following.clusters, following.wanted, place.mark)
    async with aclosing(events):
        async for batch in events:
            await outlet.send(batch)
            # One that waits for news holds nothing of what it was sent.
            del batch


async def _tell_snapshot(following: _Following, outlet: Outlet) -> EventPlace:
    """Tell everything that exists, and return of when."""
    node = following.request.app[NODE]
    async with following.request.app[EXISTING].snapshot(following.clusters) as snapshot:
        begin = {"clusters": sorted(snapshot.vector)}
        await outlet.send(Batch((Message(SNAPSHOT_BEGIN, orjson.dumps(begin)),)))
        count = await _tell_items(following, outlet, snapshot)
        place = node.history.place(snapshot.vector)
        end = {"items": count, "vector": format_vector(snapshot.vector)}
        await outlet.send(Batch((Message(SNAPSHOT_END, orjson.dumps(end), str(place)),)))
        return place


async def _tell_items(following: _Following, outlet: Outlet, snapshot: Snapshot) -> int:
    """Tell the items that are wanted, and return how many they were. Who takes them so slowly that
    it would hold them for hours is cut.
    """
    app = following.request.app
    limits, clock = app[LIMITS], app[NODE].clock
    began_s = clock.monotonic_s()
    gathered: list[Message] = []
    count = size_bytes = sent_bytes = 0
    for seen, told in enumerate(snapshot.items, 1):
        if following.wanted.passes(told.event):
            gathered.append(Message(told.event.type, event_bytes(told)))
            size_bytes += len(gathered[-1].data)
        if size_bytes < FLUSH_BYTES and seen % SEEN_PER_TURN:
            continue
        await outlet.send(Batch(gathered))
        count, sent_bytes = count + len(gathered), sent_bytes + size_bytes
        gathered, size_bytes = [], 0
        allowed_s = limits.send_timeout_s + sent_bytes / limits.send_bytes_per_s_min
        if clock.monotonic_s() - began_s > allowed_s:
            metrics.STREAM_CUTS.labels("slow").inc()
            raise ClientGoneError
        await app[FANOUT].turn()
    if gathered:
        await outlet.send(Batch(gathered))
    return count + len(gathered)
