"""A mesh that somebody else runs: two real meshds, which their owner's scripts start and break."""

from __future__ import annotations

import asyncio
import os
import random
import shlex
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import yaml

from chaos.faults.catalogue import faults, possible
from chaos.faults.fault import Stage
from chaos.history import Change
from chaos.mesh.attached import attached, undo_path
from chaos.mesh.commanding import RefusedError
from chaos.mesh.shape import CLOSED, OPEN, Mesh, Power, Server, Way
from tests.e2e.conftest import NewEtcd

pytestmark = pytest.mark.timeout(300)

OWN_WIRE = """
import asyncio, signal, sys
from chaos.wire import Mode, Wire
async def main():
    loop = asyncio.get_running_loop()
    async with Wire(*sys.argv[1:]).running() as wire:
        loop.add_signal_handler(signal.SIGUSR1, wire.set_mode, Mode.HOLE)
        loop.add_signal_handler(signal.SIGUSR2, wire.set_mode, Mode.PASS)
        print("laid", flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""
"""The network between two clusters as its owner has it: cut and healed by signals."""


@dataclass(frozen=True, slots=True)
class Owned:
    """Somebody's mesh: west reads east over a wire, and east reads nobody."""

    file: Path
    folder: Path
    wire: asyncio.subprocess.Process

    def pid(self, cluster: str) -> int:
        return int((self.folder / f"{cluster}.pid").read_text())

    def runs(self, cluster: str) -> bool:
        """As its owner sees it; a zombie is none."""
        with suppress(OSError):
            stat = Path(f"/proc/{self.pid(cluster)}/stat").read_text()
            return stat.rpartition(")")[2].split()[0] != "Z"
        return False

    def write_starter(self, cluster: str, *settings: str) -> None:
        """Its unit file, in a way: starts one in the background, and leaves its number."""
        overrides = " ".join(f"--set {shlex.quote(one)}" for one in settings)
        (self.folder / f"start-{cluster}").write_text(
            f"cd {self.folder}\n"
            f"{sys.executable} -m meshd run {overrides} >>{cluster}.log 2>&1 </dev/null &\n"
            f"echo $! >{cluster}.pid\n"
        )


@pytest.fixture
async def owned(
    tmp_path: Path, new_etcd: NewEtcd, free_address: Callable[[], str]
) -> AsyncIterator[Owned]:
    apis = {"east": free_address(), "west": free_address()}
    etcds = {name: (await new_etcd()).endpoints for name in apis}
    laid = free_address()
    wire = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", OWN_WIRE, laid, etcds["east"]), stdout=asyncio.subprocess.PIPE
    )
    assert wire.stdout is not None
    assert await wire.stdout.readline() == b"laid\n"
    mesh = Owned(tmp_path / "mesh.yaml", tmp_path, wire)
    peers = {"east": "[]", "west": f"[{{name: east, endpoints: ['{laid}']}}]"}
    for number, name in enumerate(apis, start=1):
        mesh.write_starter(
            name,
            *(f"cluster.name={name}", f"cluster.id={number}", f"etcd.endpoints={etcds[name]}"),
            *(f"api.listen={apis[name]}", f"peers={peers[name]}"),
            *("replication.heartbeat_every_s=0.2", "replication.silent_after_s=1"),
            *("replication.backoff_min_s=0.1", "replication.backoff_max_s=0.5"),
        )
    by_pid = "sh -c 'kill -{} $(cat {{folder}}/{{cluster}}.pid)'"
    tree = {
        "clusters": [
            {
                "name": name,
                "id": number,
                "values": {"folder": str(tmp_path)},
                "meshds": [{"name": "meshd-1", "url": f"http://{api}"}],
            }
            for number, (name, api) in enumerate(apis.items(), start=1)
        ],
        "allowed": {
            "servers": ["east/meshd-1", "west/meshd-1"],
            "links": [["east", "west"]],
        },
        "commands": {
            "meshd": {
                "kill": by_pid.format("KILL"),
                "start": "sh {folder}/start-{cluster}",
                "freeze": by_pid.format("STOP"),
                "thaw": by_pid.format("CONT"),
            },
            "link": {"cut": f"kill -USR1 {wire.pid}", "heal": f"kill -USR2 {wire.pid}"},
        },
    }
    mesh.file.write_text(yaml.safe_dump(tree))
    try:
        yield mesh
    finally:
        for name in apis:
            with suppress(OSError):
                os.kill(mesh.pid(name), signal.SIGKILL)
        wire.kill()
        await wire.wait()


async def phase_of_east(mesh: Mesh) -> str:
    url = f"http://{mesh.clusters['west'].meshds[0].address}/v1/peers/east"
    async with aiohttp.ClientSession() as http, http.get(url) as answer:
        return str((await answer.json())["phase"])


