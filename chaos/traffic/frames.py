"""Server-sent events out of bytes.

For: subscribers. Not for: what they say. Invariant: a message counts once its blank line has come;
what a cut leaves behind it never does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Final

MESSAGE_BYTES_MAX: Final = 16 * 1024 * 1024
"""An event is at most some 1.5 MB, what etcd takes; escapes of JSON may make it ten times that."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One message. place: its `id`, empty if it has none."""

    kind: str
    place: str
    data: str


async def frames(chunks: AsyncIterator[bytes]) -> AsyncIterator[Frame]:
    """The messages of a stream; raises ValueError for one that is too long."""
    waiting = bytearray()
    async for chunk in chunks:
        waiting += chunk
        whole, end, rest = bytes(waiting).rpartition(b"\n\n")
        if end:
            waiting = bytearray(rest)
            for frame in _frames_in(whole):
                yield frame
        if len(waiting) > MESSAGE_BYTES_MAX:
            raise ValueError(f"a message has more than {MESSAGE_BYTES_MAX} bytes")


def _frames_in(raw: bytes) -> Iterator[Frame]:
    for text in raw.decode().split("\n\n"):
        found = {"event": "", "id": "", "data": ""}
        for line in text.split("\n"):
            name, _, value = line.partition(":")
            if name in found:
                found[name] = value.removeprefix(" ")
        if any(found.values()):
            yield Frame(found["event"], found["id"], found["data"])
