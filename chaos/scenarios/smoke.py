"""The scenario `smoke`: short, and of what every driver can do.

For: CI, and for seeing whether everything is there that a longer run needs. Not for: proving much.
"""

from __future__ import annotations

from chaos.scenarios.scenario import Faults, Hit, Scenario, Window, Wish

USUAL = 2
FAULTS = ("kill-meshd", "link-cut")


def smoke(wish: Wish, faults: Faults) -> Scenario:
    """A meshd is killed, then a link is cut."""
    names = wish.names(USUAL)
    windows = [Window(hold_s=5.0)]
    for number, fault in enumerate(one for one in FAULTS if one in faults):
        hit = Hit(fault=fault, victims=(names[number],))
        windows.append(Window(hits=(hit,), hold_s=max(3.0, faults[fault].hold_s), rest_s=4.0))
    return Scenario(
        name="smoke",
        summary="a meshd is killed, then a link is cut: half a minute",
        seed=wish.seed,
        names=names,
        windows=tuple(windows),
        is_ha=wish.is_ha,
        etcd_members=wish.etcd_members,
        has_brokers=wish.has_brokers,
    )
