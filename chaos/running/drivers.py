"""What each driver can do here, asked before a mesh is run.

For: choosing faults, and listing them. Not for: running meshes (`chaos.mesh.choose`). Invariant:
what is said here of a driver is what its meshes say of themselves.
"""

from __future__ import annotations

from chaos.mesh import loopback
from chaos.mesh.shape import Plan, Power

MEMBERS = 3


def powers_of(driver: str, plan: Plan | None = None) -> frozenset[Power]:
    """What can be done to such a mesh; of no plan, to one that has everything."""
    wanted = plan or Plan(names=(), is_ha=True, etcd_members=MEMBERS, has_brokers=True)
    del driver
    return loopback.powers(wanted)


def enter(driver: str) -> None:
    """Put this process where the driver's meshes are reached from."""
    del driver


def lacking(driver: str) -> str:
    """Why it can't be run here; '' if it can."""
    return "" if driver != "namespaces" else "it isn't there yet"
