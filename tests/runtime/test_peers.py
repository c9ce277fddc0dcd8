"""Peers that come, go and are followed otherwise while meshd runs, by settings and by the log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableMapping
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest
from structlog.testing import capture_logs

from meshd.core.state import ClusterState
from meshd.daemon.reloading import reload
from meshd.edges.memory import MemoryEtcd, MemoryKv
from meshd.model.archive import LogName
from meshd.model.codec import decode_head
from meshd.model.command import Outcome, RemovePeer, SetPeer, SkipRecord
from meshd.model.errors import FatalError
from meshd.model.ids import ClusterName, LogId, Seq
from meshd.model.keyspace import Keyspace, LogKeys
from meshd.model.listed import ListedPeer, SkippedRecord
from meshd.model.peer import PeerCondition, Phase
from meshd.model.replica import Pause, Resume, Resync
from meshd.model.snapshot import Manifest, encode_manifest, encode_part, hash_part
from meshd.model.staleness import Staleness, StalenessPolicy
from meshd.model.table import Standing
from meshd.runtime.ports import Put, RangeResult, Txn
from meshd.runtime.stored_log import fold_log, open_log
from meshd.settings import PeerSettings, Settings, load
from meshd.telemetry import metrics
from tests.mesh import Mesh, Running, endpoint, service

pytestmark = pytest.mark.looptime

EAST, B, B2 = ClusterName("east"), ClusterName("b"), ClusterName("b2")
SPACE = Keyspace()
ALONE = "peers=[]"
FILES = "replication.listed_files_dir=/"
ALL = ("east", "b", "b2")


def listed(name: str, **fields: object) -> SetPeer:
    values = {"endpoints": (f"{name}:2379",)} | fields
    return SetPeer(ClusterName(name), ListedPeer(**values))  # type: ignore[arg-type]


def condition(east: Running, name: str) -> PeerCondition | None:
    return east.parts.node.peers.condition(ClusterName(name))


async def until_phase(east: Running, name: str, phase: Phase) -> None:
    await east.until(lambda: getattr(condition(east, name), "phase", None) is phase)


async def until_ready(east: Running, *names: str) -> None:
    for name in names:
        await until_phase(east, name, Phase.READY)


def clusters(east: Running) -> set[str]:
    return {one[0] for one in east.eligible("shop/web")}


async def raw(etcd: MemoryEtcd, name: ClusterName) -> dict[bytes, tuple[bytes, int]]:
    """The replica of a peer, with the revisions of its keys."""
    root = SPACE.replica(name).root
    found = await MemoryKv(etcd).range(root, root[:-1] + b"0")
    return {kv.key: (kv.value, kv.mod_revision) for kv in found.kvs}


async def define(*clusters_: Running) -> None:
    """The same service everywhere, with one endpoint in each cluster."""
    for number, one in enumerate(clusters_, 1):
        await one.submit(service(), endpoint(f"shop/web/{one.name}", f"10.0.0.{number}"))


# --- by the log -----------------------------------------------------------------------------------


async def test_a_peer_of_the_log_is_followed_by_every_meshd_of_the_cluster() -> None:
    mesh = Mesh(names=ALL, overrides=(ALONE, FILES))
    async with (
        mesh.running("east") as one,
        mesh.running("east") as other,
        mesh.running("b") as b,
    ):
        await define(one, b)
        assert condition(one, "b") is None
        await one.submit(listed("b"))
        for east in (one, other):
            await until_ready(east, "b")
            assert clusters(east) == {"east", "b"}
            found = condition(east, "b")
            assert found is not None
            assert (found.source, found.endpoints) == ("log", ("b:2379",))
        await other.submit(RemovePeer(B))
        for east in (one, other):
            await east.until(lambda east=east: condition(east, "b") is None)  # type: ignore[misc]
            assert clusters(east) == {"east"}
            assert B not in east.parts.node.projector.vector()


async def test_a_peer_of_the_log_is_served_after_a_restart_though_it_is_dead() -> None:
    mesh = Mesh(names=ALL, overrides=(ALONE, FILES))
    async with mesh.running("east") as east, mesh.running("b") as b:
        await define(east, b)
        await east.submit(listed("b"))
        await until_ready(east, "b")
        store = next(iter(east.parts.node.peers)).store
        head = b.parts.node.projector.vector()[B]
        await east.until(lambda: store.durable_seq == head.seq)
    mesh.etcds["b"] = MemoryEtcd(mesh.clock, cluster_id=9)
    async with mesh.running("east") as east:
        # Before anything was awaited, and so before the peer could be asked.
        assert clusters(east) == {"east", "b"}


async def test_nothing_of_it_is_in_the_export_log_nor_a_gap() -> None:
    mesh = Mesh(names=ALL, overrides=(ALONE, FILES))
    kv, keys = MemoryKv(mesh.etcds["east"]), SPACE.export()

    async def exported() -> tuple[RangeResult, RangeResult]:
        return await kv.range(keys.head), await kv.range(keys.log, keys.log_end)

    async with mesh.running("east") as east:
        await define(east)
        head, records = await exported()
        outcome = await east.submit(listed("b", username="u", password_file="/nowhere"))
        await east.submit(listed("b"))
        skipped = SkippedRecord(seq=1, hash="0" * 32)
        await east.submit(SkipRecord(B, LogId("f" * 32), skipped))
        assert (await east.submit(RemovePeer(B))).last_seq == outcome.first_seq + 3
        assert [found.kvs for found in await exported()] == [head.kvs, records.kvs]
        await east.submit(endpoint("shop/web/more"))
        _, more = await exported()
        last_seq = decode_head(head.kvs[0].value, "head").seq
        assert [kv.key for kv in more.kvs[len(records.kvs) :]] == [keys.record(last_seq + 1)]


async def test_one_that_this_host_cannot_use_is_refused_and_followed_once_it_can(
    tmp_path: Path,
) -> None:
    mesh = Mesh(names=ALL, overrides=(ALONE, FILES))
    secret = tmp_path / "password"
    async with mesh.running("east") as east, mesh.running("b") as b, mesh.running("b2") as b2:
        await define(east, b, b2)
        await east.submit(listed("b", username="u", password_file=str(secret)), listed("b2"))
        await until_ready(east, "b2")
        found = condition(east, "b")
        assert found is not None
        assert found.phase is Phase.REFUSED
        assert f"password_file: there is no file {secret}" in found.reason
        assert clusters(east) == {"east", "b2"}
        secret.write_text("")
        await asyncio.sleep(10)
        found = condition(east, "b")
        assert found is not None
        assert "has no secret on its first line" in found.reason
        secret.write_text("secret\n")
        await until_ready(east, "b")
        assert clusters(east) == {"east", "b", "b2"}


async def test_one_that_this_host_cannot_use_any_more_is_served_as_one_that_is_away(
    tmp_path: Path,
) -> None:
    """The file is gone at a restart: not knowing how to ask is no reason to withdraw anything."""
    mesh = Mesh(names=ALL, overrides=(ALONE, FILES, "replication.slow_retry_s=2"))
    secret = tmp_path / "password"
    secret.write_text("secret\n")
    async with mesh.running("b") as b:
        async with mesh.running("east") as east:
            await define(east, b)
            await east.submit(listed("b", username="u", password_file=str(secret)))
            await until_ready(east, "b")
            store = next(iter(east.parts.node.peers)).store
            await east.until(lambda: store.durable_seq == 3)
        secret.unlink()
        async with mesh.running("east") as east:
            assert clusters(east) == {"east", "b"}
            found = condition(east, "b")
            assert found is not None
            assert (found.phase, found.standing) == (Phase.REFUSED, Standing.FRESH)
            await asyncio.sleep(60)
            assert ("b", "b", 1016) in east.eligible("shop/web")
            secret.write_text("secret\n")
            await until_ready(east, "b")
            assert ("b", "b", 16) in east.eligible("shop/web")
            secret.unlink()
        async with mesh.running("east") as east:
            assert clusters(east) == {"east", "b"}
            await east.submit(RemovePeer(B))
            await east.until(lambda: condition(east, "b") is None)
            assert clusters(east) == {"east"}


async def test_a_path_that_cannot_even_be_looked_at_harms_nobody() -> None:
    """A name longer than any file system takes raises where a missing file says no."""
    mesh = Mesh(names=ALL, overrides=(ALONE, FILES))
    async with mesh.running("east") as east, mesh.running("b2") as b2:
        await define(east, b2)
        long = "/" + "x" * 300
        await east.submit(listed("b", username="u", password_file=long), listed("b2"))
        await until_phase(east, "b", Phase.REFUSED)
        assert "can't be looked at" in getattr(condition(east, "b"), "reason", "")
        await until_ready(east, "b2")


async def test_the_settings_win_over_the_log() -> None:
    mesh = Mesh(names=("east", "b"))
    async with mesh.running("east") as east, mesh.running("b") as b:
        await define(east, b)
        await until_ready(east, "b")
        with capture_logs() as said:
            await east.submit(listed("b", endpoints=("elsewhere:2379",)))
            await asyncio.sleep(10)
        await until_ready(east, "b")
        found = condition(east, "b")
        assert found is not None
        assert (found.source, found.endpoints) == ("settings", ("b:2379",))
        assert "elsewhere" not in east.links
        assert [one["event"] for one in said if one["log_level"] == "warning"] == [
            "peer is listed twice; the settings count, not the log"
        ]
        # Taken out of the settings, it is the log's.
        mesh.etcds["elsewhere"] = mesh.etcds["b"]
        east.parts.node.peers.relist(())
        await east.until(lambda: getattr(condition(east, "b"), "source", "") == "log")
        await until_ready(east, "b")
        assert clusters(east) == {"east", "b"}


# --- by the settings ------------------------------------------------------------------------------


def listing(mesh: Mesh, *names: str, **fields: object) -> tuple[PeerSettings, ...]:
    peers = mesh.settings("east").peers
    return tuple(replace(peer, **fields) for peer in peers if peer.name in names)  # type: ignore[arg-type]


async def test_reloading_adds_and_removes_and_touches_nobody_else() -> None:
    mesh = Mesh(names=ALL)
    async with mesh.running("east") as east, mesh.running("b") as b, mesh.running("b2") as b2:
        await define(east, b, b2)
        await until_ready(east, "b", "b2")
        assert clusters(east) == {"east", "b", "b2"}
        peers = east.parts.node.peers
        (kept,) = [peer for peer in peers if peer.name == B2]
        links = kept.follower.state.traffic.links
        peers.relist(listing(mesh, "b2"))
        await east.until(lambda: condition(east, "b") is None)
        assert clusters(east) == {"east", "b2"}
        assert [peer for peer in peers if peer.name == B2] == [kept]
        peers.relist(listing(mesh, "b", "b2"))
        await until_ready(east, "b")
        assert clusters(east) == {"east", "b", "b2"}
        await b2.submit(endpoint("shop/web/new", "10.0.0.9"))
        await east.until_count("shop/web", 4)
        assert kept.follower.state.traffic.links == links


async def test_a_peer_that_is_down_is_withdrawn_at_once_when_it_is_removed() -> None:
    mesh = Mesh(names=ALL)
    async with mesh.running("east") as east, mesh.running("b2") as b2:
        async with mesh.running("b") as b:
            await define(east, b, b2)
            await until_ready(east, "b", "b2")
        await east.until(lambda: east.phase("b") is Phase.STALE)
        assert "b" in clusters(east)
        east.parts.node.peers.relist(listing(mesh, "b2"))
        await east.until(lambda: condition(east, "b") is None, timeout_s=1)
        assert clusters(east) == {"east", "b2"}


async def test_a_peer_that_is_followed_otherwise_is_served_on_and_read_on() -> None:
    mesh = Mesh(names=("east", "b"))
    mesh.etcds["other"] = mesh.etcds["b"]
    async with mesh.running("east") as east, mesh.running("b") as b:
        await define(east, b)
        await until_ready(east, "b")
        east.parts.node.peers.control(B, Pause(), "test")
        await east.until(lambda: east.phase("b") is Phase.PAUSED)
        before = condition(east, "b")
        assert before is not None
        seen: list[int] = []

        async def watch() -> None:
            while True:
                seen.append(len(east.eligible("shop/web")))
                await east.parts.node.projector.changed.wait()

        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(watch())
            other = replace(listing(mesh, "b")[0].endpoints[0], host="other")
            east.parts.node.peers.relist(listing(mesh, "b", endpoints=(other,)))
            await east.until(lambda: "other" in east.links)
            await asyncio.sleep(5)
            assert east.phase("b") is Phase.PAUSED
            east.parts.node.peers.control(B, Resume(), "test")
            await until_ready(east, "b")
            await b.submit(endpoint("shop/web/more", "10.0.0.9"))
            await east.until_count("shop/web", 3)
            watching.cancel()
        assert set(seen) - {3} == {2}
        after = condition(east, "b")
        assert after is not None
        assert after.traffic.forks == 0
        assert after.traffic.records_read == before.traffic.records_read + 1
        assert after.traffic.records_duplicate == 0
        store = next(iter(east.parts.node.peers)).store
        await east.until(lambda: store.durable_seq == after.head.seq)  # type: ignore[union-attr]


async def test_what_may_not_be_announced_any_more_is_not_served_any_more() -> None:
    mesh = Mesh(names=("east", "b"), overrides=("replication.slow_retry_s=2",))
    async with mesh.running("east") as east, mesh.running("b") as b:
        await define(east, b)
        await until_ready(east, "b")
        narrowed = Mesh(names=("east", "b"), peer_fields=", announces: [10.9.0.0/16]")
        east.parts.node.peers.relist(listing(narrowed, "b"))
        await until_phase(east, "b", Phase.QUARANTINED)
        assert clusters(east) == {"east"}
        east.parts.node.peers.relist(listing(mesh, "b"))
        await until_ready(east, "b")
        assert clusters(east) == {"east", "b"}


async def test_a_changed_staleness_counts_at_once() -> None:
    mesh = Mesh(names=("east", "b"), overrides=(ALONE, FILES))
    async with mesh.running("east") as east:
        await east.submit(listed("b", staleness=Staleness(policy=StalenessPolicy.KEEP)))
        async with mesh.running("b") as b:
            await define(east, b)
            await until_ready(east, "b")
        await asyncio.sleep(100)
        assert ("b", "b", 16) in east.eligible("shop/web")
        withdraw = Staleness(policy=StalenessPolicy.WITHDRAW, stale_after_s=1, withdraw_after_s=2)
        await east.submit(listed("b", staleness=withdraw))
        await east.until(lambda: clusters(east) == {"east"})


async def test_only_good_settings_are_taken_and_the_rest_is_named(tmp_path: Path) -> None:
    mesh = Mesh(names=ALL, overrides=(ALONE,))
    secret = tmp_path / "password"
    secret.write_text("secret")
    full = Mesh(names=("east", "b"), overrides=("log.level=debug", "writer.queue_max=7"))
    empty = Mesh(names=("east", "b"), peer_fields=f", username: u, password_file: {secret}")
    async with mesh.running("east") as east, mesh.running("b") as b:
        await define(east, b)

        async def reloaded(reread: Callable[[], Settings]) -> list[MutableMapping[str, Any]]:
            with capture_logs() as said:
                await reload(east.settings, reread, east.parts.node.peers)
            return said

        def bad() -> Settings:
            return load(None, {}, ["cluster.name=East!", "nothing=1"])

        (error,) = await reloaded(bad)
        assert error["event"] == "settings are not taken"
        assert len(error["problems"]) == 3
        warning, _ = await reloaded(lambda: full.settings("east"))
        assert warning["settings"] == ["writer.queue_max", "log.level"]
        await until_ready(east, "b")
        good = empty.settings("east")
        secret.write_text("")
        (error,) = await reloaded(lambda: good)
        assert "has no secret on its first line" in str(error["problems"])
        await asyncio.sleep(10)
        assert east.phase("b") is Phase.READY


async def test_metrics_of_a_removed_peer_are_gone() -> None:
    mesh = Mesh(names=("east", "gone"))
    async with mesh.running("east") as east, mesh.running("gone") as gone:
        await define(east, gone)
        await until_ready(east, "gone")
        assert b'peer="gone"' in generate_latest(metrics.REGISTRY)
        east.parts.node.peers.relist(())
        await east.until(lambda: condition(east, "gone") is None)
        assert b'peer="gone"' not in generate_latest(metrics.REGISTRY)


# --- what is left of them -------------------------------------------------------------------------

GRACE = ("retention.check_every_s=1", "retention.replica_grace_s=60")


async def test_a_replica_is_deleted_after_its_grace_and_its_namesakes_is_not() -> None:
    mesh = Mesh(names=ALL, overrides=GRACE)
    etcd = mesh.etcds["east"]
    async with mesh.running("east") as east, mesh.running("b") as b, mesh.running("b2") as b2:
        await define(east, b, b2)
        await until_ready(east, "b", "b2")
        peers = {peer.name: peer for peer in east.parts.node.peers}
        await east.until(lambda: all(peer.store.durable_seq == 3 for peer in peers.values()))
        twin = await raw(etcd, B2)
        east.parts.node.peers.relist(listing(mesh, "b2"))
        await east.until(lambda: condition(east, "b") is None)
        await asyncio.sleep(50)
        assert await raw(etcd, B)
        # Listed again within the grace, it begins where it stopped; then the grace begins anew.
        east.parts.node.peers.relist(listing(mesh, "b", "b2"))
        await until_ready(east, "b")
        found = condition(east, "b")
        assert found is not None
        assert found.traffic.records_read == 0
        await asyncio.sleep(5)
        east.parts.node.peers.relist(listing(mesh, "b2"))
        await asyncio.sleep(50)
        assert await raw(etcd, B)
        await asyncio.sleep(20)
        assert not await raw(etcd, B)
        assert await raw(etcd, B2) == twin
        assert clusters(east) == {"east", "b2"}


async def test_who_does_not_lead_deletes_nothing() -> None:
    mesh = Mesh(names=("east", "b"), overrides=GRACE)
    etcd = mesh.etcds["east"]
    async with AsyncExitStack() as stack:
        east = await stack.enter_async_context(mesh.running("east"))
        b = await stack.enter_async_context(mesh.running("b"))
        await define(east, b)
        await until_ready(east, "b")
        store = next(iter(east.parts.node.peers)).store
        await east.until(lambda: store.durable_seq == 3)
        east.parts.node.peers.relist(())
        leadership = east.parts.node.leadership
        leadership.lose()
        await asyncio.sleep(0)
        kept = await raw(etcd, B)
        assert kept
        for _ in range(70):
            leadership.lose()
            await asyncio.sleep(1)
        assert await raw(etcd, B) == kept


# --- trouble on the way ---------------------------------------------------------------------------


async def test_a_peer_that_is_changed_while_it_is_read_anew_is_read_once_more_or_on() -> None:
    """Whatever was given out when the follower ended was done; its successor goes on behind it."""
    slow = ("replication.budget.events_per_s=20", "replication.budget.burst_s=0.5")
    mesh = Mesh(names=("east", "b"), overrides=slow)
    mesh.etcds["other"] = mesh.etcds["b"]
    async with mesh.running("east") as east, mesh.running("b") as b:
        await define(east, b)
        await until_ready(east, "b")
        for number in range(60):
            await b.submit(endpoint(f"shop/web/e{number}", f"10.0.1.{number + 1}"))
        peers = east.parts.node.peers
        peers.control(B, Resync(), "test")
        await asyncio.sleep(0.2)
        hosts = ("other", "b")
        for turn in range(12):
            host = replace(listing(mesh, "b")[0].endpoints[0], host=hosts[turn % 2])
            peers.relist(listing(mesh, "b", endpoints=(host,)))
            await asyncio.sleep(0.4)
            assert {"east", "b"} <= clusters(east)
        await until_ready(east, "b")
        await east.until_count("shop/web", 62)
        state = east.parts.node.projector.state(B)
        again = await fold_log_of(mesh.etcds["b"])
        assert state == again
        store = next(iter(peers)).store
        await east.until(lambda: store.durable_seq == again.seq)
        ours = await raw_records(mesh.etcds["east"], SPACE.replica(B, store.place))
        assert ours == await raw_records(mesh.etcds["b"], SPACE.export())


async def test_what_a_person_said_just_before_a_change_is_done_after_it() -> None:
    mesh = Mesh(names=("east", "b"))
    async with mesh.running("east") as east, mesh.running("b") as b:
        await define(east, b)
        await until_ready(east, "b")
        peers = east.parts.node.peers
        host = replace(listing(mesh, "b")[0].endpoints[0], port=1)
        peers.relist(listing(mesh, "b", endpoints=(host,)))
        # The follower is told to end first, and hears this no more.
        next(iter(peers)).follower.end()
        peers.control(B, Pause(), "test")
        await until_phase(east, "b", Phase.PAUSED)


async def fold_log_of(etcd: MemoryEtcd) -> ClusterState:
    stored = await open_log(MemoryKv(etcd), SPACE, LogName("export", "mesh"))
    return (await fold_log(stored.reader, B, stored.head, None)).state


async def raw_records(etcd: MemoryEtcd, keys: LogKeys) -> dict[int | None, bytes]:
    found = await MemoryKv(etcd).range(keys.log, keys.log_end)
    return {keys.seq_of(kv.key): kv.value for kv in found.kvs}


async def test_a_value_that_this_host_cannot_use_leaves_the_peer_followed_as_before() -> None:
    mesh = Mesh(names=ALL, overrides=(ALONE, FILES))
    async with mesh.running("east") as east, mesh.running("b") as b:
        await define(east, b)
        await east.submit(listed("b"))
        await until_ready(east, "b")
        await east.submit(listed("b", username="u", password_file="/no/file"))
        await east.until(
            lambda: "followed as before" in getattr(condition(east, "b"), "reason", "")
        )
        assert east.phase("b") is Phase.READY
        assert clusters(east) == {"east", "b"}
        await b.submit(endpoint("shop/web/more", "10.0.0.9"))
        await east.until_count("shop/web", 3)
        await east.submit(RemovePeer(B))
        await east.until(lambda: condition(east, "b") is None)


async def test_a_peer_is_not_followed_before_its_replica_was_read() -> None:
    """The own etcd is away just then: 'unknown' isn't 'empty', and nobody else has to wait."""
    mesh = Mesh(names=ALL)
    etcd = mesh.etcds["east"]
    async with mesh.running("east") as east, mesh.running("b") as b, mesh.running("b2") as b2:
        await define(east, b, b2)
        await until_ready(east, "b", "b2")
        east.parts.node.peers.relist(listing(mesh, "b2"))
        await east.until(lambda: condition(east, "b") is None)
        etcd.set_up(up=False)
        east.parts.node.peers.relist(listing(mesh, "b", "b2"))
        await east.until(lambda: condition(east, "b") is not None)
        found = condition(east, "b")
        assert found is not None
        assert found.phase is Phase.REFUSED
        assert "its replica can't be read yet" in found.reason
        await b2.submit(endpoint("shop/web/new", "10.0.0.9"))
        await east.until_count("shop/web", 3)
        etcd.set_up(up=True)
        await until_ready(east, "b")
        assert clusters(east) == {"east", "b", "b2"}


