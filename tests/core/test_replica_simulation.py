"""A peer that does everything to its log that a peer can do, and a machine that follows it.

No event loop, no etcd, no clock: a list of changes, a number for the time, and a seed. What is
folded is held against what the peer ever wrote.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from random import Random

import pytest

from meshd.core.freshness import phase_of
from meshd.core.position import Verdict, classify
from meshd.core.replica import begin_state, step
from meshd.model.codec import PROTOCOL_MAX, PROTOCOL_MIN, Descriptor
from meshd.model.event import Record
from meshd.model.ids import Head, LogId
from meshd.model.peer import Phase
from meshd.model.replica import (
    Begin,
    BeginGeneration,
    CompleteGeneration,
    Effect,
    Fetched,
    Fold,
    FollowRules,
    Hold,
    Identified,
    Identify,
    Input,
    LinkFailed,
    Misread,
    Quiet,
    ReadWindow,
    Todo,
    Wait,
    Watch,
    Watched,
    WatchLost,
    WindowRead,
)
from tests.logs import OTHER_LOG_ID, WEST, Log, ticked

RULES = FollowRules(WEST, recycle_after_s=40)
DESCRIPTOR = Descriptor(WEST, 7, PROTOCOL_MIN, PROTOCOL_MAX, 0)
WINDOW_RECORDS = 4
POISON = "poison"
"""The actor of events that a record may hold and no fold takes."""


@dataclass(slots=True)
class Peer:
    """A peer's etcd: its log's records with their revisions, and every change in order."""

    chance: Random
    log: Log = field(default_factory=Log)
    stored: dict[int, Fetched] = field(default_factory=dict)
    changes: list[tuple[int, Watched]] = field(default_factory=list)
    revision: int = 1
    compacted: int = 0
    beat: int = 1
    generation: int = 0
    written: set[bytes] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.wipe()

    def wipe(self) -> None:
        """Start over with a log of another id; revisions begin anew, as etcd's do."""
        self.log = Log(Head.genesis(LogId(f"{self.chance.getrandbits(128):032x}")))
        self.stored, self.changes, self.compacted = {}, [], 0
        self.revision = self.chance.randint(1, 5)

    def restore(self, backup: tuple[Log, dict[int, Fetched], int]) -> None:
        """Go back to an earlier copy of the log, with the same id and revisions."""
        self.log, self.stored, self.revision = deepcopy(backup)
        self.changes, self.compacted = [], self.revision

    def backup(self) -> tuple[Log, dict[int, Fetched], int]:
        return deepcopy((self.log, self.stored, self.revision))

    def append(self, *, poisoned: bool = False) -> None:
        events = [ticked(self.chance.getrandbits(40)) for _ in range(self.chance.randint(1, 3))]
        if poisoned:
            events[-1] = type(events[-1])("service.set", "x", {}, POISON)
        record = self.log.append(*events, time_ms=self.chance.getrandbits(30))
        self.written.add(record.raw)
        self.revision += 1
        fetched = Fetched(record.last_seq, self.revision, record.raw)
        self.stored[record.last_seq] = fetched
        self.changes.append((self.revision, Watched((fetched,), self.log.head, None)))

    def live(self) -> None:
        """Write a heartbeat."""
        self.beat += 1
        self.revision += 1
        self.changes.append((self.revision, Watched((), None, self.beat)))

    def corrupt(self) -> None:
        """Overwrite a record with bytes that are none, or with one of another past."""
        if self.stored:
            seq = self.chance.choice(list(self.stored))
            alien = Log(Head(self.log.head.log_id, self.log.head.seq, self.log.head.hash)).append()
            raw = self.chance.choice((b"\xc1", alien.raw))
            self.revision += 1
            self.stored[seq] = Fetched(seq, self.revision, raw)
            self.changes.append((self.revision, Watched((self.stored[seq],), None, None)))

    @property
    def is_sound(self) -> bool:
        """Whether a reader from the start would find nothing wrong."""
        return [item.raw for item in self.stored.values()] == [
            record.raw for record in self.log.records
        ] and not any(
            event.actor == POISON for record in self.log.records for event in record.events
        )


def _is_poisoned(record: Record) -> bool:
    return any(event.actor == POISON for event in record.events)


@dataclass(slots=True)
class Folded:
    """What is folded: one generation served, perhaps one beside it."""

    served: list[Record] | None = None
    staged: list[Record] | None = None
    log_id: LogId = OTHER_LOG_ID

    def take(self, effect: Effect) -> bool:
        """Do an effect; false for a record that can't be folded."""
        match effect:
            case BeginGeneration(log_id):
                self.staged, self.log_id = [], log_id
            case Fold(record):
                target = self.served if self.staged is None else self.staged
                assert target is not None
                at = target[-1].head if target else Head.genesis(self.log_id)
                assert classify(at, record) is Verdict.NEXT
                if _is_poisoned(record):
                    return False
                target.append(record)
            case CompleteGeneration():
                assert self.staged is not None
                self.served, self.staged = self.staged, None
        return True

    @property
    def current(self) -> list[Record]:
        return (self.served if self.staged is None else self.staged) or []


