"""A probe that opens a connection, and closes it at once."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress


async def look_by_tcp(address: str, port: int) -> str:
    """Whether something takes connections there."""
    try:
        _, writer = await asyncio.open_connection(address, port)
    except OSError as error:
        return os.strerror(error.errno).lower() if error.errno else "can't be reached"
    # A reset ends it without the other side having to answer.
    writer.transport.abort()
    with suppress(OSError):
        await writer.wait_closed()
    return ""
