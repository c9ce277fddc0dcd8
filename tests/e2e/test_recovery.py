"""A cluster's etcd is lost: back from a backup, or from what a peer has kept of it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartEtcd
from tests.e2e.conftest import Daemon, NewEtcd, RunDaemon
from tests.e2e.test_daemon import SERVICE, put
from tests.e2e.test_faults_etcd import QUICK, check_tables, settled

SHORT = (
    "retention.check_every_s=0.2",
    "retention.snapshot_every_events=20",
    "retention.keep_events=40",
    "retention.cap_events=60",
)


async def meshd(*arguments: str, status: int = 0) -> str:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "meshd", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == status, said.decode()
    return said.decode()


def settings(etcd: str) -> tuple[str, ...]:
    pairs = ("cluster.name=east", "cluster.id=1", f"etcd.endpoints={etcd}")
    return tuple(part for pair in pairs for part in ("--set", pair))


async def fill(east: Daemon) -> None:
    await put(east, "/v1/services/shop/web", SERVICE)
    await put(east, "/v1/services/shop/own", SERVICE | {"shared": False})
    for number in range(100):
        body = {"address": f"10.1.0.{number % 3 + 1}", "weight": 1 + number}
        await put(east, f"/v1/services/shop/web/endpoints/e{number % 3}", body)


def backends(table: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(one["cluster"], one["name"], one["address"]) for one in table["backends"]]


@asynccontextmanager
async def unchanged(peers: Sequence[Daemon]) -> AsyncIterator[None]:
    """Look at the peers' tables all the time: whatever happens inside, they stay as they are."""
    expected = {id(peer): backends(await peer.get("/v1/tables/shop/web")) for peer in peers}
    looks = 0

    async def look() -> None:
        nonlocal looks
        while True:
            for peer in peers:
                assert backends(await peer.get("/v1/tables/shop/web")) == expected[id(peer)]
                looks += 1

    async with asyncio.TaskGroup() as tasks:
        looking = tasks.create_task(look())
        yield
        looking.cancel()
    assert looks > 100


@pytest.mark.kills_etcd
async def test_from_a_peer_while_the_peers_tables_stay_as_they_are(
    new_etcd: NewEtcd, run_daemon: RunDaemon
) -> None:
    """East loses its etcd altogether; the new one has the same address and nothing in it."""
    own, theirs = await new_etcd(), [await new_etcd(), await new_etcd()]
    more = (*SHORT, *QUICK)
    async with (
        run_daemon("west", 2, theirs[0].endpoints, {"east": own.endpoints}, *more) as west,
        run_daemon("south", 3, theirs[1].endpoints, {"east": own.endpoints}, *more) as south,
    ):
        peers = (west, south)
        for peer in peers:
            await put(peer, "/v1/services/shop/web", SERVICE)
        async with run_daemon("east", 1, own.endpoints, {}, *more) as east:
            await fill(east)
            expected = backends(await east.get("/v1/tables/shop/web"))
            for peer in peers:
                await settled(peer, "east", own)
            before = (await east.get("/v1/status"))["vector"]["east"]
        async with unchanged(peers):
            await own.wipe()
            await own.start()
            recover = ("recover", "--from", west.url, *settings(own.endpoints))
            said = await meshd(*recover)
            assert f"1 services and 3 endpoints, as of seq {before['seq']}" in said
            assert "only what was exported came back" in said
            # A second time there is something to lose.
            said = await meshd(*recover, status=2)
            assert "holds a meshd cluster under /meshd/v1 already" in said
            async with run_daemon("east", 1, own.endpoints, {}, *more) as east:
                assert backends(await east.get("/v1/tables/shop/web")) == expected
                for peer in peers:
                    await settled(peer, "east", own)
                    item = await peer.get("/v1/peers/east")
                    assert item["log_id"] != before["log_id"]
                    assert item["seq"] >= before["seq"]
                for daemon, etcd in zip(peers, theirs, strict=True):
                    name = (await daemon.get("/v1/status"))["cluster"]
                    await check_tables(etcd, daemon, name, {"east": own})
                # It goes on: what is written now reaches the peers.
                assert await put(east, "/v1/services/shop/cart", SERVICE) in {200, 201}
                for peer in peers:
                    await settled(peer, "east", own)


async def test_from_a_backup_and_peers_take_it_as_another_generation(
    start_etcd: StartEtcd, run_daemon: RunDaemon, tmp_path: Path
) -> None:
    etcd, west_etcd = await start_etcd(), (await start_etcd()).config.client_address
    address = etcd.config.client_address
    kept = tmp_path / "backup"
    async with run_daemon("west", 2, west_etcd, {"east": address}, *SHORT) as west:
        await put(west, "/v1/services/shop/web", SERVICE)
        async with run_daemon("east", 1, address, {}, *SHORT) as east:
            await fill(east)
            await meshd("backup", *settings(address), "-o", str(kept))
            assert "is there already" in await meshd(
                "backup", *settings(address), "-o", str(kept), status=2
            )
            await put(east, "/v1/services/shop/web/endpoints/late", {"address": "10.1.0.9"})
            await west.until("/v1/tables/shop/web", lambda table: len(table["backends"]) == 4)
        assert "holds a meshd cluster" in await meshd(
            "restore", *settings(address), str(kept), status=2
        )
        stranger = (*settings(address), "--set", "cluster.name=north")
        assert "is of cluster east" in await meshd("restore", *stranger, str(kept), status=1)
        await wipe(address)
        said = await meshd("restore", *settings(address), str(kept))
        assert "2 services and 3 endpoints" in said
        assert "whatever was acknowledged after seq" in said
        async with run_daemon("east", 1, address, {}, *SHORT) as east:
            assert len((await east.get("/v1/services"))["items"]) == 2
            await west.until("/v1/tables/shop/web", lambda table: len(table["backends"]) == 3)
            peer = await west.until("/v1/peers/east", lambda it: it["phase"] == "Ready")
            assert peer["forks"] == 1
            logs = (await west.get("/v1/logs"))["items"]
            assert [log["log"] for log in logs] == ["local", "export/mesh", "replica/east"]


async def wipe(etcd: str) -> None:
    """Empty it, as a new one would be."""
    process = await asyncio.create_subprocess_exec(
        "etcdctl", "--endpoints", etcd, "del", "--prefix", "/meshd/v1/"
    )
    assert await process.wait() == 0
