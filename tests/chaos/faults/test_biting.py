"""Faults on a real mesh on loopback: each is injected, seen to bite, healed, and gone.

All of them share one mesh per worker, so that each also has to leave nothing behind for the next.
`pytest tests/chaos/faults --all-faults` tries all; without it a quick one of each kind is tried.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from chaos.faults.catalogue import named, possible
from chaos.faults.consumers import unsay
from chaos.faults.fault import Stage
from chaos.faults.ground import ask, running, until
from chaos.mesh.choose import running_mesh
from chaos.mesh.shape import Kind, Mesh, Plan, Server

NAMES = ("east", "west")
WEB = "/v1/services/shop/web"
BITE_TIMEOUT_S = 45.0
QUICK = (
    *("poison-hash", "malicious-keys", "unknown-event", "mixed-pair", "disk-full"),
    *("descriptors-short", "mqtt-subscriber-stopped", "rest-flood", "two-leaders"),
    "loop-stalled",
)
SLOW = (
    *("auth-revoked", "memory-short", "broker-down", "broker-frozen", "sse-stopped", "sse-slow"),
    *("big-bodies", "half-heads", "half-bodies", "replies-lost", "boot-alone", "names-unknown"),
    *("huge-table", "rolling-upgrade", "poison-bytes", "poison-json", "poison-deep"),
    *("poison-utf8", "poison-future", "poison-large", "poison-largest", "poison-nan"),
    *("malicious-weight", "malicious-name", "malicious-nul", "malicious-owner"),
    *("malicious-address", "malicious-flood", "peer-removed"),
)


def settings() -> tuple[str, ...]:
    """Those of all faults here together."""
    found: dict[str, object] = {}
    for name in (*QUICK, *SLOW):
        found |= named(name).settings
    return tuple(f"{key}={value}" for key, value in found.items())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    """Two clusters of two meshds each, with a broker, and something to serve."""
    with pytest.MonkeyPatch.context() as patch:
        # Daemons run as people run them; under coverage they are three times slower.
        patch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
        folder: Path = tmp_path_factory.mktemp("mesh")
        plan = Plan(names=NAMES, is_ha=True, has_brokers=True, settings=settings(), folder=folder)
        async with running_mesh(plan, driver="loopback") as made:
            for number, cluster in enumerate(made.clusters.values(), 1):
                meshd = cluster.meshds[0]
                assert (await ask(meshd, WEB, "PUT", {"global": True})).status == 200
                at = {"address": f"10.{number}.0.1"}
                assert (await ask(meshd, f"{WEB}/endpoints/a", "PUT", at)).status == 200
            yield made


async def converged(mesh: Mesh) -> None:
    """All run, see each other, are behind in nothing, and serve the same."""
    every = [server for cluster in mesh.clusters.values() for server in cluster.servers]
    assert [server.name for server in every if server.pid is None] == []
    meshds = running(mesh.clusters.values(), Kind.MESHD)
    while True:
        tables = [await settled(meshd) for meshd in meshds]
        if all(table == tables[0] for table in tables) and tables[0]:
            return
        await asyncio.sleep(0.1)


async def settled(meshd: Server) -> set[tuple[str, str, str, str]]:
    """What a meshd serves once it is up to date with everybody."""

    def is_settled(it: Any) -> bool:
        peers = it["peers"]
        return it["ready"] and all(
            one["phase"] == "Ready" and one["lag_events"] == 0 for one in peers
        )

    await until(meshd, "/v1/status", is_settled)
    table = (await ask(meshd, "/v1/tables")).data
    return {
        (service["name"], backend["cluster"], backend["name"], backend["address"])
        for service in table["services"]
        for backend in service["backends"]
    }


@pytest.mark.kills_etcd
@pytest.mark.timeout(240)
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", [*QUICK, *SLOW])
async def test_a_fault_bites_and_is_gone_when_it_is_healed(
    mesh: Mesh, name: str, request: pytest.FixtureRequest
) -> None:
    if name in SLOW and not request.config.getoption("--all-faults"):
        pytest.skip("takes long: pytest --all-faults")
    fault = named(name)
    assert possible(fault, mesh.powers) == ""
    async with asyncio.timeout(60):
        await converged(mesh)
    stage = Stage(mesh=mesh, victims=["east"], chance=random.Random(1))
    try:
        said = await fault().inject(stage)
        async with asyncio.timeout(BITE_TIMEOUT_S):
            proof = await fault().bit(stage)
    finally:
        await fault().heal(stage)
    print(f"{name}: {said} {proof}")
    assert proof
    assert said.poisons or not name.startswith(("poison", "malicious"))
    # Healing what is healed does nothing.
    await fault().heal(stage)
    async with asyncio.timeout(60):
        await converged(mesh)


@pytest.mark.timeout(60)
@pytest.mark.asyncio(loop_scope="module")
async def test_what_was_not_done_has_no_proof(mesh: Mesh) -> None:
    """All at once: each says that nothing was injected, or looks for it as long as it is let."""
    async with asyncio.timeout(30):
        await converged(mesh)
    proofs: dict[str, str] = {}

    async def look(name: str) -> None:
        stage = Stage(mesh=mesh, victims=["east"], chance=random.Random(1))
        with suppress(TimeoutError, RuntimeError, LookupError):
            async with asyncio.timeout(2):
                proofs[name] = await named(name)().bit(stage)

    async with asyncio.TaskGroup() as tasks:
        for name in (*QUICK, *SLOW):
            tasks.create_task(look(name))
    assert proofs == {}
    for name in ("disk", "upgraded"):
        await unsay(mesh.clusters["east"], name)
