"""New logs that continue old ones: from a backup, and from what a peer has kept."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

import pytest

from meshd.core.audit import Audit
from meshd.core.past import parse_as_of
from meshd.edges.memory import MemoryEtcd, MemoryKv
from meshd.model.archive import ArchiveReader, LogName
from meshd.model.codec import LocalHead
from meshd.model.command import Move, MoveOperation, StartOperation
from meshd.model.errors import CorruptError, RejectedError, TransientError
from meshd.model.ids import ClusterName, Position, Seq, ServiceKey, format_vector, parse_vector
from meshd.model.keyspace import Keyspace
from meshd.model.operation import Operation, OperationKind, Stage
from meshd.runtime.archiving import archived, audit_of
from meshd.runtime.bootstrap import Identity
from meshd.runtime.founding import Kept, found
from meshd.runtime.history import GoneError
from meshd.runtime.past import Moment
from meshd.runtime.ports import Kv, Txn, TxnResult
from meshd.runtime.stored_log import open_log
from tests.mesh import LoopClock, Mesh, Running, SeededChance, endpoint, service

pytestmark = pytest.mark.looptime

SPACE = Keyspace()
EAST, WEB = ClusterName("east"), ServiceKey("shop", "web")
UP = (Stage(turned_percent=100),)
SHORT = (
    "retention.check_every_s=1",
    "retention.snapshot_every_events=10",
    "retention.keep_events=20",
    "retention.cap_events=30",
)


async def archive_of(kv: Kv, log: str, first_seq: int | None = None) -> bytes:
    stored = await open_log(kv, SPACE, LogName.parse(log))
    async with aclosing(archived(stored, audit_of(stored), first_seq)) as pieces:
        return b"".join([piece async for piece in pieces])


def read(raw: bytes) -> Kept:
    """Check an archive to its end, as the commands do."""
    reader = ArchiveReader(io.BytesIO(raw).read, "x.log")
    audit = Audit(reader.origin.speaker, reader.origin.log_id)
    if reader.snapshot is not None:
        audit.begin_with(reader.snapshot, reader.parts(), "x.log")
    for entry in reader.entries():
        audit.take(entry)
    return Kept(audit.state, audit.end("x.log"))


async def found_in(etcd: MemoryEtcd, local: Kept, export: Kept, seed: int = 77) -> LocalHead:
    return await found(
        MemoryKv(etcd),
        SPACE,
        Identity(EAST, 1),
        local,
        {"mesh": export},
        (LoopClock(), SeededChance(seed)),
    )


async def fill(east: Running, events: int) -> None:
    for number in range(events):
        await east.submit(endpoint("shop/web/a", weight=1 + number % 100))
        if number % 10 == 0:
            await asyncio.sleep(2)


@asynccontextmanager
async def two(overrides: tuple[str, ...]) -> AsyncIterator[tuple[Mesh, Running]]:
    """East and west, of which west stays."""
    mesh = Mesh(names=("east", "west"), overrides=overrides)
    async with mesh.running("west") as west:
        await west.submit(service())
        yield mesh, west


@pytest.mark.parametrize("overrides", [(), SHORT], ids=["a whole log", "a log that was cut"])
async def test_a_restored_cluster_is_another_generation_of_the_same_state(
    overrides: tuple[str, ...],
) -> None:
    async with two(overrides) as (mesh, west):
        async with mesh.running("east") as east:
            await east.submit(service(), service("shop/own", is_global=False), cause="once")
            await fill(east, 60)
            local = read(await archive_of(east.kv, "local"))
            export = read(await archive_of(east.kv, "export/mesh"))
            # After the backup: what a restore doesn't know.
            await east.submit(endpoint("shop/web/late"))
            await west.until_count("shop/web", 2)
        mesh.etcds["east"].wipe()
        heads = await found_in(mesh.etcds["east"], local, export)
        assert heads.local.log_id != local.head.log_id
        assert heads.local.seq == local.head.seq
        async with mesh.running("east") as east:
            state = east.parts.node.projector.state(EAST)
            assert state is not None
            assert state.services.keys() == local.state.services.keys()
            assert (await east.submit(service(), cause="once")).repeated
            await west.until_count("shop/web", 1)
            await west.until_ready("east")
            condition = west.parts.node.peers.condition(EAST)
            assert condition is not None
            assert condition.traffic.forks == 1
            # It goes on from there, and so does the chain.
            outcome = await east.submit(endpoint("shop/web/new"))
            assert outcome.first_seq == local.head.seq + 1
            await west.until_count("shop/web", 2)
            assert read(await archive_of(east.kv, "local")).head.seq == outcome.last_seq


async def ask(east: Running, vector: Mapping[ClusterName, Position]) -> Moment:
    return await east.parts.node.past.at(parse_as_of(format_vector(vector), "as_of"))


async def test_what_a_restored_cluster_says_of_its_place_can_be_asked_for() -> None:
    """Its logs begin with snapshots that were made at once: one place in both."""
    mesh = Mesh(names=("east",), overrides=SHORT)
    etcd = mesh.etcds["east"]
    async with mesh.running("east") as east:
        await east.submit(service())
        await fill(east, 5)
        local = read(await archive_of(east.kv, "local"))
        export = read(await archive_of(east.kv, "export/mesh"))
    etcd.wipe()
    await found_in(etcd, local, export)
    async with mesh.running("east") as east:
        projector = east.parts.node.projector
        restored, shared = projector.log_vector(), projector.vector()
        assert (restored[EAST].seq, shared[EAST].seq) == (local.head.seq, export.head.seq)
        for vector in (restored, shared):
            moment = await ask(east, vector)
            assert (moment.at, moment.shared) == (restored, shared)
            assert moment.states == projector.states
        # Nothing of this is for others: they stand where they stood.
        await east.submit(service("shop/own", is_global=False))
        own = projector.log_vector()
        assert own != restored
        assert projector.vector() == shared
        assert ((await ask(east, own)).at, (await ask(east, own)).shared) == (own, shared)
        assert (await ask(east, shared)).at == restored
        # What was before that is gone, and what can be asked for instead can be.
        before = replace(shared[EAST], seq=Seq(shared[EAST].seq - 1))
        await refused_with_another(east, {EAST: before}, restored)
        # Once these places are cut off they are told of no more.
        await fill(east, 80)
        await asyncio.sleep(5)
        for place in (restored[EAST], shared[EAST]):
            await refused_with_another(east, {EAST: place})


async def refused_with_another(
    east: Running,
    gone: Mapping[ClusterName, Position],
    instead: Mapping[ClusterName, Position] | None = None,
) -> None:
    """A place that is gone is refused with one that can be asked for."""
    with pytest.raises(GoneError) as raised:
        await ask(east, gone)
    remedy = raised.value.problems[0].remedy
    offered = parse_vector(remedy.removeprefix("ask for ").partition(" ")[0])
    assert offered not in (gone, {})
    assert (await ask(east, offered)).at == offered
    assert instead in (None, offered)


@pytest.mark.parametrize("overrides", [(), SHORT], ids=["a whole log", "a log that was cut"])
async def test_a_wiped_cluster_recovers_from_a_peer_and_no_peers_table_changes(
    overrides: tuple[str, ...],
) -> None:
    mesh = Mesh(names=("east", "west", "south"), overrides=overrides)
    async with mesh.running("west") as west, mesh.running("south") as south:
        peers = (west, south)
        for peer in peers:
            await peer.submit(service())
        async with mesh.running("east") as east:
            await east.submit(service(), endpoint("shop/web/b"))
            await fill(east, 60)
            for peer in peers:
                await peer.until_count("shop/web", 2)
                await peer.until_ready("east")
                await peer.until(lambda p=peer: is_kept(p))  # type: ignore[misc]
            exported = read(await archive_of(east.kv, "export/mesh"))
        before = [peer.eligible("shop/web") for peer in peers]
        mesh.etcds["east"].wipe()
        kept = read(await archive_of(west.kv, "replica/east"))
        assert kept.head == exported.head
        assert kept.state.services == exported.state.services
        await found_in(mesh.etcds["east"], kept, kept)
        async with mesh.running("east") as east, asyncio.TaskGroup() as tasks:
            watching = [
                tasks.create_task(watch(peer, len(one)))
                for peer, one in zip(peers, before, strict=True)
            ]
            for peer in peers:
                await peer.until(lambda p=peer: forks(p) == 1)  # type: ignore[misc]
                await peer.until_ready("east")
            for task in watching:
                task.cancel()
            assert [peer.eligible("shop/web") for peer in peers] == before
            await east.until_count("shop/web", 2)
            await east.submit(endpoint("shop/web/c"))
            for peer in peers:
                await peer.until_count("shop/web", 3)


@pytest.mark.parametrize("is_restored", [True, False], ids=["restored", "recovered"])
@pytest.mark.parametrize("overrides", [(), SHORT], ids=["a whole log", "a log that was cut"])
async def test_operations_come_back_with_the_own_log_and_what_they_turned_with_any(
    overrides: tuple[str, ...], *, is_restored: bool
) -> None:
    stages = (Stage(turned_percent=40, hold_s=86_400.0), Stage(turned_percent=0))
    drain = Operation(kind=OperationKind.DRAIN, subjects=("service/shop/web",), stages=stages)
    async with two(overrides) as (mesh, west):
        async with mesh.running("east") as east:
            await east.submit(service(), StartOperation("one", drain))
            await fill(east, 60)
            before = east.parts.node.projector.states[EAST].operations["one"]
            await west.until_count("shop/web", 1)
            await west.until_ready("east")
            await west.until(lambda: is_kept(west))
            local = read(await archive_of(east.kv, "local"))
            export = read(await archive_of(east.kv, "export/mesh"))
        mesh.etcds["east"].wipe()
        kept = read(await archive_of(west.kv, "replica/east"))
        founded = (local, export) if is_restored else (kept, kept)
        await found_in(mesh.etcds["east"], *founded)
        async with mesh.running("east") as east:
            state = east.parts.node.projector.states[EAST]
            assert state.operations == ({"one": before} if is_restored else {})
            assert state.services[WEB].value.turned_percent == 40
            name = "one" if is_restored else "two"
            moved = await east.submit(
                MoveOperation("one", Move.ROLL_BACK)
                if is_restored
                else StartOperation("two", replace(drain, kind=OperationKind.UNDRAIN, stages=UP))
            )
            assert moved.events == 2
            assert state.services[WEB].value.turned_percent == 100
            assert not state.operations[name].value.is_under_way


def forks(peer: Running) -> int:
    condition = peer.parts.node.peers.condition(EAST)
    return condition.traffic.forks if condition else 0


def is_kept(peer: Running) -> bool:
    condition = peer.parts.node.peers.condition(EAST)
    return (
        condition is not None
        and condition.head is not None
        and condition.replica_seq == condition.head.seq
    )


async def watch(peer: Running, count: int) -> None:
    """See every change of a table: at none of them a backend is missing."""
    while True:
        assert len(peer.eligible("shop/web")) == count
        await peer.parts.node.projector.changed.wait()


async def test_an_etcd_that_holds_a_cluster_is_left_alone() -> None:
    mesh = Mesh(names=("east",))
    async with mesh.running("east") as east:
        await east.submit(service())
        kept = read(await archive_of(east.kv, "local"))
        before = mesh.etcds["east"].revision
        with pytest.raises(RejectedError, match="holds a meshd cluster under /meshd/v1 already"):
            await found_in(mesh.etcds["east"], kept, kept)
        assert mesh.etcds["east"].revision == before


async def test_of_two_foundings_at_once_one_counts() -> None:
    mesh = Mesh(names=("east",))
    async with mesh.running("east") as east:
        await east.submit(service())
        kept = read(await archive_of(east.kv, "local"))
    etcd = MemoryEtcd(LoopClock())
    done = await asyncio.gather(  # noqa: TID251 both at once is the point
        found_in(etcd, kept, kept, 1), found_in(etcd, kept, kept, 2), return_exceptions=True
    )
    assert sorted(type(one).__name__ for one in done) == ["LocalHead", "RejectedError"]


@pytest.mark.parametrize("commits", range(5))
async def test_a_founding_that_breaks_off_leaves_nothing_and_is_repeated(commits: int) -> None:
    class Breaks(MemoryKv):
        async def commit(self, txn: Txn) -> TxnResult:
            if self.calls["commit"] == commits:
                raise TransientError("gone")
            return await super().commit(txn)

    mesh = Mesh(names=("east",))
    async with mesh.running("east") as east:
        await east.submit(service())
        kept = read(await archive_of(east.kv, "local"))
    mesh.etcds["east"].wipe()
    doors = (LoopClock(), SeededChance(77))
    with pytest.raises(TransientError):
        await found(
            Breaks(mesh.etcds["east"]), SPACE, Identity(EAST, 1), kept, {"mesh": kept}, doors
        )
    assert not (await MemoryKv(mesh.etcds["east"]).range(SPACE.descriptor)).kvs
    await found_in(mesh.etcds["east"], kept, kept)
    async with mesh.running("east") as east:
        assert east.parts.node.projector.tables.keys()


async def test_a_state_that_is_not_whole_founds_nothing() -> None:
    mesh = Mesh(names=("east",))
    async with mesh.running("east") as east:
        await east.submit(service())
        kept = read(await archive_of(east.kv, "local"))
    kept.state.is_whole = False
    with pytest.raises(RejectedError, match="can't be founded"):
        await found_in(MemoryEtcd(LoopClock()), kept, kept)


async def test_an_archive_from_a_seq_on_and_what_can_not_be_had() -> None:
    mesh = Mesh(names=("east",), overrides=SHORT)
    async with mesh.running("east") as east:
        await east.submit(service())
        await fill(east, 60)
        stored = await open_log(east.kv, SPACE, LogName("local"))
        assert stored.first_seq > 1
        with pytest.raises(RejectedError, match="was cut off; the log begins with"):
            await archive_of(east.kv, "local", 1)
        with pytest.raises(RejectedError, match="there is nothing"):
            await archive_of(east.kv, "local", stored.head.seq + 1)
        raw = await archive_of(east.kv, "local", stored.head.seq)
        reader = ArchiveReader(io.BytesIO(raw).read, "x.log")
        assert reader.snapshot is None
        assert [entry.record.last_seq for entry in reader.entries()] == [stored.head.seq]
        whole = await archive_of(east.kv, "local")
        for cut in range(0, len(whole), 97):
            with pytest.raises(CorruptError):
                read(whole[:cut])
