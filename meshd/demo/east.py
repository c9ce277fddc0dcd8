"""Step 3: east's backends are taken away, and come back.

For: what is done and what must be so. Not for: the order of the steps (`story`).
"""

from __future__ import annotations

from meshd.demo.catalog import CLUSTERS, EAST_ONLY, NAMESPACE, Trouble
from meshd.demo.expect import never_from, reported_as_none
from meshd.demo.mesh import has_backends_of
from meshd.demo.scene import Finding, Step
from meshd.demo.stage import Stage, unreachable

WITHOUT_EAST = Trouble(empty=frozenset({"east"}))
REMOVED = "cart"
"""Whose endpoints are removed outright; those of the others are declared not ready."""


async def empties(stage: Stage, step: Step) -> None:
    """East's backends go, first from the tables and then for real; its customers don't notice."""
    east = stage.mesh.sites["east"]
    await stage.apply(east, ready=False)
    for name in east.endpoint_names(REMOVED):
        await east.client.delete_endpoint(NAMESPACE, REMOVED, name)
        stage.scene.did(f"east: removed the endpoint {REMOVED}/{name}")
    await stage.converged(step)
    has_east = has_backends_of("east")
    await stage.mesh.until_tables(
        "no customer is sent to east", CLUSTERS, lambda table: not has_east(table)
    )
    await east.shop.end()
    stage.scene.did("east: all its HTTP servers are stopped")
    await stage.pause(7)
    tally = await stage.measure(step, "all clusters", CLUSTERS, WITHOUT_EAST)
    stage.find(
        [
            never_from(tally, ("east", "web"), "east"),
            reported_as_none(tally, "east", EAST_ONLY),
            await _is_explained(stage),
        ]
    )
    await _returns(stage, step)


async def _returns(stage: Stage, step: Step) -> None:
    east = stage.mesh.sites["east"]
    await east.shop.start()
    await stage.mesh.until("east's shop", lambda: unreachable(*east.last_endpoint))
    await stage.apply(east)
    step.timings["converged with east's backends again"] = await stage.mesh.until_converged(
        CLUSTERS
    )
    await stage.mesh.until_read()
    stage.scene.did("east: its backends are back")
    await stage.pause(4)


async def _is_explained(stage: Stage) -> Finding:
    """A backend that is out is still in west's table, with the reason and the event."""
    table = await stage.mesh.sites["west"].client.table(NAMESPACE, "web")
    backends = [backend for backend in table["backends"] if backend["cluster"] == "east"]
    reasons = {str(backend["reason"]) for backend in backends}
    origins = {f"{one['origin']['cluster']}:{one['origin']['seq']}" for one in backends}
    detail = f"{len(backends)} of east's: {', '.join(sorted(reasons))}"
    detail += f" since {', '.join(sorted(origins))}"
    ok = reasons == {"not-ready"}
    return Finding("west's table says why east's web takes no requests", ok, detail)
