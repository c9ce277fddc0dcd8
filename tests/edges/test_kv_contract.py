"""What a `Kv` promises, asked of the etcd in memory and of a real one alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest

from meshd.edges.embedded import EmbeddedEtcd
from meshd.edges.etcd import EtcdKv
from meshd.edges.memory import MemoryEtcd, MemoryKv
from meshd.edges.system import SystemClock
from meshd.model.errors import CompactedError, NotFoundError, RejectedError, TransientError
from meshd.runtime.ports import (
    Compare,
    CreateRevisionIs,
    Delete,
    Get,
    Kv,
    ModRevisionIs,
    Put,
    Txn,
    ValueIs,
    WatchEvent,
    WatchResponse,
)


@dataclass(frozen=True, slots=True)
class Subject:
    """Two clients of one store, and the part of it that is ours."""

    kv: Kv
    other: Kv
    start: bytes
    end: bytes
    leases: list[int] = field(default_factory=list)

    def key(self, name: str) -> bytes:
        return self.start + name.encode()

    async def put(self, name: str, value: bytes = b"v", lease: int = 0) -> int:
        put = Put(self.key(name), value, lease)
        return (await self.kv.commit(Txn(success=(put,)))).revision

    async def grant(self, ttl_s: int) -> int:
        lease = await self.kv.grant_lease(ttl_s)
        self.leases.append(lease)
        return lease

    async def names(self) -> list[str]:
        found = await self.kv.range(self.start, self.end)
        return [kv.key.removeprefix(self.start).decode() for kv in found.kvs]


@pytest.fixture(params=["memory", "etcd"])
def real(request: pytest.FixtureRequest) -> EmbeddedEtcd | None:
    """Give the real etcd, or None where it is the one in memory that is asked."""
    if request.param == "memory":
        return None
    shared: EmbeddedEtcd = request.getfixturevalue("shared_etcd")
    return shared


@pytest.fixture
async def it(
    real: EmbeddedEtcd | None, prefix: bytes, connect_to: Callable[..., EtcdKv]
) -> AsyncIterator[Subject]:
    end = prefix[:-1] + b"0"
    if real is not None:
        subject = Subject(connect_to(real), connect_to(real), prefix, end)
        yield subject
        # One that ended later would change the revision under another test's feet.
        for lease in subject.leases:
            await subject.other.revoke_lease(lease)
        return
    memory = MemoryEtcd(SystemClock())
    yield Subject(MemoryKv(memory), MemoryKv(memory), prefix, end)
    assert memory.watches_open == 0


async def take(responses: AsyncIterator[WatchResponse], count: int) -> list[WatchEvent]:
    """Read responses until there are `count` events."""
    events: list[WatchEvent] = []
    async with asyncio.timeout(20):
        while len(events) < count:
            response = await anext(responses)
            assert response.revision >= max([e.kv.mod_revision for e in response.events] or [0])
            events.extend(response.events)
    return events


async def test_a_key_knows_its_revisions(it: Subject) -> None:
    first = await it.put("a", b"1")
    second = await it.put("a", b"2")
    found = await it.other.range(it.key("a"))
    (kv,) = found.kvs
    assert (kv.key, kv.value, kv.lease) == (it.key("a"), b"2", 0)
    assert (kv.create_revision, kv.mod_revision, kv.version) == (first, second, 2)
    assert second == first + 1
    assert found.revision == second


async def test_a_deleted_key_begins_anew(it: Subject) -> None:
    await it.put("a")
    await it.kv.commit(Txn(success=(Delete(it.key("a")),)))
    assert (await it.kv.range(it.key("a"))).kvs == ()
    again = await it.put("a")
    (kv,) = (await it.kv.range(it.key("a"))).kvs
    assert (kv.create_revision, kv.mod_revision, kv.version) == (again, again, 1)


async def test_a_range_is_sorted_half_open_and_counted(it: Subject) -> None:
    for name in ("c", "a", "b", "d"):
        await it.put(name)
    found = await it.kv.range(it.key("a"), it.key("d"), limit=2)
    assert [kv.key for kv in found.kvs] == [it.key("a"), it.key("b")]
    assert (found.more, found.count) == (True, 3)
    found = await it.kv.range(it.key("a"), it.key("d"), limit=3)
    assert (found.more, found.count) == (False, 3)
    assert (await it.kv.range(it.key("d"), it.key("a"))).kvs == ()
    beyond = await it.kv.range(it.key("c"), b"\x00")
    assert [kv.key for kv in beyond.kvs][:2] == [it.key("c"), it.key("d")]


async def test_the_past_can_be_read(it: Subject) -> None:
    first = await it.put("a", b"1")
    await it.put("b")
    await it.kv.commit(Txn(success=(Put(it.key("a"), b"2"), Delete(it.key("b")))))
    past = await it.kv.range(it.start, it.end, revision=first + 1)
    assert [(kv.key, kv.value) for kv in past.kvs] == [(it.key("a"), b"1"), (it.key("b"), b"v")]
    assert past.revision == first + 2
    assert (await it.kv.range(it.key("b"), revision=first)).kvs == ()


async def test_the_future_cannot_be_read(it: Subject) -> None:
    now = await it.put("a")
    with pytest.raises(TransientError):
        await it.kv.range(it.key("a"), revision=now + 1_000)


async def test_a_transaction_is_one_revision(it: Subject) -> None:
    before = await it.put("gone")
    txn = Txn(success=(Put(it.key("a"), b"1"), Put(it.key("b"), b"2"), Delete(it.key("gone"))))
    result = await it.kv.commit(txn)
    assert result.succeeded
    assert result.revision == before + 1
    assert result.results == (None, None, None)
    found = await it.kv.range(it.start, it.end)
    assert {kv.mod_revision for kv in found.kvs} == {before + 1}
    assert await it.names() == ["a", "b"]


async def test_a_transaction_reads_what_it_wrote(it: Subject) -> None:
    before = await it.put("a", b"old")
    txn = Txn(success=(Get(it.key("a")), Put(it.key("a"), b"new"), Get(it.start, it.end, 1)))
    old, nothing, new = (await it.kv.commit(txn)).results
    assert nothing is None
    assert old is not None
    assert new is not None
    assert (old.kvs[0].value, old.revision) == (b"old", before)
    assert (new.kvs[0].value, new.kvs[0].mod_revision) == (b"new", before + 1)
    assert new.revision == before + 1


async def test_what_changes_nothing_makes_no_revision(it: Subject) -> None:
    now = await it.put("a")
    result = await it.kv.commit(Txn(success=(Delete(it.key("x"), it.key("z")), Get(it.key("a")))))
    assert result.revision == now
    assert (await it.kv.commit(Txn())).revision == now


Chooses = Callable[[bytes, int], Compare]


@pytest.mark.parametrize(
    ("holds", "fails"),
    [
        (ModRevisionIs, lambda key, mod: ModRevisionIs(key, mod + 1)),
        (lambda key, mod: CreateRevisionIs(key, mod - 1), CreateRevisionIs),
        (lambda key, _: ValueIs(key, b"2"), lambda key, _: ValueIs(key, b"1")),
        (lambda key, _: ModRevisionIs(key + b"x", 0), lambda key, _: ModRevisionIs(key, 0)),
        (lambda key, _: CreateRevisionIs(key + b"x", 0), lambda key, _: CreateRevisionIs(key, 0)),
        (lambda key, _: ValueIs(key, b"2"), lambda key, _: ValueIs(key + b"x", b"")),
    ],
    ids=["mod", "create", "value", "mod of none", "create of none", "value of none"],
)
async def test_compares_choose_the_branch(it: Subject, holds: Chooses, fails: Chooses) -> None:
    await it.put("a", b"1")
    key, mod = it.key("a"), await it.put("a", b"2")
    operations = ((Put(it.key("yes"), b""),), (Put(it.key("no"), b""),))
    assert (await it.kv.commit(Txn((holds(key, mod),), *operations))).succeeded
    assert await it.names() == ["a", "yes"]
    both = (holds(key, mod), fails(key, mod))
    assert not (await it.kv.commit(Txn(both, *operations))).succeeded
    assert await it.names() == ["a", "no", "yes"]


async def test_only_one_of_two_racing_appends_wins(it: Subject) -> None:
    head = await it.put("head")

    async def append(kv: Kv, name: str) -> bool:
        puts = (Put(it.key("head"), name.encode()), Put(it.key(name), b""))
        return (await kv.commit(Txn((ModRevisionIs(it.key("head"), head),), puts))).succeeded

    async with asyncio.TaskGroup() as group:
        mine = group.create_task(append(it.kv, "1"))
        theirs = group.create_task(append(it.other, "2"))
    assert mine.result() != theirs.result()
    assert await it.names() == ["1" if mine.result() else "2", "head"]


def _puts(start: bytes, count: int, value: bytes = b"") -> tuple[Put, ...]:
    return tuple(Put(start + b"%04d" % number, value) for number in range(count))


@pytest.mark.parametrize(
    "make",
    [
        lambda start: Txn(success=_puts(start, 129)),
        lambda start: Txn(failure=_puts(start, 129)),
        lambda start: Txn(compares=(ModRevisionIs(start, 0),) * 129),
        lambda start: Txn(success=(Put(start, b"1"), Put(start, b"2"))),
        lambda start: Txn(success=(Put(start + b"b", b"1"), Delete(start, start + b"z"))),
        lambda start: Txn(failure=(Delete(start), Put(start, b"1"))),
        lambda _: Txn(success=(Put(b"", b"1"),)),
        lambda _: Txn(success=(Get(b""),)),
        lambda start: Txn(success=(Put(start, bytes(1_600_000)),)),
        lambda start: Txn(success=(Put(start, bytes(3_000_000)),)),
    ],
    ids=[
        "129 puts", "129 in failure", "129 compares", "a key twice", "put and deleted",
        "deleted and put", "put of no key", "get of no key", "large", "larger than gRPC takes",
    ],
)  # fmt: skip
async def test_what_etcd_never_takes_is_rejected(it: Subject, make: Callable[[bytes], Txn]) -> None:
    before = await it.put("a")
    with pytest.raises(RejectedError):
        await it.kv.commit(make(it.key("k")))
    assert (await it.kv.range(it.start, it.end)).revision == before


async def test_the_largest_transaction_is_taken(it: Subject) -> None:
    compares = tuple(ModRevisionIs(put.key, 0) for put in _puts(it.start, 128))
    txn = Txn(compares, _puts(it.start, 128, bytes(8_000)), _puts(it.start, 128))
    assert (await it.kv.commit(txn)).succeeded
    assert len(await it.names()) == 128


async def test_an_empty_key_is_rejected(it: Subject) -> None:
    with pytest.raises(RejectedError):
        await it.kv.range(b"")


async def test_compaction_ends_the_past(it: Subject) -> None:
    first = await it.put("a", b"1")
    second = await it.put("a", b"2")
    third = await it.put("a", b"3")
    await it.kv.compact(second)
    (kv,) = (await it.kv.range(it.key("a"), revision=second)).kvs
    assert kv.value == b"2"
    with pytest.raises(CompactedError) as caught:
        await it.kv.range(it.key("a"), revision=first)
    assert caught.value.compact_revision == second
    with pytest.raises(CompactedError) as caught:
        await it.kv.compact(first)
    assert caught.value.compact_revision == second
    with pytest.raises(CompactedError):
        await it.kv.compact(second)
    with pytest.raises(TransientError):
        await it.kv.compact(third + 1_000)
    assert (await it.kv.range(it.key("a"))).kvs[0].version == 3


async def test_compaction_keeps_what_lives(it: Subject) -> None:
    await it.put("a", b"1")
    await it.put("gone")
    await it.kv.commit(Txn(success=(Delete(it.key("gone")),)))
    now = await it.put("b")
    await it.kv.compact(now)
    assert await it.names() == ["a", "b"]
    assert await it.put("gone") == now + 1


async def test_a_watch_tells_history_then_what_comes(it: Subject) -> None:
    first = await it.put("a", b"1")
    await it.put("b", b"2")
    async with it.kv.watch(it.start, it.end, start_revision=first) as responses:
        created = await anext(responses)
        assert (created.is_created, created.events) == (True, ())
        assert created.revision == first + 1
        history = await take(responses, 2)
        assert [(e.kv.key, e.kv.value) for e in history] == [
            (it.key("a"), b"1"),
            (it.key("b"), b"2"),
        ]
        await it.other.commit(Txn(success=(Put(it.key("a"), b"3"), Delete(it.key("b")))))
        put, delete = await take(responses, 2)
    assert (put.kv.version, put.kv.create_revision, put.is_delete) == (2, first, False)
    assert delete.is_delete
    assert (delete.kv.key, delete.kv.value, delete.kv.mod_revision) == (
        it.key("b"),
        b"",
        first + 2,
    )


async def test_a_watch_tells_only_its_range(it: Subject) -> None:
    first = await it.put("a")
    async with it.kv.watch(it.key("b"), it.key("d"), start_revision=first) as responses:
        for name in ("b", "d", "a", "c"):
            await it.put(name)
        events = await take(responses, 2)
    assert [e.kv.key for e in events] == [it.key("b"), it.key("c")]
    async with it.kv.watch(it.key("c"), b"", start_revision=first) as responses:
        await it.put("cc")
        await it.put("c")
        events = await take(responses, 2)
    assert [e.kv.key for e in events] == [it.key("c"), it.key("c")]


async def test_a_watch_never_splits_a_revision(it: Subject) -> None:
    # More than one fragment: etcd cuts at 1.5 MiB, wherever that falls.
    value = bytes(10_000)
    first = (await it.kv.commit(Txn(success=_puts(it.start, 128, value)))).revision
    for _ in range(3):
        await it.kv.commit(Txn(success=_puts(it.start, 128, value)))
    seen: list[int] = []
    async with (
        asyncio.timeout(20),
        it.kv.watch(it.start, it.end, start_revision=first) as responses,
    ):
        while len(seen) < 4:
            response = await anext(responses)
            revisions = [event.kv.mod_revision for event in response.events]
            assert all(revisions.count(revision) == 128 for revision in revisions)
            seen.extend(sorted(set(revisions)))
    assert seen == list(range(first, first + 4))


async def test_a_long_history_arrives_whole_and_in_order(it: Subject) -> None:
    first = await it.put("0")
    for number in range(1, 1_500):
        await it.put(str(number))
    async with it.kv.watch(it.start, it.end, start_revision=first) as responses:
        events = await take(responses, 1_500)
    assert [e.kv.mod_revision for e in events] == list(range(first, first + 1_500))


async def test_a_slow_reader_misses_nothing(it: Subject) -> None:
    first = await it.put("0")
    async with it.kv.watch(it.start, it.end, start_revision=first) as responses:
        await take(responses, 1)
        for number in range(1, 400):
            await it.put(str(number))
        events = await take(responses, 399)
    assert [e.kv.mod_revision for e in events] == list(range(first + 1, first + 400))


async def test_a_watch_waits_for_its_revision(it: Subject) -> None:
    now = await it.put("a")
    async with it.kv.watch(it.start, it.end, start_revision=now + 3) as responses:
        created = await anext(responses)
        # This is how a store that was set back shows: nothing else would.
        assert (created.is_created, created.revision) == (True, now)
        for name in ("1", "2", "3"):
            await it.put(name)
        (event,) = await take(responses, 1)
    assert event.kv.key == it.key("3")
    assert event.kv.mod_revision == now + 3


async def test_a_watch_of_compacted_history_says_so(it: Subject) -> None:
    first = await it.put("a")
    await it.put("a")
    now = await it.put("a")
    await it.kv.compact(now)
    async with it.kv.watch(it.start, it.end, start_revision=first) as responses:
        assert (await anext(responses)).is_created
        with pytest.raises(CompactedError) as caught:
            await anext(responses)
    assert caught.value.compact_revision == now
    async with it.kv.watch(it.start, it.end, start_revision=now) as responses:
        (event,) = await take(responses, 1)
    assert event.kv.mod_revision == now


async def test_closing_ends_watches_and_later_calls(it: Subject) -> None:
    now = await it.put("a")
    ended = asyncio.Event()

    async def follow(responses: AsyncIterator[WatchResponse]) -> None:
        with pytest.raises(TransientError):
            await anext(responses)
        ended.set()

    async with it.kv.watch(it.start, it.end, start_revision=now + 1) as responses:
        assert (await anext(responses)).is_created
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            group.create_task(follow(responses))
            await asyncio.sleep(0)
            await it.kv.close()
    assert ended.is_set()
    with pytest.raises(TransientError):
        await it.kv.range(it.key("a"))
    assert (await it.other.range(it.key("a"))).count == 1


async def test_leaving_a_watch_while_it_waits(it: Subject) -> None:
    now = await it.put("a")

    async def follow() -> None:
        async with it.kv.watch(it.start, it.end, start_revision=now + 1) as responses:
            assert (await anext(responses)).is_created
            waiting.set()
            await anext(responses)

    waiting = asyncio.Event()
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        task = group.create_task(follow())
        await waiting.wait()
        task.cancel()
    assert await it.names() == ["a"]


async def test_a_watch_needs_a_revision(it: Subject) -> None:
    with pytest.raises(ValueError, match="revision"):
        it.kv.watch(it.start, it.end, start_revision=0)


async def test_a_lease_takes_its_keys_with_it(it: Subject) -> None:
    lease = await it.grant(60)
    assert lease != 0
    first = await it.put("b", lease=lease)
    await it.put("a", lease=lease)
    await it.put("free", lease=lease)
    await it.put("free")
    (kv,) = (await it.kv.range(it.key("a"))).kvs
    assert kv.lease == lease
    assert 50 < await it.other.keep_lease(lease) <= 60
    async with it.kv.watch(it.start, it.end, start_revision=first) as responses:
        await take(responses, 4)
        await it.kv.revoke_lease(lease)
        gone = await take(responses, 2)
    assert [(e.kv.key, e.is_delete) for e in gone] == [(it.key("a"), True), (it.key("b"), True)]
    assert {e.kv.mod_revision for e in gone} == {first + 4}
    assert await it.names() == ["free"]
    assert await it.kv.keep_lease(lease) == 0
    await it.kv.revoke_lease(lease)


async def test_a_key_moves_from_lease_to_lease(it: Subject) -> None:
    old, new = await it.grant(60), await it.grant(60)
    await it.put("a", lease=old)
    await it.put("a", lease=new)
    await it.kv.revoke_lease(old)
    assert await it.names() == ["a"]
    await it.kv.revoke_lease(new)
    assert await it.names() == []


async def test_a_lease_that_nobody_keeps_ends(it: Subject) -> None:
    kept, left = await it.grant(3), await it.grant(2)
    first = await it.put("kept", lease=kept)
    await it.put("left", lease=left)

    async def keep() -> None:
        while True:
            assert await it.kv.keep_lease(kept) > 0
            await asyncio.sleep(0.5)

    async with it.kv.watch(it.start, it.end, start_revision=first) as responses:
        await take(responses, 2)
        async with asyncio.TaskGroup() as group:
            keeper = group.create_task(keep())
            (gone,) = await take(responses, 1)
            keeper.cancel()
    assert (gone.kv.key, gone.is_delete) == (it.key("left"), True)
    assert await it.kv.keep_lease(left) == 0


@pytest.mark.parametrize("count", [0, 1, 600])
async def test_many_leases_are_kept_at_once(it: Subject, count: int) -> None:
    leases = [await it.grant(60) for _ in range(min(count, 3))]
    gone = await it.grant(60)
    await it.kv.revoke_lease(gone)
    asked = [leases[number % 3] if number % 7 else gone for number in range(count)]
    kept = await it.kv.keep_leases(asked)
    assert len(kept) == count
    for lease, left_s in zip(asked, kept, strict=True):
        assert left_s == 0 if lease == gone else 50 < left_s <= 60


async def test_a_lease_tells_what_it_has_left(it: Subject) -> None:
    lease = await it.grant(60)
    assert 50 < await it.kv.lease_left_s(lease) <= 60
    await it.kv.revoke_lease(lease)
    assert await it.kv.lease_left_s(lease) == 0


async def test_a_put_with_no_such_lease_changes_nothing(it: Subject) -> None:
    before = await it.put("a")
    with pytest.raises(NotFoundError):
        await it.kv.commit(Txn(success=(Put(it.key("b"), b""), Put(it.key("c"), b"", 424_242))))
    assert (await it.kv.range(it.start, it.end)).revision == before


async def test_a_lease_of_a_century_is_rejected(it: Subject) -> None:
    with pytest.raises(RejectedError):
        await it.kv.grant_lease(10_000_000_000)


async def test_the_status_tells_the_revision(it: Subject) -> None:
    now = await it.put("a")
    status = await it.other.status()
    assert status.revision == now
    assert status.version.startswith("3.")
    assert status.cluster_id != 0
    assert status.member_id != 0
    assert status.db_size_bytes >= status.db_used_bytes > 0


async def test_defragmenting_loses_nothing_and_gives_space_back(it: Subject) -> None:
    for _ in range(50):
        await it.put("large", b"x" * 100_000)
    now = await it.put("a")
    await it.kv.compact(now)
    await it.kv.defragment(1)
    status = await it.other.status()
    assert status.db_size_bytes - status.db_used_bytes < 1_000_000
    assert await it.names() == ["a", "large"]
