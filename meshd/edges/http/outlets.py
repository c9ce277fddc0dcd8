"""How a stream is sent: one client's connection, from its admission to its end.

For: everything that streams have in common, whatever they tell. Not for: what is told, and from
where on (`stream`). Invariants: a client that takes nothing is cut after a while, having cost a
socket and a buffer; it delays nobody; a stream that can't go on says so before it ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import orjson
import structlog
from aiohttp import hdrs, web

from meshd.edges.http.limits import LIMITS, NODE
from meshd.edges.http.problems import problem_fields, problem_of
from meshd.edges.http.requests import EVENT_STREAM
from meshd.model.errors import MeshdError, OverloadedError
from meshd.runtime.history import GoneError
from meshd.telemetry import metrics

log = structlog.get_logger(__name__)

RETRY_MS: Final = 2000
"""What a client waits before it connects again; a restart of meshd is over by then."""
RESET: Final = "meshd.reset"
"""The stream can't be gone on from: read the tables, then follow anew."""
ERROR: Final = "meshd.error"
"""The stream ends here and can be resumed."""
SUBSCRIBER_RETRY_AFTER_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a stream. id: where to resume after it, '' where that is as before it.

    event: its name. data: JSON; b"" for a message that only says a place.
    """

    event: str
    data: bytes
    id: str = ""


class Batch:
    """Messages that are sent together, encoded once, however many subscribers take them."""

    __slots__ = ("_sse", "messages")

    def __init__(self, messages: Sequence[Message]) -> None:
        self.messages = messages
        self._sse: bytes | None = None

    @property
    def sse(self) -> bytes:
        """As server-sent events."""
        if self._sse is None:
            self._sse = b"".join(map(sse_bytes, self.messages))
        return self._sse


def sse_bytes(message: Message) -> bytes:
    """One message as a server-sent event."""
    place = f"id: {message.id}\n".encode() if message.id else b""
    if not message.data:
        return place + b"\n"
    return place + b"event: " + message.event.encode() + b"\ndata: " + message.data + b"\n\n"


class Outlet(Protocol):
    """Where a stream's messages go. Both raise ClientGoneError once nobody takes them."""

    async def send(self, batch: Batch) -> None:
        """Send messages, in order; returns when there is room for more."""

    async def beat(self) -> None:
        """Show life, so that proxies keep the connection and a cut is noticed by both sides."""


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


class ClientGoneError(Exception):
    """The client closed its connection, or takes nothing any more."""


Tell = Callable[[Outlet], Awaitable[None]]
"""Sends what there is to tell, for ever; a MeshdError that it raises is said, and ends it."""


async def serve_stream(request: web.Request, tell: Tell) -> web.StreamResponse:
    """Tell until the client goes, or meshd stops; raises OverloadedError if there are too many."""
    with request.app[SUBSCRIBERS]:
        outlet = _SseOutlet(request)
        await outlet.open()
        try:
            await _run(request, outlet, tell)
        except* ClientGoneError:
            log.debug("subscriber is gone", remote=request.remote)
        except* Exception:
            # The answer has begun, so it can only be cut; the client then resumes.
            log.exception("stream failed", remote=request.remote)
            outlet.cut()
    return outlet.response


async def _run(request: web.Request, outlet: Outlet, tell: Tell) -> None:
    async with asyncio.TaskGroup() as tasks:
        telling = tasks.create_task(_tell(request, outlet, tell), name="tell")
        beating = tasks.create_task(_beat(request, outlet), name="show life")
        stopping = tasks.create_task(_wait_for_stop(request), name="wait for stop")
        await asyncio.wait((telling, stopping), return_when=asyncio.FIRST_COMPLETED)
        for task in (telling, beating, stopping):
            task.cancel()


async def _wait_for_stop(request: web.Request) -> None:
    await request.app[SUBSCRIBERS].stopping.wait()


async def _beat(request: web.Request, outlet: Outlet) -> None:
    while True:
        await request.app[NODE].clock.sleep(request.app[LIMITS].heartbeat_every_s)
        await outlet.beat()


async def _tell(request: web.Request, outlet: Outlet, tell: Tell) -> None:
    try:
        await tell(outlet)
    except MeshdError as error:
        fields = problem_fields(problem_of(error), request.path)
        name = RESET if isinstance(error, GoneError) else ERROR
        await outlet.send(Batch((Message(name, orjson.dumps(fields)),)))


class _SseOutlet:
    """Server-sent events."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._send_timeout_s = request.app[LIMITS].send_timeout_s
        self.response = web.StreamResponse(
            headers={
                hdrs.CONTENT_TYPE: EVENT_STREAM,
                hdrs.CACHE_CONTROL: "no-store",
                # A proxy that gathers answers would hold back events.
                "X-Accel-Buffering": "no",
            }
        )

    async def open(self) -> None:
        await self.response.prepare(self._request)
        # It is no event by itself: the blank line that ends one comes with the first message.
        await self._write(f"retry: {RETRY_MS}\n".encode())

    async def send(self, batch: Batch) -> None:
        await self._write(batch.sse)

    async def beat(self) -> None:
        await self._write(b":\n\n")

    def cut(self) -> None:
        if self._request.transport is not None:
            self._request.transport.abort()

    async def _write(self, frame: bytes) -> None:
        try:
            async with asyncio.timeout(self._send_timeout_s):
                await self.response.write(frame)
        except (TimeoutError, ConnectionError) as error:
            self.cut()
            raise ClientGoneError from error
