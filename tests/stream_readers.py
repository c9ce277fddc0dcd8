"""Many subscribers of event streams in one process of their own, as cheap as Python allows.

For: benches and tests that need a thousand of them. They count events by a pattern in the bytes and
parse nothing, so that what they cost stays below what is measured. Not for: following events
(`meshd.client`). Invariant: a stopped one reads nothing after the head of its answer.

`python -m tests.stream_readers` takes commands and answers them on its standard streams, a JSON
line each; `Readers` is who speaks to it.
"""

from __future__ import annotations

import asyncio
import sys
import time
from bisect import bisect_left
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final, cast

import orjson

EVENT: Final = b"\nevent: "
"""Stands once in each event, and nowhere else: JSON has no line breaks."""
HEAD_END: Final = b"\r\n\r\n"
BUFFER_BYTES: Final = 256 * 1024
LINE_BYTES_MAX: Final = 16 * 1024 * 1024
CONNECTING_AT_ONCE: Final = 50
GROUPS: Final = count(1)


class Group:
    """Subscribers that were opened together. goal: of events; reached_s: when the last had them."""

    def __init__(self) -> None:
        self.members: list[Subscriber] = []
        self.goal = 0
        self.is_timed = False
        self.missing = 0
        self.reached = asyncio.Event()

    def aim(self, goal: int) -> None:
        """Notice when all have so many events."""
        self.goal = goal
        self.reached.clear()
        self.missing = sum(member.events < goal for member in self.members)
        if not self.missing:
            self.reached.set()


class Subscriber(asyncio.BufferedProtocol):
    """One connection."""

    # All read into the same place: what was read is looked at before the next one reads.
    _place = bytearray(BUFFER_BYTES)
    _view = memoryview(_place)

    def __init__(self, group: Group, *, stops: bool) -> None:
        self.events = self.bytes = 0
        self.arrivals: list[tuple[float, int]] = []
        self.is_lost = False
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._group = group
        self._stops = stops
        self._tail = b""
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        del sizehint
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        if not self.opened.done():
            self._read_head(bytes(self._view[:nbytes]))
        self.bytes += nbytes
        found = self._place.count(EVENT, 0, nbytes)
        if b"\n" in self._tail:
            found += (self._tail + self._place[: min(nbytes, len(EVENT) - 1)]).count(EVENT)
        self._tail = bytes(self._view[max(0, nbytes - len(EVENT) + 1) : nbytes])
        if found:
            self._count(found)

    def _read_head(self, data: bytes) -> None:
        head, _, _ = data.partition(HEAD_END)
        if b" 200 " not in head.partition(b"\r\n")[0]:
            self.opened.set_exception(ConnectionRefusedError(data[:500].decode(errors="replace")))
        else:
            self.opened.set_result(None)
            if self._stops and self.transport is not None:
                self.transport.pause_reading()

    def _count(self, found: int) -> None:
        group = self._group
        before, self.events = self.events, self.events + found
        if group.is_timed:
            self.arrivals.append((time.perf_counter(), self.events))
        if before < group.goal <= self.events:
            group.missing -= 1
            if not group.missing:
                group.reached.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        if not self.opened.done():
            self.opened.set_exception(exc or ConnectionResetError("closed before its answer"))


