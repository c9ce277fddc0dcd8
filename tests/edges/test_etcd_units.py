"""The parts of the etcd edge that need no etcd: fragments, errors, targets."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from meshd.edges.etcd import EtcdTarget, TlsFiles
from meshd.edges.etcd.errors import (
    is_etcds_refusal,
    not_connected,
    translate,
    translate_cancel,
)
from meshd.edges.etcd.pb import etcd_pb2 as pb
from meshd.edges.etcd.watch import Assembler
from meshd.model.errors import (
    CompactedError,
    DeniedError,
    MeshdError,
    NoSpaceError,
    NotFoundError,
    OutcomeUnknownError,
    RejectedError,
    TransientError,
)
from meshd.runtime.ports import WatchResponse

Code = grpc.StatusCode


def message(*revisions: int, fragment: bool = False, header: int = 99) -> pb.WatchResponse:
    events = [
        pb.Event(kv=pb.KeyValue(key=b"k%d" % n, mod_revision=revision))
        for n, revision in enumerate(revisions)
    ]
    return pb.WatchResponse(
        header=pb.ResponseHeader(revision=header), fragment=fragment, events=events
    )


def revisions(response: WatchResponse | None) -> list[int] | None:
    return None if response is None else [event.kv.mod_revision for event in response.events]


def test_fragments_become_whole_revisions() -> None:
    assembler = Assembler(5)
    assert revisions(assembler.add(message(5, 5, 6, 7, fragment=True))) == [5, 5, 6]
    assert revisions(assembler.add(message(7, 7, fragment=True))) is None
    assert revisions(assembler.add(message(7, 8, fragment=True))) == [7, 7, 7, 7]
    assert revisions(assembler.add(message(8, 9))) == [8, 8, 9]
    assert revisions(assembler.add(message(10))) == [10]


def test_a_last_fragment_without_events_closes_the_revision() -> None:
    assembler = Assembler(5)
    assert revisions(assembler.add(message(5, fragment=True))) is None
    assert revisions(assembler.add(message())) == [5]


def test_what_was_delivered_is_dropped() -> None:
    assembler = Assembler(5)
    assert revisions(assembler.add(message(3, 4))) is None
    assert revisions(assembler.add(message(4, 5, 6))) == [5, 6]
    assert revisions(assembler.add(message(5, 6))) is None
    assert revisions(assembler.add(message(5, 6, 7))) == [7]


def test_progress_has_no_events_and_moves_nothing() -> None:
    assembler = Assembler(5)
    assert assembler.add(message(header=50)) == WatchResponse(50, ())
    assert revisions(assembler.add(message(6))) == [6]


READ, WRITE = False, True


@pytest.mark.parametrize(
    ("code", "details", "writes", "expected"),
    [
        (Code.UNAVAILABLE, "socket closed", READ, TransientError),
        (Code.UNAVAILABLE, "socket closed", WRITE, OutcomeUnknownError),
        (Code.DEADLINE_EXCEEDED, "", READ, TransientError),
        (Code.DEADLINE_EXCEEDED, "", WRITE, OutcomeUnknownError),
        (Code.UNAVAILABLE, "etcdserver: request timed out", WRITE, OutcomeUnknownError),
        (Code.UNAVAILABLE, "etcdserver: leader changed", WRITE, OutcomeUnknownError),
        (Code.UNAVAILABLE, "etcdserver: no leader", WRITE, TransientError),
        (Code.UNKNOWN, "anything", WRITE, OutcomeUnknownError),
        (Code.INTERNAL, "anything", WRITE, OutcomeUnknownError),
        (Code.RESOURCE_EXHAUSTED, "etcdserver: too many requests", WRITE, TransientError),
        (
            Code.RESOURCE_EXHAUSTED,
            "etcdserver: mvcc: database space exceeded",
            WRITE,
            NoSpaceError,
        ),
        (
            Code.RESOURCE_EXHAUSTED,
            "grpc: received message larger than max (3 vs. 2)",
            WRITE,
            RejectedError,
        ),
        (
            Code.RESOURCE_EXHAUSTED,
            "CLIENT: Received message larger than max (3 vs. 2)",
            WRITE,
            OutcomeUnknownError,
        ),
        (
            Code.RESOURCE_EXHAUSTED,
            "CLIENT: Received message larger than max (3 vs. 2)",
            READ,
            RejectedError,
        ),
        (Code.PERMISSION_DENIED, "etcdserver: permission denied", WRITE, DeniedError),
        (Code.UNAUTHENTICATED, "etcdserver: invalid auth token", WRITE, DeniedError),
        (Code.INVALID_ARGUMENT, "etcdserver: user name is empty", WRITE, DeniedError),
        (
            Code.INVALID_ARGUMENT,
            "etcdserver: authentication failed, invalid user ID or password",
            READ,
            DeniedError,
        ),
        (Code.INVALID_ARGUMENT, "etcdserver: request is too large", WRITE, RejectedError),
        (Code.NOT_FOUND, "etcdserver: requested lease not found", WRITE, NotFoundError),
        (Code.OUT_OF_RANGE, "required revision has been compacted", READ, CompactedError),
        (Code.OUT_OF_RANGE, "required revision is a future revision", READ, TransientError),
        (Code.OUT_OF_RANGE, "etcdserver: too large lease TTL", WRITE, RejectedError),
        (Code.UNIMPLEMENTED, "unknown service etcdserverpb.KV", WRITE, TransientError),
    ],
)
def test_each_status_means_one_reaction(
    code: grpc.StatusCode,
    details: str,
    writes: bool,
    expected: type[MeshdError],
) -> None:
    status = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details)
    error = translate(status, "etcd 127.0.0.1:1", writes=writes)
    assert type(error) is expected
    if expected is not CompactedError:
        assert "127.0.0.1:1" in str(error)


@pytest.mark.parametrize(
    ("code", "details", "is_refusal"),
    [
        # What 3.5.30 says of its status to nobody, to a user that isn't root, and to a stranger.
        (grpc.StatusCode.INVALID_ARGUMENT, "etcdserver: user name is empty", True),
        (grpc.StatusCode.PERMISSION_DENIED, "etcdserver: permission denied", True),
        (grpc.StatusCode.FAILED_PRECONDITION, "etcdserver: user name not found", True),
        (grpc.StatusCode.PERMISSION_DENIED, "Received http2 header with status: 403", False),
        (grpc.StatusCode.UNAVAILABLE, "etcdserver: no leader", False),
    ],
)
def test_an_etcd_that_refuses_us_is_there(
    code: grpc.StatusCode, details: str, *, is_refusal: bool
) -> None:
    status = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details)
    assert is_etcds_refusal(status) is is_refusal


def test_a_cancelled_watch_means_one_reaction() -> None:
    assert isinstance(translate_cancel("whatever", 7, "e"), CompactedError)
    assert isinstance(translate_cancel("etcdserver: permission denied", 0, "e"), DeniedError)
    assert isinstance(translate_cancel("etcdserver: no leader", 0, "e"), TransientError)
    assert isinstance(not_connected("CERTIFICATE_VERIFY_FAILED: self signed"), DeniedError)
    assert isinstance(not_connected("connection refused"), TransientError)


@pytest.mark.parametrize(
    "endpoint",
    ["", "localhost", ":2379", "h:0", "h:65536", "h:x", "http://h:2379", "::1:2379", "h:٣"],
)
def test_an_endpoint_is_host_and_port(endpoint: str) -> None:
    with pytest.raises(RejectedError, match="host:port"):
        EtcdTarget(endpoints=(endpoint,))


def test_a_target_keeps_its_password_to_itself() -> None:
    target = EtcdTarget(endpoints=("[::1]:2379", "etcd.example:1"), username="u", password="geheim")
    assert "geheim" not in repr(target)


def test_incomplete_targets_are_rejected() -> None:
    with pytest.raises(RejectedError, match="none"):
        EtcdTarget(endpoints=())
    with pytest.raises(RejectedError, match="go together"):
        TlsFiles(cert_file=Path("c.pem"))
