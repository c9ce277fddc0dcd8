"""Writes that are sent once, or not at all.

For: sessions of aiohttp whose callers must know whether a request may have arrived. Not for: reads,
which may be asked again. Invariant: what aiohttp raises as "can't connect" was never sent.

By itself aiohttp sends a PUT or a DELETE whose connection broke a second time (`ClientSession`,
"idempotent methods"), with a connection of its own. Where a server has died meanwhile it then says
that nobody could be connected to, though the first one had arrived.
"""

from __future__ import annotations

from typing import Final

import aiohttp

READS: Final = frozenset({"GET", "HEAD"})


class BrokenConnectionError(aiohttp.ClientConnectionError):
    """The connection broke under a request, which may have arrived."""


async def sent_once(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Middleware of a session that keeps aiohttp from sending a write again."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        if request.method in READS:
            raise
        # Of any other class aiohttp takes no notice.
        raise BrokenConnectionError(str(error) or type(error).__name__) from error
