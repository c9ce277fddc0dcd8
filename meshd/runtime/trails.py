"""What happened to one thing, newest first, out of all logs that are held here.

For: a page of a thing's history, read backwards from the logs' ends. Not for: which events belong
to it (`core.trail`). Invariants: pages that begin at the `next` of the one before hold every event
of the thing once, newest first; a request reads a bounded piece of the logs, and says where to go
on; where a log was cut, the snapshot there tells what each thing was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from meshd.core.past import oldest
from meshd.core.trail import Step, Subject, Thing
from meshd.model.codec import decode_record
from meshd.model.errors import CorruptError, NotFoundError, Problem
from meshd.model.event import Event, Record
from meshd.model.ids import ClusterName, Position, Seq
from meshd.runtime.history import GoneError
from meshd.runtime.past import Past
from meshd.runtime.reading import FOLDS_PER_TURN, WINDOW_SEQS
from meshd.runtime.stored_log import StoredLog, snapshot_parts

SCAN_SEQS_MAX = 100_000
"""How many events one request looks through, in all logs together: below a second's reading."""
SCAN_BYTES_MAX = 64 * 1024 * 1024
"""The same in bytes of records, which may be large."""
_FOREVER_MS = 1 << 62


@dataclass(frozen=True, slots=True)
class Page:
    """Some steps, newest first. next: where the following page begins; None at the end. unknown:
    the clusters of whose logs nothing is held.
    """

    steps: tuple[Step, ...]
    next: Mapping[ClusterName, Position] | None
    unknown: tuple[ClusterName, ...]


@dataclass(slots=True)
class _Budget:
    seqs: int = SCAN_SEQS_MAX
    size_bytes: int = SCAN_BYTES_MAX

    @property
    def is_left(self) -> bool:
        return self.seqs > 0 and self.size_bytes > 0


@dataclass(slots=True)
class _Walk:
    """One log on the way back. upto: what is not read yet ends here. found: steps that were read,
    newest first; those before `given` are on the page. time_ms: nothing that is still to be found
    is later. is_whole: everything was read, the snapshot included.
    """

    past: Past
    cluster: ClusterName
    log: StoredLog
    subject: Subject
    upto: int
    found: list[Step] = field(default_factory=list)
    given: int = 0
    time_ms: int = _FOREVER_MS
    is_whole: bool = False

    @property
    def pending(self) -> Step | None:
        return self.found[self.given] if self.given < len(self.found) else None

    @property
    def is_over(self) -> bool:
        return self.is_whole and self.pending is None

    @property
    def position(self) -> Position:
        """Before which the next page goes on."""
        seq = self.pending.seq if self.pending else self.upto
        return Position(self.cluster, self.log.head.log_id, Seq(seq + 1))

    async def back(self, budget: _Budget) -> None:
        """Read one window more, or the snapshot where the log was cut."""
        cut_seq = self.log.first_seq - 1
        if self.upto <= cut_seq:
            await self._read_snapshot(Seq(cut_seq))
            self.is_whole = True
            return
        last, _ = await self.log.reader.holding(self.upto)
        after = max(cut_seq, last.last_seq - WINDOW_SEQS)
        records = await self._window(after, last.last_seq, budget)
        first = records[0]
        budget.seqs -= last.last_seq - first.first_seq + 1
        for record in reversed(records):
            self.found.extend(self._steps(record))
        self.upto, self.time_ms = first.first_seq - 1, first.time_ms

    async def _window(self, after: int, through: int, budget: _Budget) -> list[Record]:
        """The first record of a window, and those after it that may say something."""
        records: list[Record] = []
        while after < through:
            window = await self.log.reader.window(after, through)
            if not window.records:
                raise CorruptError(self.log.reader.place(after + 1), "is missing")
            for number, fetched in enumerate(window.records, 1):
                budget.size_bytes -= len(fetched.raw)
                after = fetched.key_seq
                if not records or self.subject.needle in fetched.raw:
                    place = self.log.reader.place(fetched.key_seq)
                    records.append(decode_record(fetched.raw, place))
                if number % FOLDS_PER_TURN == 0:
                    await asyncio.sleep(0)
        return records

    def _steps(self, record: Record) -> list[Step]:
        """The steps in a record, newest first; what is behind `upto` was on the page before."""
        steps = []
        for offset, event in enumerate(record.events):
            seq, thing = Seq(record.first_seq + offset), self.subject.thing_of(event)
            if thing is not None and seq <= self.upto:
                steps.append(self._step(seq, record.time_ms, thing, event))
        return steps[::-1]

    def _step(self, seq: Seq, time_ms: int, thing: Thing, event: Event) -> Step:
        return Step(self.cluster, self.log.head.log_id, seq, time_ms, thing, event)

    async def _read_snapshot(self, cut_seq: Seq) -> None:
        """Find what each thing was where the log was cut."""
        base = await self.past.base(self.log, cut_seq)
        if base is None:
            return
        steps: list[Step] = []
        async with aclosing(snapshot_parts(self.log.reader, base)) as parts:
            async for part in parts:
                for kept in part.kept:
                    thing = self.subject.thing_of(kept.event)
                    if thing is not None and kept.seq <= self.upto:
                        step = self._step(kept.seq, kept.time_ms, thing, kept.event)
                        steps.append(replace(step, snapshot_seq=cut_seq))
        self.found.extend(reversed(steps))

    def before(self, index: int) -> Step | None:
        """The step before one that was found, of the same thing."""
        thing = self.found[index].thing
        return next((step for step in self.found[index + 1 :] if step.thing == thing), None)

    async def given_steps(self, budget: _Budget) -> list[Step]:
        """The steps on the page, each with what it changed if the value before is found in time."""
        told = []
        for index in range(self.given):
            while (before := self.before(index)) is None and not self.is_whole and budget.is_left:
                await self.back(budget)
            is_known = before is not None or (self.is_whole and self._is_told_to_its_beginning)
            step = self.found[index]
            told.append(step.after(before) if is_known and step.snapshot_seq is None else step)
        return told

    @property
    def _is_told_to_its_beginning(self) -> bool:
        """Or to its snapshot; an older meshd may have cut it where no snapshot was kept."""
        return oldest(self.log.snapshot).seq == self.log.first_seq - 1


