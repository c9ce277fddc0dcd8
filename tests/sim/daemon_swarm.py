"""What a seed of ring 2 draws before anything runs: the mesh, its knobs, and what may befall it.

For: a different corner of the settings in every schedule, extremes included. Not for: when a fault
comes (`daemon_ring`). Invariant: the same chance gives the same swarm.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from random import Random

from meshd.daemon.parts import Parts
from meshd.edges.memory import MemoryEtcd
from meshd.settings import ReplicationSettings, RetentionSettings, Settings
from tests.mesh import LoopClock, Mesh
from tests.sim.loop import SimLoop
from tests.sim.tally import Tally
from tests.sim.witness import Witness, WitnessedEtcd, cursor_in

FAULT_FREE_SHARE = 0.25
FAULT_SHARE = 0.3
"""Of all faults, how many one schedule knows: so few that each leads somewhere."""
FAULTS = (
    "etcd down", "out of space", "compact", "wipe", "wipe unnoticed", "restore",
    "restore unnoticed", "link cut", "link deaf", "own link deaf", "slow", "reply lost",
    "request lost", "events lost", "events repeated", "watches silent", "kill", "freeze",
    "clock jump", "flood", "pause", "resync",
)  # fmt: skip
ROUNDS = (1, 1, 2, 2, 3, 4)
"""How many, as often as they are here."""
BACKLOG_BYTES = 300
"""A record or two."""
RECYCLE_S = 5.0


@dataclass(frozen=True, slots=True)
class Swarm:
    """names: of the clusters. meshds: how many run in each. is_recycling: watches are opened anew
    so often that one which lost something is found out in time. knows_deaths: a meshd that starts
    needn't wait for its predecessor's lease.
    """

    names: tuple[str, ...]
    meshds: tuple[int, ...]
    rounds: int
    faults: tuple[str, ...]
    is_recycling: bool
    knows_deaths: bool
    queue_max: int
    replication: ReplicationSettings
    retention: RetentionSettings | None

    @staticmethod
    def draw(chance: Random) -> Swarm:
        """Roll the dice."""
        count = 3 if chance.random() < 0.04 else 2
        has_several = chance.random() < 0.12
        meshds = [1] * count
        if has_several:
            meshds[chance.randrange(count)] = 2
        is_calm = chance.random() < FAULT_FREE_SHARE
        faults = [f for f in FAULTS if not is_calm and chance.random() < FAULT_SHARE]
        if faults and has_several:
            # What several meshds are for.
            faults += ["freeze", "kill"] * 2
        is_recycling = chance.random() < 0.3
        return Swarm(
            names=("east", "west", "south")[:count],
            meshds=tuple(meshds),
            rounds=chance.choice(ROUNDS),
            faults=tuple(faults),
            is_recycling=is_recycling,
            knows_deaths=chance.random() < 0.8,
            queue_max=chance.choice((10_000, 10_000, 2, 1)),
            replication=_replication(chance, is_recycling=is_recycling),
            retention=_retention(chance) if chance.random() < 0.2 else None,
        )

    @property
    def has_several(self) -> bool:
        """Whether some cluster runs more than one meshd."""
        return sum(self.meshds) > len(self.meshds)

    @property
    def restores(self) -> bool:
        """Whether backups are needed."""
        return any(fault.startswith("restore") for fault in self.faults)

    def settings(self, name: str) -> Settings:
        """What every meshd of a cluster is told."""
        known = _settings(self.names, name)
        writer = replace(known.writer, queue_max=self.queue_max)
        retention = self.retention or known.retention
        return replace(known, writer=writer, replication=self.replication, retention=retention)


def _replication(chance: Random, *, is_recycling: bool) -> ReplicationSettings:
    known = ReplicationSettings()
    return replace(
        known,
        recycle_after_s=RECYCLE_S if is_recycling else known.recycle_after_s,
        persist_backlog_bytes=BACKLOG_BYTES
        if chance.random() < 0.2
        else known.persist_backlog_bytes,
        budget=replace(known.budget, events_per_s=4.0, burst_s=0.5)
        if chance.random() < 0.15
        else known.budget,
    )


def _retention(chance: Random) -> RetentionSettings:
    keep_events = chance.choice((1, 1, 4))
    return RetentionSettings(
        check_every_s=chance.choice((0.5, 1.0, 2.0)),
        snapshot_every_events=chance.choice((1, 3, 5)),
        keep_events=keep_events,
        snapshots_kept=chance.choice((3, 4, 8)),
        cap_events=keep_events + chance.choice((1, 1, 10, 1000)),
    )


@cache
def _settings(names: tuple[str, ...], name: str) -> Settings:
    """Read the settings once for all schedules."""
    return Mesh(names=names).settings(name)


class SimClock(LoopClock):
    """The same time with fewer calls on the way: it is asked for most of all."""

    def __init__(self, loop: SimLoop) -> None:
        super().__init__()
        self.monotonic_s = loop.time  # type: ignore[method-assign]


class SwarmMesh(Mesh):
    """A mesh as it was drawn, with a witness beside every etcd, and a wall clock in every cluster.

    tuned: the settings by cluster.
    """

    def __init__(self, swarm: Swarm, tally: Tally, loop: SimLoop) -> None:
        self.tally = tally
        self.tuned = {name: swarm.settings(name) for name in swarm.names}
        self.clocks = {name: SimClock(loop) for name in swarm.names}
        super().__init__(names=swarm.names, clock=SimClock(loop))

    def settings(self, name: str) -> Settings:
        return self.tuned[name]

    def make_etcd(self, name: str, number: int) -> MemoryEtcd:
        etcd = WitnessedEtcd(self.clock, cluster_id=number)
        etcd.witness = Witness(name, self.tally)
        return etcd

    def clock_of(self, name: str) -> LoopClock:
        return self.clocks[name]

    def loaded(self, name: str, parts: Parts) -> None:
        """Who starts serves what its replicas hold, whether or not the peers are there (I15)."""
        for peer in parts.node.peers:
            cursor = cursor_in(self.etcds[name], peer.name)
            is_due = cursor is not None and cursor.head.seq > 0
            is_served = parts.node.projector.state(peer.name) is not None
            self.tally.hold("I15", is_served or not is_due, f"the replica of {peer.name} is idle")
