"""A whole mesh in one thread: real daemons' parts on in-memory etcds, time from the event loop.

For: tests of the runtime, under looptime. Not for: the edges, which have tests on real parts.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from meshd.daemon.parts import Parts, World, build, identity_of
from meshd.edges.etcd import EtcdTarget
from meshd.edges.memory import MemoryEtcd, MemoryKv
from meshd.edges.probe import look
from meshd.model.cluster import ClusterInfo
from meshd.model.command import (
    Command,
    IntroduceCluster,
    Outcome,
    SetEndpoint,
    SetService,
    Submission,
)
from meshd.model.endpoint import Endpoint
from meshd.model.ids import ClusterName, EndpointKey, ServiceKey
from meshd.model.keyspace import Keyspace
from meshd.model.peer import Phase
from meshd.model.service import Affinity, Port, Service
from meshd.runtime.bootstrap import ensure_log
from meshd.runtime.ports import Look
from meshd.settings import Settings, load


class LoopClock:
    """Time of the running loop, which looptime makes virtual. ahead_ms: by how much the wall clock
    is wrong.
    """

    def __init__(self) -> None:
        self.ahead_ms = 0

    def monotonic_s(self) -> float:
        return asyncio.get_running_loop().time()

    def wall_ms(self) -> int:
        return 1_700_000_000_000 + round(self.monotonic_s() * 1000) + self.ahead_ms

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class SeededChance:
    def __init__(self, seed: int = 1) -> None:
        self._random = random.Random(seed)

    def uuid_hex(self) -> str:
        return f"{self._random.getrandbits(128):032x}"

    def uniform(self, low: float, high: float) -> float:
        return self._random.uniform(low, high)


@dataclass(slots=True)
class Running:
    """One running meshd."""

    name: ClusterName
    settings: Settings
    parts: Parts
    kv: MemoryKv
    links: dict[str, MemoryKv]

    async def submit(self, *commands: Command, cause: str = "") -> Outcome:
        return await self.parts.node.writer.submit(Submission(commands, "test", cause))

    def phase(self, peer: str) -> Phase:
        condition = self.parts.node.peers.condition(ClusterName(peer))
        assert condition is not None
        return condition.phase

    def eligible(self, key: str) -> list[tuple[str, str, int]]:
        view = self.parts.node.projector.tables.view(ServiceKey.parse(key))
        return [(b.cluster, b.name, b.priority) for b in view.eligible] if view else []

    async def until(self, what: Callable[[], bool], timeout_s: float = 60.0) -> None:
        """Wait for a condition that is looked at whenever something changed here."""
        async with asyncio.timeout(timeout_s):
            while not what():
                changed = self.parts.node.projector.changed
                try:
                    async with asyncio.timeout(0.5):
                        await changed.wait()
                except TimeoutError:
                    continue

    async def until_eligible(self, key: str, expected: list[tuple[str, str, int]]) -> None:
        await self.until(lambda: self.eligible(key) == expected)

    async def until_count(self, key: str, count: int) -> None:
        await self.until(lambda: len(self.eligible(key)) == count)

    async def until_ready(self, *peers: str) -> None:
        await self.until(lambda: all(self.phase(peer) is Phase.READY for peer in peers))


@dataclass(slots=True)
class Mesh:
    """Clusters by name; their etcds outlive their meshds."""

    names: tuple[str, ...] = ("east", "west", "south")
    etcds: dict[str, MemoryEtcd] = field(default_factory=dict)
    clock: LoopClock = field(default_factory=LoopClock)
    overrides: tuple[str, ...] = ()
    peer_fields: str = ""
    ids: dict[str, int] = field(default_factory=dict)
    starts: int = 0
    look: Look = look

    def __post_init__(self) -> None:
        for number, name in enumerate(self.names, 1):
            self.etcds[name] = self.make_etcd(name, number)

    def make_etcd(self, name: str, number: int) -> MemoryEtcd:
        del name
        return MemoryEtcd(self.clock, cluster_id=number)

    def loaded(self, name: str, parts: Parts) -> None:
        """See a meshd before it asks anybody."""

    def clock_of(self, name: str) -> LoopClock:
        del name
        return self.clock

    def settings(self, name: str) -> Settings:
        peers = ",".join(
            f"{{name: {peer}, endpoints: ['{peer}:2379']{self.peer_fields}}}"
            for peer in self.names
            if peer != name
        )
        return load(
            None,
            {},
            (
                f"cluster.name={name}",
                f"cluster.id={self.ids.get(name, self.names.index(name) + 1)}",
                f"peers=[{peers}]",
                *self.overrides,
            ),
        )

    @asynccontextmanager
    async def running(self, name: str, *, is_alone: bool = True) -> AsyncIterator[Running]:
        """Run one meshd; leaving kills it, with no word to anybody. is_alone: whoever still holds
        the leader key is dead, and this is known.
        """
        settings = self.settings(name)
        links: dict[str, MemoryKv] = {}

        def dial(target: EtcdTarget) -> MemoryKv:
            peer = target.endpoints[0].partition(":")[0]
            if peer not in self.etcds:
                # Nobody is there.
                self.etcds[peer] = MemoryEtcd(self.clock)
                self.etcds[peer].set_up(up=False)
            links[peer] = MemoryKv(self.etcds[peer])
            return links[peer]

        kv = MemoryKv(self.etcds[name])
        self.starts += 1
        chance, mark = SeededChance(self.starts), f"start {self.starts}"
        world = World(
            kv,
            self.clock_of(name),
            chance,
            dial,
            lambda _: is_alone,
            process=lambda: mark,
            look=self.look,
        )
        descriptor = await ensure_log(
            kv, Keyspace(), identity_of(settings), world.clock, world.chance
        )
        parts = build(settings, descriptor, world)
        await parts.node.leadership.campaign()
        await parts.load()
        self.loaded(name, parts)
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(parts.own_follower.run()),
                tasks.create_task(parts.node.writer.run()),
                tasks.create_task(parts.node.peers.run()),
                tasks.create_task(parts.presence.run()),
                tasks.create_task(parts.chores.run()),
                tasks.create_task(parts.clearing.run()),
                tasks.create_task(parts.node.registrations.run()),
                tasks.create_task(parts.expiry.run()),
                tasks.create_task(parts.node.prober.run()),
                tasks.create_task(parts.node.operator.run()),
            ]
            if parts.node.publisher is not None:
                running.append(tasks.create_task(parts.node.publisher.run()))
            await parts.own_sink.complete.wait()
            info = ClusterInfo(name=name, id=descriptor.id, audiences=settings.cluster.audiences)
            await parts.node.writer.submit(Submission((IntroduceCluster(info),), "meshd"))
            try:
                yield Running(ClusterName(name), settings, parts, kv, links)
            finally:
                for task in running:
                    task.cancel()


def service(key: str = "shop/web", **fields: object) -> SetService:
    values: dict[str, object] = {"ports": (Port(80, "http"),), "is_global": True}
    values["affinity"] = Affinity.LOCAL
    return SetService(ServiceKey.parse(key), Service(**(values | fields)))  # type: ignore[arg-type]


def endpoint(key: str, address: str = "10.0.0.1", **fields: object) -> SetEndpoint:
    return SetEndpoint(EndpointKey.parse(key), Endpoint(address=address, **fields))  # type: ignore[arg-type]