async def until_phase(mesh: Mesh, phase: str) -> None:
    """The test's own time limit is the limit."""
    while await phase_of_east(mesh) != phase:  # noqa: ASYNC110 nobody tells us
        await asyncio.sleep(0.05)


def quiet(_: str) -> None:
    """Tell nobody."""


async def test_their_mesh_is_broken_and_mended(owned: Owned) -> None:
    told: list[tuple[str, Change]] = []

    def listen(server: Server, change: Change, status: int) -> None:
        assert status == 0
        told.append((server.name, change))

    async with attached(owned.file, folder=owned.folder, say=quiet, listener=listen) as mesh:
        assert mesh.powers == {Power.KILL, Power.FREEZE, Power.CUT}
        east, west = (mesh.clusters[name].meshds[0] for name in ("east", "west"))
        assert not await east.is_ready()
        for server in (east, west):
            await server.start()
            assert await server.is_ready()
        await until_phase(mesh, "Ready")
        await mesh.network.shape("west", "east", CLOSED)
        await mesh.network.shape("east", "west", CLOSED)
        await until_phase(mesh, "Stale")
        # What is healed in one direction only, by commands for both, is not healed yet.
        await mesh.network.shape("west", "east", OPEN)
        assert undo_path(owned.file).exists()
        await mesh.network.shape("east", "west", OPEN)
        assert not undo_path(owned.file).exists()
        await until_phase(mesh, "Ready")
        await east.freeze()
        await until_phase(mesh, "Stale")
        assert owned.runs("east")
        await east.thaw()
        await until_phase(mesh, "Ready")
        await a_fault_is_injected_and_healed(owned, mesh)
        with pytest.raises(RefusedError, match="other settings"):
            await east.start_with(["log.level=debug"])
        with pytest.raises(RefusedError, match="can be cut, not shaped"):
            await mesh.network.shape("west", "east", Way(delay_s=0.1))
    assert told == [
        ("east/meshd-1", Change.STARTED),
        ("west/meshd-1", Change.STARTED),
        ("east/meshd-1", Change.KILLED),
        ("east/meshd-1", Change.STARTED),
    ]
    assert owned.runs("east")
    assert owned.runs("west")


async def a_fault_is_injected_and_healed(owned: Owned, mesh: Mesh) -> None:
    """One of the catalogue, which knows nothing of whose mesh this is."""
    first = owned.pid("east")
    fault = faults()["kill-meshd"]()
    assert possible(type(fault), mesh.powers) == ""
    stage = Stage(mesh=mesh, victims=["east"], chance=random.Random(1))
    await fault.inject(stage)
    assert await fault.bit(stage)
    assert not owned.runs("east")
    await fault.heal(stage)
    second = owned.pid("east")
    assert second != first
    await until_phase(mesh, "Ready")
    said = await command("fault", str(owned.file), "kill-meshd", "east", "--for", "0")
    assert said[0] == 0, said
    assert "it bit: east/meshd-1 is gone, and" in said[1]
    assert owned.pid("east") != second
    await until_phase(mesh, "Ready")


async def command(*arguments: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "chaos.mesh", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return process.returncode, said.decode()


async def test_all_is_undone_when_something_goes_wrong(owned: Owned) -> None:
    said: list[str] = []

    async def go_wrong() -> None:
        async with attached(owned.file, folder=owned.folder, say=said.append) as mesh:
            east, west = (mesh.clusters[name].meshds[0] for name in ("east", "west"))
            await east.start()
            await west.start()
            await west.freeze()
            await mesh.network.shape("east", "west", CLOSED)
            await east.kill()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await go_wrong()
    undone = [line.partition(": ")[2].partition(":")[0] for line in said if "undoing" in line]
    assert undone == ["start east/meshd-1", "heal east > west", "thaw west/meshd-1"]
    assert not undo_path(owned.file).exists()
    async with attached(owned.file, folder=owned.folder, dry_run=True, say=quiet) as mesh:
        while not await mesh.clusters["east"].meshds[0].is_ready():  # noqa: ASYNC110 the same
            await asyncio.sleep(0.05)
        await until_phase(mesh, "Ready")


async def test_a_dry_run_touches_nothing(owned: Owned) -> None:
    said: list[str] = []
    async with attached(owned.file, folder=owned.folder, dry_run=True, say=said.append) as mesh:
        east = mesh.clusters["east"].meshds[0]
        await east.start()
        await east.kill()
        await mesh.network.shape("east", "west", CLOSED)
    assert [line.partition(":")[0] for line in said] == [
        *("would start east/meshd-1", "would kill east/meshd-1", "would cut east > west")
    ]
    assert not (owned.folder / "east.pid").exists()
