"""What each driver can do here, asked before a mesh is run.

For: choosing faults, and listing them. Not for: running meshes (`chaos.mesh.choose`). Invariant:
what is said here of a driver is what its meshes say of themselves.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from chaos.faults import catalogue
from chaos.faults.fault import Fault
from chaos.mesh import loopback, namespaces
from chaos.mesh.shape import NotPossibleError, Plan, Power

AUTO = "auto"
LOOPBACK = "loopback"
NAMESPACES = "namespaces"
MEMBERS = 3


@cache
def lacking(driver: str) -> str:
    """Why it can't be run here; '' if it can. `auto` always finds one."""
    return "; ".join(namespaces.missing()) if driver == NAMESPACES else ""


def chosen(driver: str) -> str:
    """Which one it comes to."""
    if driver != AUTO:
        return driver
    return LOOPBACK if lacking(NAMESPACES) else NAMESPACES


def in_turn(driver: str) -> tuple[str, ...]:
    """The drivers that may run something, the one that can most first: left to choose, what one
    can't do is done by the other.
    """
    return tuple(dict.fromkeys((chosen(driver), LOOPBACK))) if driver == AUTO else (driver,)


def able(driver: str, plan: Plan, faults: Iterable[type[Fault]]) -> str:
    """The first of them that can do all these faults to such a mesh; the first of all if none
    can, which then says what it lacks.
    """
    wanted = list(faults)
    for one in in_turn(driver):
        powers = powers_of(one, plan)
        if not any(catalogue.possible(fault, powers) for fault in wanted):
            return one
    return driver


def powers_of(driver: str, plan: Plan | None = None) -> frozenset[Power]:
    """What can be done to such a mesh; of no plan, to one that has everything."""
    wanted = plan or Plan(names=(), is_ha=True, etcd_members=MEMBERS, has_brokers=True)
    is_apart = chosen(driver) == NAMESPACES
    return namespaces.powers(wanted) if is_apart else loopback.powers(wanted)


def enter(driver: str) -> None:
    """Put this process where the driver can work: to be called before anything is started. Raises
    NotPossibleError if somebody asked for a driver that can't be had.
    """
    if driver == LOOPBACK:
        return
    try:
        namespaces.enter()
    except NotPossibleError:
        if driver == NAMESPACES:
            raise
    if driver == NAMESPACES and (why := lacking(NAMESPACES)):
        raise NotPossibleError(f"--driver {NAMESPACES}: {why}")
