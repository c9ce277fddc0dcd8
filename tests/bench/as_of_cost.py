"""What an earlier state costs, as ratios: the `past` part of `make bench`.

The claim: it follows the distance from the nearest snapshot that is kept, and that one's size, and
not the age of the log. A real etcd, a state of 2,000 endpoints, nothing remembered. Times are of
this machine; the ratios are what counts.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from time import perf_counter

from meshd.core.past import base_seq
from meshd.daemon.parts import Parts, World, build, identity_of, own_target
from meshd.edges.embedded import EmbeddedConfig, EmbeddedEtcd
from meshd.edges.etcd import connect
from meshd.edges.system import SystemChance, SystemClock
from meshd.model.command import SetService, Submission
from meshd.model.ids import Position, Seq
from meshd.model.keyspace import Keyspace
from meshd.model.service import Port, Service
from meshd.runtime.bootstrap import ensure_log
from meshd.runtime.past import Past
from meshd.runtime.shortening import sum_up
from meshd.runtime.stored_log import LOCAL, open_log
from meshd.settings import load
from tests.bench.places import etcd_at, peers_of
from tests.bench.rig import SERVICE, touch
from tests.bench.tables import Row

ADDRESS = etcd_at(3)
DISTANCES = (1_000, 10_000, 100_000)
AGES = (0, 100_000)
BULK_EVENTS = 500
RUNS = 3


@asynccontextmanager
async def alone(folder: Path) -> AsyncIterator[Parts]:
    """One cluster without peers, whose log nobody shortens but who asks."""
    config = EmbeddedConfig(folder / "etcd", ADDRESS, peers_of(ADDRESS), history_kept="")
    overrides = ("cluster.name=here", "cluster.id=1", f"etcd.endpoints={ADDRESS}")
    async with EmbeddedEtcd(config):
        settings = load(None, {}, overrides)
        world = World(connect(own_target(settings.etcd)), SystemClock(), SystemChance())
        identity = identity_of(settings)
        descriptor = await ensure_log(world.kv, Keyspace(), identity, world.clock, world.chance)
        parts = build(settings, descriptor, world)
        async with asyncio.TaskGroup() as tasks:
            works = (parts.own_follower.run(), parts.node.writer.run())
            running = [tasks.create_task(work) for work in works]
            await parts.own_sink.complete.wait()
            yield parts
            for task in running:
                task.cancel()


_numbers = count(1)


async def grow(parts: Parts, events: int) -> None:
    """Append so many events, each of which changes an endpoint."""
    for _ in range(events // BULK_EVENTS):
        commands = tuple(touch(next(_numbers)) for _ in range(BULK_EVENTS))
        await parts.node.writer.submit(Submission(commands, "bench"))


async def seconds(parts: Parts, seqs: Sequence[int]) -> list[float]:
    """How long it takes to tell the state at these places, by one who remembers nothing."""
    node, taken = parts.node, []
    own = node.projector.own
    for seq in seqs:
        past = Past(node.kv, node.keyspace, node.projector, node.peers, node.clock)
        at = Position(own, node.projector.log_ids[own], Seq(seq))
        start = perf_counter()
        moment = await past.at({own: at})
        taken.append(perf_counter() - start)
        assert moment.states[own].seq == seq
    return taken


async def by_distance(parts: Parts) -> dict[str, list[float]]:
    """Seconds by the age of the log before the snapshot, and the distance behind it."""
    found: dict[str, list[float]] = {}
    node = parts.node
    for age in AGES:
        await grow(parts, age or 2 * BULK_EVENTS * len(AGES))
        log = await open_log(node.kv, node.keyspace, LOCAL)
        base = (await sum_up(node.kv, log, lambda: (), 8)).head.seq
        await grow(parts, max(DISTANCES))
        for distance in DISTANCES:
            log = await open_log(node.kv, node.keyspace, LOCAL)
            assert base_seq(log.snapshot, base + distance) == base
            places = [base + distance - run for run in range(RUNS)]
            found[f"{distance:,} behind a snapshot at {base:,}"] = await seconds(parts, places)
    return found


async def measure_past() -> list[Row]:
    """A row for each distance and age, against the shortest distance in the youngest log."""
    with tempfile.TemporaryDirectory(prefix="meshd-bench-") as folder:
        async with alone(Path(folder)) as parts:
            service = Service(ports=(Port(80, "http"),), is_global=True)
            await parts.node.writer.submit(Submission((SetService(SERVICE, service),), "bench"))
            found = await by_distance(parts)
    first = [one * 1e3 for one in next(iter(found.values()))]
    return [
        Row(f"as-of, {name}", "ms", [one * 1e3 for one in taken], first, "the first of these")
        for name, taken in found.items()
    ]
