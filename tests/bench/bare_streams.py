"""A bare asyncio server that sends ready-made events: what no fan-out in Python can beat.

For: the reference of the streams' figures, in a process of its own as meshd is. Not for: anything
but this: it encodes nothing, reads no log, and every connection gets the same bytes.

`python -m tests.bench.bare_streams HOST:PORT` takes lines `batches events_per_batch` on standard
input; for each it sends so much to all who are connected, and answers with its memory in bytes.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.bench.places import api_at

BARE: Final = api_at(5)
EVENT_BYTES: Final = 495
"""What an event of the bench has as a server-sent event, so that both send the same bytes."""
HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)
PAGE_BYTES: Final = 4096


def _batch(events: int) -> bytes:
    start = b"id: bench/0123456789abcdef0123456789abcdef/123456\nevent: endpoint.set\ndata: "
    body = (start + b"x" * (EVENT_BYTES - len(start) - 2) + b"\n\n") * events
    return b"%x\r\n%b\r\n" % (len(body), body)


async def serve(address: str) -> None:
    """Serve until standard input ends."""
    writers: set[asyncio.StreamWriter] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD)
        writers.add(writer)
        try:
            await reader.read()
        except ConnectionError:
            pass
        finally:
            writers.discard(writer)
            writer.close()

    host, _, port = address.rpartition(":")
    server = await asyncio.start_server(connected, host, int(port), backlog=1024)
    commands = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    async with server:
        _say()
        while line := await commands.readline():
            batches, events = map(int, line.split())
            for _ in range(batches):
                batch = _batch(events)
                for writer in writers:
                    writer.write(batch)
                for writer in list(writers):
                    await writer.drain()
            _say()


def _say() -> None:
    print(int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES, flush=True)


@dataclass(frozen=True, slots=True)
class Bare:
    """The process."""

    process: asyncio.subprocess.Process
    address: str = BARE

    async def send(self, batches: int, events_per_batch: int) -> int:
        """Send so much to all; returns its memory in bytes afterwards."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{batches} {events_per_batch}\n".encode())
        return await self.answer()

    async def answer(self) -> int:
        """Wait for its next answer."""
        assert self.process.stdout is not None
        return int(await self.process.stdout.readline())


@asynccontextmanager
async def bare_streams() -> AsyncIterator[Bare]:
    """Run it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.bare_streams", BARE),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        bare = Bare(process)
        await bare.answer()
        yield bare
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
