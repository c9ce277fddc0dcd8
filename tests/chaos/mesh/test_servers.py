"""Processes of a mesh are killed, frozen, limited and told wrong times, and all of it is told."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from chaos.history import Change
from chaos.mesh import clocks, namespaces
from chaos.mesh.choose import running_mesh
from chaos.mesh.clocks import Clock
from chaos.mesh.limits import limit_descriptors, limit_memory, small_disk
from chaos.mesh.servers import MeshdServer
from chaos.mesh.shape import NotPossibleError, Plan, Power, Server
from chaos.mesh.shares import shared_out
from tests.chaos.mesh.visiting import DRIVERS, Visitor, plan, visited

Told = tuple[str, int, Change, int]
HOUR = timedelta(hours=1)


class Listening:
    """Keeps what is told of processes."""

    def __init__(self) -> None:
        self.told: list[Told] = []

    def __call__(self, server: Server, change: Change, status: int) -> None:
        assert server.pid is not None
        self.told.append((server.name, server.pid, change, status))

    async def until(self, name: str, change: Change) -> int:
        """Wait until that was told last of a server; returns the status."""
        while True:
            of_it = [one for one in self.told if one[0] == name]
            if of_it and of_it[-1][2] is change:
                return of_it[-1][3]
            await asyncio.sleep(0.02)


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def said_to(pid: int | None) -> str:
    """Return what a process was started with: its arguments and its environment."""
    files = [Path(f"/proc/{pid}/{name}") for name in ("cmdline", "environ")]
    return "\0".join(file.read_text() for file in files)


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists() or state(pid) == "Z"


async def until_gone(pids: Iterable[int]) -> None:
    for pid in pids:
        while not is_gone(pid):  # noqa: ASYNC110 it isn't our child
            await asyncio.sleep(0.05)


def groups() -> list[Path]:
    """Return the control groups that this process has made."""
    places, names = Path("/sys/fs/cgroup"), f"chaos-{os.getpid()}-*"
    return [*places.glob(names), *places.glob(f"memory/{names}")]


def inside(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.mark.kills_etcd
async def test_every_start_and_every_end_is_told_whoever_caused_it(tmp_path: Path) -> None:
    told = Listening()
    wanted = plan(tmp_path, "east", is_ha=True, etcd_members=3, has_brokers=True)
    async with visited(wanted, "loopback", told) as visitor:
        east = visitor.mesh.clusters["east"]
        assert {Power.HA, Power.MEMBERS, Power.BROKER} < visitor.mesh.powers
        assert tuple(server.name for server in east.servers) == ALL
        assert {name for name, *_ in told.told} == set(ALL)
        meshd, other = east.meshds
        for server in (meshd, *east.members[:1], *east.brokers):
            await check_kills(server, told)
        await check_ends(other, told)

        # What is done by way of the etcd or the broker is told as well.
        assert east.broker is not None
        await east.etcd.stop()
        await east.broker.stop()
        ended = [one for one in told.told if one[2] is Change.KILLED]
        assert {name for name, *_ in ended[-4:]} == set(ALL[2:])
        await east.etcd.start()
        await east.broker.start()
        assert all(server.is_running for server in east.servers)
        await visitor.until_there("east", await visitor.add("east", 1))
        pids = [server.pid for server in east.servers]
        count = len(told.told)
    await until_gone(pid for pid in pids if pid is not None)
    assert len(told.told) == count


ALL = (
    *("east/meshd-1", "east/meshd-2", "east/etcd-1", "east/etcd-2", "east/etcd-3"),
    "east/broker",
)


async def check_kills(server: Server, told: Listening) -> None:
    """It is frozen, killed though it is, and started again once."""
    pid = server.pid
    assert pid is not None
    await server.freeze()
    assert state(pid) == "T"
    await server.kill()
    assert server.pid is None
    assert told.told[-1] == (server.name, pid, Change.KILLED, -signal.SIGKILL)
    await server.start()
    await server.start()
    name, new_pid, change, _ = told.told[-1]
    assert (name, change) == (server.name, Change.STARTED)
    assert new_pid != pid


async def check_ends(server: MeshdServer, told: Listening) -> None:
    """Somebody else kills it; it is asked to end. Meanwhile it has another setting."""
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    assert await told.until(server.name, Change.ENDED) == -signal.SIGKILL
    await server.start_with(["cluster.region=abroad"], {"CHAOS": "1"})
    assert "abroad" in said_to(server.pid)
    assert "CHAOS=1" in said_to(server.pid)
    await server.stop()
    assert told.told[-1][2:] == (Change.KILLED, 0)
    await server.start()
    assert "abroad" not in said_to(server.pid)
    assert "CHAOS=1" not in said_to(server.pid)


async def when(visitor: Visitor, number: int) -> datetime:
    """Return what east took for the time when it wrote."""
    address = await visitor.add("east", number)
    backend = await visitor.until_there("east", address)
    return datetime.fromisoformat(backend["origin"]["time"])


@pytest.mark.skipif(clocks.library() is None, reason="no libfaketime: scripts/ensure_chaos.sh")
async def test_a_meshds_clock_jumps_while_it_runs_and_is_right_again(tmp_path: Path) -> None:
    async with visited(plan(tmp_path, "east"), "loopback") as visitor:
        assert Power.CLOCK in visitor.mesh.powers
        (meshd,) = visitor.mesh.clusters["east"].meshds
        clock = Clock(tmp_path / "ahead")
        clock.jump(7200)
        await meshd.kill()
        await meshd.start_with(environment=clock.environment())
        assert HOUR < await when(visitor, 1) - datetime.now(UTC) < 3 * HOUR
        clock.jump(4 * 3600)
        assert await when(visitor, 2) - datetime.now(UTC) > 3 * HOUR


async def test_what_a_process_may_use_is_limited_and_given_back(tmp_path: Path) -> None:
    script = "input(); print(len(b'x' * (200 << 20)))"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    pid = process.pid
    had = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    undo = limit_descriptors(pid, 64)
    assert resource.prlimit(pid, resource.RLIMIT_NOFILE) == (64, had[1])
    undo()
    assert resource.prlimit(pid, resource.RLIMIT_NOFILE) == had
    try:
        limit_memory(pid, 64 << 20)()
        assert groups() == []
        free = limit_memory(pid, 64 << 20)
    except NotPossibleError as error:
        process.kill()
        await process.wait()
        pytest.skip(str(error))
    await process.communicate(b"\n")
    assert process.returncode == -signal.SIGKILL
    assert groups() != []
    free()
    assert groups() == []


async def test_a_disk_is_full_for_those_on_it_and_free_again(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "kept").write_text("kept")
    try:
        async with small_disk(folder, 1 << 20) as disk:

            async def write(name: str) -> int:
                command = ("sh", "-c", f"cat {folder}/kept >{folder}/{name}")
                process = await asyncio.create_subprocess_exec(*disk.within, *command)
                return await process.wait()

            assert await write("first") == 0
            assert 0 < await disk.free_bytes() < 1 << 20
            await disk.fill()
            assert await disk.free_bytes() == 0
            assert await write("second") != 0
            await disk.free()
            assert await write("third") == 0
            assert inside(folder) == ["kept"]
    except NotPossibleError as error:
        pytest.skip(str(error))
    assert inside(tmp_path) == ["data"]


KILLED = """
import asyncio, sys
from pathlib import Path
from chaos.mesh.choose import running_mesh
from chaos.mesh.shape import Plan

