"""The durable copy of a peer's log: byte for byte, never ahead of what was folded.

The peer's log lies in its own etcd, as the store reads it again from there; the test plays the
follower that hands records over.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from random import Random

import pytest

from meshd.core.fold import fold_record
from meshd.core.snapshot import manifest_of, parts_of
from meshd.core.state import ClusterState
from meshd.edges.memory import MemoryEtcd, MemoryKv
from meshd.model.codec import Cursor, decode_cursor, encode_cursor, encode_head
from meshd.model.errors import TransientError
from meshd.model.event import Event, Record
from meshd.model.ids import Head, LogId, RecordHash, Revision
from meshd.model.keyspace import LogKeys
from meshd.model.snapshot import Manifest, encode_manifest, hash_part
from meshd.runtime.ports import Compare, Delete, Put, Txn, TxnResult
from meshd.runtime.reading import LogReader
from meshd.runtime.replica_copy import ReplicaCopy
from meshd.runtime.replica_store import (
    DOUBT_AFTER_S,
    LOOK_EVERY_S,
    TXN_RECORDS_MAX,
    WRITES_APART_S,
    ReplicaStore,
)
from tests.logs import LOG_ID, OTHER_LOG_ID, WEST, Log, log_of
from tests.mesh import LoopClock
from tests.runtime.appending import SPACE, records_in

pytestmark = pytest.mark.looptime

COPY = SPACE.replica(WEST)
PLENTY_BYTES = 1 << 20


class Rig:
    """The own etcd, the peer's etcd with its log, and the store between them."""

    def __init__(self, backlog_bytes_max: int = PLENTY_BYTES) -> None:
        self.own = MemoryEtcd(LoopClock())
        self.theirs = MemoryEtcd(LoopClock())
        self.link = MemoryKv(self.theirs)
        self.kv = MemoryKv(self.own)
        self.backlog_bytes_max = backlog_bytes_max
        self.log = Log()
        self.leads = True
        self.store = self.new_store()

    def new_store(self) -> ReplicaStore:
        """Make the store of a meshd that starts."""
        self.kv = MemoryKv(self.own)
        source = LogReader(self.link, SPACE, SPACE.export(), is_local=False)
        copy = ReplicaCopy(self.kv, SPACE, WEST, self.fence, self.kv.commit)
        return ReplicaStore(copy, source, LoopClock(), self.backlog_bytes_max)

    def fence(self) -> tuple[Compare, ...] | None:
        return () if self.leads else None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[ReplicaStore]:
        """Run the store; leaving kills it."""
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(self.store.run())
            try:
                yield self.store
            finally:
                task.cancel()

    async def say(self, *sizes: int) -> list[Record]:
        """Let the peer append; nothing is handed over yet."""
        new = [self.log.append(*log_of(size).records[0].events) for size in sizes]
        for record in new:
            put = Put(SPACE.export().record(record.last_seq), record.raw)
            await MemoryKv(self.theirs).commit(Txn(success=(put,)))
        return new

    async def say_anew(self, log_id: LogId, *sizes: int) -> list[Record]:
        """Replace the peer's log."""
        self.theirs.wipe()
        self.log = Log(Head.genesis(log_id))
        return await self.say(*sizes)

    def hear_all(self, records: list[Record]) -> None:
        """Hand over a whole new generation, as the follower does on a first sync or a fork."""
        self.store.begin_generation()
        self.hear(records)
        self.store.complete_generation(records[0].log_id)

    def hear(self, records: list[Record]) -> None:
        for record in records:
            self.store.add(record, 100 + record.last_seq)

    async def until_durable(self, seq: int) -> None:
        async with asyncio.timeout(100):
            while self.store.durable_seq != seq:
                await LoopClock().sleep(0.01)

    async def copy(self, at: Head | None = None) -> list[bytes]:
        return [record.raw for record in await records_in(self.own, await self.keys(), at)]

    async def keys(self) -> LogKeys:
        """The place in which the copy lies."""
        found = await MemoryKv(self.own).range(COPY.cursor)
        return SPACE.replica(WEST, (await self.cursor()).place) if found.kvs else COPY

    async def cursor(self) -> Cursor:
        found = await MemoryKv(self.own).range(COPY.cursor)
        return decode_cursor(found.kvs[0].value, "cursor")


