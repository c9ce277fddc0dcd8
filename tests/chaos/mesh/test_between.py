"""Meshes of real processes are run by each driver that can: what is between their clusters is
broken and mended.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.mesh import namespaces
from chaos.mesh.shape import CLOSED, OPEN, Power, Way
from tests.chaos.mesh.visiting import DRIVERS, is_not_ready, is_ready, plan, visited


def here() -> int:
    """Return which network namespace this is."""
    return Path("/proc/self/ns/net").stat().st_ino


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if name == "namespaces" and (missing := namespaces.missing()):
        pytest.skip("; ".join(missing))
    return name


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def test_what_is_between_two_clusters_is_cut_slowed_and_mended(
    driver: str, tmp_path: Path
) -> None:
    was_here = here()
    async with visited(plan(tmp_path, "east", "west"), driver) as visitor:
        mesh, network = visitor.mesh, visitor.mesh.network
        assert mesh.driver == driver
        assert {Power.CUT, Power.CUT_ONE_WAY, Power.RESET} < mesh.powers
        pids = [server.pid for server in mesh.servers]
        await visitor.until_there("west", await visitor.add("east", 1))

        # Cut: neither hears the other, and each goes on.
        await network.shape("east", "west", CLOSED)
        await network.shape("west", "east", CLOSED)
        ofeast, ofwest = await visitor.add("east", 2), await visitor.add("west", 3)
        await visitor.until_phase("west", "east", is_not_ready)
        await visitor.until_phase("east", "west", is_not_ready)
        assert ofeast not in await visitor.backends("west")
        assert ofwest not in await visitor.backends("east")
        await network.shape("east", "west", OPEN)
        await network.shape("west", "east", OPEN)
        await visitor.until_there("west", ofeast)
        await visitor.until_there("east", ofwest)
        await visitor.until_phase("west", "east", is_ready)
        await visitor.until_phase("east", "west", is_ready)

        # One way: what west sends is lost, and what east sends still arrives.
        await network.shape("west", "east", CLOSED)
        unheard, heard = await visitor.add("west", 4), await visitor.add("east", 5)
        await visitor.until_there("west", heard)
        assert unheard not in await visitor.backends("east")
        await network.shape("west", "east", OPEN)
        await visitor.until_there("east", unheard)

        # Slow and late: all arrives.
        if Power.DELAY in mesh.powers:
            slow = Way(delay_s=0.05, jitter_s=0.02, doubled_share=0.1, rate_bytes_s=50_000)
            await network.shape("east", "west", slow)
            await visitor.until_there("west", await visitor.add("east", 6))
            await network.shape("east", "west", OPEN)

        # Broken connections are opened again.
        await visitor.until_phase("west", "east", is_ready)
        assert await network.reset("west", "east") >= 1
        await visitor.until_there("west", await visitor.add("east", 7))
        assert all(pid is not None and is_alive(pid) for pid in pids)
    assert not any(is_alive(pid) for pid in pids if pid is not None)
    assert here() == was_here
