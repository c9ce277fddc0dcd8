"""What a submission depends on beside the head: keys of the own etcd that must be as they were.

For: what only the leader may append, and what may be appended only while a registration is, or is
no longer, there. Not for: the head itself, which every commit compares (`writer`). Invariant: a
guard is compared in the transaction that appends, so nothing guarded is appended where it fails.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import assert_never

from meshd.model.errors import TransientError
from meshd.runtime.ports import (
    Compare,
    CreateRevisionIs,
    Get,
    KeyValue,
    ModRevisionIs,
    RangeResult,
    ValueIs,
)

GUARDS_MAX = 100
"""Different ones in one commit. Each is a compare and, where they fail, a read, of which etcd takes
128, and the head and the records are among them.
"""

Guards = Sequence[Compare]


class GuardError(TransientError):
    """What a submission depends on is no longer so; nothing was written."""


class GuardsFailed(Exception):  # noqa: N818 it is no error of the commit, but the answer of some
    """A commit was refused though the head stood: these compares don't hold."""

    def __init__(self, failed: frozenset[Compare]) -> None:
        super().__init__(f"{len(failed)} guards failed")
        self.failed = failed


def reads_of(guards: Iterable[Compare]) -> tuple[Get, ...]:
    """The reads that tell which of some guards hold."""
    return tuple(map(Get, sorted({guard.key for guard in guards})))


def failed_of(guards: Iterable[Compare], found: Iterable[RangeResult | None]) -> frozenset[Compare]:
    """Which guards don't hold, by what their reads found."""
    kvs = {kv.key: kv for result in found if result is not None for kv in result.kvs}
    return frozenset(guard for guard in guards if not _holds(guard, kvs))


def _holds(guard: Compare, kvs: Mapping[bytes, KeyValue]) -> bool:
    kv = kvs.get(guard.key)
    match guard:
        case ModRevisionIs(_, revision):
            return (kv.mod_revision if kv else 0) == revision
        case CreateRevisionIs(_, revision):
            return (kv.create_revision if kv else 0) == revision
        case ValueIs(_, value):
            return kv is not None and kv.value == value
        case _:
            assert_never(guard)