@pytest.fixture
def rig() -> Rig:
    return Rig()


def folded(records: list[Record]) -> ClusterState:
    state = ClusterState()
    for record in records:
        fold_record(state, record, WEST)
    return state


# --- the usual way --------------------------------------------------------------------------------


async def test_a_copy_is_the_log_byte_for_byte_with_a_cursor_at_its_end(rig: Rig) -> None:
    records = await rig.say(1, 3, 2)
    async with rig.running():
        rig.hear_all(records)
        await rig.until_durable(6)
    assert await rig.copy() == [record.raw for record in records]
    assert await rig.cursor() == Cursor(rig.log.head, Revision(106), place=1)
    assert rig.store.backlog_bytes == 0


async def test_what_was_copied_comes_back_at_the_next_start(rig: Rig) -> None:
    first = await rig.say(1, 3)
    assert await rig.store.load() is None
    async with rig.running():
        rig.hear_all(first)
        await rig.until_durable(4)
    # Killed; the peer says more meanwhile, and is away at the start.
    then = await rig.say(2)
    rig.theirs.set_up(up=False)
    rig.store = rig.new_store()
    loaded = await rig.store.load()
    assert loaded is not None
    assert loaded.cursor == Cursor(first[-1].head, Revision(104), place=1)
    assert loaded.state == folded(first)
    # From there on nothing is read twice.
    async with rig.running():
        rig.hear(then)
        await rig.until_durable(6)
    assert await rig.copy() == [record.raw for record in first + then]


async def test_records_go_in_groups_that_etcd_takes(rig: Rig) -> None:
    records = await rig.say(*[1] * (3 * TXN_RECORDS_MAX))
    async with rig.running():
        rig.hear_all(records)
        await rig.until_durable(300)
    assert len(await rig.copy()) == 300
    # One to begin, three groups, and one to serve it.
    assert rig.kv.calls["commit"] == 5


async def test_large_records_go_in_smaller_groups() -> None:
    rig = Rig(backlog_bytes_max=64 << 20)
    large = Event("moon.set", "x", {"": "y" * 400_000}, "ann")
    records = [rig.log.append(large) for _ in range(6)]
    async with rig.running():
        rig.hear_all(records)
        await rig.until_durable(6)
    assert rig.kv.calls["commit"] == 5
    assert await rig.copy() == [record.raw for record in records]


# --- the own etcd is away -------------------------------------------------------------------------


async def test_while_the_own_etcd_is_away_nobody_waits_and_nothing_is_lost(rig: Rig) -> None:
    records = await rig.say(*[1] * 30)
    async with rig.running():
        rig.hear_all(records[:10])
        await rig.until_durable(10)
        rig.own.set_up(up=False)
        rig.hear(records[10:])
        await asyncio.sleep(60)
        assert rig.store.durable_seq == 10
        assert rig.store.backlog_bytes == sum(len(record.raw) for record in records[10:])
        rig.own.set_up(up=True)
        await rig.until_durable(30)
    assert await rig.copy() == [record.raw for record in records]
    assert rig.link.calls.total() == 0


async def test_a_lost_reply_is_looked_up(rig: Rig) -> None:
    records = await rig.say(*[1] * 4)
    async with rig.running():
        rig.hear_all(records[:2])
        await rig.until_durable(2)
        rig.kv.lose_next_reply = True
        rig.hear(records[2:3])
        await rig.until_durable(3)
        rig.hear(records[3:])
        await rig.until_durable(4)
    assert await rig.copy() == [record.raw for record in records]


async def test_a_backlog_that_grows_too_large_is_read_from_the_peer_again() -> None:
    rig = Rig(backlog_bytes_max=2000)
    records = await rig.say(*[1] * 100)
    size_bytes = len(records[0].raw)
    async with rig.running():
        rig.hear_all(records[:5])
        await rig.until_durable(5)
        rig.own.set_up(up=False)
        for record in records[5:90]:
            rig.hear([record])
            assert rig.store.backlog_bytes <= 2000 + size_bytes
        await asyncio.sleep(30)
        rig.own.set_up(up=True)
        await rig.until_durable(90)
        rig.hear(records[90:])
        await rig.until_durable(100)
    assert await rig.copy() == [record.raw for record in records]
    assert rig.link.calls["range"] > 0


