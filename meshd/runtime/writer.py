"""The only writer of the own log: group commit, optimistic, exactly once (design, section 5).

For: turning submissions into committed and folded records. Not for: deciding (`core.decide`) or
folding (`projector`). Invariants: a transaction commits only on the head that its events were
decided on; an answer is given after the commit and after the fold; a write whose outcome is unknown
is looked up before anything is written again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tenacity import (
    AsyncRetrying,
    RetryError,
    retry_if_exception_type,
    wait_random_exponential,
)

from meshd.core.decide import Decision, decide
from meshd.core.draft import Draft, OfState
from meshd.core.standpoint import check_export_logs
from meshd.model.codec import (
    LocalHead,
    decode_record,
    encode_head,
    encode_local_head,
    encode_record,
)
from meshd.model.command import Outcome, Submission
from meshd.model.errors import (
    FatalError,
    MeshdError,
    OutcomeUnknownError,
    OverloadedError,
    RejectedError,
    TransientError,
)
from meshd.model.event import Event, Record
from meshd.model.ids import Head, LogId
from meshd.model.keyspace import Keyspace
from meshd.runtime.guards import (
    GUARDS_MAX,
    GuardError,
    Guards,
    GuardsFailed,
    failed_of,
    reads_of,
)
from meshd.runtime.portioning import BATCH_BYTES, BATCH_EVENTS, chained, portions
from meshd.runtime.ports import Chance, Clock, Compare, Get, Kv, Put, RangeResult, Txn, ValueIs
from meshd.runtime.projector import Projector
from meshd.runtime.reading import LogReader
from meshd.telemetry import metrics

RETRY_CAP_S = 1.0
PATIENCE_S = 0.5
"""Of the first try, and twice as much of each that follows, up to `etcd.call_timeout_s`. What was
proposed to a leader that died is never answered, and the next one leads after a second or so; a
commit takes some milliseconds. The same bytes again can't be written twice: the head has moved.
"""


@dataclass(frozen=True, slots=True)
class WriterLimits:
    """queue_max: submissions that may wait. submit_timeout_s: how long a caller waits at most."""

    queue_max: int = 10_000
    submit_timeout_s: float = 10.0


@dataclass(slots=True, eq=False)
class _Waiting:
    """A submission, its caller, until when the caller waits, and what it depends on."""

    submission: Submission
    answer: asyncio.Future[Outcome]
    until_s: float
    guards: Guards = ()


@dataclass(frozen=True, slots=True)
class _Plan:
    """What one commit would write, decided on `base`. exports: by audience."""

    base: LocalHead
    record: Record | None
    exports: Mapping[str, tuple[Record, ...]]
    head: LocalHead
    answers: tuple[tuple[_Waiting, Outcome], ...]

    @property
    def guards(self) -> frozenset[Compare]:
        """What it depends on beside the head."""
        return frozenset(guard for waiting, _ in self.answers for guard in waiting.guards)


class Writer:
    """Appends to the local log and its export logs. One committer at a time: `run`."""

    def __init__(
        self,
        kv: Kv,
        keyspace: Keyspace,
        projector: Projector,
        doors: tuple[Clock, Chance],
        limits: WriterLimits,
    ) -> None:
        self._kv = kv
        self._keyspace = keyspace
        self._projector = projector
        self._clock, self._chance = doors
        self._limits = limits
        self._reader = LogReader(kv, keyspace, keyspace.local, is_local=True)
        self._queue: deque[_Waiting] = deque()
        self._wake = asyncio.Event()
        self._is_stopped = False

    async def submit(self, submission: Submission, guards: Guards = ()) -> Outcome:
        """Have commands decided, committed and folded; returns where their events are.

        guards: compared in the same transaction; raises GuardError if one fails. Raises
        RejectedError; OverloadedError when the queue is full; TransientError or NoSpaceError when
        nothing was committed; OutcomeUnknownError when that can't be known in time.
        """
        if len(guards) > GUARDS_MAX:
            raise ValueError(f"{len(guards)} guards; a commit has room for {GUARDS_MAX}")
        if self._is_stopped:
            raise TransientError("meshd is stopping; nothing was written")
        if self._projector.local_head is None:
            raise TransientError("the own log is not read yet; nothing was written")
        if len(self._queue) >= self._limits.queue_max:
            raise OverloadedError("the queue of commands", RETRY_CAP_S)
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        until_s = self._clock.monotonic_s() + self._limits.submit_timeout_s
        self._queue.append(_Waiting(submission, answer, until_s, guards))
        self._wake.set()
        return await answer

    async def run(self) -> None:
        """Commit what waits, for ever. What still waits at the end is answered as not done."""
        try:
            while True:
                await self._wake.wait()
                if self._queue:
                    await self._commit_waiting()
                else:
                    self._wake.clear()
        finally:
            self._is_stopped = True
            _fail(TransientError("meshd is stopping; nothing was written"), *self._queue)
            self._queue.clear()

    async def _commit_waiting(self) -> None:
        """Commit one group: decide, write, and on a lost race fold what is new and decide again."""
        taken: list[_Waiting] = []
        try:
            while True:
                plan = self._plan(taken)
                if not plan.answers:
                    return
                try:
                    is_written = await self._write(plan)
                except GuardsFailed as error:
                    self._queue.extendleft(reversed(_unfailed(taken, error.failed)))
                    taken.clear()
                    continue
                if is_written:
                    self._settle(plan)
                    return
                metrics.APPEND_CONFLICTS.inc()
                await self._catch_up()
                self._queue.extendleft(reversed(taken))
                taken.clear()
        except FatalError as error:
            _fail(TransientError(f"{error}; nothing was written"), *taken)
            raise
        except MeshdError as error:
            _fail(error, *taken)
        except asyncio.CancelledError:
            _fail(OutcomeUnknownError("meshd stopped during the commit"), *taken)
            raise

    def _plan(self, taken: list[_Waiting]) -> _Plan:
        """Decide as many waiting submissions as one record holds; the rejected are answered now."""
        base = self._projector.local_head
        state = self._projector.state(self._projector.own)
        if base is None or state is None:
            raise AssertionError("submit lets nobody in before the own log is read")
        now_ms = max(self._clock.wall_ms(), state.time_ms)
        draft = Draft(OfState(state))
        decisions: list[tuple[_Waiting, Decision]] = []
        size_bytes = events = 0
        guards: set[Compare] = set()
        while self._queue and size_bytes < BATCH_BYTES and events < BATCH_EVENTS:
            more = self._queue[0].guards
            if more and len(guards.union(more)) > GUARDS_MAX:
                break
            waiting = self._queue.popleft()
            if waiting.answer.done():
                continue
            if waiting.until_s <= self._clock.monotonic_s():
                _fail(TransientError("the own etcd does not answer; nothing was written"), waiting)
                continue
            try:
                check_export_logs(base.exports, waiting.submission)
                decision = decide(draft, waiting.submission, now_ms)
            except RejectedError as error:
                _fail(error, waiting)
                continue
            taken.append(waiting)
            guards.update(waiting.guards)
            decisions.append((waiting, decision))
            size_bytes += decision.events_bytes + decision.exports_bytes
            events += len(decision.events)
        return _lay_out(base, now_ms, decisions, self._new_log_id)

    def _new_log_id(self) -> LogId:
        return LogId(self._chance.uuid_hex())

    async def _write(self, plan: _Plan) -> bool:
        """Commit a plan; false if the head had moved. Never writes on a guess.

        The same bytes are tried again only on the same head, so however often a request arrives,
        the record is in the log at most once.
        """
        try:
            return await self._try_write(plan, PATIENCE_S, in_doubt=False)
        except OutcomeUnknownError:
            return await self._write_again(plan, in_doubt=True)
        except TransientError:
            return await self._write_again(plan, in_doubt=False)

    async def _write_again(self, plan: _Plan, *, in_doubt: bool) -> bool:
        """Go on trying, at once and then ever more slowly, while a caller waits.

        Tenacity comes in only here: even where nothing fails it takes 0.1 ms.
        """
        until_s = max(waiting.until_s for waiting, _ in plan.answers)
        retrying = AsyncRetrying(
            retry=retry_if_exception_type((TransientError, OutcomeUnknownError)),
            stop=lambda tried: self._clock.monotonic_s() + tried.upcoming_sleep >= until_s,
            wait=wait_random_exponential(multiplier=0.02, max=RETRY_CAP_S),
            sleep=self._clock.sleep,
        )
        try:
            async for attempt in retrying:
                patience_s = PATIENCE_S * 2**attempt.retry_state.attempt_number
                with attempt:
                    try:
                        return await self._try_write(plan, patience_s, in_doubt=in_doubt)
                    except OutcomeUnknownError:
                        in_doubt = True
                        raise
        except RetryError as error:
            last = error.last_attempt.exception()
            if in_doubt:
                raise OutcomeUnknownError(f"no word from the own etcd: {last}") from error
            raise TransientError(f"the own etcd does not answer: {last}") from error
        except MeshdError as error:
            if in_doubt:
                # A refusal of the second try says nothing about the first.
                raise OutcomeUnknownError(f"no word from the own etcd: {error}") from error
            raise
        raise AssertionError("tenacity ends by returning or raising")

    async def _try_write(self, plan: _Plan, patience_s: float, *, in_doubt: bool) -> bool:
        head_key = self._keyspace.local.head
        puts: tuple[Put, ...] = ()
        if plan.record is not None:
            puts = (
                Put(self._keyspace.local.record(plan.record.last_seq), plan.record.raw),
                Put(head_key, encode_local_head(plan.head)),
            )
        for audience, records in plan.exports.items():
            keys = self._keyspace.export(audience)
            puts += tuple(Put(keys.record(record.last_seq), record.raw) for record in records)
            puts += (Put(keys.head, encode_head(records[-1].head)),)
        probe = () if plan.record is None else (self._keyspace.local.record(plan.record.last_seq),)
        guards = plan.guards
        result = await self._kv.commit(
            Txn(
                compares=(ValueIs(head_key, encode_local_head(plan.base)), *guards),
                success=puts,
                failure=(*(Get(key) for key in probe), *reads_of(guards)),
                patience_s=patience_s,
            )
        )
        if result.succeeded:
            return True
        if in_doubt and plan.record is not None and _holds(result.results[0], plan.record):
            return True
        failed = failed_of(guards, result.results[len(probe) :])
        if failed:
            raise GuardsFailed(failed)
        return False

    def _settle(self, plan: _Plan) -> None:
        """Hand the record to the projector at once (the watch's copy is then a duplicate)."""
        own = self._projector.own
        if plan.record is not None:
            self._projector.fold(own, plan.record)
            self._projector.settle(plan.head)
            metrics.APPEND_RECORDS.inc()
            metrics.APPEND_EVENTS.inc(len(plan.record.events))
        for waiting, outcome in plan.answers:
            if not waiting.answer.done():
                waiting.answer.set_result(outcome)

    async def _catch_up(self) -> None:
        """Fold what another writer appended, up to the head as it is now.

        Raises TransientError if the etcd can't be read, FatalError if it holds another log than the
        one folded, or less of it (Decision 40).
        """
        try:
            head = self._projector.head(self._projector.own)
            folded_seq = head.seq if head else 0
            seen = await self._reader.identify(0)
            head = self._projector.head(self._projector.own)
            while head is not None and seen.head is not None and head.seq < seen.head.seq:
                window = await self._reader.window(head.seq, seen.head.seq)
                for fetched in window.records:
                    self._fold_raw(fetched.raw)
                moved = self._projector.head(self._projector.own)
                if moved == head:
                    raise TransientError("the own log has a hole")
                head = moved
        except OutcomeUnknownError as error:
            raise TransientError(str(error)) from error
        if self._reader.local_head is not None:
            self._projector.settle(self._reader.local_head)
        if (
            seen.head is None
            or head is None
            or head.log_id != seen.head.log_id
            or seen.head.seq < folded_seq
        ):
            raise FatalError("the own log was replaced while meshd was running: start it again")

    def _fold_raw(self, raw: bytes) -> None:
        self._projector.fold(self._projector.own, decode_record(raw, "own log"))


def _lay_out(
    base: LocalHead,
    now_ms: int,
    decisions: list[tuple[_Waiting, Decision]],
    new_log_id: Callable[[], LogId],
) -> _Plan:
    """What is to be written. An audience that is told something for the first time gets a log.

    Every record but an audience's last holds BATCH_BYTES or BATCH_EVENTS at least, so the limits of
    a submission's exports leave a dozen records beside one for each audience and its head: well
    below the 128 operations of a transaction.
    """
    events: list[Event] = []
    told: dict[str, list[Event]] = {}
    exports_bytes = 0
    for _, decision in decisions:
        events.extend(decision.events)
        for audience, exported in decision.exports.items():
            told.setdefault(audience, []).extend(exported)
        exports_bytes += decision.exports_bytes
    record = encode_record(base.local, now_ms, events) if events else None
    exports = {
        audience: chained(
            base.exports.get(audience) or Head.genesis(new_log_id()),
            now_ms,
            portions(told[audience], exports_bytes),
        )
        for audience in sorted(told)
    }
    heads = {audience: records[-1].head for audience, records in exports.items()}
    head = LocalHead(record.head if record else base.local, {**base.exports, **heads})
    answers = tuple((waiting, decision.outcome) for waiting, decision in decisions)
    return _Plan(base, record, exports, head, answers)


def _unfailed(taken: list[_Waiting], failed: frozenset[Compare]) -> list[_Waiting]:
    """Those whose guards hold; the others are answered."""
    for waiting in taken:
        if not failed.isdisjoint(waiting.guards):
            _fail(GuardError("what it depends on has changed; nothing was written"), waiting)
    return [waiting for waiting in taken if failed.isdisjoint(waiting.guards)]


def _holds(found: RangeResult | None, record: Record) -> bool:
    return found is not None and any(kv.value == record.raw for kv in found.kvs)


def _fail(error: MeshdError, *those: _Waiting) -> None:
    for waiting in those:
        if not waiting.answer.done():
            waiting.answer.set_exception(error)