async def test_an_own_log_that_cannot_be_read_at_once_is_left_to_its_follower() -> None:
    mesh = Mesh(names=("east",), overrides=(ALONE, FILES))
    async with mesh.running("east") as east:
        await define(east)
    kv = MemoryKv(mesh.etcds["east"])
    await kv.commit(Txn(success=(Put(SPACE.local.record(2), b"\xc1"),)))
    with capture_logs() as said, pytest.raises(ExceptionGroup) as caught:
        async with mesh.running("east"):
            raise AssertionError("it runs on a log that can't be read")
    assert "the own log can't be read at once" in [one["event"] for one in said]
    assert caught.group_contains(FatalError, match="the own log can't be read")


# --- found by a review ----------------------------------------------------------------------------


async def kept_of_b(east: Running, b: Running, **fields: object) -> None:
    """Follow b by the log until its replica is whole."""
    await define(east, b)
    await east.submit(listed("b", **fields))
    await until_ready(east, "b")
    store = next(iter(east.parts.node.peers)).store
    await east.until(lambda: store.durable_seq == 3)


NARROW = ("192.168.7.0/24",)


async def test_what_may_not_be_said_any_more_is_not_served_of_a_peer_that_is_unusable(
    tmp_path: Path,
) -> None:
    mesh = Mesh(names=ALL, overrides=(ALONE, FILES, "replication.slow_retry_s=2"))
    secret = tmp_path / "password"
    narrowed = listed("b", username="u", password_file=str(secret), announces=NARROW)
    async with mesh.running("b") as b:
        async with mesh.running("east") as east:
            await kept_of_b(east, b)
            await east.submit(narrowed)
        async with mesh.running("east") as east:
            assert clusters(east) == {"east"}
            secret.write_text("secret\n")
            await until_phase(east, "b", Phase.QUARANTINED)
            assert clusters(east) == {"east"}