async def test_a_first_sync_larger_than_the_backlog_is_read_from_the_peer_again() -> None:
    rig = Rig(backlog_bytes_max=2000)
    records = await rig.say(*[1] * 100)
    async with rig.running():
        rig.hear_all(records)
        assert rig.store.backlog_bytes == 0
        await rig.until_durable(100)
    assert await rig.copy() == [record.raw for record in records]


async def test_the_copy_waits_for_a_peer_that_is_away_and_takes_what_came_meanwhile() -> None:
    rig = Rig(backlog_bytes_max=2000)
    records = await rig.say(*[1] * 120)
    async with rig.running():
        rig.link.set_linked(linked=False)
        rig.hear_all(records[:100])
        await asyncio.sleep(20)
        assert rig.store.durable_seq == 0
        # More than once the backlog fills while it can't be emptied.
        for record in records[100:]:
            rig.hear([record])
            await asyncio.sleep(1)
            assert rig.store.backlog_bytes <= 2000 + len(record.raw)
        rig.link.set_linked(linked=True)
        await rig.until_durable(120)
    assert await rig.copy() == [record.raw for record in records]


async def test_a_reply_that_is_lost_while_reading_again() -> None:
    rig = Rig(backlog_bytes_max=2000)
    records = await rig.say(*[1] * 100)
    async with rig.running():
        rig.hear_all(records)
        for _ in range(20):
            rig.kv.lose_next_reply = True
            await asyncio.sleep(0.5)
        await rig.until_durable(100)
    assert await rig.copy() == [record.raw for record in records]


# --- another history ------------------------------------------------------------------------------


@pytest.mark.parametrize("log_id", [OTHER_LOG_ID, LOG_ID], ids=["replaced", "restored"])
async def test_a_new_generation_takes_the_old_ones_place(rig: Rig, log_id: LogId) -> None:
    async with rig.running():
        rig.hear_all(await rig.say(1, 3, 2))
        await rig.until_durable(6)
        records = await rig.say_anew(log_id, 2, 2)
        rig.store.begin_generation()
        rig.hear(records[:1])
        await asyncio.sleep(10)
        # Not whole yet: the old copy stays, for a restart that finds nobody.
        assert (await rig.cursor()).head.seq == 6
        rig.hear(records[1:])
        rig.store.complete_generation(log_id)
        await rig.until_durable(4)
    assert await rig.copy() == [record.raw for record in records]
    assert (await rig.cursor()).head == rig.log.head


async def test_a_new_generation_while_the_old_one_is_still_being_written() -> None:
    rig = Rig(backlog_bytes_max=2000)
    old = await rig.say(*[1] * 100)
    async with rig.running():
        rig.hear_all(old[:50])
        await rig.until_durable(50)
        rig.own.set_up(up=False)
        rig.hear(old[50:])
        new = await rig.say_anew(OTHER_LOG_ID, *[1] * 20)
        rig.hear_all(new)
        rig.own.set_up(up=True)
        await rig.until_durable(20)
    assert await rig.copy() == [record.raw for record in new]


@pytest.mark.parametrize("turns", range(8))
async def test_a_new_generation_in_the_middle_of_a_write(rig: Rig, turns: int) -> None:
    """What was written of the old one says nothing of the new one, whose seqs are the same."""
    old = await rig.say(*[1] * 10)
    async with rig.running():
        rig.hear_all(old[:1])
        await rig.until_durable(1)
        rig.hear(old[1:])
        for _ in range(turns):
            await asyncio.sleep(0)
        new = log_of(1, 1, log_id=OTHER_LOG_ID).records
        rig.hear_all(new)
        rig.link.set_linked(linked=False)
        await asyncio.sleep(5)
    assert await rig.copy() == [record.raw for record in new]


