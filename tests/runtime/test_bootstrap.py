"""The first look at the own etcd: one cluster, one log, made once and never made over."""

from __future__ import annotations

import asyncio

import pytest

from meshd.edges.memory import MemoryEtcd, MemoryKv
from meshd.model.codec import (
    PROTOCOL_MAX,
    PROTOCOL_MIN,
    Descriptor,
    LocalHead,
    decode_head,
    decode_local_head,
)
from meshd.model.errors import FatalError, OutcomeUnknownError, TransientError
from meshd.model.ids import GENESIS_HASH, ClusterName
from meshd.model.keyspace import DEFAULT_AUDIENCE
from meshd.runtime.bootstrap import Identity, ensure_log
from meshd.runtime.ports import Delete, Put, Txn
from tests.mesh import LoopClock, SeededChance
from tests.runtime.appending import SPACE

pytestmark = pytest.mark.looptime

EAST = Identity(ClusterName("east"), 1)


@pytest.fixture
def etcd() -> MemoryEtcd:
    return MemoryEtcd(LoopClock())


async def ensure(kv: MemoryKv, identity: Identity = EAST, seed: int = 1) -> Descriptor:
    return await ensure_log(kv, SPACE, identity, LoopClock(), SeededChance(seed))


async def local_head(etcd: MemoryEtcd) -> LocalHead:
    found = await MemoryKv(etcd).range(SPACE.local.head)
    return decode_local_head(found.kvs[0].value, "head")


async def test_an_empty_etcd_becomes_the_clusters(etcd: MemoryEtcd) -> None:
    began_ms = LoopClock().wall_ms()
    descriptor = await ensure(MemoryKv(etcd))
    assert descriptor == Descriptor(EAST.name, 1, PROTOCOL_MIN, PROTOCOL_MAX, began_ms)
    head = await local_head(etcd)
    assert (head.local.seq, head.local.hash) == (0, GENESIS_HASH)
    found = await MemoryKv(etcd).range(SPACE.export().head)
    assert decode_head(found.kvs[0].value, "head") == head.exports[DEFAULT_AUDIENCE]
    # Its own log and what peers read are two logs.
    assert head.local.log_id != head.exports[DEFAULT_AUDIENCE].log_id
    # All of it at once.
    everything = await MemoryKv(etcd).range(b"/meshd/", b"/meshd0")
    assert {kv.mod_revision for kv in everything.kvs} == {etcd.revision}


async def test_a_second_start_finds_what_the_first_made(etcd: MemoryEtcd) -> None:
    descriptor, head = await ensure(MemoryKv(etcd)), await local_head(etcd)
    await asyncio.sleep(5)
    assert await ensure(MemoryKv(etcd), seed=2) == descriptor
    assert await local_head(etcd) == head


async def test_two_first_starts_at_once_make_one_log(etcd: MemoryEtcd) -> None:
    async with asyncio.TaskGroup() as tasks:
        starts = [tasks.create_task(ensure(MemoryKv(etcd), seed=seed)) for seed in range(5)]
    assert len({start.result() for start in starts}) == 1
    found = await MemoryKv(etcd).range(SPACE.local.head)
    assert found.kvs[0].version == 1


async def test_a_lost_reply_may_be_asked_for_again(etcd: MemoryEtcd) -> None:
    kv = MemoryKv(etcd)
    kv.lose_next_reply = True
    with pytest.raises(OutcomeUnknownError):
        await ensure(kv)
    head = await local_head(etcd)
    await ensure(kv, seed=2)
    assert await local_head(etcd) == head


async def test_an_etcd_that_is_down_is_not_an_empty_one(etcd: MemoryEtcd) -> None:
    etcd.set_up(up=False)
    with pytest.raises(TransientError):
        await ensure(MemoryKv(etcd))
    assert etcd.revision == 1


@pytest.mark.parametrize(
    "other", [Identity(ClusterName("west"), 1), Identity(ClusterName("east"), 2)]
)
async def test_another_clusters_etcd_is_refused(etcd: MemoryEtcd, other: Identity) -> None:
    await ensure(MemoryKv(etcd))
    with pytest.raises(FatalError, match="this etcd belongs to cluster 'east' with id 1, not to"):
        await ensure(MemoryKv(etcd), other)


@pytest.mark.parametrize("key", [SPACE.descriptor, SPACE.local.head])
async def test_half_a_cluster_is_not_made_whole_by_guessing(etcd: MemoryEtcd, key: bytes) -> None:
    await ensure(MemoryKv(etcd))
    await MemoryKv(etcd).commit(Txn(success=(Delete(key),)))
    before = etcd.revision
    with pytest.raises(FatalError, match="a part of a meshd log under /meshd/v1 but not all"):
        await ensure(MemoryKv(etcd), seed=2)
    assert etcd.revision == before


async def test_what_is_not_meshds_is_left_alone(etcd: MemoryEtcd) -> None:
    puts = (Put(SPACE.descriptor, b"somebody else's"), Put(SPACE.local.head, b"x"))
    await MemoryKv(etcd).commit(Txn(success=puts))
    with pytest.raises(FatalError, match=r"cluster: not JSON.*choose another etcd.prefix"):
        await ensure(MemoryKv(etcd))