async def test_what_was_taken_back_does_not_come_back_with_an_unusable_listing() -> None:
    mesh = Mesh(names=ALL, overrides=(ALONE, FILES, "replication.slow_retry_s=2"))
    async with mesh.running("b") as b, mesh.running("east") as east:
        await kept_of_b(east, b)
        await east.submit(listed("b", announces=NARROW))
        await until_phase(east, "b", Phase.QUARANTINED)
        await east.submit(listed("b", announces=NARROW, username="u", password_file="/no/file"))
        await asyncio.sleep(10)
        assert clusters(east) == {"east"}


async def test_who_is_followed_as_before_is_not_said_to_be_out_of_sight() -> None:
    mesh = Mesh(names=ALL, overrides=(ALONE, FILES))
    async with mesh.running("east") as east, mesh.running("b") as b:
        await kept_of_b(east, b)
        await east.submit(listed("b", username="u", password_file="/no/file"))
        await asyncio.sleep(2)
        found = condition(east, "b")
        assert found is not None
        assert (found.phase, found.reason[:18]) == (Phase.READY, "followed as before")
        assert east.parts.node.peers.unfresh() == frozenset()


async def test_links_that_lead_in_a_circle_are_a_problem_like_any_other(tmp_path: Path) -> None:
    """They ended meshd, and every start of it after that."""
    mesh = Mesh(names=ALL, overrides=(ALONE, f"replication.listed_files_dir={tmp_path}"))
    one, other = tmp_path / "one", tmp_path / "other"
    one.symlink_to(other)
    other.symlink_to(one)
    for _ in range(2):
        async with mesh.running("east") as east:
            await east.submit(listed("b", username="u", password_file=str(one)))
            await until_phase(east, "b", Phase.REFUSED)


