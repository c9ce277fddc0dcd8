"""Told events: every one after a position, once, in order, whoever keeps them; or a plain no."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest

from meshd.core.fold import fold_record
from meshd.core.state import ClusterState
from meshd.edges.memory import MemoryEtcd, MemoryKv
from meshd.model.errors import NotFoundError, TransientError
from meshd.model.event import Record, Told
from meshd.model.ids import ClusterName, LogId, Position, Seq
from meshd.runtime.history import TOLD_AT_ONCE, GoneError, History
from meshd.runtime.ports import Delete, Put, Txn
from meshd.runtime.projector import Projector
from meshd.runtime.ring import RecordRing
from tests.logs import LOG_ID, OTHER_LOG_ID, WEST, Log, log_of
from tests.mesh import LoopClock, endpoint, service
from tests.runtime.appending import EAST, SPACE, Appender, appending

pytestmark = pytest.mark.looptime


@pytest.fixture
def etcd() -> MemoryEtcd:
    return MemoryEtcd(LoopClock())


def history_of(it: Appender) -> History:
    return History(it.kv, SPACE, it.projector, lambda _: 0)


async def append_some(it: Appender, count: int = 20) -> None:
    for number in range(count):
        await it.submit(endpoint("shop/web/a", weight=number))


def seqs(told: list[Told]) -> list[int]:
    return [item.position.seq for item in told]


# --- lists ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ring_bytes", [0, 500, 1 << 20], ids=["no ring", "a short ring", "ring"])
async def test_ring_and_log_tell_the_same(etcd: MemoryEtcd, ring_bytes: int) -> None:
    async with appending(etcd) as it:
        it.projector.ring = RecordRing(ring_bytes)
        await it.submit(service(), endpoint("shop/web/b"))
        await append_some(it)
        history = history_of(it)
        told = await history.read(EAST, after=0, limit=100)
        assert seqs(told) == list(range(1, 23))
        assert [str(item.event.data) for item in told[2:4]] == [
            str({"address": "10.0.0.1", "weight": weight}) for weight in (0, 1)
        ]
        assert {item.position.cluster for item in told} == {EAST}
        assert [item.time_ms for item in told] == sorted(item.time_ms for item in told)
        # From any place in it, also from the middle of a record.
        for after in range(23):
            assert await history.read(EAST, after, limit=100) == told[after:]
        assert await history.read(EAST, after=5, limit=3) == told[5:8]
        assert await history.read(EAST, after=5, limit=0) == []
        assert await history.read(EAST, after=99, limit=3) == []


@pytest.mark.parametrize("ring_bytes", [0, 1 << 20], ids=["no ring", "ring"])
async def test_records_of_any_size_are_told_a_few_events_at_a_time(
    etcd: MemoryEtcd, ring_bytes: int
) -> None:
    async with appending(etcd) as it:
        it.projector.ring = RecordRing(ring_bytes)
        await append_some(it, 3)
        for turn in range(3):
            many = (endpoint(f"shop/web/e{turn}-{n}") for n in range(TOLD_AT_ONCE * 2 + 7))
            await it.submit(*many)
        await append_some(it, TOLD_AT_ONCE + 3)
        last_seq = it.projector.log_vector()[EAST].seq
        history = history_of(it)
        assert seqs(await history.read(EAST, 0, 10_000)) == list(range(1, last_seq + 1))
        async with following(history, {}) as events:
            assert seqs(await until_told(events)) == list(range(1, last_seq + 1))
        for after in (0, 3, 4, 5 + TOLD_AT_ONCE, last_seq - TOLD_AT_ONCE - 1):
            await anext(told := history.follow({EAST: Position(EAST, log_id_of(it), Seq(after))}))
            assert len(held_by(told)) <= TOLD_AT_ONCE
            await told.aclose()


def log_id_of(it: Appender) -> LogId:
    return it.projector.log_vector()[EAST].log_id


def held_by(told: AsyncGenerator[Told | None]) -> list[Told]:
    """What a reader that takes nothing more keeps in memory."""
    batch: list[Told] = told.ag_frame.f_locals["batch"]  # type: ignore[attr-defined]
    return batch


async def test_a_ring_that_reaches_back_costs_no_read(etcd: MemoryEtcd) -> None:
    async with appending(etcd) as it:
        await append_some(it)
        calls = it.kv.calls["range"]
        await history_of(it).read(EAST, after=0, limit=100)
        assert it.kv.calls["range"] == calls


async def test_an_unknown_cluster_has_no_history(etcd: MemoryEtcd) -> None:
    async with appending(etcd) as it:
        with pytest.raises(NotFoundError, match="there is no cluster west here"):
            await history_of(it).read(WEST, after=0, limit=1)


@pytest.mark.parametrize("what", [SPACE.local.record(3), SPACE.local.record(20)])
async def test_a_record_that_is_not_there_is_never_stepped_over(
    etcd: MemoryEtcd, what: bytes
) -> None:
    async with appending(etcd) as it:
        it.projector.ring = RecordRing(0)
        await append_some(it)
        await MemoryKv(etcd).commit(Txn(success=(Delete(what),)))
        after = int(what[-20:]) - 1
        with pytest.raises(TransientError, match=f"seq {after + 1} of east is not in the own etcd"):
            await history_of(it).read(EAST, after, limit=100)


# --- streams --------------------------------------------------------------------------------------


@asynccontextmanager
async def following(
    history: History, start: dict[ClusterName, Position], *clusters: ClusterName
) -> AsyncIterator[AsyncIterator[Told | None]]:
    async with asyncio.timeout(60), aclosing(history.follow(start, clusters)) as events:
        yield events


async def until_told(events: AsyncIterator[Told | None]) -> list[Told]:
    """All that there is to tell at the moment."""
    told: list[Told] = []
    async for item in events:
        if item is None:
            return told
        told.append(item)
    raise AssertionError("a stream of events never ends by itself")


@pytest.mark.parametrize("ring_bytes", [0, 500, 1 << 20])
async def test_a_stream_tells_what_was_and_what_comes(etcd: MemoryEtcd, ring_bytes: int) -> None:
    async with appending(etcd) as it:
        it.projector.ring = RecordRing(ring_bytes)
        await append_some(it, 5)
        async with following(history_of(it), {}) as events:
            assert seqs(await until_told(events)) == [1, 2, 3, 4, 5]
            await it.submit(endpoint("shop/web/a"))
            await it.submit(endpoint("shop/web/b"))
            assert seqs(await until_told(events)) == [6, 7]


async def test_a_stream_wakes_up_when_something_happens(etcd: MemoryEtcd) -> None:
    async with appending(etcd) as it, following(history_of(it), {}) as events:
        assert await until_told(events) == []
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(until_told(events))
            await asyncio.sleep(5)
            assert not waiting.done()
            await it.submit(service())
        assert seqs(waiting.result()) == [1]


async def test_a_stream_is_resumed_at_any_position(etcd: MemoryEtcd) -> None:
    async with appending(etcd) as it:
        await it.submit(service(), endpoint("shop/web/b"), endpoint("shop/web/c"))
        await append_some(it, 5)
        async with following(history_of(it), {}) as events:
            told = await until_told(events)
        for count in range(len(told) + 1):
            start = {EAST: told[count - 1].position} if count else {}
            async with following(history_of(it), start) as events:
                assert await until_told(events) == told[count:]


async def test_a_position_of_another_log_is_gone(etcd: MemoryEtcd) -> None:
    async with appending(etcd) as it:
        await it.submit(service())
        start = {EAST: Position(EAST, LogId("f" * 32), Seq(1))}
        async with following(history_of(it), start) as events:
            with pytest.raises(GoneError, match="was replaced by log"):
                await anext(events)


async def test_a_position_that_the_own_log_has_not_reached_is_gone(etcd: MemoryEtcd) -> None:
    """It was told before the etcd was restored from a backup. Silence until the log is there again
    would hide all that happened instead.
    """
    async with appending(etcd) as it:
        await it.submit(service())
        head = it.projector.head(EAST)
        assert head is not None
        start = {EAST: Position(EAST, head.log_id, Seq(2))}
        async with following(history_of(it), start) as events:
            with pytest.raises(GoneError, match="ends at 1, before 2"):
                await anext(events)


# --- peers ----------------------------------------------------------------------------------------


def adopt(projector: Projector, log: Log) -> None:
    """Serve a peer's log that was read back from its copy, or taken anew."""
    state = ClusterState()
    for record in log.records:
        fold_record(state, record, WEST)
    projector.adopt(WEST, log.head, state)


