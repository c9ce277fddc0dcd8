"""Faults after which a cluster serves what it last knew, and needs no restart to go on."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest

from chaos.etcds import Etcd
from chaos.raw import read_log, replica_root
from tests.e2e.conftest import Daemon, NewEtcd, RunDaemon
from tests.e2e.test_daemon import SERVICE, put
from tests.e2e.test_faults_etcd import QUICK, WEB, Client, check_tables, define, settled

QUOTA_BYTES = 16 * 1024 * 1024
LOCAL = "/meshd/v1/local/"


async def fill(etcd: Etcd) -> None:
    """Fill an etcd up to its quota."""
    for number in range(2 * QUOTA_BYTES // 1_000_000):
        try:
            await etcd.put(f"/filling/{number}", b"x" * 1_000_000)
        except RuntimeError:
            return
    raise AssertionError("the fault did not bite: etcd took more than its quota")


async def make_room(etcd: Etcd) -> None:
    """Do what etcd's own documentation says: delete, compact, defragment, disarm."""
    await etcd.ctl("del", "--prefix", "/filling/")
    await etcd.compact()
    await etcd.ctl("defrag")
    await etcd.ctl("alarm", "disarm")


async def refusal(daemon: Daemon, number: int) -> dict[str, Any]:
    """What a write is answered that can't be taken now."""
    url = f"{daemon.url}{WEB}/endpoints/refused-{number}"
    headers = {"Idempotency-Key": f"refused-{number}"}
    body = {"address": "10.9.9.9"}
    async with daemon.http.put(url, json=body, headers=headers) as response:
        problem: dict[str, Any] = await response.json(content_type=None)
        assert response.status in {503, 504, 507}, problem
        return problem


async def test_fault_6_an_etcd_out_of_space_stops_writes_alone_and_no_restart_is_needed(
    new_etcd: NewEtcd, run_daemon: RunDaemon
) -> None:
    own, theirs = await new_etcd(1, "--quota-backend-bytes", str(QUOTA_BYTES)), await new_etcd()
    async with (
        run_daemon("west", 2, theirs.endpoints, {"east": own.endpoints}, *QUICK) as west,
        run_daemon("east", 1, own.endpoints, {"west": theirs.endpoints}, *QUICK) as east,
    ):
        await define(east, west)
        client = Client(east)
        await client.write(3)
        await settled(west, "east", own)
        await fill(own)
        problem = await refusal(east, 1)
        assert "space" in problem["detail"]
        # What east can't keep it still serves: its own, and what its peer goes on to say.
        await put(west, f"{WEB}/endpoints/new", {"address": "10.2.0.1"})
        await east.until("/v1/tables/shop/web", lambda table: len(table["backends"]) == 4)
        assert len((await west.get("/v1/tables/shop/web"))["backends"]) == 4
        await make_room(own)
        await client.write(3)
        await settled(west, "east", own)
        await settled(east, "west", theirs)
        await check_tables(own, east, "east", {"west": theirs})
        await check_tables(theirs, west, "west", {"east": own})
    log = read_log(await own.dump(), LOCAL)
    client.check(log)
    assert "refused-1" not in log.causes()


@pytest.mark.kills_etcd
async def test_fault_4_an_own_etcd_that_dies_stops_writes_alone_and_is_found_again(
    new_etcd: NewEtcd, run_daemon: RunDaemon
) -> None:
    own, theirs = await new_etcd(3), await new_etcd()
    more = (*QUICK, "writer.submit_timeout_s=1.0")
    async with (
        run_daemon("west", 2, theirs.endpoints, {"east": own.endpoints}, *more) as west,
        run_daemon("east", 1, own.endpoints, {"west": theirs.endpoints}, *more) as east,
    ):
        await define(east, west)
        client = Client(east)
        await client.write(3)
        await settled(west, "east", own)
        before = await east.get("/v1/tables/shop/web")
        await own.stop()
        for number in range(3):
            await refusal(east, number)
        after = await east.get("/v1/tables/shop/web")
        assert (after["digest"], after["backends"]) == (before["digest"], before["backends"])
        await west.until("/v1/tables/shop/web", lambda table: table["stale"] == ["east"])
        # East still hears what its peer says.
        await put(west, f"{WEB}/endpoints/new", {"address": "10.2.0.1"})
        await east.until("/v1/tables/shop/web", lambda table: len(table["backends"]) == 4)
        await own.start()
        await client.write(3)
        assert east.process.returncode is None
        await settled(west, "east", own)
        await settled(east, "west", theirs)
        await check_tables(own, east, "east", {"west": theirs})
        await check_tables(theirs, west, "west", {"east": own})
    log = read_log(await own.dump(), LOCAL)
    client.check(log)
    for number in range(3):
        assert log.causes().count(f"refused-{number}") <= 1


