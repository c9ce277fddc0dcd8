"""TLS with client certificates, and logging in, against real etcds."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trustme

from meshd.edges.embedded import EmbeddedEtcd, EmbeddedTls
from meshd.edges.etcd import EtcdKv, TlsFiles
from meshd.model.errors import CompactedError, DeniedError, TransientError
from meshd.runtime.ports import Get, Put, Txn

ConnectTo = Callable[..., EtcdKv]
StartEtcd = Callable[..., Awaitable[EmbeddedEtcd]]


class Certificates:
    """A certificate authority and what it issued, as files."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self._directory = directory
        self._authority = trustme.CA()
        self.ca_file = directory / f"{name}.pem"
        self._authority.cert_pem.write_to_path(self.ca_file)

    def issue(self, *names: str, to: str = "") -> tuple[Path, Path]:
        """Issue a certificate for names or addresses; returns its file and that of its key."""
        issued = self._authority.issue_cert(*names)
        stem = to or names[0]
        cert, key = self._directory / f"{stem}.crt", self._directory / f"{stem}.key"
        cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(key)
        return cert, key

    def server(self, address: str, *names: str) -> EmbeddedTls:
        host = address.rpartition(":")[0]
        cert, key = self.issue(*(names or (host,)), to=f"server-{host}")
        return EmbeddedTls(self.ca_file, cert, key)

    def client(self, *, server_name: str = "") -> TlsFiles:
        return TlsFiles(self.ca_file, *self.issue("meshd.client"), server_name=server_name)


