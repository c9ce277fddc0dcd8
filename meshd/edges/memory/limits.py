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
    for compare in txn.compares:
        check_key(compare.key)
    if len(txn.compares) > TXN_OPERATIONS_MAX:
        raise rejected("too many operations in txn request")
    for operations in (txn.success, txn.failure):
        _check_operations(operations)
    if is_write(txn) and _size_bytes(txn) > REQUEST_BYTES_MAX:
        raise rejected("request is too large")


def _check_operations(operations: tuple[Operation, ...]) -> None:
    if len(operations) > TXN_OPERATIONS_MAX:
        raise rejected("too many operations in txn request")
    put: set[bytes] = set()
    for operation in operations:
        check_key(operation.key)
        if isinstance(operation, Put):
            if operation.key in put:
                raise rejected("duplicate key given in txn request")
            put.add(operation.key)
    for delete in (operation for operation in operations if isinstance(operation, Delete)):
        if any(is_in_range(key, delete.key, delete.end) for key in put):
            raise rejected("duplicate key given in txn request")


def _size_bytes(txn: Txn) -> int:
    size = sum(len(compare.key) + _OPERATION_OVERHEAD_BYTES for compare in txn.compares)
    for operation in txn.success + txn.failure:
        size += len(operation.key) + _OPERATION_OVERHEAD_BYTES
        size += len(operation.value) if isinstance(operation, Put) else len(operation.end)
    return size
