"""What is known of a peer from here: its phase and what stands behind it.

For: the values that status, API and streams show. Not for: how they come about (`core.replica`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from meshd.model.ids import ClusterName, Head, Seq
from meshd.model.table import Standing


class Phase(StrEnum):
    """A followed log's condition (design, section 2)."""

    CONNECTING = "Connecting"
    SYNCING = "Syncing"
    READY = "Ready"
    STALE = "Stale"
    LOST = "Lost"
    FORKED = "Forked"
    QUARANTINED = "Quarantined"
    REFUSED = "Refused"
    PAUSED = "Paused"


class Traffic(NamedTuple):
    """What following a log has cost so far; a tuple for the same reason as `ReplicaState`.

    records_read: records that were folded. records_duplicate: records that came though they had
    been read before. links: how often the peer was identified. forks: how often another history
    was found behind its name. snapshots: how often its snapshot was read.
    """

    records_read: int = 0
    records_duplicate: int = 0
    links: int = 0
    forks: int = 0
    snapshots: int = 0


NO_TRAFFIC = Traffic()


@dataclass(frozen=True, slots=True)
class PeerCondition:
    """A peer as seen from here.

    since_s: monotonic time at which the phase began. head: how far its log is folded. target: its
    head as last seen. unfresh_s: how long it has not been fresh; 0 while it is. replica_seq: how
    far the copy in the own etcd has come. slowed_s: for how long its log was read slower than it
    came. source: who lists it, `settings` or `log`. endpoints: where its etcd is. quarantined_seq:
    where the record begins at which its log stopped; None while it isn't Quarantined. skipped:
    where the records begin that were passed over: its state is not all that its log says.
    """

    name: ClusterName
    phase: Phase
    reason: str
    since_s: float
    standing: Standing
    is_linked: bool
    head: Head | None
    target: Head | None
    unfresh_s: float
    replica_seq: Seq
    traffic: Traffic
    slowed_s: float = 0.0
    source: str = "settings"
    endpoints: tuple[str, ...] = ()
    quarantined_seq: Seq | None = None
    skipped: tuple[Seq, ...] = ()
