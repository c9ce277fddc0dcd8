"""A fault on a mesh: it is injected, bites, is healed, and all is well again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from chaos.faults.catalogue import named, possible
from chaos.faults.fault import Fault, Stage
from chaos.faults.ground import EXPORT, LOCAL, ask, etcd_of, running, until
from chaos.faults.signs import when
from chaos.mesh.choose import running_mesh
from chaos.mesh.shape import Kind, Mesh, Plan, Server
from chaos.raw import BrokenError, check_replica, read_log

SERVICE = "/v1/services/shop/web"
BITE_TIMEOUT_S = 60.0
CONVERGE_TIMEOUT_S = 60.0
VICTIM = "east"


def settings_of(faults: Sequence[type[Fault]]) -> tuple[str, ...]:
    """What all of them together want of every meshd."""
    found: dict[str, object] = {}
    for fault in faults:
        for key, value in fault.settings.items():
            assert found.setdefault(key, value) == value, f"two faults differ in {key}"
    return tuple(f"{key}={value}" for key, value in found.items())


@asynccontextmanager
async def mesh_with_a_service(
    folder: Path, names: Sequence[str], **more: Any
) -> AsyncIterator[Mesh]:
    """Run a mesh on loopback in which every cluster has a backend of one service."""
    plan = Plan(names=tuple(names), folder=folder, **more)
    async with running_mesh(plan, driver="loopback") as mesh:
        await define(mesh)
        yield mesh


@asynccontextmanager
async def mesh_for(
    faults: Sequence[type[Fault]], tmp_path_factory: pytest.TempPathFactory, **plan: Any
) -> AsyncIterator[Mesh]:
    """Run one for all these faults, so that each has to leave it as it found it."""
    with pytest.MonkeyPatch.context() as patch:
        # Daemons run as people run them: under coverage they are three times slower.
        patch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
        folder = tmp_path_factory.mktemp("mesh")
        async with mesh_with_a_service(folder, settings=settings_of(faults), **plan) as made:
            await converged(made)
            yield made


async def define(mesh: Mesh) -> None:
    """Say what is to be served, as the owners of an etcd that was wiped do again."""
    for number, cluster in enumerate(mesh.clusters.values(), 1):
        await put(cluster.meshds[0], SERVICE, {"global": True})
        await put(cluster.meshds[0], f"{SERVICE}/endpoints/a", {"address": f"10.{number}.0.1"})


async def put(meshd: Server, path: str, body: object) -> None:
    answer = await ask(meshd, path, "PUT", body)
    assert answer.status in {200, 201}, answer


async def try_out(mesh: Mesh, name: str) -> str:
    """Inject a fault of east, see it bite, heal it twice; returns the proof."""
    fault = named(name)
    assert possible(fault, mesh.powers) == ""
    stage = Stage(mesh=mesh, victims=[VICTIM], chance=random.Random(1))
    try:
        await fault().inject(stage)
        async with asyncio.timeout(BITE_TIMEOUT_S):
            proof = await fault().bit(stage)
    finally:
        await fault().heal(stage)
    # To heal what is healed does nothing.
    await fault().heal(stage)
    assert stage.memory == {}
    return proof


async def converged(mesh: Mesh) -> None:
    """Wait until all run, have read each other to the end, keep true copies and serve the same."""
    every = [server for cluster in mesh.clusters.values() for server in cluster.servers]
    assert [server.name for server in every if server.pid is None] == []
    async with asyncio.timeout(CONVERGE_TIMEOUT_S):
        await when(_is_converged, mesh)


async def _is_converged(mesh: Mesh) -> bool:
    statuses = [await _settled(meshd) for meshd in running(mesh.clusters.values(), Kind.MESHD)]
    same = {(status["vector_text"], status["digest"]) for status in statuses}
    if len(same) > 1 or not all(status["digest"] for status in statuses):
        return False
    keys = {name: await etcd_of(cluster).dump() for name, cluster in mesh.clusters.items()}
    try:
        for name, own in keys.items():
            read_log(own, LOCAL)
            for peer, theirs in keys.items():
                if peer != name:
                    read_log(theirs, EXPORT)
                    check_replica(own, theirs, peer)
    except BrokenError:
        # It may be under way: whoever waits for this has a limit.
        return False
    return True


async def _settled(meshd: Server) -> Any:
    def is_settled(status: Any) -> bool:
        return status["ready"] and all(
            peer["phase"] == "Ready" and peer["lag_events"] == 0 for peer in status["peers"]
        )

    return await until(meshd, "/v1/status", is_settled)
