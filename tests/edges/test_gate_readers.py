"""Who is let in at the gate, for how long, and what one reader can take from the others."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from meshd.edges.embedded import EmbeddedEtcd
from meshd.edges.etcd import EtcdKv, EtcdTarget, TlsFiles
from meshd.edges.etcd.gate import limits, listening, readers, server
from meshd.edges.etcd.pb import etcd_pb2 as pb
from meshd.edges.etcd.secure import Request, secure
from meshd.model.errors import DeniedError, FatalError, TransientError
from meshd.runtime.ports import Put, Txn
from meshd.settings import GateReader, GateSettings, HostPort, ServerTls
from meshd.telemetry import metrics
from tests.edges.gates import gate_before, gate_settings, raw_calls, status_of, token_of
from tests.edges.test_etcd_secure import KEYS, MESH, ConnectTo, is_refused, watch_once

FreeAddress = Callable[[], str]


@dataclasses.dataclass(frozen=True, slots=True)
class Gated:
    """A gate, its etcd, and the folder of its readers' passwords."""

    etcd: EmbeddedEtcd
    address: str
    folder: Path


@pytest.fixture
async def gated(
    etcd: EmbeddedEtcd, connect_to: ConnectTo, free_address: FreeAddress, tmp_path: Path
) -> AsyncIterator[Gated]:
    await connect_to(etcd).commit(Txn(success=(Put(MESH.head, b"1"), Put(KEYS.local.head, b"1"))))
    address = free_address()
    async with gate_before(etcd, gate_settings(address, tmp_path)):
        yield Gated(etcd, address, tmp_path)


def west(connect_to: ConnectTo, gated: Gated) -> EtcdKv:
    return connect_to(gated.address, username="west", password="w")


def south(connect_to: ConnectTo, gated: Gated) -> EtcdKv:
    return connect_to(gated.address, username="south", password="s")


# --- revoking -------------------------------------------------------------------------------------


@pytest.mark.parametrize("revoke", ["changed", "emptied", "removed"])
async def test_a_reader_is_cut_when_its_password_is_another(
    gated: Gated, connect_to: ConnectTo, revoke: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "RECHECK_S", 0.05)
    peer, other = west(connect_to, gated), south(connect_to, gated)
    eu = KEYS.export("eu")
    async with (
        peer.watch(MESH.head, b"", start_revision=1) as responses,
        other.watch(eu.head, b"", start_revision=1) as others,
    ):
        assert (await anext(responses)).is_created
        assert (await anext(others)).is_created
        await anext(responses)
        file = gated.folder / "west"
        if revoke == "removed":
            file.unlink()
        else:
            file.write_text("new\n" if revoke == "changed" else "\n")
        with pytest.raises(DeniedError, match="invalid auth token"):
            await anext(responses)
        # Neither its token nor its old password is good for anything.
        assert await is_refused(peer.range(MESH.head))
        assert await is_refused(watch_once(peer, MESH.head))
        assert await is_refused(west(connect_to, gated).range(MESH.head))
        assert await is_refused(connect_to(gated.address, username="west").range(MESH.head))
        async with raw_calls(gated.address) as call:
            for name in ("west", "nobody"):
                nothing = pb.AuthenticateRequest(name=name).SerializeToString()
                status = await status_of(call("Auth/Authenticate", nothing))
                assert status is grpc.StatusCode.INVALID_ARGUMENT
        # Nobody else notices.
        own = connect_to(gated.etcd)
        await own.commit(Txn(success=(Put(eu.head, b"2"),)))
        assert (await anext(others)).events
    file.write_text("new\n")
    again = connect_to(gated.address, username="west", password="new")
    for attempt in range(100):
        if not await is_refused(again.range(MESH.head)):
            break
        assert attempt < 99


async def test_a_token_of_another_gate_is_renewed_without_anybody_noticing(
    gated: Gated, connect_to: ConnectTo, free_address: FreeAddress
) -> None:
    """A gate that was restarted has forgotten its tokens."""
    address = free_address()
    peer = connect_to(address, username="west", password="w")
    for _ in range(2):
        async with gate_before(gated.etcd, gate_settings(address, gated.folder)):
            for attempt in range(100):
                try:
                    await watch_once(peer, MESH.head)
                    break
                except TransientError:
                    assert attempt < 99
                    await asyncio.sleep(0.05)
            assert (await peer.range(MESH.head)).count == 1


async def test_of_several_gates_any_will_do(
    gated: Gated, connect_to: ConnectTo, free_address: FreeAddress
) -> None:
    """As for a peer of several meshds, whose gates know nothing of each other's tokens."""
    addresses = (free_address(), free_address())
    settings = [gate_settings(address, gated.folder) for address in addresses]
    peer = connect_to(addresses[0], endpoints=addresses, username="west", password="w")
    async with gate_before(gated.etcd, settings[1]):
        async with gate_before(gated.etcd, settings[0]):
            assert (await peer.range(MESH.head)).count == 1
        for attempt in range(100):
            try:
                await watch_once(peer, MESH.head)
                break
            except TransientError:
                assert attempt < 99
                await asyncio.sleep(0.05)
        assert (await peer.range(MESH.head)).count == 1