async def test_a_peer_that_was_replaced_unnoticed_is_not_mixed_into_the_copy() -> None:
    """What can't be read again, since it is gone, waits for the follower to notice."""
    rig = Rig(backlog_bytes_max=2000)
    old = await rig.say(*[1] * 100)
    async with rig.running():
        rig.link.set_linked(linked=False)
        rig.hear_all(old)
        new = await rig.say_anew(OTHER_LOG_ID, *[1] * 5)
        rig.link.set_linked(linked=True)
        await asyncio.sleep(30)
        assert await rig.copy() == []
        rig.hear_all(new)
        await rig.until_durable(5)
    assert await rig.copy() == [record.raw for record in new]


async def test_a_copy_that_was_only_begun_is_not_an_empty_one(rig: Rig) -> None:
    """Killed between dropping the old copy and writing the new one: unknown, and so not served."""
    async with rig.running():
        rig.hear_all(await rig.say(1, 3))
        await rig.until_durable(4)
    genesis = Put(COPY.cursor, encode_cursor(Cursor(Head.genesis(OTHER_LOG_ID), Revision(0))))
    await MemoryKv(rig.own).commit(Txn(success=(Delete(COPY.log, COPY.log_end), genesis)))
    rig.store = rig.new_store()
    assert await rig.store.load() is None
    records = await rig.say_anew(OTHER_LOG_ID, 1, 1)
    async with rig.running():
        rig.hear_all(records)
        await rig.until_durable(2)
    assert await rig.copy() == [record.raw for record in records]


# --- damage ---------------------------------------------------------------------------------------


async def spoil(rig: Rig, how: str, records: list[Record]) -> None:
    keys = await rig.keys()
    key = keys.record(records[1].last_seq)
    elsewhere = Head(rig.log.head.log_id, rig.log.head.seq, RecordHash(b"x" * 16))
    ways: dict[str, Put | Delete] = {
        "the cursor is no JSON": Put(COPY.cursor, b"{"),
        "the cursor is bottomless": Put(COPY.cursor, b"[" * 1010 + b"]" * 1010),
        "the cursor is elsewhere": Put(
            COPY.cursor, encode_cursor(Cursor(elsewhere, Revision(1), place=1))
        ),
        "a record is no record": Put(key, b"\xc1"),
        "a record is another log's": Put(key, log_of(1, 3, log_id=OTHER_LOG_ID).records[1].raw),
        "a record can't be folded": Put(key, unfoldable(records[0].head).raw),
        "a record is missing": Delete(key),
        "all records are missing": Delete(keys.log, keys.log_end),
    }
    await MemoryKv(rig.own).commit(Txn(success=(ways[how],)))


def unfoldable(after: Head) -> Record:
    log = Log(after)
    return log.append(*[Event("endpoint.set", "shop/web/a", {"address": "nowhere"}, "ann")] * 3)


@pytest.mark.parametrize(
    "how",
    [
        "the cursor is no JSON",
        "the cursor is bottomless",
        "the cursor is elsewhere",
        "a record is no record",
        "a record is another log's",
        "a record can't be folded",
        "a record is missing",
        "all records are missing",
    ],
)
async def test_a_damaged_copy_is_not_served_and_is_made_anew(rig: Rig, how: str) -> None:
    records = await rig.say(1, 3, 2)
    async with rig.running():
        rig.hear_all(records)
        await rig.until_durable(6)
    await spoil(rig, how, records)
    rig.store = rig.new_store()
    assert await rig.store.load() is None
    assert rig.store.durable_seq == 0
    async with rig.running():
        rig.hear_all(records)
        await rig.until_durable(6)
    assert await rig.copy() == [record.raw for record in records]
    rig.store = rig.new_store()
    assert await rig.store.load() is not None


async def test_an_own_etcd_that_is_down_is_not_an_empty_copy(rig: Rig) -> None:
    rig.own.set_up(up=False)
    with pytest.raises(TransientError):
        await rig.store.load()


async def test_a_cursor_that_went_away_is_written_again(rig: Rig) -> None:
    records = await rig.say(1, 1, 1)
    async with rig.running():
        rig.hear_all(records[:2])
        await rig.until_durable(2)
        await MemoryKv(rig.own).commit(Txn(success=(Delete(COPY.root, COPY.root + b"\xff"),)))
        rig.hear(records[2:])
        await rig.until_durable(3)
    assert await rig.copy() == [record.raw for record in records]


