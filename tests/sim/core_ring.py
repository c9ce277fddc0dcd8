"""Ring 1: the machine that follows a log, a driver as `runtime.follower` is one, and a peer.

For: many short schedules of everything that a peer and the way to it can do. Not for: the event
loop, etcd or the writer (`daemon_ring`). Invariants: no clock, no I/O; all chance comes from the
seed; after the faults heal the machine has a bounded number of steps to be right again.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from random import Random

from meshd.core import replica
from meshd.core.freshness import phase_of
from meshd.model.event import Record
from meshd.model.ids import ClusterName, Head, LogId
from meshd.model.peer import Phase
from meshd.model.replica import (
    Begin,
    BeginGeneration,
    CompleteGeneration,
    Effect,
    Fetched,
    FinishSnapshot,
    Fold,
    FollowRules,
    Identified,
    Identify,
    Input,
    LinkFailed,
    LoadPart,
    Misread,
    PassOver,
    Quiet,
    ReadWindow,
    Todo,
    Wait,
    Watch,
    Watched,
    WatchLost,
    WindowRead,
)
from tests.sim.peer_log import MINE, NAME, POISON, PeerLog
from tests.sim.tally import Tally

RULES = FollowRules(NAME, foreign_ids=frozenset({1}), recycle_after_s=40)
STRANGERS = (replace(MINE, name=ClusterName("north")), replace(MINE, id=1))
"""Another cluster's etcd behind the address; a cluster with our own id."""
NO_LOG = LogId("")
WINDOW_RECORDS = 4
TURNS_MIN, TURNS_MAX = 5, 35
TURNS_TO_HEAL_MAX = 60
FAULT_FREE_SHARE = 0.25
FAULTS_OF_THE_PEER = (
    "wipe", "recreate longer", "restore", "compact", "corrupt", "poison", "stranger", "frozen",
)  # fmt: skip
FAULTS_OF_THE_WAY = ("cut", "flaky", "lost", "repeated", "crash")
FAULTS = FAULTS_OF_THE_PEER + FAULTS_OF_THE_WAY


@dataclass(slots=True)
class Folded:
    """What is folded: one generation served, perhaps one beside it. durable: the replica."""

    tally: Tally
    served: list[tuple[Record, int]] | None = None
    staged: list[tuple[Record, int]] | None = None
    log_id: LogId = NO_LOG
    durable: list[tuple[Record, int]] = field(default_factory=list)

    def take(self, effect: Effect) -> bool:
        """Do an effect; false for a record that can't be folded."""
        match effect:
            case BeginGeneration(log_id):
                self.staged, self.log_id = [], log_id
            case Fold(record, revision):
                return self._fold(record, revision)
            case PassOver():
                self.tally.hold("I6", False, "passed over what nobody said to pass over")
            case CompleteGeneration():
                self.tally.hold("I6", self.staged is not None, "completed what never began")
                self.served, self.staged = self.staged, None
                # As `ReplicaStore` does: the old copy goes, the new one is written behind.
                self.durable = []
            case LoadPart() | FinishSnapshot():
                self.tally.hold("I6", False, "a snapshot came of a log that has none")
        return True

    def _fold(self, record: Record, revision: int) -> bool:
        target = self.served if self.staged is None else self.staged
        if target is None:
            self.tally.hold("I5", False, "folded before any generation began")
            return False
        at = target[-1][0].head if target else Head.genesis(self.log_id)
        hold = self.tally.hold
        hold("I7", record.log_id == at.log_id, "two histories in one generation")
        hold("I5", record.first_seq == at.seq + 1, f"seq {record.first_seq} after {at.seq}")
        hold("I3", record.prev_hash == at.hash, f"the chain breaks at {record.first_seq}")
        if record.events[-1].actor == POISON:
            return False
        target.append((record, revision))
        return True

    @property
    def head(self) -> Head:
        """Where the records end that are being added to."""
        current = self.served if self.staged is None else self.staged
        return current[-1][0].head if current else Head.genesis(self.log_id)

    def persist(self, chance: Random) -> None:
        """Write some of what is served behind it, as far as it goes."""
        if self.served:
            self.durable = self.served[: chance.randint(len(self.durable), len(self.served))]


def _swarm(chance: Random) -> dict[str, float]:
    """A random subset of the faults, seldom or often; now and then none."""
    is_calm = chance.random() < FAULT_FREE_SHARE
    share = chance.choice((0.1, 0.3, 0.6))
    return {
        fault: 0.0 if is_calm or chance.random() > share else chance.choice((0.02, 0.1))
        for fault in FAULTS
    }


