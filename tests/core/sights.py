"""How a cluster is seen, by what that does to its backends where nobody says otherwise."""

from __future__ import annotations

from meshd.core.liveness import Sight, StalenessRules
from meshd.model.staleness import StalenessPolicy
from meshd.model.table import Standing

RULES = StalenessRules(StalenessPolicy.WITHDRAW, stale_after_s=10, withdraw_after_s=20)
SIGHTS = {
    Standing.FRESH: Sight(RULES),
    Standing.DEMOTED: Sight(RULES, 10),
    Standing.WITHDRAWN: Sight(RULES, 20),
}