class Server:
    """What carries out the commands."""

    def __init__(self) -> None:
        self._groups: dict[int, Group] = {}

    async def open(self, address: str, path: str, size: int, *, stops: bool) -> int:
        """Open so many; returns the group's number once all are answered."""
        group, number = Group(), next(GROUPS)
        self._groups[number] = group
        turns = asyncio.Semaphore(CONNECTING_AT_ONCE)
        host, _, port = address.rpartition(":")
        head = f"GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: text/event-stream\r\n\r\n"

        async def one() -> None:
            async with turns:
                loop = asyncio.get_running_loop()
                transport, member = await loop.create_connection(
                    lambda: Subscriber(group, stops=stops), host, int(port)
                )
                transport.write(head.encode())
                await member.opened
                group.members.append(member)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(size):
                tasks.create_task(one())
        return number

    async def until(self, group: int, events: int) -> float:
        """Wait until all of a group have so many events; returns when that was."""
        self._groups[group].aim(events)
        await self._groups[group].reached.wait()
        return time.perf_counter()

    async def time(self, group: int) -> None:
        """Note from now on when events come."""
        self._groups[group].is_timed = True

    async def latencies(self, group: int, acked_s: list[float]) -> dict[str, float]:
        """From the acknowledgement of each event to each subscriber: p50, p99 and most, in s."""
        found: list[float] = []
        for member in self._groups[group].members:
            first = member.events - len(acked_s)
            counts = [events - first for _, events in member.arrivals]
            for number, acked in enumerate(acked_s, 1):
                found.append(member.arrivals[bisect_left(counts, number)][0] - acked)
        found.sort()
        return {
            "p50": found[len(found) // 2],
            "p99": found[len(found) * 99 // 100],
            "most": found[-1],
        }

    async def counts(self, group: int) -> dict[str, float]:
        """What a group has, and the processor time that all of this process took so far."""
        members = self._groups[group].members
        return {
            "least": min(member.events for member in members),
            "most": max(member.events for member in members),
            "events": sum(member.events for member in members),
            "bytes": sum(member.bytes for member in members),
            "lost": sum(member.is_lost for member in members),
            "cpu_s": time.process_time(),
        }

    async def close(self, group: int) -> None:
        """Close a group's connections at once."""
        for member in self._groups.pop(group).members:
            if member.transport is not None:
                member.transport.abort()


async def serve() -> None:
    """Take commands until there are no more."""
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader(limit=LINE_BYTES_MAX)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    server = Server()
    while line := await lines.readline():
        name, given = orjson.loads(line)
        answer: dict[str, object]
        try:
            answer = {"done": await getattr(server, name)(**given)}
        except* (OSError, KeyError, IndexError) as errors:
            answer = {"failed": f"{name}: {errors.exceptions[0]!r}"}
        sys.stdout.buffer.write(orjson.dumps(answer) + b"\n")
        sys.stdout.buffer.flush()


@dataclass(slots=True)
class Readers:
    """The process, and what it can be asked for; one command at a time."""

    process: asyncio.subprocess.Process
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def _ask(self, name: str, **given: object) -> Any:
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        async with self._lock:
            stdin.write(orjson.dumps((name, given)) + b"\n")
            answer = orjson.loads(await stdout.readline() or b'{"failed": "it ended"}')
        if "failed" in answer:
            raise RuntimeError(answer["failed"])
        return answer["done"]

    async def open(self, address: str, path: str, size: int, *, stops: bool = False) -> int:
        """Open so many subscribers; returns their group once all are answered with 200."""
        return int(await self._ask("open", address=address, path=path, size=size, stops=stops))

    async def until(self, group: int, events: int) -> float:
        """Wait until all have so many events; returns when (`time.perf_counter`)."""
        return float(await self._ask("until", group=group, events=events))

    async def time(self, group: int) -> None:
        """Note from now on when events come."""
        await self._ask("time", group=group)

    async def latencies(self, group: int, acked_s: Sequence[float]) -> dict[str, float]:
        """From acknowledgements to all subscribers: p50, p99 and most, in s."""
        return dict(await self._ask("latencies", group=group, acked_s=acked_s))

    async def counts(self, group: int) -> dict[str, float]:
        """Events (least, most, in all), bytes, how many were cut off, the process's cpu_s."""
        return dict(await self._ask("counts", group=group))

    async def close(self, group: int) -> None:
        """Close a group's connections at once."""
        await self._ask("close", group=group)


@asynccontextmanager
async def readers() -> AsyncIterator[Readers]:
    """Run the process."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.stream_readers"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LINE_BYTES_MAX,
    )
    try:
        yield Readers(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


if __name__ == "__main__":
    asyncio.run(serve())
