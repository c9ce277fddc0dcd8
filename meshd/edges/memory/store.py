"""Revisions, history and compaction of one etcd.

For: what etcd's storage does, synchronously. Not for: watchers, connections, leases' time (`kv`).
Invariant: a revision is one transaction's changes, and `history` has exactly one entry for each
revision from `_oldest_revision` to `revision`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable

from meshd.edges.memory.limits import TO_THE_LAST_KEY, check_key, check_txn, is_in_range
from meshd.model.errors import CompactedError, NotFoundError, TransientError
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


class Store:
    """The keys of one etcd, now and back to the last compaction."""

    def __init__(self) -> None:
        self.revision = 1
        self.compact_revision = 0
        self._oldest_revision = 2
        self._history: list[tuple[WatchEvent, ...]] = []
        self._versions: dict[bytes, list[WatchEvent]] = {}
        self._live_keys: list[bytes] = []
        self._lease_keys: dict[int, set[bytes]] = {}

    def copy(self) -> Store:
        """Return a store of its own with the same keys and history; what it holds is immutable."""
        other = Store()
        other.revision, other.compact_revision = self.revision, self.compact_revision
        other._oldest_revision = self._oldest_revision
        other._history = list(self._history)
        other._versions = {key: list(versions) for key, versions in self._versions.items()}
        other._live_keys = list(self._live_keys)
        other._lease_keys = {lease: set(keys) for lease, keys in self._lease_keys.items()}
        return other

    def holds_leased(self, key: bytes, end: bytes) -> bool:
        """Tell whether the end of some lease would change anything in a range."""
        return any(
            is_in_range(leased, key, end) for keys in self._lease_keys.values() for leased in keys
        )

    def range(self, key: bytes, end: bytes, *, limit: int, revision: int) -> RangeResult:
        """Read as `Kv.range` does."""
        check_key(key)
        if revision > self.revision:
            raise TransientError(f"revision {revision} is in the future of {self.revision}")
        if revision <= 0 or revision == self.revision:
            return self._range_now(key, end, limit, self.revision)
        if revision < self.compact_revision:
            raise CompactedError(self.compact_revision)
        found = [
            event.kv
            for name in sorted(self._versions)
            if is_in_range(name, key, end) and (event := self._at(name, revision)) is not None
        ]
        kvs = tuple(found[:limit] if limit else found)
        return RangeResult(self.revision, kvs, len(found) > len(kvs), len(found))

    def commit(self, txn: Txn, is_lease: Callable[[int], bool]) -> TxnResult:
        """Apply a transaction. `is_lease` tells whether a lease exists."""
        check_txn(txn)
        succeeded = all(map(self._holds, txn.compares))
        operations = txn.success if succeeded else txn.failure
        for operation in operations:
            if isinstance(operation, Put) and operation.lease and not is_lease(operation.lease):
                raise NotFoundError(f"etcd: lease {operation.lease} is not there")
        events: list[WatchEvent] = []
        results = tuple([self._apply(operation, events) for operation in operations])
        self._finish(events)
        return TxnResult(succeeded, self.revision, results)

    def delete_keys_of(self, lease: int) -> None:
        """Delete all keys of a lease at one revision, as its end does."""
        events: list[WatchEvent] = []
        for key in sorted(self._lease_keys.get(lease, ())):
            self._delete(key, events)
        self._finish(events)

    def compact(self, revision: int) -> None:
        """Forget what was before `revision`."""
        if revision <= self.compact_revision:
            raise CompactedError(self.compact_revision)
        if revision > self.revision:
            raise TransientError(f"revision {revision} is in the future of {self.revision}")
        self.compact_revision = revision
        if revision > self._oldest_revision:
            del self._history[: revision - self._oldest_revision]
            self._oldest_revision = revision
        for key in list(self._versions):
            self._forget_before(key, revision)

    def events_from(
        self, start_revision: int, *, revisions_max: int
    ) -> Iterable[tuple[int, tuple[WatchEvent, ...]]]:
        """Return (revision, changes) from `start_revision` on, at most `revisions_max` of them."""
        if start_revision < self.compact_revision:
            raise CompactedError(self.compact_revision)
        start_revision = max(start_revision, self._oldest_revision)
        first = start_revision - self._oldest_revision
        return enumerate(self._history[first : first + revisions_max], start=start_revision)

    def size_bytes(self) -> int:
        """Return what keys and values take, all kept versions together."""
        return sum(
            len(event.kv.key) + len(event.kv.value)
            for versions in self._versions.values()
            for event in versions
        )

    def _range_now(self, key: bytes, end: bytes, limit: int, revision: int) -> RangeResult:
        if not end:
            kv = self._now(key)
            return RangeResult(revision, (kv,) if kv else (), more=False, count=1 if kv else 0)
        keys = self._live_in(key, end)
        shown = keys[:limit] if limit else keys
        kvs = tuple(self._versions[name][-1].kv for name in shown)
        return RangeResult(revision, kvs, len(keys) > len(kvs), len(keys))

    def _live_in(self, key: bytes, end: bytes) -> list[bytes]:
        first = bisect_left(self._live_keys, key)
        if not end:
            return self._live_keys[first : bisect_right(self._live_keys, key)]
        if end == TO_THE_LAST_KEY:
            return self._live_keys[first:]
        return self._live_keys[first : bisect_left(self._live_keys, end)]

    def _at(self, key: bytes, revision: int) -> WatchEvent | None:
        versions = self._versions[key]
        place = bisect_right(versions, revision, key=lambda event: event.kv.mod_revision)
        if place == 0 or versions[place - 1].is_delete:
            return None
        return versions[place - 1]

    def _now(self, key: bytes) -> KeyValue | None:
        versions = self._versions.get(key)
        return versions[-1].kv if versions and not versions[-1].is_delete else None

    def _holds(self, compare: Compare) -> bool:
        kv = self._now(compare.key)
        match compare:
            case ModRevisionIs():
                return (kv.mod_revision if kv else 0) == compare.revision
            case CreateRevisionIs():
                return (kv.create_revision if kv else 0) == compare.revision
            case ValueIs():
                return kv is not None and kv.value == compare.value

    def _apply(self, operation: Operation, events: list[WatchEvent]) -> RangeResult | None:
        match operation:
            case Put():
                self._put(operation, events)
                return None
            case Delete():
                for key in self._live_in(operation.key, operation.end):
                    self._delete(key, events)
                return None
            case Get():
                # A transaction reads what it has written so far.
                revision = self.revision + (1 if events else 0)
                return self._range_now(operation.key, operation.end, operation.limit, revision)

    def _put(self, put: Put, events: list[WatchEvent]) -> None:
        old = self._now(put.key)
        revision = self.revision + 1
        kv = KeyValue(
            key=put.key,
            value=put.value,
            create_revision=old.create_revision if old else revision,
            mod_revision=revision,
            version=old.version + 1 if old else 1,
            lease=put.lease,
        )
        if old is None:
            insort(self._live_keys, put.key)
        elif old.lease:
            self._lease_keys[old.lease].discard(put.key)
        if put.lease:
            self._lease_keys.setdefault(put.lease, set()).add(put.key)
        self._record(WatchEvent(kv, is_delete=False), events)

    def _delete(self, key: bytes, events: list[WatchEvent]) -> None:
        old = self._versions[key][-1].kv
        if old.lease:
            self._lease_keys[old.lease].discard(key)
        del self._live_keys[bisect_left(self._live_keys, key)]
        tombstone = KeyValue(key, b"", 0, self.revision + 1, 0)
        self._record(WatchEvent(tombstone, is_delete=True), events)

    def _record(self, event: WatchEvent, events: list[WatchEvent]) -> None:
        self._versions.setdefault(event.kv.key, []).append(event)
        events.append(event)

    def _finish(self, events: list[WatchEvent]) -> None:
        if events:
            self.revision += 1
            self._history.append(tuple(events))

    def _forget_before(self, key: bytes, revision: int) -> None:
        versions = self._versions[key]
        place = bisect_right(versions, revision, key=lambda event: event.kv.mod_revision)
        if place and versions[place - 1].is_delete:
            del versions[:place]
        elif place:
            del versions[: place - 1]
        if not versions:
            del self._versions[key]
