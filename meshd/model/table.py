"""Tables: what the states of all clusters derive into, from one cluster's perspective.

For: the values that are served. Not for: how they come about (`core.derive`). Invariant: every
backend comes from its own cluster's log, and says from which event.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from meshd.model.forms import TURNED_UP, WEIGHT_DEFAULT
from meshd.model.ids import ClusterName, LogId, Seq, ServiceKey
from meshd.model.service import Affinity, Exposure, Port, SessionAffinity, Spill

FACTOR_UNIT: Final = (WEIGHT_DEFAULT * TURNED_UP) ** 2
"""The weight of a cluster and that of its service and how far both are turned up, multiplied, with
all of them at their defaults."""
WEIGHT_UNIT: Final = FACTOR_UNIT * TURNED_UP
"""A backend's weight is its endpoint's times its service's times its cluster's: exact, in integers.
So many are one of an endpoint's weight where the other two are at their default.
"""
PPM: Final = 1_000_000
"""Shares are in parts per million: all of the traffic."""


class Standing(StrEnum):
    """What the liveness of a cluster does to its backends (design, section 6, staleness policy)."""

    FRESH = "fresh"
    DEMOTED = "demoted"
    WITHDRAWN = "withdrawn"


class Reason(StrEnum):
    """Why an endpoint is left out of its service; the first that holds, in this order."""

    WITHDRAWN = "withdrawn"
    NO_SERVICE = "no-service"
    NOT_GLOBAL = "not-global"
    NOT_SHARED = "not-shared"
    NOT_EXPORTED = "not-exported"
    DENIED_BY_IMPORT = "denied-by-import"
    MAINTENANCE = "maintenance"
    NO_MATCHING_PORT = "no-matching-port"
    TERMINATING = "terminating"
    NOT_READY = "not-ready"
    PROBE_FAILING = "probe-failing"
    FLAPPING = "flapping"
    DRAINING = "draining"


class ConditionType(StrEnum):
    """What is remarkable about a global service, though it is served."""

    PORTS_CONFLICT = "PortsConflict"
    SESSION_AFFINITY_CONFLICT = "SessionAffinityConflict"
    TYPE_CONFLICT = "TypeConflict"
    UNKNOWN_CLUSTER = "UnknownCluster"


@dataclass(frozen=True, slots=True)
class Condition:
    """Something remarkable. cluster: whose definition it is about. message: what and what to do."""

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

    priority: its tier; lower ones come first. endpoint_weight: its own. weight: in WEIGHT_UNITs,
    with its cluster's and service's in it; its share within the tier. serving: whether what is
    established with it may go on, though it is out. reason: why it is out; None means that it takes
    traffic.
    """

    cluster: ClusterName
    name: str
    address: str
    ports: tuple[Port, ...]
    priority: int
    endpoint_weight: int
    weight: int
    region: str
    zone: str
    node: str
    serving: bool
    reason: Reason | None
    origin: Origin


BackendKey = tuple[ClusterName, str]


@dataclass(frozen=True, slots=True)
class TierShare:
    """The backends of one priority together, and how much of the service's traffic they take.

    clusters: whose, sorted. backends, eligible: how many there are, and how many are in. weight:
    of those, together. healthy_ppm: of what could serve, weighed, how much is ready. turned_ppm:
    how far its clusters are turned up. percent: the most that the definition gives it. reach_ppm:
    of the service's traffic, how much gets to this tier. share_ppm: how much of it stays.
    """

    priority: int
    clusters: tuple[ClusterName, ...]
    backends: int
    eligible: int
    weight: int
    healthy_ppm: int
    turned_ppm: int
    percent: int
    reach_ppm: int
    share_ppm: int


@dataclass(frozen=True, slots=True)
class GlobalService:
    """One global service, whole.

    ports, headless, session_affinity, session_timeout_s: what all clusters' definitions come to.
    affinity, spill, exposure, labels: the perspective's own. clusters: those that define it here,
    sorted. tiers: by priority; their shares add up to PPM, or to 0 if nothing is in. backends:
    sorted by priority, cluster and name, those that are out included.
    """

    key: ServiceKey
    ports: tuple[Port, ...]
    headless: bool
    session_affinity: SessionAffinity
    session_timeout_s: int
    affinity: Affinity
    spill: Spill
    exposure: Exposure
    labels: Mapping[str, str]
    clusters: tuple[ClusterName, ...]
    conditions: tuple[Condition, ...]
    tiers: tuple[TierShare, ...]
    backends: tuple[Backend, ...]

    @property
    def eligible(self) -> tuple[Backend, ...]:
        """The backends that may take traffic, best tier first."""
        return tuple(backend for backend in self.backends if backend.reason is None)


@dataclass(frozen=True, slots=True)
class ServiceDelta:
    """What changed in one global service.

    gone: it is no longer served at all (then the rest is empty). redefined: something of it besides
    tiers and backends changed. tiers: all of them as they are now, or None if they are as they
    were. upserts, removals: its backends, those that are out included. digest: as it is now; it may
    be all that changed, where how a cluster is seen hides the rest.
    """

    key: ServiceKey
    gone: bool
    redefined: bool
    tiers: tuple[TierShare, ...] | None
    upserts: tuple[Backend, ...]
    removals: tuple[BackendKey, ...]
    digest: str = ""


TableDelta = tuple[ServiceDelta, ...]
