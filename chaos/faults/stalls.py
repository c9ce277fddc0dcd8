"""Row 34: event loops that stand still: all of a process does, or it has very much to do at once.

For: seconds. Not for: beyond a lease (`leaders`, `processes`). Invariant: what made it slow is gone
afterwards.
"""

from __future__ import annotations

import asyncio
from typing import ClassVar, Final

from chaos.faults.fault import Fault, Says, Stage, Usual
from chaos.faults.ground import first_of, freeze, kept, metric, running, thaw, until
from chaos.faults.saying import NAMESPACE, say, unsay
from chaos.mesh.shape import Cluster, Kind, Power, Server

STALL_S: Final = 2.0
"""Less than the 5 s of a leader's lease."""
LATE: Final = "meshd_loop_lag_seconds"
QUICK_ENOUGH_S: Final = "0.5"
ENDPOINTS: Final = 10_000
"""Of services that no other cluster has: their tables stay as they are."""
PORTION: Final = 1000


async def _late(meshd: Server) -> float:
    """How often its loop was more than half a second late."""
    quick = await metric(meshd, f"{LATE}_bucket", f'le="{QUICK_ENOUGH_S}"')
    return await metric(meshd, f"{LATE}_count") - quick


class LoopStalled(Usual):
    """The victims' meshds stand still for two seconds."""

    number: ClassVar[int] = 34
    name: ClassVar[str] = "loop-stalled"
    summary: ClassVar[str] = f"meshds stand still for {STALL_S:g} s"
    behaviour: ClassVar[str] = "they say how late they were, and keep their lease"
    needs: ClassVar[frozenset[Power]] = frozenset({Power.FREEZE})
    hold_s: ClassVar[float] = 0.0

    async def inject(self, stage: Stage) -> Says:
        """Freeze them, and thaw them after two seconds."""
        for cluster in stage.clusters:
            for meshd in running([cluster], Kind.MESHD):
                stage.memory[f"late {meshd.name}"] = await _late(meshd)
        for cluster in stage.clusters:
            await freeze(stage, cluster)
        await asyncio.sleep(STALL_S)
        for cluster in stage.clusters:
            await thaw(stage, cluster)
        return Says()

    async def bit(self, stage: Stage) -> str:
        """Each counts that it was late."""
        told = []
        for meshd in running(stage.clusters, Kind.MESHD):
            before = kept(stage, f"late {meshd.name}", float)
            if before is None:
                raise RuntimeError(f"{meshd.name} didn't stand still: inject comes first")
            while await _late(meshd) <= before:  # noqa: ASYNC110 a metric
                await asyncio.sleep(0.1)
            told.append(f"the loop of {meshd.name} was late by more than {QUICK_ENOUGH_S} s")
        return "; ".join(told)

    async def heal(self, stage: Stage) -> None:
        """Let those go on that stand still yet."""
        for cluster in stage.clusters:
            await thaw(stage, cluster)
            for meshd in cluster.meshds:
                stage.memory.pop(f"late {meshd.name}", None)


class HugeTable(Usual):
    """The victims get services with very many endpoints."""

    number: ClassVar[int] = 34
    name: ClassVar[str] = "huge-table"
    summary: ClassVar[str] = f"services with {ENDPOINTS} endpoints are defined"
    behaviour: ClassVar[str] = "it is served, and no lease is lost by the work"
    hold_s: ClassVar[float] = 0.0

    async def inject(self, stage: Stage) -> Says:
        """Define it, portion by portion."""
        for cluster in stage.clusters:
            stage.memory[f"huge {cluster.name}"] = True
            await say(cluster, _service(cluster), ENDPOINTS, portion=PORTION)
        return Says()

    async def bit(self, stage: Stage) -> str:
        """It is in the table, and whoever led leads on."""
        told = []
        for cluster in stage.clusters:
            meshds = running([cluster], Kind.MESHD)
            service = _service(cluster)
            told.append(await first_of(_with_all(meshd, service) for meshd in meshds))
        return "; ".join(told)

    async def heal(self, stage: Stage) -> None:
        """Remove it."""
        for cluster in stage.clusters:
            if f"huge {cluster.name}" in stage.memory:
                await unsay(cluster, _service(cluster), ENDPOINTS, portion=PORTION)
                del stage.memory[f"huge {cluster.name}"]


def _service(cluster: Cluster) -> str:
    """No two victims have the same, or each would have the other's endpoints too."""
    return f"huge-{cluster.name}"


async def _with_all(meshd: Server, service: str) -> str:
    for number in range(ENDPOINTS // PORTION):
        path = f"/v1/tables/{NAMESPACE}/{service}-{number}"
        await until(meshd, path, lambda it: len(it["backends"]) == PORTION)
    status = await until(meshd, "/v1/status", lambda it: it["leader"] is not None)
    return f"{meshd.name} serves all {ENDPOINTS}, and {status['leader']['api']} leads"


FAULTS: Final[tuple[type[Fault], ...]] = (LoopStalled, HugeTable)