class Simulation:
    """The machine, its driver as `runtime.follower` is one, and the peer."""

    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)
        self.peer = Peer(self.chance)
        self.fold = Folded()
        self.state = begin_state(0.0, None, 0)
        self.now_s = 0.0
        self.linked = True
        self.faulty = True
        self.ever_unsound = False
        self._watch_from: int | None = None
        self._backups = [self.peer.backup()]
        self._event: Input = Begin()

    @property
    def phase(self) -> Phase:
        return phase_of(self.state, RULES, self.now_s)[0]

    def turn(self) -> None:
        """Do as `Follower._turn` does: step, effects, then what is to do next."""
        state, effects, todo = step(self.state, RULES, self._event, self.now_s)
        at, revision = self.state.at, self.state.at_revision
        for effect in effects:
            if not self.fold.take(effect):
                assert at is not None
                self._event = Misread("poison", at, revision)
                return
            if isinstance(effect, Fold):
                at, revision = effect.record.head, effect.revision
        self.state = state
        self.check()
        self._event = self._do(todo)

    def check(self) -> None:
        """Hold everything against what the peer wrote."""
        folded = self.fold.current
        head = folded[-1].head if folded else Head.genesis(self.fold.log_id)
        if self.state.at is not None:
            assert self.state.at == head
        assert all(record.raw in self.peer.written for record in folded)
        assert (self.fold.staged is not None) == self.state.staging
        if self.phase is Phase.QUARANTINED:
            assert self.ever_unsound
        if self.phase is Phase.READY:
            assert self.fold.served is not None
            assert self.fold.staged is None

    def _do(self, todo: Todo) -> Input:
        self.now_s += 0.05
        if not isinstance(todo, Watch):
            self._watch_from = None
        match todo:
            case Hold():
                raise AssertionError("nobody paused it")
            case Wait(attempt, slow):
                self.now_s += 30 if slow else min(5.0, 0.2 * 2**attempt)
                return Begin()
            case _ if not self.linked or self._strikes(0.03):
                return LinkFailed("cut")
            case Identify(cursor_seq):
                return Identified(
                    DESCRIPTOR,
                    self.peer.log.head,
                    self.peer.beat,
                    self.peer.revision,
                    self.peer.stored.get(cursor_seq),
                )
            case ReadWindow(after_seq, through_seq):
                found = sorted(
                    (seq, item)
                    for seq, item in self.peer.stored.items()
                    if after_seq < seq <= through_seq
                )
                some = tuple(item for _, item in found[:WINDOW_RECORDS])
                return WindowRead(some, complete=len(found) <= WINDOW_RECORDS)
            case Watch(from_revision):
                return self._watched(from_revision)

    def _watched(self, from_revision: int) -> Input:
        if self._watch_from is None:
            self._watch_from = from_revision
        if self._watch_from <= self.peer.compacted:
            return WatchLost("compacted")
        waiting = [change for change in self.peer.changes if change[0] >= self._watch_from]
        if not waiting:
            self.now_s += RULES.silent_after_s
            return Quiet()
        if self._strikes(0.05):
            # Lost by the watch, as old etcds do after a compaction.
            waiting = waiting[1:] or waiting
        size = self.chance.randint(1, len(waiting))
        taken = waiting[:size]
        self._watch_from = taken[-1][0] + 1
        if self._strikes(0.1):
            # Told twice: some that came before come again.
            taken = [change for change in self.peer.changes if change[0] < self._watch_from][-4:]
        return _joined(response for _, response in taken)

    def _strikes(self, probability: float) -> bool:
        return self.faulty and self.chance.random() < probability

    def disturb(self) -> None:
        """Let something happen at the peer or on the way to it."""
        for probability, fault in (
            (0.3, self.peer.append),
            (0.3, self.peer.live),
            (0.01, self.peer.wipe),
            (0.02, lambda: self._backups.append(self.peer.backup())),
            (0.01, lambda: self.peer.restore(self.chance.choice(self._backups))),
            (0.01, self.peer.corrupt),
            (0.005, lambda: self.peer.append(poisoned=True)),
            (0.03, lambda: setattr(self.peer, "compacted", self.peer.revision)),
            (0.03, lambda: setattr(self, "linked", not self.linked)),
        ):
            if self.chance.random() < probability:
                fault()
        self.ever_unsound = self.ever_unsound or not self.peer.is_sound


def _joined(responses: Iterator[Watched]) -> Watched:
    records: tuple[Fetched, ...] = ()
    head, beat = None, None
    for response in responses:
        records += response.records
        head = response.head or head
        beat = beat if response.beat is None else response.beat
    return Watched(records, head, beat)


STEPS_TO_HEAL_MAX = 60


@pytest.mark.parametrize("seed", range(100))
def test_whatever_happens_to_a_peer_it_is_read_once_and_found_again(seed: int) -> None:
    it = Simulation(seed)
    for _ in range(300):
        it.disturb()
        it.turn()

    # Healed: the link is up, nothing is lost any more, and what is broken is made anew.
    it.linked, it.faulty = True, False
    if not it.peer.is_sound:
        it.peer.wipe()
    it.peer.append()
    for _ in range(STEPS_TO_HEAL_MAX):
        it.peer.live()
        it.turn()
        if it.phase is Phase.READY and it.state.at == it.peer.log.head:
            break
    assert it.phase is Phase.READY
    assert it.state.at == it.peer.log.head
    assert it.fold.served == it.peer.log.records


def test_the_faults_bite() -> None:
    """Many of these runs must fork, be quarantined and meet duplicates, or they prove little."""
    phases: set[Phase] = set()
    forks = duplicates = 0
    for seed in range(20):
        it = Simulation(seed)
        for _ in range(300):
            it.disturb()
            it.turn()
            phases.add(it.phase)
        forks += it.state.traffic.forks
        duplicates += it.state.traffic.records_duplicate
    assert phases >= {
        Phase.CONNECTING,
        Phase.SYNCING,
        Phase.READY,
        Phase.STALE,
        Phase.LOST,
        Phase.FORKED,
        Phase.QUARANTINED,
    }
    assert forks > 20
    assert duplicates > 20
