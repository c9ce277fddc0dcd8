"""Follows one log: does what `core.replica` decides, and tells it what came of it.

For: reading, waiting and folding, one thing after the other. Not for: any decision. Invariant: the
machine sees every outcome in order, and nothing is folded that it did not give out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Protocol, assert_never

from meshd.core.backoff import delay_s
from meshd.core.budget import Budget, Rates
from meshd.core.replica import begin_state, fast_forward, step
from meshd.core.said import followed_otherwise
from meshd.model.codec import Heartbeat, LocalHead
from meshd.model.errors import (
    CompactedError,
    CorruptError,
    MeshdError,
    OutcomeUnknownError,
    TransientError,
)
from meshd.model.event import Record
from meshd.model.ids import Head, LogId
from meshd.model.listed import Skip
from meshd.model.replica import (
    BadRecord,
    Begin,
    BeginGeneration,
    CompleteGeneration,
    Control,
    Effect,
    FinishSnapshot,
    Fold,
    FollowRules,
    Hold,
    Identified,
    Identify,
    Input,
    LinkFailed,
    LoadPart,
    Misread,
    PartRead,
    PassOver,
    Quiet,
    ReadPart,
    ReadWindow,
    ReplicaState,
    Todo,
    Unreadable,
    Wait,
    Watch,
    Watched,
    WatchLost,
    WindowRead,
)
from meshd.model.snapshot import Manifest
from meshd.runtime.ports import Chance, Clock
from meshd.runtime.reading import FOLDS_PER_TURN, LogReader

SLOW_STEP_S = 1.0
"""The longest wait at a time of a peer that is slowed, so that its heartbeat is still heard."""


def _size_bytes(event: Input) -> int:
    match event:
        case WindowRead(records) | Watched(records):
            return sum(len(fetched.raw) for fetched in records)
        case PartRead(raw):
            return len(raw or b"")
        case _:
            return 0


def _bad_record(effect: Effect) -> BadRecord | None:
    if not isinstance(effect, Fold):
        return None
    record = effect.record
    return BadRecord(record.log_id, record.first_seq, record.hash)


class Sink(Protocol):
    """Where a followed log goes."""

    def begin_generation(self, log_id: LogId, *, is_fork: bool) -> None:
        """Records from here on build a new state. is_fork: of another history."""
        ...

    def fold(self, record: Record, revision: int) -> None:
        """Take the next record; raises CorruptError if it can't be folded."""
        ...

    def pass_over(self, record: Record, revision: int) -> None:
        """Go on behind the next record, without folding it."""
        ...

    def load_part(self, manifest: Manifest, number: int, raw: bytes) -> None:
        """Take the next part of a snapshot; raises CorruptError if it can't be folded."""
        ...

    def finish_snapshot(self, manifest: Manifest) -> None:
        """All its parts are taken: the new state stands where the snapshot does."""
        ...

    def complete_generation(self) -> None:
        """Serve the new state."""
        ...

    def foreign_ids(self) -> frozenset[int]:
        """The ids that this log's cluster can't have, since others have them."""
        ...

    def skip(self) -> Skip | None:
        """What a person said to pass over of this log."""
        ...

    def folded_head(self) -> Head | None:
        """How far the log was folded, if records also come by another way than this follower."""
        ...

    def settle(self, local_head: LocalHead | None) -> None:
        """Everything that was read so far has been folded."""
        ...

    def report(self, state: ReplicaState) -> None:
        """The machine has moved."""
        ...


@dataclass(frozen=True, slots=True)
class Pace:
    """Waits between tries, in seconds: growing from first to cap; slow for what people mend.
    budget: how fast the log may be read; None for as fast as it comes.
    """

    first_s: float = 0.1
    cap_s: float = 5.0
    slow_s: float = 30.0
    budget: Budget | None = None


