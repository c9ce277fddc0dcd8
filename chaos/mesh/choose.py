"""Which driver runs a mesh: the one that can do most, or the one that was asked for.

For: commands and tests. Not for: a mesh that somebody else runs (`attached`). Invariant: who asks
for a driver gets it or an error; who leaves the choice is told why it isn't the better one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from chaos.mesh import loopback, namespaces
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
    async with AsyncExitStack() as stack:
        yield await _enter(stack, plan, driver, listener)


async def _enter(
    stack: AsyncExitStack, plan: Plan, driver: str, listener: Listener | None
) -> RunMesh:
    why_not = ""
    if driver != "loopback":
        try:
            return await stack.enter_async_context(namespaces.running(plan, listener))
        except NotPossibleError as error:
            if driver == "namespaces":
                raise
            why_not = str(error)
    mesh = await stack.enter_async_context(loopback.running(plan, listener))
    if why_not:
        mesh.note = f"on loopback, where less can be broken, since {why_not}"
    return mesh
