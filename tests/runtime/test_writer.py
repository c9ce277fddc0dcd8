"""Appending: whatever becomes of a request, its events are in the log once, or not at all.

A lost reply leaves a doubt: the write was done, or it never will be. The log, read by somebody
else, says which.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from meshd.edges.memory import MemoryEtcd, MemoryKv
from meshd.edges.memory.kv import DEADLINE_S
from meshd.edges.memory.limits import is_write
from meshd.model.codec import decode_head
from meshd.model.command import Command, Outcome, RemoveService, SetService, Submission
from meshd.model.errors import (
    FatalError,
    MeshdError,
    NoSpaceError,
    OutcomeUnknownError,
    OverloadedError,
    RejectedError,
    TransientError,
)
from meshd.model.ids import Seq, ServiceKey
from meshd.model.service import Service
from meshd.runtime.ports import Delete, Txn, TxnResult
from meshd.runtime.writer import PATIENCE_S, Writer, WriterLimits
from tests.mesh import LoopClock, endpoint, service
from tests.runtime.appending import (
    SPACE,
    Appender,
    appending,
    build,
    events_in,
    prepare,
    records_in,
)

pytestmark = pytest.mark.looptime

WEB = ServiceKey("shop", "web")


def set_service(number: int) -> SetService:
    return SetService(ServiceKey("shop", f"s{number}"), Service(is_global=True))


class Hooked(MemoryKv):
    """Something happens before or instead of the next write, or after its reply is lost."""

    def __init__(self, etcd: MemoryEtcd) -> None:
        super().__init__(etcd)
        self.instead: MeshdError | None = None
        self.before: Callable[[], Awaitable[object]] | None = None
        self.after_loss: Callable[[], Awaitable[object]] | None = None

    async def commit(self, txn: Txn) -> TxnResult:
        if not is_write(txn):
            return await super().commit(txn)
        if self.instead is not None:
            error, self.instead = self.instead, None
            await self._then()
            raise error
        if self.before is not None:
            before, self.before = self.before, None
            await before()
        try:
            return await super().commit(txn)
        except OutcomeUnknownError:
            await self._then()
            raise

    async def _then(self) -> None:
        if self.after_loss is not None:
            then, self.after_loss = self.after_loss, None
            await then()


@pytest.fixture
def etcd() -> MemoryEtcd:
    return MemoryEtcd(LoopClock())


# --- the usual way --------------------------------------------------------------------------------


async def test_an_answer_comes_after_the_commit_and_the_fold(etcd: MemoryEtcd) -> None:
    async with appending(etcd) as it:
        outcome = await it.submit(service(), endpoint("shop/web/a"))
        assert outcome == Outcome(Seq(1), Seq(2), 2)
        state = it.projector.state(it.projector.own)
        assert state is not None
        assert state.service(WEB) is not None
        assert [event.key for event in await events_in(etcd)] == ["shop/web", "shop/web/a"]
        assert len(await events_in(etcd, SPACE.export())) == 2


async def test_a_command_that_changes_nothing_writes_nothing(etcd: MemoryEtcd) -> None:
    async with appending(etcd) as it:
        await it.submit(service())
        before = etcd.revision
        assert await it.submit(service()) == Outcome(Seq(1), Seq(1), 0)
        assert etcd.revision == before


async def test_what_is_not_offered_is_not_exported(etcd: MemoryEtcd) -> None:
    async with appending(etcd) as it:
        await it.submit(SetService(WEB, Service()))
        assert len(await events_in(etcd)) == 1
        assert await events_in(etcd, SPACE.export()) == []


async def test_many_at_once_are_few_records(etcd: MemoryEtcd) -> None:
    async with appending(etcd) as it, asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(it.submit(set_service(number))) for number in range(300)]
    outcomes = [task.result() for task in asked]
    assert [outcome.first_seq for outcome in outcomes] == list(range(1, 301))
    records = await records_in(etcd)
    assert sum(len(record.events) for record in records) == 300
    assert len(records) <= 2


async def test_a_rejected_command_fails_alone(etcd: MemoryEtcd) -> None:
    async with appending(etcd) as it, asyncio.TaskGroup() as tasks:
        wrong = tasks.create_task(refused(it, RemoveService(ServiceKey("shop", "No"))))
        good = tasks.create_task(it.submit(service()))
    assert isinstance(wrong.result(), RejectedError)
    assert good.result().events == 1
    assert len(await events_in(etcd)) == 1


async def test_when_all_are_rejected_nothing_is_written(etcd: MemoryEtcd) -> None:
    async with appending(etcd) as it:
        before = etcd.revision
        assert isinstance(await refused(it, RemoveService(ServiceKey("shop", "No"))), RejectedError)
        assert etcd.revision == before


async def test_one_key_in_one_group_does_its_work_once(etcd: MemoryEtcd) -> None:
    async with appending(etcd) as it, asyncio.TaskGroup() as tasks:
        one = tasks.create_task(it.submit(set_service(1), cause="key-1"))
        two = tasks.create_task(it.submit(set_service(1), cause="key-1"))
    assert one.result() == Outcome(Seq(1), Seq(1), 1)
    assert two.result() == Outcome(Seq(1), Seq(1), 1, repeated=True)
    assert len(await records_in(etcd)) == 1


async def test_sharing_a_large_service_is_one_commit_of_several_export_records(
    etcd: MemoryEtcd,
) -> None:
    async with appending(etcd) as it:
        await it.submit(SetService(WEB, Service()))
        for first in range(0, 5000, 1000):
            await it.submit(*(endpoint(f"shop/web/e{first + n}") for n in range(1000)))
        assert await events_in(etcd, SPACE.export()) == []
        await it.submit(service())
    exported = await records_in(etcd, SPACE.export())
    assert len(exported) > 1
    assert sum(len(record.events) for record in exported) == 5001
    found = await MemoryKv(etcd).range(SPACE.export().root, SPACE.export().log_end)
    assert {kv.mod_revision for kv in found.kvs} == {etcd.revision}
    head = await MemoryKv(etcd).range(SPACE.export().head)
    assert decode_head(head.kvs[0].value, "head") == exported[-1].head


# --- a reply is lost ------------------------------------------------------------------------------


async def test_a_lost_reply_is_looked_up_and_nothing_is_done_twice(etcd: MemoryEtcd) -> None:
    async with appending(etcd) as it:
        it.kv.lose_next_reply = True
        assert (await it.submit(set_service(1))).first_seq == 1
        assert not it.kv.lose_next_reply
        assert (await it.submit(set_service(2))).first_seq == 2
    assert [event.key for event in await events_in(etcd)] == ["shop/s1", "shop/s2"]


async def test_a_lost_reply_is_found_though_the_head_has_moved_on(etcd: MemoryEtcd) -> None:
    kv = Hooked(etcd)
    async with appending(etcd) as other, appending(etcd, kv=kv) as it:
        kv.lose_next_reply = True
        kv.after_loss = lambda: other.submit(set_service(2))
        mine = await it.submit(set_service(1))
        assert (mine.first_seq, mine.repeated) == (1, False)
        assert (await it.submit(set_service(3))).first_seq == 3
    assert [event.key for event in await events_in(etcd)] == ["shop/s1", "shop/s2", "shop/s3"]


async def test_a_request_that_never_arrived_is_decided_anew_when_the_head_moved(
    etcd: MemoryEtcd,
) -> None:
    kv = Hooked(etcd)
    async with appending(etcd) as other, appending(etcd, kv=kv) as it:
        kv.instead = OutcomeUnknownError("no answer")
        kv.after_loss = lambda: other.submit(set_service(2))
        assert (await it.submit(set_service(1))).first_seq == 2
    assert [event.key for event in await events_in(etcd)] == ["shop/s2", "shop/s1"]


async def test_a_request_that_never_arrived_is_sent_again(etcd: MemoryEtcd) -> None:
    kv = Hooked(etcd)
    async with appending(etcd, kv=kv) as it:
        kv.instead = OutcomeUnknownError("no answer")
        assert (await it.submit(set_service(1))).first_seq == 1
    assert len(await events_in(etcd)) == 1


@pytest.mark.parametrize("is_heard", [True, False])
async def test_an_answer_that_does_not_come_is_asked_for_again_soon(
    etcd: MemoryEtcd, is_heard: bool
) -> None:
    """As of a leader that died: what was proposed to it may be in the log, or not."""
    kv = Hooked(etcd)
    loop = asyncio.get_running_loop()

    async def fall_silent() -> None:
        kv.set_hearing(hears=False)
        kv.lose_next_request = not is_heard
        loop.call_later(PATIENCE_S / 2, lambda: kv.set_hearing(hears=True))

    async with appending(etcd, kv=kv) as it:
        kv.before = fall_silent
        begun_s = loop.time()
        assert (await it.submit(set_service(1))).first_seq == 1
        # Time is virtual here.
        assert loop.time() - begun_s < DEADLINE_S / 2
    assert len(await events_in(etcd)) == 1


async def test_a_key_finds_what_a_lost_reply_had_done(etcd: MemoryEtcd) -> None:
    """The caller was told 'unknown'; it asks again with the same key, here of another meshd."""
    kv = Hooked(etcd)

    async def break_down() -> None:
        etcd.set_up(up=False)

    async with appending(etcd, kv=kv) as it:
        kv.lose_next_reply = True
        kv.after_loss = break_down
        with pytest.raises(OutcomeUnknownError, match="no word from the own etcd"):
            await it.submit(set_service(1), cause="key-1")
        etcd.set_up(up=True)
        again = await it.submit(set_service(1), cause="key-1")
        assert again == Outcome(Seq(1), Seq(1), 1, repeated=True)
    async with appending(etcd) as next_one:
        assert (await next_one.submit(set_service(1), cause="key-1")).repeated
    assert len(await events_in(etcd)) == 1


async def test_a_refusal_of_the_second_try_says_nothing_about_the_first(etcd: MemoryEtcd) -> None:
    """NOSPACE comes before the comparison: it can't tell whether the first try was done."""
    kv = Hooked(etcd)

    async def fill() -> None:
        etcd.is_out_of_space = True

    async with appending(etcd, kv=kv) as it:
        kv.lose_next_reply = True
        kv.after_loss = fill
        with pytest.raises(OutcomeUnknownError, match="database space exceeded"):
            await it.submit(set_service(1))
        assert len(await events_in(etcd)) == 1
        etcd.is_out_of_space = False
        assert (await it.submit(set_service(1))).events == 0


