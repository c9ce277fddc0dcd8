"""Scenarios that are made of the catalogue: one for each fault, one for the faults of a row.

For: seeing one fault by itself. Not for: faults together (`drawn`). Invariant: the mesh has what
the fault needs, whether the wish says so or not.
"""

from __future__ import annotations

from collections.abc import Sequence

from chaos.faults.fault import Blast
from chaos.mesh.shape import Power
from chaos.scenarios.scenario import Faults, Hit, Scenario, Window, Wish, rotated

USUAL = 3
QUIET_S = 12.0
"""With five commands a second of each cluster that is enough for a p99 of each."""
REST_S = 8.0
MEMBERS = 3


def of_faults(
    name: str, summary: str, chosen: Sequence[str], wish: Wish, faults: Faults
) -> Scenario:
    """These faults one after another, each of another cluster; everything else is quiet."""
    names = wish.names(USUAL)
    needs = {need for one in chosen for need in faults[one].needs}
    windows = [Window(hold_s=QUIET_S)]
    for number, fault in enumerate(chosen):
        hit = Hit(fault=fault, victims=_victims(fault, rotated(names, number), faults))
        windows.append(Window(hits=(hit,), hold_s=faults[fault].hold_s, rest_s=REST_S))
    return Scenario(
        name=name,
        summary=summary,
        seed=wish.seed,
        names=names,
        windows=tuple(windows),
        is_ha=wish.is_ha or Power.HA in needs,
        etcd_members=MEMBERS if Power.MEMBERS in needs else wish.etcd_members,
        has_brokers=wish.has_brokers or Power.BROKER in needs,
        needed=tuple(dict.fromkeys(name for one in chosen for name in faults[one].judges)),
    )


def _victims(fault: str, names: Sequence[str], faults: Faults) -> tuple[str, ...]:
    """One cluster: of two or more there is always somebody else to look at. What is done between
    clusters has all the others on its far side.
    """
    match faults[fault].blast:
        case Blast.ONE | Blast.PAIR:
            return (names[0],)
