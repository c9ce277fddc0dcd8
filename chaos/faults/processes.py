"""Rows 1 to 5: meshds and etcds that are killed or stand still, some of them or all.

For: what a signal does. Not for: what an etcd keeps (`storage`), nor two leaders (`leaders`).
Invariant: healed, every process of the victims runs, and none of them stands still.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import ClassVar, Final

from chaos.etcds import Etcd
from chaos.faults.fault import Fault, Says, Stage, Usual
from chaos.faults.going_on import GoingOn
from chaos.faults.ground import ASK_EVERY_S, SOON, kept, running, until
from chaos.faults.signs import gone, out_of_sight, run_again, silent, when, write_refused
from chaos.mesh.shape import Cluster, Kind, Meshd, Power, Server

LEASE_TTL_S: Final = 5.0
"""Of who leads a cluster."""
LEADER: Final = "/meshd/v1/leader/holder"
KILLS: Final = 3
"""So many of one meshd are no accident of one moment."""
LIFE_MAX_S: Final = 3.0
"""About half of such lives end before the meshd is ready, which takes it a second or two."""
IMPATIENT: Final[Mapping[str, object]] = {
    **SOON,
    "etcd.call_timeout_s": 3,
    "writer.submit_timeout_s": 3,
}
"""With these a write that can't be done is refused within seconds. On a machine that some fifteen
processes share, one that can be done takes up to two now and then.
"""


class KillMeshd(Usual):
    """All meshds of the victims are killed."""

    number: ClassVar[int] = 1
    name: ClassVar[str] = "kill-meshd"
    summary: ClassVar[str] = "a cluster's meshds are killed"
    behaviour: ClassVar[str] = "started again, they go on with all that was acknowledged"
    needs: ClassVar[frozenset[Power]] = frozenset({Power.KILL})
    hold_s: ClassVar[float] = 3.0

    async def inject(self, stage: Stage) -> Says:
        """Kill them."""
        for cluster in stage.clusters:
            for meshd in cluster.meshds:
                await meshd.kill()
        return Says()

    async def bit(self, stage: Stage) -> str:
        """They are gone."""
        meshds = [meshd for cluster in stage.clusters for meshd in cluster.meshds]
        return "; ".join([await gone(meshd) for meshd in meshds])

    async def heal(self, stage: Stage) -> None:
        """Start them."""
        await run_again(stage.clusters, Kind.MESHD)


@dataclass(slots=True)
class _Killing:
    """How often each meshd was killed, and who goes on doing it."""

    counts: dict[str, int] = field(default_factory=dict)
    going: GoingOn = field(default_factory=GoingOn)


class KillMeshdAgain(Usual):
    """Each meshd of the victims is killed again and again, at random moments of its life."""

    number: ClassVar[int] = 1
    name: ClassVar[str] = "kill-meshd-again"
    summary: ClassVar[str] = "a cluster's meshds are killed again and again, also while they start"
    behaviour: ClassVar[str] = "started again, they go on with all that was acknowledged"
    needs: ClassVar[frozenset[Power]] = frozenset({Power.KILL})
    hold_s: ClassVar[float] = 10.0

    async def inject(self, stage: Stage) -> Says:
        """Begin with it."""
        killing = stage.memory["killing"] = _Killing()
        for cluster in stage.clusters:
            for meshd in cluster.meshds:
                killing.counts[meshd.name] = 0
                again = self._kill_again(stage, killing, meshd)
                killing.going.begin(again, f"kill {meshd.name}")
        return Says()

    async def _kill_again(self, stage: Stage, killing: _Killing, meshd: Meshd) -> None:
        while True:
            with suppress(TimeoutError):
                life_s = stage.chance.uniform(0, LIFE_MAX_S)
                async with asyncio.timeout(life_s):
                    await meshd.start()
                    await asyncio.sleep(life_s)
            await meshd.kill()
            killing.counts[meshd.name] += 1

    async def bit(self, stage: Stage) -> str:
        """Each has been killed several times."""
        killing = kept(stage, "killing", _Killing)
        if killing is None:
            raise RuntimeError("nobody is killed: inject comes first")
        while min(killing.counts.values()) < KILLS:
            killing.going.look()
            await asyncio.sleep(ASK_EVERY_S)
        return "; ".join(f"{name} was killed {n} times" for name, n in killing.counts.items())

    async def heal(self, stage: Stage) -> None:
        """Stop killing, and start them."""
        killing = kept(stage, "killing", _Killing)
        if killing is not None:
            await killing.going.stop()
            del stage.memory["killing"]
        await run_again(stage.clusters, Kind.MESHD)


class FreezeMeshd(Usual):
    """All meshds of the victims stand still, for longer than their lease lasts."""

    number: ClassVar[int] = 2
    name: ClassVar[str] = "freeze-meshd"
    summary: ClassVar[str] = "a cluster's meshds stand still beyond their lease"
    behaviour: ClassVar[str] = (
        "they lead no more, commit nothing that they decided before, and call nothing old fresh"
    )
    needs: ClassVar[frozenset[Power]] = frozenset({Power.FREEZE})
    hold_s: ClassVar[float] = 3 * LEASE_TTL_S
    settings: ClassVar[Mapping[str, object]] = SOON

    async def inject(self, stage: Stage) -> Says:
        """Freeze them."""
        for meshd in running(stage.clusters, Kind.MESHD):
            await meshd.freeze()
        return Says()

    async def bit(self, stage: Stage) -> str:
        """They answer nothing, and their lease has run out or somebody has lost sight of them."""
        told = []
        for cluster in stage.clusters:
            told += [await silent(meshd, "/livez") for meshd in running([cluster], Kind.MESHD)]
            told.append(await _led_by_nobody(cluster, stage))
        return "; ".join(told)

    async def heal(self, stage: Stage) -> None:
        """Let them go on."""
        await run_again(stage.clusters, Kind.MESHD)


async def _led_by_nobody(cluster: Cluster, stage: Stage) -> str:
    if cluster.etcd is None:
        return await out_of_sight(cluster, stage)
    await when(_is_free, cluster.etcd)
    return f"{cluster.name}'s lease has run out: nobody leads it"


async def _is_free(etcd: Etcd) -> bool:
    return LEADER not in await etcd.dump(LEADER)


class _Members(Usual):
    """Some members of the victims' etcds are killed, or stand still."""

    needs: ClassVar[frozenset[Power]]
    hold_s: ClassVar[float] = 5.0
    settings: ClassVar[Mapping[str, object]] = IMPATIENT
    is_frozen: ClassVar[bool] = False

    def count(self, members: int) -> int:
        """How many of so many."""
        raise NotImplementedError

    async def inject(self, stage: Stage) -> Says:
        """Draw them, and kill or freeze them."""
        hit: list[Server] = []
        stage.memory["members"] = hit
        for cluster in stage.clusters:
            members = running([cluster], Kind.ETCD)
            hit += stage.chance.sample(members, self.count(len(members)))
        for member in hit:
            await (member.freeze() if self.is_frozen else member.kill())
        return Says(detail=", ".join(member.name for member in hit))

    async def bit(self, stage: Stage) -> str:
        """They are gone or silent."""
        hit: Sequence[Server] = kept(stage, "members", list) or ()
        if not hit:
            raise RuntimeError("no member of an etcd runs here that could be hit")
        seen = [await (silent(one, "/health") if self.is_frozen else gone(one)) for one in hit]
        return "; ".join(seen)

    async def heal(self, stage: Stage) -> None:
        """Let all of them run, and meshds that ended meanwhile."""
        await run_again(stage.clusters, Kind.ETCD)
        await run_again(stage.clusters, Kind.MESHD)
        stage.memory.pop("members", None)


