"""What a cluster says of one of its services.

For: the value of `service.set` and its limits, declared once; `schema` turns declarations into
checks for REST, files and peers' records alike. Not for: names (`ids`), nor what clusters together
make of their definitions (`core.merge`, `table`). Invariant: a value never holds its own name; the
event's key does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field, StrictBool, StrictInt, StringConstraints

from meshd.model.cluster import ClusterSelector
from meshd.model.forms import (
    TURNED_UP,
    WEIGHT_DEFAULT,
    Audiences,
    Labels,
    Percent,
    SourceName,
    TimeMs,
    TurnedPercent,
    Weight,
)
from meshd.model.ids import CLUSTER_ID_MAX, CLUSTER_NAME_PATTERN, DNS_LABEL_PATTERN, ClusterName
from meshd.model.keyspace import DEFAULT_AUDIENCE
from meshd.model.probe import SoundProbe
from meshd.model.staleness import AS_THE_PEER, Staleness

PORTS_MAX = 64
TIERS_MAX = 32
"""More than anybody can keep in mind; and a tier's number stays readable in every priority."""
SESSION_TIMEOUT_S_MAX = 86_400
SESSION_TIMEOUT_S_DEFAULT = 10_800
"""Three hours, as in Kubernetes; the most as there, too."""
SPILL_BELOW_PERCENT_DEFAULT = 70
"""A tier that is sized for its load with a third to spare can lose so much and still serve."""
OWN_CLUSTER = "@local"
OTHER_CLUSTERS = "*"
MEMBER_PATTERN = rf"^\*$|^@local$|{CLUSTER_NAME_PATTERN}"


class Affinity(StrEnum):
    """Whose backends come first, seen from the cluster that says it."""

    NONE = "none"
    LOCAL = "local"
    REMOTE = "remote"


class Transport(StrEnum):
    """A port's transport protocol, spelled as Kubernetes does."""

    TCP = "TCP"
    UDP = "UDP"
    SCTP = "SCTP"


class SessionAffinity(StrEnum):
    """Whether a client's connections go to one backend while it is there."""

    NONE = "none"
    CLIENT_IP = "client-ip"


class Exposure(StrEnum):
    """Whether gateways offer the service to clients outside the mesh."""

    INTERNAL = "internal"
    EXTERNAL = "external"


class SpillAmount(StrEnum):
    """How much overflows from a tier that is not healthy enough. proportional: what its healthy
    share lacks. all: everything.
    """

    PROPORTIONAL = "proportional"
    ALL = "all"


class SpillSplit(StrEnum):
    """Where to. next: the next tier, and what that can't take to the one after it. spread: all
    tiers behind at once, in proportion to their healthy weight.
    """

    NEXT = "next"
    SPREAD = "spread"


def _unique_ports(ports: tuple[Port, ...]) -> tuple[Port, ...]:
    if len({port.name for port in ports}) != len(ports):
        raise ValueError("two ports have the same name")
    return ports


def _distinct_ports(ports: tuple[Port, ...]) -> tuple[Port, ...]:
    if len({(port.port, port.protocol) for port in ports}) != len(ports):
        raise ValueError("two ports have the same number and protocol")
    return ports


@dataclass(frozen=True, slots=True)
class Port:
    """One port. name: '' or a DNS label, unique among its neighbours; joins a service's ports to
    its endpoints'. app_protocol: as in Kubernetes (`http`, `grpc`, `kubernetes.io/h2c`, …).
    """

    port: Annotated[StrictInt, Field(ge=1, le=65535)]
    name: Annotated[str, StringConstraints(pattern=rf"^$|{DNS_LABEL_PATTERN}")] = ""
    protocol: Transport = Transport.TCP
    app_protocol: Annotated[str, StringConstraints(max_length=128, pattern=r"^[!-~]*$")] = ""