# --- two writers ----------------------------------------------------------------------------------


async def test_two_writers_on_one_log_lose_and_double_nothing(etcd: MemoryEtcd) -> None:
    async with (
        appending(etcd) as one,
        appending(etcd) as two,
        asyncio.TaskGroup() as tasks,
    ):

        async def append(it: Appender, numbers: range) -> list[Outcome]:
            return [await it.submit(set_service(number)) for number in numbers]

        first = tasks.create_task(append(one, range(20)))
        second = tasks.create_task(append(two, range(20, 40)))
    assert one.projector.state(one.projector.own) == two.projector.state(two.projector.own)
    keys = [event.key for event in await events_in(etcd)]
    for outcome, number in zip(first.result() + second.result(), range(40), strict=True):
        assert keys[outcome.first_seq - 1] == f"shop/s{number}"
    assert len(keys) == 40


async def test_the_loser_of_a_race_reads_for_itself_what_is_new(etcd: MemoryEtcd) -> None:
    """It need not wait for its own watch, which may be slow."""
    await prepare(MemoryKv(etcd))
    it, sink = build(MemoryKv(etcd))
    async with asyncio.TaskGroup() as tasks:
        follower = tasks.create_task(it.follower.run())
        committer = tasks.create_task(it.writer.run())
        await sink.complete.wait()
        follower.cancel()
        async with appending(etcd) as other:
            for number in range(100):
                await other.submit(set_service(number))
        assert (await it.submit(set_service(100))).first_seq == 101
        assert await it.submit(set_service(5)) == Outcome(Seq(101), Seq(101), 0)
        committer.cancel()
    assert len(await events_in(etcd)) == 101


