"""What a cluster says of itself, and how others name clusters by what they say.

For: the value of `cluster.set`, and selectors. Not for: what a cluster's state does to its backends
(`core.terms`). Invariant: a cluster is described by nobody but itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field, StrictInt, StringConstraints

from meshd.model.forms import (
    AUDIENCES_MAX,
    TURNED_UP,
    WEIGHT_DEFAULT,
    AddressRanges,
    AudienceName,
    ClusterText,
    Labels,
    PlaceName,
    TurnedPercent,
    Weight,
    sorted_once,
)
from meshd.model.ids import CLUSTER_ID_MAX, CLUSTER_NAME_PATTERN, ClusterName

REGIONS_MAX = 64


class Availability(StrEnum):
    """Whether a cluster's backends take traffic. draining: nothing new, what is established may
    end in peace. maintenance: nothing at all, and who holds a connection had better close it.
    """

    ACTIVE = "active"
    DRAINING = "draining"
    MAINTENANCE = "maintenance"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterInfo:
    """What a cluster says of itself. The name is the event's key as well: a peer's log must not
    speak for another cluster.

    state, weight: of all its backends, in its own table as in others'. turned_percent: how far
    operations have turned it up. announces: where the
    addresses of its endpoints lie; none: it doesn't say. audiences: the export logs that it writes
    beside `mesh`; told to nobody, since already their names may say something.
    """

    name: Annotated[str, StringConstraints(pattern=CLUSTER_NAME_PATTERN)]
    id: Annotated[StrictInt, Field(ge=1, le=CLUSTER_ID_MAX)]
    region: PlaceName = ""
    zone: PlaceName = ""
    labels: Labels = field(default_factory=dict)
    state: Availability = Availability.ACTIVE
    weight: Weight = WEIGHT_DEFAULT
    turned_percent: TurnedPercent = TURNED_UP
    announces: AddressRanges = ()
    audiences: Annotated[
        tuple[AudienceName, ...], Field(max_length=AUDIENCES_MAX - 1), AfterValidator(sorted_once)
    ] = ()


ClusterNames = Annotated[
    tuple[ClusterText, ...], Field(max_length=CLUSTER_ID_MAX), AfterValidator(sorted_once)
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSelector:
    """Some of the clusters: those that fulfil every condition that is given; without any, all.

    clusters: one of these. not_clusters: none of these. regions: in one of these. labels: with all
    of these.
    """

    clusters: ClusterNames = ()
    not_clusters: ClusterNames = ()
    regions: Annotated[
        tuple[PlaceName, ...], Field(max_length=REGIONS_MAX), AfterValidator(sorted_once)
    ] = ()
    labels: Labels = field(default_factory=dict)

    def names(self) -> frozenset[ClusterName]:
        """All clusters that it names."""
        return frozenset((*self.clusters, *self.not_clusters))

    def selects(self, name: ClusterName, info: ClusterInfo | None) -> bool:
        """Whether a cluster is one of them. info: None while it hasn't said anything of itself; it
        has no region and no labels then.
        """
        if name in self.not_clusters or (self.clusters and name not in self.clusters):
            return False
        if self.regions and (info is None or info.region not in self.regions):
            return False
        labels = info.labels if info is not None else {}
        return all(labels.get(label) == value for label, value in self.labels.items())
