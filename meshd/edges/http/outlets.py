"""How a stream is sent: one client's connection, from its admission to its end.

For: everything that streams have in common, whatever they tell. Not for: what is told, and from
where on (`stream`). Invariants: a client that takes nothing is cut after a while, having cost a
socket and a buffer; it delays nobody; a stream that can't go on says so before it ends.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final

import orjson
import structlog
from aiohttp import hdrs, web

from meshd.core.telling import RESET
from meshd.edges.http.limits import LIMITS, NODE
from meshd.edges.http.messages import Batch, ClientGoneError, Message, Outlet
from meshd.edges.http.problems import HttpProblem, problem_fields, problem_of
from meshd.edges.http.requests import EVENT_STREAM, is_upgrade
from meshd.edges.http.websocket import WebSocketOutlet
from meshd.model.errors import MeshdError, OverloadedError
from meshd.runtime.history import GoneError
from meshd.telemetry import metrics

__all__ = ["ERROR", "RESET", "Batch", "ClientGoneError", "Message", "Outlet", "serve_stream"]

log = structlog.get_logger(__name__)

RETRY_MS: Final = 2000
"""What a client waits before it connects again; a restart of meshd is over by then."""
ERROR: Final = "meshd.error"
"""The stream ends here and can be resumed."""
SUBSCRIBER_RETRY_AFTER_S: Final = 5.0
UNSENT_BYTES_MAX: Final = 128 * 1024
"""What the kernel takes for a client beyond what is under way to it. By itself it takes 4 MiB for
each who stopped, which counts as memory of meshd's container."""


class Subscribers:
    """How many streams there are, in all and of each client, and the word that ends them all."""

    def __init__(self, most: int, most_per_client: int) -> None:
        self.stopping = asyncio.Event()
        self._most = most
        self._most_per_client = most_per_client
        self._of_clients: Counter[str] = Counter()

    @contextmanager
    def admitted(self, client: str) -> Iterator[None]:
        """Count a client's stream as long as it lasts; raises OverloadedError for one too many."""
        of_clients = self._of_clients
        if of_clients.total() >= self._most:
            raise OverloadedError("the list of event streams", SUBSCRIBER_RETRY_AFTER_S)
        if of_clients[client] >= self._most_per_client:
            what = f"the list of event streams to {client} (streams.per_client_max)"
            raise OverloadedError(what, SUBSCRIBER_RETRY_AFTER_S)
        of_clients[client] += 1
        try:
            with metrics.STREAM_SUBSCRIBERS.track_inprogress():
                yield
        finally:
            of_clients[client] -= 1
            if not of_clients[client]:
                del of_clients[client]


SUBSCRIBERS: Final = web.AppKey("SUBSCRIBERS", Subscribers)

Tell = Callable[[Outlet], Awaitable[None]]
"""Sends what there is to tell, for ever; a MeshdError that it raises is said, and ends it."""


async def serve_stream(request: web.Request, tell: Tell) -> web.StreamResponse:
    """Tell until the client goes, or meshd stops; raises OverloadedError if there are too many."""
    with request.app[SUBSCRIBERS].admitted(request.remote or "somebody"):
        outlet = WebSocketOutlet(request) if is_upgrade(request) else _SseOutlet(request)
        await outlet.open()
        _bound_unsent(request)
        try:
            problem = await _run(request, outlet, tell)
            await outlet.close(problem)
        except* ClientGoneError:
            log.debug("subscriber is gone", remote=request.remote)
        except* Exception:
            # The answer has begun, so it can only be cut; the client then resumes.
            log.exception("stream failed", remote=request.remote)
            metrics.STREAM_CUTS.labels("bug").inc()
            outlet.cut()
    return outlet.response


def _bound_unsent(request: web.Request) -> None:
    opened = request.transport.get_extra_info("socket") if request.transport else None
    if opened is not None and hasattr(socket, "TCP_NOTSENT_LOWAT"):
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES_MAX)


async def _run(
    request: web.Request, outlet: _SseOutlet | WebSocketOutlet, tell: Tell
) -> HttpProblem | None:
    """Tell; returns why there is nothing more to tell, or None when meshd stops."""
    async with asyncio.TaskGroup() as tasks:
        telling = tasks.create_task(_tell(request, outlet, tell), name="tell")
        beating = tasks.create_task(_beat(request, outlet), name="show life")
        listening = tasks.create_task(outlet.listen(), name="listen")
        stopping = tasks.create_task(_wait_for_stop(request), name="wait for stop")
        await asyncio.wait((telling, stopping), return_when=asyncio.FIRST_COMPLETED)
        problem = telling.result() if telling.done() and not telling.exception() else None
        for task in (telling, beating, listening, stopping):
            task.cancel()
    return problem


async def _wait_for_stop(request: web.Request) -> None:
    await request.app[SUBSCRIBERS].stopping.wait()


async def _beat(request: web.Request, outlet: Outlet) -> None:
    while True:
        await request.app[NODE].clock.sleep(request.app[LIMITS].heartbeat_every_s)
        await outlet.beat()


async def _tell(request: web.Request, outlet: Outlet, tell: Tell) -> HttpProblem | None:
    try:
        await tell(outlet)
    except MeshdError as error:
        problem = problem_of(error)
        name = RESET if isinstance(error, GoneError) else ERROR
        metrics.STREAM_CUTS.labels("reset" if name is RESET else "error").inc()
        await outlet.send(Batch((problem_message(request, name, problem),)))
        return problem
    return None


def problem_message(request: web.Request, name: str, problem: HttpProblem) -> Message:
    """A problem as a message; it has no id, since it is no place to go on from."""
    return Message(name, orjson.dumps(problem_fields(problem, request.path)))


class _SseOutlet:
    """Server-sent events."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._send_timeout_s = request.app[LIMITS].send_timeout_s
        # It is no event by itself: the blank line that ends one comes with the first message.
        self._first = f"retry: {RETRY_MS}\n".encode()
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

    async def send(self, batch: Batch) -> None:
        await self._write(batch.sse)

    async def beat(self) -> None:
        await self._write(b":\n\n")

    async def listen(self) -> None:
        """Nothing: a client that goes ends its request."""
        await asyncio.get_running_loop().create_future()

    async def close(self, problem: HttpProblem | None) -> None:
        """Nothing: the last message said it, and the answer ends."""

    def cut(self) -> None:
        if self._request.transport is not None:
            self._request.transport.abort()

    async def _write(self, frame: bytes) -> None:
        if self._first:
            frame, self._first = self._first + frame, b""
        try:
            async with asyncio.timeout(self._send_timeout_s):
                await self.response.write(frame)
        except TimeoutError as error:
            metrics.STREAM_CUTS.labels("slow").inc()
            self.cut()
            raise ClientGoneError from error
        except ConnectionError as error:
            self.cut()
            raise ClientGoneError from error
