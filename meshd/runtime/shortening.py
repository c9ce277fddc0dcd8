"""Summing a log up in a snapshot, and cutting it behind one.

For: local logs, export logs and replicas alike. Not for: when to (`core.retention`), nor by whom
(`chores`). Invariants: a manifest is written after all its parts, and names the same state that the
log folds into; nothing is deleted but records up to the published trim point, and snapshots that no
manifest names; every write compares leadership and, since the etcd may be put back to a backup at
any moment, that the write is still there which it rests on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from meshd.core.retention import SNAPSHOTS_READ, kept_snapshots
from meshd.core.snapshot import manifest_of, obstacle, parts_of
from meshd.model.errors import Problem, RejectedError, TransientError
from meshd.model.ids import RecordHash
from meshd.model.keyspace import LogKeys, prefix_end
from meshd.model.snapshot import (
    PARTS_MAX,
    Manifest,
    Mark,
    decode_manifest,
    encode_manifest,
    hash_part,
)
from meshd.runtime.ports import Compare, Delete, Kv, ModRevisionIs, Operation, Put, Txn
from meshd.runtime.replica_copy import Fence
from meshd.runtime.stored_log import StoredLog, fold_log

DELETED_SEQS_MAX = 10_000
"""Records are deleted in pieces, since etcd serves nobody while it deletes."""


async def sum_up(
    kv: Kv, log: StoredLog, fence: Fence, snapshots_kept: int = SNAPSHOTS_READ
) -> Manifest:
    """Write a snapshot at a log's end. snapshots_kept: how many may be there then.

    Raises RejectedError if there can be none, TransientError, OutcomeUnknownError or NoSpaceError
    if it isn't valid; what was written of it then is cleared by the next one.
    """
    before = log.snapshot
    audit = await fold_log(log.reader, log.origin.speaker, log.head, before, log.origin.skip)
    reason = obstacle(audit.state)
    if reason:
        raise _refused(log, reason)
    hashes: list[RecordHash] = []
    written: tuple[Compare, ...] = ()
    for raw in parts_of(audit.state):
        if len(hashes) == PARTS_MAX:
            raise _refused(log, f"its state takes more than {PARTS_MAX} parts")
        key = log.keys.part(log.head.seq, len(hashes))
        revision = await _commit(kv, fence, (Put(key, raw),), written)
        # Where the last one is, all before it are.
        written = (ModRevisionIs(key, revision),)
        hashes.append(hash_part(raw))
        await asyncio.sleep(0)
    log_bytes = (before.log_bytes if before else 0) + audit.span.size_bytes
    kept = kept_snapshots(before, log.head.seq, snapshots_kept)
    manifest = manifest_of(audit.state, log.head, log_bytes, hashes, before, kept)
    operations: tuple[Operation, ...] = _unnamed_parts(log.keys, manifest)
    if before is not None and before.head.seq in kept:
        # From now on the manifest speaks of another: this one needs its own.
        own = Put(log.keys.kept_manifest(before.head.seq), encode_manifest(before.alone))
        operations = (own, *operations)
    await _put_manifest(kv, fence, log, manifest, (operations, written))
    return manifest


def _refused(log: StoredLog, reason: str) -> RejectedError:
    return RejectedError((Problem(str(log.origin.log), f"can't be summed up: {reason}"),))


async def cut(kv: Kv, log: StoredLog, mark: Mark, fence: Fence) -> Manifest:
    """Delete the records up to a mark, having published it as the trim point.

    Raises as `sum_up` does; records that are left over then are deleted with the next ones.
    """
    before = log.snapshot
    if before is None:
        raise AssertionError("a log without a snapshot can't be cut")
    marks = tuple(other for other in before.marks if other.seq > mark.seq)
    kept = tuple(seq for seq in before.kept if seq >= mark.seq)
    manifest = replace(before, trim=mark, marks=marks, kept=kept)
    unnamed = _unnamed_parts(log.keys, manifest)
    revision = await _put_manifest(kv, fence, log, manifest, (unnamed, ()))
    published = (ModRevisionIs(log.keys.manifest, revision),)
    through_seq = before.trim.seq
    while through_seq < mark.seq:
        through_seq = type(mark.seq)(min(mark.seq, through_seq + DELETED_SEQS_MAX))
        gone = Delete(log.keys.record(0), log.keys.record(through_seq + 1))
        await _commit(kv, fence, (gone,), published)
    return manifest


def _unnamed_parts(keys: LogKeys, manifest: Manifest) -> tuple[Delete, ...]:
    """Everything but this snapshot, the one before it, which may be being read, and those that are
    kept: older ones, and the parts of snapshots that were never finished.
    """
    kept = sorted({manifest.previous_seq, manifest.head.seq, *manifest.kept})
    starts = [keys.parts(0), *(prefix_end(keys.parts(seq)) for seq in kept)]
    ends = [*(keys.parts(seq) for seq in kept), keys.manifest]
    return tuple(Delete(start, end) for start, end in zip(starts, ends, strict=True) if start < end)


async def _put_manifest(
    kv: Kv,
    fence: Fence,
    log: StoredLog,
    manifest: Manifest,
    more: tuple[Sequence[Operation], Sequence[Compare]],
) -> int:
    """Put it if the former one is still there: two leaders must not undo each other's work.

    more: what else is done, and what must hold. Returns the revision of the manifest.
    """
    key = log.keys.manifest
    found = await kv.range(key)
    there = found.kvs[0] if found.kvs else None
    if (decode_manifest(there.value, key.decode()) if there else None) != log.snapshot:
        raise TransientError("another meshd of this cluster shortens this log too")
    unchanged = ModRevisionIs(key, there.mod_revision if there else 0)
    operations, compares = more
    put = Put(key, encode_manifest(manifest))
    return await _commit(kv, fence, (put, *operations), (unchanged, *compares))


async def _commit(
    kv: Kv, fence: Fence, operations: Sequence[Operation], compares: Sequence[Compare]
) -> int:
    """Do it if everything is as it was left; returns the revision."""
    leads = fence()
    if leads is None:
        raise TransientError("another meshd of this cluster leads now")
    txn = Txn(compares=(*leads, *compares), success=tuple(operations))
    result = await kv.commit(txn)
    if not result.succeeded:
        raise TransientError(
            "another meshd of this cluster leads now or shortens this log too, or its etcd was put"
            " back to a backup"
        )
    return result.revision
