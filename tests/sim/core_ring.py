"""Ring 1: one to three peers' logs, read by one or two meshds, in steps that a seed chooses.

For: many short schedules of everything that peers and the ways to them can do. Not for: the event
loop, etcd or the writer (`daemon_ring`). Invariants: no clock, no I/O; all chance comes from the
seed; after the faults heal every link has a bounded number of steps to be right again.
"""

from __future__ import annotations

import zlib
from random import Random

from meshd.core import replica
from meshd.core.state import ClusterState
from meshd.model.ids import Head
from meshd.model.peer import Phase
from meshd.model.replica import Pause, ReadPart, ReadWindow, Resume, Resync, Watch
from tests.sim import peer_log
from tests.sim.link import FAULTS as FAULTS_OF_THE_WAY
from tests.sim.link import Link
from tests.sim.peer_log import PeerLog
from tests.sim.reader import Reader
from tests.sim.sayings import NAMES
from tests.sim.tally import Tally

SHAPES = ((1, 1),) * 10 + ((2, 1),) * 4 + ((1, 2), (2, 2), (3, 1))
"""How many peers and how many readers, as often as they are here."""
REPLICAS = 0.6
"""How often a reader begins with replicas of what its peers have said so far."""
TURNS_MIN, TURNS_MAX = 3, 9
TURNS_TO_HEAL_MAX = 60
"""Of each link."""
TURNS_TO_JUDGE_MAX = 25
TURN_S = 0.05
FAULT_FREE_SHARE = 0.25
APPENDS, LIVES, BACKUPS, PERSISTS, RESUMES = 0.3, 0.3, 0.2, 0.4, 0.3
"""How often a peer, a replica and a person do in a turn what isn't a fault."""
SHORTENS = (0.0, 0.0, 0.0, 0.3, 0.9)
"""How often, of the rest, a log is summed up and cut: an odd of the schedule."""
FAULTS_OF_THE_MESH = ("crash", "swap", "cut", "pause", "resync", "late")
"""late: time passes, and nobody was there. cut: until it strikes again."""
FAULTS = (*peer_log.FAULTS, *FAULTS_OF_THE_WAY, *FAULTS_OF_THE_MESH)
LATE_S = (1, 12, 70)
"""Less than a heart may be silent, more, and as much as makes a peer Lost."""
CHECKS = 0.02
"""How often tables are derived from scratch in the middle."""
CAUGHT_UP_RECORDS = 2
"""In place of the real one, in every other schedule: so few that it comes to pass."""


def _swarm(chance: Random) -> dict[str, float]:
    """A random subset of the faults, seldom or often; now and then none."""
    if chance.random() < FAULT_FREE_SHARE:
        return {}
    share = chance.choice((0.1, 0.25, 0.5))
    return {fault: chance.choice((0.05, 0.2)) for fault in FAULTS if chance.random() < share}


