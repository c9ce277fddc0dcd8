"""Many writers' transactions in one: each whole or not, whatever becomes of the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest

from meshd.edges.memory import MemoryEtcd, MemoryKv
from meshd.model.errors import MeshdError, OutcomeUnknownError
from meshd.runtime.combining import (
    APART_S,
    BYTES_MAX,
    OPERATIONS_MAX,
    PAUSE_S_MAX,
    CombinedCommits,
)
from meshd.runtime.ports import Get, ModRevisionIs, Put, Txn, TxnResult
from tests.mesh import LoopClock

pytestmark = pytest.mark.looptime

FENCE = ModRevisionIs(b"leader", 0)


class CountedKv(MemoryKv):
    """Notes what it is asked to commit, and fails as it is told."""

    def __init__(self) -> None:
        super().__init__(MemoryEtcd(LoopClock()))
        self.txns: list[Txn] = []
        self.fails = False

    async def commit(self, txn: Txn) -> TxnResult:
        self.txns.append(txn)
        result = await super().commit(txn)
        if self.fails:
            raise OutcomeUnknownError("the answer was lost")
        return result


class SlowKv(CountedKv):
    """Takes a while for each, and notes when it was asked."""

    def __init__(self, takes_s: float) -> None:
        super().__init__()
        self.takes_s = takes_s
        self.asked_s: list[float] = []

    async def commit(self, txn: Txn) -> TxnResult:
        self.asked_s.append(LoopClock().monotonic_s())
        await LoopClock().sleep(self.takes_s)
        return await super().commit(txn)


@asynccontextmanager
async def running(kv: CountedKv) -> AsyncIterator[CombinedCommits]:
    commits = CombinedCommits(kv, LoopClock())
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(commits.run())
        yield commits
        task.cancel()


def put(name: str, value: bytes = b"1", was: int = 0) -> Txn:
    """Put a key if it is as it was left, and say how it is if it isn't."""
    key = name.encode()
    return Txn((ModRevisionIs(key, was), FENCE), (Put(key, value),), (Get(key),))


async def outcomes(
    commits: CombinedCommits, *txns: Txn, apart_s: float = 0.0
) -> list[TxnResult | MeshdError]:
    """What becomes of transactions that are handed in at once, or one after the other."""

    async def outcome(number: int, txn: Txn) -> TxnResult | MeshdError:
        await asyncio.sleep(number * apart_s)
        try:
            return await commits.commit(txn)
        except MeshdError as error:
            return error

    async with asyncio.TaskGroup() as tasks:
        made = [tasks.create_task(outcome(number, txn)) for number, txn in enumerate(txns)]
    return [task.result() for task in made]


async def results(commits: CombinedCommits, *txns: Txn, apart_s: float = 0.0) -> list[TxnResult]:
    found = await outcomes(commits, *txns, apart_s=apart_s)
    return [one for one in found if isinstance(one, TxnResult)]


async def test_what_is_handed_in_together_is_one_transaction() -> None:
    kv = CountedKv()
    async with running(kv) as commits:
        found = await results(commits, *(put(f"k{n}") for n in range(10)))
    assert [len(txn.success) for txn in kv.txns] == [10]
    assert len(kv.txns[0].compares) == 11, "who leads is compared once"
    assert {(one.succeeded, one.revision, one.results) for one in found} == {(True, 2, (None,))}


async def test_who_comes_while_one_is_under_way_is_in_the_next() -> None:
    kv = CountedKv()
    async with running(kv) as commits:
        await results(commits, put("a"), put("b"), apart_s=0.001)
        await results(commits, put("c"), put("d"))
    assert [len(txn.success) for txn in kv.txns] == [1, 1, 2]


async def test_one_that_does_not_hold_costs_no_other_its_commit() -> None:
    kv = CountedKv()
    async with running(kv) as commits:
        good, bad, other = await results(commits, put("a"), put("b", was=7), put("c"))
    assert (good.succeeded, bad.succeeded, other.succeeded) == (True, False, True)
    assert bad.results[0] is not None
    assert not bad.results[0].kvs
    found = await kv.range(b"a", b"z")
    assert [one.key for one in found.kvs] == [b"a", b"c"]


@pytest.mark.parametrize(
    ("number", "size_bytes"), [(OPERATIONS_MAX + 1, 1), (3, BYTES_MAX // 2)], ids=["many", "large"]
)
async def test_a_batch_is_no_larger_than_etcd_takes(number: int, size_bytes: int) -> None:
    kv = CountedKv()
    value = b"x" * size_bytes
    async with running(kv) as commits:
        await results(commits, *(put(f"k{n}", value) for n in range(number)))
    assert len(kv.txns) == 2
    for txn in kv.txns:
        assert max(len(txn.success), len(txn.compares)) <= OPERATIONS_MAX
        assert sum(len(one.value) for one in txn.success if isinstance(one, Put)) <= BYTES_MAX
    assert len((await kv.range(b"k", b"l")).kvs) == number


async def test_one_that_is_too_large_goes_alone() -> None:
    kv = CountedKv()
    async with running(kv) as commits:
        await results(commits, put("a", b"x" * (BYTES_MAX + 1)), put("b"))
    assert [len(txn.success) for txn in kv.txns] == [1, 1]


async def test_an_unknown_outcome_is_everybodys() -> None:
    kv = CountedKv()
    kv.fails = True
    async with running(kv) as commits:
        found = await outcomes(commits, put("a"), put("b"))
        assert [type(one) for one in found] == [OutcomeUnknownError] * 2
        kv.fails = False
        assert (await commits.commit(put("c"))).succeeded


async def test_who_has_gone_is_left_out_and_holds_up_nobody() -> None:
    kv = CountedKv()
    commits = CombinedCommits(kv, LoopClock())
    async with asyncio.TaskGroup() as tasks:
        gone = tasks.create_task(commits.commit(put("a")))
        stays = tasks.create_task(commits.commit(put("b")))
        await asyncio.sleep(0)
        gone.cancel()
        runs = tasks.create_task(commits.run())
        assert (await stays).succeeded
        runs.cancel()
    assert [len(txn.success) for txn in kv.txns] == [1]
    assert not (await kv.range(b"a")).kvs


class SilentKv(CountedKv):
    async def commit(self, txn: Txn) -> TxnResult:
        await asyncio.get_running_loop().create_future()
        return await super().commit(txn)


async def test_nobody_waits_for_one_who_was_ended() -> None:
    commits = CombinedCommits(SilentKv(), LoopClock())
    async with asyncio.TaskGroup() as tasks:
        runs = tasks.create_task(commits.run())
        waits = tasks.create_task(commits.commit(put("a")))
        await asyncio.sleep(0.1)
        runs.cancel()
        await asyncio.wait([waits])
    assert waits.cancelled()


@pytest.mark.parametrize(
    ("takes_s", "apart_s"), [(0.0, APART_S), (0.3, 0.6), (5.0, 5.0 + PAUSE_S_MAX)]
)
async def test_an_etcd_is_left_alone_as_long_as_a_batch_took(
    takes_s: float, apart_s: float
) -> None:
    """Own commands go to the same etcd."""
    kv = SlowKv(takes_s)
    async with running(kv) as commits:
        for number in range(4):
            await commits.commit(put(f"k{number}"))
    between = [after - before for before, after in pairwise(kv.asked_s)]
    assert between == pytest.approx([apart_s] * 3)
