"""Connections on which nothing is asked: clients that are silent, or never finish a request's head.

For: closing them, since each holds a descriptor and aiohttp lets them be. Not for: bodies, answers
and streams, which have limits of their own. Invariant: nobody is cut off while a request of theirs
is under way.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from meshd.edges.http.limits import LIMITS, Limits

log = structlog.get_logger(__name__)

LOOK_EVERY_S: Final = 1.0
LOOKS_IN_A_TIMEOUT: Final = 4
"""So exact is a time-out that is shorter than some seconds."""


@dataclass(slots=True)
class Connections:
    """Which connections have a request under way, and since when the others have none."""

    _busy: Counter[object] = field(default_factory=Counter)
    _asked: set[object] = field(default_factory=set)
    _idle_since_s: dict[object, float] = field(default_factory=dict)

    def begin(self, transport: object) -> None:
        """A request's head is there."""
        self._busy[transport] += 1
        self._asked.add(transport)
        self._idle_since_s.pop(transport, None)

    def end(self, transport: object) -> None:
        """It is answered, or given up."""
        self._busy[transport] -= 1
        if self._busy[transport] <= 0:
            del self._busy[transport]

    async def keep_closing(self, server: web.Server, limits: Limits) -> None:
        """Close those that have been idle for too long, for ever."""
        shortest_s = min(limits.head_timeout_s, limits.idle_timeout_s)
        every_s = min(LOOK_EVERY_S, shortest_s / LOOKS_IN_A_TIMEOUT)
        while True:
            await asyncio.sleep(every_s)
            self._close_idle(server, limits, asyncio.get_running_loop().time())

    def _close_idle(self, server: web.Server, limits: Limits, now_s: float) -> None:
        idle_since_s: dict[object, float] = {}
        open_: set[object] = set()
        for connection in server.connections:
            transport = connection.transport
            if transport is None:
                continue
            open_.add(transport)
            if transport in self._busy:
                continue
            since_s = self._idle_since_s.get(transport, now_s)
            was_asked = transport in self._asked
            if now_s - since_s > (limits.idle_timeout_s if was_asked else limits.head_timeout_s):
                log.debug("client asks nothing", peer=transport.get_extra_info("peername"))
                connection.force_close()
            else:
                idle_since_s[transport] = since_s
        self._idle_since_s = idle_since_s
        self._asked &= open_


CONNECTIONS: Final = web.AppKey("CONNECTIONS", Connections)


@web.middleware
async def note(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Know that this connection has a request under way."""
    connections, transport = request.app[CONNECTIONS], request.transport
    connections.begin(transport)
    try:
        return await handler(request)
    finally:
        connections.end(transport)


async def keep_closing(app: web.Application, server: web.Server) -> None:
    """Close idle connections of an application's server, for ever."""
    await app[CONNECTIONS].keep_closing(server, app[LIMITS])
