"""One reader following one peer's log: the real machine, and a driver as `runtime.follower` is one.

For: asking a peer's etcd what the machine wants to know, with what can go wrong on the way, and
holding every step against what the peer really is. Not for: what befalls peers and readers
(`core_ring`). Invariant: the machine sees every outcome in order, and responses of one watch never
overtake each other.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from random import Random

from meshd.core import replica
from meshd.core.backoff import delay_s
from meshd.core.freshness import phase_of, unfresh_s
from meshd.core.liveness import Sight, StalenessRules
from meshd.model.errors import CorruptError
from meshd.model.ids import ClusterName, Head
from meshd.model.peer import Phase
from meshd.model.replica import (
    Begin,
    BeginGeneration,
    CompleteGeneration,
    Control,
    Effect,
    Fetched,
    FinishSnapshot,
    Fold,
    FollowRules,
    Hold,
    Identified,
    Identify,
    Input,
    LinkFailed,
    Misread,
    PartRead,
    Quiet,
    ReadPart,
    ReadWindow,
    ReplicaState,
    Resync,
    Todo,
    Unreadable,
    Wait,
    Watch,
    Watched,
    WatchLost,
    WindowRead,
)
from meshd.model.snapshot import Manifest
from meshd.model.staleness import StalenessPolicy
from tests.sim.peer_log import Change, PeerLog
from tests.sim.reader import Reader
from tests.sim.sayings import DESCRIPTORS, IDS, OWN, is_same
from tests.sim.tally import Tally

FAULTS = ("flaky", "lost", "deaf", "repeated", "old events", "garbled")
"""What can go wrong at a read. flaky: no answer. lost, deaf: some changes, or all records, don't
come, as after a compaction of old etcds. repeated, old events: they come again. garbled: what
should identify the log can't be decoded.
"""
RULES = {
    name: FollowRules(name, foreign_ids=frozenset({IDS[OWN]}), recycle_after_s=40) for name in IDS
}
STALENESS = StalenessRules(StalenessPolicy.DEMOTE, stale_after_s=15, withdraw_after_s=300)
WINDOW_RECORDS = 4
ASKED_IN_A_ROW_MAX = 10
"""So many answers in a row that bring nothing, without any wait, are a loop that spins."""


@dataclass(slots=True)
class Upsets:
    """What happened to a link since its machine began, as far as it excuses what follows.

    again: changes came again. missed: changes didn't come. elsewhere: how often another etcd was
    behind the address. unsound: that other log couldn't be read. garbled: what identifies the log
    could not be decoded. claimed: before this peer was known another one had claimed its id.
    """

    again: bool = False
    missed: bool = False
    elsewhere: int = 0
    unsound: bool = False
    garbled: bool = False
    claimed: bool = False


class Link:
    """One reader and one peer. peer: whose log this must be. behind: whose etcd the address leads
    to now. due_s: until when what is to do next goes on by itself.
    """

    def __init__(
        self, reader: Reader, peer: PeerLog, chance: Random, odds: dict[str, float]
    ) -> None:
        self.reader, self.peer, self.behind = reader, peer, peer
        self.tally: Tally = reader.tally
        self.rules = RULES[peer.name]
        self.control: Control | None = None
        self.is_cut = False
        self.trace = 0
        self._chance, self._odds = chance, odds
        self.begin(0.0)

    def begin(self, now_s: float) -> None:
        """Begin at what is durable, or with nothing."""
        copy = self.reader.durable.get(self.peer.name)
        at, revision = copy.cursor if copy else (None, 0)
        self.state = replica.begin_state(now_s, at, revision)
        self.todo: Todo = Wait(0)
        self.due_s = now_s
        self.upsets = Upsets(elsewhere=int(self.behind is not self.peer))
        self._answer: Input | None = Begin()
        self._beat_heard: tuple[int, float] | None = None
        self._watching: tuple[PeerLog, int, int] | None = None
        self._watched_since_s: float | None = None
        self._asked = 0
        self._missing: Manifest | None = None
        self._is_unknown, self._is_asked_anew = copy is None, False
        self._promised_seq = 0
        self.control = None

    def phase(self, now_s: float) -> Phase:
        """What would be told of the peer now."""
        return phase_of(self.state, self.rules, now_s)[0]

    @property
    def is_held(self) -> bool:
        """Whether only a person can let it go on."""
        return isinstance(self.todo, Hold)

    # One turn.

    def poll(self, now_s: float) -> Input | None:
        """What came of what was to do; None if that is still going on."""
        answer = self._answer
        if self.control is not None and not isinstance(answer, Misread):
            answer, self.control = self.control, None
            if isinstance(answer, Resync):
                self._is_asked_anew, self._missing = True, None
        elif answer is None:
            answer = self._ask(now_s)
        self._answer = None
        return answer

    def take(self, event: Input, now_s: float) -> None:
        """Do as `Follower._turn` does: step, effects, then what is to do next."""
        before, rules, name = self.state, self.rules, self.peer.name
        if isinstance(event, Identified):
            self._promised_seq = event.head.seq if event.head else 0
            rules = _rules(name, self.reader.foreign_ids(name))
        state, effects, todo = replica.step(before, rules, event, now_s)
        at, revision = before.at, before.at_revision
        for effect in effects:
            self._check_effect(before, effect, event)
            try:
                self.reader.take(name, effect)
            except CorruptError as error:
                self._note_claim()
                self._answer = Misread(str(error), at, revision)
                return
            if isinstance(effect, Fold):
                at, revision = effect.record.head, effect.revision
            elif isinstance(effect, FinishSnapshot):
                at, revision = effect.manifest.head, 0
        self.state, self.todo = state, todo
        self._check(before, event, now_s)
        self._check_pace(before, event, effects)
        self._note(event, now_s)
        self._begin_asking(now_s)

    def _begin_asking(self, now_s: float) -> None:
        match self.todo:
            case Watch():
                if self._watched_since_s is None:
                    self._watched_since_s = now_s
                self.due_s = now_s + self.rules.silent_after_s
                return
            case Wait(attempt, slow):
                first_s, cap_s = (30.0, 30.0) if slow else (0.1, 5.0)
                self.due_s = now_s + delay_s(attempt, first_s, cap_s, self._chance.random())
            case _:
                self.due_s = now_s
        self._watching = self._watched_since_s = None

    def _note(self, event: Input, now_s: float) -> None:
        at = self.state.at
        seq = at.seq if at else -1
        mark = f"{self.peer.name}{type(event).__name__}{type(self.todo).__name__}{seq}{now_s:.2f}"
        self.trace = zlib.crc32(mark.encode(), self.trace)

    # Asking.

    def _ask(self, now_s: float) -> Input | None:
        self.upsets.unsound |= self.behind.ever_unsound
        match self.todo:
            case Hold():
                return None
            case Wait():
                return Begin() if now_s >= self.due_s else None
            case Watch(from_revision):
                return self._watched(from_revision, now_s)
            case _:
                return self._read(self.todo)

    def _read(self, todo: Todo) -> Input:
        peer = self.behind
        if self.is_cut or not peer.has_quorum or self._strikes("flaky"):
            self.tally.saw("link failure seen")
            return LinkFailed("cut", denied=self._chance.random() < 0.1)
        match todo:
            case Identify(cursor_seq):
                if self._strikes("garbled"):
                    self.upsets.garbled = True
                    return Unreadable("its heartbeat is not JSON")
                return self._identified(peer, cursor_seq)
            case ReadWindow(after_seq, through_seq):
                return _window(peer, after_seq, through_seq)
            case ReadPart(seq, number):
                parts = peer.now.parts.get(seq, ())
                return PartRead(parts[number] if number < len(parts) else None)
            case _:
                raise AssertionError(f"the simulator does not know {todo}")

    def _identified(self, peer: PeerLog, cursor_seq: int) -> Identified:
        now = peer.now
        if peer is self.peer:
            self._hear(peer.beat)
        return Identified(
            peer.descriptor,
            now.head,
            peer.beat,
            now.revision,
            now.stored.get(cursor_seq),
            now.manifest,
        )

    def _watched(self, from_revision: int, now_s: float) -> Input | None:
        peer = self.behind
        if self._watching is None:
            if from_revision > peer.now.revision + 1 and self._strikes("old events"):
                from_revision, self.upsets.again = 1, True
            self._watching = peer, peer.restarts, from_revision
        watched, restarts, from_revision = self._watching
        if watched is not peer or restarts != peer.restarts:
            return LinkFailed("its etcd was started again")
        if self.is_cut or not peer.has_quorum:
            return self._silent(now_s)
        if from_revision <= peer.compacted:
            return WatchLost("compacted")
        waiting = peer.changes_from(from_revision)
        if not waiting:
            return self._silent(now_s)
        taken = waiting[: 1 + int(self._chance.random() * len(waiting))]
        self._watching = peer, restarts, taken[-1][0] + 1
        return self._response(self._tampered_with(taken), now_s)

    def _silent(self, now_s: float) -> Input | None:
        return Quiet() if now_s >= self.due_s else None

    def _tampered_with(self, taken: Sequence[Change]) -> Sequence[Change]:
        if self._strikes("lost"):
            self.upsets.missed = True
            taken = taken[1:]
        if self._strikes("deaf"):
            self.upsets.missed = True
            taken = [change for change in taken if not change[1].records]
        if self._strikes("repeated") and taken:
            # Some that came before come again, before what is new.
            self.upsets.again = True
            first = taken[0][0]
            again = [change for change in self.behind.changes if change[0] < first][-3:]
            taken = [*again, *taken]
        return taken

    def _response(self, taken: Sequence[Change], now_s: float) -> Input | None:
        if not taken:
            return self._silent(now_s)
        records: tuple[Fetched, ...] = ()
        head, beat = None, None
        for _, response in taken:
            records += response.records
            head = response.head or head
            beat = beat if response.beat is None else response.beat
        if beat is not None:
            self._hear(beat)
        return Watched(records, head, beat)

    def _hear(self, beat: int) -> None:
        if self._beat_heard is None or beat != self._beat_heard[0]:
            self._beat_heard = (beat, -1.0)

    def _strikes(self, fault: str) -> bool:
        odds = self._odds.get(fault)
        return odds is not None and self._chance.random() < odds

    # Checks.

    def check_whole(self) -> None:
        """The peer's log was taken byte for byte, and comes to what it must come to."""
        hold, now, name = self.tally.hold, self.peer.now, self.peer.name
        served = self.reader.served[name]
        behind = [record.raw for record, _ in served.records]
        there = [record.raw for record in now.records]
        # What was cut meanwhile is still here; what a snapshot stood for never was.
        both = min(len(behind), len(there))
        is_copy = behind[len(behind) - both :] == there[len(there) - both :]
        hold("I6", is_copy, "not the peer's log, byte for byte")
        hold("I6", is_same(served.state, now.truth), "not what the peer's log comes to")

    def _check_effect(self, before: ReplicaState, effect: Effect, event: Input) -> None:
        """A generation needs a cause, and is a fork only if there is another history. It is served
        when it holds all that the log's head promised.
        """
        if isinstance(effect, CompleteGeneration):
            generation = self.reader.staged.get(self.peer.name)
            is_whole = generation is not None and generation.head.seq >= self._promised_seq
            self.tally.hold("I15", is_whole, "served before it was whole")
        if not isinstance(effect, BeginGeneration):
            return
        hold, peer = self.tally.hold, self.peer
        is_wanted = before.at is None and (self._is_unknown or self._is_asked_anew)
        is_upset = peer.is_tampered or self.upsets.elsewhere > 0
        is_cut_off = before.at is not None and before.at.seq < peer.trim_seq
        is_gone = before.loading is not None and before.loading != peer.now.manifest
        is_caused = is_wanted or is_cut_off or is_gone or is_upset
        hold("I5", is_caused, "read anew without a cause")
        hold("I7", is_upset or not effect.is_fork, "a log that was cut is taken for a fork")
        self.tally.saw("log cut past the cursor", is_cut_off and not is_upset)
        self.tally.saw("snapshot replaced while loading", is_gone and not is_upset)
        self.tally.saw("fork seen", effect.is_fork)
        self.tally.saw("resync seen", self._is_asked_anew and before.at is None)
        self._is_unknown = self._is_asked_anew = False
        if effect.is_fork:
            self._missing = None

    def _check(self, before: ReplicaState, event: Input, now_s: float) -> None:
        """Hold the machine against what the peer is and what was told."""
        hold, state, name = self.tally.hold, self.state, self.peer.name
        generation = self.reader.folding(name)
        at: Head | None = generation.head if generation else None
        hold("I5", state.at is None or state.at == at, "the cursor isn't where the fold stands")
        hold("I7", (name in self.reader.staged) == state.staging or state.at is None, "generations")
        again = state.traffic.records_duplicate - before.traffic.records_duplicate
        is_upset = self.peer.is_tampered or self.upsets.elsewhere > 0
        hold("I5", not again or is_upset or self.upsets.again, "a record was read again")
        if again:
            self.tally.saw("duplicate seen", again)
        if isinstance(event, Identified):
            self._note_claim()
            self._check_identity(event)
        if state.trouble is not None and state.trouble.phase is Phase.REFUSED:
            self.reader.refused.add(name)
        else:
            self.reader.refused.discard(name)
        self._check_phase(now_s)
        if isinstance(event, Watched) and not isinstance(self.todo, Watch):
            is_old = (
                isinstance(self.todo, Identify)
                and now_s - (self._watched_since_s or 0.0) >= self.rules.recycle_after_s
            )
            is_known = is_old or is_upset or self.upsets.again or self.upsets.missed
            hold("I5", is_known, "looked again without a cause")
        elif isinstance(event, Watched):
            is_young = now_s - (self._watched_since_s or 0.0) < self.rules.recycle_after_s
            hold("I14", is_young, "a watch isn't recycled")
        if isinstance(event, Watched):
            self.tally.saw("gap seen", self.upsets.missed and "is missing" in state.link_reason)
        if isinstance(event, WatchLost):
            self.tally.saw("compaction seen")
        self.reader.see(name, Sight(STALENESS, unfresh_s(state, self.rules, now_s)))

    def _note_claim(self) -> None:
        """Note whether another peer claims the id of this one, which isn't known yet: the claim may
        be gone by the time that it is said.
        """
        name = self.peer.name
        if name not in self.reader.served:
            self.upsets.claimed |= IDS[name] in self.reader.foreign_ids(name)

    def _check_identity(self, seen: Identified) -> None:
        """Nothing is read of a stranger, nor of one who has another's id."""
        name, found = self.peer.name, seen.descriptor
        own = DESCRIPTORS[name]
        if found is None or found is own:
            return
        is_taken = found.id in self.reader.foreign_ids(name)
        is_stranger = found.name != own.name or found.protocol_min > own.protocol_max
        trouble = self.state.trouble
        is_refused = trouble is not None and trouble.phase is Phase.REFUSED
        self.tally.hold("I8", is_refused or not (is_taken or is_stranger), "a stranger is let in")
        self.tally.saw("collision seen", is_taken)

    def _check_phase(self, now_s: float) -> None:
        hold, peer, upsets = self.tally.hold, self.peer, self.upsets
        phase = self.phase(now_s)
        if self._beat_heard is not None and self._beat_heard[1] < 0:
            self._beat_heard = self._beat_heard[0], now_s
        if phase is Phase.READY:
            name = peer.name
            is_served = name in self.reader.served and name not in self.reader.staged
            hold("I15", is_served, "ready without a table")
            heard_s = self._beat_heard[1] if self._beat_heard else 0.0
            hold("I15", now_s - heard_s < self.rules.silent_after_s, "ready without a heartbeat")
        elif phase is Phase.QUARANTINED:
            # A log replaced between two identifications and their reads looks like a hole twice.
            is_excused = peer.replaced + upsets.elsewhere > 1 or upsets.garbled or upsets.claimed
            # Of another etcd behind its address it may have read what is none of its own.
            is_unsound = peer.ever_unsound or self.upsets.unsound
            hold("I10", is_unsound or is_excused, "quarantined though the log was sound")
            self.tally.saw("quarantine seen")
        elif phase is Phase.REFUSED:
            is_excused = peer.ever_strange or upsets.elsewhere > 0 or upsets.claimed
            hold("I10", is_excused, "refused though nobody else was there")
            self.tally.saw("refusal seen")
        elif phase is Phase.PAUSED:
            hold("I15", self.is_held, "paused, and read all the same")
            self.tally.saw("paused seen")

    def _check_pace(self, before: ReplicaState, event: Input, effects: Sequence[Effect]) -> None:
        """Nothing is asked again and again without a wait, and nothing that was read."""
        hold, todo, state = self.tally.hold, self.todo, self.state
        if isinstance(todo, ReadWindow):
            is_behind = state.at is not None and todo.after_seq == state.at.seq
            hold("I5", is_behind, "records are asked for that were read")
        is_idle = isinstance(todo, Identify | ReadWindow | ReadPart) and not (
            effects and not isinstance(effects[0], BeginGeneration)
        )
        self._asked = self._asked + 1 if is_idle else 0
        hold("I14", self._asked <= ASKED_IN_A_ROW_MAX, "asks again and again without a wait")
        if isinstance(event, PartRead):
            missing = before.loading if event.raw is None else None
            is_known = missing is not None and missing == self._missing
            is_slow = isinstance(todo, Wait) and todo.slow
            hold("I14", is_slow or not is_known, "a part that isn't there is asked for for ever")
            self._missing = missing if missing == self.peer.now.manifest else None


@cache
def _rules(name: ClusterName, foreign_ids: frozenset[int]) -> FollowRules:
    rules = RULES[name]
    return replace(rules, foreign_ids=rules.foreign_ids | foreign_ids)


def _window(peer: PeerLog, after_seq: int, through_seq: int) -> WindowRead:
    # The keys are written in ascending order, and stay in it.
    stored = peer.now.stored
    seqs = [seq for seq in stored if after_seq < seq <= through_seq]
    some = tuple(stored[seq] for seq in seqs[:WINDOW_RECORDS])
    return WindowRead(some, complete=len(seqs) <= WINDOW_RECORDS)
