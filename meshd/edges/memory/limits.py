"""What etcd refuses before it looks at any key.

For: the checks that a real etcd makes of a transaction, with its own words. Not for: anything
that depends on what is stored. Invariant: a transaction that passes can be applied in one go.
"""

from __future__ import annotations

from meshd.model.errors import Problem, RejectedError
from meshd.runtime.ports import Delete, Get, Operation, Put, Txn

TXN_OPERATIONS_MAX = 128
"""etcd's --max-txn-ops, counted for compares, success and failure each by itself."""
REQUEST_BYTES_MAX = 1_572_864
"""etcd's --max-request-bytes, 1.5 MiB."""
_OPERATION_OVERHEAD_BYTES = 16
"""About what protobuf adds to one operation: the limit is met to within some bytes."""

TO_THE_LAST_KEY = b"\x00"
"""As a range's end: no end."""


def is_in_range(key: bytes, start: bytes, end: bytes) -> bool:
    """Tell whether `key` is in [start, end), with etcd's two special ends."""
    if not end:
        return key == start
    return start <= key and (end == TO_THE_LAST_KEY or key < end)


def rejected(what: str) -> RejectedError:
    """Build the error for a request that etcd would answer with INVALID_ARGUMENT."""
    return RejectedError((Problem("etcd request", what),))


def is_write(txn: Txn) -> bool:
    """Tell whether the transaction may change anything, whichever way its compares go."""
    return any(not isinstance(operation, Get) for operation in txn.success + txn.failure)


def check_key(key: bytes) -> None:
    """Raise RejectedError for an empty key."""
    if not key:
        raise rejected("key is not provided")


def check_txn(txn: Txn) -> None:
    """Raise RejectedError for what no etcd would take."""
    if max(len(txn.compares), len(txn.success), len(txn.failure)) > TXN_OPERATIONS_MAX:
        raise rejected("too many operations in txn request")
    size_bytes = 0
    for compare in txn.compares:
        check_key(compare.key)
        size_bytes += len(compare.key) + _OPERATION_OVERHEAD_BYTES
    for operations in (txn.success, txn.failure):
        size_bytes += _check_operations(operations)
    if size_bytes > REQUEST_BYTES_MAX and is_write(txn):
        raise rejected("request is too large")


def _check_operations(operations: tuple[Operation, ...]) -> int:
    """Raise RejectedError for what can't be done together; returns about its size."""
    put: set[bytes] = set()
    deletes: list[Delete] = []
    size_bytes = 0
    for operation in operations:
        check_key(operation.key)
        size_bytes += len(operation.key) + _OPERATION_OVERHEAD_BYTES
        if isinstance(operation, Put):
            if operation.key in put:
                raise rejected("duplicate key given in txn request")
            put.add(operation.key)
            size_bytes += len(operation.value)
        else:
            size_bytes += len(operation.end)
            if isinstance(operation, Delete):
                deletes.append(operation)
    for delete in deletes:
        if any(is_in_range(key, delete.key, delete.end) for key in put):
            raise rejected("duplicate key given in txn request")
    return size_bytes
