"""Rows 8 and 9: etcds that come back with another past than they had.

For: restores and wipes. Not for: history that is gone and was no other (`storage`). Invariants: who
had read what is noted before; whom a restore loses events of is told (`loses`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from chaos.faults.fault import Fault, Says, Stage, Usual
from chaos.faults.ground import SOON, etcd_of, first_of, kept, running, until
from chaos.faults.saying import say, seq_of, unsay
from chaos.faults.signs import run_again, when
from chaos.mesh.shape import CLOSED, OPEN, Cluster, Kind, Power, Server

LOST: Final = 3
"""Events behind a backup: what a restore loses beside the traffic of that time."""
SHARED: Final = "shared"
SHARED_EVENTS: Final = 3
"""Of a service that others offer too: of what a wiped log said of it nothing may stay with them."""


@dataclass(frozen=True, slots=True)
class _Read:
    """What a reader had of a victim before. name: of which service the fault spoke."""

    reader: Server
    log_id: str
    seq: int
    forks: int


class _Replaced(Usual):
    """The victims' etcds come back with another past than they had."""

    needs: ClassVar[frozenset[Power]] = frozenset({Power.ETCD, Power.KILL})
    programs: ClassVar[tuple[str, ...]] = ("etcdctl",)
    hold_s: ClassVar[float] = 3.0
    settings: ClassVar[Mapping[str, object]] = SOON
    is_live: ClassVar[bool] = False
    """Whether the own meshds run meanwhile."""

    async def replace(self, stage: Stage, cluster: Cluster) -> None:
        """Do it to one; its etcd runs afterwards."""
        raise NotImplementedError

    async def inject(self, stage: Stage) -> Says:
        """Note who has read what, end the meshds, replace, start them."""
        for cluster in stage.clusters:
            stage.memory[f"read {cluster.name}"] = await _readers(cluster, stage)
            await self.replace(stage, cluster)
        return Says(loses=tuple(stage.victims))

    async def end_meshds(self, cluster: Cluster) -> None:
        """As who restores an etcd does first, or not."""
        if not self.is_live:
            for meshd in cluster.meshds:
                await meshd.kill()

    async def start_meshds(self, cluster: Cluster) -> None:
        """As who restores an etcd does at last; who wasn't ended need not be started."""
        if not self.is_live:
            await run_again([cluster], Kind.MESHD)

    async def bit(self, stage: Stage) -> str:
        """Of each victim somebody has found another history than it had read."""
        told = []
        for cluster in stage.clusters:
            before: Sequence[_Read] = kept(stage, f"read {cluster.name}", list) or ()
            if self.is_live:
                told += [await _ended(meshd) for meshd in cluster.meshds]
                await run_again([cluster], Kind.MESHD)
            told.append(await first_of(_finds_another(one, cluster.name) for one in before))
        return "; ".join(told)

    async def heal(self, stage: Stage) -> None:
        """See to it that everything runs: what is lost is lost."""
        await run_again(stage.clusters, Kind.ETCD)
        for cluster in stage.clusters if self.is_live else ():
            # One that hasn't noticed yet would end later on.
            for meshd in cluster.meshds:
                await meshd.kill()
        await run_again(stage.clusters, Kind.MESHD)
        for cluster in stage.clusters:
            stage.memory.pop(f"read {cluster.name}", None)


async def _readers(cluster: Cluster, stage: Stage, seq: int = 1) -> list[_Read]:
    """What each meshd of the others has read of a victim, once it is so far."""
    found = []
    for reader in running(stage.others, Kind.MESHD):
        path = f"/v1/peers/{cluster.name}"
        item = await until(reader, path, lambda it: it["seq"] >= seq)
        found.append(_Read(reader, item["log_id"], item["seq"], item["forks"]))
    return found


async def _ended(meshd: Server) -> str:
    """Wait until a meshd has ended by itself, since its own log is another one."""
    await when(_is_gone, meshd)
    return f"{meshd.name} has ended by itself"


async def _is_gone(meshd: Server) -> bool:
    return meshd.pid is None


async def _finds_another(before: _Read, peer: str) -> str:
    def is_another(item: Any) -> bool:
        return bool(item["forks"] > before.forks)

    item = await until(before.reader, f"/v1/peers/{peer}", is_another)
    had = f"had read {before.seq} of {before.log_id} of {peer}"
    return f"{before.reader.name} {had}, and found another history: forks {item['forks']}"


