"""Who is in charge, and showing life: one meshd at a time, and no heartbeat of a deposed one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from meshd.edges.memory import MemoryEtcd, MemoryKv
from meshd.model.codec import Heartbeat, decode_heartbeat
from meshd.model.errors import FatalError, TransientError
from meshd.runtime.ports import Put, Txn
from meshd.runtime.presence import LEASE_TTL_S, Holder, Presence, PresenceRules
from meshd.runtime.projector import Projector
from meshd.runtime.ring import RecordRing
from tests.mesh import LoopClock, Mesh
from tests.runtime.appending import EAST, SPACE

pytestmark = pytest.mark.looptime

RULES = PresenceRules(heartbeat_every_s=1.0, claim_timeout_s=LEASE_TTL_S + 5.0)


def alive(_: Holder) -> bool:
    return False


def dead(_: Holder) -> bool:
    return True


def now_s() -> float:
    return LoopClock().monotonic_s()


@pytest.fixture
def etcd() -> MemoryEtcd:
    return MemoryEtcd(LoopClock())


def presence(kv: MemoryKv, pid: int = 1, rules: PresenceRules = RULES) -> Presence:
    projector = Projector(EAST, RecordRing(1 << 20))
    holder = Holder("host-1", pid, f"boot:{pid}", "127.0.0.1:7979")
    return Presence(kv, SPACE, projector, holder, rules, LoopClock())


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
    return it.is_leader


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
    await it.claim(alive)
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
        it = presence(MemoryKv(etcd), pid)
        await it.claim(dead)
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
    await it.claim(alive)
    await it.resign()
    assert not leads(it)
    assert await holder_in(etcd) == 0
    began_s = now_s()
    await presence(MemoryKv(etcd), pid=2).claim(alive)
    assert now_s() == began_s
    # Without a key there is nothing to give back.
    await it.resign()
    assert await holder_in(etcd) == 2


async def test_resigning_does_not_wait_for_an_etcd_that_is_gone(etcd: MemoryEtcd) -> None:
    it = presence(MemoryKv(etcd))
    await it.claim(alive)
    etcd.set_up(up=False)
    began_s = now_s()
    await it.resign()
    assert now_s() - began_s <= 2
    assert not leads(it)


# --- a second meshd -------------------------------------------------------------------------------


async def test_a_second_meshd_is_refused_and_told_by_whom(etcd: MemoryEtcd) -> None:
    first, second = presence(MemoryKv(etcd)), presence(MemoryKv(etcd), pid=2)
    await first.claim(alive)
    async with running(first):
        began_s = now_s()
        with pytest.raises(FatalError, match=r"another meshd serves cluster east .* process 1 on"):
            await second.claim(alive)
        assert LEASE_TTL_S < now_s() - began_s <= RULES.claim_timeout_s + 1
        assert not leads(second)
        assert leads(first)
        assert await holder_in(etcd) == 1


async def test_a_holder_that_is_known_to_be_dead_is_not_waited_for(etcd: MemoryEtcd) -> None:
    await presence(MemoryKv(etcd)).claim(alive)
    began_s = now_s()
    second = presence(MemoryKv(etcd), pid=2)
    await second.claim(lambda holder: holder.pid == 1)
    assert now_s() - began_s <= 2
    assert await holder_in(etcd) == 2


@pytest.mark.parametrize("killed_after_s", [0, 2, 4])
async def test_a_holder_that_dies_is_followed_when_its_lease_ends(
    etcd: MemoryEtcd, killed_after_s: float
) -> None:
    """Also later than the waiting one's own lease would have lived, had it not kept it."""
    first, second = presence(MemoryKv(etcd)), presence(MemoryKv(etcd), pid=2)
    await first.claim(alive)
    async with asyncio.TaskGroup() as tasks:
        async with running(first):
            claiming = tasks.create_task(second.claim(alive))
            await asyncio.sleep(killed_after_s)
        await claiming
    assert leads(second)
    assert await holder_in(etcd) == 2


@pytest.mark.parametrize("value", [b"", b"{}", b"[]", b'{"host": 1, "pid": "x"}', b"\xff"])
async def test_whoever_holds_the_key_it_is_somebody(etcd: MemoryEtcd, value: bytes) -> None:
    await MemoryKv(etcd).commit(Txn(success=(Put(SPACE.leader, value),)))
    with pytest.raises(FatalError, match="process 0 on an unknown host"):
        await presence(MemoryKv(etcd)).claim(alive)


# --- faults ---------------------------------------------------------------------------------------


async def test_a_claim_whose_reply_was_lost_is_recognised(etcd: MemoryEtcd) -> None:
    kv = MemoryKv(etcd)
    it = presence(kv)
    # The lease's reply first: that lease is lost to us, and runs out by itself.
    kv.lose_next_reply = True
    await it.claim(alive)
    assert leads(it)
    await it.resign()

    class LosesClaim(MemoryKv):
        async def grant_lease(self, ttl_s: int) -> int:
            lease = await super().grant_lease(ttl_s)
            self.lose_next_reply = True
            return lease

    again = presence(LosesClaim(etcd), pid=2)
    await again.claim(alive)
    assert leads(again)
    async with running(again):
        assert await beats_during(etcd, 5) >= 4


async def test_an_etcd_that_is_away_for_a_moment_does_not_end_the_claim(etcd: MemoryEtcd) -> None:
    etcd.set_up(up=False)
    it = presence(MemoryKv(etcd))
    async with asyncio.TaskGroup() as tasks:
        claiming = tasks.create_task(it.claim(alive))
        await asyncio.sleep(5)
        etcd.set_up(up=True)
        await claiming
    assert leads(it)


async def test_an_etcd_that_stays_away_ends_the_claim(etcd: MemoryEtcd) -> None:
    etcd.set_up(up=False)
    began_s = now_s()
    with pytest.raises(TransientError):
        await presence(MemoryKv(etcd)).claim(alive)
    assert now_s() - began_s <= RULES.claim_timeout_s + 1


async def test_a_lost_lease_is_claimed_anew(etcd: MemoryEtcd) -> None:
    it = presence(MemoryKv(etcd))
    await it.claim(alive)
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
    await first.claim(alive)
    async with running(first):
        await asyncio.sleep(1)
        await MemoryKv(etcd).revoke_lease(1)
        await second.claim(alive)
        for _ in range(10):
            assert await beats_during(etcd, 3) == 0
            assert await MemoryKv(etcd).keep_lease(second._lease)
        assert not leads(first)
        assert await holder_in(etcd) == 2
        await second.resign()
        await asyncio.sleep(5)
        assert leads(first)
        assert await beats_during(etcd, 5) >= 4


async def test_an_etcd_that_was_away_longer_than_the_lease(etcd: MemoryEtcd) -> None:
    it = presence(MemoryKv(etcd))
    await it.claim(alive)
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
    await it.claim(alive)
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
    it = presence(MemoryKv(etcd), rules=PresenceRules(every_s, RULES.claim_timeout_s))
    await it.claim(alive)
    async with running(it):
        assert await beats_during(etcd, 60) >= beats
        assert leads(it)
        assert await holder_in(etcd) == 1


async def test_being_cancelled_while_claiming_leaves_a_lease_that_runs_out(
    etcd: MemoryEtcd,
) -> None:
    task = asyncio.get_running_loop().create_task(presence(MemoryKv(etcd)).claim(alive))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    await presence(MemoryKv(etcd), pid=2).claim(alive)
    assert await holder_in(etcd) == 2