async def test_a_command_is_decided_on_what_the_other_writer_did(etcd: MemoryEtcd) -> None:
    """The loser of a race folds what is new and decides again: here nothing is left to do."""
    kv = Hooked(etcd)
    async with appending(etcd) as other, appending(etcd, kv=kv) as it:
        kv.before = lambda: other.submit(set_service(1))
        assert await it.submit(set_service(1)) == Outcome(Seq(1), Seq(1), 0)
    assert len(await events_in(etcd)) == 1


# --- the etcd is away -----------------------------------------------------------------------------


async def test_while_the_etcd_is_down_callers_wait_and_are_told_that_nothing_was_done(
    etcd: MemoryEtcd,
) -> None:
    async with appending(etcd) as it:
        etcd.set_up(up=False)
        began_s = LoopClock().monotonic_s()
        with pytest.raises(TransientError, match="the own etcd does not answer"):
            await it.submit(set_service(1))
        assert 9 <= LoopClock().monotonic_s() - began_s <= 10
        etcd.set_up(up=True)
        assert await events_in(etcd) == []
        assert (await it.submit(set_service(1))).first_seq == 1


async def test_a_short_absence_is_waited_out(etcd: MemoryEtcd) -> None:
    async with appending(etcd) as it, asyncio.TaskGroup() as tasks:
        etcd.set_up(up=False)
        asked = tasks.create_task(it.submit(set_service(1)))
        await asyncio.sleep(5)
        etcd.set_up(up=True)
        assert (await asked).first_seq == 1


