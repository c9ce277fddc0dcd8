"""Rows 21 to 23: disk, memory and descriptors are short.

For: limits on processes that run (`prlimit`), which need no rights where they are only lowered. Not
for: an etcd's own quota (`storage`). Invariants: only soft limits are touched, so that they can be
given back; a process that ended for it runs again afterwards.
"""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Final

from chaos.faults.consumers import unsay
from chaos.faults.fault import Fault, Says, Stage, Usual
from chaos.faults.ground import (
    ASK_EVERY_S,
    UNANSWERED,
    ask,
    first_of,
    kept,
    running,
    session,
    until,
)
from chaos.mesh.limits import (
    Undo,
    limit_addresses,
    limit_descriptors,
    limit_files,
    limit_memory,
)
from chaos.mesh.shape import Kind, Power, Server

DESCRIPTORS_LEFT: Final = 4
CONNECTIONS: Final = 60
"""More than gaps in the numbers of those that are open; a backlog takes the rest."""
NOBODY_ANSWERS_S: Final = 2.0
"""Twice the second after which asyncio tries again to take connections."""
MEMORY_LEFT_BYTES: Final = 48 * 1024 * 1024
"""What a meshd may still grow by: less than a few large commands need at once."""
KILLED_BEYOND_BYTES: Final = 32 * 1024 * 1024
"""Of new memory: what a process has when it joins a control group isn't counted there."""
LARGE_ENDPOINTS: Final = 10_000
AT_ONCE: Final = 8
SERVICE: Final = "large"


@dataclass(frozen=True, slots=True)
class _Short:
    """A process for which something is short, and how that is undone."""

    server: Server
    pid: int
    undo: Undo

    @property
    def has_ended(self) -> bool:
        """Whether it isn't there any more."""
        return not Path(f"/proc/{self.pid}/fd").exists() or self.server.pid != self.pid


Limiting = Callable[[int], Undo]
"""Makes something short for a process by its number."""


@dataclass(slots=True)
class _Shortage:
    """What one injection has made short."""

    limits: list[_Short] = field(default_factory=list)
    sockets: list[socket.socket] = field(default_factory=list)


def _make_short(stage: Stage, name: str, servers: Sequence[Server], limiting: Limiting) -> None:
    shortage = stage.memory[name] = _Shortage()
    for server in servers:
        if (pid := server.pid) is not None:
            shortage.limits.append(_Short(server, pid, limiting(pid)))


def _shortage_of(stage: Stage, name: str) -> _Shortage:
    found = kept(stage, name, _Shortage)
    if found is None:
        raise RuntimeError("nothing is short: inject comes first")
    return found


async def _end(stage: Stage, name: str, *kinds: Kind) -> None:
    """Give back what was short, and start what ended for it."""
    shortage = kept(stage, name, _Shortage)
    if shortage is None:
        return
    for one in shortage.sockets:
        one.close()
    for limit in shortage.limits:
        limit.undo()
    for cluster in stage.clusters:
        for server in cluster.servers:
            if server.kind in kinds:
                await _started(server)
    del stage.memory[name]


async def _started(server: Server) -> None:
    """Start it unless it runs; again if it was just ending for want of what it was short of."""
    try:
        await server.start()
    except RuntimeError:
        if server.pid is not None:
            raise
        await server.start()


def descriptors(pid: int) -> Sequence[int]:
    """Which are open."""
    return sorted(int(one.name) for one in Path(f"/proc/{pid}/fd").iterdir())


