"""A writer on an in-memory etcd, with what it needs to read its own log: for tests of `runtime`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from meshd.edges.memory import MemoryEtcd, MemoryKv
from meshd.model.codec import decode_record
from meshd.model.command import Command, Outcome, Submission
from meshd.model.event import Event, Record
from meshd.model.ids import ClusterName, Head
from meshd.model.keyspace import Keyspace, LogKeys
from meshd.model.replica import FollowRules
from meshd.runtime.bootstrap import Identity, ensure_log
from meshd.runtime.follower import Follower, Pace
from meshd.runtime.ports import Clock, Kv
from meshd.runtime.projector import Projector
from meshd.runtime.reading import LogReader
from meshd.runtime.ring import RecordRing
from meshd.runtime.sinks import OwnSink
from meshd.runtime.table_feed import TableFeed
from meshd.runtime.writer import Writer, WriterLimits
from tests.mesh import LoopClock, SeededChance

EAST = ClusterName("east")
SPACE = Keyspace()
LIMITS = WriterLimits(queue_max=1000, submit_timeout_s=10)


@dataclass(slots=True)
class Appender:
    """One meshd's way into its log."""

    kv: MemoryKv
    projector: Projector
    writer: Writer
    follower: Follower

    async def submit(self, *commands: Command, cause: str = "") -> Outcome:
        return await self.writer.submit(Submission(commands, "ann", cause))


def build(
    kv: MemoryKv, clock: Clock | None = None, limits: WriterLimits = LIMITS
) -> tuple[Appender, OwnSink]:
    """Build the parts without running them."""
    clock = clock or LoopClock()
    projector = Projector(EAST, RecordRing(1 << 20), TableFeed("a" * 16))
    sink = OwnSink(projector)
    follower = Follower(
        LogReader(kv, SPACE, SPACE.local, is_local=True),
        sink,
        FollowRules(EAST, has_heartbeat=False),
        Pace(),
        clock,
        SeededChance(),
    )
    writer = Writer(kv, SPACE, projector, (clock, SeededChance(7)), limits)
    return Appender(kv, projector, writer, follower), sink


async def prepare(kv: Kv) -> None:
    """Make the cluster's logs unless they are there."""
    await ensure_log(kv, SPACE, Identity(EAST, 1), LoopClock(), SeededChance())


@asynccontextmanager
async def appending(
    etcd: MemoryEtcd,
    *,
    kv: MemoryKv | None = None,
    clock: Clock | None = None,
    limits: WriterLimits = LIMITS,
) -> AsyncIterator[Appender]:
    """Run a writer and the follower of its own log."""
    await prepare(MemoryKv(etcd))
    it, sink = build(kv or MemoryKv(etcd), clock, limits)
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(it.follower.run()), tasks.create_task(it.writer.run())]
        await sink.complete.wait()
        try:
            yield it
        finally:
            for task in running:
                task.cancel()


async def records_in(
    etcd: MemoryEtcd, keys: LogKeys = SPACE.local, at: Head | None = None
) -> list[Record]:
    """Read a log as an independent client does, and see that it is dense and chained.

    at: where it was cut; None for a log that begins with its beginning.
    """
    found = await MemoryKv(etcd).range(keys.log, keys.log_end)
    records = [decode_record(kv.value, "log") for kv in found.kvs]
    for kv, record in zip(found.kvs, records, strict=True):
        at = at or Head.genesis(record.log_id)
        assert keys.seq_of(kv.key) == record.last_seq
        assert kv.version == 1
        assert (record.first_seq, record.prev_hash) == (at.seq + 1, at.hash)
        at = record.head
    return records


async def events_in(etcd: MemoryEtcd, keys: LogKeys = SPACE.local) -> list[Event]:
    """Read all events of a log."""
    return [event for record in await records_in(etcd, keys) for event in record.events]
