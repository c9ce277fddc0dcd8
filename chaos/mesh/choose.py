"""Which driver runs a mesh: the one that can do most, or the one that was asked for.

For: commands and tests. Not for: a mesh that somebody else runs (`attached`). Invariant: who asks
for a driver gets it or an error; who leaves the choice is told why it isn't the better one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chaos.mesh import loopback
from chaos.mesh.clusters import RunMesh
from chaos.mesh.servers import Listener
from chaos.mesh.shape import NotPossibleError, Plan

DRIVERS = ("auto", "loopback", "namespaces")


@asynccontextmanager
async def running_mesh(
    plan: Plan, driver: str = "auto", listener: Listener | None = None
) -> AsyncIterator[RunMesh]:
    """Run a mesh as long as the context lasts. All its meshds are ready and see each other."""
    if driver not in DRIVERS:
        raise NotPossibleError(f"driver={driver}: is none of {', '.join(DRIVERS)}")
    if driver == "namespaces":
        raise NotPossibleError("driver=namespaces: is not there yet; take loopback")
    async with loopback.running(plan, listener) as mesh:
        yield mesh
