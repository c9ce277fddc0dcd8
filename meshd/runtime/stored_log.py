"""A log as it lies in the own cluster's etcd, read whole, once.

For: replicas at the start, snapshots, archives and checks, whether or not a meshd runs. Not for:
following a log (`follower`). Invariants: nothing is written; never more than a window is held; what
is read ends where the log ended when it was opened.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass

from meshd.core.audit import Audit
from meshd.core.snapshot import finish_loading, load_part
from meshd.core.state import ClusterState
from meshd.model.archive import Entry, LogName, Origin
from meshd.model.codec import Cursor, decode_cursor
from meshd.model.errors import CorruptError, NotFoundError
from meshd.model.ids import ClusterName, Head, LogId, Seq
from meshd.model.keyspace import DEFAULT_AUDIENCE, Keyspace, LogKeys
from meshd.model.listed import Skip
from meshd.model.snapshot import Manifest, Part, decode_part, hash_part
from meshd.runtime.ports import Kv
from meshd.runtime.reading import FOLDS_PER_TURN, LogReader


@dataclass(frozen=True, slots=True)
class StoredLog:
    """One log. head: where it ends. snapshot: its valid one, if it has one."""

    origin: Origin
    head: Head
    keys: LogKeys
    reader: LogReader
    snapshot: Manifest | None

    @property
    def first_seq(self) -> Seq:
        """The first event that wasn't cut off."""
        return Seq(self.snapshot.trim.seq + 1 if self.snapshot else 1)

    async def parts(self) -> AsyncGenerator[bytes]:
        """The parts of the snapshot; raises CorruptError if one isn't there any more."""
        snapshot = self.snapshot
        for number in range(len(snapshot.parts) if snapshot else 0):
            seq = snapshot.head.seq if snapshot else 0
            raw = await self.reader.part(seq, number)
            if raw is None:
                raise CorruptError(self.reader.place(seq), f"snapshot part {number} is gone")
            yield raw

    async def entries(self, first_seq: int) -> AsyncGenerator[Entry]:
        """The records from that which holds a seq; raises CorruptError, TransientError."""
        async with aclosing(self.reader.records(first_seq - 1, self.head.seq)) as records:
            async for record, revision in records:
                yield Entry(record, revision, self.reader.place(record.last_seq))


LOCAL = LogName("local")


def own_logs(exports: Iterable[str]) -> list[LogName]:
    """A cluster's own logs: the local one and its export logs, of which one is always there."""
    audiences = sorted({DEFAULT_AUDIENCE, *exports})
    return [LOCAL, *(LogName("export", audience) for audience in audiences)]


async def fold_log(
    reader: LogReader,
    speaker: ClusterName,
    head: Head,
    snapshot: Manifest | None,
    skip: Skip | None = None,
) -> Audit:
    """Fold a log from its snapshot, or its beginning, to `head`; checks the chain all the way.

    skip: what is checked and not folded. The span is that of the records behind the snapshot.
    Raises CorruptError, TransientError.
    """
    audit = Audit(speaker, head.log_id, at=Head.genesis(head.log_id), skip=skip)
    await _fold(reader, audit, snapshot, head.seq)
    if audit.at != head:
        raise CorruptError(reader.place(head.seq), "is not what the head says")
    return audit


async def fold_until(log: StoredLog, seq: Seq, snapshot: Manifest | None) -> ClusterState:
    """Fold a log from a snapshot, or its beginning, up to exactly a seq behind it, which may lie
    inside a record.

    Raises CorruptError, TransientError.
    """
    speaker, log_id = log.origin.speaker, log.head.log_id
    genesis = Head.genesis(log_id)
    audit = Audit(speaker, log_id, at=genesis, skip=log.origin.skip, through_seq=seq)
    last_seq = seq
    if seq > (snapshot.head.seq if snapshot else 0):
        record, _ = await log.reader.holding(seq)
        last_seq = record.last_seq
    await _fold(log.reader, audit, snapshot, last_seq)
    return audit.state


