"""A wire between a client and a server that can be cut, silenced, slowed and moved.

For: TCP on loopback, without rights. Not for: loss or order of packets, which need a network of
their own. Invariant: what a mode or a flow does is done to open connections as to new ones.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import Enum, auto

CHUNK_BYTES = 64 * 1024
LATE_MAX = 64
"""Chunks on their way in one direction of a connection: 4 MiB, a long fat line's worth."""
PER_S = 20
"""A slow flow carries its bytes in so many portions a second, and not a chunk at a time."""


class Mode(Enum):
    """What happens to what is sent."""

    PASS = auto()
    """Everything arrives."""
    CUT = auto()
    """Connections break, and new ones are refused."""
    HOLE = auto()
    """Connections stay open and new ones are taken, and nothing arrives on either side."""
    NO_REPLIES = auto()
    """Requests arrive; answers don't."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """How the bytes of one direction fare, beside what the mode does. is_held: they don't arrive
    until it ends, as TCP repeats what was lost. rate_bytes_s: of each connection; 0 for no limit.
    """

    is_held: bool = False
    delay_s: float = 0.0
    jitter_s: float = 0.0
    rate_bytes_s: int = 0


FREE = Flow()


class Wire:
    """Listens at one address and leads to another. bytes_forth, bytes_back: what has arrived at the
    server, and at clients.
    """

    def __init__(self, listen: str, target: str, chance: random.Random | None = None) -> None:
        self.listen = listen
        self._target = target
        self._chance = chance or random.Random(0)  # noqa: S311 lateness is no secret
        self._mode = Mode.PASS
        self._forth, self._back = FREE, FREE
        self._changed = asyncio.Event()
        self._open: set[asyncio.StreamWriter] = set()
        self._clients: set[asyncio.StreamWriter] = set()
        self._carrying: set[asyncio.Task[None]] = set()
        self.connections = 0
        self.bytes_forth = 0
        self.bytes_back = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Wire]:
        """Carry what is sent as long as the context lasts."""
        host, _, port = self.listen.rpartition(":")
        server = await asyncio.start_server(self._carry, host, int(port))
        try:
            yield self
        finally:
            self.set_flows()
            self.set_mode(Mode.CUT)
            server.close()
            if self._carrying:
                await asyncio.wait(self._carrying)

    def set_mode(self, mode: Mode) -> None:
        """Break it, or mend it. What a hole has swallowed is not told later: mending it cuts."""
        was, self._mode = self._mode, mode
        if mode is Mode.CUT or (was is Mode.HOLE and mode is Mode.PASS):
            self._abort()
        self._tell()

    def set_flows(self, *, forth: Flow = FREE, back: Flow = FREE) -> None:
        """Let requests and answers fare like that from now on."""
        self._forth, self._back = forth, back
        self._tell()

    def lead_to(self, target: str) -> None:
        """Another server from now on; connections to the old one break."""
        self._target = target
        self._abort()

    def reset(self) -> int:
        """Break all connections, as each side is told; returns how many clients had."""
        count = len(self._clients)
        for writer in self._open:
            _reset_at_close(writer)
        self._abort()
        return count

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _abort(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()
        # Who waits for better times has nothing left to wait for.
        self._tell()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._carrying.add(task)
            task.add_done_callback(self._carrying.discard)
        self.connections += 1
        if self._mode is Mode.CUT:
            writer.transport.abort()
            return
        self._open.add(writer)
        self._clients.add(writer)
        try:
            host, _, port = self._target.rpartition(":")
            far_reader, far_writer = await asyncio.open_connection(host, int(port))
        except OSError:
            writer.transport.abort()
            self._forget(writer)
            return
        self._open.add(far_writer)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pump(reader, far_writer, is_back=False))
                tasks.create_task(self._pump(far_reader, writer, is_back=True))
        except* OSError:
            pass
        finally:
            for one in (writer, far_writer):
                self._forget(one)
                one.transport.abort()

    def _forget(self, writer: asyncio.StreamWriter) -> None:
        self._open.discard(writer)
        self._clients.discard(writer)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_back: bool
    ) -> None:
        late: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(maxsize=LATE_MAX)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._take(reader, late, is_back=is_back))
            tasks.create_task(self._give(late, writer, is_back=is_back))

    async def _take(
        self,
        reader: asyncio.StreamReader,
        late: asyncio.Queue[tuple[float, bytes]],
        *,
        is_back: bool,
    ) -> None:
        """Take what is sent, and say when it is due: never before what was sent before it."""
        due_s = 0.0
        is_open = True
        while is_open:
            data = b""
            with suppress(OSError):
                data = await reader.read(CHUNK_BYTES)
            flow = self._flow(is_back=is_back)
            jitter_s = self._chance.uniform(-flow.jitter_s, flow.jitter_s)
            now_s = asyncio.get_running_loop().time()
            due_s = max(due_s, now_s + max(0.0, flow.delay_s + jitter_s))
            is_open = bool(data)
            await late.put((due_s, data))

    async def _give(
        self,
        late: asyncio.Queue[tuple[float, bytes]],
        writer: asyncio.StreamWriter,
        *,
        is_back: bool,
    ) -> None:
        """Give what is due; the end of what is sent ends the connection."""
        while True:
            due_s, data = await late.get()
            await self._until(due_s, writer)
            while self._is_held(is_back=is_back) and not writer.is_closing():
                await self._changed.wait()
            if not data:
                break
            rate_bytes_s = self._flow(is_back=is_back).rate_bytes_s
            for portion in _portions(data, rate_bytes_s):
                if is_back:
                    self.bytes_back += len(portion)
                else:
                    self.bytes_forth += len(portion)
                writer.write(portion)
                await writer.drain()
                if rate_bytes_s:
                    await asyncio.sleep(len(portion) / rate_bytes_s)
        with suppress(OSError):
            writer.transport.abort()

    async def _until(self, due_s: float, writer: asyncio.StreamWriter) -> None:
        """Wait until then, or until the connection is broken."""
        with suppress(TimeoutError):
            async with asyncio.timeout_at(due_s):
                while not writer.is_closing():
                    await self._changed.wait()

    def _flow(self, *, is_back: bool) -> Flow:
        return self._back if is_back else self._forth

    def _is_held(self, *, is_back: bool) -> bool:
        return (
            self._mode is Mode.HOLE
            or (is_back and self._mode is Mode.NO_REPLIES)
            or self._flow(is_back=is_back).is_held
        )


def _portions(data: bytes, rate_bytes_s: int) -> Iterator[bytes]:
    size = max(1, rate_bytes_s // PER_S) if rate_bytes_s else len(data)
    for start in range(0, len(data), size):
        yield data[start : start + size]


def _reset_at_close(writer: asyncio.StreamWriter) -> None:
    """Have the kernel say that the connection is broken, where it would say that it ended."""
    found = writer.get_extra_info("socket")
    if found is not None:
        with suppress(OSError):
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