class DiskFull(Usual):
    """The victims' etcds can write no byte more."""

    number: ClassVar[int] = 21
    name: ClassVar[str] = "disk-full"
    summary: ClassVar[str] = "an etcd's files may not grow and not be written any more"
    behaviour: ClassVar[str] = (
        "writes are refused and nothing torn is left; with space it goes on with all that was"
        " acknowledged"
    )
    needs: ClassVar[frozenset[Power]] = frozenset({Power.ETCD, Power.LIMITS, Power.KILL})
    hold_s: ClassVar[float] = 3.0
    settings: ClassVar[Mapping[str, object]] = {"writer.submit_timeout_s": 3}

    async def inject(self, stage: Stage) -> Says:
        """Let no file of theirs be written, as on a full disk."""
        members = running(stage.clusters, Kind.ETCD)
        _make_short(stage, self.name, members, lambda pid: limit_files(pid, 0))
        return Says()

    async def bit(self, stage: Stage) -> str:
        """A write is refused."""
        told = []
        for cluster in stage.clusters:
            meshds = running([cluster], Kind.MESHD)
            refusal = await first_of(_refused(meshd) for meshd in meshds)
            shortage = _shortage_of(stage, self.name)
            ended = [one.server.name for one in shortage.limits if one.has_ended]
            told.append(f"{refusal}; ended: {', '.join(ended) or 'none'}")
        return "; ".join(told)

    async def heal(self, stage: Stage) -> None:
        """Give the space back, start the members that ended without it, and take back what was
        said to see it.
        """
        was_short = self.name in stage.memory
        await _end(stage, self.name, Kind.ETCD)
        for cluster in stage.clusters if was_short else ():
            await unsay(cluster, "disk")


async def _refused(meshd: Server) -> str:
    path, number = "/v1/services/chaos/disk", 0
    while True:
        number += 1
        with suppress(*UNANSWERED):
            answer = await ask(meshd, path, "PUT", {"labels": {"n": str(number)}})
            if answer.status >= 500:  # noqa: PLR2004 the server's own trouble
                return f"{meshd.name} answers {answer.status}: {answer.data['detail']}"
        await asyncio.sleep(ASK_EVERY_S)


class MemoryShort(Usual):
    """The victims' meshds may hardly grow, while large commands come in."""

    number: ClassVar[int] = 22
    name: ClassVar[str] = "memory-short"
    summary: ClassVar[str] = "meshds may hardly use more memory, while large commands come in"
    behaviour: ClassVar[str] = "a command fails, or the process ends and starts again as after kill"
    needs: ClassVar[frozenset[Power]] = frozenset({Power.LIMITS, Power.KILL})
    hold_s: ClassVar[float] = 1.0

    def limiting(self, pid: int) -> Undo:
        """Refuse what is too much."""
        return limit_addresses(pid, MEMORY_LEFT_BYTES)

    async def inject(self, stage: Stage) -> Says:
        """Let them have little more than they have."""
        _make_short(stage, self.name, running(stage.clusters, Kind.MESHD), self.limiting)
        return Says()

    async def bit(self, stage: Stage) -> str:
        """Large commands come in until one fails, or the process ends."""
        shortage = _shortage_of(stage, self.name)
        return await first_of(_overcome(limit) for limit in shortage.limits)

    async def heal(self, stage: Stage) -> None:
        """Give the memory back, start what ended, and remove what was said."""
        was_short = self.name in stage.memory
        await _end(stage, self.name, Kind.MESHD)
        for cluster in stage.clusters if was_short else ():
            await unsay(cluster, SERVICE)


class MemoryKilled(MemoryShort):
    """The kernel ends the victims' meshds, as they use more memory than they may."""

    name: ClassVar[str] = "memory-killed"
    summary: ClassVar[str] = "the kernel ends meshds that use more memory than they may"
    needs: ClassVar[frozenset[Power]] = frozenset({Power.MEMORY, Power.KILL})

    def limiting(self, pid: int) -> Undo:
        """End it for what is too much."""
        return limit_memory(pid, KILLED_BEYOND_BYTES)

    async def bit(self, stage: Stage) -> str:
        """Large commands come in until one of them is gone."""
        limits = _shortage_of(stage, self.name).limits
        return await first_of(_overcome(limit, ended=True) for limit in limits)


