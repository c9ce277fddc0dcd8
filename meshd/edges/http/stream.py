"""`/v1/events` as a stream.

For: following the logs of one, some or all clusters, with resumption. Not for: what events mean,
nor how a stream is sent (`outlets`). Invariant: a stream over all its reconnections holds every
event after its start once, in order per cluster, or says `meshd.reset` before it ends.

Every id is a vector: where *all* followed logs stand after that event. The first message is an id
alone, so that a client which lost its connection before any event still resumes where it began.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Final

from aiohttp import web

from meshd.core.telling import event_bytes
from meshd.edges.http.answers import own_state
from meshd.edges.http.limits import NODE
from meshd.edges.http.outlets import Batch, Message, Outlet, serve_stream
from meshd.edges.http.problems import GONE, HttpProblem
from meshd.edges.http.requests import bad_query, check_query, query_choice
from meshd.model.errors import NotFoundError, Problem, RejectedError
from meshd.model.ids import ClusterName, Position, format_vector, parse_vector
from meshd.runtime.node import Node

LAST_EVENT_ID: Final = "Last-Event-ID"
FLUSH_BYTES: Final = 64 * 1024
"""What is gathered at most before it is sent: a catch-up goes at the speed of the socket."""


async def stream_events(request: web.Request) -> web.StreamResponse:
    """Follow until the client goes, or meshd stops."""
    check_query(request, "cluster", "after", "from")
    node = request.app[NODE]
    own_state(node)
    clusters = _clusters(request, node)
    vector = _start(request, node, clusters)

    async def tell(outlet: Outlet) -> None:
        await outlet.send(Batch((Message("", b"", format_vector(vector)),)))
        await _follow(node, outlet, vector, clusters)

    return await serve_stream(request, tell)


def _clusters(request: web.Request, node: Node) -> frozenset[ClusterName]:
    """The clusters that are asked for; none means all, also those that join later."""
    named = frozenset(ClusterName(name) for name in request.query.getall("cluster", []))
    known = {node.projector.own, *node.peers.names(), *node.projector.states}
    unknown = sorted(named - known)
    if unknown:
        raise NotFoundError(f"there is no cluster {unknown[0]!r} here")
    return named


def _start(
    request: web.Request, node: Node, clusters: frozenset[ClusterName]
) -> dict[ClusterName, Position]:
    """Where to begin: at a position that the client names, or as `from` says."""
    where = query_choice(request, "from", "now", ("now", "beginning"))
    text = request.headers.get(LAST_EVENT_ID) or request.query.get("after")
    if text is not None:
        return _resume(text, node, clusters)
    if where == "beginning":
        return {}
    at = node.projector.log_vector()
    return {name: position for name, position in at.items() if not clusters or name in clusters}


def _resume(text: str, node: Node, clusters: frozenset[ClusterName]) -> dict[ClusterName, Position]:
    """A vector that a client brings back; raises for one that can't be gone on from.

    The own log is read to its end here, so an own position beyond it is of a history that a restore
    took back. A peer's may be: what was told from memory needn't be in the replica yet.
    """
    try:
        vector = parse_vector(text)
    except RejectedError as error:
        raise bad_query("after", str(error)) from None
    own = node.projector.own
    followed = {name: vector[name] for name in vector if not clusters or name in clusters}
    for name, position in followed.items():
        head = node.projector.head(name)
        if head is None:
            continue
        if position.log_id != head.log_id:
            raise _gone(f"log {position.log_id} of {name} was replaced by log {head.log_id}")
        if name == own and position.seq > head.seq:
            raise _gone(
                f"seq {position.seq} of {name} was lost in a restore; it ends at {head.seq}"
            )
    return followed


def _gone(what: str) -> HttpProblem:
    remedy = "read /v1/tables, then follow from its events_after"
    return HttpProblem(GONE, what, (Problem(LAST_EVENT_ID, what, remedy),))


async def _follow(
    node: Node,
    outlet: Outlet,
    vector: dict[ClusterName, Position],
    clusters: frozenset[ClusterName],
) -> None:
    gathered: list[Message] = []
    size_bytes = 0
    async with aclosing(node.history.follow(vector, clusters)) as events:
        async for told in events:
            if told is not None:
                vector[told.position.cluster] = told.position
                message = Message(told.event.type, event_bytes(told), format_vector(vector))
                gathered.append(message)
                size_bytes += len(message.data) + len(message.id)
            if gathered and (told is None or size_bytes >= FLUSH_BYTES):
                await outlet.send(Batch(gathered))
                gathered, size_bytes = [], 0
                # A catch-up from memory never waits by itself; others want their turn.
                await asyncio.sleep(0)
