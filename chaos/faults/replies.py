"""Row 29: an etcd commits, and its answer is lost.

For: the way between a meshd and its own etcd. Not for: ways between clusters (`network`).
Invariants: the wires are laid by the fault and gone with it; then meshds run as configured.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import ClassVar, Final

from chaos.etcds import Etcd
from chaos.faults.boot import as_configured
from chaos.faults.consumers import PATH, unsay
from chaos.faults.fault import Fault, Says, Stage, Usual
from chaos.faults.ground import LOCAL, UNANSWERED, etcd_of, kept, session
from chaos.mesh.shape import Cluster, Power, Server
from chaos.raw import read_log
from chaos.wire import Mode, Wire

ROUNDS: Final = 3
SERVICE: Final = "reply"
AGAIN_AFTER_S: Final = 0.1


@dataclass(slots=True)
class _Laid:
    """The wires to a cluster's etcd. keys: of the commands whose answers were lost."""

    wires: Sequence[Wire]
    stack: AsyncExitStack
    keys: list[str] = field(default_factory=list)

    def set_mode(self, mode: Mode) -> None:
        """The same for all of them."""
        for wire in self.wires:
            wire.set_mode(mode)


class RepliesLost(Usual):
    """Several times a victim's etcd commits an append, and the answer never comes."""

    number: ClassVar[int] = 29
    name: ClassVar[str] = "replies-lost"
    summary: ClassVar[str] = "an etcd commits an append and its answer is lost"
    behaviour: ClassVar[str] = "tried again with the same key it is one event, and the same answer"
    needs: ClassVar[frozenset[Power]] = frozenset(
        {Power.ETCD, Power.KILL, Power.RESTART, Power.BESIDE}
    )
    programs: ClassVar[tuple[str, ...]] = ("etcdctl",)
    hold_s: ClassVar[float] = 0.0
    settings: ClassVar[Mapping[str, object]] = {"etcd.call_timeout_s": 3}
    """So soon a meshd gives up an answer, and asks what became of its question."""

    async def inject(self, stage: Stage) -> Says:
        """Lay wires, lead the meshds over them, and lose answers."""
        for cluster in stage.clusters:
            laid = await _lay(etcd_of(cluster))
            stage.memory[f"laid {cluster.name}"] = laid
            stage.memory[f"led {cluster.name}"] = True
            through = ",".join(wire.listen for wire in laid.wires)
            for meshd in cluster.meshds:
                await meshd.stop()
                await meshd.start_with((f"etcd.endpoints={through}",))
            for number in range(ROUNDS):
                await _lose_one(stage, cluster, laid, number)
        return Says(detail=f"{ROUNDS} answers to appends are lost")

    async def bit(self, stage: Stage) -> str:
        """Each command is one event in the raw log."""
        told = []
        for cluster in stage.clusters:
            laid = kept(stage, f"laid {cluster.name}", _Laid)
            if laid is None:
                raise RuntimeError(f"no wires are laid in {cluster.name}: inject comes first")
            causes = read_log(await etcd_of(cluster).dump(), LOCAL).causes()
            counts = [causes.count(key) for key in laid.keys]
            if counts != [1] * ROUNDS:
                raise RuntimeError(f"commands whose answers were lost are {counts} times there")
            told.append(f"{ROUNDS} answers of {cluster.name}'s etcd were lost behind a commit")
        return "; ".join(told)

    async def heal(self, stage: Stage) -> None:
        """Take the wires away."""
        for cluster in stage.clusters:
            laid = kept(stage, f"laid {cluster.name}", _Laid)
            if laid is not None:
                laid.set_mode(Mode.PASS)
                await unsay(cluster, SERVICE)
        await as_configured(stage, "led")
        for cluster in stage.clusters:
            laid = kept(stage, f"laid {cluster.name}", _Laid)
            if laid is not None:
                await laid.stack.aclose()
                del stage.memory[f"laid {cluster.name}"]


async def _lay(etcd: Etcd) -> _Laid:
    """A wire to each member, beside it."""
    async with AsyncExitStack() as stack:
        wires = [
            await stack.enter_async_context(Wire(_beside(member.client), member.client).running())
            for member in etcd.members
        ]
        return _Laid(wires, stack.pop_all())


def _beside(address: str) -> str:
    """Another port of the same host, that nobody listens on."""
    host = address.rpartition(":")[0]
    with socket.socket() as probe:
        probe.bind((host, 0))
        return f"{host}:{probe.getsockname()[1]}"


async def _lose_one(stage: Stage, cluster: Cluster, laid: _Laid, number: int) -> None:
    """Send a command, and lose the etcd's answers once there is something new in its log."""
    etcd, meshd = etcd_of(cluster), cluster.meshds[0]
    key = f"lost-{stage.chance.getrandbits(64):016x}"
    before = await _head(etcd)
    async with asyncio.TaskGroup() as tasks:
        laid.set_mode(Mode.NO_REPLIES)
        try:
            tasks.create_task(_say_until_done(meshd, key, number))
            while await _head(etcd) == before:
                continue
            laid.keys.append(key)
            # What it held back is lost with the connections.
            laid.set_mode(Mode.CUT)
        finally:
            laid.set_mode(Mode.PASS)


async def _head(etcd: Etcd) -> int:
    """The revision of the last append."""
    keys = await etcd.dump(f"{LOCAL}head")
    return next(iter(keys.values()))[1]


async def _say_until_done(meshd: Server, key: str, number: int) -> None:
    """As a client does that was given no answer: again, with the same key."""
    body, headers = {"labels": {"n": str(number)}}, {"Idempotency-Key": key}
    async with session() as asking:
        while True:
            with suppress(*UNANSWERED):
                answer = await asking.ask(meshd, PATH.format(SERVICE), "PUT", body, headers)
                if answer.status == 200:  # noqa: PLR2004 OK
                    return
            await asyncio.sleep(AGAIN_AFTER_S)


FAULTS: Final[tuple[type[Fault], ...]] = (RepliesLost,)
