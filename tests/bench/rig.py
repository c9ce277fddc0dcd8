"""What is measured: two clusters on real etcds, and a bare gRPC client beside them.

For: starting and ending it. Not for: measuring. The bare client is grpc.aio with the generated
messages and nothing else: what no layer in Python can beat.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from meshd.daemon.parts import Parts, World, build, identity_of, own_target
from meshd.edges.embedded import EmbeddedConfig, EmbeddedEtcd
from meshd.edges.etcd import connect
from meshd.edges.system import SystemChance, SystemClock
from meshd.model.command import Command, SetEndpoint, SetService, Submission
from meshd.model.endpoint import Endpoint
from meshd.model.ids import EndpointKey, ServiceKey
from meshd.model.keyspace import Keyspace
from meshd.model.service import Port, Service
from meshd.runtime.bootstrap import ensure_log
from meshd.settings import load
from tests.bench.places import etcd_at, peers_of

HERE = etcd_at(1)
THERE = etcd_at(2)
SERVICE = ServiceKey("bench", "web")


@dataclass(frozen=True, slots=True)
class Rig:
    """Cluster `here` appends, cluster `there` follows; `raw` is a bare client of here's etcd."""

    here: Parts
    there: Parts
    raw: grpc.aio.Channel

    async def append(self, *commands: Command) -> None:
        """Submit and wait for the acknowledgement."""
        await self.here.node.writer.submit(Submission(commands, "bench"))

    async def until_there(self, seq: int) -> None:
        """Wait until the other cluster's table stands at a seq of the export log."""
        projector = self.there.node.projector
        while (head := projector.head(self.here.node.projector.own)) is None or head.seq < seq:
            await projector.changed.wait()

    @property
    def exported_seq(self) -> int:
        """The export log's seq, as acknowledged here."""
        head = self.here.node.projector.local_head
        return head.exports["mesh"].seq if head else 0


def touch(number: int) -> SetEndpoint:
    """A command that always changes something: an endpoint's weight."""
    address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255 or 1}"
    value = Endpoint(address=address, ports=(Port(8080, "http"),), zone="a", weight=number % 1000)
    return SetEndpoint(EndpointKey(SERVICE, f"web-{number % 2000}"), value)


@asynccontextmanager
async def rig(folder: Path) -> AsyncIterator[Rig]:
    """Run both clusters on fresh etcds below `folder`."""
    async with AsyncExitStack() as stack:
        for name, address in (("here", HERE), ("there", THERE)):
            config = EmbeddedConfig(folder / name, address, peers_of(address), history_kept="")
            await stack.enter_async_context(EmbeddedEtcd(config))
        raw = grpc.aio.insecure_channel(f"ipv4:{HERE}")
        stack.push_async_callback(raw.close)
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        running: list[asyncio.Task[None]] = []
        stack.callback(lambda: [task.cancel() for task in running])
        here = await _start("here", 1, HERE, ("there", THERE), tasks, running)
        there = await _start("there", 2, THERE, ("here", HERE), tasks, running)
        made = Rig(here, there, raw)
        definition = SetService(SERVICE, Service(ports=(Port(80, "http"),), is_global=True))
        await there.node.writer.submit(Submission((definition,), "bench"))
        await made.append(definition)
        await made.until_there(made.exported_seq)
        yield made


async def _start(
    name: str,
    number: int,
    address: str,
    peer: tuple[str, str],
    tasks: asyncio.TaskGroup,
    running: list[asyncio.Task[None]],
) -> Parts:
    overrides = (
        f"cluster.name={name}",
        f"cluster.id={number}",
        f"etcd.endpoints={address}",
        f"peers=[{{name: {peer[0]}, endpoints: ['{peer[1]}']}}]",
    )
    settings = load(None, {}, overrides)
    world = World(connect(own_target(settings.etcd)), SystemClock(), SystemChance())
    descriptor = await ensure_log(
        world.kv, Keyspace(), identity_of(settings), world.clock, world.chance
    )
    parts = build(settings, descriptor, world)
    await parts.node.leadership.campaign()
    work = (
        parts.own_follower.run(),
        parts.node.writer.run(),
        parts.node.peers.run(),
        parts.presence.run(),
    )
    running.extend(tasks.create_task(part) for part in work)
    await parts.own_sink.complete.wait()
    return parts
