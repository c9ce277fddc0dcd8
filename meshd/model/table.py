"""Tables: what the states of all clusters derive into, from one cluster's perspective.

For: the values that are served. Not for: how they come about (`core.derive`). Invariant: every
backend comes from its own cluster's log, and says from which event.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from meshd.model.ids import ClusterName, LogId, Seq, ServiceKey
from meshd.model.service import Affinity, Port


class Standing(StrEnum):
    """What the liveness of a cluster does to its backends (design, section 6, staleness policy)."""

    FRESH = "fresh"
    DEMOTED = "demoted"
    WITHDRAWN = "withdrawn"


class Reason(StrEnum):
    """Why an endpoint is left out of its service."""

    NOT_READY = "not-ready"
    TERMINATING = "terminating"
    DRAINING = "draining"
    WITHDRAWN = "withdrawn"


class ConditionType(StrEnum):
    """What is remarkable about a global service, though it is served."""

    PORTS_CONFLICT = "PortsConflict"


@dataclass(frozen=True, slots=True)
class Condition:
    """Something remarkable. cluster: whose definition lost. message: what and what to do."""

    type: ConditionType
    cluster: ClusterName
    message: str


@dataclass(frozen=True, slots=True)
class Origin:
    """The event that made a backend what it is. seq: in that cluster's log as read here, which is
    the local log for the own cluster and the export log for a peer.
    """

    log_id: LogId
    seq: Seq
    time_ms: int
    actor: str


@dataclass(frozen=True, slots=True)
class Backend:
    """One endpoint of a global service, in or out of it.

    priority: the tier, from 0; a client uses the lowest that has an eligible backend. weight: its
    share within the tier. reason: why it is out; None means that it takes traffic.
    """

    cluster: ClusterName
    name: str
    address: str
    ports: tuple[Port, ...]
    priority: int
    weight: int
    zone: str
    node: str
    reason: Reason | None
    origin: Origin


BackendKey = tuple[ClusterName, str]


@dataclass(frozen=True, slots=True)
class GlobalService:
    """One global service, whole. clusters: those that define it here, sorted. backends: sorted by
    priority, cluster and name, those that are out included.
    """

    key: ServiceKey
    ports: tuple[Port, ...]
    affinity: Affinity
    clusters: tuple[ClusterName, ...]
    conditions: tuple[Condition, ...]
    backends: tuple[Backend, ...]

    @property
    def eligible(self) -> tuple[Backend, ...]:
        """The backends that may take traffic, best tier first."""
        return tuple(backend for backend in self.backends if backend.reason is None)


@dataclass(frozen=True, slots=True)
class ServiceDelta:
    """What changed in one global service.

    gone: it is no longer served at all (then the rest is empty). redefined: its ports, affinity,
    clusters or conditions changed. upserts, removals: its backends, those that are out included.
    """

    key: ServiceKey
    gone: bool
    redefined: bool
    upserts: tuple[Backend, ...]
    removals: tuple[BackendKey, ...]


TableDelta = tuple[ServiceDelta, ...]
