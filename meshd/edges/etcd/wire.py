"""The door's values as etcd's messages, and back.

For: plain conversion. Not for: calls. Invariant: nothing is added, dropped or defaulted.
"""

from __future__ import annotations

from meshd.edges.etcd.pb import etcd_pb2 as pb
from meshd.runtime.ports import (
    Compare,
    CreateRevisionIs,
    Delete,
    Get,
    KeyValue,
    ModRevisionIs,
    Operation,
    Put,
    RangeResult,
    Txn,
    TxnResult,
    ValueIs,
    WatchEvent,
)


def txn_request(txn: Txn) -> pb.TxnRequest:
    """Build the request of a transaction."""
    return pb.TxnRequest(
        compare=[_compare(compare) for compare in txn.compares],
        success=[_operation(operation) for operation in txn.success],
        failure=[_operation(operation) for operation in txn.failure],
    )


def txn_result(response: pb.TxnResponse) -> TxnResult:
    """Read the answer to a transaction."""
    results = tuple(
        range_result(done.response_range) if done.HasField("response_range") else None
        for done in response.responses
    )
    return TxnResult(response.succeeded, response.header.revision, results)


def range_result(response: pb.RangeResponse) -> RangeResult:
    """Read the answer to a range read."""
    kvs = tuple(_key_value(kv) for kv in response.kvs)
    return RangeResult(response.header.revision, kvs, response.more, response.count)


def watch_event(event: pb.Event) -> WatchEvent:
    """Read one change."""
    return WatchEvent(_key_value(event.kv), is_delete=event.type == pb.Event.DELETE)


def _key_value(kv: pb.KeyValue) -> KeyValue:
    return KeyValue(kv.key, kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease)


def _compare(compare: Compare) -> pb.Compare:
    match compare:
        case ModRevisionIs():
            return pb.Compare(target=pb.Compare.MOD, key=compare.key, mod_revision=compare.revision)
        case CreateRevisionIs():
            return pb.Compare(
                target=pb.Compare.CREATE, key=compare.key, create_revision=compare.revision
            )
        case ValueIs():
            return pb.Compare(target=pb.Compare.VALUE, key=compare.key, value=compare.value)


def _operation(operation: Operation) -> pb.RequestOp:
    match operation:
        case Put():
            put = pb.PutRequest(key=operation.key, value=operation.value, lease=operation.lease)
            return pb.RequestOp(request_put=put)
        case Delete():
            delete = pb.DeleteRangeRequest(key=operation.key, range_end=operation.end)
            return pb.RequestOp(request_delete_range=delete)
        case Get():
            get = pb.RangeRequest(key=operation.key, range_end=operation.end, limit=operation.limit)
            return pb.RequestOp(request_range=get)