async def test_all_logs_whose_place_is_gone_are_named_at_once(etcd: MemoryEtcd) -> None:
    """Whoever hears of one begins all of them anew, and would never hear of the others."""
    foreign = LogId("f" * 32)
    async with appending(etcd) as it:
        await it.submit(service())
        adopt(it.projector, log_of(1))
        start = {name: Position(name, foreign, Seq(1)) for name in (EAST, WEST)}
        async with following(history_of(it), start) as events:
            with pytest.raises(GoneError) as gone:
                await anext(events)
    named = [problem.what.split()[3] for problem in gone.value.problems]
    assert named == [EAST, WEST]


async def keep(etcd: MemoryEtcd, records: list[Record]) -> None:
    """Write a peer's records into its copy."""
    keys = SPACE.replica(WEST)
    puts = tuple(Put(keys.record(record.last_seq), record.raw) for record in records)
    await MemoryKv(etcd).commit(Txn(success=puts))


async def test_a_peers_events_are_told_from_its_copy_and_then_from_the_ring(
    etcd: MemoryEtcd,
) -> None:
    log = log_of(2, 1)
    async with appending(etcd) as it:
        await keep(etcd, log.records)
        adopt(it.projector, log)
        async with following(history_of(it), {}, WEST) as events:
            assert seqs(await until_told(events)) == [1, 2, 3]
            # Not in the copy yet: written behind.
            it.projector.fold(WEST, log.append())
            assert seqs(await until_told(events)) == [4]
            # Events of others are not asked for.
            await it.submit(service())
            assert await until_told(events) == []


