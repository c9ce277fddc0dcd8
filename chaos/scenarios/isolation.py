"""The scenario `isolation`: some clusters in trouble, and the others don't notice.

For: I12, with enough quiet and disturbed samples that a p99 means something. Not for: what becomes
of those in trouble, which each fault's own scenario looks at.
"""

from __future__ import annotations

from chaos.history import Bounds
from chaos.scenarios.scenario import (
    CONVERGE_S,
    Faults,
    Hit,
    Scenario,
    ScenarioError,
    Window,
    Wish,
    rotated,
)

USUAL = 5
CLUSTERS_MIN = 3
TROUBLES = ("kill-meshd", "freeze-meshd", "link-cut", "rest-flood", "poison-bytes")
"""Killed, frozen, cut, flooding, poisoned."""
QUIET_S = 90.0
"""With three commands a second of each cluster that is enough for a p99 of each, and of a pair."""
SETTLE_S = 10.0
"""With a fixed share of the processors a meshd needs that long after its start for answers to take
as long as ever: in what is called quiet, slow ones would make the bound too lax.
"""
HOLD_S = 12.0
"""Longer than a peer's silence is borne (`replication.silent_after_s`, 10 s unless a fault says
otherwise), so that what follows of it is seen as well."""
REST_S = 10.0
"""A meshd is up again within some 3 s."""

RATES = {
    "commands_per_s": 3.0,
    "requests_per_s": 1.0,
    "reads_per_s": 0.25,
    "anew_every_s": 0.0,
    "dumps_every_s": 0.0,
}
"""Of each cluster. A dump in between is megabytes, which whoever records has to read meanwhile, and
a table derived anew keeps a meshd from all else for a tenth of a second: what is measured then is
the measuring. Those at the beginning and at the end tell as much."""


def isolation(wish: Wish, faults: Faults) -> Scenario:
    """Every trouble in turn, of one, two, and all clusters but one."""
    names = wish.names(USUAL)
    if len(names) < CLUSTERS_MIN:
        raise ScenarioError(
            f"isolation with {len(names)} clusters: from {CLUSTERS_MIN} on there are some in"
            " trouble and others to look at"
        )
    troubles = [one for one in TROUBLES if one in faults]
    windows = [Window(hold_s=QUIET_S)]
    for many in sorted({1, min(2, len(names) - 1), len(names) - 1}):
        for number, fault in enumerate(troubles):
            victims = rotated(names, number + many)[:many]
            hold_s = max(HOLD_S, faults[fault].hold_s)
            windows.append(
                Window(hits=(Hit(fault=fault, victims=victims),), hold_s=hold_s, rest_s=REST_S)
            )
    return Scenario(
        name="isolation",
        summary="one, two, then all clusters but one killed, frozen, cut, flooding, poisoned",
        seed=wish.seed,
        names=names,
        windows=tuple(windows),
        is_ha=wish.is_ha,
        etcd_members=wish.etcd_members,
        has_brokers=wish.has_brokers,
        rates=RATES,
        has_fixed_shares=True,
        bounds=Bounds(converge_s=CONVERGE_S, settle_s=SETTLE_S),
        needed=("I12",),
    )
