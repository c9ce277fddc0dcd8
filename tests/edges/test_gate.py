"""What a peer can do to an etcd that it reaches through a gate (I16, I17): follow, and no more.

The etcd behind has no users at all, so that nothing but the gate refuses anything. What is asked is
all that `test_etcd_secure` asks of an etcd with users; here nothing is excused.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import pytest

from meshd.edges.embedded import EmbeddedEtcd
from meshd.edges.etcd import EtcdKv, EtcdTarget
from meshd.edges.etcd.connection import Connection
from meshd.edges.etcd.pb import etcd_pb2 as pb
from meshd.model.codec import Descriptor, Heartbeat, encode_descriptor, encode_head
from meshd.model.codec import encode_heartbeat as encode_beat
from meshd.model.errors import CompactedError, DeniedError, NoSpaceError, TransientError
from meshd.model.ids import ClusterName, Head, LogId, RecordHash, Seq
from meshd.runtime.ports import Delete, Get, ModRevisionIs, Put, Txn, ValueIs
from meshd.runtime.reading import LogReader
from tests.conftest import StartEtcd
from tests.edges.gates import (
    AUDIENCES,
    PASSWORDS,
    gate_before,
    gate_settings,
    raw_calls,
    status_of,
    token_of,
)
from tests.edges.test_etcd_secure import (
    CLOSED,
    CLOSED_RANGES,
    KEYS,
    MESH,
    OPEN,
    ConnectTo,
    fill,
    is_refused,
    keys_of,
    nested,
    watch_once,
)

DENIED = grpc.StatusCode.PERMISSION_DENIED
FORBIDDEN = (
    *("KV/Put", "KV/DeleteRange", "KV/Compact"),
    *("Lease/LeaseGrant", "Lease/LeaseRevoke", "Lease/LeaseKeepAlive", "Lease/LeaseTimeToLive"),
    *("Lease/LeaseLeases", "Cluster/MemberAdd", "Cluster/MemberRemove", "Cluster/MemberUpdate"),
    *("Cluster/MemberList", "Cluster/MemberPromote", "Maintenance/Alarm", "Maintenance/Snapshot"),
    *("Maintenance/Defragment", "Maintenance/Hash", "Maintenance/HashKV"),
    *("Maintenance/MoveLeader", "Maintenance/Downgrade", "Auth/AuthEnable", "Auth/AuthDisable"),
    *("Auth/AuthStatus", "Auth/UserAdd", "Auth/UserGet", "Auth/UserList", "Auth/UserDelete"),
    *("Auth/UserChangePassword", "Auth/UserGrantRole", "Auth/UserRevokeRole", "Auth/RoleAdd"),
    *("Auth/RoleGet", "Auth/RoleList", "Auth/RoleDelete", "Auth/RoleGrantPermission"),
    *("Auth/RoleRevokePermission", "KV/RangeStream", "Whatever/Comes"),
)
"""All of etcd's API that a follower doesn't use, and what may yet be added to it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Behind:
    """An etcd and the address of the gate in front of it."""

    etcd: EmbeddedEtcd
    address: str
    folder: Path


@pytest.fixture
async def behind(
    etcd: EmbeddedEtcd, connect_to: ConnectTo, free_address: Callable[[], str], tmp_path: Path
) -> AsyncIterator[Behind]:
    """Give an etcd that holds something under every key, behind a gate for two audiences."""
    kv = connect_to(etcd)
    for key in (*OPEN, *CLOSED):
        await kv.commit(Txn(success=(Put(key, b"1"),)))
    head = Head(LogId("f" * 32), Seq(1), RecordHash(b"\x00" * 16))
    descriptor = Descriptor(ClusterName("east"), 1, 1, 1, 1)
    values = (
        (KEYS.descriptor, encode_descriptor(descriptor)),
        (MESH.head, encode_head(head)),
        (MESH.heartbeat, encode_beat(Heartbeat(7, 7, "", ""))),
    )
    await kv.commit(Txn(success=tuple(Put(key, value) for key, value in values)))
    address = free_address()
    async with gate_before(etcd, gate_settings(address, tmp_path)):
        yield Behind(etcd, address, tmp_path)


