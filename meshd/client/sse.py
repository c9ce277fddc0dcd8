"""Server-sent events, from bytes to events.

For: the format of the HTML standard's section 9.2. Not for: connections (`stream`). Invariant:
pure; however the bytes are cut, the same events come out, and memory is bounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import cast

import orjson

from meshd.client.answers import CloudEvent

EVENT_BYTES_MAX = 1024 * 1024
"""Far above what an event may be; a stream that goes on without an end of line is no event."""


class Notice(StrEnum):
    """What a stream says beside events."""

    SNAPSHOT_BEGIN = "meshd.snapshot.begin"
    """Everything that exists follows, each thing as its last event; forget what was told before."""
    SNAPSHOT_END = "meshd.snapshot.end"
    """That was everything; what follows are changes of it."""
    RESET = "meshd.reset"
    """The place is gone for good; the data is a problem that says why."""
    FAILED = "meshd.error"
    """The stream ends here and can be resumed; the data is a problem that says why."""


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One event. id: where to resume after it. type: as the server named it. data: its text."""

    id: str
    type: str
    data: str

    def json(self) -> object:
        """The data, read as JSON; raises ValueError."""
        value: object = orjson.loads(self.data)
        return value

    @property
    def notice(self) -> Notice | None:
        """Which notice it is; None for an event."""
        return Notice(self.type) if self.type in set(Notice) else None

    def cloud_event(self) -> CloudEvent:
        """The event that it tells; raises ValueError for what isn't one."""
        value = self.json()
        if self.notice is not None or not isinstance(value, dict) or "specversion" not in value:
            raise ValueError(f"{self.type} is no cloud event")
        return cast("CloudEvent", value)


class SseParser:
    """Takes bytes as they come. retry_ms: how long the server wants to be left alone, if it said.

    last_id: the id of the last event that was dispatched.
    """

    __slots__ = ("_buffer", "_data", "_id", "_type", "last_id", "retry_ms")

    def __init__(self, last_id: str = "") -> None:
        self.last_id = last_id
        self.retry_ms: int | None = None
        self._buffer = b""
        self._id = last_id
        self._type = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> list[StreamEvent]:
        """Take the next bytes; returns the events that they complete. Raises ValueError when an
        event grows beyond all bounds.
        """
        # A CR at the end may be half of a CRLF, so it waits for what follows.
        text = self._buffer + chunk
        held = b"\r" if text.endswith(b"\r") else b""
        lines = text.removesuffix(held).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._buffer = lines.pop() + held
        found = [event for line in lines for event in self._take(line.decode(errors="replace"))]
        size = len(self._buffer) + sum(map(len, self._data))
        if size > EVENT_BYTES_MAX:
            raise ValueError(f"an event of more than {EVENT_BYTES_MAX} bytes")
        return found

    def resumed(self) -> SseParser:
        """A parser for the next connection: it knows the place, and no half event."""
        parser = SseParser(self.last_id)
        parser.retry_ms = self.retry_ms
        return parser

    def _take(self, line: str) -> tuple[StreamEvent, ...]:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "data":
                self._data.append(value)
            case "event":
                self._type = value
            case "id" if "\0" not in value:
                self._id = value
            case "retry" if value.isdecimal():
                self.retry_ms = int(value)
            case _:
                # Comments (heartbeats) and fields of the future.
                pass
        return ()

    def _dispatch(self) -> tuple[StreamEvent, ...]:
        data, kind = self._data, self._type
        self._data, self._type, self.last_id = [], "", self._id
        return (StreamEvent(self._id, kind or "message", "\n".join(data)),) if data else ()