async def test_fault_31_with_every_peer_blackholed_it_is_ready_with_what_it_last_knew(
    new_etcd: NewEtcd, run_daemon: RunDaemon, free_address: Callable[[], str]
) -> None:
    own, *theirs = await new_etcd(), await new_etcd(), await new_etcd()
    peers = {"west": theirs[0].endpoints, "south": theirs[1].endpoints}
    async with run_daemon("east", 1, own.endpoints, peers, *QUICK) as east:
        await define(east)
        for number, (name, etcd) in enumerate(peers.items(), 2):
            async with run_daemon(name, number, etcd, {}, *QUICK) as peer:
                await define(peer)
                await put(peer, f"{WEB}/endpoints/a", {"address": f"10.{number}.0.1"})
                await settled(east, name, theirs[number - 2])
    before = await own.dump("/meshd/v1/replica/")
    host, _, port = free_address().rpartition(":")
    with socket.socket() as silent:
        # It takes connections and never says a word.
        silent.bind((host, int(port)))
        silent.listen(16)
        # Two names for one hole: one address may not be two peers'.
        holes = {"west": f"{host}:{port}", "south": f"localhost.:{port}"}
        more = (*QUICK, "staleness.stale_after_s=3")
        async with run_daemon("east", 1, own.endpoints, holes, *more) as east:
            table = await east.get("/v1/tables/shop/web")
            assert {one["cluster"] for one in table["backends"]} == {"west", "south"}
            assert (table["stale"], table["clusters"]) == (["south", "west"], table["clusters"])
            for name in holes:
                peer_item = await east.get(f"/v1/peers/{name}")
                assert peer_item["phase"] in {"Connecting", "Stale"}
                assert peer_item["link"] == "down"
                assert peer_item["records_read"] == 0
            # Its own services are served and taken as ever.
            assert await put(east, f"{WEB}/endpoints/own", {"address": "10.1.0.1"}) in {200, 201}
            await east.until("/v1/peers/west", lambda it: it["phase"] == "Stale")
            demoted = await east.until(
                "/v1/tables/shop/web", lambda it: max(_priorities(it, {"west", "south"})) >= 1000
            )
            assert len(demoted["backends"]) == 3
            assert _priorities(demoted, {"east"}) == {0}
            await check_tables(own, east, "east", {"west": theirs[0], "south": theirs[1]})
    assert await own.dump("/meshd/v1/replica/") == before


def _priorities(table: dict[str, Any], clusters: set[str]) -> set[int]:
    return {one["priority"] for one in table["backends"] if one["cluster"] in clusters}


async def test_fault_20_a_flood_stops_at_its_ceiling_and_nobody_else_is_held_up(
    new_etcd: NewEtcd, run_daemon: RunDaemon
) -> None:
    """A peer that is granted 50 services says 2,000 of them, as fast as its etcd takes them."""
    own, flood, good = await new_etcd(), await new_etcd(), await new_etcd()
    peers = {"flood": flood.endpoints, "good": good.endpoints}
    more = (*QUICK, "replication.budget.services_max=50")
    async with (
        run_daemon("flood", 2, flood.endpoints, {}, *QUICK) as bad,
        run_daemon("good", 3, good.endpoints, {}, *QUICK) as fine,
        run_daemon("east", 1, own.endpoints, peers, *more) as east,
    ):
        await define(east, bad, fine)
        await settled(east, "flood", flood)
        await settled(east, "good", good)
        client = Client(fine)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(say_services(bad, 2000))
            tasks.create_task(client.write(20))
        await settled(east, "good", good)
        peer = await east.until("/v1/peers/flood", lambda it: it["phase"] == "Quarantined")
        assert "more than 50 services" in peer["reason"]
        assert peer["seq"] < 2000
        # What was let in before stays served; the flood's own cluster takes it all.
        assert len((await bad.get("/v1/tables"))["services"]) == 2001
        lines = east.log_file.read_text().splitlines()
        assert len([line for line in lines if "peer stopped" in line]) == 1
    client.check(read_log(await good.dump(), LOCAL))
    keys = await own.dump()
    kept = read_log(keys, *replica_root(keys, "flood"))
    assert len(kept.state["service"]) <= 50


async def say_services(daemon: Daemon, count: int) -> None:
    """So many services, in documents of 200."""
    for first in range(0, count, 200):
        documents = "\n---\n".join(
            "{apiVersion: meshd.io/v1, kind: Service,"
            f" metadata: {{namespace: shop, name: s{number}}},"
            " spec: {ports: [{name: http, port: 80}], global: true}}"
            for number in range(first, first + 200)
        )
        headers = {"Content-Type": "application/yaml"}
        url = f"{daemon.url}/v1/apply"
        async with daemon.http.post(url, data=documents, headers=headers) as response:
            assert response.status == 200, await response.text()


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "10.66.0.1"])
async def test_fault_20_an_address_that_is_not_its_own_stops_that_peer(
    new_etcd: NewEtcd, run_daemon: RunDaemon, address: str
) -> None:
    """Loopback, the clouds' metadata service, and somebody else's range."""
    own, theirs = await new_etcd(), await new_etcd()
    listed = f"peers=[{{name: west, endpoints: ['{theirs.endpoints}'], announces: [10.2.0.0/16]}}]"
    async with (
        run_daemon("west", 2, theirs.endpoints, {}, *QUICK) as west,
        run_daemon("east", 1, own.endpoints, {}, *QUICK, listed) as east,
    ):
        await define(east, west)
        await put(west, f"{WEB}/endpoints/good", {"address": "10.2.0.1"})
        await settled(east, "west", theirs)
        assert await put(west, f"{WEB}/endpoints/bad", {"address": address}) in {200, 201}
        peer = await east.until("/v1/peers/west", lambda it: it["phase"] == "Quarantined")
        assert address in peer["reason"]
        table = await east.get("/v1/tables/shop/web")
        assert [one["name"] for one in table["backends"]] == ["good"]
        assert await put(east, "/v1/services/shop/cart", SERVICE) in {200, 201}
    keys = await own.dump()
    kept = read_log(keys, *replica_root(keys, "west")).state["endpoint"]
    assert list(kept) == ["shop/web/good"]