@pytest.mark.parametrize("log_id", [LOG_ID, OTHER_LOG_ID], ids=["the same log", "another log"])
async def test_a_copy_that_somebody_else_set_back_is_made_whole(rig: Rig, log_id: LogId) -> None:
    """Two meshds of one cluster keep the same copy for a while, when one takes over."""
    records = await rig.say(1, 1, 1)
    async with rig.running():
        rig.hear_all(records[:2])
        await rig.until_durable(2)
        genesis = encode_cursor(Cursor(Head.genesis(log_id), Revision(0)))
        clear = (Delete(COPY.log, COPY.log_end), Put(COPY.cursor, genesis))
        await MemoryKv(rig.own).commit(Txn(success=clear))
        rig.hear(records[2:])
        await rig.until_durable(3)
    assert await rig.copy() == [record.raw for record in records]


# --- everything at once ---------------------------------------------------------------------------


class Storm:
    """Faults of the own etcd, restarts, forks and overflows, in any order, from a seed."""

    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)
        self.rig = Rig(backlog_bytes_max=1500)
        self.heard: list[Record] = []

    async def blow(self) -> None:
        """Let one thing happen."""
        rig, chance = self.rig, self.chance
        match chance.randrange(10):
            case 0:
                rig.own.set_up(up=not rig.own.is_up)
            case 1:
                rig.kv.lose_next_reply = True
            case 2:
                rig.link.set_linked(linked=not rig.link.is_linked)
            case 3 if chance.random() < 0.3:
                log_id = LogId(f"{chance.getrandbits(128):032x}")
                self.heard = await rig.say_anew(log_id, 1, 1)
                rig.hear_all(self.heard)
            case _:
                new = await rig.say(*[1] * chance.randint(1, 8))
                self.heard += new
                rig.hear(new)

    async def run(self) -> None:
        """Run one meshd after the other."""
        self.heard = await self.rig.say(1)
        self.rig.hear_all(self.heard)
        for _ in range(8):
            async with self.rig.running():
                for _ in range(15):
                    await self.blow()
                    await asyncio.sleep(self.chance.choice((0, 0.01, 1)))
            self.rig.own.set_up(up=True)
            await self.restart()

    async def restart(self) -> None:
        """What was kept is a beginning of what was heard; the rest is heard again."""
        rig, heard = self.rig, self.heard
        rig.store = rig.new_store()
        loaded = await rig.store.load()
        if loaded is None or loaded.cursor.head.log_id != heard[0].log_id:
            rig.hear_all(heard)
            return
        kept = loaded.cursor.head.seq
        assert await rig.copy() == [record.raw for record in heard[:kept]]
        assert loaded.state == folded(heard[:kept])
        rig.hear(heard[kept:])


@pytest.mark.parametrize("seed", range(12))
async def test_the_copy_is_never_ahead_and_never_torn(seed: int) -> None:
    storm = Storm(seed)
    await storm.run()
    rig = storm.rig
    rig.own.set_up(up=True)
    rig.link.set_linked(linked=True)
    async with rig.running():
        await rig.until_durable(len(storm.heard))
    assert await rig.copy() == [record.raw for record in storm.heard]


# --- a generation that begins with a snapshot -----------------------------------------------------


async def summed_up(rig: Rig, records: list[Record], *, trimmed: bool) -> tuple[Manifest, bytes]:
    """Sum the peer's log up, and cut it there."""
    state = folded(records)
    (part,) = parts_of(state)
    manifest = manifest_of(state, records[-1].head, 100, [hash_part(part)], None)
    if trimmed:
        manifest = replace(manifest, trim=manifest.mark)
    keys = SPACE.export()
    puts: tuple[Put | Delete, ...] = (
        Put(keys.part(manifest.head.seq, 0), part),
        Put(keys.manifest, encode_manifest(manifest)),
        Put(keys.head, encode_head(rig.log.head)),
    )
    if trimmed:
        puts += (Delete(keys.record(0), keys.record(manifest.head.seq + 1)),)
    await MemoryKv(rig.theirs).commit(Txn(success=puts))
    return manifest, part


