"""Clients who go by their cluster's table, and the backends that answer them over HTTP.

For: what becomes of traffic while clusters have faults. Not for: tables themselves. Invariants: a
client goes by the last table that it had, whatever becomes of the meshd that gave it; a backend
answers for the addresses of its cluster alone, so a table that mixes them up shows.

Commands give backends addresses like `10.<cluster>.…`, which meshd takes of any peer and no machine
has: whoever asks one sends its request to that cluster's server, which runs here and stands for all
of its backends. Requests therefore don't cross what lies between clusters, and no cut harms them.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

import aiohttp
from aiohttp import web

from chaos.history import Request, Row
from chaos.mesh.shape import Cluster
from chaos.recorder import Recorder
from chaos.traffic.counters import Counters
from chaos.traffic.mix import NAMESPACE, SERVICES
from chaos.traffic.pacing import Gate, paced
from chaos.traffic.readers import Reader

REQUEST_TIMEOUT_S: Final = 2.0
HOST: Final = "127.0.0.1"
HERE: Final = "X-Answered-By"


@asynccontextmanager
async def backends(clusters: Sequence[Cluster]) -> AsyncIterator[Mapping[str, str]]:
    """Serve for all backends of all clusters; yields by cluster where its server listens."""
    doors = {}
    async with AsyncExitStack() as stack:
        for cluster in clusters:
            app = web.Application()
            app.router.add_get("/{address}", _Backend(cluster).answer)
            runner = web.AppRunner(app, access_log=None)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            site = web.TCPSite(runner, HOST, 0)
            await site.start()
            doors[cluster.name] = f"{HOST}:{runner.addresses[0][1]}"
        yield doors


@dataclass(frozen=True, slots=True)
class _Backend:
    cluster: Cluster

    async def answer(self, request: web.Request) -> web.Response:
        """Answer for an address, if it is one of this cluster's."""
        is_here = request.match_info["address"].startswith(f"10.{self.cluster.number}.")
        status = 200 if is_here else 502
        return web.Response(status=status, headers={HERE: self.cluster.name})


@dataclass(slots=True)
class Client:
    """Of one cluster. readers: of its meshds, whose tables it goes by."""

    cluster: str
    readers: Sequence[Reader]
    doors: Mapping[str, str]
    chance: random.Random
    http: aiohttp.ClientSession
    recorder: Recorder
    counters: Counters

    async def run(self, every_s: float, gate: Gate) -> None:
        """Send requests for ever."""
        async for _ in paced(every_s, gate, first_s=self.chance.uniform(0, every_s)):
            service = f"{NAMESPACE}/{self.chance.choice(SERVICES)}"
            row = self._choose(service)
            if row is not None:
                await self._ask(service, row)

    def _choose(self, service: str) -> Row | None:
        """A backend of the first tier that may take traffic, by weight."""
        tables = [reader.last for reader in self.readers if reader.last is not None]
        if not tables:
            return None
        newest = max(tables, key=lambda table: table.at_ns)
        able = [row for row in (newest.services or {}).get(service, ()) if not row.reason]
        first = min((row.priority for row in able if row.weight), default=None)
        tier = [row for row in able if row.priority == first and row.weight]
        return self.chance.choices(tier, [row.weight for row in tier])[0] if tier else None

    async def _ask(self, service: str, row: Row) -> None:
        asked_ns = self.recorder.now_ns()
        answered_by = await self._answer(row)
        at_ns = self.recorder.now_ns()
        self.counters.requests[bool(answered_by)] += 1
        self.recorder.note(
            Request(
                at_ns=at_ns,
                cluster=self.cluster,
                service=service,
                answered_by=answered_by,
                backend=row.name,
                took_ns=at_ns - asked_ns,
            )
        )

    async def _answer(self, row: Row) -> str:
        """Whose backend answered; empty if none did."""
        door = self.doors.get(row.cluster)
        if door is None:
            return ""
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
        try:
            async with self.http.get(f"http://{door}/{row.address}", timeout=timeout) as response:
                return response.headers.get(HERE, "") if response.ok else ""
        except (aiohttp.ClientError, OSError, TimeoutError):
            return ""