async def test_a_password_that_was_replaced_counts_after_a_reload(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("one\n")
    mesh = Mesh(names=("east", "b"), peer_fields=f", username: u, password_file: {secret}")
    async with mesh.running("east") as east, mesh.running("b") as b:
        await define(east, b)
        await until_ready(east, "b")
        secret.write_text("two\n")
        await reload(east.settings, lambda: mesh.settings("east"), east.parts.node.peers)
        before = condition(east, "b")
        assert before is not None
        await east.until(
            lambda: getattr(next(iter(east.parts.node.peers)).link, "password", "") == "two"
        )
        await until_ready(east, "b")
        after = condition(east, "b")
        assert after is not None
        assert after.traffic.records_read == before.traffic.records_read


async def test_of_a_peer_that_is_only_kept_events_are_told_and_nothing_is_cut_under_it(
    tmp_path: Path,
) -> None:
    mesh = Mesh(names=ALL, overrides=(ALONE, FILES))
    secret = tmp_path / "password"
    secret.write_text("secret\n")
    async with mesh.running("b") as b:
        async with mesh.running("east") as east:
            await kept_of_b(east, b, username="u", password_file=str(secret))
            told = len(await east.parts.node.history.read(B, 0, 10))
        secret.unlink()
        async with mesh.running("east") as east:
            assert clusters(east) == {"east", "b"}
            assert len(await east.parts.node.history.read(B, 0, 10)) == told == 3
            head = east.parts.node.projector.local_head
            assert head is not None
            assert east.parts.node.peers.needed_seq(head.exports["mesh"].log_id) == 0


async def test_a_peer_that_is_listed_again_while_replicas_are_looked_for_keeps_its_own() -> None:
    grace = ("retention.check_every_s=60", "retention.replica_grace_s=100")
    mesh = Mesh(names=ALL, overrides=(ALONE, FILES, *grace))
    async with mesh.running("east") as east:
        async with mesh.running("b") as b:
            await kept_of_b(east, b)
            await east.submit(RemovePeer(B))
            await east.until(lambda: condition(east, "b") is None)
        mesh.etcds["b"].set_up(up=False)
        clearing, again = east.parts.clearing, asyncio.Event()
        look = clearing._replicas

        async def slow_look() -> list[ClusterName]:
            found = await look()
            since_s = clearing._unlisted_since_s.get(B)
            if since_s is not None and clearing._clock.monotonic_s() - since_s >= 100:
                await east.submit(listed("b"))
                again.set()
            return found

        clearing._replicas = slow_look  # type: ignore[method-assign]
        async with asyncio.timeout(400):
            await again.wait()
        await asyncio.sleep(100)
        assert clusters(east) == {"east", "b"}
    async with mesh.running("east") as east:
        assert clusters(east) == {"east", "b"}


async def test_a_snapshot_of_a_peer_that_brings_ballast_is_refused() -> None:
    """It took 77 MB for one that was sent, whatever the ceilings were."""
    mesh = Mesh(names=("east", "b"), overrides=("replication.slow_retry_s=2",))
    keys = SPACE.export()
    async with mesh.running("b") as b:
        await b.submit(service())
        head = decode_head((await MemoryKv(mesh.etcds["b"]).range(keys.head)).kvs[0].value, "head")
        raw_part = encode_part((), [("key", Outcome(Seq(1), Seq(1), 1))])
        manifest = Manifest(head, time_ms=1, log_bytes=1, items=0, parts=(hash_part(raw_part),))
        puts = (
            Put(keys.part(head.seq, 0), raw_part),
            Put(keys.manifest, encode_manifest(manifest)),
        )
        await MemoryKv(mesh.etcds["b"]).commit(Txn(success=puts))
        async with mesh.running("east") as east:
            await until_phase(east, "b", Phase.QUARANTINED)
            found = condition(east, "b")
            assert found is not None
            assert "idempotency keys" in found.reason


async def test_a_replica_that_is_not_served_is_read_and_said_once(tmp_path: Path) -> None:
    mesh = Mesh(names=ALL, overrides=(ALONE, FILES))
    secret = str(tmp_path / "password")
    async with mesh.running("b") as b:
        async with mesh.running("east") as east:
            await kept_of_b(east, b)
            narrow = listed("b", username="u", password_file=secret, announces=NARROW)
            await east.submit(narrow)
        with capture_logs() as logs:
            async with mesh.running("east") as east:
                await asyncio.sleep(60)
                assert clusters(east) == {"east"}
                said = [one for one in logs if one["event"] == "replica is not served"]
                assert len(said) == 1
                # With other ranges it is looked at again.
                await east.submit(listed("b", username="u", password_file=secret))
                await east.until(lambda: clusters(east) == {"east", "b"})


async def test_others_go_on_between_two_peers_that_are_looked_after(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mesh = Mesh(("east", "west", "south"))
    async with mesh.running("east") as east:
        peers = east.parts.node.peers
        passed, seen = list[None](), list[int]()
        review_one = peers._review_one

        def note(peer: Any) -> None:
            seen.append(len(passed))
            asyncio.get_running_loop().call_soon(passed.append, None)
            review_one(peer)

        monkeypatch.setattr(peers, "_review_one", note)
        await east.until(lambda: len(seen) >= 2)
        assert seen[:2] == [0, 1]
