"""A server that dies of what it is asked: who asks can't know whether it was done.

For: tests of clients. Not for: answering. Invariant: nobody can connect again afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def dying() -> AsyncIterator[tuple[str, list[bytes]]]:
    """Its `host:port`, and the heads of the requests that arrived."""
    arrived: list[bytes] = []

    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.append(await reader.readuntil(b"\r\n\r\n"))
        server.close()
        writer.transport.abort()

    server = await asyncio.start_server(die, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield f"{host}:{port}", arrived
    finally:
        server.close()