def login(connect_to: ConnectTo, behind: Behind, user: str) -> EtcdKv:
    return connect_to(behind.address, username=user, password=PASSWORDS[user])


async def drain(responses: AsyncIterator[object]) -> None:
    async for _ in responses:
        pass


# --- writes ---------------------------------------------------------------------------------------


async def test_every_write_of_a_peer_is_refused(behind: Behind, connect_to: ConnectTo) -> None:
    peer, own = login(connect_to, behind, "west"), connect_to(behind.etcd)
    before = await own.range(b"\x00", b"\x00")
    for key in (*OPEN, *CLOSED):
        for success in (
            Put(key, b"2"),
            Delete(key),
            Delete(key, key + b"\x00"),
            Delete(key, b"\x00"),
        ):
            assert await is_refused(peer.commit(Txn(success=(success,)))), success
            # Neither behind a read that is allowed, nor in the branch that is not taken.
            hidden = Txn((), (Get(MESH.head),), (success,))
            assert await is_refused(peer.commit(hidden)), success
            beside = Txn((), (Get(MESH.head), success))
            assert await is_refused(peer.commit(beside)), success
    after = await own.range(b"\x00", b"\x00")
    assert (after.kvs, after.revision) == (before.kvs, before.revision)


@pytest.mark.parametrize("user", ["west", ""])
async def test_of_etcds_other_methods_none_is_served(
    behind: Behind, connect_to: ConnectTo, user: str
) -> None:
    token = await token_of(behind.address, user) if user else ""
    own = connect_to(behind.etcd)
    lease = await own.grant_lease(600)
    await own.commit(Txn(success=(Put(KEYS.leader, b"me", lease),)))
    before = await own.range(b"\x00", b"\x00")
    raws = (
        b"",
        pb.PutRequest(key=KEYS.local.head, value=b"evil").SerializeToString(),
        pb.DeleteRangeRequest(key=b"\x00", range_end=b"\x00").SerializeToString(),
        # Also a compaction at this revision, and the end of this lease.
        pb.LeaseRevokeRequest(ID=lease).SerializeToString(),
        pb.CompactionRequest(revision=before.revision).SerializeToString(),
    )
    async with raw_calls(behind.address) as call:
        for method in FORBIDDEN:
            for raw in raws:
                assert await status_of(call(method, raw, token)) is DENIED, method
    after = await own.range(b"\x00", b"\x00")
    assert (after.kvs, after.revision) == (before.kvs, before.revision)
    # History is still there, so nobody has compacted it.
    async with own.watch(b"\x00", b"\x00", start_revision=2) as responses:
        assert (await anext(responses)).is_created
        assert (await anext(responses)).events
    await own.revoke_lease(lease)


@pytest.mark.parametrize(
    "operation",
    [
        pb.RequestOp(request_put=pb.PutRequest(key=KEYS.local.head, value=b"evil")),
        pb.RequestOp(request_put=pb.PutRequest(key=MESH.head, value=b"evil")),
        pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=KEYS.local.head)),
        pb.RequestOp(request_range=pb.RangeRequest(key=KEYS.local.head)),
        pb.RequestOp(request_range=pb.RangeRequest(key=MESH.head)),
    ],
    ids=["write", "write within", "delete", "read", "read within"],
)
async def test_a_nested_transaction_is_refused(
    behind: Behind, connect_to: ConnectTo, operation: pb.RequestOp
) -> None:
    token = await token_of(behind.address, "west")
    own = connect_to(behind.etcd)
    before = await own.range(b"\x00", b"\x00")
    inner = nested(operation)
    allowed = pb.RequestOp(request_range=pb.RangeRequest(key=MESH.head))
    async with raw_calls(behind.address) as call:
        for request in (
            inner,
            pb.TxnRequest(failure=inner.success),
            pb.TxnRequest(success=[allowed, *inner.success]),
            pb.TxnRequest(success=[allowed], failure=inner.success),
            nested(inner.success[0]),
        ):
            assert await status_of(call("KV/Txn", request.SerializeToString(), token)) is DENIED
    after = await own.range(b"\x00", b"\x00")
    assert (after.kvs, after.revision) == (before.kvs, before.revision)


