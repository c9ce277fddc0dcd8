"""What all endpoints of one cluster have in common in one service, as one perspective sees it.

For: order, weight and exclusions that follow from the two clusters and their definitions. Not for:
the endpoint itself (`backend`). Invariant: terms depend on the two definitions and on what the two
clusters say of themselves, on nothing else; so one endpoint's change never needs them anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from meshd.core.tiers import rank_of
from meshd.model.cluster import Availability, ClusterInfo
from meshd.model.ids import ClusterName
from meshd.model.service import Port, Service
from meshd.model.table import Reason

Infos = Mapping[ClusterName, ClusterInfo | None]
"""What each cluster says of itself; None, or no entry, while it hasn't said anything."""

_NOWHERE = ClusterInfo(name="-", id=1)
"""A cluster that hasn't said where it is: at the defaults of everything else."""


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of one cluster's endpoints.

    reason: why all of them are out; None if nothing speaks against them all. factor: the weights of
    the cluster and of its service and how far both are turned up, multiplied; 0 while the cluster
    is draining. rank, by_place, percent: see `tiers.Rank`. here: the perspective's region and zone.
    there: the cluster's, which an endpoint may say otherwise. ports: where endpoints listen that
    don't say it themselves.
    """

    reason: Reason | None
    factor: int
    rank: int
    by_place: bool
    percent: int
    here: tuple[str, str]
    there: tuple[str, str]
    ports: tuple[Port, ...]


def terms_of(
    perspective: ClusterName,
    cluster: ClusterName,
    definitions: Mapping[ClusterName, Service],
    infos: Infos,
) -> Terms:
    """The terms of a cluster that takes part; the perspective's own definition must be there."""
    own, theirs = definitions[perspective], definitions[cluster]
    here, there = infos.get(perspective), infos.get(cluster)
    rank = rank_of(own, perspective, cluster)
    said = there or _NOWHERE
    reason = Reason.MAINTENANCE if said.state is Availability.MAINTENANCE else None
    if cluster != perspective:
        if not theirs.export.clusters.selects(perspective, here):
            reason = Reason.NOT_EXPORTED
        elif not own.import_from.selects(cluster, there):
            reason = Reason.DENIED_BY_IMPORT
    seen_from = here or _NOWHERE
    return Terms(
        reason=reason,
        factor=_factor(said, theirs),
        rank=rank.number,
        by_place=rank.by_place,
        percent=rank.percent,
        here=(seen_from.region, seen_from.zone),
        there=(said.region, said.zone),
        ports=theirs.ports,
    )


def _factor(info: ClusterInfo, service: Service) -> int:
    if info.state is not Availability.ACTIVE:
        return 0
    return info.weight * info.turned_percent * service.weight * service.turned_percent
