"""A cluster's etcd is lost: back from a backup, or from what a peer has kept of it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from tests.conftest import StartEtcd
from tests.e2e.conftest import Daemon, RunDaemon
from tests.e2e.test_daemon import SERVICE, put

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


async def test_from_a_peer_while_the_peers_tables_stay_as_they_are(
    start_etcd: StartEtcd, run_daemon: RunDaemon
) -> None:
    etcds = [(await start_etcd()).config.client_address for _ in range(3)]
    east_etcd, west_etcd, south_etcd = etcds
    new_etcd = (await start_etcd()).config.client_address
    async with (
        run_daemon("west", 2, west_etcd, {"east": east_etcd}, *SHORT) as west,
        run_daemon("south", 3, south_etcd, {"east": east_etcd}, *SHORT) as south,
    ):
        peers = (west, south)
        for peer in peers:
            await put(peer, "/v1/services/shop/web", SERVICE)
        async with run_daemon("east", 1, east_etcd, {}, *SHORT) as east:
            await fill(east)
            expected = backends(await east.get("/v1/tables/shop/web"))
            head = (await east.get("/v1/status"))["vector"]["east"]["seq"]
            for peer in peers:
                await peer.until("/v1/peers/east", lambda it: it["replica_seq"] == head)
        said = await meshd("recover", "--from", west.url, *settings(new_etcd))
        assert f"1 services and 3 endpoints, as of seq {head}" in said
        assert "only what was exported came back" in said
        # A second time there is something to lose.
        said = await meshd("recover", "--from", west.url, *settings(new_etcd), status=2)
        assert "holds a meshd cluster under /meshd/v1 already" in said
        for peer in peers:
            assert backends(await peer.get("/v1/tables/shop/web")) == expected
        async with run_daemon("east", 1, new_etcd, {}, *SHORT) as east:
            assert backends(await east.get("/v1/tables/shop/web")) == expected
            status = await east.get("/v1/status")
            assert status["local"]["seq"] >= head


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
