"""Messages of streams, as bytes of server-sent events and as texts of a WebSocket.

For: what is sent. Not for: sending it (`outlets`, `websocket`). Invariant: pure; a batch has each
of its forms made once, however many subscribers take it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import orjson


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

    __slots__ = ("_sse", "_texts", "messages")

    def __init__(self, messages: Sequence[Message]) -> None:
        self.messages = messages
        self._sse: bytes | None = None
        self._texts: tuple[str, ...] | None = None

    @property
    def sse(self) -> bytes:
        """As server-sent events."""
        if self._sse is None:
            self._sse = b"".join(map(sse_bytes, self.messages))
        return self._sse

    @property
    def texts(self) -> tuple[str, ...]:
        """As JSON, each message by itself."""
        if self._texts is None:
            self._texts = tuple(map(json_text, self.messages))
        return self._texts


def sse_bytes(message: Message) -> bytes:
    """One message as a server-sent event."""
    place = f"id: {message.id}\n".encode() if message.id else b""
    if not message.data:
        return place + b"\n"
    return place + b"event: " + message.event.encode() + b"\ndata: " + message.data + b"\n\n"


def json_text(message: Message) -> str:
    """One message as a JSON object; null for what it hasn't got."""
    data = orjson.Fragment(message.data) if message.data else None
    fields = {"id": message.id or None, "event": message.event or None, "data": data}
    return orjson.dumps(fields).decode()


class ClientGoneError(Exception):
    """The client closed its connection, or takes nothing any more."""


class Outlet(Protocol):
    """Where a stream's messages go. Both raise ClientGoneError once nobody takes them."""

    async def send(self, batch: Batch) -> None:
        """Send messages, in order; returns when there is room for more."""

    async def beat(self) -> None:
        """Show life, so that proxies keep the connection and a cut is noticed by both sides."""