Ports = Annotated[tuple[Port, ...], Field(max_length=PORTS_MAX), AfterValidator(_unique_ports)]
ServicePorts = Annotated[Ports, AfterValidator(_distinct_ports)]
"""What clients connect to, so each number once; an endpoint may serve two of them with one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """Clusters that stand alike in the order that a service gives.

    clusters: their names; `@local` is whose table it is, `*` every cluster that no tier names.
    percent: how much of the traffic that reaches this tier it takes at most.
    """

    clusters: Annotated[
        tuple[Annotated[str, StringConstraints(pattern=MEMBER_PATTERN)], ...],
        Field(min_length=1, max_length=CLUSTER_ID_MAX),
    ]
    percent: Annotated[Percent, Field(ge=1)] = 100


def _disjoint_tiers(tiers: tuple[Tier, ...]) -> tuple[Tier, ...]:
    members = [member for tier in tiers for member in tier.clusters]
    if len(set(members)) != len(members):
        twice = next(member for member in members if members.count(member) > 1)
        raise ValueError(f"{twice} is in two places; a cluster has one tier")
    return tiers


@dataclass(frozen=True, slots=True, kw_only=True)
class Spill:
    """When and how traffic overflows to the next tier.

    below_percent: the healthy share of a tier below which it does; 0: only when nothing is healthy.
    """

    below_percent: Percent = SPILL_BELOW_PERCENT_DEFAULT
    amount: SpillAmount = SpillAmount.PROPORTIONAL
    split: SpillSplit = SpillSplit.NEXT


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """Who gets a shared service. audiences: the export logs that it is written to; nobody else can
    read of it. clusters: which of their readers use it; that is honoured, and hides nothing.
    """

    audiences: Audiences = (DEFAULT_AUDIENCE,)
    clusters: ClusterSelector = field(default_factory=ClusterSelector)


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One cluster's definition of a service.

    is_global (`global`): one service with those of the same name in other clusters.
    is_shared (`shared`): its endpoints are offered to others; None means 'as global'.
    affinity, tiers, spill, staleness, exposure, import_from (`import`): how this cluster uses it;
    nobody else's business. probe: how it looks after its own endpoints; told to nobody. weight: of
    this cluster's backends of it, for everybody. selector: the labels of the identities that serve
    it here; policies' questions go by it. turned_percent: how far operations have turned its
    backends up. created_ms: when this cluster first defined it; the oldest definition wins a
    conflict.
    """

    ports: ServicePorts = ()
    is_global: Annotated[StrictBool, Field(alias="global")] = False
    is_shared: Annotated[StrictBool | None, Field(alias="shared")] = None
    headless: StrictBool = False
    session_affinity: SessionAffinity = SessionAffinity.NONE
    session_timeout_s: Annotated[StrictInt, Field(ge=1, le=SESSION_TIMEOUT_S_MAX)] = (
        SESSION_TIMEOUT_S_DEFAULT
    )
    affinity: Affinity = Affinity.NONE
    tiers: Annotated[
        tuple[Tier, ...], Field(max_length=TIERS_MAX), AfterValidator(_disjoint_tiers)
    ] = ()
    spill: Spill = field(default_factory=Spill)
    staleness: Staleness = AS_THE_PEER
    weight: Weight = WEIGHT_DEFAULT
    exposure: Exposure = Exposure.INTERNAL
    export: Export = field(default_factory=Export)
    import_from: Annotated[ClusterSelector, Field(alias="import")] = field(
        default_factory=ClusterSelector
    )
    probe: SoundProbe = None
    labels: Labels = field(default_factory=dict)
    selector: Labels = field(default_factory=dict)
    source: SourceName = ""
    turned_percent: TurnedPercent = TURNED_UP
    created_ms: TimeMs = 0

    @property
    def is_offered(self) -> bool:
        """Whether peers may know of it and use its endpoints."""
        return self.is_global and self.is_shared is not False

    def is_offered_to(self, audience: str) -> bool:
        """Whether an audience may know of it and use its endpoints."""
        return self.is_offered and audience in self.export.audiences

    def named_clusters(self) -> frozenset[ClusterName]:
        """All clusters that the definition names."""
        members = {ClusterName(name) for tier in self.tiers for name in tier.clusters}
        members -= {ClusterName(OWN_CLUSTER), ClusterName(OTHER_CLUSTERS)}
        return self.export.clusters.names() | self.import_from.names() | members
