"""The first look at the own etcd: whose it is, and a log in it.

For: descriptor and empty logs, made once, and refusing an etcd that is another cluster's. Not for:
reading the log. Invariant: descriptor and heads come into being in one transaction, so there is
never a cluster without a log.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshd.model.codec import (
    PROTOCOL_MAX,
    PROTOCOL_MIN,
    Descriptor,
    LocalHead,
    decode_descriptor,
    encode_descriptor,
    encode_head,
    encode_local_head,
)
from meshd.model.errors import CorruptError, FatalError
from meshd.model.ids import ClusterName, Head, LogId
from meshd.model.keyspace import DEFAULT_AUDIENCE, Keyspace
from meshd.runtime.ports import Chance, Clock, CreateRevisionIs, Get, Kv, Put, Txn, TxnResult


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this cluster is."""

    name: ClusterName
    id: int


async def ensure_log(
    kv: Kv, keyspace: Keyspace, identity: Identity, clock: Clock, chance: Chance
) -> Descriptor:
    """Make the cluster's descriptor and empty logs unless they are there; returns the descriptor.

    Raises FatalError if the etcd belongs to a cluster of another name or id, or holds something
    else under our prefix; TransientError or OutcomeUnknownError if it can't be read (repeating is
    harmless); NoSpaceError if there is no room for a log. What is there is found without a write.
    """
    found = await kv.commit(Txn(success=_both(keyspace)))
    if all(one is not None and not one.kvs for one in found.results):
        mine = Descriptor(identity.name, identity.id, PROTOCOL_MIN, PROTOCOL_MAX, clock.wall_ms())
        found = await kv.commit(_founding(keyspace, mine, chance))
        if found.succeeded:
            return mine
    return _checked(keyspace, identity, found)


def _both(keyspace: Keyspace) -> tuple[Get, ...]:
    return Get(keyspace.descriptor), Get(keyspace.local.head)


def _founding(keyspace: Keyspace, mine: Descriptor, chance: Chance) -> Txn:
    local = Head.genesis(LogId(chance.uuid_hex()))
    export = Head.genesis(LogId(chance.uuid_hex()))
    return Txn(
        compares=(
            CreateRevisionIs(keyspace.descriptor, 0),
            CreateRevisionIs(keyspace.local.head, 0),
        ),
        success=(
            Put(keyspace.descriptor, encode_descriptor(mine)),
            Put(
                keyspace.local.head,
                encode_local_head(LocalHead(local, {DEFAULT_AUDIENCE: export})),
            ),
            Put(keyspace.export().head, encode_head(export)),
        ),
        failure=_both(keyspace),
    )


def _checked(keyspace: Keyspace, identity: Identity, result: TxnResult) -> Descriptor:
    found, head = result.results
    where = keyspace.descriptor.decode()
    if found is None or not found.kvs or head is None or not head.kvs:
        raise FatalError(
            f"the etcd holds a part of a meshd log under {keyspace.prefix} but not all of it;"
            " restore it from a backup, or choose another etcd.prefix"
        )
    try:
        descriptor = decode_descriptor(found.kvs[0].value, where)
    except CorruptError as error:
        raise FatalError(f"{error}; choose another etcd.prefix") from error
    if (descriptor.name, descriptor.id) != (identity.name, identity.id):
        raise FatalError(
            f"this etcd belongs to cluster {descriptor.name!r} with id {descriptor.id}, not to"
            f" {identity.name!r} with id {identity.id}; check cluster.name, cluster.id and"
            " etcd.endpoints"
        )
    return descriptor
