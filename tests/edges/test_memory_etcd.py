"""The faults of the etcd in memory, its bounds, and its time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from meshd.edges.memory import MemoryEtcd, MemoryKv
from meshd.edges.memory.kv import DEADLINE_S
from meshd.edges.memory.watch import BUFFERED_RESPONSES_MAX
from meshd.model.errors import (
    CompactedError,
    DeniedError,
    NoSpaceError,
    OutcomeUnknownError,
    TransientError,
)
from meshd.runtime.ports import Delete, Get, Put, Txn, WatchResponse

PUT = Txn(success=(Put(b"a", b"1"),))


class HandClock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._moved = asyncio.Event()

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_ms(self) -> int:
        return int(self.now_s * 1000)

    async def sleep(self, seconds: float) -> None:
        until_s = self.now_s + seconds
        while self.now_s < until_s:
            await self._moved.wait()

    def move(self, seconds: float) -> None:
        self.now_s += seconds
        self._moved.set()
        self._moved = asyncio.Event()


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def etcd(clock: HandClock) -> MemoryEtcd:
    return MemoryEtcd(clock)


@pytest.fixture
def kv(etcd: MemoryEtcd) -> MemoryKv:
    return MemoryKv(etcd)


async def test_a_cut_link_fails_calls_and_ends_watches_of_that_client_only(
    etcd: MemoryEtcd, kv: MemoryKv
) -> None:
    other = MemoryKv(etcd)
    async with (
        kv.watch(b"a", b"", start_revision=2) as mine,
        other.watch(b"a", b"", start_revision=2) as theirs,
    ):
        kv.set_linked(linked=False)
        with pytest.raises(TransientError):
            await kv.commit(PUT)
        with pytest.raises(TransientError):
            await kv.range(b"a")
        with pytest.raises(TransientError):
            await anext(mine)
        await other.commit(PUT)
        assert (await anext(theirs)).is_created
        assert len((await anext(theirs)).events) == 1
        kv.set_linked(linked=True)
        with pytest.raises(TransientError):
            await anext(mine)
    assert (await kv.range(b"a")).count == 1


async def test_a_cut_in_mid_call_leaves_a_write_unknown(etcd: MemoryEtcd, kv: MemoryKv) -> None:
    async with asyncio.TaskGroup() as group:
        writing = group.create_task(_error_of(kv.commit(PUT)))
        reading = group.create_task(_error_of(kv.range(b"a")))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        kv.set_linked(linked=False)
    assert isinstance(writing.result(), OutcomeUnknownError)
    assert isinstance(reading.result(), TransientError)
    assert etcd.revision == 2


async def _error_of(call: object) -> Exception | None:
    try:
        await call  # type: ignore[misc]
    except Exception as error:  # noqa: BLE001 — the test looks at what it is
        return error
    return None


async def test_a_lost_request_is_a_write_that_did_not_happen(
    etcd: MemoryEtcd, kv: MemoryKv
) -> None:
    kv.lose_next_request = True
    assert (await kv.range(b"a")).count == 0
    assert isinstance(await _error_of(kv.commit(PUT)), OutcomeUnknownError)
    assert etcd.revision == 1
    assert (await kv.commit(PUT)).succeeded


async def test_a_lost_reply_is_a_write_that_happened(etcd: MemoryEtcd, kv: MemoryKv) -> None:
    kv.lose_next_reply = True
    await kv.range(b"a")
    await kv.commit(Txn(success=(Get(b"a"),)))
    with pytest.raises(OutcomeUnknownError):
        await kv.commit(PUT)
    assert (await kv.range(b"a")).kvs[0].value == b"1"
    await kv.commit(PUT)
    assert etcd.revision == 3


async def test_a_server_that_is_down_keeps_its_keys_and_leases(
    etcd: MemoryEtcd, kv: MemoryKv, clock: HandClock
) -> None:
    lease = await kv.grant_lease(5)
    await kv.commit(Txn(success=(Put(b"a", b"1", lease),)))
    async with kv.watch(b"a", b"", start_revision=1) as responses:
        etcd.set_up(up=False)
        with pytest.raises(TransientError):
            await anext(responses)
    with pytest.raises(TransientError):
        await kv.status()
    clock.move(4)
    etcd.set_up(up=True)
    assert (await kv.range(b"a")).count == 1
    clock.move(2)
    assert (await kv.range(b"a")).count == 0


async def test_a_wipe_is_another_history_under_the_same_id(etcd: MemoryEtcd, kv: MemoryKv) -> None:
    before = await kv.status()
    for _ in range(10):
        await kv.commit(PUT)
    async with kv.watch(b"a", b"", start_revision=12) as responses:
        etcd.wipe()
        with pytest.raises(TransientError):
            await anext(responses)
    assert (await kv.range(b"a")).count == 0
    async with kv.watch(b"a", b"", start_revision=12) as responses:
        # It waits in the future of a history that is no more; only this shows it.
        assert (await anext(responses)).revision == 1
    assert await kv.status() == before


async def test_a_backup_can_be_restored_more_than_once(etcd: MemoryEtcd, kv: MemoryKv) -> None:
    await kv.commit(PUT)
    backup = etcd.backup()
    for value in (b"2", b"3"):
        await kv.commit(Txn(success=(Put(b"a", value), Put(b"b", value))))
        etcd.restore(backup)
        found = await kv.range(b"a", b"c")
        assert (found.revision, [pair.value for pair in found.kvs]) == (2, [b"1"])


async def test_without_space_reading_and_deleting_work(etcd: MemoryEtcd, kv: MemoryKv) -> None:
    await kv.commit(PUT)
    lease = await kv.grant_lease(5)
    etcd.is_out_of_space = True
    with pytest.raises(NoSpaceError):
        await kv.commit(Txn(failure=(Put(b"a", b""),)))
    with pytest.raises(NoSpaceError):
        await kv.grant_lease(5)
    assert await kv.keep_lease(lease) == 5
    await kv.commit(Txn(success=(Delete(b"a"),)))
    assert (await kv.range(b"a")).count == 0


async def test_lost_rights_end_calls_but_not_a_running_watch(
    etcd: MemoryEtcd, kv: MemoryKv
) -> None:
    async with kv.watch(b"a", b"", start_revision=2) as responses:
        assert (await anext(responses)).is_created
        kv.is_denied = True
        with pytest.raises(DeniedError):
            await kv.range(b"a")
        await MemoryKv(etcd).commit(PUT)
        assert len((await anext(responses)).events) == 1
    async with kv.watch(b"a", b"", start_revision=2) as responses:
        with pytest.raises(DeniedError):
            await anext(responses)


async def test_progress_goes_to_who_wants_it_and_is_not_behind(
    etcd: MemoryEtcd, kv: MemoryKv
) -> None:
    await kv.commit(PUT)
    async with (
        kv.watch(b"b", b"", start_revision=3) as wanting,
        kv.watch(b"b", b"", start_revision=3, progress=False) as other,
    ):
        assert (await anext(wanting)).is_created
        assert (await anext(other)).is_created
        etcd.send_progress()
        await kv.commit(Txn(success=(Put(b"b", b"1"),)))
        assert await anext(wanting) == WatchResponse(2, ())
        assert len((await anext(wanting)).events) == 1
        assert len((await anext(other)).events) == 1


async def test_leases_follow_the_injected_clock(
    etcd: MemoryEtcd, kv: MemoryKv, clock: HandClock
) -> None:
    lease = await kv.grant_lease(1)
    assert await kv.keep_lease(lease) == 2
    await kv.commit(Txn(success=(Put(b"a", b"1", lease),)))
    gone: list[int] = []

    async def follow(responses: AsyncIterator[WatchResponse]) -> None:
        gone.extend(e.kv.mod_revision for e in (await anext(responses)).events)

    async with kv.watch(b"a", b"", start_revision=3) as responses:
        assert (await anext(responses)).is_created
        async with asyncio.TaskGroup() as group:
            follower = group.create_task(follow(responses))
            clock.move(1.9)
            for _ in range(10):
                await asyncio.sleep(0)
            assert not follower.done()
            await kv.keep_lease(lease)
            clock.move(1.9)
            for _ in range(10):
                await asyncio.sleep(0)
            assert not follower.done()
            clock.move(0.1)
    assert gone == [3]


async def test_a_lease_granted_while_a_watch_waits_still_ends(
    etcd: MemoryEtcd, kv: MemoryKv, clock: HandClock
) -> None:
    long = await kv.grant_lease(100)
    # From 3 on, so that it isn't the put of revision 2 that wakes it.
    async with kv.watch(b"a", b"", start_revision=3) as responses:
        assert (await anext(responses)).is_created
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            waiting = group.create_task(_next_events(responses, 1))
            await asyncio.sleep(0)
            short = await kv.grant_lease(2)
            await kv.commit(Txn(success=(Put(b"a", b"1", short),)))
            for _ in range(10):
                await asyncio.sleep(0)
            clock.move(2)
        assert waiting.result() == [True]
    assert await kv.keep_lease(long) == 100


async def _next_events(responses: AsyncIterator[WatchResponse], count: int) -> list[bool]:
    found: list[bool] = []
    while len(found) < count:
        found.extend(event.is_delete for event in (await anext(responses)).events)
    return found


async def test_a_reader_far_behind_is_served_from_history_or_told(
    etcd: MemoryEtcd, kv: MemoryKv
) -> None:
    async def write(count: int) -> None:
        for _ in range(count):
            await kv.commit(PUT)

    async with kv.watch(b"a", b"", start_revision=2) as responses:
        assert (await anext(responses)).is_created
        await write(BUFFERED_RESPONSES_MAX * 2)
        seen: list[int] = []
        while len(seen) < BUFFERED_RESPONSES_MAX * 2:
            seen.extend(e.kv.mod_revision for e in (await anext(responses)).events)
        assert seen == list(range(2, 2 + BUFFERED_RESPONSES_MAX * 2))
        await write(BUFFERED_RESPONSES_MAX + 1)
        await kv.compact(etcd.revision)
        for _ in range(BUFFERED_RESPONSES_MAX):
            await anext(responses)
        # The one change behind the buffer is still there: it is at the compaction's revision.
        assert (await anext(responses)).events[0].kv.mod_revision == etcd.revision
        await write(BUFFERED_RESPONSES_MAX + 2)
        await kv.compact(etcd.revision)
        for _ in range(BUFFERED_RESPONSES_MAX):
            await anext(responses)
        with pytest.raises(CompactedError):
            await anext(responses)


async def test_a_watch_of_all_history_begins_on_an_empty_store(kv: MemoryKv) -> None:
    async with kv.watch(b"a", b"", start_revision=1) as responses:
        assert (await anext(responses)).revision == 1
        await kv.commit(PUT)
        assert [e.kv.mod_revision for e in (await anext(responses)).events] == [2]


async def test_compaction_frees_what_is_gone(etcd: MemoryEtcd, kv: MemoryKv) -> None:
    for _ in range(3):
        await kv.commit(PUT)
    await kv.commit(Txn(success=(Delete(b"a"),)))
    before = (await kv.status()).db_size_bytes
    await kv.compact(etcd.revision)
    assert before > (await kv.status()).db_size_bytes == 0


async def test_calls_and_watches_are_counted(etcd: MemoryEtcd, kv: MemoryKv) -> None:
    await kv.range(b"a")
    async with kv.watch(b"a", b"", start_revision=1):
        assert etcd.watches_open == 1
    assert etcd.watches_open == 0
    assert dict(kv.calls) == {"range": 1, "watch": 1}


async def test_what_is_repeated_or_lost_is_so_for_the_watches_that_were_named(
    etcd: MemoryEtcd, kv: MemoryKv
) -> None:
    other = MemoryKv(etcd)
    async with (
        kv.watch(b"a", b"", start_revision=2) as mine,
        other.watch(b"a", b"", start_revision=2) as theirs,
    ):
        assert [(await anext(watch)).is_created for watch in (mine, theirs)] == [True, True]
        etcd.lose_events(owner=kv)
        etcd.repeats_events = True
        await kv.commit(PUT)
        etcd.repeats_events = False
        await kv.commit(PUT)
        assert [(await anext(theirs)).revision for _ in range(3)] == [2, 2, 3]
        assert (await anext(mine)).revision == 3


async def test_a_silent_watch_neither_speaks_nor_ends(etcd: MemoryEtcd, kv: MemoryKv) -> None:
    async with kv.watch(b"a", b"", start_revision=2) as watch:
        etcd.silence_watches()
        await kv.commit(PUT)
        etcd.send_progress()
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(_error_of(anext(watch)))
            for _ in range(10):
                await asyncio.sleep(0)
            assert not waiting.done()
            etcd.set_up(up=False)
        assert isinstance(waiting.result(), TransientError)
        etcd.set_up(up=True)
    async with kv.watch(b"a", b"", start_revision=2) as watch:
        assert [(await anext(watch)).revision for _ in range(2)] == [2, 2]


async def test_what_a_deaf_client_asks_is_done_and_never_answered(
    etcd: MemoryEtcd, kv: MemoryKv, clock: HandClock
) -> None:
    async with kv.watch(b"a", b"", start_revision=2) as watch:
        assert (await anext(watch)).is_created
        kv.set_hearing(hears=False)
        async with asyncio.TaskGroup() as group:
            writing = group.create_task(_error_of(kv.commit(PUT)))
            reading = group.create_task(_error_of(kv.range(b"a")))
            for _ in range(10):
                await asyncio.sleep(0)
            assert etcd.revision == 2
            assert not writing.done()
            clock.move(DEADLINE_S)
        assert isinstance(writing.result(), OutcomeUnknownError)
        assert isinstance(reading.result(), TransientError)
        async with kv.watch(b"a", b"", start_revision=2) as unheard, asyncio.TaskGroup() as group:
            waiting = group.create_task(_error_of(anext(unheard)))
            await asyncio.sleep(0)
            kv.set_hearing(hears=True)
        assert isinstance(waiting.result(), TransientError)
        assert isinstance(await _error_of(anext(watch)), TransientError)
    assert (await kv.range(b"a")).count == 1


async def test_a_slow_client_is_at_the_server_half_way(
    etcd: MemoryEtcd, kv: MemoryKv, clock: HandClock
) -> None:
    kv.latency_s = 2.0
    async with asyncio.TaskGroup() as group:
        writing = group.create_task(kv.commit(PUT))
        for revision in (1, 2):
            for _ in range(5):
                await asyncio.sleep(0)
            assert etcd.revision == revision
            assert not writing.done()
            clock.move(1.0)
    assert writing.result().succeeded


async def test_a_backup_is_not_touched_by_what_comes_after(etcd: MemoryEtcd, kv: MemoryKv) -> None:
    lease = await kv.grant_lease(10)
    await kv.commit(Txn(success=(Put(b"a", b"1", lease), Put(b"b", b"1"))))
    backup = etcd.backup()
    await kv.commit(Txn(success=(Put(b"b", b"2"), Put(b"c", b"2"))))
    await kv.revoke_lease(lease)
    await kv.compact(etcd.revision)
    for _ in range(2):
        etcd.restore(backup)
        found = await kv.range(b"a", b"z")
        assert [(item.key, item.value) for item in found.kvs] == [(b"a", b"1"), (b"b", b"1")]
        assert await kv.keep_lease(lease) == 10
        await kv.revoke_lease(lease)
        assert (await kv.range(b"a", b"z", revision=2)).count == 2