async def test_a_cluster_that_joins_later_is_told_from_its_beginning(etcd: MemoryEtcd) -> None:
    async with appending(etcd) as it, following(history_of(it), {}) as events:
        await it.submit(service())
        assert seqs(await until_told(events)) == [1]
        log = log_of(1, 1)
        await keep(etcd, log.records)
        adopt(it.projector, log)
        told = await until_told(events)
        assert [(item.position.cluster, item.position.seq) for item in told] == [
            (WEST, 1),
            (WEST, 2),
        ]


async def test_a_peers_position_may_be_ahead_after_a_restart(etcd: MemoryEtcd) -> None:
    """Told when it was folded, kept a little later: what is read again is not told again."""
    log = log_of(1, 1)
    async with appending(etcd) as it:
        adopt(it.projector, log)
        start = {WEST: Position(WEST, LOG_ID, Seq(3))}
        async with following(history_of(it), start, WEST) as events:
            assert await until_told(events) == []
            it.projector.fold(WEST, log.append())
            assert await until_told(events) == []
            it.projector.fold(WEST, log.append())
            assert seqs(await until_told(events)) == [4]


async def test_what_is_neither_in_the_ring_nor_in_the_copy_yet_is_not_skipped(
    etcd: MemoryEtcd,
) -> None:
    log = log_of(1, 1, 1)
    async with appending(etcd) as it:
        adopt(it.projector, log)
        await keep(etcd, log.records[:1])
        with pytest.raises(TransientError, match="seq 2 of west is not in the own etcd yet"):
            await history_of(it).read(WEST, after=0, limit=10)
        await keep(etcd, log.records[1:])
        assert seqs(await history_of(it).read(WEST, after=0, limit=10)) == [1, 2, 3]


async def test_a_copy_of_the_log_before_is_never_told_as_the_new_one(etcd: MemoryEtcd) -> None:
    """The new log is served at once, its copy is written behind."""
    old, new = log_of(1, 1, 1), log_of(1, 1, log_id=OTHER_LOG_ID)
    async with appending(etcd) as it:
        await keep(etcd, old.records)
        adopt(it.projector, old)
        async with following(history_of(it), {}, WEST) as events:
            assert seqs(await until_told(events)) == [1, 2, 3]
            adopt(it.projector, new)
            with pytest.raises(GoneError):
                await anext(events)
        async with following(history_of(it), {}) as events:
            # It waits for the copy, which holds up nobody else.
            await it.submit(service())
            assert {item.position.cluster for item in await until_told(events)} == {EAST}
            await keep(etcd, new.records)
            told = await until_told(events)
            assert [item.position.log_id for item in told] == [OTHER_LOG_ID] * 2


async def test_a_cluster_that_is_removed_while_it_is_followed(etcd: MemoryEtcd) -> None:
    log = log_of(1)
    async with appending(etcd) as it:
        await keep(etcd, log.records)
        adopt(it.projector, log)
        async with following(history_of(it), {}) as events:
            assert seqs(await until_told(events)) == [1]
            it.projector.remove(WEST)
            await it.submit(service())
            assert seqs(await until_told(events)) == [1]


async def test_a_peer_that_is_removed_while_others_are_told_ends_nobodys_stream(
    etcd: MemoryEtcd,
) -> None:
    async with appending(etcd) as it:
        await append_some(it, 3)
        log, state = log_of(2), ClusterState()
        it.projector.adopt(WEST, log.head, state)
        async with following(history_of(it), {}) as events:
            first = await anext(events)
            assert first is not None
            assert first.position.cluster == EAST
            it.projector.remove(WEST)
            rest = await until_told(events)
            assert seqs(rest) == [2, 3]
            await append_some(it, 1)
            assert seqs(await until_told(events)) == [4]