async def test_a_gate_before_an_etcd_with_users_has_meshds_own(
    etcd: EmbeddedEtcd, connect_to: ConnectTo, free_address: FreeAddress, tmp_path: Path
) -> None:
    await connect_to(etcd).commit(Txn(success=(Put(MESH.head, b"1"), Put(KEYS.local.head, b"1"))))
    target = EtcdTarget(endpoints=(etcd.config.client_address,))
    await secure(target, Request(KEYS, "meshd", (), {"root": "r", "meshd": "m"}))
    settings = [gate_settings(free_address(), tmp_path) for _ in range(2)]
    peers = [connect_to(str(one.listen), username="west", password="w") for one in settings]
    async with gate_before(etcd, settings[0], username="meshd", password="m"):
        assert (await peers[0].range(MESH.head)).count == 1
        await watch_once(peers[0], MESH.head)
        assert await is_refused(peers[0].range(KEYS.local.head))
    async with gate_before(etcd, settings[1], username="meshd", password="wrong"):
        # What the etcd refuses us is no reader's fault, and it isn't told so.
        with pytest.raises(TransientError, match="behind this gate"):
            await peers[1].range(MESH.head)


# --- limits ---------------------------------------------------------------------------------------


async def test_a_reader_has_so_many_watches_and_no_more(
    gated: Gated, connect_to: ConnectTo
) -> None:
    peer = west(connect_to, gated)
    async with AsyncExitStack() as stack:
        for _ in range(limits.WATCHES_MAX):
            watch = await stack.enter_async_context(peer.watch(MESH.head, b"", start_revision=1))
            assert (await anext(watch)).is_created
        with pytest.raises(TransientError, match="too many requests"):
            await watch_once(peer, MESH.head)
        await watch_once(south(connect_to, gated), KEYS.export("eu").head)
        # Reading is another matter.
        assert (await peer.range(MESH.head)).count == 1
    # What was closed makes room, as soon as the gate has heard of it.
    for attempt in range(100):
        try:
            await watch_once(peer, MESH.head)
            break
        except TransientError:
            assert attempt < 99
            await asyncio.sleep(0.05)


async def test_too_many_reads_at_a_time_are_turned_away(
    gated: Gated, connect_to: ConnectTo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "READS_WAITING_MAX", 0)
    with pytest.raises(TransientError, match="too many requests"):
        await west(connect_to, gated).range(MESH.head)


async def test_who_asks_too_much_waits_and_keeps_nobody_else(
    gated: Gated, connect_to: ConnectTo, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer, other = west(connect_to, gated), south(connect_to, gated)
    eu = KEYS.export("eu")
    assert (await peer.range(MESH.head)).count == 1
    assert (await other.range(eu.head)).count == 0
    monkeypatch.setattr(readers, "PAUSE_S_MAX", 3600.0)
    flood = readers.Reader.pause_s
    monkeypatch.setattr(
        readers.Reader,
        "pause_s",
        lambda self, size, now: flood(self, size * 10**12, now) if self.name == "west" else 0.0,
    )
    async with asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(is_held_up(peer)) for _ in range(3)]
        while any(not task.done() for task in waiting):
            assert (await other.range(eu.head)).count == 0
            await asyncio.sleep(0)
    assert [task.result() for task in waiting] == [True] * 3


async def is_held_up(kv: EtcdKv) -> bool:
    try:
        await kv.range(MESH.head)
    except TransientError as error:
        return "DEADLINE_EXCEEDED" in str(error)
    return False


def sample(metric: str) -> float:
    return metrics.REGISTRY.get_sample_value(metric, {"reader": "west"}) or 0


async def left_on_the_way(call: Any) -> int:
    """Read a stream to its end, which is an error; returns the bytes that were still coming."""
    left_bytes = 0
    try:
        while (message := await call.read()) is not grpc.aio.EOF:
            left_bytes += len(message)
    except grpc.aio.AioRpcError:
        return left_bytes
    raise AssertionError("the stream has ended as if all were said")