class Simulation:
    """One schedule of ring 1. odds: of each fault at each turn; without, the seed draws some."""

    def __init__(self, seed: int, tally: Tally, odds: dict[str, float] | None = None) -> None:
        self.tally = tally
        self.chance = chance = Random(seed)
        self.peer = PeerLog(chance)
        self.fold = Folded(tally)
        self.state = replica.begin_state(0.0, None, 0)
        self.now_s = self._identified_s = 0.0
        self.trace = zlib.crc32(str(seed).encode())
        self._linked = True
        self.ever_unsound = self._ever_strange = False
        self._tampered = False
        self._replaced = self._restarts = 0
        self._beat_heard: tuple[int, float] | None = None
        self._watch_from: int | None = None
        self._backups = [self.peer.backup()]
        self._event: Input = Begin()
        self._odds = _swarm(chance) if odds is None else dict.fromkeys(FAULTS, 0.0) | odds
        self._is_calm = not any(self._odds.values())

    def run(self) -> int:
        """Run it all; returns a hash of what happened. Raises BrokenError."""
        for _ in range(self.chance.randint(TURNS_MIN, TURNS_MAX)):
            self.disturb()
            self.turn()
        self.heal()
        traffic = self.state.traffic
        self.tally.saw("fork seen", traffic.forks)
        self.tally.saw("duplicate seen", traffic.records_duplicate)
        self.tally.saw("without any fault", self._is_calm)
        self.tally.schedules += 1
        return self.trace

    def heal(self) -> None:
        """Mend everything and demand that it comes right in a bounded number of steps."""
        self._odds = dict.fromkeys(self._odds, 0.0)
        self._linked, self.peer.descriptor = True, MINE
        if not self.peer.is_sound:
            self.peer.wipe()
        self.peer.append()
        for _ in range(TURNS_TO_HEAL_MAX):
            self.peer.live()
            self.turn()
            if self.phase is Phase.READY and self.state.at == self.peer.head:
                break
        hold = self.tally.hold
        hold("I11", self.phase is Phase.READY, f"{self.phase} after {TURNS_TO_HEAL_MAX} steps")
        hold("I11", self.state.at == self.peer.head, "not at the peer's head")
        served = [record.raw for record, _ in self.fold.served or ()]
        hold("I6", served == [record.raw for record in self.peer.records], "not the peer's log")

    @property
    def phase(self) -> Phase:
        """What would be told of the peer now."""
        return phase_of(self.state, RULES, self.now_s)[0]

    def turn(self) -> None:
        """Do as `Follower._turn` does: step, effects, then what is to do next."""
        event, before = self._event, self.state
        state, effects, todo = replica.step(before, RULES, event, self.now_s)
        at, revision = before.at, before.at_revision
        for effect in effects:
            if not self.fold.take(effect):
                self._event = Misread("poison", at or self.fold.head, revision)
                return
            if isinstance(effect, Fold):
                at, revision = effect.record.head, effect.revision
        self.state = state
        self._check(event, todo)
        self._note(event, todo)
        self._event = self._do(todo)

    def _note(self, event: Input, todo: Todo) -> None:
        at = self.state.at
        mark = f"{type(event).__name__}{type(todo).__name__}{at.seq if at else -1}{self.now_s:.2f}"
        self.trace = zlib.crc32(mark.encode(), self.trace)
        if self.state.link_reason.startswith("seq "):
            self.tally.saw("gap seen")
            self.state = replace(self.state, link_reason="noted")
        if isinstance(event, WatchLost):
            self.tally.saw("compaction seen")

    def _check(self, event: Input, todo: Todo) -> None:
        """Hold the machine against what the peer wrote and what was told."""
        hold, state, fold = self.tally.hold, self.state, self.fold
        hold("I5", state.at is None or state.at == fold.head, f"at {state.at}, not {fold.head}")
        hold("I7", (fold.staged is not None) == state.staging, "generations disagree")
        if effects := (fold.staged or fold.served):
            hold("I6", effects[-1][0].raw in self.peer.written, "folded what nobody wrote")
        phase = self.phase
        if phase is Phase.QUARANTINED:
            self.tally.saw("quarantine seen")
            # A log replaced between two identifications and their reads looks like a hole twice.
            is_excused = self.ever_unsound or self._replaced > 1
            hold("I10", is_excused, "quarantined though the log was sound")
        if phase is Phase.REFUSED:
            self.tally.saw("refusal seen")
            hold("I10", self._ever_strange, "refused though nobody else was there")
        if phase is Phase.READY:
            hold("I15", fold.served is not None and fold.staged is None, "ready without a table")
            heard_s = self._beat_heard[1] if self._beat_heard else 0.0
            is_alive = self.now_s - heard_s < RULES.silent_after_s
            hold("I15", is_alive, f"ready though no heartbeat since {heard_s}")
        if isinstance(event, Watched) and not isinstance(todo, Watch):
            is_old = (
                isinstance(todo, Identify)
                and self.now_s - self._identified_s >= RULES.recycle_after_s
            )
            hold("I5", is_old or self._tampered, "looked again without a cause")
        if isinstance(event, Identified):
            self._identified_s = self.now_s

    def _do(self, todo: Todo) -> Input:
        self.now_s += 0.05
        if not isinstance(todo, Watch):
            self._watch_from = None
        match todo:
            case Wait(attempt, slow):
                self.now_s += 30 if slow else min(5.0, 0.2 * 2**attempt)
                return Begin()
            case _ if not self._linked or self._strikes("flaky"):
                self.tally.saw("link failure seen")
                return LinkFailed("cut")
            case Identify(cursor_seq):
                peer = self.peer
                if peer.descriptor is MINE:
                    self._hear(peer.beat)
                found = peer.stored.get(cursor_seq)
                return Identified(peer.descriptor, peer.head, peer.beat, peer.revision, found)
            case ReadWindow(after_seq, through_seq):
                return self._window(after_seq, through_seq)
            case Watch(from_revision):
                return self._watched(from_revision)
            case _:
                raise AssertionError(f"the simulator does not know {todo}")

    def _window(self, after_seq: int, through_seq: int) -> WindowRead:
        # The keys are written in ascending order, and stay in it.
        seqs = [seq for seq in self.peer.stored if after_seq < seq <= through_seq]
        some = tuple(self.peer.stored[seq] for seq in seqs[:WINDOW_RECORDS])
        return WindowRead(some, complete=len(seqs) <= WINDOW_RECORDS)

    def _watched(self, from_revision: int) -> Input:
        peer = self.peer
        if self._watch_from is None:
            self._watch_from, self._restarts = from_revision, peer.restarts
        if self._restarts != peer.restarts:
            return LinkFailed("its etcd was started again")
        if self._watch_from <= peer.compacted:
            return WatchLost("compacted")
        waiting = [change for change in peer.changes if change[0] >= self._watch_from]
        if not waiting:
            self.now_s += RULES.silent_after_s
            return Quiet()
        if self._strikes("lost"):
            # As old etcds do after a compaction.
            self._tampered = True
            waiting = waiting[1:] or waiting
        taken = waiting[: self.chance.randint(1, len(waiting))]
        self._watch_from = taken[-1][0] + 1
        if self._strikes("repeated"):
            # Some that came before come again, alone or before what is new.
            again = [change for change in peer.changes if change[0] < taken[0][0]][-3:]
            taken = again + taken
        return self._joined(response for _, response in taken)

    def _joined(self, responses: Iterable[Watched]) -> Watched:
        records: tuple[Fetched, ...] = ()
        head, beat = None, None
        for response in responses:
            records += response.records
            head = response.head or head
            beat = beat if response.beat is None else response.beat
        if beat is not None:
            self._hear(beat)
        return Watched(records, head, beat)

    def _hear(self, beat: int) -> None:
        if self._beat_heard is None or beat != self._beat_heard[0]:
            self._beat_heard = (beat, self.now_s)

    def _strikes(self, fault: str) -> bool:
        odds = self._odds[fault]
        return odds > 0 and self.chance.random() < odds

    def disturb(self) -> None:
        """Let something happen at the peer or on the way to it."""
        chance, peer = self.chance, self.peer
        if chance.random() < 0.4:
            peer.append()
        if chance.random() < 0.3 and not self._strikes("frozen"):
            peer.live()
        if chance.random() < 0.1:
            self._backups.append(peer.backup())
        self.fold.persist(chance)
        for fault in FAULTS_OF_THE_PEER:
            if self._strikes(fault):
                self._befall(fault)
        if self._strikes("cut"):
            self._linked = not self._linked
        if self._strikes("crash"):
            self._crash()
        self.ever_unsound = self.ever_unsound or not peer.is_sound
        self._ever_strange = self._ever_strange or peer.descriptor is not MINE

    def _befall(self, fault: str) -> None:
        peer = self.peer
        self._tampered = True
        self._replaced += fault in {"wipe", "recreate longer", "restore"}
        match fault:
            case "wipe":
                peer.wipe()
            case "recreate longer":
                peer.recreate_longer()
            case "restore":
                peer.restore(self.chance.choice(self._backups))
            case "compact":
                peer.compact()
            case "corrupt":
                peer.corrupt()
            case "poison":
                peer.append_poison()
            case "stranger":
                is_mine = peer.descriptor is MINE
                peer.descriptor = self.chance.choice(STRANGERS) if is_mine else MINE
            case _:
                pass

    def _crash(self) -> None:
        """Die, and begin again at the durable cursor."""
        fold = self.fold
        self.tally.saw("crash in the middle", isinstance(self._event, Watched | WindowRead))
        self.tally.saw("crash seen")
        at, revision, fold.served, fold.staged = None, 0, None, None
        if fold.durable:
            record, revision = fold.durable[-1]
            at, fold.served, fold.log_id = record.head, list(fold.durable), record.log_id
        self.state = replica.begin_state(self.now_s, at, revision)
        self._beat_heard = None
        self._watch_from = None
        self._event = Begin()


def simulate(seed: int, tally: Tally) -> int:
    """Run one schedule; returns a hash of what happened. Raises BrokenError."""
    return Simulation(seed, tally).run()