class Follower:
    """One followed log. state: what the machine knows. slowed_s: for how long reading was held back
    because the log comes faster than its budget.
    """

    def __init__(
        self,
        reader: LogReader,
        sink: Sink,
        rules: FollowRules,
        pace: Pace,
        clock: Clock,
        chance: Chance,
    ) -> None:
        self._reader = reader
        self._sink = sink
        self._pace = pace
        self._clock = clock
        self._chance = chance
        self._watch = AsyncExitStack()
        self._responses: AsyncIterator[Watched] | None = None
        self._asking: asyncio.Timeout | None = None
        self._control: Control | None = None
        self._is_ending = False
        self._rates = Rates(pace.budget) if pace.budget else None
        self.slowed_s = 0.0
        self.rules = rules
        self.state = begin_state(clock.monotonic_s(), None, 0)

    def resume_at(self, at: Head, revision: int) -> None:
        """Begin at a durable cursor; to be called before `run`."""
        self.state = begin_state(self._clock.monotonic_s(), at, revision)

    def go_on_from(self, other: Follower, *, anew: bool) -> None:
        """Begin where another follower of the same log stopped, or read it anew; to be called
        before `run`.
        """
        self.state = followed_otherwise(other.state, anew=anew)
        self._control = other._control
        self.slowed_s = other.slowed_s

    @property
    def heartbeat(self) -> Heartbeat | None:
        """The log's heartbeat as last seen; None if it has none, or none was seen yet."""
        return self._reader.heartbeat

    def control(self, what: Control) -> None:
        """Pause, resume or resync, in place of whatever is waited for now."""
        self._control = what
        # One that is ending already hears of what was said last as well.
        if self._asking is not None and not self._asking.expired():
            self._asking.reschedule(asyncio.get_running_loop().time())

    def end(self) -> None:
        """Have `run` come to its end: between two turns, where the state says what was done."""
        self._is_ending = True
        if self._asking is not None and not self._asking.expired():
            self._asking.reschedule(asyncio.get_running_loop().time())

    async def run(self) -> None:
        """Follow until `end`; else ends only by cancellation, and then the state may be behind what
        was folded.
        """
        event: Input = Begin()
        try:
            while True:
                event = await self._turn(event)
                # What came meanwhile is let go, since the state hasn't moved by it; but a record
                # that can't be folded says how far the effects came, and must be heard.
                if isinstance(event, Misread):
                    continue
                if self._is_ending:
                    return
                if self._control is not None:
                    event, self._control = self._control, None
        finally:
            await self._close_watch()

    async def _turn(self, event: Input) -> Input:
        """Take one input. The state moves after its effects: before, nobody may take it as done."""
        before = self.state
        # Only a watch runs beside the writer. What was asked for before its last record was handed
        # over must be judged from where it was asked, or it would look like another history.
        folded = self._sink.folded_head() if isinstance(event, Watched) else None
        if folded is not None:
            before = fast_forward(before, folded)
        if self._sink.skip() != self.rules.skip:
            self.rules = replace(self.rules, skip=self._sink.skip())
        rules = self.rules
        if isinstance(event, Identified):
            rules = replace(rules, foreign_ids=rules.foreign_ids | self._sink.foreign_ids())
        state, effects, todo = step(before, rules, event, self._clock.monotonic_s())
        misread = await self._perform(effects, before)
        await self._keep_budget(event, effects)
        if misread is not None:
            return misread
        self.state = state
        self._sink.settle(self._reader.local_head)
        self._sink.report(self.state)
        if isinstance(todo, Identify):
            todo = self._identify_folded()
        return await self._do(todo)

    def _identify_folded(self) -> Identify:
        """Ask for what was folded by now, whoever handed it over: it was committed before."""
        folded = self._sink.folded_head()
        if folded is not None:
            self.state = fast_forward(self.state, folded)
        return Identify(self.state.at.seq if self.state.at else 0)

    async def _keep_budget(self, event: Input, effects: Sequence[Effect]) -> None:
        """Wait if the log comes too fast; what isn't read meanwhile waits at the peer."""
        if self._rates is None:
            return
        folds = (effect for effect in effects if isinstance(effect, Fold | PassOver))
        events = sum(len(effect.record.events) for effect in folds)
        now_s = self._clock.monotonic_s()
        wait_s = min(SLOW_STEP_S, self._rates.take(events, _size_bytes(event), now_s))
        if wait_s:
            self.slowed_s += wait_s
            await self._clock.sleep(wait_s)

    async def _perform(self, effects: Sequence[Effect], before: ReplicaState) -> Misread | None:
        """Do the effects in order; what can't be folded stops them."""
        at, revision = before.at, before.at_revision
        for count, effect in enumerate(effects, 1):
            try:
                self._act(effect)
            except CorruptError as error:
                return Misread(str(error), at, revision, _bad_record(effect))
            if isinstance(effect, Fold | PassOver):
                at, revision = effect.record.head, effect.revision
            elif isinstance(effect, FinishSnapshot):
                at, revision = effect.manifest.head, 0
            if isinstance(effect, LoadPart) or count % FOLDS_PER_TURN == 0:
                await asyncio.sleep(0)
        return None

    def _act(self, effect: Effect) -> None:
        sink = self._sink
        match effect:
            case BeginGeneration(log_id, is_fork):
                sink.begin_generation(log_id, is_fork=is_fork)
            case LoadPart(manifest, number, raw):
                sink.load_part(manifest, number, raw)
            case FinishSnapshot(manifest):
                sink.finish_snapshot(manifest)
            case CompleteGeneration():
                sink.complete_generation()
            case Fold(record, revision):
                sink.fold(record, revision)
            case PassOver(record, revision):
                sink.pass_over(record, revision)
            case _:
                assert_never(effect)

    async def _do(self, todo: Todo) -> Input:
        if not isinstance(todo, Watch):
            await self._close_watch()
        if self._control is not None or self._is_ending:
            return Begin()
        try:
            async with asyncio.timeout(self._patience_s(todo)) as self._asking:
                return await self._ask(todo)
        except TimeoutError:
            # Somebody said what to do instead, and `run` takes that; or the watch is silent.
            return Begin() if self._control is not None else Quiet()
        except (TransientError, OutcomeUnknownError) as error:
            return LinkFailed(str(error))
        except CompactedError as error:
            return WatchLost(str(error))
        except CorruptError as error:
            return Unreadable(str(error))
        except MeshdError as error:
            # Denied; or an answer that is too large for us, or a refusal that makes no sense. Only
            # this peer may suffer from it, and asking again at once would change nothing.
            return LinkFailed(str(error), denied=True)
        finally:
            self._asking = None

    async def _ask(self, todo: Todo) -> Input:
        match todo:
            case Identify(cursor_seq):
                return await self._reader.identify(cursor_seq)
            case ReadWindow(after_seq, through_seq):
                return await self._reader.window(after_seq, through_seq)
            case ReadPart(seq, number):
                return PartRead(await self._reader.part(seq, number))
            case Watch(from_revision):
                return await self._next_watched(from_revision)
            case Wait(attempt, slow):
                await self._clock.sleep(self._delay_s(attempt, slow=slow))
                return Begin()
            case Hold():
                await asyncio.Event().wait()
                return Begin()
            case _:
                assert_never(todo)

    def _delay_s(self, attempt: int, *, slow: bool) -> float:
        first_s, cap_s = (
            (self._pace.slow_s, self._pace.slow_s)
            if slow
            else (self._pace.first_s, self._pace.cap_s)
        )
        return delay_s(attempt, first_s, cap_s, self._chance.uniform(0, 1))

    def _patience_s(self, todo: Todo) -> float | None:
        """How long a watch may say nothing: silence beyond what is normal doubts the link."""
        if not isinstance(todo, Watch):
            return None
        return self.rules.silent_after_s if self.rules.has_heartbeat else self.rules.recycle_after_s

    async def _next_watched(self, from_revision: int) -> Input:
        """Take the next response of the watch."""
        if self._responses is None:
            self._responses = await self._watch.enter_async_context(
                self._reader.watch(from_revision)
            )
        return await anext(self._responses)

    async def _close_watch(self) -> None:
        self._responses = None
        await self._watch.aclose()
        self._watch = AsyncExitStack()