class EtcdRestored(_Replaced):
    """The victims' etcds are restored from a backup, and what came behind it is lost."""

    number: ClassVar[int] = 8
    name: ClassVar[str] = "etcd-restored"
    summary: ClassVar[str] = "a cluster's etcd is restored from an old backup"
    behaviour: ClassVar[str] = (
        "readers notice, the old log and the new one are never mixed, and what is lost is named"
    )

    async def replace(self, stage: Stage, cluster: Cluster) -> None:
        """Back up, say something and have it read, restore."""
        etcd = etcd_of(cluster)
        backup = await etcd.backup()
        await say(cluster, "lost", LOST)
        seq = await seq_of(running([cluster], Kind.MESHD)[0])
        stage.memory[f"read {cluster.name}"] = await _readers(cluster, stage, seq)
        await self.end_meshds(cluster)
        await etcd.restore(backup)
        await etcd.start()
        await self.start_meshds(cluster)


class EtcdRestoredLive(EtcdRestored):
    """The same while the own meshds run."""

    name: ClassVar[str] = "etcd-restored-live"
    summary: ClassVar[str] = "a cluster's etcd is restored while its own meshds run"
    is_live: ClassVar[bool] = True


class EtcdWiped(_Replaced):
    """The victims' etcds are wiped and begin anew, with a shorter log at first."""

    number: ClassVar[int] = 9
    name: ClassVar[str] = "etcd-wiped"
    summary: ClassVar[str] = "a cluster's etcd is wiped, and begins anew"
    behaviour: ClassVar[str] = "old services are withdrawn and new ones come, however long the log"

    async def inject(self, stage: Stage) -> Says:
        """Before it they have all offered a service of which the victims' new logs don't speak."""
        stage.memory[SHARED] = True
        for cluster in (*stage.clusters, *stage.others):
            await say(cluster, SHARED, SHARED_EVENTS)
        for cluster in stage.clusters:
            await _readers(cluster, stage, await seq_of(running([cluster], Kind.MESHD)[0]))
        return await super().inject(stage)

    async def heal(self, stage: Stage) -> None:
        """See to it that everything runs, and take back what others still offer."""
        await super().heal(stage)
        for cluster in (*stage.clusters, *stage.others) if SHARED in stage.memory else ():
            await unsay(cluster, SHARED, SHARED_EVENTS)
        stage.memory.pop(SHARED, None)

    async def replace(self, stage: Stage, cluster: Cluster) -> None:  # noqa: ARG002 others need it
        """Wipe it, and start everything."""
        await self.end_meshds(cluster)
        etcd = etcd_of(cluster)
        await etcd.wipe()
        await etcd.start()
        await self.start_meshds(cluster)


class EtcdWipedLive(EtcdWiped):
    """The same while the own meshds run."""

    name: ClassVar[str] = "etcd-wiped-live"
    summary: ClassVar[str] = "a cluster's etcd is wiped while its own meshds run"
    is_live: ClassVar[bool] = True


class EtcdWipedLonger(EtcdWiped):
    """Nobody looks until the new log is longer than the old one was."""

    name: ClassVar[str] = "etcd-wiped-longer"
    summary: ClassVar[str] = "a cluster's etcd is wiped, and its new log is soon longer than before"
    needs: ClassVar[frozenset[Power]] = frozenset({Power.ETCD, Power.KILL, Power.CUT})

    async def replace(self, stage: Stage, cluster: Cluster) -> None:
        """Cut the links, wipe it, say more than there was, mend them."""
        await self._shape(stage, cluster, is_open=False)
        longest = max(one.seq for one in stage.memory[f"read {cluster.name}"])  # type: ignore[attr-defined]
        await super().replace(stage, cluster)
        stage.memory[f"longer {cluster.name}"] = longest + 1
        await say(cluster, "longer", longest + 1)
        await self._shape(stage, cluster, is_open=True)

    async def _shape(self, stage: Stage, cluster: Cluster, *, is_open: bool) -> None:
        way = OPEN if is_open else CLOSED
        for other in stage.mesh.clusters:
            if other != cluster.name:
                await stage.mesh.network.shape(cluster.name, other, way)
                await stage.mesh.network.shape(other, cluster.name, way)

    async def heal(self, stage: Stage) -> None:
        """Mend the links in any case, and take back what was said."""
        for cluster in stage.clusters:
            await self._shape(stage, cluster, is_open=True)
        await super().heal(stage)
        for cluster in stage.clusters:
            events = kept(stage, f"longer {cluster.name}", int)
            if events is not None:
                await unsay(cluster, "longer", events)
                del stage.memory[f"longer {cluster.name}"]


FAULTS: Final[tuple[type[Fault], ...]] = (
    *(EtcdRestored, EtcdRestoredLive),
    *(EtcdWiped, EtcdWipedLive, EtcdWipedLonger),
)