class EtcdMemberKilled(_Members):
    """One member of three is killed."""

    number: ClassVar[int] = 3
    name: ClassVar[str] = "etcd-member-killed"
    summary: ClassVar[str] = "one member of a cluster's etcd is killed"
    behaviour: ClassVar[str] = "another member is used within seconds, nothing is appended twice"
    needs: ClassVar[frozenset[Power]] = frozenset({Power.MEMBERS, Power.KILL})

    def count(self, members: int) -> int:
        """One."""
        return min(1, members)


class EtcdMemberFrozen(EtcdMemberKilled):
    """One member of three stands still, and its connections stay open."""

    name: ClassVar[str] = "etcd-member-frozen"
    summary: ClassVar[str] = "one member of a cluster's etcd stands still"
    needs: ClassVar[frozenset[Power]] = frozenset({Power.MEMBERS, Power.FREEZE})
    is_frozen: ClassVar[bool] = True


class _NoEtcd(_Members):
    """So many members that the etcd takes no more writes."""

    async def bit(self, stage: Stage) -> str:
        """They are gone or silent, a write is refused with a reason, and tables are served on."""
        told = [await super().bit(stage)]
        for meshd in running(stage.clusters, Kind.MESHD):
            told.append(await write_refused(meshd))
            table = await until(meshd, "/v1/tables", lambda it: it["services"] is not None)
            told.append(f"it serves {len(table['services'])} services on")
        return "; ".join(told)


class EtcdDown(_NoEtcd):
    """The whole etcd is killed."""

    number: ClassVar[int] = 4
    name: ClassVar[str] = "etcd-down"
    summary: ClassVar[str] = "a cluster's own etcd is killed, all of it"
    behaviour: ClassVar[str] = "writes are refused, tables are served on, and the processes stay"
    needs: ClassVar[frozenset[Power]] = frozenset({Power.KILL})

    def count(self, members: int) -> int:
        """All."""
        return members


class EtcdQuorumLost(_NoEtcd):
    """Two members of three are killed."""

    number: ClassVar[int] = 5
    name: ClassVar[str] = "etcd-quorum-lost"
    summary: ClassVar[str] = "most members of a cluster's etcd are killed"
    behaviour: ClassVar[str] = "as without an etcd, and those who read it notice within seconds"
    needs: ClassVar[frozenset[Power]] = frozenset({Power.MEMBERS, Power.KILL})

    def count(self, members: int) -> int:
        """The smallest majority."""
        return members // 2 + 1

    async def bit(self, stage: Stage) -> str:
        """And somebody who reads it has lost sight of the cluster."""
        told = [await super().bit(stage)]
        told += [await out_of_sight(cluster, stage) for cluster in stage.clusters]
        return "; ".join(told)


class EtcdQuorumFrozen(EtcdQuorumLost):
    """Two members of three stand still."""

    name: ClassVar[str] = "etcd-quorum-frozen"
    summary: ClassVar[str] = "most members of a cluster's etcd stand still"
    needs: ClassVar[frozenset[Power]] = frozenset({Power.MEMBERS, Power.FREEZE})
    is_frozen: ClassVar[bool] = True


FAULTS: Final[tuple[type[Fault], ...]] = (
    *(KillMeshd, KillMeshdAgain, FreezeMeshd),
    *(EtcdMemberKilled, EtcdMemberFrozen, EtcdDown, EtcdQuorumLost, EtcdQuorumFrozen),
)
