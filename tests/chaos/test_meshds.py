"""Real meshds on in-memory etcds, recorded: what they do holds, and what they are kept from doing
right is found.
"""

from __future__ import annotations

import asyncio
import base64
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from chaos.evidence import Evidence
from chaos.history import (
    Bounds,
    Change,
    Completed,
    Entry,
    FaultBit,
    FaultHealed,
    FaultInjected,
    Invoked,
    Outcome,
    PeerSeen,
    Process,
    RawKey,
    RawLog,
    RunEnded,
    RunStarted,
    StatusRead,
    StreamMessage,
    TableRead,
)
from chaos.validators.judging import judge
from chaos.validators.verdict import Status
from meshd.core.derive import derive_with_digests
from meshd.model.errors import MeshdError
from meshd.model.ids import ClusterName as Name
from meshd.model.ids import Position, format_vector
from tests.chaos.rows import rows_of
from tests.chaos.stories import numbered
from tests.mesh import Mesh, Running, endpoint, service

pytestmark = pytest.mark.looptime

NAMES = ("east", "south", "west")
NS_PER_S = 1_000_000_000
BOUNDS = Bounds(converge_s=30, settle_s=5)


@dataclass
class Recorder:
    """The mesh, and what was seen of it."""

    mesh: Mesh = field(default_factory=lambda: Mesh(names=NAMES))
    entries: list[Entry] = field(default_factory=list)
    up: dict[str, Running] = field(default_factory=dict)
    told: dict[str, dict[Name, Position]] = field(default_factory=dict)
    chance: random.Random = field(default_factory=lambda: random.Random(1))
    ops: int = 0
    starts: int = 0

    def note(self, kind: Any, **fields: Any) -> None:
        at_ns = round(asyncio.get_running_loop().time() * NS_PER_S)
        self.entries.append(kind(at_ns=at_ns, **fields))

    @asynccontextmanager
    async def running(self, name: str) -> AsyncIterator[Running]:
        """A meshd with a subscriber that resumes where the one before ended."""
        self.starts += 1
        process = {"process": name, "cluster": name, "pid": self.starts}
        async with self.mesh.running(name) as meshd, asyncio.TaskGroup() as tasks:
            self.note(Process, change=Change.STARTED, **process)
            self.up[name] = meshd
            subscriber = tasks.create_task(self.subscribe(meshd, self.starts))
            yield meshd
            del self.up[name]
            subscriber.cancel()
            self.note(Process, change=Change.KILLED, status=-9, **process)

    async def subscribe(self, meshd: Running, connection: int) -> None:
        at = self.told.setdefault(meshd.name, {})
        async with aclosing(meshd.parts.node.history.follow(at)) as events:
            async for told in events:
                if told is None:
                    continue
                at[told.position.cluster] = told.position
                is_own = told.position.cluster == meshd.name
                self.note(
                    StreamMessage,
                    subscriber=f"of {meshd.name}",
                    connection=connection,
                    cluster=str(meshd.name),
                    of=str(told.position.cluster),
                    log="local" if is_own else "export/mesh",
                    log_id=told.position.log_id,
                    seq=told.position.seq,
                    type=str(told.event.type),
                    subject=told.event.key,
                )

    async def command(self, name: str) -> None:
        self.ops += 1
        op, key = self.ops, f"key-{self.ops}"
        self.note(Invoked, op=op, cluster=name, caller="c", key=key, command="set an endpoint")
        change = endpoint(
            f"shop/web/{op % 4}", f"10.0.0.{op % 9}", weight=self.chance.randrange(99)
        )
        if op % 7 == 0:
            change = endpoint(f"shop/own/{op % 4}", f"10.1.0.{op % 9}")
        meshd = self.up.get(name)
        if meshd is None:
            self.note(Completed, op=op, outcome=Outcome.UNKNOWN, error="it is dead")
            return
        try:
            done = await meshd.submit(change, cause=key)
        except MeshdError as error:
            self.note(Completed, op=op, outcome=Outcome.UNKNOWN, error=str(error))
            return
        log_id = meshd.parts.node.projector.log_ids[meshd.name]
        seqs = {"first_seq": done.first_seq, "last_seq": done.last_seq} if done.events else {}
        self.note(Completed, op=op, outcome=Outcome.OK, status=200, log_id=log_id, **seqs)

    def look(self, *, anew: bool = False) -> None:
        for meshd in self.up.values():
            projector = meshd.parts.node.projector
            vector = format_vector(projector.vector())
            services = {key: projector.tables.view(key) for key in projector.tables.keys()}  # noqa: SIM118
            table = {str(key): rows_of(view) for key, view in services.items() if view is not None}
            digest = projector.tables.digest if projector.is_settled else ""
            peers = meshd.parts.node.peers.conditions()
            where = {"cluster": str(meshd.name), "vector": vector}
            after = format_vector(projector.log_vector())
            stale = tuple(str(peer.name) for peer in peers if peer.unfresh_s)
            read = {
                "reader": "r",
                "process": str(meshd.name),
                "events_after": after,
                "stale": stale,
                **where,
            }
            self.note(TableRead, digest=digest, services=table, **read)
            seen = tuple(
                PeerSeen(
                    peer.name, str(peer.phase), peer.head.seq if peer.head else 0, peer.unfresh_s
                )
                for peer in peers
            )
            ready = {"process": str(meshd.name), "ready": True, "peers": seen}
            self.note(StatusRead, digest=digest, **ready, **where)
            if anew:
                derived = derive_with_digests(meshd.name, projector.states, projector.log_ids)
                table = {str(key): rows_of(view) for key, view in derived.services.items()}
                self.note(TableRead, digest=derived.digest, services=table, anew=True, **read)

    def dump(self) -> None:
        logs = ["local", "export/mesh", *(f"replica/{name}" for name in NAMES)]
        for name in NAMES:
            for log in logs:
                root = f"/meshd/v1/{log}/".encode()
                found = self.mesh.etcds[name].range(root, root[:-1] + b"0", limit=0, revision=0)
                keys = tuple(
                    RawKey(
                        kv.key.removeprefix(root).decode(),
                        kv.mod_revision,
                        kv.version,
                        base64.b64encode(kv.value).decode(),
                    )
                    for kv in found.kvs
                )
                self.note(RawLog, cluster=name, log=log, keys=keys)

    async def work(self, rounds: int) -> None:
        for _ in range(rounds):
            for name in NAMES:
                await self.command(name)
                await asyncio.sleep(self.chance.uniform(0.05, 0.5))
            self.look()

    async def run(self) -> list[Entry]:
        """Work, kill south's meshd while the others go on, and let it come back."""
        self.note(RunStarted, seed=1, scenario="memory", versions={}, clusters=NAMES, bounds=BOUNDS)
        async with AsyncExitStack() as stack:
            for name in ("east", "west"):
                await stack.enter_async_context(self.running(name))
            async with self.running("south"):
                for meshd in self.up.values():
                    await meshd.submit(service(), service("shop/own", is_global=False))
                await self.work(12)
                self.dump()
                self.note(FaultInjected, fault_id=1, fault="kill", clusters=("south",))
            self.note(FaultBit, fault_id=1, proof="it is gone")
            await asyncio.sleep(1)
            await self.work(12)
            south = await stack.enter_async_context(self.running("south"))
            self.note(FaultHealed, fault_id=1)
            await south.until_ready("east", "west")
            await self.work(3)
            await asyncio.sleep(BOUNDS.converge_s)
            self.look(anew=True)
            self.dump()
            self.note(RunEnded)
        return numbered(self.entries)


async def test_what_meshds_do_holds() -> None:
    judgement = judge(Evidence(await Recorder().run()))
    assert [str(one) for verdict in judgement.violated for one in verdict.violations] == []
    assert judgement.absent == ()
    open_ = {one.invariant for one in judgement.verdicts if one.status is Status.NOT_JUDGED}
    assert open_ == {"I10", "I14", "I16"}


async def test_a_table_that_is_not_kept_up_to_date_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """east's tables don't hear any more of what west does."""
    recorder = Recorder()
    dump = recorder.dump

    def deafened() -> None:
        dump()
        tables = recorder.up["east"].parts.node.projector.tables
        heard = tables.apply

        def hear(cluster: Name, *rest: Any) -> Any:
            return () if cluster == "west" else heard(cluster, *rest)

        monkeypatch.setattr(tables, "apply", hear)
        monkeypatch.setattr(recorder, "dump", dump)

    monkeypatch.setattr(recorder, "dump", deafened)
    judgement = judge(Evidence(await recorder.run()))
    assert {"I11", "I18"} <= {one.invariant for one in judgement.violated}
