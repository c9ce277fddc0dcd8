"""`/v1/events` as a stream of server-sent events.

For: following the logs of one, some or all clusters, with resumption. Not for: what events mean.
Invariants: a stream over all its reconnections holds every event after its start once, in order per
cluster, or says `meshd.reset` before it ends; a subscriber that stands still costs a socket and a
buffer, then is cut; it delays nobody.

Every id is a vector: where *all* followed logs stand after that event. The first frame is an id
alone, so that a client which lost its connection before any event still resumes where it began.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from typing import Final

import orjson
import structlog
from aiohttp import hdrs, web

from meshd.edges.http.answers import own_state
from meshd.edges.http.limits import LIMITS, NODE, Limits
from meshd.edges.http.problems import GONE, HttpProblem, problem_fields, problem_of
from meshd.edges.http.requests import EVENT_STREAM, bad_query, check_query, query_choice
from meshd.edges.http.wire import event_bytes
from meshd.model.errors import MeshdError, NotFoundError, OverloadedError, Problem, RejectedError
from meshd.model.ids import ClusterName, Position, format_vector, parse_vector
from meshd.runtime.history import GoneError, Told
from meshd.runtime.node import Node
from meshd.telemetry import metrics

log = structlog.get_logger(__name__)

LAST_EVENT_ID: Final = "Last-Event-ID"
RETRY_MS: Final = 2000
"""What a client waits before it connects again; a restart of meshd is over by then."""
RESET: Final = "meshd.reset"
"""The stream can't be gone on from: read the tables, then follow anew."""
ERROR: Final = "meshd.error"
"""The stream ends here and can be resumed."""
FLUSH_BYTES: Final = 64 * 1024
"""What is gathered at most before it is sent: a catch-up goes at the speed of the socket."""
SUBSCRIBER_RETRY_AFTER_S: Final = 5.0


class Subscribers:
    """How many streams there are, and the word that ends them all."""

    def __init__(self, most: int) -> None:
        self.stopping = asyncio.Event()
        self._most = most
        self._count = 0

    def __enter__(self) -> None:
        if self._count >= self._most:
            raise OverloadedError("the list of event streams", SUBSCRIBER_RETRY_AFTER_S)
        self._count += 1
        metrics.STREAM_SUBSCRIBERS.inc()

    def __exit__(self, *_: object) -> None:
        self._count -= 1
        metrics.STREAM_SUBSCRIBERS.dec()


SUBSCRIBERS: Final = web.AppKey("SUBSCRIBERS", Subscribers)


async def stream_events(request: web.Request) -> web.StreamResponse:
    """Follow until the client goes, or meshd stops."""
    check_query(request, "cluster", "after", "from")
    node = request.app[NODE]
    own_state(node)
    clusters = _clusters(request, node)
    start = _start(request, node, clusters)
    with request.app[SUBSCRIBERS]:
        response = web.StreamResponse(
            headers={
                hdrs.CONTENT_TYPE: EVENT_STREAM,
                hdrs.CACHE_CONTROL: "no-store",
                # A proxy that gathers answers would hold back events.
                "X-Accel-Buffering": "no",
            }
        )
        await response.prepare(request)
        try:
            await _Stream(request, response, clusters, start).run()
        except* _ClientGoneError:
            log.debug("subscriber is gone", remote=request.remote)
        except* Exception:
            # The answer has begun, so it can only be cut; the client then resumes.
            log.exception("stream failed", remote=request.remote)
            _cut(request)
    return response


class _ClientGoneError(Exception):
    """The client closed its connection, or takes nothing any more."""


def _cut(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


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


class _Stream:
    """One subscriber's connection."""

    def __init__(
        self,
        request: web.Request,
        response: web.StreamResponse,
        clusters: frozenset[ClusterName],
        start: Mapping[ClusterName, Position],
    ) -> None:
        self._request = request
        self._response = response
        self._clusters = clusters
        self._vector = dict(start)
        self._node = request.app[NODE]
        self._limits: Limits = request.app[LIMITS]

    async def run(self) -> None:
        """Tell events, and show life in between, until the client goes or meshd stops."""
        async with asyncio.TaskGroup() as tasks:
            telling = tasks.create_task(self._tell(), name="tell events")
            beating = tasks.create_task(self._beat(), name="show life")
            stopping = tasks.create_task(self._wait_for_stop(), name="wait for stop")
            await asyncio.wait((telling, stopping), return_when=asyncio.FIRST_COMPLETED)
            for task in (telling, beating, stopping):
                task.cancel()

    async def _wait_for_stop(self) -> None:
        await self._request.app[SUBSCRIBERS].stopping.wait()

    async def _beat(self) -> None:
        while True:
            await self._node.clock.sleep(self._limits.heartbeat_every_s)
            await self._send(b":\n\n")

    async def _tell(self) -> None:
        await self._send(f"retry: {RETRY_MS}\nid: {format_vector(self._vector)}\n\n".encode())
        try:
            await self._follow()
        except MeshdError as error:
            fields = problem_fields(problem_of(error), self._request.path)
            name = RESET if isinstance(error, GoneError) else ERROR
            await self._send(f"event: {name}\ndata: ".encode() + orjson.dumps(fields) + b"\n\n")

    async def _follow(self) -> None:
        gathered = bytearray()
        async with aclosing(self._node.history.follow(self._vector, self._clusters)) as events:
            async for told in events:
                if told is not None:
                    gathered += self._frame(told)
                if gathered and (told is None or len(gathered) >= FLUSH_BYTES):
                    await self._send(bytes(gathered))
                    gathered.clear()
                    # A catch-up from memory never waits by itself; others want their turn.
                    await asyncio.sleep(0)

    def _frame(self, told: Told) -> bytes:
        self._vector[told.position.cluster] = told.position
        head = f"id: {format_vector(self._vector)}\nevent: {told.event.type}\ndata: "
        return head.encode() + event_bytes(told) + b"\n\n"

    async def _send(self, frame: bytes) -> None:
        """Send; a client that takes nothing for too long is cut."""
        try:
            async with asyncio.timeout(self._limits.send_timeout_s):
                await self._response.write(frame)
        except (TimeoutError, ConnectionError) as error:
            _cut(self._request)
            raise _ClientGoneError from error
