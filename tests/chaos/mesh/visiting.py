"""Who visits a mesh under test: writes to clusters and reads their tables, as anybody would."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from chaos.mesh.choose import running_mesh
from chaos.mesh.clusters import RunMesh
from chaos.mesh.servers import Listener
from chaos.mesh.shape import Plan

WEB = {"global": True, "ports": [{"port": 80, "name": "http"}]}
DRIVERS = ("loopback", "namespaces")
FAST = ("replication.heartbeat_every_s=0.2", "staleness.stale_after_s=1")


def plan(folder: Path, *names: str, **more: Any) -> Plan:
    return Plan(names=names, folder=folder, settings=FAST, **more)


@dataclass
class Visitor:
    mesh: RunMesh
    http: aiohttp.ClientSession

    def url(self, cluster: str, path: str) -> str:
        return f"http://{self.mesh.clusters[cluster].meshds[0].address}{path}"

    async def get(self, cluster: str, path: str) -> Any:
        async with self.http.get(self.url(cluster, path)) as response:
            return await response.json()

    async def put(self, cluster: str, path: str, body: dict[str, Any]) -> None:
        async with self.http.put(self.url(cluster, path), json=body) as response:
            assert response.status in {200, 201}, await response.text()

    async def add(self, cluster: str, number: int) -> str:
        """Add a backend; returns its address."""
        address = f"10.0.0.{number}"
        path = f"/v1/services/shop/web/endpoints/e{number}"
        await self.put(cluster, path, {"address": address})
        return address

    async def backends(self, cluster: str) -> dict[str, Any]:
        table = await self.get(cluster, "/v1/tables/shop/web")
        return {backend["address"]: backend for backend in table.get("backends", ())}

    async def until_there(self, cluster: str, address: str) -> Any:
        while True:
            with suppress(aiohttp.ClientError, TimeoutError):
                if (found := await self.backends(cluster)).get(address):
                    return found[address]
            await asyncio.sleep(0.05)

    async def until_phase(self, cluster: str, peer: str, is_right: Callable[[str], bool]) -> None:
        """Wait until a cluster sees a peer so; the test's own timeout is the limit."""
        path = f"/v1/peers/{peer}"
        while not is_right((await self.get(cluster, path))["phase"]):  # noqa: ASYNC110 a table
            await asyncio.sleep(0.05)


def is_ready(phase: str) -> bool:
    return phase == "Ready"


def is_not_ready(phase: str) -> bool:
    return phase != "Ready"


@asynccontextmanager
async def visited(
    wanted: Plan, driver: str, listener: Listener | None = None
) -> AsyncIterator[Visitor]:
    timeout = aiohttp.ClientTimeout(total=10)
    async with (
        running_mesh(wanted, driver, listener) as mesh,
        aiohttp.ClientSession(timeout=timeout) as http,
    ):
        visitor = Visitor(mesh, http)
        for name in mesh.clusters:
            await visitor.put(name, "/v1/services/shop/web", WEB)
        yield visitor
