"""Passing over a record that nobody may fold: in every meshd, after every restart, no further."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from meshd.core.agreement import Verdict
from meshd.core.audit import Audit
from meshd.core.skipping import skip_of
from meshd.edges.memory import MemoryEtcd, MemoryKv
from meshd.model.archive import ArchiveReader, LogName
from meshd.model.command import RemoveSkip, SkipRecord
from meshd.model.errors import RejectedError
from meshd.model.ids import ClusterName
from meshd.model.keyspace import Keyspace
from meshd.model.peer import PeerCondition, Phase
from meshd.model.replica import Pause, Resume, Resync
from meshd.runtime.archiving import archived, audit_of
from meshd.runtime.ports import Put, Txn
from meshd.runtime.stored_log import open_log, stored_skip
from tests.mesh import Mesh, Running, endpoint, service

pytestmark = pytest.mark.looptime

EAST, WEST = ClusterName("east"), ClusterName("west")
SPACE = Keyspace()
QUICK = ("replication.slow_retry_s=2",)
GOOD = [("west", "a", 16), ("west", "b", 16)]


def condition(east: Running) -> PeerCondition:
    found = east.parts.node.peers.condition(WEST)
    assert found is not None
    return found


def asked(east: Running, seq: int | None = None) -> SkipRecord:
    state = east.parts.node.peers.state(WEST)
    assert state is not None
    return skip_of(WEST, state, seq)


async def until_stopped(*easts: Running) -> None:
    for east in easts:
        await east.until(lambda east=east: condition(east).phase is Phase.QUARANTINED)  # type: ignore[misc]


async def poison(west: Running) -> int:
    """Say what no peer may, and then something good; returns the seq of the bad record."""
    bad = await west.submit(endpoint("shop/web/bad", "127.0.0.1"))
    await west.submit(endpoint("shop/web/b", "10.0.0.2"))
    return bad.first_seq


@asynccontextmanager
async def stopped_mesh() -> AsyncIterator[tuple[Mesh, Running, int]]:
    """East follows west, which has said something bad and then something good."""
    mesh = Mesh(names=("east", "west"), overrides=QUICK)
    async with mesh.running("east") as east, mesh.running("west") as west:
        await east.submit(service())
        await west.submit(service(), endpoint("shop/web/a", "10.0.0.1"))
        await east.until_count("shop/web", 1)
        seq = await poison(west)
        await until_stopped(east)
        yield mesh, east, seq


async def raw_log(etcd: MemoryEtcd, root: bytes) -> dict[bytes, bytes]:
    found = await MemoryKv(etcd).range(root, root[:-1] + b"0")
    return {kv.key.removeprefix(root): kv.value for kv in found.kvs}


async def test_the_rest_of_the_log_is_read_and_nothing_of_the_record_is_folded() -> None:
    async with stopped_mesh() as (_, east, seq):
        assert condition(east).quarantined_seq == seq
        assert condition(east).skipped == ()
        await east.submit(asked(east, seq))
        await east.until_ready("west")
        await east.until_eligible("shop/web", GOOD)
        assert condition(east).skipped == (seq,)
        assert condition(east).quarantined_seq is None
        # It is as durable as it was said, and said once.
        with pytest.raises(RejectedError, match="is not Quarantined"):
            asked(east)


async def test_every_meshd_of_the_cluster_passes_over_it_at_once() -> None:
    mesh = Mesh(names=("east", "west"), overrides=("replication.slow_retry_s=1000",))
    async with (
        mesh.running("east") as one,
        mesh.running("east") as other,
        mesh.running("west") as west,
    ):
        await one.submit(service())
        await west.submit(service(), endpoint("shop/web/a", "10.0.0.1"))
        await one.until_count("shop/web", 1)
        await poison(west)
        await until_stopped(one, other)
        await one.submit(asked(other))
        for east in (one, other):
            await east.until_eligible("shop/web", GOOD)
            await east.until_ready("west")
        digests = {east.parts.node.projector.tables.digest for east in (one, other)}
        assert len(digests) == 1
        # West itself has the endpoint: at the same vector it comes to something else.
        assert west.parts.node.projector.digest_as(EAST) not in digests


async def test_the_replica_is_the_log_byte_for_byte_and_is_served_after_a_restart() -> None:
    async with stopped_mesh() as (mesh, east, seq):
        await east.submit(asked(east))
        await east.until_ready("west")
        store = next(iter(east.parts.node.peers)).store
        await east.until(lambda: store.durable_seq == condition(east).head.seq)  # type: ignore[union-attr]
        theirs = await raw_log(mesh.etcds["west"], SPACE.export().log)
        ours = await raw_log(mesh.etcds["east"], SPACE.replica(WEST, store.place).log)
        assert ours == theirs
    mesh.etcds["west"] = MemoryEtcd(mesh.clock, cluster_id=9)
    async with mesh.running("east") as east:
        assert east.eligible("shop/web") == GOOD
        assert condition(east).skipped == (seq,)


async def test_an_archive_of_the_replica_folds_alike() -> None:
    async with stopped_mesh() as (mesh, east, _):
        await east.submit(asked(east))
        await east.until_ready("west")
        store = next(iter(east.parts.node.peers)).store
        await east.until(lambda: store.durable_seq == condition(east).head.seq)  # type: ignore[union-attr]
        kv, name = MemoryKv(mesh.etcds["east"]), LogName("replica", "west")
        skip = await stored_skip(kv, SPACE, name)
        assert skip == east.parts.node.peers.skip_of(WEST)
        assert await stored_skip(kv, SPACE, LogName("local")) is None
        stored = await open_log(kv, SPACE, name, skip)
        raw = b"".join([piece async for piece in archived(stored, audit_of(stored))])
        reader = ArchiveReader(io.BytesIO(raw).read, "west.log")
        origin = reader.origin
        audit = Audit(origin.speaker, origin.log_id, skip=origin.skip)
        for entry in reader.entries():
            audit.take(entry)
        assert audit.state == east.parts.node.projector.state(WEST)


async def test_a_replica_with_it_is_summed_up() -> None:
    short = ("retention.check_every_s=1", "retention.snapshot_every_events=5")
    mesh = Mesh(names=("east", "west"), overrides=(*QUICK, *short))
    async with mesh.running("east") as east, mesh.running("west") as west:
        await east.submit(service())
        await west.submit(service(), endpoint("shop/web/a", "10.0.0.1"))
        await east.until_count("shop/web", 1)
        await poison(west)
        await until_stopped(east)
        await east.submit(asked(east))
        await east.until_eligible("shop/web", GOOD)
        kv = MemoryKv(mesh.etcds["east"])
        await asyncio.sleep(5)
        # The copy may have been built anew, and then lies in its other place.
        keys = SPACE.replica(WEST, next(iter(east.parts.node.peers)).store.place)
        assert (await kv.range(keys.manifest)).kvs


async def test_a_paused_peer_stays_paused_and_passes_over_it_later() -> None:
    async with stopped_mesh() as (_, east, _seq):
        skip = asked(east)
        east.parts.node.peers.control(WEST, Pause(), "test")
        await east.until(lambda: east.phase("west") is Phase.PAUSED)
        await east.submit(skip)
        await asyncio.sleep(30)
        assert east.phase("west") is Phase.PAUSED
        east.parts.node.peers.control(WEST, Resume(), "test")
        await east.until_eligible("shop/web", GOOD)


async def test_reading_anew_passes_over_it_again() -> None:
    async with stopped_mesh() as (_, east, seq):
        await east.submit(asked(east))
        await east.until_eligible("shop/web", GOOD)
        east.parts.node.peers.control(WEST, Resync(), "test")
        await asyncio.sleep(5)
        await east.until_ready("west")
        assert east.eligible("shop/web") == GOOD
        assert condition(east).skipped == (seq,)


async def verdict_of_west(east: Running) -> Verdict:
    report = await east.parts.node.agreement.report()
    (found,) = (one for one in report.clusters if one.cluster == WEST)
    return found.verdict


async def test_what_was_derived_without_it_is_derived_again_once_it_is_folded() -> None:
    """Read anew without the skip, the same places of the same log come to something else."""
    narrow = Mesh(names=("east", "west"), peer_fields=", announces: [10.9.0.0/16]")
    mesh = Mesh(names=("east", "west"), overrides=QUICK, etcds=narrow.etcds)
    async with mesh.running("east") as east, mesh.running("west") as west:
        east.parts.node.peers.relist(narrow.settings("east").peers)
        await east.submit(service())
        await west.submit(service(), endpoint("shop/web/a", "10.9.0.1"))
        await west.submit(endpoint("shop/web/c", "10.1.0.1"))
        await until_stopped(east)
        await east.submit(asked(east))
        await east.until_ready("west")
        await east.until_eligible("shop/web", GOOD[:1])
        await asyncio.sleep(5)
        assert await verdict_of_west(east) is Verdict.DIFFERS
        log_id = east.parts.node.projector.log_ids[WEST]
        await east.submit(RemoveSkip(WEST, log_id))
        east.parts.node.peers.relist(mesh.settings("east").peers)
        east.parts.node.peers.control(WEST, Resync(), "test")
        await east.until_eligible("shop/web", [*GOOD[:1], ("west", "c", 16)])
        await asyncio.sleep(5)
        assert east.parts.node.projector.log_ids[WEST] == log_id
        assert await verdict_of_west(east) is Verdict.AGREES


async def test_what_is_no_record_cannot_be_passed_over() -> None:
    mesh = Mesh(names=("east", "west"), overrides=QUICK)
    async with mesh.running("east") as east, mesh.running("west") as west:
        await east.submit(service())
        await west.submit(service(), endpoint("shop/web/a", "10.0.0.1"))
        await east.until_count("shop/web", 1)
        head = west.parts.node.projector.vector()[WEST]
        key = SPACE.export().record(head.seq + 1)
        await MemoryKv(mesh.etcds["west"]).commit(Txn(success=(Put(key, b"\xc1"),)))
        await until_stopped(east)
        with pytest.raises(RejectedError, match="no record that continues its log"):
            asked(east)


async def test_a_skip_is_forgotten_once_the_log_behind_the_name_is_another() -> None:
    quick = (*QUICK, "retention.check_every_s=1")
    mesh = Mesh(names=("east", "west"), overrides=quick)
    async with mesh.running("east") as east:
        async with mesh.running("west") as west:
            await east.submit(service())
            await west.submit(service(), endpoint("shop/web/a", "10.0.0.1"))
            await east.until_count("shop/web", 1)
            await poison(west)
            await until_stopped(east)
            await east.submit(asked(east))
            await east.until_eligible("shop/web", GOOD)
            await asyncio.sleep(30)
            assert east.parts.node.peers.skip_of(WEST) is not None
        mesh.etcds["west"].wipe()
        # Another place in the list is another seed, and so another log id.
        mesh.names, mesh.ids["west"] = ("east", "north", "west"), 2
        mesh.etcds["north"] = MemoryEtcd(mesh.clock, cluster_id=9)
        async with mesh.running("west") as west:
            await west.submit(service(), endpoint("shop/web/new", "10.0.0.3"))
            await east.until_eligible("shop/web", [("west", "new", 16)])
            await east.until(lambda: east.parts.node.peers.skip_of(WEST) is None)
            assert condition(east).skipped == ()


async def test_one_bad_record_after_the_other_is_said_one_by_one() -> None:
    async with stopped_mesh() as (mesh, east, seq):
        async with mesh.running("west") as west:
            more = await west.submit(
                endpoint("shop/web/bad", "127.0.0.2"), endpoint("shop/web/lost", "10.0.0.3")
            )
            await west.submit(endpoint("shop/web/c", "10.0.0.4"))
            await east.submit(asked(east, seq))
            await east.until(lambda: condition(east).quarantined_seq == more.first_seq)
            await east.until_eligible("shop/web", GOOD)
            await east.submit(asked(east, more.first_seq))
            await east.until_ready("west")
        # Nothing of a record that is passed over is folded, whatever else is in it.
        await east.until_eligible("shop/web", [*GOOD, ("west", "c", 16)])
        assert condition(east).skipped == (seq, more.first_seq)


async def test_of_a_peer_that_is_gone_nothing_is_left_not_even_what_was_passed_over() -> None:
    """Neither records nor snapshots in either place, nor the skip; an etcd that is away is waited
    for.
    """
    short = ("retention.check_every_s=1", "retention.snapshot_every_events=5")
    mesh = Mesh(names=("east", "west"), overrides=(*QUICK, *short, "retention.replica_grace_s=5"))
    etcd, root = mesh.etcds["east"], SPACE.replica(WEST).root
    async with mesh.running("east") as east, mesh.running("west") as west:
        await east.submit(service())
        await west.submit(service(), endpoint("shop/web/a", "10.0.0.1"))
        await east.until_count("shop/web", 1)
        await poison(west)
        await until_stopped(east)
        await east.submit(asked(east))
        await east.until_eligible("shop/web", GOOD)
        await asyncio.sleep(5)
        kept = await raw_log(etcd, root)
        assert any(b"snapshot/" in key for key in kept)
        east.parts.node.peers.relist(())
        await asyncio.sleep(3)
        etcd.set_up(up=False)
        await asyncio.sleep(20)
        etcd.set_up(up=True)
        assert await raw_log(etcd, root) == kept
        await east.until(lambda: east.parts.node.peers.skip_of(WEST) is None)
        assert await raw_log(etcd, root) == {}