@pytest.mark.parametrize("then", ["reads on", "goes", "is revoked"])
async def test_who_takes_nothing_is_cut_and_not_buffered_for(
    gated: Gated, connect_to: ConnectTo, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    monkeypatch.setattr(server, "WRITE_S", 0.2)
    monkeypatch.setattr(readers, "RECHECK_S", 0.05)
    before = sample("meshd_gate_cut_total")
    token = await token_of(gated.address, "west")
    create = pb.WatchCreateRequest(key=MESH.head, range_end=MESH.log_end, start_revision=1)
    own = connect_to(gated.etcd)
    async with grpc.aio.insecure_channel(gated.address) as channel:
        asked = channel.stream_stream("/etcdserverpb.Watch/Watch")
        call = asked(metadata=(("token", token),))
        await call.write(pb.WatchRequest(create_request=create).SerializeToString())
        assert pb.WatchResponse.FromString(await call.read()).created
        # More than sockets and HTTP/2 hold between them.
        for seq in range(1, 41):
            await own.commit(Txn(success=(Put(MESH.record(seq), bytes(1_000_000)),)))
        # Nothing is read, until the gate has had enough.
        while sample("meshd_gate_cut_total") == before:  # noqa: ASYNC110 nobody tells us
            await asyncio.sleep(0.01)
        # It keeps its place as long as it hasn't taken even that: what is held for it is counted.
        assert sample("meshd_gate_watches") == 1
        if then == "is revoked":
            # One that is at its end already is none that has to be ended.
            (gated.folder / "west").write_text("new\n")
            old = west(connect_to, gated)
            while not await is_refused(old.range(MESH.head)):  # noqa: ASYNC110 nobody tells us
                await asyncio.sleep(0)
        if then == "goes":
            call.cancel()
        else:
            assert await left_on_the_way(call) < 20_000_000
            assert await call.code() is grpc.StatusCode.ABORTED
        while sample("meshd_gate_watches"):  # noqa: ASYNC110 nobody tells us
            await asyncio.sleep(0.01)
    assert (await south(connect_to, gated).range(KEYS.export("eu").head)).count == 0


async def test_a_watch_on_which_nothing_happens_is_not_ended_for_its_pings(
    gated: Gated, connect_to: ConnectTo, free_address: FreeAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ours pings every 10 s, and the gate allows it every 5; here both sides are faster."""
    quick = [
        (name, 10 if value == limits.PING_MS_MIN else value) for name, value in listening.OPTIONS
    ]
    monkeypatch.setattr(server, "OPTIONS", quick)
    address = free_address()
    pinging = (("grpc.keepalive_time_ms", 1000), ("grpc.http2.max_pings_without_data", 0))
    create = pb.WatchCreateRequest(key=MESH.record(1), start_revision=1)
    async with gate_before(gated.etcd, gate_settings(address, gated.folder)):
        token = await token_of(address, "west")
        async with grpc.aio.insecure_channel(address, pinging) as channel:
            asked = channel.stream_stream("/etcdserverpb.Watch/Watch")
            call = asked(metadata=(("token", token),))
            await call.write(pb.WatchRequest(create_request=create).SerializeToString())
            assert pb.WatchResponse.FromString(await call.read()).created
            # For nothing to happen: gRPC sends a ping a second at most, and allows two too many.
            await asyncio.sleep(5)
            await connect_to(gated.etcd).commit(Txn(success=(Put(MESH.record(1), b"1"),)))
            assert pb.WatchResponse.FromString(await call.read()).events


async def test_who_sends_no_request_is_cut(gated: Gated, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "REQUEST_S", 0.05)
    async with grpc.aio.insecure_channel(gated.address) as channel:
        for method in ("Watch/Watch", "Auth/Authenticate"):
            call = channel.stream_stream(f"/etcdserverpb.{method}")()
            assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            empty = channel.stream_stream(f"/etcdserverpb.{method}")()
            await empty.done_writing()
            assert await empty.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_request_beyond_all_measure_is_not_read(gated: Gated) -> None:
    token = await token_of(gated.address, "west")
    async with raw_calls(gated.address) as call:
        raw = pb.RangeRequest(key=MESH.root + b"x" * limits.REQUEST_BYTES_MAX).SerializeToString()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call("KV/Range", raw, token)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_guessing_is_slow_and_holds_up_nobody(
    gated: Gated, connect_to: ConnectTo, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As long as a wrong guess waits for its answer, there are at most so many of them.
    monkeypatch.setattr(server, "WRONG_LOGIN_S", 3600.0)
    raw = pb.AuthenticateRequest(name="west", password="guess").SerializeToString()
    async with raw_calls(gated.address) as call, asyncio.TaskGroup() as tasks:
        guesses = [
            tasks.create_task(status_of(call("Auth/Authenticate", raw)))
            for _ in range(limits.WRONG_LOGINS_MAX + 1)
        ]
        answered, _ = await asyncio.wait(guesses, return_when=asyncio.FIRST_COMPLETED)
        assert [guess.result() for guess in answered] == [grpc.StatusCode.UNAVAILABLE]
        assert (await west(connect_to, gated).range(MESH.head)).count == 1
        for guess in guesses:
            guess.cancel()


# --- certificates and the port --------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Papers:
    """An authority, and a certificate for each name."""

    authority: trustme.CA
    folder: Path

    @property
    def ca(self) -> Path:
        path = self.folder / "ca.pem"
        self.authority.cert_pem.write_to_path(path)
        return path

    def issue(self, name: str) -> Path:
        path = self.folder / f"{name}.pem"
        leaf = self.authority.issue_cert("127.0.0.1", name, common_name=name)
        leaf.private_key_and_cert_chain_pem.write_to_path(path)
        return path

    def shown_by(self, name: str) -> TlsFiles:
        paper = self.folder / f"{name}.pem"
        return TlsFiles(self.ca, paper, paper, server_name="gate")


async def test_readers_are_known_by_their_certificates_names(
    etcd: EmbeddedEtcd, connect_to: ConnectTo, free_address: FreeAddress, tmp_path: Path
) -> None:
    papers = Papers(trustme.CA(), tmp_path)
    for name in ("gate", "west", "south", "stranger"):
        papers.issue(name)
    gate = tmp_path / "gate.pem"
    tls = ServerTls(cert_file=gate, key_file=gate, client_ca_file=papers.ca)
    (tmp_path / "password").write_text("s\n")
    settings = GateSettings(
        listen=HostPort.parse(free_address()),
        tls=tls,
        readers=(
            GateReader(name="west"),
            GateReader(name="south", audience="eu", password_file=tmp_path / "password"),
        ),
    )
    own = connect_to(etcd)
    await own.commit(Txn(success=(Put(MESH.head, b"1"), Put(KEYS.export("eu").head, b"1"))))
    async with gate_before(etcd, settings):
        address = str(settings.listen)
        peer = connect_to(address, tls=papers.shown_by("west"))
        assert (await peer.range(MESH.head)).count == 1
        assert await is_refused(peer.range(KEYS.local.head))
        assert await is_refused(peer.range(KEYS.export("eu").head))
        # Who has a password is not let in without it, whatever its certificate says.
        for name in ("stranger", "gate", "south"):
            kv = connect_to(address, tls=papers.shown_by(name))
            assert await is_refused(kv.range(MESH.head)), name
            assert await is_refused(kv.range(KEYS.export("eu").head)), name
        south = connect_to(address, tls=papers.shown_by("south"), username="south", password="s")
        assert (await south.range(KEYS.export("eu").head)).count == 1
        # Without a certificate, or with another authority's, there is no connection at all.
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        forged = Papers(trustme.CA(), elsewhere)
        forged_paper = forged.issue("west")
        for files in (
            TlsFiles(papers.ca, server_name="gate"),
            TlsFiles(papers.ca, forged_paper, forged_paper, server_name="gate"),
        ):
            with pytest.raises((TransientError, DeniedError)):
                await connect_to(address, tls=files, connect_timeout_s=1.0).range(MESH.head)
        with pytest.raises(TransientError):
            await connect_to(address, connect_timeout_s=1.0).range(MESH.head)


async def test_a_new_certificate_is_shown_to_the_next_connection(
    etcd: EmbeddedEtcd, connect_to: ConnectTo, free_address: FreeAddress, tmp_path: Path
) -> None:
    papers = Papers(trustme.CA(), tmp_path)
    gate = papers.issue("gate")
    tls = ServerTls(cert_file=gate, key_file=gate)
    settings = gate_settings(free_address(), tmp_path, tls)

    def peer(ca: Path) -> EtcdKv:
        files = TlsFiles(ca, server_name="gate")
        return connect_to(str(settings.listen), tls=files, username="west", password="w")

    async with gate_before(etcd, settings):
        old = peer(papers.ca)
        assert (await old.range(MESH.head)).count == 0
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        renewed = Papers(trustme.CA(), elsewhere)
        gate.write_bytes(renewed.issue("gate").read_bytes())
        assert (await peer(renewed.ca).range(MESH.head)).count == 0
        # The connection that stands goes on, and one that can't be read changes nothing.
        assert (await old.range(MESH.head)).count == 0
        gate.write_text("half of a certificate\n")
        assert (await peer(renewed.ca).range(MESH.head)).count == 0
        gate.unlink()
        assert (await peer(renewed.ca).range(MESH.head)).count == 0


async def test_a_port_that_is_taken_is_named(
    gated: Gated, tmp_path: Path, free_address: FreeAddress
) -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(FatalError, match=r"gate\.listen")):
        async with gate_before(gated.etcd, gate_settings(gated.address, tmp_path)):
            pass
    tls = ServerTls(cert_file=tmp_path / "none", key_file=tmp_path / "none")
    with pytest.RaisesGroup(pytest.RaisesExc(FatalError, match=r"gate\.tls")):
        async with gate_before(gated.etcd, gate_settings(free_address(), tmp_path, tls)):
            pass
