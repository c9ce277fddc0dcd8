"""Peers that come and go while real meshds run on real etcds, and records that are passed over."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from chaos.etcds import Etcd
from chaos.faults.records import record_after
from chaos.raw import read_log
from tests.e2e.conftest import Daemon, NewEtcd, RunDaemon
from tests.e2e.test_daemon import put
from tests.e2e.test_faults_etcd import QUICK, WEB, Client, define, settled
from tests.e2e.test_faults_peers import EXPORT, addresses, poison

GRACE = ("retention.check_every_s=0.2", "retention.replica_grace_s=2")
BAD: list[object] = ["endpoint.set", "shop/web/bad", {"address": "127.0.0.1"}, "eve", ""]


async def ask(daemon: Daemon, method: str, path: str, body: object = None) -> tuple[int, Any]:
    async with daemon.http.request(method, f"{daemon.url}{path}", json=body) as response:
        return response.status, orjson.loads(await response.read())


async def replica(etcd: Etcd, peer: str) -> Mapping[str, object]:
    """The raw keys of a replica, as etcdctl reads them."""
    return dict(await etcd.dump(f"/meshd/v1/replica/{peer}/"))


def is_gone(items: Any, peer: str) -> bool:
    return peer not in {item["name"] for item in items["items"]}


async def until_listed(daemon: Daemon, peer: str) -> None:
    await daemon.until("/v1/peers", lambda it: not is_gone(it, peer))


async def test_fault_32_a_peer_is_removed_while_it_is_down_and_its_namesake_stays(
    new_etcd: NewEtcd, run_daemon: RunDaemon
) -> None:
    own, etcd_b, etcd_b2 = await new_etcd(), await new_etcd(), await new_etcd()
    async with (
        run_daemon("a", 1, own.endpoints, {}, *QUICK, *GRACE) as a,
        run_daemon("b2", 3, etcd_b2.endpoints, {}, *QUICK) as b2,
    ):
        async with run_daemon("b", 2, etcd_b.endpoints, {}, *QUICK) as b:
            await define(a, b, b2)
            await put(b, f"{WEB}/endpoints/x", {"address": "10.2.0.1"})
            await put(b2, f"{WEB}/endpoints/x", {"address": "10.3.0.1"})
            for peer, etcd in (("b", etcd_b), ("b2", etcd_b2)):
                status, _ = await ask(
                    a, "PUT", f"/v1/peers/{peer}", {"endpoints": [etcd.endpoints]}
                )
                assert status == 200
                await until_listed(a, peer)
                await settled(a, peer, etcd)
        await etcd_b.stop()
        await a.until("/v1/peers/b", lambda it: it["phase"] == "Stale" and it["link"] == "down")
        assert await addresses(a, "b") == {"10.2.0.1"}
        twin = await replica(own, "b2")
        assert await replica(own, "b")
        assert twin
        status, _ = await ask(a, "DELETE", "/v1/peers/b")
        assert status == 200
        await a.until("/v1/peers", lambda it: is_gone(it, "b"))
        assert await addresses(a, "b") == set()
        assert await addresses(a, "b2") == {"10.3.0.1"}
        await a.until("/v1/logs", lambda it: "replica/b" not in [one["log"] for one in it["items"]])
        while await replica(own, "b"):
            # The grace is over when the leader says so.
            await a.until("/readyz", lambda it: it["ready"])
        assert await replica(own, "b2") == twin
        await Client(b2).write(3)
        await settled(a, "b2", etcd_b2)
    # Whom a follows, b2 can't find out: not even that it changed.
    raw = await own.dump(EXPORT)
    assert all(b"peer." not in found[0] for found in raw.values())
    read_log(await own.dump(), EXPORT)


async def test_every_meshd_of_a_cluster_follows_an_added_peer_and_still_does_after_a_restart(
    new_etcd: NewEtcd, run_daemon: RunDaemon
) -> None:
    own, theirs = await new_etcd(), await new_etcd()
    async with (
        run_daemon("west", 2, theirs.endpoints, {}, *QUICK) as west,
        run_daemon("east", 1, own.endpoints, {}, *QUICK) as one,
        run_daemon("east", 1, own.endpoints, {}, *QUICK) as other,
    ):
        await define(one, west)
        await Client(west).write(3)
        await ask(one, "PUT", "/v1/peers/west", {"endpoints": [theirs.endpoints]})
        for east in (one, other):
            await until_listed(east, "west")
            await east.until("/v1/peers/west", lambda it: it["phase"] == "Ready")
            assert len(await addresses(east, "west")) == 3
        await settled(one if await leads(one) else other, "west", theirs)
    await theirs.stop()
    async with run_daemon("east", 1, own.endpoints, {}, *QUICK) as east:
        assert len(await addresses(east, "west")) == 3


async def leads(daemon: Daemon) -> bool:
    leader = (await daemon.get("/v1/status"))["leader"]
    return leader is not None and bool(leader["self"])


def config(path: Path, *peers: tuple[str, Etcd], more: str = "") -> None:
    listed = ", ".join(f"{{name: {name}, endpoints: ['{it.endpoints}']}}" for name, it in peers)
    path.write_text(f"peers: [{listed}]\n{more}")


async def test_a_reload_follows_what_a_good_file_lists_and_nothing_of_a_bad_one(
    new_etcd: NewEtcd, run_daemon: RunDaemon, tmp_path: Path
) -> None:
    own, etcd_b, etcd_c = await new_etcd(), await new_etcd(), await new_etcd()
    file = tmp_path / "a.yaml"
    config(file, ("b", etcd_b))
    async with (
        run_daemon("b", 2, etcd_b.endpoints, {}, *QUICK) as b,
        run_daemon("c", 3, etcd_c.endpoints, {}, *QUICK) as c,
        run_daemon("a", 1, own.endpoints, {}, *QUICK, config=file) as a,
    ):
        await define(a, b, c)
        await put(b, f"{WEB}/endpoints/x", {"address": "10.2.0.1"})
        await put(c, f"{WEB}/endpoints/x", {"address": "10.3.0.1"})
        await settled(a, "b", etcd_b)
        read = (await a.get("/v1/peers/b"))["records_read"]
        config(file, ("b", etcd_b), ("c", etcd_c), more="writer: {queue_max: 7}\n")
        a.kill(signal.SIGHUP)
        await until_listed(a, "c")
        await settled(a, "c", etcd_c)
        assert (await a.get("/v1/peers/b"))["records_read"] == read
        assert '"settings": ["writer.queue_max"]' in a.log_file.read_text()
        file.write_text("peers: [{name: B!, endpoints: []}]\nnothing: 1\n")
        a.kill(signal.SIGHUP)
        while "settings are not taken" not in a.log_file.read_text():
            await a.until("/readyz", lambda it: it["ready"])
        assert "is not a cluster name" in a.log_file.read_text()
        assert await addresses(a, "b") == {"10.2.0.1"}
        assert await addresses(a, "c") == {"10.3.0.1"}
        config(file, ("c", etcd_c))
        a.kill(signal.SIGHUP)
        await a.until("/v1/peers", lambda it: is_gone(it, "b"))
        assert await addresses(a, "b") == set()
        assert await addresses(a, "c") == {"10.3.0.1"}
        status, answer = await ask(a, "DELETE", "/v1/peers/c")
        assert (status, answer["type"].rpartition("/")[2]) == (409, "conflict")


async def test_a_record_that_says_what_it_may_not_is_passed_over_everywhere_and_for_good(
    new_etcd: NewEtcd, run_daemon: RunDaemon
) -> None:
    own, theirs = await new_etcd(), await new_etcd()
    peers = {"west": theirs.endpoints}
    async with run_daemon("west", 2, theirs.endpoints, {}, *QUICK) as west:
        await define(west)
        await put(west, f"{WEB}/endpoints/x", {"address": "10.2.0.1"})
    head = orjson.loads((await theirs.dump(EXPORT))[f"{EXPORT}head"][0])
    bad = record_after(head, BAD)
    await poison(theirs, bad)
    bad_seq = head["seq"] + 1
    head = orjson.loads((await theirs.dump(EXPORT))[f"{EXPORT}head"][0])
    good: list[object] = ["endpoint.set", "shop/web/y", {"address": "10.2.0.2"}, "ann", ""]
    await poison(theirs, record_after(head, good))
    async with (
        run_daemon("east", 1, own.endpoints, peers, *QUICK) as one,
        run_daemon("east", 1, own.endpoints, peers, *QUICK) as other,
    ):
        await define(one)
        for east in (one, other):
            it = await east.until("/v1/peers/west", lambda it: it["phase"] == "Quarantined")
            assert it["quarantined_seq"] == bad_seq
        status, _ = await ask(one, "POST", "/v1/peers/west/skip", {"seq": bad_seq + 1})
        assert status == 409
        status, _ = await ask(one, "POST", "/v1/peers/west/skip", {"seq": bad_seq})
        assert status == 200
        for east in (one, other):
            it = await east.until("/v1/peers/west", lambda it: it["seq"] == bad_seq + 1)
            assert it["skipped"] == [bad_seq]
            assert await addresses(east, "west") == {"10.2.0.1", "10.2.0.2"}
        await one.until("/v1/peers/west", lambda it: it["replica_seq"] == bad_seq + 1)
    kept = [value[0] for key, value in (await own.dump()).items() if key.endswith(f"{bad_seq:020}")]
    assert bad in kept
    await theirs.stop()
    async with run_daemon("east", 1, own.endpoints, peers, *QUICK) as east:
        assert await addresses(east, "west") == {"10.2.0.1", "10.2.0.2"}
        assert (await east.get("/v1/peers/west"))["skipped"] == [bad_seq]


async def test_what_is_no_record_is_not_passed_over(
    new_etcd: NewEtcd, run_daemon: RunDaemon
) -> None:
    own, theirs = await new_etcd(), await new_etcd()
    async with run_daemon("west", 2, theirs.endpoints, {}, *QUICK) as west:
        await define(west)
    await poison(theirs, b"\xc1")
    async with run_daemon("east", 1, own.endpoints, {"west": theirs.endpoints}, *QUICK) as east:
        await east.until("/v1/peers/west", lambda it: it["phase"] == "Quarantined")
        status, answer = await ask(east, "POST", "/v1/peers/west/skip")
        assert status == 409
        assert "no record that continues its log" in answer["detail"]
        assert "meshd peer resync west" in answer["problems"][0]["remedy"]