@pytest.fixture
def ours(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


async def start(start_etcd: StartEtcd, address: str, tls: EmbeddedTls) -> EmbeddedEtcd:
    return await start_etcd(client_address=address, tls=tls)


async def test_both_sides_show_certificates(
    start_etcd: StartEtcd,
    connect_to: ConnectTo,
    free_address: Callable[[], str],
    ours: Certificates,
) -> None:
    address = free_address()
    await start(start_etcd, address, ours.server(address))
    kv = connect_to(address, tls=ours.client())
    await kv.commit(Txn(success=(Put(b"a", b"1"),)))
    assert (await kv.range(b"a")).count == 1
    async with kv.watch(b"a", b"", start_revision=2) as responses:
        assert (await anext(responses)).is_created
        assert len((await anext(responses)).events) == 1


async def test_who_has_no_or_a_foreign_certificate_is_turned_away(
    start_etcd: StartEtcd,
    connect_to: ConnectTo,
    free_address: Callable[[], str],
    ours: Certificates,
    tmp_path: Path,
) -> None:
    address = free_address()
    await start(start_etcd, address, ours.server(address))
    theirs = Certificates(tmp_path, "foreign")
    foreign_cert, foreign_key = theirs.issue("meshd.client", to="foreign")
    # It says so quickly and names the endpoint; nothing was sent, so a write's outcome is known.
    for tls in (None, TlsFiles(ours.ca_file), TlsFiles(ours.ca_file, foreign_cert, foreign_key)):
        kv = connect_to(address, tls=tls)
        with pytest.raises((TransientError, DeniedError), match=address):
            await kv.commit(Txn(success=(Put(b"a", b"1"),)))
    kv = connect_to(address, tls=TlsFiles(theirs.ca_file, foreign_cert, foreign_key))
    with pytest.raises(DeniedError, match="CERTIFICATE_VERIFY_FAILED"):
        await kv.range(b"a")
    right = connect_to(address, tls=ours.client())
    assert (await right.range(b"a")).count == 0


async def test_the_server_must_have_the_right_name(
    start_etcd: StartEtcd,
    connect_to: ConnectTo,
    free_address: Callable[[], str],
    ours: Certificates,
) -> None:
    address = free_address()
    await start(start_etcd, address, ours.server(address, "etcd.boutique.example"))
    with pytest.raises((TransientError, DeniedError), match=address):
        await connect_to(address, tls=ours.client()).status()
    named = connect_to(address, tls=ours.client(server_name="etcd.boutique.example"))
    assert (await named.status()).revision == 1


async def test_several_endpoints_each_under_its_own_name(
    start_etcd: StartEtcd,
    connect_to: ConnectTo,
    free_address: Callable[[], str],
    ours: Certificates,
) -> None:
    dead, first, second = free_address(), free_address(), free_address()
    one = await start(start_etcd, first, ours.server(first))
    await start(start_etcd, second, ours.server(second))
    kv = connect_to(first, endpoints=(dead, first, second), tls=ours.client())
    await kv.commit(Txn(success=(Put(b"first", b""),)))
    assert (await kv.range(b"first")).count == 1
    await one.stop()
    # These are two stores, so that one can see who answered.
    assert (await kv.range(b"first")).count == 0


async def test_certificates_can_be_replaced_without_a_restart(
    start_etcd: StartEtcd,
    connect_to: ConnectTo,
    free_address: Callable[[], str],
    ours: Certificates,
    tmp_path: Path,
) -> None:
    address = free_address()
    await start(start_etcd, address, ours.server(address))
    cert, key = Certificates(tmp_path, "foreign").issue("meshd.client")
    kv = connect_to(address, tls=TlsFiles(ours.ca_file, cert, key))
    with pytest.raises((TransientError, DeniedError)):
        await kv.status()
    assert ours.issue("meshd.client") == (cert, key)
    assert (await kv.status()).revision == 1


async def test_a_missing_certificate_is_named(
    connect_to: ConnectTo, free_address: Callable[[], str], tmp_path: Path
) -> None:
    kv = connect_to(free_address(), tls=TlsFiles(tmp_path / "absent.pem"))
    with pytest.raises(DeniedError, match=r"absent\.pem"):
        await kv.status()


@pytest.fixture
def etcdctl(etcd: EmbeddedEtcd) -> Callable[..., None]:
    """Run etcdctl as root on this test's etcd."""
    program = shutil.which("etcdctl")
    if program is None:
        pytest.fail("there is no etcdctl on PATH: run `make test`, which sees to it")

    def run(*arguments: str) -> None:
        subprocess.run(
            [program, "--endpoints", etcd.config.client_address, *arguments],
            env={**os.environ, "ETCDCTL_API": "3"},
            check=True,
            capture_output=True,
        )

    return run


AS_ROOT = ("--user", "root:r")


@pytest.fixture
def guarded(etcd: EmbeddedEtcd, etcdctl: Callable[..., None]) -> EmbeddedEtcd:
    """Give an etcd where user 'peer' may read /open/ and nothing else."""
    etcdctl("user", "add", "root:r")
    etcdctl("user", "grant-role", "root", "root")
    etcdctl("user", "add", "peer:p")
    etcdctl("role", "add", "reader")
    etcdctl("role", "grant-permission", "reader", "read", "/open/", "/open0")
    etcdctl("user", "grant-role", "peer", "reader")
    etcdctl("put", "/open/a", "1")
    etcdctl("put", "/secret/a", "1")
    etcdctl("auth", "enable")
    return etcd


async def test_a_peer_reads_what_it_may_and_nothing_else(
    guarded: EmbeddedEtcd, connect_to: ConnectTo
) -> None:
    kv = connect_to(guarded, username="peer", password="p")
    assert (await kv.range(b"/open/", b"/open0")).count == 1
    for call in (
        kv.range(b"/secret/a"),
        kv.range(b"/", b"0"),
        kv.commit(Txn(success=(Put(b"/open/a", b"2"),))),
        kv.commit(Txn(success=(Get(b"/open/a"), Get(b"/secret/a")))),
    ):
        with pytest.raises(DeniedError, match="permission denied"):
            await call
    async with kv.watch(b"/open/", b"/open0", start_revision=2) as responses:
        assert (await anext(responses)).is_created
        assert len((await anext(responses)).events) == 1
    async with kv.watch(b"/secret/", b"/secret0", start_revision=2) as responses:
        with pytest.raises(DeniedError, match="permission denied"):
            await anext(responses)


async def test_a_peer_learns_what_is_compacted(
    guarded: EmbeddedEtcd, connect_to: ConnectTo
) -> None:
    root = connect_to(guarded, username="root", password="r")
    now = (await root.range(b"/open/a")).revision
    await root.compact(now)
    kv = connect_to(guarded, username="peer", password="p")
    with pytest.raises(CompactedError) as caught:
        await kv.range(b"/open/a", revision=1)
    assert caught.value.compact_revision == now


@pytest.mark.parametrize(("username", "password"), [("", ""), ("peer", "wrong"), ("nobody", "p")])
async def test_who_cannot_log_in_is_denied(
    guarded: EmbeddedEtcd, connect_to: ConnectTo, username: str, password: str
) -> None:
    kv = connect_to(guarded, username=username, password=password)
    with pytest.raises(DeniedError):
        await kv.range(b"/open/a")
    with pytest.raises(DeniedError):
        await kv.commit(Txn(success=(Put(b"/open/a", b"2"),)))
    async with kv.watch(b"/open/a", b"", start_revision=1) as responses:
        with pytest.raises(DeniedError):
            await anext(responses)


async def test_a_token_that_became_invalid_is_replaced(
    guarded: EmbeddedEtcd, connect_to: ConnectTo
) -> None:
    kv = connect_to(guarded, username="root", password="r")
    lease = await kv.grant_lease(60)
    for number in range(2):
        kv._connection._token = f"forgotten.{number}"
        await kv.commit(Txn(success=(Put(b"/open/a", b"%d" % number),)))
        kv._connection._token = f"forgotten.{number}"
        assert (await kv.range(b"/open/a")).kvs[0].value == b"%d" % number
        kv._connection._token = f"forgotten.{number}"
        assert await kv.keep_lease(lease) > 0
        kv._connection._token = f"forgotten.{number}"
        async with kv.watch(b"/open/a", b"", start_revision=2) as responses:
            assert (await anext(responses)).is_created
            assert len((await anext(responses)).events) >= 1


async def test_a_restart_of_etcd_is_survived_with_authentication(
    guarded: EmbeddedEtcd, connect_to: ConnectTo
) -> None:
    kv = connect_to(guarded, username="peer", password="p")
    assert (await kv.range(b"/open/a")).count == 1
    await guarded.stop()
    with pytest.raises(TransientError):
        await kv.range(b"/open/a")
    await guarded.start()
    found = 0
    while not found:
        try:
            found = (await kv.range(b"/open/a")).count
        except TransientError:
            continue
    assert found == 1


async def test_authentication_can_be_switched_on_later(
    etcd: EmbeddedEtcd, connect_to: ConnectTo, etcdctl: Callable[..., None]
) -> None:
    kv = connect_to(etcd, username="root", password="r")
    await kv.commit(Txn(success=(Put(b"a", b"1"),)))
    etcdctl("user", "add", "root:r")
    etcdctl("user", "grant-role", "root", "root")
    etcdctl("auth", "enable")
    await kv.commit(Txn(success=(Put(b"a", b"2"),)))
    etcdctl(*AS_ROOT, "auth", "disable")
    assert (await kv.range(b"a")).kvs[0].value == b"2"
