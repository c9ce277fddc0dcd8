"""Everything that goes on in a mesh under test, begun, paused and brought to its end in order.

For: runners of scenarios. Not for: faults. Invariants: at the end commands stop first; then all are
waited for, then read, and the logs are dumped last, with nothing going on in between: only so can
the last tables be held against the logs. What doesn't come to rest in time is read as it is.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from chaos.mesh.shape import Cluster, Mesh
from chaos.recorder import Recorder
from chaos.traffic import requests, samples
from chaos.traffic.calls import Calls
from chaos.traffic.commands import CALLERS, Caller, callers_of
from chaos.traffic.counters import Counters
from chaos.traffic.dumps import Dumper
from chaos.traffic.mqtt import MqttSubscriber
from chaos.traffic.pacing import Gate
from chaos.traffic.readers import Reader, Standing
from chaos.traffic.subscribers import Subscriber

LOOK_AGAIN_S: Final = 0.2
SEED_BITS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """How much goes on; 0 of something: none of it. Of each cluster: commands_per_s,
    requests_per_s, dumps_every_s. Of each meshd: reads_per_s (a table and a status), anew_every_s.

    The defaults leave two cores some time for five clusters: 25 commands a second, each of which
    comes to five clusters and their subscribers.
    """

    commands_per_s: float = 5.0
    requests_per_s: float = 5.0
    reads_per_s: float = 1.0
    anew_every_s: float = 5.0
    samples_every_s: float = 2.0
    dumps_every_s: float = 15.0


@dataclass(slots=True)
class _Parts:
    """Who takes part."""

    callers: list[Caller] = field(default_factory=list)
    subscribers: list[Subscriber] = field(default_factory=list)
    mqtt: list[MqttSubscriber] = field(default_factory=list)
    readers: list[Reader] = field(default_factory=list)
    dumpers: list[Dumper] = field(default_factory=list)
    clients: list[requests.Client] = field(default_factory=list)


@dataclass(slots=True)
class Traffic:
    """Of one run. counters: what was done so far."""

    mesh: Mesh
    recorder: Recorder
    chance: random.Random
    rates: Rates = field(default_factory=Rates)
    counters: Counters = field(default_factory=Counters)
    unrest: str = ""
    """After `settle`: why the mesh hadn't come to rest; empty if it had."""
    _commands: Gate = field(default_factory=Gate)
    _others: Gate = field(default_factory=Gate)
    _parts: _Parts = field(default_factory=_Parts)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Traffic until the end of the block; it begins once there is what commands are about."""
        async with AsyncExitStack() as stack:
            await self._gather(stack)
            async with asyncio.TaskGroup() as beginning:
                for caller in self._parts.callers[::CALLERS]:
                    beginning.create_task(caller.begin())
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one) for one in self._work()]
                try:
                    yield
                finally:
                    for task in tasks:
                        task.cancel()

    async def _gather(self, stack: AsyncExitStack) -> None:
        calls = await stack.enter_async_context(Calls.opened())
        clusters = list(self.mesh.clusters.values())
        doors = await stack.enter_async_context(requests.backends(clusters))
        seed = self.chance.getrandbits(SEED_BITS)
        for cluster in clusters:
            self._add(cluster, seed, calls)
            chance = random.Random(f"{seed} requests {cluster.name}")  # noqa: S311 drawn again
            readers = [one for one in self._parts.readers if one.meshd.cluster == cluster.name]
            self._parts.clients.append(
                requests.Client(
                    cluster.name, readers, doors, chance, calls.http, self.recorder, self.counters
                )
            )

    def _add(self, cluster: Cluster, seed: int, calls: Calls) -> None:
        parts, seen = self._parts, (self.recorder, self.counters)
        parts.callers += callers_of(cluster, seed, calls, *seen)
        for meshd in cluster.meshds:
            parts.readers.append(Reader(meshd, calls, *seen))
            parts.subscribers.append(Subscriber(f"of {meshd.name}", [meshd], calls, *seen))
        if len(cluster.meshds) > 1:
            name = f"of any in {cluster.name}"
            parts.subscribers.append(Subscriber(name, cluster.meshds, calls, *seen))
        if cluster.broker is not None:
            name = f"mqtt-{cluster.name}"
            parts.mqtt.append(MqttSubscriber(name, cluster.name, cluster.broker, *seen))
        if cluster.etcd is not None:
            parts.dumpers.append(Dumper(cluster, *seen))

    def _work(self) -> list[Coroutine[Any, Any, None]]:
        """All that goes on for ever."""
        parts, rates, gate = self._parts, self.rates, self._others
        work = [one.run() for one in parts.subscribers]
        work += [one.run() for one in parts.mqtt]
        if rates.commands_per_s:
            every_s = CALLERS / rates.commands_per_s
            work += [one.run(every_s, self._commands) for one in parts.callers]
        if rates.requests_per_s:
            work += [one.run(1 / rates.requests_per_s, gate) for one in parts.clients]
        for number, one in enumerate(parts.readers):
            # One after the other: read all at once, a machine that they share has no other work.
            phase = number / len(parts.readers)
            if rates.reads_per_s:
                work.append(one.run(1 / rates.reads_per_s, gate, phase))
            if rates.anew_every_s:
                work.append(one.run_anew(rates.anew_every_s, gate, phase))
        if rates.dumps_every_s:
            work += [one.run(rates.dumps_every_s, gate) for one in parts.dumpers]
        if rates.samples_every_s:
            meshds = [one.meshd for one in parts.readers]
            work.append(samples.run(meshds, self.recorder, rates.samples_every_s, gate))
        return work

    async def pause(self) -> None:
        """No more commands; returns once all are answered, or given up."""
        await self._commands.close()

    def resume(self) -> None:
        """Commands again."""
        self._commands.open()

    async def settle(self, timeout_s: float) -> bool:
        """Bring the run to its end; returns whether all came to rest in that time."""
        await self.pause()
        try:
            async with asyncio.timeout(timeout_s):
                await self._until_calm()
                await self._until_told()
        except TimeoutError:
            pass
        else:
            self.unrest = ""
        await self._others.close()
        async with asyncio.TaskGroup() as tasks:
            for reader in self._parts.readers:
                tasks.create_task(_read_last(reader))
        async with asyncio.TaskGroup() as tasks:
            for dumper in self._parts.dumpers:
                tasks.create_task(dumper.dump())
        return not self.unrest

    async def dump(self) -> None:
        """Dump all logs now."""
        async with asyncio.TaskGroup() as tasks:
            for dumper in self._parts.dumpers:
                tasks.create_task(dumper.dump())

    async def _until_calm(self) -> None:
        """All are ready, see each other, and stand at one vector."""
        while True:
            seen = {one.meshd.name: await one.standing() for one in self._parts.readers}
            self.unrest = _unrest(seen)
            if not self.unrest:
                return
            await asyncio.sleep(LOOK_AGAIN_S)

    async def _until_told(self) -> None:
        """All subscribers have what their meshd has."""
        while True:
            self.unrest = await self._not_told()
            if not self.unrest:
                return
            await asyncio.sleep(LOOK_AGAIN_S)

    async def _not_told(self) -> str:
        ends: dict[str, str] = {}
        for reader in self._parts.readers:
            standing = await reader.standing()
            ends[reader.meshd.cluster] = ends[reader.meshd.name] = standing.events_after
        for one in self._parts.subscribers:
            name = one.meshds[0].name if len(one.meshds) == 1 else one.cluster
            if not ends[name] or not one.was_told(ends[name]):
                return f"subscriber {one.name} stands at {one.place}, its meshd at {ends[name]}"
        for subscriber in self._parts.mqtt:
            if not subscriber.was_told(ends[subscriber.cluster]):
                return f"subscriber {subscriber.name} is behind {ends[subscriber.cluster]}"
        return ""


def _unrest(seen: dict[str, Standing]) -> str:
    for name, standing in seen.items():
        if not standing.is_calm:
            return f"{name}: {standing.why}"
    vectors = {standing.vector for standing in seen.values()}
    return "" if len(vectors) == 1 else f"meshds stand at {len(vectors)} vectors"


async def _read_last(reader: Reader) -> None:
    """A last time everything of a meshd, the table that is kept up to date behind all others."""
    await reader.table_anew()
    await reader.status()
    await reader.table(math.inf)
