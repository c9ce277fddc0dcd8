"""Windows of a log are as large as its link carries in time."""

from __future__ import annotations

import pytest

from meshd.core.carried import (
    FIRST_RECORDS,
    RECORDS_MAX,
    STRETCH_MAX,
    Carried,
    answered,
    linked_anew,
    unanswered,
)
from meshd.edges.memory import MemoryEtcd, MemoryKv
from meshd.model.errors import TransientError
from meshd.model.keyspace import Keyspace
from meshd.runtime.ports import Put, RangeResult, Txn
from meshd.runtime.reading import WINDOW_RECORDS_MIN, LogReader
from tests.mesh import LoopClock

KEYS = Keyspace().export()
RECORDS = 300
RECORD_BYTES = 1000
PARTS = 20
TRIES_MAX = 80


class SlowLink(MemoryKv):
    """An etcd behind a link that carries so many bytes before a call's deadline."""

    def __init__(self, etcd: MemoryEtcd, carries_bytes: int) -> None:
        super().__init__(etcd)
        self.carries_bytes = carries_bytes

    async def range(
        self,
        key: bytes,
        end: bytes = b"",
        *,
        limit: int = 0,
        revision: int = 0,
        stretch: float = 1.0,
    ) -> RangeResult:
        found = await super().range(key, end, limit=limit, revision=revision)
        if sum(len(kv.value) for kv in found.kvs) > self.carries_bytes * stretch:
            raise TransientError("no answer in time")
        return found


@pytest.mark.parametrize("records_carried", [0.17, 0.5, 1, 10, 100])
async def test_a_slow_link_carries_a_long_log_in_smaller_windows(records_carried: float) -> None:
    """A record that it doesn't carry before the usual deadline is waited for longer."""
    etcd = MemoryEtcd(LoopClock())
    kv = SlowLink(etcd, round(records_carried * RECORD_BYTES))
    for seq in range(1, RECORDS + 1):
        await kv.commit(Txn(success=(Put(KEYS.record(seq), b"x" * RECORD_BYTES),)))
    reader = LogReader(kv, Keyspace(), KEYS, is_local=False)
    seqs: list[int] = []
    failed = 0
    while len(seqs) < RECORDS:
        try:
            window = await reader.window(len(seqs), RECORDS)
        except TransientError:
            failed += 1
            assert failed < TRIES_MAX + RECORDS / records_carried
            continue
        seqs += [one.key_seq for one in window.records]
    assert seqs == list(range(1, RECORDS + 1))


@pytest.mark.parametrize("parts_carried", [0.17, 0.5, 1, 10])
async def test_a_slow_link_carries_the_parts_of_a_snapshot(parts_carried: float) -> None:
    etcd = MemoryEtcd(LoopClock())
    kv = SlowLink(etcd, round(parts_carried * RECORD_BYTES))
    for number in range(PARTS):
        await kv.commit(Txn(success=(Put(KEYS.part(7, number), b"x" * RECORD_BYTES),)))
    reader = LogReader(kv, Keyspace(), KEYS, is_local=False)
    read = failed = 0
    while read < PARTS:
        try:
            assert await reader.part(7, read) == b"x" * RECORD_BYTES
        except TransientError:
            failed += 1
            assert failed < 2 * PARTS
            continue
        read += 1


def answers_until_all(carried: Carried) -> int:
    """How many it takes until as much is asked for as ever."""
    answers = 0
    while (carried.records, carried.stretch) != (RECORDS_MAX, 1):
        carried = answered(carried)
        answers += 1
    return answers


def test_a_link_that_is_fast_is_soon_asked_for_much() -> None:
    assert answers_until_all(linked_anew(Carried())) == 6


def test_one_that_is_fast_again_is_asked_for_much_by_and_by() -> None:
    assert 10 < answers_until_all(unanswered(Carried(4), 4)) < 60


def test_an_answer_that_does_not_come_is_asked_for_in_a_few_steps() -> None:
    carried, steps = Carried(64), 0
    while carried.records > 1 or carried.stretch < STRETCH_MAX:
        carried = unanswered(carried, carried.records)
        steps += 1
    assert steps == 3


async def test_who_reads_without_a_link_of_its_own_begins_with_much() -> None:
    """Each read of the own history has a reader of its own: with little each would be many."""
    kv = MemoryKv(MemoryEtcd(LoopClock()))
    for seq in range(1, WINDOW_RECORDS_MIN + 1):
        await kv.commit(Txn(success=(Put(KEYS.record(seq), b"x"),)))
    found = await LogReader(kv, Keyspace(), KEYS, is_local=False).window(0, RECORDS)
    assert len(found.records) == WINDOW_RECORDS_MIN


async def test_over_a_new_link_little_is_asked_for_at_first() -> None:
    etcd = MemoryEtcd(LoopClock())
    kv = SlowLink(etcd, RECORDS * RECORD_BYTES)
    for seq in range(1, RECORDS + 1):
        await kv.commit(Txn(success=(Put(KEYS.record(seq), b"x" * RECORD_BYTES),)))
    reader = LogReader(kv, Keyspace(), KEYS, is_local=False)
    for _ in range(2):
        read = 0
        while read < RECORDS:
            read += len((await reader.window(read, RECORDS)).records)
        # It is slow now, and carries so many records in time.
        kv.carries_bytes = FIRST_RECORDS * RECORD_BYTES
        await reader.identify(RECORDS)
        assert len((await reader.window(0, RECORDS)).records) == FIRST_RECORDS
        kv.carries_bytes = RECORDS * RECORD_BYTES
