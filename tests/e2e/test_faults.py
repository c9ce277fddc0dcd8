"""Faults of the catalogue on real processes: what still works, and what comes back by itself."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import Callable

import pytest
from tenacity import AsyncRetrying, stop_after_delay, wait_fixed

from meshd.edges.embedded import EmbeddedEtcd
from tests.conftest import StartEtcd
from tests.e2e.conftest import Daemon, RunDaemon
from tests.e2e.test_daemon import SERVICE, put

Result = subprocess.CompletedProcess[bytes]
QUOTA_BYTES = 16 * 1024 * 1024
ENDPOINT = "/v1/services/shop/web/endpoints/a"


def etcdctl(etcd: EmbeddedEtcd, *arguments: str, given: bytes = b"") -> Result:
    """Run etcdctl; the caller looks at what became of it."""
    return subprocess.run(
        ["etcdctl", "--endpoints", etcd.config.client_address, *arguments],
        env=os.environ | {"ETCDCTL_API": "3"},
        input=given,
        capture_output=True,
        check=False,
    )


def fill(etcd: EmbeddedEtcd) -> None:
    """Fill an etcd up to its quota."""
    for number in range(2 * QUOTA_BYTES // 1_000_000):
        if etcdctl(etcd, "put", f"/filling/{number}", given=b"x" * 1_000_000).returncode:
            return
    raise AssertionError("the fault did not bite: etcd took more than its quota")


def make_room(etcd: EmbeddedEtcd) -> None:
    """Do what etcd's own documentation says: delete, compact, defragment, disarm."""
    etcdctl(etcd, "del", "--prefix", "/filling/")
    status = etcdctl(etcd, "get", "nothing", "-w", "json").stdout.decode()
    revision = status.partition('"revision":')[2].partition(",")[0]
    for arguments in (("compact", revision), ("defrag",), ("alarm", "disarm")):
        answer = etcdctl(etcd, *arguments)
        assert answer.returncode == 0, answer.stderr


async def test_an_etcd_out_of_space_stops_writes_alone_and_no_restart_is_needed(
    start_etcd: StartEtcd, run_daemon: RunDaemon
) -> None:
    etcd = await start_etcd(quota_bytes=QUOTA_BYTES)
    async with run_daemon("east", 1, etcd.config.client_address) as east:
        await put(east, "/v1/services/shop/web", SERVICE)
        await put(east, ENDPOINT, {"address": "10.0.0.1"})
        await asyncio.to_thread(fill, etcd)
        async with east.http.put(f"{east.url}{ENDPOINT}", json={"address": "10.0.0.2"}) as response:
            problem = await response.json(content_type=None)
            assert response.status in {503, 507}, problem
            assert "space" in problem["detail"]
        table = await east.get("/v1/tables/shop/web")
        assert [backend["address"] for backend in table["backends"]] == ["10.0.0.1"]
        await asyncio.to_thread(make_room, etcd)
        assert await put(east, ENDPOINT, {"address": "10.0.0.2"}) in {200, 201}
        table = await east.get("/v1/tables/shop/web")
        assert [backend["address"] for backend in table["backends"]] == ["10.0.0.2"]


@pytest.mark.kills_etcd
async def test_an_own_etcd_that_dies_stops_writes_alone_and_is_found_again(
    etcd: EmbeddedEtcd, run_daemon: RunDaemon
) -> None:
    more = ("writer.submit_timeout_s=1.0", "etcd.call_timeout_s=0.5")
    async with run_daemon("east", 1, etcd.config.client_address, {}, *more) as east:
        await put(east, "/v1/services/shop/web", SERVICE)
        await put(east, ENDPOINT, {"address": "10.0.0.1"})
        await etcd.stop()
        assert await put(east, ENDPOINT, {"address": "10.0.0.2"}) in {503, 504}
        table = await east.get("/v1/tables/shop/web")
        assert [backend["address"] for backend in table["backends"]] == ["10.0.0.1"]
        await etcd.start()
        await until_written(east)


async def until_written(east: Daemon) -> None:
    """Write until it is taken, as a client would that was told to come again."""
    async for attempt in AsyncRetrying(stop=stop_after_delay(60), wait=wait_fixed(0.2)):
        with attempt:
            assert await put(east, ENDPOINT, {"address": "10.0.0.3"}) in {200, 201}


async def test_with_every_peer_blackholed_it_is_ready_with_what_it_last_knew(
    start_etcd: StartEtcd, run_daemon: RunDaemon, free_address: Callable[[], str]
) -> None:
    own, theirs = await start_etcd(), await start_etcd()
    west_etcd = theirs.config.client_address
    async with run_daemon("east", 1, own.config.client_address, {"west": west_etcd}) as east:
        await put(east, "/v1/services/shop/web", SERVICE)
        async with run_daemon("west", 2, west_etcd) as west:
            await put(west, "/v1/services/shop/web", SERVICE)
            await put(west, ENDPOINT, {"address": "10.2.0.1"})
            await east.until("/v1/tables/shop/web", lambda table: len(table["backends"]) == 1)
            await east.until("/v1/peers/west", lambda peer: peer["replica_seq"] == peer["seq"])
    host, _, port = free_address().rpartition(":")
    with socket.socket() as silent:
        # It takes connections and never says a word.
        silent.bind((host, int(port)))
        silent.listen(16)
        peers = {"west": f"{host}:{port}"}
        async with run_daemon("east", 1, own.config.client_address, peers) as east:
            table = await east.get("/v1/tables/shop/web")
            assert [backend["cluster"] for backend in table["backends"]] == ["west"]
            peer = await east.get("/v1/peers/west")
            assert (peer["phase"], peer["link"]) == ("Connecting", "down")
            assert peer["records_read"] == 0