class Trails:
    """Tells what happened to things."""

    def __init__(self, past: Past) -> None:
        self._past = past

    async def read(
        self,
        subject: Subject,
        limit: int,
        *,
        cluster: ClusterName | None = None,
        before: Mapping[ClusterName, Position] | None = None,
    ) -> Page:
        """A page of a thing's history. cluster: only of its log. before: where to go on.

        Raises NotFoundError for a cluster that isn't known, GoneError for a `before` of a log that
        was replaced, OverloadedError, CorruptError, TransientError, DeniedError.
        """
        held = self._past.held()
        if cluster is not None and cluster not in held:
            raise NotFoundError(f"there is no cluster {cluster} here")
        asked = held if cluster is None else [cluster]
        names = [name for name in asked if before is None or name in before]
        return await self._past.look_back(lambda: self._read(subject, limit, names, before))

    async def _read(
        self,
        subject: Subject,
        limit: int,
        names: Sequence[ClusterName],
        before: Mapping[ClusterName, Position] | None,
    ) -> Page:
        walks, unknown = [], []
        for name in names:
            log = await self._past.open(name)
            if log is None or not log.head.seq:
                unknown.append(name)
            else:
                walks.append(_Walk(self._past, name, log, subject, _upto(log, name, before)))
        steps = await _collect(walks, limit)
        going_on = {walk.cluster: walk.position for walk in walks if not walk.is_over}
        return Page(tuple(steps), going_on or None, tuple(unknown))


def _upto(
    log: StoredLog, cluster: ClusterName, before: Mapping[ClusterName, Position] | None
) -> int:
    if before is None:
        return log.head.seq
    position = before[cluster]
    if position.log_id != log.head.log_id:
        what = f"log {position.log_id} of {cluster} was replaced by log {log.head.log_id}"
        raise GoneError((Problem("before", what, "begin again, without it"),))
    return min(log.head.seq, position.seq - 1)


async def _collect(walks: Sequence[_Walk], limit: int) -> list[Step]:
    """The newest steps of all logs, read back no further than is needed, nor than is allowed."""
    budget, count = _Budget(), 0
    while count < limit:
        newest = max((walk for walk in walks if walk.pending), key=_pending_ms, default=None)
        later = [
            walk
            for walk in walks
            if not walk.is_whole
            and walk.pending is None
            and (newest is None or walk.time_ms >= _pending_ms(newest))
        ]
        if later:
            if not budget.is_left:
                break
            await max(later, key=lambda walk: walk.time_ms).back(budget)
        elif newest is None:
            break
        else:
            newest.given += 1
            count += 1
    steps = [step for walk in walks for step in await walk.given_steps(budget)]
    return sorted(steps, key=lambda step: step.time_ms, reverse=True)


def _pending_ms(walk: _Walk) -> int:
    return walk.pending.time_ms if walk.pending else 0