async def test_a_peer_deletes_nothing_while_space_is_used_up(
    start_etcd: StartEtcd, connect_to: ConnectTo, free_address: Callable[[], str], tmp_path: Path
) -> None:
    etcd = await start_etcd(quota_bytes=1_000_000)
    own = connect_to(etcd)
    await own.commit(Txn(success=(Put(MESH.head, b"1"), Put(KEYS.local.head, b"1"))))
    with pytest.raises(NoSpaceError):
        await fill(own)
    before = await own.range(b"\x00", b"\x00")
    address = free_address()
    async with gate_before(etcd, gate_settings(address, tmp_path)):
        token = await token_of(address, "west")
        async with raw_calls(address) as call:
            for key in (MESH.head, KEYS.local.head):
                raw = pb.DeleteRangeRequest(key=key).SerializeToString()
                assert await status_of(call("KV/DeleteRange", raw, token)) is DENIED
            assert await status_of(call("Auth/AuthDisable", b"", token)) is DENIED
        peer = connect_to(address, username="west", password="w")
        assert await is_refused(peer.commit(Txn(success=(Delete(MESH.head),))))
        # What it may read it still reads.
        assert (await peer.range(MESH.head)).count == 1
    after = await own.range(b"\x00", b"\x00")
    assert (after.kvs, after.revision) == (before.kvs, before.revision)


# --- reads ----------------------------------------------------------------------------------------


async def test_every_read_outside_the_audience_is_refused(
    behind: Behind, connect_to: ConnectTo
) -> None:
    peer = login(connect_to, behind, "west")
    without_end = ((key, b"\x00") for key in (KEYS.descriptor, *keys_of(MESH), *CLOSED))
    for key, end in (*((key, b"") for key in CLOSED), *CLOSED_RANGES, *without_end):
        reads = (
            peer.range(key, end),
            peer.range(key, end, limit=1),
            peer.range(key, end, revision=2),
            peer.commit(Txn(success=(Get(key, end),))),
            peer.commit(Txn(success=(Get(MESH.head), Get(key, end)))),
            peer.commit(Txn(failure=(Get(key, end),))),
            watch_once(peer, key, end),
        )
        assert [await is_refused(read) for read in reads] == [True] * len(reads), (key, end)
    for key in (*CLOSED, *OPEN):
        # A compare would tell what is there, too.
        for compare in (ModRevisionIs(key, 0), ValueIs(key, b"1")):
            assert await is_refused(peer.commit(Txn((compare,), (Get(MESH.head),)))), compare


async def test_two_audiences_are_closed_to_each_other(
    behind: Behind, connect_to: ConnectTo
) -> None:
    for user, other in (("west", "eu"), ("south", "mesh")):
        peer = login(connect_to, behind, user)
        for key in keys_of(KEYS.export(AUDIENCES[user])):
            assert (await peer.range(key)).count == 1
        for key in keys_of(KEYS.export(other)):
            assert await is_refused(peer.range(key))
            assert await is_refused(watch_once(peer, key))


async def test_nobody_gets_in_without_a_user(behind: Behind, connect_to: ConnectTo) -> None:
    kv = connect_to(behind.address)
    for key in OPEN:
        assert await is_refused(kv.range(key))
        assert await is_refused(watch_once(kv, key))
        assert await is_refused(kv.commit(Txn(success=(Get(key),))))
    for user, password in (("west", "s"), ("west", ""), ("nobody", "w"), ("root", "r")):
        assert await is_refused(
            connect_to(behind.address, username=user, password=password or " ").range(MESH.head)
        )
    async with raw_calls(behind.address) as call:
        raw = pb.RangeRequest(key=MESH.head).SerializeToString()
        good = await token_of(behind.address, "west")
        assert await status_of(call("KV/Range", raw, good)) is grpc.StatusCode.OK
        swapped = good.replace("west", "south", 1)
        for token in (good[:-1], swapped, "west", "west.", ".", "x" * 99, "nobody.00"):
            status = await status_of(call("KV/Range", raw, token))
            assert status is grpc.StatusCode.UNAUTHENTICATED, token