async def _fold(
    reader: LogReader, audit: Audit, snapshot: Manifest | None, through_seq: Seq
) -> None:
    after_seq = Seq(0)
    if snapshot is not None:
        await _load_snapshot(reader, snapshot, audit.speaker, audit.state)
        audit.at, after_seq = snapshot.head, snapshot.head.seq
    given_up_at = 0
    async with aclosing(reader.records(after_seq, through_seq)) as records:
        async for record, revision in records:
            audit.take(Entry(record, revision, reader.place(record.last_seq)))
            # By events, since a record may hold thousands.
            if audit.span.events - given_up_at >= FOLDS_PER_TURN:
                given_up_at = audit.span.events
                await asyncio.sleep(0)


async def _load_snapshot(
    reader: LogReader, manifest: Manifest, speaker: ClusterName, state: ClusterState
) -> None:
    async with aclosing(snapshot_parts(reader, manifest)) as parts:
        async for part in parts:
            load_part(state, part, speaker, manifest)
    finish_loading(state, manifest)


async def snapshot_parts(reader: LogReader, manifest: Manifest) -> AsyncGenerator[Part]:
    """The parts of a snapshot, each checked; raises CorruptError, TransientError."""
    for number, expected in enumerate(manifest.parts):
        where = f"{reader.place(manifest.head.seq)} snapshot part {number}"
        raw = await reader.part(manifest.head.seq, number)
        if raw is None or hash_part(raw) != expected:
            raise CorruptError(where, "is missing" if raw is None else "is not what was written")
        yield decode_part(raw, where)
        await asyncio.sleep(0)


async def open_log(kv: Kv, keyspace: Keyspace, log: LogName, skip: Skip | None = None) -> StoredLog:
    """Find a log and its end. skip: what is passed over of a replica, as the local log says it.

    Raises NotFoundError, TransientError, DeniedError, CorruptError.
    """
    keys = log.keys(keyspace)
    head: Head | None = None
    if log.kind == "replica":
        cursor = await _cursor(kv, keys, log)
        if cursor is not None:
            head, keys = cursor.head, keyspace.replica(ClusterName(log.owner), cursor.place)
    reader = LogReader(kv, keyspace, keys, is_local=log.kind == "local")
    found = await reader.identify(0)
    if found.descriptor is None:
        raise NotFoundError(f"there is no meshd cluster under {keyspace.prefix} in this etcd")
    head = head or found.head
    if head is None:
        raise NotFoundError(f"cluster {found.descriptor.name} has no log {log}")
    passed = skip if skip is not None and skip.log_id == head.log_id else None
    origin = Origin(found.descriptor.name, head.log_id, log, keyspace.prefix, passed)
    is_of_it = found.snapshot is not None and found.snapshot.head.log_id == head.log_id
    return StoredLog(origin, head, keys, reader, found.snapshot if is_of_it else None)


def empty_log(
    kv: Kv, keyspace: Keyspace, holder: ClusterName, log: LogName, log_id: LogId
) -> StoredLog:
    """A log that is known to hold nothing yet, whether or not it is written. holder: in whose etcd
    it lies.
    """
    keys = log.keys(keyspace)
    reader = LogReader(kv, keyspace, keys, is_local=log.kind == "local")
    origin = Origin(holder, log_id, log, keyspace.prefix)
    return StoredLog(origin, Head.genesis(log_id), keys, reader, None)


async def stored_skip(kv: Kv, keyspace: Keyspace, log: LogName) -> Skip | None:
    """What is passed over of a log, out of the local log, where no meshd is asked.

    A local log that can't be folded says nothing: a replica is kept all the same, and whoever folds
    it finds the record. Raises NotFoundError, TransientError, DeniedError.
    """
    if log.kind != "replica":
        return None
    try:
        local = await open_log(kv, keyspace, LOCAL)
        audit = await fold_log(local.reader, local.origin.speaker, local.head, local.snapshot)
    except CorruptError:
        return None
    return audit.state.skip(ClusterName(log.owner))


async def _cursor(kv: Kv, keys: LogKeys, log: LogName) -> Cursor | None:
    found = await kv.range(keys.cursor)
    return decode_cursor(found.kvs[0].value, f"{log}") if found.kvs else None