def hear_snapshot(rig: Rig, manifest: Manifest, part: bytes, records: list[Record]) -> None:
    rig.store.begin_generation()
    rig.store.add_part(manifest, 0, part)
    rig.store.finish_snapshot(manifest)
    rig.hear(records)
    rig.store.complete_generation(manifest.head.log_id)


async def test_a_copy_may_begin_with_a_snapshot(rig: Rig) -> None:
    before, after = await rig.say(1, 3), await rig.say(2, 2)
    manifest, part = await summed_up(rig, before, trimmed=True)
    async with rig.running():
        hear_snapshot(rig, manifest, part, after[:1])
        await rig.until_durable(6)
        rig.hear(after[1:])
        await rig.until_durable(8)
    assert await rig.copy(before[-1].head) == [record.raw for record in after]
    keys = await rig.keys()
    found = await MemoryKv(rig.own).range(keys.part(4, 0))
    assert found.kvs[0].value == part
    rig.store = rig.new_store()
    loaded = await rig.store.load()
    assert loaded is not None
    assert loaded.state == folded(before + after)
    assert rig.link.calls.total() == 0


async def test_until_the_new_copy_is_whole_the_old_one_is_what_a_restart_finds(rig: Rig) -> None:
    old = await rig.say(1, 3)
    async with rig.running():
        rig.hear_all(old)
        await rig.until_durable(4)
    new = await rig.say_anew(OTHER_LOG_ID, *[1] * (5 * TXN_RECORDS_MAX))
    limit = rig.kv.calls["commit"] + 4

    class Dies(MemoryKv):
        async def commit(self, txn: Txn) -> TxnResult:
            if self.calls["commit"] >= limit:
                await asyncio.Event().wait()
            return await super().commit(txn)

    rig.kv = Dies(rig.own)
    copy = ReplicaCopy(rig.kv, SPACE, WEST, rig.fence, rig.kv.commit)
    rig.store = ReplicaStore(
        copy, LogReader(rig.link, SPACE, SPACE.export(), is_local=False), LoopClock(), PLENTY_BYTES
    )
    await rig.store.load()
    async with rig.running():
        rig.hear_all(new)
        await asyncio.sleep(10)
    rig.store = rig.new_store()
    loaded = await rig.store.load()
    assert loaded is not None
    assert loaded.state == folded(old)
    async with rig.running():
        rig.hear_all(new)
        await rig.until_durable(5 * TXN_RECORDS_MAX)
    assert await rig.copy() == [record.raw for record in new]
    # The old copy is gone, and what a former try had left as well.
    other = SPACE.replica(WEST, 1 - (await rig.cursor()).place)
    assert not (await MemoryKv(rig.own).range(other.log, other.log_end)).kvs


async def test_what_the_backlog_let_go_begins_with_the_peers_snapshot() -> None:
    rig = Rig(backlog_bytes_max=100)
    before, after = await rig.say(*[1] * 20), await rig.say(2, 2)
    manifest, part = await summed_up(rig, before, trimmed=True)
    async with rig.running():
        hear_snapshot(rig, manifest, part, after)
        await rig.until_durable(24)
    assert await rig.copy(before[-1].head) == [record.raw for record in after]
    rig.store = rig.new_store()
    loaded = await rig.store.load()
    assert loaded is not None
    assert loaded.state == folded(before + after)


async def test_a_copy_that_fell_behind_the_peers_cut_is_made_anew() -> None:
    rig = Rig(backlog_bytes_max=100)
    before = await rig.say(*[1] * 20)
    async with rig.running():
        rig.hear_all(before[:1])
        await rig.until_durable(1)
        rig.own.set_up(up=False)
        after = await rig.say(2, 2)
        await summed_up(rig, before, trimmed=True)
        rig.hear([*before[1:], *after])
        rig.own.set_up(up=True)
        await rig.until_durable(24)
    rig.store = rig.new_store()
    loaded = await rig.store.load()
    assert loaded is not None
    assert loaded.state == folded(before + after)


