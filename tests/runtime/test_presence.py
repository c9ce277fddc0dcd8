"""Who leads, and showing life: one meshd at a time, and no heartbeat of a deposed one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from meshd.edges.memory import MemoryEtcd, MemoryKv
from meshd.model.codec import Heartbeat, decode_heartbeat, encode_heartbeat
from meshd.model.errors import OutcomeUnknownError
from meshd.model.ids import format_vector
from meshd.runtime.leadership import LEASE_TTL_S, Holder, HolderCheck, Leadership
from meshd.runtime.ports import Clock, Put, RangeResult, Txn
from meshd.runtime.presence import Presence
from meshd.runtime.projector import Projector
from meshd.runtime.ring import RecordRing
from meshd.runtime.table_feed import TableFeed
from tests.mesh import LoopClock, Mesh, endpoint, service
from tests.runtime.appending import EAST, SPACE

pytestmark = pytest.mark.looptime


def alive(_: Holder) -> bool:
    return False


def dead(_: Holder) -> bool:
    return True


def now_s() -> float:
    return LoopClock().monotonic_s()


@pytest.fixture
def etcd() -> MemoryEtcd:
    return MemoryEtcd(LoopClock())


def presence(
    kv: MemoryKv,
    pid: int = 1,
    beat_every_s: float = 1.0,
    is_gone: HolderCheck = alive,
    clock: Clock | None = None,
) -> Presence:
    clock = clock or LoopClock()
    projector = Projector(EAST, RecordRing(1 << 20), TableFeed("a" * 16))
    holder = Holder("host-1", pid, f"boot:{pid}", "127.0.0.1:7979")
    leadership = Leadership(kv, SPACE, holder, clock, is_gone)
    return Presence(kv, SPACE, projector, leadership, beat_every_s, clock)


@asynccontextmanager
async def running(it: Presence) -> AsyncIterator[None]:
    """Beat; leaving kills it, and the lease is left to run out."""
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(it.run())
        try:
            yield
        finally:
            task.cancel()


def leads(it: Presence) -> bool:
    return it.leadership.is_leader


async def until_leads(it: Presence) -> float:
    """Wait until it leads; returns for how long."""
    began_s = now_s()
    async with asyncio.timeout(100):
        while not leads(it):
            await LoopClock().sleep(0.1)
    return now_s() - began_s


async def holder_in(etcd: MemoryEtcd) -> int:
    """The pid of who holds the key; 0 for nobody."""
    found = await MemoryKv(etcd).range(SPACE.leader)
    return Holder.decode(found.kvs[0].value).pid if found.kvs else 0


async def beat_in(etcd: MemoryEtcd) -> Heartbeat | None:
    found = await MemoryKv(etcd).range(SPACE.export().heartbeat)
    return decode_heartbeat(found.kvs[0].value, "heartbeat") if found.kvs else None


async def beats_during(etcd: MemoryEtcd, seconds: float) -> int:
    """How often the heartbeat was written meanwhile."""
    found = await MemoryKv(etcd).range(SPACE.export().heartbeat)
    before = found.kvs[0].version if found.kvs else 0
    await asyncio.sleep(seconds)
    found = await MemoryKv(etcd).range(SPACE.export().heartbeat)
    return (found.kvs[0].version if found.kvs else 0) - before


# --- the usual way --------------------------------------------------------------------------------


async def test_who_claims_the_key_beats_and_keeps_it(etcd: MemoryEtcd) -> None:
    it = presence(MemoryKv(etcd))
    assert not leads(it)
    assert await it.leadership.campaign()
    assert leads(it)
    assert await holder_in(etcd) == 1
    assert await beat_in(etcd) is None
    async with running(it):
        first = await beats_during(etcd, 5)
        assert 4 <= first <= 6
        assert 58 <= await beats_during(etcd, 60) <= 62
    assert leads(it)


async def test_a_heartbeat_tells_where_the_tables_stand() -> None:
    mesh = Mesh(names=("east",))
    async with mesh.running("east") as east:
        await asyncio.sleep(2)
        beat = await beat_in(mesh.etcds["east"])
        assert beat is not None
        projector = east.parts.node.projector
        assert beat.vector == str(projector.vector()[EAST])
        assert beat.digest == projector.tables.digest
        assert projector.local_head is not None
        assert beat.head == projector.local_head.exports["mesh"]


async def test_beats_rise_and_no_process_repeats_anothers(etcd: MemoryEtcd) -> None:
    seen: list[int] = []
    for pid in (1, 2):
        it = presence(MemoryKv(etcd), pid, is_gone=dead)
        assert await it.leadership.campaign()
        async with running(it):
            for _ in range(10):
                await asyncio.sleep(1)
                beat = await beat_in(etcd)
                assert beat is not None
                seen.append(beat.beat)
        await it.resign()
    assert seen == sorted(set(seen))


async def test_resigning_frees_the_key_at_once(etcd: MemoryEtcd) -> None:
    it = presence(MemoryKv(etcd))
    assert await it.leadership.campaign()
    await it.resign()
    assert not leads(it)
    assert await holder_in(etcd) == 0
    began_s = now_s()
    assert await presence(MemoryKv(etcd), pid=2).leadership.campaign()
    assert now_s() == began_s
    # Without a key there is nothing to give back.
    await it.resign()
    assert await holder_in(etcd) == 2


async def test_resigning_does_not_wait_for_an_etcd_that_is_gone(etcd: MemoryEtcd) -> None:
    it = presence(MemoryKv(etcd))
    assert await it.leadership.campaign()
    etcd.set_up(up=False)
    began_s = now_s()
    await it.resign()
    assert now_s() - began_s <= 2
    assert not leads(it)


# --- a second meshd -------------------------------------------------------------------------------


async def test_a_second_meshd_follows_and_knows_whom(etcd: MemoryEtcd) -> None:
    first, second = presence(MemoryKv(etcd)), presence(MemoryKv(etcd), pid=2)
    async with running(first), running(second):
        await asyncio.sleep(60)
        assert leads(first)
        assert not leads(second)
        assert second.leadership.fence() is None
        assert second.leadership.leader == Holder("host-1", 1, "boot:1", "127.0.0.1:7979")
        assert await holder_in(etcd) == 1


async def test_a_holder_that_is_known_to_be_dead_is_not_waited_for(etcd: MemoryEtcd) -> None:
    assert await presence(MemoryKv(etcd)).leadership.campaign()
    began_s = now_s()
    second = presence(MemoryKv(etcd), pid=2, is_gone=lambda holder: holder.pid == 1)
    assert await second.leadership.campaign()
    assert now_s() == began_s
    assert await holder_in(etcd) == 2


@pytest.mark.parametrize("killed_after_s", [0.5, 2, 4, 30])
async def test_a_leader_that_dies_is_followed_when_its_lease_ends(
    etcd: MemoryEtcd, killed_after_s: float
) -> None:
    first, second = presence(MemoryKv(etcd)), presence(MemoryKv(etcd), pid=2)
    async with running(second):
        async with running(first):
            assert await first.leadership.campaign()
            await asyncio.sleep(killed_after_s)
        if not leads(second):
            assert await until_leads(second) <= LEASE_TTL_S + 1.2
        assert await holder_in(etcd) == 2
        assert await beats_during(etcd, 5) >= 4


async def test_a_new_leaders_beats_rise_above_the_old_ones_whatever_its_clock(
    etcd: MemoryEtcd,
) -> None:
    ahead = Heartbeat(4_000_000_000_000, 0, "", "")
    put = Put(SPACE.export().heartbeat, encode_heartbeat(ahead))
    await MemoryKv(etcd).commit(Txn(success=(put,)))
    async with running(presence(MemoryKv(etcd))):
        await asyncio.sleep(3)
        beat = await beat_in(etcd)
        assert beat is not None
        assert beat.beat > ahead.beat


async def test_a_leader_that_stood_still_beyond_its_lease_knows_before_it_asks(
    etcd: MemoryEtcd,
) -> None:
    """As after SIGSTOP and SIGCONT: until it has kept its lease again it leads nothing."""
    it, second = presence(MemoryKv(etcd)), presence(MemoryKv(etcd), pid=2)
    assert await it.leadership.campaign()
    await asyncio.sleep(LEASE_TTL_S + 1)
    assert not leads(it)
    assert it.leadership.fence() is None
    assert await second.leadership.campaign()
    async with running(it), running(second):
        await asyncio.sleep(20)
        assert leads(second)
        assert not leads(it)
        assert await holder_in(etcd) == 2


@pytest.mark.parametrize("value", [b"", b"{}", b"[]", b'{"host": 1, "pid": "x"}', b"\xff"])
async def test_whoever_holds_the_key_it_is_somebody(etcd: MemoryEtcd, value: bytes) -> None:
    await MemoryKv(etcd).commit(Txn(success=(Put(SPACE.leader, value),)))
    it = presence(MemoryKv(etcd))
    assert not await it.leadership.campaign()
    assert it.leadership.leader is not None


# --- faults ---------------------------------------------------------------------------------------


async def test_a_claim_whose_reply_was_lost_is_recognised(etcd: MemoryEtcd) -> None:
    class LosesClaim(MemoryKv):
        async def grant_lease(self, ttl_s: int) -> int:
            lease = await super().grant_lease(ttl_s)
            self.lose_next_reply = True
            return lease

    it = presence(LosesClaim(etcd))
    with pytest.raises(OutcomeUnknownError):
        await it.leadership.campaign()
    assert not leads(it)
    async with running(it):
        await until_leads(it)
        assert await beats_during(etcd, 5) >= 4


async def test_a_lease_whose_reply_was_lost_runs_out_by_itself(etcd: MemoryEtcd) -> None:
    kv = MemoryKv(etcd)
    it = presence(kv)
    kv.lose_next_reply = True
    async with running(it):
        await until_leads(it)
        assert await holder_in(etcd) == 1


async def test_an_etcd_that_is_away_for_a_moment_does_not_end_the_candidacy(
    etcd: MemoryEtcd,
) -> None:
    etcd.set_up(up=False)
    it = presence(MemoryKv(etcd))
    async with running(it):
        await asyncio.sleep(5)
        etcd.set_up(up=True)
        assert await until_leads(it) <= 2


async def test_a_lost_lease_is_claimed_anew(etcd: MemoryEtcd) -> None:
    it = presence(MemoryKv(etcd))
    assert await it.leadership.campaign()
    async with running(it):
        await asyncio.sleep(1)
        # As after a pause of this process that was longer than the lease.
        await MemoryKv(etcd).revoke_lease(1)
        assert await holder_in(etcd) == 0
        await asyncio.sleep(6)
        assert leads(it)
        assert await holder_in(etcd) == 1
        assert await beats_during(etcd, 5) >= 4


async def test_a_deposed_one_beats_no_more_and_takes_over_when_it_can(etcd: MemoryEtcd) -> None:
    first, second = presence(MemoryKv(etcd)), presence(MemoryKv(etcd), pid=2)
    assert await first.leadership.campaign()
    async with running(first):
        await asyncio.sleep(1)
        await MemoryKv(etcd).revoke_lease(1)
        assert await second.leadership.campaign()
        for _ in range(10):
            assert await beats_during(etcd, 1) == 0
            assert await second.leadership.keep()
        assert not leads(first)
        assert await holder_in(etcd) == 2
        await second.resign()
        await asyncio.sleep(5)
        assert leads(first)
        assert await beats_during(etcd, 5) >= 4


async def test_an_etcd_that_was_away_longer_than_the_lease(etcd: MemoryEtcd) -> None:
    it = presence(MemoryKv(etcd))
    assert await it.leadership.campaign()
    async with running(it):
        etcd.set_up(up=False)
        await asyncio.sleep(3 * LEASE_TTL_S)
        etcd.set_up(up=True)
        await asyncio.sleep(5)
        assert leads(it)
        assert await holder_in(etcd) == 1
        assert await beats_during(etcd, 5) >= 4


async def test_a_full_etcd_takes_no_heartbeat_but_keeps_the_lease(etcd: MemoryEtcd) -> None:
    """Once lost, no lease could be had again before somebody made room."""
    it = presence(MemoryKv(etcd))
    assert await it.leadership.campaign()
    async with running(it):
        await asyncio.sleep(1)
        etcd.is_out_of_space = True
        assert await beats_during(etcd, 5 * LEASE_TTL_S) == 0
        assert await holder_in(etcd) == 1
        assert leads(it)
        etcd.is_out_of_space = False
        assert await beats_during(etcd, 5) >= 4


@pytest.mark.parametrize(("every_s", "beats"), [(0.1, 550), (4.0, 14), (20.0, 3)])
async def test_the_lease_is_kept_however_often_the_heart_beats(
    etcd: MemoryEtcd, every_s: float, beats: int
) -> None:
    it = presence(MemoryKv(etcd), beat_every_s=every_s)
    assert await it.leadership.campaign()
    async with running(it):
        assert await beats_during(etcd, 60) >= beats
        assert leads(it)
        assert await holder_in(etcd) == 1


async def test_being_cancelled_while_claiming_leaves_a_lease_that_runs_out(
    etcd: MemoryEtcd,
) -> None:
    first, second = presence(MemoryKv(etcd)), presence(MemoryKv(etcd), pid=2)
    task = asyncio.get_running_loop().create_task(first.leadership.campaign())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    async with running(second):
        assert await until_leads(second) <= LEASE_TTL_S + 1


async def test_another_history_with_a_key_of_the_same_revision_is_nobodys_licence(
    etcd: MemoryEtcd,
) -> None:
    """Ring 2, seed 1864: it beat in a restored etcd where another one leads."""
    first, other = presence(MemoryKv(etcd)), presence(MemoryKv(etcd), pid=2)
    assert await first.leadership.campaign()
    fence = first.leadership.fence()
    assert fence is not None
    etcd.wipe()
    assert await other.leadership.campaign()
    for licence, holds in ((fence, False), (other.leadership.fence(), True)):
        assert licence is not None
        assert (await MemoryKv(etcd).commit(Txn(compares=tuple(licence)))).succeeded is holds


# --- while the own log is read on -----------------------------------------------------------------


@pytest.mark.parametrize("who", ["the writer", "the follower"])
async def test_a_heartbeat_between_two_windows_is_of_one_moment(who: str) -> None:
    """Export logs' heads are known only where the own log is read to its end; digests at once."""
    mesh = Mesh(("east",), overrides=("replication.heartbeat_every_s=0.1",))
    etcd = mesh.etcds["east"]
    async with mesh.running("east") as one, mesh.running("east", is_alone=False) as other:
        projector = one.parts.node.projector
        await one.submit(service())
        assert one.parts.node.leadership.is_leader
        etcd.silence_watches(owner=one.kv)
        for number in range(100):
            await other.submit(endpoint("shop/web/a", weight=number + 1))
        before = await beat_after(etcd, 0)
        held = SlowReads(one.kv)
        async with asyncio.TaskGroup() as tasks:
            if who == "the writer":
                tasks.create_task(one.submit(endpoint("shop/web/b")))
            else:
                etcd.end_watches("the link was dead", owner=one.kv)
            await one.until(lambda: projector.log_vector()[EAST].seq > 30)
            assert format_vector(projector.vector()) == before.vector
            assert projector.digest_for("mesh") != before.digest
            said = [await beat_after(etcd, 0) for _ in range(10)]
            # It lives, and says of itself what it said before.
            assert said == sorted(said, key=lambda beat: beat.beat)
            assert {(beat.vector, beat.digest) for beat in said} == {(before.vector, before.digest)}
            held.go_on.set()
        at = other.parts.node.projector.log_vector()
        await one.until(lambda: projector.log_vector() == at)
        after = await beat_after(etcd, one.parts.presence._last_beat)
        assert after.vector == format_vector(projector.vector()) != before.vector
        assert after.digest == projector.tables.digest


WINDOWS = 3


class SlowReads:
    """Lets through the first windows that a client reads, some forty records, and the others when
    it is told to.
    """

    def __init__(self, kv: MemoryKv) -> None:
        self.go_on = asyncio.Event()
        self._read = kv.range
        self._windows = 0
        kv.range = self.range  # type: ignore[method-assign]

    async def range(
        self, key: bytes, end: bytes = b"", *, limit: int = 0, **more: Any
    ) -> RangeResult:
        if key.startswith(SPACE.local.log):
            self._windows += 1
            if self._windows > WINDOWS:
                await self.go_on.wait()
        return await self._read(key, end, limit=limit, **more)


async def beat_after(etcd: MemoryEtcd, beat: int) -> Heartbeat:
    """The next heartbeat that is written from now on, and is later than another."""
    last = await beat_in(etcd)
    while True:
        found = await beat_in(etcd)
        if found is not None and found != last and found.beat > beat:
            return found
        await asyncio.sleep(0.01)
