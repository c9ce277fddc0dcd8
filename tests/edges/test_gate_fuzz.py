"""Whatever is sent through the gate, nothing but the reader's part of the keys comes back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from meshd.edges.embedded import EmbeddedEtcd
from meshd.edges.etcd.pb import etcd_pb2 as pb
from meshd.runtime.ports import Put, RangeResult, Txn
from tests.edges.gates import gate_before, gate_settings, token_of
from tests.edges.test_etcd_secure import CLOSED, KEYS, MESH, OPEN, ConnectTo

EXAMPLES = 150
bounded = settings(
    max_examples=EXAMPLES,
    deadline=None,
    # The store is the same for all examples, which is what is to be shown.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
REFUSALS = {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INVALID_ARGUMENT}
FAILURES = {grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.UNAVAILABLE}
"""A revision that is compacted, or that is yet to come."""


def is_theirs(key: bytes) -> bool:
    return key == KEYS.descriptor or key.startswith(MESH.root)


def is_in(key: bytes, first: bytes, end: bytes) -> bool:
    if not end:
        return key == first
    return key >= first and (end == b"\x00" or key < end)


@dataclass(frozen=True, slots=True)
class Store:
    """What the etcd holds, and a reader's line to it through the gate."""

    held: RangeResult
    channel: grpc.aio.Channel
    token: str

    async def ask(self, method: str, raw: bytes) -> Any:
        """The answer's bytes, or the status that was given instead."""
        call = self.channel.unary_unary(f"/etcdserverpb.{method}")
        try:
            return await call(raw, metadata=(("token", self.token),), timeout=10)
        except grpc.aio.AioRpcError as error:
            return error.code()

    async def watch(self, raw: bytes, events_max: int) -> list[bytes]:
        """The keys that a watch tells of, until it has told `events_max` or ends."""
        call = self.channel.stream_stream("/etcdserverpb.Watch/Watch")(
            metadata=(("token", self.token),)
        )
        keys: list[bytes] = []
        try:
            await call.write(raw)
            while len(keys) < events_max:
                message = await call.read()
                if message is grpc.aio.EOF:
                    break
                answer = pb.WatchResponse.FromString(message)
                keys += [event.kv.key for event in answer.events]
                if answer.canceled or (answer.created and not events_max):
                    break
        except grpc.aio.AioRpcError as error:
            if error.code() not in REFUSALS | FAILURES:
                raise
        finally:
            call.cancel()
        return keys

    def theirs(self, first: bytes, end: bytes) -> list[bytes]:
        return [kv.key for kv in self.held.kvs if is_in(kv.key, first, end)]


@pytest.fixture
async def store(
    etcd: EmbeddedEtcd, connect_to: ConnectTo, free_address: Callable[[], str], tmp_path: Path
) -> AsyncIterator[Store]:
    own = connect_to(etcd)
    for key in (*OPEN, *CLOSED):
        await own.commit(Txn(success=(Put(key, b"of " + key),)))
    address = free_address()
    async with (
        gate_before(etcd, gate_settings(address, tmp_path)),
        grpc.aio.insecure_channel(address) as channel,
    ):
        token = await token_of(address, "west")
        yield Store(await own.range(b"\x00", b"\x00"), channel, token)


@st.composite
def keys(draw: st.DrawFn) -> bytes:
    base = draw(st.sampled_from((*OPEN, *CLOSED, MESH.log_end, b"", b"\xff")))
    return base[: len(base) - draw(st.integers(0, 1))] + draw(st.binary(max_size=2))


ends = st.one_of(st.just(b""), st.just(b"\x00"), keys())
junk = st.one_of(st.just(b""), st.binary(max_size=12))
"""Bytes after a request: fields that nobody knows, or fields said once more."""
ranges = st.builds(
    pb.RangeRequest,
    key=keys(),
    range_end=ends,
    limit=st.integers(-3, 9),
    revision=st.sampled_from((0, 0, 0, 2, 5, 10**6, -1)),
)
puts = st.builds(pb.PutRequest, key=keys(), value=st.just(b"evil"))
deletes = st.builds(pb.DeleteRangeRequest, key=keys(), range_end=ends)