async def test_who_does_not_lead_writes_nothing_and_goes_on_where_the_leader_stopped() -> None:
    rig = Rig()
    records = await rig.say(*[1] * 10)
    async with rig.running():
        rig.hear_all(records[:4])
        await rig.until_durable(4)
    follower = rig.new_store()
    follower_kv = rig.kv
    rig.leads = False
    rig.store = follower
    async with rig.running():
        rig.hear_all(records)
        await asyncio.sleep(10)
        assert follower_kv.calls["commit"] == 0
        assert follower.backlog_bytes == sum(len(record.raw) for record in records)
        rig.leads = True
        await rig.until_durable(10)
    assert await rig.copy() == [record.raw for record in records]
    assert rig.link.calls.total() == 0


@pytest.mark.parametrize("is_large", [False, True], ids=["kept", "cut"])
async def test_who_followed_a_leader_that_was_ahead_builds_nothing_anew(is_large: bool) -> None:
    rig = Rig(1 if is_large else PLENTY_BYTES)
    records = await rig.say(*[1] * 10)
    async with rig.running():
        rig.hear_all(records)
        await rig.until_durable(10)
    before = await rig.cursor()
    rig.leads = False
    rig.store = rig.new_store()
    async with rig.running():
        rig.hear_all(records[:4])
        await asyncio.sleep(5)
        rig.leads = True
        # It can't tell yet whether what lies beyond is what it will hear.
        await asyncio.sleep(5)
        assert await rig.cursor() == before
        rig.hear(records[4:])
        rig.hear(await rig.say(1))
        await rig.until_durable(11)
    assert (await rig.cursor()).place == before.place
    assert len(await rig.copy()) == 11


async def test_who_begins_to_lead_while_it_looks_goes_on_with_what_is_left() -> None:
    """Ring 2, seed 25: nothing was stored until the peer's next record."""
    rig = Rig()
    rig.hear_all(await rig.say(1))
    async with rig.running() as store:
        await rig.until_durable(1)
        # It waits for something to do by then.
        await LoopClock().sleep(WRITES_APART_S)
        rig.leads = False
        rig.hear(await rig.say(1))
        reads = rig.kv.calls["range"]
        async with asyncio.timeout(100):
            while rig.kv.calls["range"] == reads:  # noqa: ASYNC110 before the answer comes
                await asyncio.sleep(0)
        rig.leads = True
        await rig.until_durable(2)
        assert store.backlog_bytes == 0


async def test_a_peer_that_speaks_all_the_time_is_written_a_few_times_a_second() -> None:
    rig = Rig()
    rig.hear_all(await rig.say(1))
    async with rig.running():
        await rig.until_durable(1)
        before = rig.kv.calls["commit"]
        for _ in range(100):
            rig.hear(await rig.say(1))
            await LoopClock().sleep(0.01)
        await rig.until_durable(101)
        assert rig.kv.calls["commit"] - before <= 1 / WRITES_APART_S + 2


async def test_a_copy_that_went_back_with_its_etcd_is_made_anew() -> None:
    """Ring 2, seed 2432: restored to before a record of the peer, with the own log the same."""
    rig = Rig()
    rig.hear_all(await rig.say(1))
    async with rig.running() as store:
        await rig.until_durable(1)
        backup = rig.own.backup()
        rig.hear(await rig.say(1))
        await rig.until_durable(2)
        rig.own.restore(backup)
        async with asyncio.timeout(2 * DOUBT_AFTER_S):
            while (await rig.cursor()).head != rig.log.head:
                await LoopClock().sleep(1)
        assert store.durable_seq == 2
        assert await rig.copy() == [record.raw for record in rig.log.records]


async def test_a_copy_of_another_history_with_the_same_id_is_not_taken_for_written() -> None:
    """Ring 2, seed 3779: who looked on took the copy of what was lost for that of what came."""
    rig = Rig()
    rig.hear_all(await rig.say(1, 1, 1))
    async with rig.running():
        await rig.until_durable(3)
    rig.store = rig.new_store()
    await rig.store.load()
    rig.leads = False
    async with rig.running():
        records = await rig.say_anew(LOG_ID, 2)
        rig.hear_all(records)
        await asyncio.sleep(3 * LOOK_EVERY_S)
        rig.leads = True
        await rig.until_durable(2)
    assert await rig.copy() == [record.raw for record in records]


