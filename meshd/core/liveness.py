"""What losing sight of a cluster does to its backends, and how far away it is.

For: the staleness policy (design, end of section 6) and measured distance. Not for: noticing that
sight was lost (`replica.unfresh_s`) nor measuring. Invariant: `keep` never changes anything, and no
policy acts before its time: that a peer's control plane is out of sight does not mean that its
backends are down.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, assert_never

from meshd.core.tiers import DISTANCE_MAX
from meshd.model.ids import ClusterName
from meshd.model.staleness import AS_THE_PEER, Staleness, StalenessPolicy
from meshd.model.table import Standing

DISTANCE_BOUNDS_S: Final = (0.010, 0.100)
"""Round trips within a region, within a continent, and beyond. Few steps, so that a measurement
that wavers a little changes no order."""


@dataclass(frozen=True, slots=True)
class StalenessRules:
    """When the policy acts: demotion after `stale_after_s` (also on the way to withdrawal),
    withdrawal after `withdraw_after_s`.
    """

    policy: StalenessPolicy
    stale_after_s: float
    withdraw_after_s: float

    def with_said(self, said: Staleness) -> StalenessRules:
        """The rules where somebody says otherwise of some of it."""
        if said == AS_THE_PEER:
            return self
        return StalenessRules(
            self.policy if said.policy is None else said.policy,
            self.stale_after_s if said.stale_after_s is None else said.stale_after_s,
            self.withdraw_after_s if said.withdraw_after_s is None else said.withdraw_after_s,
        )


@dataclass(frozen=True, slots=True)
class Sight:
    """How a cluster is seen from here. unfresh_s: for how long it has been out of sight. distance:
    in steps of DISTANCE_BOUNDS_S, 0 while it wasn't measured.
    """

    rules: StalenessRules
    unfresh_s: float = 0.0
    distance: int = 0

    def standing(self, said: Staleness = AS_THE_PEER) -> Standing:
        """Where that leaves the backends of a service that says this of staleness."""
        if not self.unfresh_s:
            return Standing.FRESH
        return standing_of(self.rules.with_said(said), self.unfresh_s)


Sights = Mapping[ClusterName, Sight]
ALL_IN_SIGHT: Sights = {}
"""A cluster of which nothing is said is fresh and near; the own one always is."""


def standing_of(rules: StalenessRules, unfresh_s: float) -> Standing:
    """The standing of a cluster that has been out of sight for so long."""
    match rules.policy:
        case StalenessPolicy.KEEP:
            return Standing.FRESH
        case StalenessPolicy.DEMOTE:
            return Standing.DEMOTED if unfresh_s >= rules.stale_after_s else Standing.FRESH
        case StalenessPolicy.WITHDRAW:
            if unfresh_s >= rules.withdraw_after_s:
                return Standing.WITHDRAWN
            return Standing.DEMOTED if unfresh_s >= rules.stale_after_s else Standing.FRESH
        case _:
            assert_never(rules.policy)


def distance_of(round_trip_s: float) -> int:
    """The step of a measured round trip."""
    return min(DISTANCE_MAX, bisect_right(DISTANCE_BOUNDS_S, round_trip_s))
