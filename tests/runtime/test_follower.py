"""Following: what one peer's log does to this meshd, and what it can't do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest

from meshd.core.freshness import phase_of
from meshd.edges.memory import MemoryEtcd, MemoryKv
from meshd.edges.memory.limits import is_write
from meshd.model.codec import (
    LocalHead,
    decode_local_head,
    encode_head,
    encode_local_head,
    encode_record,
)
from meshd.model.command import Submission
from meshd.model.errors import (
    CorruptError,
    DeniedError,
    FatalError,
    MeshdError,
    NotFoundError,
    Problem,
    RejectedError,
)
from meshd.model.event import Event, Record
from meshd.model.ids import ClusterName, Head, LogId
from meshd.model.keyspace import DEFAULT_AUDIENCE, LogKeys
from meshd.model.listed import Skip
from meshd.model.peer import Phase
from meshd.model.replica import (
    BeginGeneration,
    CompleteGeneration,
    FinishSnapshot,
    FollowRules,
    Misread,
    Pause,
    ReplicaState,
    Resume,
)
from meshd.model.snapshot import Manifest
from meshd.model.table import Standing
from meshd.runtime.follower import Follower, Pace
from meshd.runtime.ports import Put, Txn, TxnResult
from meshd.runtime.reading import FOLDS_PER_TURN, LogReader
from tests.logs import log_of, ticked
from tests.mesh import LoopClock, Mesh, SeededChance, endpoint, service
from tests.runtime.appending import EAST, SPACE, appending, build, prepare

pytestmark = pytest.mark.looptime

WEST = ClusterName("west")


@dataclass(slots=True)
class ListSink:
    """Takes records into lists; can refuse one, and says whenever something happened."""

    served: list[Record] = field(default_factory=list)
    staged: list[Record] | None = None
    refuses: int | None = None  # the seq of a record; 0: to serve a generation
    on_fold: Callable[[Record], None] = lambda _: None
    passed: list[Record] = field(default_factory=list)
    skipping: Skip | None = None
    parts: list[tuple[int, int]] = field(default_factory=list)
    snapshots: list[Manifest] = field(default_factory=list)
    refused_part: bytes | None = None
    states: list[ReplicaState] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def begin_generation(self, log_id: LogId, *, is_fork: bool) -> None:
        self.staged = []

    def fold(self, record: Record, revision: int) -> None:
        self.on_fold(record)
        if record.last_seq == self.refuses:
            raise CorruptError(f"seq {record.last_seq}", "can't be folded")
        (self.served if self.staged is None else self.staged).append(record)

    def pass_over(self, record: Record, revision: int) -> None:
        self.passed.append(record)

    def load_part(self, manifest: Manifest, number: int, raw: bytes) -> None:
        if raw == self.refused_part:
            raise CorruptError(f"part {number}", "can't be folded")
        self.parts.append((manifest.head.seq, number))

    def finish_snapshot(self, manifest: Manifest) -> None:
        self.snapshots.append(manifest)

    def complete_generation(self) -> None:
        if self.refuses == 0:
            raise CorruptError("the generation", "can't be served")
        assert self.staged is not None
        self.served, self.staged = self.staged, None

    def foreign_ids(self) -> frozenset[int]:
        return frozenset()

    def skip(self) -> Skip | None:
        return self.skipping

    def folded_head(self) -> Head | None:
        return None

    def settle(self, local_head: LocalHead | None) -> None:
        pass

    def report(self, state: ReplicaState) -> None:
        self.states.append(state)
        self.changed.set()


class Odd(MemoryKv):
    """A client whose reads can fail in any way, and can be held back once they are done."""

    def __init__(self, etcd: MemoryEtcd) -> None:
        super().__init__(etcd)
        self.error: MeshdError | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.held = asyncio.Event()

    async def commit(self, txn: Txn) -> TxnResult:
        if is_write(txn):
            return await super().commit(txn)
        if self.error is not None:
            raise self.error
        result = await super().commit(txn)
        if not self.gate.is_set():
            self.held.set()
            await self.gate.wait()
        return result


@pytest.fixture
def etcd() -> MemoryEtcd:
    return MemoryEtcd(LoopClock())


def follower_of(kv: MemoryKv, sink: ListSink) -> Follower:
    return Follower(
        LogReader(kv, SPACE, SPACE.export(), is_local=False),
        sink,
        FollowRules(EAST, has_heartbeat=False, recycle_after_s=5),
        Pace(),
        LoopClock(),
        SeededChance(),
    )


@asynccontextmanager
async def following(kv: MemoryKv, sink: ListSink) -> AsyncIterator[Follower]:
    follower = follower_of(kv, sink)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(follower.run())
        try:
            yield follower
        finally:
            task.cancel()


async def until_phase(follower: Follower, sink: ListSink, phase: Phase) -> None:
    async with asyncio.timeout(200):
        while phase_of(follower.state, follower.rules, LoopClock().monotonic_s())[0] is not phase:
            sink.changed.clear()
            await sink.changed.wait()


async def put_log(etcd: MemoryEtcd, keys: LogKeys, records: list[Record]) -> None:
    """Write records and the head behind them, as the peer's own meshd would."""
    kv = MemoryKv(etcd)
    for record in records:
        head = Put(keys.head, encode_head(record.head))
        await kv.commit(Txn(success=(Put(keys.record(record.last_seq), record.raw), head)))