def _nested(operation: pb.RequestOp) -> pb.RequestOp:
    inner = pb.TxnRequest(success=[operation]).SerializeToString()
    return pb.RequestOp.FromString(b"\x22" + bytes((len(inner),)) + inner)


reads = st.builds(lambda asked: pb.RequestOp(request_range=asked), ranges)
operations = st.one_of(
    reads,
    reads,
    st.builds(lambda key: pb.RequestOp(request_range=pb.RangeRequest(key=key)), keys()),
    st.builds(lambda put: pb.RequestOp(request_put=put), puts),
    st.builds(lambda delete: pb.RequestOp(request_delete_range=delete), deletes),
    st.builds(_nested, reads),
)
compares = st.builds(
    pb.Compare, target=st.sampled_from((1, 2)), key=keys(), mod_revision=st.just(0)
)
rarely = st.lists(st.nothing(), max_size=0)
txns = st.builds(
    pb.TxnRequest,
    compare=st.one_of(rarely, st.lists(compares, max_size=1)),
    success=st.lists(operations, max_size=3),
    failure=st.one_of(rarely, st.lists(operations, max_size=1)),
)
watches = st.builds(
    pb.WatchCreateRequest,
    key=keys(),
    range_end=ends,
    start_revision=st.integers(-1, 30),
    progress_notify=st.booleans(),
    fragment=st.booleans(),
)


@bounded
@given(asked=ranges, more=junk)
@example(asked=pb.RangeRequest(key=MESH.root, range_end=b"\x00"), more=b"")
@example(asked=pb.RangeRequest(key=MESH.root, range_end=MESH.log_end), more=b"\x12\x01\x00")
async def test_a_range_read_gives_only_theirs(
    store: Store, asked: pb.RangeRequest, more: bytes
) -> None:
    raw = asked.SerializeToString() + more
    answer = await store.ask("KV/Range", raw)
    if isinstance(answer, grpc.StatusCode):
        assert answer in REFUSALS | FAILURES
        return
    found, meant = pb.RangeResponse.FromString(answer), pb.RangeRequest.FromString(raw)
    seen = [kv.key for kv in found.kvs]
    assert all(map(is_theirs, seen))
    there = store.theirs(meant.key, meant.range_end)
    assert all(map(is_theirs, there))
    if meant.revision <= 0:
        limit = meant.limit if meant.limit > 0 else len(there)
        assert seen == there[:limit]
        assert (found.count, found.more) == (len(there), limit < len(there))
        assert found.header.revision == store.held.revision


@bounded
@given(asked=txns, more=junk)
async def test_a_transaction_gives_only_theirs_and_changes_nothing(
    store: Store, connect_to: ConnectTo, etcd: EmbeddedEtcd, asked: pb.TxnRequest, more: bytes
) -> None:
    answer = await store.ask("KV/Txn", asked.SerializeToString() + more)
    if isinstance(answer, grpc.StatusCode):
        assert answer in REFUSALS
    else:
        for done in pb.TxnResponse.FromString(answer).responses:
            assert done.HasField("response_range")
            assert all(is_theirs(kv.key) for kv in done.response_range.kvs)
    # Its revision rises with every write.
    assert (await connect_to(etcd).range(MESH.head)).revision == store.held.revision


@bounded
@given(asked=watches, more=junk)
@example(
    asked=pb.WatchCreateRequest(key=KEYS.descriptor, range_end=b"\x00", start_revision=1), more=b""
)
async def test_a_watch_tells_only_of_theirs(
    store: Store, asked: pb.WatchCreateRequest, more: bytes
) -> None:
    raw = pb.WatchRequest(create_request=asked).SerializeToString() + more
    there = [
        kv.key
        for kv in store.held.kvs
        if is_in(kv.key, asked.key, asked.range_end) and kv.mod_revision >= asked.start_revision
    ]
    wants = len(there) if asked.start_revision > 0 and all(map(is_theirs, there)) else 0
    assert all(map(is_theirs, await store.watch(raw, wants)))