async def run():
    async with running_mesh(Plan(names=("east",), folder=Path(sys.argv[1])), sys.argv[2]) as mesh:
        print(*(server.pid for server in mesh.servers), flush=True)
        await asyncio.sleep(600)

asyncio.run(run())
"""


@pytest.mark.parametrize("driver", DRIVERS)
async def test_nothing_outlives_a_harness_that_is_killed(tmp_path: Path, driver: str) -> None:
    if driver == "namespaces" and (missing := namespaces.missing()):
        pytest.skip("; ".join(missing))
    harness = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", KILLED, str(tmp_path), driver), stdout=asyncio.subprocess.PIPE
    )
    assert harness.stdout is not None
    pids = [int(pid) for pid in (await harness.stdout.readline()).split()]
    assert len(pids) == 2
    assert all(state(pid) != "Z" for pid in pids)
    harness.kill()
    await harness.wait()
    await until_gone(pids)


async def test_who_leaves_the_choice_is_told_why_it_is_loopback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(namespaces.PROGRAMS, "chaos-nft", "nftables")
    async with running_mesh(plan(tmp_path, "east")) as mesh:
        assert mesh.driver == "loopback"
        assert "there is no chaos-nft: install nftables" in mesh.note
    with pytest.raises(NotPossibleError, match="install nftables"):
        async with running_mesh(plan(tmp_path / "other", "east"), "namespaces"):
            pass


@pytest.mark.parametrize(
    ("wanted", "what"),
    [
        ({"names": ()}, "give 1 to 250 clusters"),
        ({"names": ("east", "east")}, "a name of its own"),
        ({"names": ("east",), "etcd_members": 0}, "one member at least"),
        ({"names": ("there",)}, "name another folder"),
    ],
)
async def test_a_plan_that_nobody_can_run_is_refused(
    tmp_path: Path, wanted: dict[str, object], what: str
) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(NotPossibleError, match=what):
        async with running_mesh(Plan(folder=tmp_path, **wanted)):  # type: ignore[arg-type]
            pass


def share_of(pid: int | None) -> str:
    return Path(f"/proc/{pid}/cgroup").read_text().partition("cpu:")[2].split()[0]


def shares() -> list[Path]:
    return list(SHARES.glob(f"chaos-share-{os.getpid()}-*"))


SHARES = Path("/sys/fs/cgroup/cpu")
needs_shares = pytest.mark.skipif(
    not os.access(SHARES, os.W_OK), reason="no control groups of processors can be made here"
)


@needs_shares
@pytest.mark.parametrize("driver", DRIVERS)
async def test_each_cluster_has_a_share_of_the_processors_and_nothing_is_left(
    driver: str, tmp_path: Path
) -> None:
    async with running_mesh(plan(tmp_path, "east", "west"), driver) as mesh:
        groups = {
            cluster.name: {share_of(one.pid) for one in cluster.servers}
            for cluster in mesh.clusters.values()
        }
        assert all(len(of_one) == 1 for of_one in groups.values())
        assert len({next(iter(of_one)) for of_one in groups.values()}) == len(groups)
        assert len(shares()) == len(groups)
    assert not shares()


@needs_shares
def test_groups_of_who_was_killed_are_removed_by_the_next() -> None:
    # No process has a number that large.
    left = SHARES / "chaos-share-99999999-east"
    left.mkdir()
    with shared_out(["east"]):
        assert not left.exists()
