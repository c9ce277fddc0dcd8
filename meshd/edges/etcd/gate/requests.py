"""What may be asked through the gate.

For: bytes to a request that may be passed on to etcd, or a refusal. Not for: who asks (`readers`),
nor passing it on (`server`). Invariants: pure; a request that comes out holds reads of permitted
keys and nothing else, not even a field that this version doesn't know: an etcd might know it.
"""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from meshd.core.permit import Permit
from meshd.edges.etcd.gate.limits import KEYS_MAX, TXN_READS_MAX
from meshd.edges.etcd.gate.refusal import denied, malformed
from meshd.edges.etcd.pb import etcd_pb2 as pb

_Message = TypeVar("_Message", bound=Message)


def parsed(raw: bytes, kind: type[_Message]) -> _Message:
    """Read a request; one with fields that we don't know is none that we can judge."""
    try:
        message = kind.FromString(raw)
        bare = kind.FromString(raw)
    except DecodeError as error:
        raise malformed("not a request") from error
    bare.DiscardUnknownFields()
    if bare.ByteSize() != message.ByteSize():
        raise denied("the gate serves no request with these fields")
    return message


def checked_range(raw: bytes, permit: Permit) -> pb.RangeRequest:
    """Check a range read."""
    request = parsed(raw, pb.RangeRequest)
    if not permit.covers(request.key, request.range_end):
        raise denied()
    if not 0 < request.limit <= KEYS_MAX:
        request.limit = KEYS_MAX
    return request


def checked_txn(raw: bytes, permit: Permit) -> pb.TxnRequest:
    """Check a transaction: single keys, read together.

    A compare tells what is there as much as a read does, and what a branch that isn't taken holds
    is none of our business: there is neither.
    """
    request = parsed(raw, pb.TxnRequest)
    if request.compare or request.failure or not 0 < len(request.success) <= TXN_READS_MAX:
        raise denied("the gate serves transactions of a few reads only")
    for operation in request.success:
        read = operation.request_range
        if not operation.HasField("request_range") or read.range_end or read.revision:
            raise denied("the gate serves transactions of reads of single keys only")
        if not permit.covers(read.key):
            raise denied()
    return request


def checked_watch(raw: bytes, permit: Permit) -> pb.WatchCreateRequest:
    """Check the creation of a watch.

    Its answers come in fragments, asked for or not: whole ones may hold 1000 revisions, and for
    somebody who takes them slowly we would have to hold them.
    """
    request = parsed(raw, pb.WatchRequest)
    if not request.HasField("create_request"):
        raise denied("the gate serves one watch a stream, which ends with it")
    if not permit.covers(request.create_request.key, request.create_request.range_end):
        raise denied()
    request.create_request.fragment = True
    return request.create_request
