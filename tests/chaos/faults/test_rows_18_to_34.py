"""Every fault of rows 18 to 34 on a real mesh on loopback.

`pytest tests/chaos/faults --all-faults` injects all of them; without it, one of each module that is
quick.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
import pytest_asyncio

from chaos.faults.catalogue import faults, named, possible
from chaos.faults.consumers import unsay
from chaos.faults.fault import Fault, Stage
from chaos.mesh.shape import Mesh, Power
from tests.chaos.faults.trying import (
    VICTIM,
    converged,
    mesh_for,
    try_out,
)

FIRST_ROW = 18
MESHES: dict[str, dict[str, Any]] = {
    "plain": {"names": ("east", "west")},
    "pairs": {"names": ("east", "west"), "is_ha": True, "has_brokers": True},
}
QUICK = frozenset(
    {
        *("poison-hash", "malicious-keys", "unknown-event", "disk-full", "descriptors-short"),
        *("rest-flood", "loop-stalled", "mqtt-subscriber-stopped", "two-leaders"),
    }
)
OURS = [fault for fault in faults().values() if fault.number >= FIRST_ROW]
SAID = ("disk", "upgraded")
"""Services that faults define to see whether they bite."""


def kind_of(fault: type[Fault]) -> str:
    """On which mesh a fault is tried."""
    return "pairs" if fault.needs & {Power.HA, Power.BROKER} else "plain"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Mesh]:
    """Of one kind."""
    ours = [fault for fault in OURS if kind_of(fault) == request.param]
    async with mesh_for(ours, tmp_path_factory, **MESHES[request.param]) as made:
        yield made


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """All of them if that is asked for."""
    if "name" not in metafunc.fixturenames:
        metafunc.parametrize("mesh", MESHES, indirect=True, scope="module")
        return
    is_all = metafunc.config.getoption("--all-faults")
    cases = [
        pytest.param(kind_of(fault), fault.name, id=fault.name)
        for fault in OURS
        if is_all or fault.name in QUICK
    ]
    metafunc.parametrize(("mesh", "name"), cases, indirect=["mesh"], scope="module")


@pytest.mark.kills_etcd
@pytest.mark.timeout(240)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_fault_bites_and_all_is_well_once_it_is_healed(mesh: Mesh, name: str) -> None:
    if reason := possible(named(name), mesh.powers):
        pytest.skip(reason)
    proof = await try_out(mesh, name)
    assert proof
    print(f"{name}: {proof}")
    await converged(mesh)


@pytest.mark.timeout(120)
@pytest.mark.asyncio(loop_scope="module")
async def test_what_was_not_done_has_no_proof(mesh: Mesh) -> None:
    """All at once: each says that nothing was injected, or looks for it as long as it is let."""
    proofs: dict[str, str] = {}

    async def look(fault: type[Fault]) -> None:
        stage = Stage(mesh=mesh, victims=[VICTIM], chance=random.Random(1))
        with suppress(TimeoutError, RuntimeError, LookupError):
            async with asyncio.timeout(2):
                proofs[fault.name] = await fault().bit(stage)

    async with asyncio.TaskGroup() as tasks:
        for fault in OURS:
            if not possible(fault, mesh.powers):
                tasks.create_task(look(fault))
    assert proofs == {}
    for name in SAID:
        await unsay(mesh.clusters[VICTIM], name)