@pytest.mark.parametrize(
    "field",
    [
        b"\x28\x01",  # sort_order, or a watch's filter
        b"\x30\x01",  # sort_target, or a watch's prev_kv
        b"\x38\x01",  # serializable, or a watch's id
        b"\x40\x01",  # keys_only, or (known) fragment
        b"\x98\x06\x01",  # one that etcd has not thought of yet
    ],
)
async def test_what_is_not_understood_is_not_passed_on(behind: Behind, field: bytes) -> None:
    token = await token_of(behind.address, "west")
    read = pb.RangeRequest(key=MESH.head).SerializeToString() + field
    async with raw_calls(behind.address) as call:
        assert await status_of(call("KV/Range", read, token)) is DENIED
        txn = pb.TxnRequest(success=[pb.RequestOp(request_range=pb.RangeRequest.FromString(read))])
        assert await status_of(call("KV/Txn", txn.SerializeToString(), token)) is DENIED
        for raw in (b"\xff", b"\x0a\x05ab"):
            status = await status_of(call("KV/Range", raw, token))
            assert status is grpc.StatusCode.INVALID_ARGUMENT
        watch = pb.WatchCreateRequest(key=MESH.head, start_revision=1).SerializeToString() + field
        request = pb.WatchRequest(create_request=pb.WatchCreateRequest.FromString(watch))
        if field != b"\x40\x01":
            raw = await call("Watch/Watch", request.SerializeToString(), token)
            assert pb.WatchResponse.FromString(raw).canceled


# --- it does not matter to a follower -------------------------------------------------------------


async def test_a_peer_reads_all_that_following_needs(behind: Behind, connect_to: ConnectTo) -> None:
    peer = login(connect_to, behind, "west")
    for key in OPEN:
        assert (await peer.range(key)).count == 1, key
    reader = LogReader(peer, KEYS, MESH, is_local=False)
    seen = await reader.identify(1)
    assert seen.descriptor is not None
    assert (seen.descriptor.name, seen.beat) == ("east", 7)
    assert seen.at_cursor is not None
    assert len((await reader.window(0, 10)).records) == 2
    async with reader.watch(seen.revision + 1) as watched:
        await anext(watched)
        own = connect_to(behind.etcd)
        await own.commit(Txn(success=(Put(MESH.record(11), b"new"),)))
        assert [record.key_seq for record in (await anext(watched)).records] == [11]


async def test_somebody_elses_client_reads_the_same(behind: Behind) -> None:
    root = MESH.root.decode()
    direct = await etcdctl(behind.etcd.config.client_address, "get", "--prefix", root)
    gated = await etcdctl(behind.address, "--user", "west:w", "get", "--prefix", root)
    assert gated == direct
    assert direct[0] == 0
    for arguments in (("get", "--prefix", root[:-1]), ("put", root, "evil"), ("del", root)):
        status, _ = await etcdctl(behind.address, "--user", "west:w", *arguments)
        assert status != 0, arguments