class Simulation:
    """One schedule of ring 1. odds: of each fault at each turn; shape: how many peers and readers;
    shorten: how often logs are summed up. What isn't given is drawn from the seed.
    """

    def __init__(
        self,
        seed: int,
        tally: Tally,
        odds: dict[str, float] | None = None,
        shape: tuple[int, int] | None = None,
        shorten: float | None = None,
    ) -> None:
        self.tally = tally
        self.chance = chance = Random(seed)
        self.now_s = 0.0
        peers, readers = shape or chance.choice(SHAPES)
        self._odds = _swarm(chance) if odds is None else dict(odds)
        self._is_calm = not self._odds
        self._shorten = chance.choice(SHORTENS) if shorten is None else shorten
        summed_up: dict[Head, ClusterState] = {}
        self.peers = [PeerLog(name, chance, summed_up) for name in NAMES[:peers]]
        self.readers = [
            Reader(tally, summed_up, has_ceilings="grow" in self._odds) for _ in range(readers)
        ]
        for reader in self.readers:
            if chance.random() < REPLICAS:
                for peer in self.peers:
                    reader.begin_with(peer.name, peer.records())
        self.links = [
            Link(reader, peer, chance, self._odds) for reader in self.readers for peer in self.peers
        ]
        odd = self._odds.items()
        self._of_peers = [(fault, odds) for fault, odds in odd if fault in peer_log.FAULTS]
        self._of_ways = [(fault, odds) for fault, odds in odd if fault in FAULTS_OF_THE_MESH]

    def run(self) -> int:
        """Run it all; returns a hash of what happened. Raises BrokenError."""
        for _ in range(self.chance.randint(TURNS_MIN, TURNS_MAX)):
            self.disturb()
            self.turn()
        self.heal()
        self.tally.saw("without any fault", self._is_calm)
        self.tally.schedules += 1
        trace = 0
        for link in self.links:
            trace = zlib.crc32(link.trace.to_bytes(4, "big"), trace)
        return trace

    def turn(self) -> None:
        """Let one link go on, by chance; if all wait, until the first of them is due."""
        links = self.links
        self.now_s += TURN_S
        first = int(self.chance.random() * len(links))
        for link in (*links[first:], *links[:first]):
            event = link.poll(self.now_s)
            if event is not None:
                link.take(event, self.now_s)
                return
        due_s = [link.due_s for link in links if not link.is_held]
        self.now_s = max(self.now_s, min(due_s, default=self.now_s))

    def heal(self) -> None:
        """Mend everything and demand that all comes right in a bounded number of steps."""
        self._mend()
        for link in self.links:
            if not link.peer.now.is_sound:
                self._let_judge(link)
        for peer in self.peers:
            peer.heal()
            peer.append()
        for _ in range(TURNS_TO_HEAL_MAX):
            is_right = True
            for peer in self.peers:
                peer.live()
            for link in self.links:
                if not self._is_right(link):
                    is_right = False
                    self._go_on(link)
            if is_right:
                break
        self._check_end()

    def _mend(self) -> None:
        """Let nothing go wrong any more, and every way lead where it should."""
        self._odds.clear()
        for peer in self.peers:
            peer.come_back()
        for link in self.links:
            if link.behind is not link.peer:
                link.behind = link.peer
            link.is_cut = False
            if link.is_held or isinstance(link.control, Pause):
                link.control = Resume()

    def _let_judge(self, link: Link) -> None:
        """A log that can't be read is said to be, in a bounded number of steps; unless what is
        wrong with it was read before it went wrong.
        """
        for _ in range(TURNS_TO_JUDGE_MAX):
            is_said = link.phase(self.now_s) in {Phase.QUARANTINED, Phase.REFUSED}
            if is_said or self._is_right(link):
                return
            link.peer.live()
            self._go_on(link)
        self.tally.hold("I10", False, "neither read nor said to be unreadable")

    def _go_on(self, link: Link) -> None:
        self.now_s += TURN_S
        event = link.poll(self.now_s)
        if event is None:
            self.now_s = max(self.now_s, link.due_s)
        else:
            link.take(event, self.now_s)

    def _is_right(self, link: Link) -> bool:
        return link.state.at == link.peer.head and link.phase(self.now_s) is Phase.READY

    def _check_end(self) -> None:
        hold = self.tally.hold
        for link in self.links:
            phase = link.phase(self.now_s)
            hold("I11", phase is Phase.READY, f"{phase} after {TURNS_TO_HEAL_MAX} steps")
            hold("I11", link.state.at == link.peer.head, "not at the peer's head")
            link.check_whole()
        self.readers[0].check_tables()
        for reader in self.readers[1:]:
            self._compare(reader, self.readers[0])

    def _compare(self, one: Reader, other: Reader) -> None:
        hold = self.tally.hold
        hold("I11", one.vector() == other.vector(), "two readers of the same logs differ")
        hold("I15", one.tables.digest == other.tables.digest, "one vector, two digests")

    # What happens.

    def disturb(self) -> None:
        """Let something happen at the peers or on the ways to them."""
        chance = self.chance
        for peer in self.peers:
            self._go_by(peer)
            for fault, odd in self._of_peers:
                if chance.random() < odd:
                    self.tally.saw("flood seen", fault == "flood")
                    peer.befall(fault)
        link = self.links[int(chance.random() * len(self.links))]
        if chance.random() < PERSISTS:
            link.reader.persist(link.peer.name, chance)
        if link.is_held and chance.random() < RESUMES:
            link.control = Resume()
        for fault, odd in self._of_ways:
            if chance.random() < odd:
                self._befall(fault, link)
        if chance.random() < CHECKS:
            link.reader.check_tables()

    def _go_by(self, peer: PeerLog) -> None:
        """Let a peer do what it does when nothing is wrong."""
        what = self.chance.random()
        if what < APPENDS:
            peer.append()
        elif what < APPENDS + LIVES:
            if not peer.is_frozen:
                peer.live()
        elif what < APPENDS + LIVES + BACKUPS:
            if not self._odds.keys().isdisjoint(peer_log.FROM_BACKUPS):
                peer.backups.append(peer.now.copy())
        elif self._shorten and self.chance.random() < self._shorten:
            peer.shorten()

    def _befall(self, fault: str, link: Link) -> None:
        match fault:
            case "crash":
                self._crash(link.reader)
            case "swap":
                self._swap()
            case "pause":
                link.control = Pause()
            case "resync":
                link.control = Resync()
            case "cut":
                link.is_cut = not link.is_cut
            case _:
                self.now_s += self.chance.choice(LATE_S)

    def _swap(self) -> None:
        """Exchange the addresses of two peers; or put them right again."""
        if len(self.peers) > 1:
            pair = dict(zip(self.peers[:2], (self.peers[1], self.peers[0]), strict=True))
            for link in self.links:
                if link.peer in self.peers[:2]:
                    link.behind = link.peer if link.behind is not link.peer else pair[link.peer]
                    link.upsets.elsewhere += 1
            self.tally.saw("swap seen")

    def _crash(self, reader: Reader) -> None:
        """Die, and begin again at the durable cursors."""
        links = [link for link in self.links if link.reader is reader]
        for link in links:
            for name, todo in (("window", ReadWindow), ("watch", Watch), ("snapshot", ReadPart)):
                self.tally.saw(f"crash in a {name}", isinstance(link.todo, todo))
        reader.crash()
        for link in links:
            link.begin(self.now_s)


def simulate(seed: int, tally: Tally) -> int:
    """Run one schedule; returns a hash of what happened. Raises BrokenError."""
    before = replica.CAUGHT_UP_RECORDS
    if seed % 2:
        replica.CAUGHT_UP_RECORDS = CAUGHT_UP_RECORDS
    try:
        return Simulation(seed, tally).run()
    finally:
        replica.CAUGHT_UP_RECORDS = before
