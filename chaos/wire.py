"""A wire between a client and a server that can be cut, silenced and moved.

For: TCP on loopback, without rights. Not for: loss or order of packets, which need a network of
their own. Invariant: what a mode does is done to open connections as to new ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from enum import Enum, auto

CHUNK_BYTES = 64 * 1024


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


class Wire:
    """Listens at one address and leads to another. bytes_back: what the server has sent."""

    def __init__(self, listen: str, target: str) -> None:
        self.listen = listen
        self._target = target
        self._mode = Mode.PASS
        self._changed = asyncio.Event()
        self._open: set[asyncio.StreamWriter] = set()
        self.connections = 0
        self.bytes_back = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Wire]:
        """Carry what is sent as long as the context lasts."""
        host, _, port = self.listen.rpartition(":")
        server = await asyncio.start_server(self._carry, host, int(port))
        try:
            yield self
        finally:
            self.set_mode(Mode.CUT)
            server.close()

    def set_mode(self, mode: Mode) -> None:
        """Break it, or mend it. What a hole has swallowed is not told later: mending it cuts."""
        was, self._mode = self._mode, mode
        self._changed.set()
        self._changed = asyncio.Event()
        if mode is Mode.CUT or (was is Mode.HOLE and mode is Mode.PASS):
            for writer in list(self._open):
                writer.transport.abort()

    def lead_to(self, target: str) -> None:
        """Another server from now on; connections to the old one break."""
        self._target = target
        for writer in list(self._open):
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self._mode is Mode.CUT:
            writer.transport.abort()
            return
        self._open.add(writer)
        try:
            host, _, port = self._target.rpartition(":")
            far_reader, far_writer = await asyncio.open_connection(host, int(port))
        except OSError:
            writer.transport.abort()
            self._open.discard(writer)
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
                self._open.discard(one)
                one.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_back: bool
    ) -> None:
        while data := await reader.read(CHUNK_BYTES):
            while self._mode is Mode.HOLE or (is_back and self._mode is Mode.NO_REPLIES):
                await self._changed.wait()
            if is_back:
                self.bytes_back += len(data)
            writer.write(data)
            await writer.drain()
        with suppress(OSError):
            writer.transport.abort()
