"""What losing sight of a cluster does to its backends.

For: the staleness policy (design, end of section 6). Not for: noticing that sight was lost
(`replica.unfresh_s`). Invariant: `keep` never changes anything, and no policy acts before its time:
that a peer's control plane is out of sight does not mean that its backends are down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from meshd.model.staleness import StalenessPolicy
from meshd.model.table import Standing


@dataclass(frozen=True, slots=True)
class StalenessRules:
    """When the policy acts: demotion after `stale_after_s` (also on the way to withdrawal),
    withdrawal after `withdraw_after_s`.
    """

    policy: StalenessPolicy
    stale_after_s: float
    withdraw_after_s: float


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
