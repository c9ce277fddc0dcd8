"""Which backends come first.

For: the priority of a cluster's backends, from what the perspective's definition says and where the
two clusters are. Not for: how much of the traffic each tier takes (`spill`). Invariant: a priority
follows from the relation between two clusters and the endpoint's place alone, never from who is
there at the moment, so one endpoint that comes or goes never changes another's.

Rules:
- Affinity comes first: `local` puts the own cluster before all others, `remote` behind them.
- Then the tiers that the definition gives, in their order. Clusters of one tier stand alike.
- Clusters that no tier names come behind those, the nearest first: the own cluster, like others in
  its zone, then those in its region, then elsewhere; of those that are alike so far, the shorter
  measured distance.
- Affinity `none` without tiers is one tier: all backends stand alike, wherever they are.

A priority is `rank * 10 + place * 3 + distance`: affinity and tiers make the rank, so that the
tens of a priority say which step of the order it is, and its last digit how near. Priorities have
gaps; a protocol that wants them dense, as xDS does, closes the gaps in its edge.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from meshd.model.ids import ClusterName
from meshd.model.service import OTHER_CLUSTERS, OWN_CLUSTER, TIERS_MAX, Affinity, Service

RANK_STEP: Final = 10
PLACE_STEP: Final = 3
DISTANCE_MAX: Final = PLACE_STEP - 1
"""Measured distances are told apart in so many steps, and one more (`liveness`)."""

DEMOTION: Final = 1000
"""How far a demoted backend moves back: behind the last tier that a fresh one can have, keeping
the order among the demoted. It is a constant rather than 'last used tier plus one' so that a
backend's priority never depends on which other backends there are, and so that a reader sees at
once which part of the number is the demotion."""

RANKS_MAX: Final = TIERS_MAX + 2
"""The tiers, the own cluster before or behind them, and those that no tier names."""


@dataclass(frozen=True, slots=True)
class Rank:
    """Where a cluster stands in a service's order. by_place: nearer backends come before others of
    the same rank. percent: the most that its tier takes.
    """

    number: int
    by_place: bool
    percent: int


def rank_of(own: Service, perspective: ClusterName, cluster: ClusterName) -> Rank:
    """Where a cluster stands by the perspective's definition."""
    is_own = cluster == perspective
    named = _tier_naming(own, perspective, cluster)
    percent = 100 if named is None else own.tiers[named].percent
    first_tier = 1 if own.affinity is Affinity.LOCAL else 0
    unnamed = first_tier + len(own.tiers)
    if is_own and own.affinity is Affinity.LOCAL:
        return Rank(0, by_place=False, percent=percent)
    if is_own and own.affinity is Affinity.REMOTE:
        return Rank(unnamed + 1, by_place=False, percent=percent)
    if named is not None:
        return Rank(first_tier + named, by_place=False, percent=percent)
    is_alike = own.affinity is Affinity.NONE and not own.tiers
    return Rank(unnamed, by_place=not (is_alike or is_own), percent=percent)


def _tier_naming(own: Service, perspective: ClusterName, cluster: ClusterName) -> int | None:
    """The tier that a cluster is in: by its name, as the own one, or as one that no tier names."""
    names = {str(cluster), OWN_CLUSTER} if cluster == perspective else {str(cluster)}
    rest = None
    for number, tier in enumerate(own.tiers):
        if not names.isdisjoint(tier.clusters):
            return number
        if OTHER_CLUSTERS in tier.clusters:
            rest = number
    return rest


def place_of(here: tuple[str, str], there: tuple[str, str]) -> int:
    """How near two (region, zone) are: 0 in one zone, 1 in one region, 2 elsewhere or unknown.

    The name of a zone means something within its region only.
    """
    if here[0] != there[0]:
        return 2
    if here[1] and here[1] == there[1]:
        return 0
    return 1 if here[0] else 2