async def test_who_waits_behind_a_stuck_commit_is_told_that_nothing_was_written(
    etcd: MemoryEtcd,
) -> None:
    async with appending(etcd) as it, asyncio.TaskGroup() as tasks:
        etcd.set_up(up=False)
        first = tasks.create_task(refused(it, set_service(1)))
        await asyncio.sleep(0.001)
        second = tasks.create_task(refused(it, set_service(2)))
        assert isinstance(await first, TransientError)
        assert isinstance(await second, TransientError)
    etcd.set_up(up=True)
    assert await events_in(etcd) == []


async def refused(it: Appender, command: Command) -> MeshdError | None:
    try:
        await it.submit(command)
    except MeshdError as error:
        return error
    return None


async def test_who_has_waited_too_long_is_not_begun_with(etcd: MemoryEtcd) -> None:
    kv = Hooked(etcd)
    async with appending(etcd, kv=kv) as it, asyncio.TaskGroup() as tasks:
        kv.before = lambda: asyncio.sleep(11)
        first = tasks.create_task(it.submit(set_service(1)))
        await asyncio.sleep(0.001)
        second = tasks.create_task(refused(it, set_service(2)))
        assert (await first).first_seq == 1
        assert isinstance(await second, TransientError)
    assert [event.key for event in await events_in(etcd)] == ["shop/s1"]


async def test_a_full_etcd_refuses_and_recovers(etcd: MemoryEtcd) -> None:
    async with appending(etcd) as it:
        etcd.is_out_of_space = True
        with pytest.raises(NoSpaceError):
            await it.submit(set_service(1))
        assert await events_in(etcd) == []
        etcd.is_out_of_space = False
        assert (await it.submit(set_service(1))).first_seq == 1


async def test_a_full_queue_turns_away(etcd: MemoryEtcd) -> None:
    async with appending(etcd, limits=WriterLimits(queue_max=2)) as it:
        etcd.set_up(up=False)
        async with asyncio.TaskGroup() as tasks:
            for number in range(3):
                # The first is taken by the committer, two more wait.
                tasks.create_task(refused(it, set_service(number)))
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            with pytest.raises(OverloadedError, match="queue of commands is full"):
                await it.submit(set_service(9))
            etcd.set_up(up=True)


# --- time -----------------------------------------------------------------------------------------


async def test_the_time_of_events_never_goes_back(etcd: MemoryEtcd) -> None:
    class Jumping(LoopClock):
        now_ms = 5000

        def wall_ms(self) -> int:
            return self.now_ms

    clock = Jumping()
    async with appending(etcd, clock=clock) as it:
        for now_ms in (5000, 9000, 1000, 8999, 9001):
            clock.now_ms = now_ms
            await it.submit(SetService(WEB, Service(source=str(now_ms))))
    assert [record.time_ms for record in await records_in(etcd)] == [5000, 9000, 9000, 9000, 9001]
    # Nor after a restart.
    clock.now_ms = 1
    async with appending(etcd, clock=clock) as it:
        await it.submit(SetService(WEB, Service()))
    assert (await records_in(etcd))[-1].time_ms == 9001


# --- beginnings and ends --------------------------------------------------------------------------


async def test_before_the_own_log_is_read_nobody_is_let_in(etcd: MemoryEtcd) -> None:
    """The committer must not spin on a command that it can't decide yet: all else would stop."""
    await prepare(MemoryKv(etcd))
    it, sink = build(MemoryKv(etcd))
    async with asyncio.TaskGroup() as tasks:
        committer = tasks.create_task(it.writer.run())
        with pytest.raises(TransientError, match="the own log is not read yet"):
            await it.submit(set_service(1))
        follower = tasks.create_task(it.follower.run())
        await sink.complete.wait()
        assert (await it.submit(set_service(1))).first_seq == 1
        committer.cancel()
        follower.cancel()


