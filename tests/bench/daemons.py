"""A meshd as people run it, on an etcd of its own, and what writes to it.

For: benches over real sockets. Not for: measuring. All is on loopback.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson

from chaos.mesh.servers import dying_with_us
from tests.bench.places import api_at, etcd_at

ETCD: Final = etcd_at(4)
API: Final = api_at(4)
NAMESPACE: Final = "bench"
SERVICE_PATH: Final = f"/v1/services/{NAMESPACE}/web"
TABLE_PATH: Final = f"/v1/tables/{NAMESPACE}/web"
START_TIMEOUT_S: Final = 60.0
SETTLE_TIMEOUT_S: Final = 120.0
"""Longer than the largest table of a bench takes to be made."""
PAGE_BYTES: Final = 4096
TICKS_PER_S: Final = 100
_numbers = count(1)


@dataclass(slots=True)
class Meshd:
    """One process."""

    process: asyncio.subprocess.Process
    http: aiohttp.ClientSession = field(repr=False)
    address: str = API

    async def get(self, path: str) -> bytes:
        """Read one answer."""
        async with self.http.get(f"http://{self.address}{path}") as response:
            response.raise_for_status()
            return await response.read()

    async def metric(self, name: str) -> float:
        """One metric, with its labels as they are written; 0 if it isn't there."""
        for line in (await self.get("/metrics")).decode().splitlines():
            if line.startswith(f"{name} "):
                return float(line.rpartition(" ")[2])
        return 0.0

    async def put(self, path: str, body: object) -> None:
        """Write one thing."""
        async with self.http.put(f"http://{self.address}{path}", json=body) as response:
            response.raise_for_status()
            await response.read()

    async def touch(self) -> None:
        """Write one event by itself."""
        number = next(_numbers)
        body = {"address": f"10.9.0.{number % 250 + 1}", "weight": number % 1000 + 1}
        await self.put(f"{SERVICE_PATH}/endpoints/one", body)

    async def touch_many(self, events: int, writer: int = 0, service: str = "") -> None:
        """Write so many events with one request, which become one record. writer: several of them
        at once write of endpoints of their own. service: whose; one of the writer's if left out.
        """
        async with self.http.post(
            f"http://{self.address}/v1/apply",
            data=orjson.dumps(_slice(next(_numbers), events, service or f"many-{writer}")),
            headers={"Content-Type": "application/json"},
        ) as response:
            response.raise_for_status()
            await response.read()

    def slice_bytes(self, events: int) -> int:
        """The JSON of a request of `touch_many`."""
        return len(orjson.dumps(_slice(0, events, "many-0")))

    def rss_bytes(self) -> int:
        """What it has in memory."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * PAGE_BYTES

    async def settled_rss_bytes(self) -> int:
        """What it has in memory once it does nothing any more."""
        async with asyncio.timeout(SETTLE_TIMEOUT_S):
            while True:
                before = self.cpu_s()
                await asyncio.sleep(0.5)
                if self.cpu_s() - before <= 0.05:
                    return self.rss_bytes()

    def cpu_s(self) -> float:
        """The processor time that it took so far."""
        return cpu_s_of(self.process.pid)


def cpu_s_of(pid: int) -> float:
    """The processor time that a process took so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def _slice(number: int, events: int, service: str) -> dict[str, Any]:
    """An EndpointSlice whose endpoints all have another port than in the one before."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": NAMESPACE,
            "name": service,
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 1024 + number % 60_000, "protocol": "TCP"}],
        "endpoints": [
            {
                "addresses": [f"10.{one >> 8}.{one & 255}.1"],
                "conditions": {"ready": True},
                "nodeName": f"node-{one % 10}",
                "targetRef": {"kind": "Pod", "namespace": NAMESPACE, "name": f"{service}-{one}"},
            }
            for one in range(events)
        ],
    }


@asynccontextmanager
async def meshd(
    folder: Path, *overrides: str, config: Path | None = None, address: str = API
) -> AsyncIterator[Meshd]:
    """Run one on the etcd that is at `ETCD`, unless an override says another. config: more settings
    than a command line takes. address: where it serves.
    """
    settings = (
        "cluster.name=bench",
        "cluster.id=1",
        f"etcd.endpoints={ETCD}",
        f"api.listen={address}",
        "streams.subscribers_max=2000",
        "streams.per_client_max=2000",
        *overrides,
    )
    timeout = aiohttp.ClientTimeout(total=START_TIMEOUT_S)
    with (folder / "meshd.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *dying_with_us(),
            *(sys.executable, "-m", "meshd", "run"),
            *(() if config is None else ("--config", str(config))),
            *(part for one in settings for part in ("--set", one)),
            stdout=log,
            stderr=log,
        )
    try:
        async with aiohttp.ClientSession(timeout=timeout) as http:
            started = Meshd(process, http, address)
            await _until_ready(started)
            service = {"ports": [{"name": "http", "port": 80}], "global": True}
            await started.put(SERVICE_PATH, service)
            yield started
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _until_ready(started: Meshd) -> None:
    async with asyncio.timeout(START_TIMEOUT_S):
        while True:
            with suppress(aiohttp.ClientError):
                if orjson.loads(await started.get("/readyz"))["ready"]:
                    return
            if started.process.returncode is not None:
                raise RuntimeError("meshd ended")
            await asyncio.sleep(0.05)
