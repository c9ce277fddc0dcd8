"""What a peer can do to a real etcd that `meshd etcd secure` has set up (I16, I17)."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trustme

from meshd.edges.embedded import EmbeddedEtcd, EmbeddedTls
from meshd.edges.etcd import EtcdKv, EtcdTarget, TlsFiles
from meshd.edges.etcd.access import (
    Access,
    Action,
    Found,
    Login,
    PeerAccess,
    Permission,
    holes,
    plan,
    remedy,
    wanted,
)
from meshd.edges.etcd.connection import Connection
from meshd.edges.etcd.pb import etcd_pb2 as pb
from meshd.edges.etcd.secure import Request, secure
from meshd.model.codec import Descriptor, Heartbeat, encode_descriptor, encode_head
from meshd.model.codec import encode_heartbeat as encode_beat
from meshd.model.errors import DeniedError, NoSpaceError, RejectedError
from meshd.model.ids import ClusterName, EndpointKey, Head, LogId, RecordHash, Seq
from meshd.model.keyspace import Keyspace, LogKeys
from meshd.runtime.ports import Delete, Get, Kv, ModRevisionIs, Put, Txn, ValueIs
from meshd.runtime.reading import LogReader
from tests.conftest import StartEtcd

ConnectTo = Callable[..., EtcdKv]
KEYS = Keyspace()
MESH = KEYS.export("mesh")
REGISTERED = EndpointKey.parse("shop/web/vm")
PASSWORDS = {"root": "r", "meshd": "m", "west": "w", "south": "s"}
PEERS = (PeerAccess("west"), PeerAccess("south", "eu"))
REQUEST = Request(KEYS, "meshd", PEERS, PASSWORDS)


def keys_of(log: LogKeys) -> tuple[bytes, ...]:
    return (log.root, log.head, log.heartbeat, log.cursor, log.log, log.record(1), log.record(10))


OPEN = (KEYS.descriptor, *keys_of(MESH))
CLOSED = (
    *keys_of(KEYS.local),
    *keys_of(KEYS.export("eu")),
    *keys_of(KEYS.replica(ClusterName("west"))),
    KEYS.leader,
    KEYS.replicas,
    b"/meshd/v1/",
    b"/meshd/v1",
    b"/meshd/v1/export/",
    KEYS.registrations,
    KEYS.registration(REGISTERED),
    # Twins: names that begin like ours, and ours without their end.
    *keys_of(KEYS.export("mesh2")),
    *keys_of(KEYS.export("mes")),
    *keys_of(KEYS.export("mesh-a")),
    MESH.root[:-1],
    KEYS.descriptor + b"s",
    KEYS.descriptor + b"\x00",
    KEYS.descriptor[:-1],
    b"/meshd/v2/cluster",
    b"/registry/secrets",
    b"\x00",
)
CLOSED_RANGES = (
    (b"\x00", b"\x00"),
    (b"\x00", b"\xff"),
    (KEYS.descriptor, KEYS.descriptor + b"\x00\x00"),
    (KEYS.descriptor, MESH.log_end),
    (MESH.head, MESH.root[:-1] + b"0\x00"),
    (MESH.head, KEYS.export("mesh2").log_end),
    (KEYS.export("eu").root, MESH.log_end),
    (b"/meshd/v1/export/", b"/meshd/v1/export0"),
    (b"/meshd/v1/", b"/meshd/v10"),
    (MESH.root[:-1], MESH.log_end),
)


@pytest.fixture
async def secured(etcd: EmbeddedEtcd, connect_to: ConnectTo) -> EmbeddedEtcd:
    """Give an etcd that holds something under every key, secured for two peers of two audiences."""
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
    assert (await secure(target_of(etcd), REQUEST)).steps
    return etcd


def target_of(etcd: EmbeddedEtcd) -> EtcdTarget:
    return EtcdTarget(endpoints=(etcd.config.client_address,))


def login(connect_to: ConnectTo, etcd: EmbeddedEtcd, user: str) -> EtcdKv:
    return connect_to(etcd, username=user, password=PASSWORDS[user])


async def is_refused(call: Awaitable[object]) -> bool:
    try:
        await call
    except DeniedError:
        return True
    return False


async def watch_once(kv: Kv, key: bytes, end: bytes = b"") -> None:
    async with kv.watch(key, end, start_revision=1) as responses:
        assert (await anext(responses)).is_created


async def test_every_write_of_a_peer_is_refused(
    secured: EmbeddedEtcd, connect_to: ConnectTo
) -> None:
    peer = login(connect_to, secured, "west")
    # etcd lets anybody have a lease; there is nothing that it could be put on.
    lease = await peer.grant_lease(60)
    before = await login(connect_to, secured, "root").range(b"\x00", b"\x00")
    for key in (*OPEN, *CLOSED):
        for success in (
            Put(key, b"2"),
            Put(key, b"2", lease),
            Delete(key),
            Delete(key, key + b"\x00"),
            Delete(key, b"\x00"),
        ):
            assert await is_refused(peer.commit(Txn(success=(success,)))), success
            # Neither behind a read that is allowed, nor in the branch that is not taken.
            hidden = Txn((), (Get(MESH.head),), (success,))
            assert await is_refused(peer.commit(hidden)), success
    after = await login(connect_to, secured, "root").range(b"\x00", b"\x00")
    assert (after.kvs, after.revision) == (before.kvs, before.revision)


async def test_every_read_outside_the_audience_is_refused(
    secured: EmbeddedEtcd, connect_to: ConnectTo
) -> None:
    peer = login(connect_to, secured, "west")
    for key, end in (*((key, b"") for key in CLOSED), *CLOSED_RANGES):
        reads = (
            peer.range(key, end),
            peer.range(key, end, limit=1),
            peer.commit(Txn(success=(Get(key, end),))),
            peer.commit(Txn(success=(Get(MESH.head), Get(key, end)))),
            peer.commit(Txn(failure=(Get(key, end),))),
            watch_once(peer, key, end),
        )
        assert [await is_refused(read) for read in reads] == [True] * len(reads), (key, end)
    for key in CLOSED:
        # A compare would tell what is there, too.
        for compare in (ModRevisionIs(key, 0), ValueIs(key, b"1")):
            assert await is_refused(peer.commit(Txn((compare,), (Get(MESH.head),)))), compare


async def test_a_peer_reads_all_that_following_needs(
    secured: EmbeddedEtcd, connect_to: ConnectTo
) -> None:
    peer = login(connect_to, secured, "west")
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
        own = login(connect_to, secured, "meshd")
        await own.commit(Txn(success=(Put(MESH.record(11), b"new"),)))
        assert [record.key_seq for record in (await anext(watched)).records] == [11]


async def test_two_audiences_are_closed_to_each_other(
    secured: EmbeddedEtcd, connect_to: ConnectTo
) -> None:
    for user, own, other in (("west", "mesh", "eu"), ("south", "eu", "mesh")):
        peer = login(connect_to, secured, user)
        for key in keys_of(KEYS.export(own)):
            assert (await peer.range(key)).count == 1
        for key in keys_of(KEYS.export(other)):
            assert await is_refused(peer.range(key))


async def test_a_peer_administers_nothing(secured: EmbeddedEtcd) -> None:
    target = dataclasses.replace(target_of(secured), username="west", password="w")
    connection = Connection(target)
    rest = (
        ("UserAdd", pb.AuthUserAddRequest(name="evil", password="e"), pb.AuthUserAddResponse),
        ("UserList", pb.AuthUserListRequest(), pb.AuthUserListResponse),
        (
            "UserGrantRole",
            pb.AuthUserGrantRoleRequest(user="west", role="root"),
            pb.AuthUserGrantRoleResponse,
        ),
        (
            "UserChangePassword",
            pb.AuthUserChangePasswordRequest(name="root", password="e"),
            pb.AuthUserChangePasswordResponse,
        ),
        (
            "RoleGrantPermission",
            pb.AuthRoleGrantPermissionRequest(
                name="meshd-read-mesh",
                perm=pb.Permission(
                    permType=pb.Permission.READWRITE, key=b"\x00", range_end=b"\x00"
                ),
            ),
            pb.AuthRoleGrantPermissionResponse,
        ),
    )
    try:
        for method, request, response in rest:
            call = connection.unary("/etcdserverpb.Auth/" + method, request, response, writes=True)
            assert await is_refused(call), method
    finally:
        await connection.close()


async def test_a_peer_cannot_end_the_leaders_lease(
    secured: EmbeddedEtcd, connect_to: ConnectTo
) -> None:
    own = login(connect_to, secured, "meshd")
    lease = await own.grant_lease(60)
    await own.commit(Txn(success=(Put(KEYS.leader, b"me", lease),)))
    assert await is_refused(login(connect_to, secured, "west").revoke_lease(lease))
    assert (await own.range(KEYS.leader)).kvs[0].lease == lease


async def test_a_peer_cannot_end_a_registration(
    secured: EmbeddedEtcd, connect_to: ConnectTo
) -> None:
    own, key = login(connect_to, secured, "meshd"), KEYS.registration(REGISTERED)
    lease = await own.grant_lease(60)
    await own.commit(Txn(success=(Put(key, b"1", lease),)))
    west = login(connect_to, secured, "west")
    assert await is_refused(west.revoke_lease(lease))
    assert await is_refused(west.commit(Txn(success=(Delete(key),))))
    assert (await own.range(key)).kvs[0].lease == lease


async def test_the_own_user_may_do_all_that_the_daemon_does(
    secured: EmbeddedEtcd, connect_to: ConnectTo
) -> None:
    own = login(connect_to, secured, "meshd")
    lease = await own.grant_lease(60)
    for key in (KEYS.descriptor, KEYS.leader, *keys_of(KEYS.local), *keys_of(MESH)):
        await own.commit(Txn((ModRevisionIs(key, 0),), (Put(key, b"1", lease),), (Get(key),)))
        await watch_once(own, key)
    registration = KEYS.registration(REGISTERED)
    await own.commit(Txn(success=(Put(registration, b"1", lease),)))
    assert await own.keep_lease(lease) > 0
    assert min(await own.keep_leases([lease] * 3)) > 0
    assert await own.lease_left_s(lease) > 0
    await own.commit(Txn(success=(Delete(KEYS.replicas, b"/meshd/v1/replica0"),)))
    await own.revoke_lease(lease)
    for key in (b"/meshd/v2/cluster", b"/registry/secrets", b"/meshd/v1"):
        assert await is_refused(own.range(key))
        assert await is_refused(own.commit(Txn(success=(Put(key, b"2"),))))


async def test_who_may_not_know_the_version_can_do_all_else(
    secured: EmbeddedEtcd, connect_to: ConnectTo
) -> None:
    root = login(connect_to, secured, "root")
    assert (await root.status()).version
    await root.compact((await root.range(KEYS.leader)).revision)
    for user in ("meshd", "west"):
        kv = login(connect_to, secured, user)
        # From 3.5.28 on some versions tell it to root alone. It must not look like a dead etcd.
        with contextlib.suppress(DeniedError):
            assert (await kv.status()).version
        assert (await kv.range(MESH.head)).count == 1


async def test_nobody_gets_in_without_a_user(secured: EmbeddedEtcd, connect_to: ConnectTo) -> None:
    kv = connect_to(secured)
    for key in OPEN:
        assert await is_refused(kv.range(key))
        assert await is_refused(kv.commit(Txn(success=(Put(key, b"2"),))))


async def test_a_second_run_changes_nothing_and_drift_is_put_right(
    secured: EmbeddedEtcd, connect_to: ConnectTo
) -> None:
    target = target_of(secured)
    assert (await secure(target, REQUEST)).steps == ()
    moved = dataclasses.replace(REQUEST, peers=(PeerAccess("west", "eu"),))
    shown = (await secure(target, moved, dry_run=True)).steps
    assert [(step.action, step.detail) for step in shown] == [
        (Action.TAKE, "meshd-read-mesh"),
        (Action.GRANT, "meshd-read-eu"),
    ]
    peer = login(connect_to, secured, "west")
    assert (await peer.range(MESH.head)).count == 1
    assert (await secure(target, moved)).steps == shown
    assert await is_refused(peer.range(MESH.head))
    assert (await peer.range(KEYS.export("eu").head)).count == 1
    renewed = dataclasses.replace(REQUEST, passwords={**PASSWORDS, "west": "new"})
    actions = [step.action for step in (await secure(target, renewed)).steps]
    assert actions == [Action.SET_PASSWORD, Action.TAKE, Action.GRANT]
    assert await is_refused(connect_to(secured, username="west", password="w").range(MESH.head))
    renewed_peer = connect_to(secured, username="west", password="new")
    assert (await renewed_peer.range(MESH.head)).count == 1


@pytest.mark.parametrize("password", ["", "wrong"])
async def test_without_roots_password_nothing_is_done(secured: EmbeddedEtcd, password: str) -> None:
    passwords = {**PASSWORDS, "root": password} if password else {}
    request = dataclasses.replace(REQUEST, passwords=passwords)
    with pytest.raises(DeniedError, match="root"):
        await secure(target_of(secured), request)


async def test_who_could_not_log_in_stops_all_before_it_begins(
    etcd: EmbeddedEtcd, connect_to: ConnectTo
) -> None:
    request = dataclasses.replace(REQUEST, passwords={"root": "r"})
    with pytest.raises(RejectedError, match=r"meshd.*west.*south"):
        await secure(target_of(etcd), request)
    await connect_to(etcd).commit(Txn(success=(Put(b"a", b"1"),)))


def test_a_role_that_was_widened_is_narrowed() -> None:
    goal = wanted(KEYS, "meshd", (PeerAccess("west"),), {})
    roles = dict(goal.roles)
    everything = Permission(b"\x00", b"\x00", Access.READWRITE)
    wider = Permission(KEYS.descriptor, b"", Access.READWRITE)
    roles["meshd-read-mesh"] = frozenset(
        {everything, wider, *roles["meshd-read-mesh"]}
        - {Permission(KEYS.descriptor, b"", Access.READ)}
    )
    users = {user.name: frozenset({user.role}) for user in goal.users}
    users["west"] |= {"root"}
    found = Found(True, roles, users)
    assert [(step.action, step.subject, step.detail) for step in plan(goal, found)] == [
        (Action.FORBID, "meshd-read-mesh", "readwrite [\x00, \x00)"),
        (Action.ALLOW, "meshd-read-mesh", "read /meshd/v1/cluster"),
        (Action.TAKE, "west", "root"),
    ]


def test_keyspaces_that_share_an_etcd_do_not_share_roles() -> None:
    goal = wanted(Keyspace("/acme"), "acme", (PeerAccess("west", "eu"),), {"acme": Login.PASSWORD})
    assert set(goal.roles) == {"meshd-own@/acme", "meshd-read-eu@/acme"}


@pytest.mark.parametrize(
    ("own", "peers"), [("root", ()), ("meshd", ("meshd",)), ("meshd", ("west", "west"))]
)
def test_users_that_would_be_one_are_rejected(own: str, peers: tuple[str, ...]) -> None:
    with pytest.raises(RejectedError):
        wanted(KEYS, own, [PeerAccess(name) for name in peers], {})


async def test_users_can_be_known_by_their_certificates_names(
    start_etcd: StartEtcd, connect_to: ConnectTo, tmp_path: Path
) -> None:
    authority = trustme.CA()
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca)
    files = {}
    for name in ("server", "meshd", "west", "stranger"):
        leaf = authority.issue_cert("127.0.0.1", name, common_name=name)
        files[name] = tmp_path / f"{name}.pem"
        leaf.private_key_and_cert_chain_pem.write_to_path(files[name])
    etcd = await start_etcd(tls=EmbeddedTls(ca, files["server"], files["server"]))

    def shown_by(name: str) -> TlsFiles:
        return TlsFiles(ca, files[name], files[name], server_name="server")

    await connect_to(etcd, tls=shown_by("west")).commit(Txn(success=(Put(MESH.head, b"1"),)))
    target = dataclasses.replace(target_of(etcd), tls=shown_by("meshd"))
    request = Request(KEYS, "meshd", (PeerAccess("west"),), {"root": "r"}, by_certificate=True)
    assert len((await secure(target, request)).steps) == 12
    assert (await secure(target, request)).steps == ()
    own, peer, stranger = (
        connect_to(etcd, tls=shown_by(name)) for name in ("meshd", "west", "stranger")
    )
    named = connect_to(etcd, tls=shown_by("meshd"), username="meshd")
    for kv in (own, named):
        await kv.commit(Txn(success=(Put(KEYS.local.head, b"1"),)))
    assert (await peer.range(MESH.head)).count == 1
    for kv, key in ((peer, KEYS.local.head), (stranger, MESH.head)):
        assert await is_refused(kv.range(key))
        assert await is_refused(kv.commit(Txn(success=(Put(MESH.head, b"2"),))))


# --- what etcd itself lets through ----------------------------------------------------------------


def nested(operation: pb.RequestOp) -> pb.TxnRequest:
    """A transaction in a transaction. Our proto has none, so field 4 is written by hand."""
    inner = pb.TxnRequest(success=[operation]).SerializeToString()
    assert len(inner) < 128
    return pb.TxnRequest(success=[pb.RequestOp.FromString(bytes((0x22, len(inner))) + inner)])


@pytest.mark.parametrize(
    "operation",
    [
        pb.RequestOp(request_put=pb.PutRequest(key=KEYS.local.head, value=b"evil")),
        pb.RequestOp(request_range=pb.RangeRequest(key=KEYS.local.head)),
    ],
    ids=["write", "read"],
)
async def test_a_nested_transaction_is_refused_or_warned_of(
    secured: EmbeddedEtcd, operation: pb.RequestOp
) -> None:
    target = dataclasses.replace(target_of(secured), username="west", password="w")
    connection = Connection(target)
    try:
        call = connection.unary("/etcdserverpb.KV/Txn", nested(operation), pb.TxnResponse)
        refused = await is_refused(call)
    finally:
        await connection.close()
    assert refused or "CVE-2026-33343" in await warnings(secured)


async def test_a_watch_without_an_end_is_refused_or_warned_of(
    secured: EmbeddedEtcd, connect_to: ConnectTo
) -> None:
    peer = login(connect_to, secured, "west")
    for key in (KEYS.descriptor, MESH.root):
        assert await is_refused(peer.range(key, b"\x00"))
        refused = await is_refused(watch_once(peer, key, b"\x00"))
        assert refused or "CVE-2026-73499" in await warnings(secured)


async def test_compaction_by_a_peer_is_refused_or_warned_of(
    secured: EmbeddedEtcd, connect_to: ConnectTo
) -> None:
    refused = await is_refused(login(connect_to, secured, "west").compact(3))
    assert refused or "CVE-2026-33413" in await warnings(secured)


async def test_a_peer_deletes_nothing_while_space_is_used_up_or_it_is_warned_of(
    start_etcd: StartEtcd, connect_to: ConnectTo
) -> None:
    etcd = await start_etcd(quota_bytes=1_000_000)
    await secure(target_of(etcd), REQUEST)
    own = login(connect_to, etcd, "meshd")
    await own.commit(Txn(success=(Put(KEYS.local.head, b"1"),)))
    with pytest.raises(NoSpaceError):
        await fill(own)
    peer = login(connect_to, etcd, "west")
    assert await is_refused(peer.range(KEYS.local.head))
    target = dataclasses.replace(target_of(etcd), username="west", password="w")
    connection = Connection(target)
    request = pb.DeleteRangeRequest(key=KEYS.local.head)
    try:
        call = connection.unary("/etcdserverpb.KV/DeleteRange", request, pb.DeleteRangeResponse)
        refused = await is_refused(call)
    finally:
        await connection.close()
    assert refused or "space is used up" in await warnings(etcd)


async def fill(kv: Kv) -> None:
    for _ in range(2000):  # Until it says that it is full, which a fast one does late.
        await kv.commit(Txn(success=(Put(KEYS.local.record(1), b"x" * 200_000),)))


async def warnings(etcd: EmbeddedEtcd) -> str:
    return " ".join((await secure(target_of(etcd), REQUEST, dry_run=True)).holes)


@pytest.mark.parametrize(
    ("version", "count"),
    [
        ("3.3.27", 4),
        ("3.4.23", 4),
        ("3.4.42", 2),
        ("3.5.27", 4),
        ("3.5.28", 2),
        ("3.5.33", 1),
        ("3.6.14", 0),
        ("3.7.0", 1),
        ("3.7.1", 0),
        ("3.8.0-rc.0", 0),
        ("4.0.0", 0),
        ("unknown", 1),
    ],
)
def test_the_holes_of_a_version_are_known(version: str, count: int) -> None:
    assert len(holes(version)) == count


@pytest.mark.parametrize("version", ["3.3.27", "3.4.23", "3.4.42", "3.5.33", "3.7.0", "unknown"])
def test_where_there_are_holes_a_remedy_is_named(version: str) -> None:
    newer = {"3.7.0": "3.7.1"}.get(version, "3.6.14")
    assert f"etcd {newer} or newer" in remedy(version)
    assert "gate.listen" in remedy(version)


def test_where_there_are_none_nothing_is_said() -> None:
    assert remedy("3.6.14") == remedy("3.7.1") == ""