async def test_stopping_answers_everybody_honestly(etcd: MemoryEtcd) -> None:
    await prepare(MemoryKv(etcd))
    it, sink = build(MemoryKv(etcd))
    async with asyncio.TaskGroup() as tasks:
        follower = tasks.create_task(it.follower.run())
        await sink.complete.wait()
        committer = tasks.create_task(it.writer.run())
        taken = tasks.create_task(refused(it, set_service(1)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting = tasks.create_task(refused(it, set_service(2)))
        await asyncio.sleep(0)
        committer.cancel()
        assert isinstance(await taken, OutcomeUnknownError)
        assert isinstance(await waiting, TransientError)
        late = await refused(it, set_service(3))
        assert isinstance(late, TransientError)
        assert "stopping" in str(late)
        follower.cancel()


async def test_a_caller_that_goes_away_leaves_nothing_behind(etcd: MemoryEtcd) -> None:
    async with appending(etcd) as it, asyncio.TaskGroup() as tasks:
        etcd.set_up(up=False)
        taken = tasks.create_task(it.submit(set_service(1)))
        await asyncio.sleep(0.001)
        queued = tasks.create_task(it.submit(set_service(2)))
        await asyncio.sleep(0.001)
        taken.cancel()
        queued.cancel()
        etcd.set_up(up=True)
        await it.submit(set_service(3))
    # The one that was under way may be done; the other was not begun.
    keys = [event.key for event in await events_in(etcd)]
    assert "shop/s2" not in keys
    assert "shop/s3" in keys


# --- the log is not what it was -------------------------------------------------------------------


async def deleted(etcd: MemoryEtcd, *keys: bytes) -> None:
    await MemoryKv(etcd).commit(Txn(success=tuple(Delete(key) for key in keys)))


async def until_fatal(writer: Writer) -> str:
    """Commit until that can't go on; returns why."""
    with pytest.raises(FatalError) as fatal:
        await writer.run()
    return str(fatal.value)


@pytest.mark.parametrize("how", ["wiped", "wiped and made anew", "set back"])
async def test_a_log_that_was_replaced_takes_nothing_and_ends_this_meshd(
    etcd: MemoryEtcd, how: str
) -> None:
    """Its watch may be of a member that has another history; who goes on refuses for ever."""
    await prepare(MemoryKv(etcd))
    backup = etcd.backup()
    it, sink = build(MemoryKv(etcd))
    async with asyncio.TaskGroup() as tasks:
        follower = tasks.create_task(it.follower.run())
        committer = tasks.create_task(until_fatal(it.writer))
        await sink.complete.wait()
        await it.submit(set_service(1))
        # Nobody has noticed yet.
        follower.cancel()
        if how == "set back":
            etcd.restore(backup)
        else:
            etcd.wipe()
        if how == "wiped and made anew":
            await prepare(MemoryKv(etcd))
        began_s = LoopClock().monotonic_s()
        with pytest.raises(TransientError, match=r"replaced while meshd was running.*nothing was"):
            await it.submit(set_service(2))
        assert LoopClock().monotonic_s() - began_s < 1
        assert await events_in(etcd) == []
        assert "replaced while meshd was running" in await committer


async def test_a_hole_in_the_own_log_is_not_stepped_over(etcd: MemoryEtcd) -> None:
    await prepare(MemoryKv(etcd))
    it, sink = build(MemoryKv(etcd))
    async with asyncio.TaskGroup() as tasks:
        follower = tasks.create_task(it.follower.run())
        committer = tasks.create_task(it.writer.run())
        await sink.complete.wait()
        follower.cancel()
        async with appending(etcd) as other:
            await other.submit(set_service(1))
        await deleted(etcd, SPACE.local.record(1))
        with pytest.raises(TransientError, match="the own log has a hole"):
            await it.submit(set_service(2))
        committer.cancel()


async def test_a_catch_up_that_fails_is_told_as_not_done(etcd: MemoryEtcd) -> None:
    kv = Hooked(etcd)

    async def lose_race_and_etcd() -> None:
        await other.submit(set_service(1))
        kv.is_denied = True

    async with appending(etcd) as other, appending(etcd, kv=kv) as it:
        kv.before = lambda: other.submit(set_service(1))
        assert (await it.submit(set_service(2))).first_seq == 2
        kv.before = lose_race_and_etcd
        assert isinstance(await refused(it, set_service(3)), MeshdError)
    assert [event.key for event in await events_in(etcd)] == ["shop/s1", "shop/s2"]


async def test_an_empty_submission_says_where_the_log_stands(etcd: MemoryEtcd) -> None:
    async with appending(etcd) as it:
        await it.submit(set_service(1))
        assert await it.writer.submit(Submission((), "ann")) == Outcome(Seq(1), Seq(1), 0)