async def etcdctl(address: str, *arguments: str) -> tuple[int | None, bytes]:
    process = await asyncio.create_subprocess_exec(
        *("etcdctl", "--endpoints", address, "-w", "json", *arguments),
        env=os.environ | {"ETCDCTL_API": "3"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    said, _ = await process.communicate()
    return process.returncode, said


async def test_answers_are_those_of_the_etcd_to_the_byte(behind: Behind) -> None:
    log_in = {"username": "west", "password": "w"}
    direct = Connection(EtcdTarget(endpoints=(behind.etcd.config.client_address,)))
    gated = Connection(EtcdTarget(endpoints=(behind.address,), **log_in))  # type: ignore[arg-type]
    one = pb.RangeRequest(key=MESH.head)
    asked = (
        ("KV/Range", one, pb.RangeResponse),
        ("KV/Range", pb.RangeRequest(key=MESH.head, revision=4), pb.RangeResponse),
        (
            "KV/Range",
            pb.RangeRequest(key=MESH.record(1), range_end=MESH.log_end, limit=1),
            pb.RangeResponse,
        ),
        ("KV/Txn", pb.TxnRequest(success=[pb.RequestOp(request_range=one)]), pb.TxnResponse),
    )
    try:
        for method, request, kind in asked:
            path = f"/etcdserverpb.{method}"
            answers = [await kv.unary(path, request, kind) for kv in (direct, gated)]
            assert answers[0].SerializeToString() == answers[1].SerializeToString()
    finally:
        await direct.close()
        await gated.close()


async def test_history_that_is_gone_is_told_as_by_the_etcd(
    behind: Behind, connect_to: ConnectTo
) -> None:
    own, peer = connect_to(behind.etcd), login(connect_to, behind, "west")
    revision = (await own.range(MESH.head)).revision
    await own.compact(revision)
    gone = []
    for kv in (own, peer):
        async with kv.watch(MESH.head, MESH.log_end, start_revision=2) as responses:
            with pytest.raises(CompactedError) as caught:
                await drain(responses)
        gone.append(caught.value.compact_revision)
        with pytest.raises(CompactedError) as caught:
            await kv.range(MESH.head, revision=revision - 1)
        gone.append(caught.value.compact_revision)
    assert gone[:2] == gone[2:]
    # A watch in the future of this store waits, and says where the store is.
    async with peer.watch(MESH.head, MESH.log_end, start_revision=revision + 9) as responses:
        created = await anext(responses)
        assert created.is_created
        assert created.revision == revision


async def test_a_watch_resumes_at_the_revision_that_it_is_told(
    behind: Behind, connect_to: ConnectTo
) -> None:
    own, peer = connect_to(behind.etcd), login(connect_to, behind, "west")
    written = [
        (await own.commit(Txn(success=(Put(MESH.record(seq), b"r"),)))).revision
        for seq in range(20, 25)
    ]
    for number, revision in enumerate(written):
        async with peer.watch(MESH.head, MESH.log_end, start_revision=revision) as responses:
            await anext(responses)
            seen: list[int] = []
            while len(seen) < len(written) - number:
                seen += [event.kv.mod_revision for event in (await anext(responses)).events]
            assert seen == written[number:]


async def test_without_a_limit_a_range_has_one(behind: Behind, connect_to: ConnectTo) -> None:
    own, peer = connect_to(behind.etcd), login(connect_to, behind, "west")
    for first in range(100, 5200, 100):
        puts = tuple(Put(MESH.record(seq), b"r") for seq in range(first, first + 100))
        await own.commit(Txn(success=puts))
    found = await peer.range(MESH.record(100), MESH.log_end)
    assert (len(found.kvs), found.more, found.count) == (5000, True, 5100)
    assert await is_refused(peer.commit(Txn(success=tuple(Get(MESH.record(n)) for n in range(17)))))


async def test_an_etcd_that_is_down_is_no_refusal(behind: Behind, connect_to: ConnectTo) -> None:
    peer = login(connect_to, behind, "west")
    assert (await peer.range(MESH.head)).count == 1
    await behind.etcd.__aexit__(None, None, None)
    for _ in range(2):
        with pytest.raises(TransientError, match="behind this gate") as caught:
            await peer.range(MESH.head)
        # Where it is tells nobody but us.
        assert behind.etcd.config.client_address not in str(caught.value)
        with pytest.raises(TransientError, match="behind this gate"):
            await watch_once(peer, MESH.head)
    with pytest.raises(DeniedError):
        await peer.range(KEYS.local.head)