async def test_a_record_that_can_not_be_folded_stops_the_log_and_not_for_ever(
    etcd: MemoryEtcd,
) -> None:
    """Also in a first generation, which is served as soon as it is whole, and not before."""
    await prepare(MemoryKv(etcd))
    log = log_of(1, 2, 1)
    await put_log(etcd, SPACE.export(), log.records)
    sink = ListSink(refuses=3)
    async with following(MemoryKv(etcd), sink) as follower:
        await until_phase(follower, sink, Phase.QUARANTINED)
        assert (sink.served, sink.staged) == ([], log.records[:1])
        assert follower.state.at == log.records[0].head
        assert follower.state.staging
        sink.refuses = None
        await until_phase(follower, sink, Phase.READY)
        assert (sink.served, sink.staged) == (log.records, None)
        assert follower.state.at == log.head


async def test_nobody_sees_a_record_as_read_before_it_is_folded(etcd: MemoryEtcd) -> None:
    """Folding yields now and then; whoever looks in then must see what is true already."""
    await prepare(MemoryKv(etcd))
    log = log_of(*[1] * (3 * FOLDS_PER_TURN))
    await put_log(etcd, SPACE.export(), log.records)
    sink = ListSink()
    async with following(MemoryKv(etcd), sink) as follower, asyncio.timeout(60):
        while follower.state.at is None or follower.state.at.seq < log.head.seq:
            await asyncio.sleep(0)
            at = follower.state.at
            folded = sink.served if sink.staged is None else sink.staged
            assert at is None or at.seq <= len(folded)


async def test_a_pause_said_while_records_are_folded_comes_before_the_next_question(
    etcd: MemoryEtcd,
) -> None:
    await prepare(MemoryKv(etcd))
    log = log_of(1, 1)
    await put_log(etcd, SPACE.export(), log.records)
    kv, sink = MemoryKv(etcd), ListSink()
    async with following(kv, sink) as follower:
        sink.on_fold = lambda _: follower.control(Pause())
        await until_phase(follower, sink, Phase.PAUSED)
        assert kv.calls["watch"] == 0
        assert follower.state.at == log.head


async def test_of_two_things_said_in_a_row_the_last_one_is_done(etcd: MemoryEtcd) -> None:
    """Ring 2, seed 67: the second one ended meshd."""
    await prepare(MemoryKv(etcd))
    sink = ListSink()
    async with following(MemoryKv(etcd), sink) as follower:
        await until_phase(follower, sink, Phase.READY)
        follower.control(Resume())
        await asyncio.sleep(0)
        follower.control(Pause())
        await until_phase(follower, sink, Phase.PAUSED)


async def test_a_pause_said_while_a_record_can_not_be_folded_loses_neither(
    etcd: MemoryEtcd,
) -> None:
    """What was folded before the bad record has moved the position, and stays moved."""
    await prepare(MemoryKv(etcd))
    log = log_of(1, 1)
    await put_log(etcd, SPACE.export(), log.records)
    sink = ListSink(refuses=2)
    async with following(MemoryKv(etcd), sink) as follower:
        sink.on_fold = lambda _: follower.control(Pause())
        await until_phase(follower, sink, Phase.PAUSED)
        assert follower.state.at == log.records[0].head
        assert follower.state.trouble is not None
        sink.on_fold, sink.refuses = lambda _: None, None
        follower.control(Resume())
        await until_phase(follower, sink, Phase.READY)
        assert sink.served == log.records


