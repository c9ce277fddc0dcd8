"""Row 28: a leader stands still until another leads, and then goes on as if it still did.

For: a cluster of two meshds. Not for: one that stands still alone (`processes`). Invariant: the
leader that is frozen is thawed.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from chaos.faults.fault import Fault, Says, Stage, Usual
from chaos.faults.ground import first_of, kept, running, until
from chaos.mesh.shape import Cluster, Kind, Power, Server


def leads(status: Any) -> bool:
    """Whether it calls itself the leader."""
    return bool(status["leader"]["self"])


async def leader_of(cluster: Cluster) -> Server:
    """The meshd that leads, as it says itself."""
    return await first_of(_when_leading(meshd) for meshd in running([cluster], Kind.MESHD))


class TwoLeaders(Usual):
    """The leader is frozen beyond its lease, and thawed when another leads."""

    number: ClassVar[int] = 28
    name: ClassVar[str] = "two-leaders"
    summary: ClassVar[str] = "a leader stands still until another leads, and then goes on"
    behaviour: ClassVar[str] = (
        "what the former leader had decided is compared with the head and the leader's key, and so"
        " not done; it follows from then on"
    )
    needs: ClassVar[frozenset[Power]] = frozenset({Power.HA, Power.FREEZE})
    hold_s: ClassVar[float] = 6.0
    """Beyond the 5 s of a leader's lease."""

    async def inject(self, stage: Stage) -> Says:
        """Freeze each victim's leader."""
        said = []
        for cluster in stage.clusters:
            leader = await leader_of(cluster)
            stage.memory[f"leader {cluster.name}"] = leader
            await leader.freeze()
            said.append(leader.name)
        return Says(detail=f"frozen: {', '.join(said)}")

    async def bit(self, stage: Stage) -> str:
        """Another one leads while the former one still believes it does."""
        told = []
        for cluster in stage.clusters:
            former: Any = stage.memory[f"leader {cluster.name}"]
            others = [one for one in running([cluster], Kind.MESHD) if one is not former]
            leader = await first_of(_when_leading(one) for one in others)
            told.append(f"{leader.name} leads while {former.name} stands still as the leader")
        return "; ".join(told)

    async def heal(self, stage: Stage) -> None:
        """Thaw it."""
        for cluster in stage.clusters:
            former: Any = kept(stage, f"leader {cluster.name}", object)
            if former is not None and former.pid is not None:
                await former.thaw()
            stage.memory.pop(f"leader {cluster.name}", None)


async def _when_leading(meshd: Server) -> Server:
    await until(meshd, "/v1/status", leads)
    return meshd


FAULTS: Final[tuple[type[Fault], ...]] = (TwoLeaders,)
