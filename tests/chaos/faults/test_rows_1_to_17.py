"""Every fault of rows 1 to 17 on a real mesh on loopback.

`pytest tests/chaos/faults --all-faults` injects all of them; without it, one of each module.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from chaos.faults.catalogue import faults, named, possible
from chaos.faults.fault import Fault, Stage
from chaos.mesh.shape import Mesh, Power
from tests.chaos.faults.trying import (
    VICTIM,
    converged,
    define,
    mesh_for,
    try_out,
)

LAST_ROW = 17
MESHES: dict[str, dict[str, Any]] = {
    "plain": {"names": ("east", "south", "west")},
    "members": {"names": ("east", "west"), "etcd_members": 3},
    "short": {"names": ("east", "west")},
}
QUICK = frozenset({"kill-meshd", "history-compacted", "etcd-no-space", "etcd-restored", "link-cut"})
OURS = [fault for fault in faults().values() if fault.number <= LAST_ROW]


def kind_of(fault: type[Fault]) -> str:
    """On which mesh a fault is tried."""
    if Power.MEMBERS in fault.needs:
        return "members"
    return "short" if any(key.startswith("retention.") for key in fault.settings) else "plain"


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
    is_all = metafunc.config.getoption("--all-faults")
    if "harmless" in metafunc.fixturenames:
        cases = [pytest.param("plain", *case, id=case[0]) for case in HARMLESS if is_all]
        metafunc.parametrize(
            ("mesh", "name", "part", "harmless"), cases, indirect=["mesh"], scope="module"
        )
        return
    chosen = [fault for fault in OURS if is_all or fault.name in QUICK]
    metafunc.parametrize(
        ("mesh", "name"),
        [pytest.param(kind_of(fault), fault.name, id=fault.name) for fault in chosen],
        indirect=["mesh"],
        scope="module",
    )


@pytest.mark.kills_etcd
@pytest.mark.timeout(240)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_fault_bites_and_all_is_well_once_it_is_healed(mesh: Mesh, name: str) -> None:
    if reason := possible(named(name), mesh.powers):
        pytest.skip(reason)
    proof = await try_out(mesh, name)
    assert proof
    print(f"{name}: {proof}")
    await define(mesh)
    await converged(mesh)


async def nothing(*_: object, **__: object) -> None:
    """What a fault does that doesn't work."""


HARMLESS: list[tuple[str, str, Callable[..., object]]] = [
    ("kill-meshd", "chaos.mesh.servers.MeshdServer.kill", nothing),
    ("freeze-meshd", "chaos.mesh.servers.MeshdServer.freeze", nothing),
    ("etcd-down", "chaos.mesh.servers.MemberServer.kill", nothing),
    ("etcd-no-space", "chaos.faults.storage._fill", nothing),
    ("history-compacted", "chaos.etcds.Etcd.compact", nothing),
    ("etcd-restored", "chaos.etcds.Etcd.restore", nothing),
    ("etcd-wiped", "chaos.etcds.Etcd.wipe", nothing),
    ("id-taken", "chaos.faults.identity.IdTaken.claim", lambda *_: ("newcomer", 500)),
    ("addresses-swapped", "chaos.faults.identity._swapped", lambda peers, *_: peers),
    ("clock-forward", "chaos.mesh.clocks.Clock.jump", lambda clock, _: clock.drift(1)),
    ("link-cut", "chaos.mesh.loopback.WireNetwork.shape", nothing),
    ("link-flap", "chaos.faults.network._reset", lambda _: count_of(0)),
    ("certificate-expired", "chaos.faults.trust.CertificateExpired.spoil", nothing),
]
"""Faults, and a part of each without which it does no harm."""
NO_PROOF_WITHIN_S = 8.0
"""All of these have a proof within this when they work."""


async def proof_in_time(fault: type[Fault], stage: Stage) -> None:
    async with asyncio.timeout(NO_PROOF_WITHIN_S):
        print(await fault().bit(stage))


async def count_of(number: int) -> int:
    return number


@pytest.mark.kills_etcd
@pytest.mark.timeout(240)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_fault_that_does_no_harm_has_no_proof(
    mesh: Mesh, name: str, part: str, harmless: Callable[..., object]
) -> None:
    fault = named(name)
    if reason := possible(fault, mesh.powers):
        pytest.skip(reason)
    stage = Stage(mesh=mesh, victims=[VICTIM], chance=random.Random(1))
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(part, harmless)
            await fault().inject(stage)
            with pytest.raises(TimeoutError):
                await proof_in_time(fault, stage)
    finally:
        await fault().heal(stage)
    await define(mesh)
    await converged(mesh)