@pytest.mark.parametrize(
    "error",
    [
        DeniedError("no rights"),
        NotFoundError("no such thing"),
        RejectedError((Problem("etcd request", "the answer is larger than 64 MiB"),)),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_no_answer_of_a_peers_etcd_ends_this_meshd(
    etcd: MemoryEtcd, error: MeshdError
) -> None:
    await prepare(MemoryKv(etcd))
    kv, sink = Odd(etcd), ListSink()
    async with following(kv, sink) as follower:
        await until_phase(follower, sink, Phase.READY)
        kv.error = error
        kv.set_linked(linked=False)
        kv.set_linked(linked=True)
        await until_phase(follower, sink, Phase.CONNECTING)
        assert follower.state.link_reason == str(error)
        # A person must act, so it is asked seldom.
        calls = kv.calls["watch"]
        await asyncio.sleep(10)
        assert kv.calls["watch"] == calls
        kv.error = None
        await until_phase(follower, sink, Phase.READY)


async def test_what_can_not_be_decoded_stops_the_log_until_it_can(etcd: MemoryEtcd) -> None:
    await prepare(MemoryKv(etcd))
    kv, sink = MemoryKv(etcd), ListSink()
    async with following(kv, sink) as follower:
        await until_phase(follower, sink, Phase.READY)
        good = (await kv.range(SPACE.export().head)).kvs[0].value
        await kv.commit(Txn(success=(Put(SPACE.export().head, b"[" * 1000 + b"]" * 1000),)))
        await until_phase(follower, sink, Phase.QUARANTINED)
        await kv.commit(Txn(success=(Put(SPACE.export().head, good),)))
        await until_phase(follower, sink, Phase.READY)


async def test_a_watch_that_was_compacted_away_is_replaced(etcd: MemoryEtcd) -> None:
    await prepare(MemoryKv(etcd))
    kv, sink = Odd(etcd), ListSink()
    async with following(kv, sink) as follower:
        await until_phase(follower, sink, Phase.READY)
        kv.gate.clear()
        kv.set_linked(linked=False)
        kv.set_linked(linked=True)
        await kv.held.wait()
        # It was identified; what it will watch from is compacted before it does.
        await put_log(etcd, SPACE.export(), log_of(1, 1).records)
        await kv.compact(etcd.revision)
        kv.gate.set()
        await until_phase(follower, sink, Phase.READY)
        async with asyncio.timeout(20):
            while not sink.served:
                sink.changed.clear()
                await sink.changed.wait()
        await asyncio.sleep(1)
        assert etcd.watches_open == 1


async def test_a_watch_is_opened_anew_now_and_then_and_never_twice(etcd: MemoryEtcd) -> None:
    await prepare(MemoryKv(etcd))
    kv, sink = MemoryKv(etcd), ListSink()
    async with following(kv, sink) as follower:
        await until_phase(follower, sink, Phase.READY)
        await asyncio.sleep(60)
        assert 10 <= kv.calls["watch"] <= 15
        assert etcd.watches_open == 1
    assert etcd.watches_open == 0


# --- the own log, which the writer hands over too -------------------------------------------------


async def test_appending_while_the_own_log_is_identified_is_no_fork(etcd: MemoryEtcd) -> None:
    """The answer is older than what the writer has handed over in the meantime."""
    await prepare(MemoryKv(etcd))
    kv = Odd(etcd)
    async with appending(etcd, kv=kv) as it:
        await it.submit(service())
        it.follower.rules = replace(it.follower.rules, recycle_after_s=1)
        kv.gate.clear()
        await kv.held.wait()
        for number in range(3):
            await it.submit(endpoint("shop/web/a", weight=number))
        kv.gate.set()
        await asyncio.sleep(5)
        assert it.follower.state.trouble is None
        assert it.follower.state.traffic.forks == 0
        assert (await it.submit(endpoint("shop/web/a"))).first_seq == 5


async def test_the_own_log_is_folded_once_though_it_comes_twice(etcd: MemoryEtcd) -> None:
    async with appending(etcd) as it:
        for number in range(20):
            await it.submit(endpoint("shop/web/a", weight=number))
        await asyncio.sleep(1)
        assert it.follower.state.at == it.projector.head(EAST)
        traffic = it.follower.state.traffic
        assert traffic.records_read + traffic.records_duplicate == 20
        told = it.projector.ring.after(EAST, 0)
        assert told is not None
        assert [record.first_seq for record in told] == list(range(1, 21))


# --- peers of a whole meshd -----------------------------------------------------------------------


async def poison(etcd: MemoryEtcd) -> None:
    """Append a record to the export log that is well-formed, chained, and not the peer's to say."""
    kv, keys = MemoryKv(etcd), SPACE.export()
    found = await kv.range(SPACE.local.head)
    head = decode_local_head(found.kvs[0].value, "head").exports[DEFAULT_AUDIENCE]
    event = Event("cluster.set", "east", {"name": "east", "id": 1}, "mallory")
    await put_log(etcd, keys, [encode_record(head, 1, (ticked(), event))])


async def test_a_quarantined_peer_stays_quarantined_and_its_backends_demoted() -> None:
    """Looking again must not look like health: neither for a moment nor in the policy's clock."""
    mesh = Mesh(names=("east", "west", "south"))
    async with mesh.running("east") as east, mesh.running("west"), mesh.running("south"):
        await east.until_ready("west", "south")
        await poison(mesh.etcds["west"])
        await east.until(lambda: east.phase("west") is Phase.QUARANTINED)
        projector = east.parts.node.projector
        await east.until(lambda: projector.standing(WEST) is Standing.DEMOTED, timeout_s=60)
        until_s = LoopClock().monotonic_s() + 200
        while LoopClock().monotonic_s() < until_s:
            assert east.phase("west") is Phase.QUARANTINED
            assert projector.standing(WEST) is Standing.DEMOTED
            assert east.phase("south") is Phase.READY
            await asyncio.sleep(0.4)
        condition = east.parts.node.peers.condition(WEST)
        assert condition is not None
        assert "the log of west speaks for east" in condition.reason
        assert condition.traffic.records_read == 1


async def test_an_own_log_that_was_replaced_ends_this_meshd(etcd: MemoryEtcd) -> None:
    await prepare(MemoryKv(etcd))
    it, sink = build(MemoryKv(etcd))
    task = asyncio.get_running_loop().create_task(it.follower.run())
    await sink.complete.wait()
    head = Head.genesis(LogId("c" * 32))
    raw = encode_local_head(LocalHead(head, {DEFAULT_AUDIENCE: head}))
    await MemoryKv(etcd).commit(Txn(success=(Put(SPACE.local.head, raw),)))
    with pytest.raises(FatalError, match="the own log was replaced while meshd was running"):
        await task


async def test_an_own_log_that_is_gone_ends_this_meshd(etcd: MemoryEtcd) -> None:
    """It stayed up, refused all writes, and served the old state for ever."""
    await prepare(MemoryKv(etcd))
    it, sink = build(MemoryKv(etcd))
    task = asyncio.get_running_loop().create_task(it.follower.run())
    await sink.complete.wait()
    etcd.wipe()
    with pytest.raises(FatalError, match="the own log can't be read: it is gone"):
        await task


async def test_an_own_log_that_went_back_is_noticed_though_the_watch_missed_what_is_lost(
    etcd: MemoryEtcd,
) -> None:
    """Ring 2, seed 4419: it stayed up and refused all writes."""
    await prepare(MemoryKv(etcd))
    it, sink = build(MemoryKv(etcd))
    follow = asyncio.get_running_loop().create_task(it.follower.run())
    write = asyncio.get_running_loop().create_task(it.writer.run())
    await sink.complete.wait()
    backup = etcd.backup()
    etcd.silence_watches()
    await it.writer.submit(Submission((service(),), "test"))
    etcd.restore(backup)
    with pytest.raises(FatalError, match="the own log was replaced while meshd was running"):
        await follow
    write.cancel()


async def test_an_own_log_that_is_damaged_ends_this_meshd(etcd: MemoryEtcd) -> None:
    await prepare(MemoryKv(etcd))
    await MemoryKv(etcd).commit(Txn(success=(Put(SPACE.local.head, b"{"),)))
    it, _ = build(MemoryKv(etcd))
    with pytest.raises(FatalError, match=r"the own log can't be read: .* not JSON.* from a backup"):
        await it.follower.run()


async def test_a_generation_that_may_not_be_served_stands_where_its_snapshot_does(
    etcd: MemoryEtcd,
) -> None:
    """Ring 1, seed 10478: the last part would be loaded again."""
    follower = follower_of(MemoryKv(etcd), ListSink(refuses=0))
    head = log_of(1).head
    manifest = Manifest(head, time_ms=0, log_bytes=0, items=0, parts=())
    effects = (BeginGeneration(head.log_id), FinishSnapshot(manifest), CompleteGeneration())
    misread = await follower._perform(effects, follower.state)
    assert misread == Misread("the generation: can't be served", head, 0)