async def test_who_takes_over_with_less_than_the_former_leader_had_read_waits_for_it() -> None:
    rig = Rig()
    rig.hear_all(await rig.say(1, 1))
    async with rig.running():
        await rig.until_durable(2)
    slow = rig.store = rig.new_store()
    async with rig.running():
        await slow.load()
        ahead, rig.store = rig.store, rig.new_store()
        await rig.store.load()
        new = await rig.say(1, 1)
        async with rig.running():
            rig.hear(new)
            await rig.until_durable(4)
        rig.store = ahead
        commits = rig.own.revision
        rig.hear(new[:1])
        await asyncio.sleep(3 * LOOK_EVERY_S)
        rig.hear(new[1:])
        await asyncio.sleep(3 * LOOK_EVERY_S)
        assert rig.own.revision == commits
        rig.hear(await rig.say(1))
        await rig.until_durable(5)
    assert await rig.copy() == [record.raw for record in rig.log.records]


async def test_a_copy_of_a_history_that_was_lost_is_made_anew_though_it_reaches_further() -> None:
    """Ring 2, seed 7645: both etcds were restored, the own one to before the peer's fork."""
    rig = Rig()
    rig.hear_all(await rig.say(2, 2))
    async with rig.running():
        await rig.until_durable(4)
        backup = rig.own.backup()
        rig.hear_all(await rig.say_anew(LOG_ID, 1))
        await rig.until_durable(1)
        rig.own.restore(backup)
        rig.hear(await rig.say(1))
        async with asyncio.timeout(2 * DOUBT_AFTER_S):
            while (await rig.cursor()).head != rig.log.head:
                await LoopClock().sleep(1)
    assert await rig.copy() == [record.raw for record in rig.log.records]


class Halting:
    """The peer's log, read up to its fourth record, and then never on."""

    def __init__(self, source: LogReader) -> None:
        self._source = source

    def __getattr__(self, name: str) -> object:
        return getattr(self._source, name)

    async def records(self, after_seq: int, through_seq: int) -> AsyncIterator[object]:
        count = 0
        async for found in self._source.records(after_seq, through_seq):
            count += 1
            if count == 4:
                await asyncio.Event().wait()
            yield found


async def test_a_part_that_was_read_anew_is_not_the_whole_after_it_was_ended() -> None:
    """A peer was followed otherwise meanwhile: the good copy was dropped for a part of the new."""
    rig = Rig(100)
    rig.hear_all(await rig.say(*[3] * 10))
    async with rig.running():
        await rig.until_durable(30)
    source = rig.store._source
    new = await rig.say_anew(OTHER_LOG_ID, *[3] * 10)
    rig.store.read_from(Halting(source))  # type: ignore[arg-type]
    async with rig.running():
        rig.hear_all(new)
        await asyncio.sleep(5)
    assert (await rig.cursor()).head.log_id == LOG_ID
    rig.store.read_from(source)
    async with rig.running():
        while (await rig.cursor()).head.log_id == LOG_ID:
            await LoopClock().sleep(0.1)
        assert (await rig.cursor()).head.seq == 30
    assert await rig.copy() == [record.raw for record in new]


async def test_a_commit_that_was_ended_is_found_and_nothing_is_copied_anew(rig: Rig) -> None:
    """A peer was followed otherwise meanwhile: it took half a minute, and then all of it again."""
    records = await rig.say(*[3] * 10)
    async with rig.running():
        rig.hear_all(records[:9])
        await rig.until_durable(27)
    before, commit = await rig.cursor(), rig.kv.commit

    async def unanswered(txn: Txn) -> TxnResult:
        await commit(txn)
        await asyncio.Event().wait()
        raise AssertionError

    rig.kv.commit = unanswered  # type: ignore[method-assign]
    async with rig.running():
        rig.hear(records[9:])
        await asyncio.sleep(1)
    rig.kv.commit = commit  # type: ignore[method-assign]
    began_s = asyncio.get_running_loop().time()
    async with rig.running():
        await rig.until_durable(30)
    assert asyncio.get_running_loop().time() - began_s < DOUBT_AFTER_S / 2
    assert (await rig.cursor()).place == before.place
