"""A stream as a WebSocket: the same messages, each a JSON text.

For: browsers and proxies that let nothing else through. Not for: what is sent (`messages`).
Invariants: a client that takes nothing is cut as with server-sent events; one that sends anything
is told that nobody listens; an end says why in its close code.
"""

from __future__ import annotations

import asyncio
from typing import Final

from aiohttp import WSCloseCode, WSMsgType, web

from meshd.edges.http.limits import LIMITS
from meshd.edges.http.messages import Batch, ClientGoneError
from meshd.edges.http.problems import HttpProblem
from meshd.telemetry import metrics

CLOSE_CODE_BASE: Final = 4000
"""What an application may use begins here; the problem's status is added."""
REASON_BYTES_MAX: Final = 123
"""What a close frame has room for."""
CLOSING_TIMEOUT_S: Final = 1.0
"""How long a client may take to agree to an end; then its connection is closed all the same."""
MESSAGE_BYTES_MAX: Final = 4096
"""A client has nothing to say here, so it may say little before it is closed."""


class WebSocketOutlet:
    """One client's WebSocket."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._send_timeout_s = request.app[LIMITS].send_timeout_s
        # No compression: it would be made anew for each subscriber, with 64 KiB of memory each.
        self.response = web.WebSocketResponse(
            timeout=CLOSING_TIMEOUT_S, max_msg_size=MESSAGE_BYTES_MAX, compress=False
        )

    async def open(self) -> None:
        """Answer the upgrade; raises web.HTTPBadRequest for one that can't be."""
        await self.response.prepare(self._request)

    async def send(self, batch: Batch) -> None:
        """Send each message as a text."""
        try:
            async with asyncio.timeout(self._send_timeout_s):
                for text in batch.texts:
                    await self.response.send_str(text)
        except TimeoutError as error:
            metrics.STREAM_CUTS.labels("slow").inc()
            self.cut()
            raise ClientGoneError from error
        except ConnectionError as error:
            raise ClientGoneError from error

    async def beat(self) -> None:
        """Send a ping; the client's side answers it by itself."""
        try:
            async with asyncio.timeout(self._send_timeout_s):
                await self.response.ping()
        except (TimeoutError, ConnectionError) as error:
            self.cut()
            raise ClientGoneError from error

    async def listen(self) -> None:
        """Wait until the client goes; close it if it has something to say."""
        message = await self.response.receive()
        if message.type in {WSMsgType.TEXT, WSMsgType.BINARY}:
            text = b"this stream takes no messages"
            await self.response.close(code=WSCloseCode.UNSUPPORTED_DATA, message=text)
        raise ClientGoneError

    async def close(self, problem: HttpProblem | None) -> None:
        """End it. problem: why; None if meshd stops."""
        code, reason = int(WSCloseCode.GOING_AWAY), "meshd stops here; connect again"
        if problem is not None:
            code, reason = CLOSE_CODE_BASE + problem.kind.status, problem.kind.title
        await self.response.close(code=code, message=reason.encode()[:REASON_BYTES_MAX])

    def cut(self) -> None:
        """End it at once."""
        if self._request.transport is not None:
            self._request.transport.abort()