async def _overcome(limit: _Short, *, ended: bool = False) -> str:
    """Send large commands at once until it shows. ended: that one fails is not enough."""
    name = limit.server.name
    while True:
        if limit.has_ended:
            return f"{name} ended for want of memory"
        waits = [_large(limit.server, number) for number in range(AT_ONCE)]
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(one) for one in waits]
        failed = [task.result() for task in asked if task.result() >= 500]  # noqa: PLR2004 as above
        if failed and not ended and not limit.has_ended:
            return f"{name} answered {len(failed)} of {AT_ONCE} large commands with {failed[0]}"
        await asyncio.sleep(ASK_EVERY_S)


async def _large(meshd: Server, number: int) -> int:
    """The status of one, 0 without an answer."""
    items = [
        {"name": f"e{one}", "address": f"10.{number}.{one >> 8}.{one & 255}"}
        for one in range(LARGE_ENDPOINTS)
    ]
    names = {"namespace": "chaos", "name": SERVICE}
    body = {
        "apiVersion": "meshd.io/v1",
        "kind": "Endpoints",
        "metadata": names,
        "spec": {"endpoints": items},
    }
    try:
        async with session(timeout_s=30) as asking:
            return (await asking.ask(meshd, "/v1/apply", "POST", body)).status
    except UNANSWERED:
        return 0


class DescriptorsShort(Usual):
    """The victims' meshds have no descriptor left, as idle clients have taken them."""

    number: ClassVar[int] = 23
    name: ClassVar[str] = "descriptors-short"
    summary: ClassVar[str] = "idle clients take the last descriptors of a meshd"
    behaviour: ClassVar[str] = (
        "no more connections are taken, those to etcds stay, and it recovers by itself"
    )
    needs: ClassVar[frozenset[Power]] = frozenset({Power.LIMITS})
    hold_s: ClassVar[float] = 5.0

    async def inject(self, stage: Stage) -> Says:
        """Lower the limit to what is open and a few more, and open connections."""
        meshds = running(stage.clusters, Kind.MESHD)
        _make_short(stage, self.name, meshds, _limit_descriptors)
        sockets = _shortage_of(stage, self.name).sockets
        for meshd in meshds:
            for _ in range(CONNECTIONS):
                sockets.append(await _connected(meshd.address))
        return Says()

    async def bit(self, stage: Stage) -> str:
        """All are in use, and whoever comes then isn't answered."""
        told = []
        for limit in _shortage_of(stage, self.name).limits:
            most = resource.prlimit(limit.pid, resource.RLIMIT_NOFILE)[0]
            while await _has_room(limit, most):  # noqa: ASYNC110 nobody tells us
                await asyncio.sleep(ASK_EVERY_S)
            told.append(f"{limit.server.name} uses all {most} descriptors, and answers nobody new")
        return "; ".join(told)

    async def heal(self, stage: Stage) -> None:
        """Close the connections, give the descriptors back, and wait until it answers again."""
        shortage = kept(stage, self.name, _Shortage)
        await _end(stage, self.name)
        for limit in shortage.limits if shortage is not None else ():
            if limit.server.pid is not None:
                await until(limit.server, "/readyz", lambda it: "ready" in it)


def _limit_descriptors(pid: int) -> Undo:
    return limit_descriptors(pid, descriptors(pid)[-1] + 1 + DESCRIPTORS_LEFT)


async def _has_room(limit: _Short, most: int) -> bool:
    """Whether there are descriptors left, or somebody new is answered."""
    if len(descriptors(limit.pid)) < most:
        return True
    try:
        async with session(NOBODY_ANSWERS_S) as asking:
            await asking.ask(limit.server, "/readyz")
    except UNANSWERED:
        return False
    return True


async def _connected(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    one = socket.socket()
    one.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(one, (host, int(port)))
    except BaseException:
        one.close()
        raise
    return one


FAULTS: Final[tuple[type[Fault], ...]] = (*(DiskFull, MemoryShort, MemoryKilled, DescriptorsShort),)
