"""A new log in an empty etcd, that continues what was kept of an old one.

For: restoring from a backup, and recovering from a peer. Not for: reading either (`core.audit`).
Invariants: the new logs have ids of their own, so peers take them as another generation and no two
histories are merged; nothing counts before the one transaction that makes the cluster's descriptor,
so a founding that failed can be repeated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from meshd.core.snapshot import manifest_of, obstacle, parts_of
from meshd.core.state import ClusterState
from meshd.model.codec import (
    PROTOCOL_MAX,
    PROTOCOL_MIN,
    Descriptor,
    LocalHead,
    encode_descriptor,
    encode_head,
    encode_local_head,
)
from meshd.model.errors import Problem, RejectedError
from meshd.model.ids import Head, LogId
from meshd.model.keyspace import Keyspace, LogKeys
from meshd.model.snapshot import encode_manifest, hash_part
from meshd.runtime.bootstrap import Identity
from meshd.runtime.ports import Chance, Clock, CreateRevisionIs, Delete, Kv, Put, Txn


@dataclass(frozen=True, slots=True)
class Kept:
    """What was kept of a log: what it came to, and where that was."""

    state: ClusterState
    head: Head


async def found(
    kv: Kv,
    keyspace: Keyspace,
    identity: Identity,
    local: Kept,
    exports: Mapping[str, Kept],
    doors: tuple[Clock, Chance],
) -> LocalHead:
    """Found the logs of a cluster; returns their heads.

    Raises RejectedError if the etcd holds a cluster already, TransientError, OutcomeUnknownError or
    NoSpaceError if it didn't come to an end.
    """
    clock, chance = doors
    if (await kv.range(keyspace.descriptor)).kvs:
        raise _occupied(keyspace)
    heads = {name: _continued(kept, chance) for name, kept in exports.items()}
    local_head = LocalHead(_continued(local, chance), heads)
    puts = await _write(kv, keyspace.local, local, local_head.local)
    for name, kept in exports.items():
        keys = keyspace.export(name)
        puts += await _write(kv, keys, kept, heads[name])
        puts += (Put(keys.head, encode_head(heads[name])),)
    descriptor = Descriptor(identity.name, identity.id, PROTOCOL_MIN, PROTOCOL_MAX, clock.wall_ms())
    result = await kv.commit(
        Txn(
            compares=(
                CreateRevisionIs(keyspace.descriptor, 0),
                CreateRevisionIs(keyspace.local.head, 0),
            ),
            success=(
                *puts,
                Put(keyspace.descriptor, encode_descriptor(descriptor)),
                Put(keyspace.local.head, encode_local_head(local_head)),
            ),
        )
    )
    if not result.succeeded:
        raise _occupied(keyspace)
    return local_head


def _continued(kept: Kept, chance: Chance) -> Head:
    """The same place, with the same hash for the next record to name, in a log of another id."""
    return replace(kept.head, log_id=LogId(chance.uuid_hex()))


def _occupied(keyspace: Keyspace) -> RejectedError:
    return RejectedError(
        (
            Problem(
                "etcd",
                f"holds a meshd cluster under {keyspace.prefix} already",
                "use an empty etcd, or another etcd.prefix",
            ),
        )
    )


async def _write(kv: Kv, keys: LogKeys, kept: Kept, head: Head) -> tuple[Put, ...]:
    """Write the parts of a snapshot at the log's begin; returns what makes it count."""
    reason = obstacle(kept.state)
    if reason:
        raise RejectedError((Problem("log", f"can't be founded: {reason}"),))
    await kv.commit(Txn(success=(Delete(keys.root, keys.root[:-1] + b"0"),)))
    hashes = []
    for number, raw in enumerate(parts_of(kept.state)):
        await kv.commit(Txn(success=(Put(keys.part(head.seq, number), raw),)))
        hashes.append(hash_part(raw))
    manifest = manifest_of(kept.state, head, 0, hashes, None)
    whole = replace(manifest, trim=manifest.mark)
    return (Put(keys.manifest, encode_manifest(whole)),)
