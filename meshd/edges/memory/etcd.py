"""An etcd in memory: the server that its clients share.

For: tests and the simulator, with etcd's semantics and with faults on demand. Not for: timing, or
anything that must survive a restart. Invariant: all that happens follows from the calls and the
injected clock; there is no other time and no chance in here.

Faults of the server:
    etcd.set_up(...)                    gone for everybody; keys and leases stay
    etcd.is_out_of_space                puts and new leases raise NoSpaceError
    etcd.wipe(), .backup(), .restore()  another history behind the same address
    etcd.send_progress()                progress notifications, which etcd sends at its own times
    etcd.repeats_events                 each live response comes twice (a bug until 3.4.24)
    etcd.lose_events()                  watches miss their next changes (a bug until 3.4.31)
    etcd.silence_watches()              watches say nothing more, and do not end
Those of one client are in `kv`. What the server holds: `etcd.watches_open`, `etcd.revision`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from heapq import heappop, heappush

from meshd.edges.memory.limits import rejected
from meshd.edges.memory.store import Store
from meshd.edges.memory.watch import Watch
from meshd.model.errors import NoSpaceError, TransientError
from meshd.runtime.ports import Clock, KvStatus, Put, RangeResult, Txn, TxnResult, WatchEvent

VERSION = "3.4.99"
"""An etcd 3.4 with all its later fixes is what this behaves like."""
LEASE_TTL_S_MIN = 2
"""etcd raises shorter ones to this, with its default election timeout."""
LEASE_TTL_S_MAX = 9_000_000_000


@dataclass(slots=True)
class _Lease:
    ttl_s: int
    expires_s: float


class MemoryEtcd:
    """The server: one store that any number of clients share. restarts: how often it ended, and
    with it all connections.
    """

    def __init__(self, clock: Clock, *, cluster_id: int = 1) -> None:
        self.clock = clock
        self.is_up = True
        self.is_out_of_space = False
        self.repeats_events = False
        self.restarts = 0
        self._cluster_id = cluster_id
        self._store = Store()
        self._leases: dict[int, _Lease] = {}
        self._expiries: list[tuple[float, int]] = []
        self._last_lease = 0
        self._watches: dict[Watch, object] = {}

    @property
    def revision(self) -> int:
        """The store's revision."""
        return self._store.revision

    @property
    def watches_open(self) -> int:
        """How many watchers the server holds."""
        return len(self._watches)

    def set_up(self, *, up: bool) -> None:
        """Stop or start the server. Keys and leases stay; watches end."""
        self.is_up = up
        if not up:
            self.restarts += 1
            self.end_watches("etcd is down")

    def wipe(self) -> None:
        """Start over with an empty store and the same cluster id, as after `rm -r` of its data."""
        self.restore((Store(), {}))

    def backup(self) -> tuple[Store, dict[int, _Lease]]:
        """Return a copy of everything, for `restore`."""
        return _copied(self._store, self._leases)

    def restore(self, backup: tuple[Store, dict[int, _Lease]]) -> None:
        """Take the state of a backup; as with a restart, all watches end and leases start anew."""
        self.restarts += 1
        self._store, self._leases = _copied(*backup)
        for lease in self._leases:
            self.keep_lease(lease)
        self.end_watches("etcd was restored")

    def send_progress(self) -> None:
        """Send every watcher that is not behind a progress notification."""
        for watch in self._watches:
            watch.deliver_progress(self.revision)

    def lose_events(self, *, owner: object = None) -> None:
        """Let all watches, or those of one owner, miss the next changes of their ranges."""
        for watch in self._watches_of(owner):
            watch.lose_next()

    def silence_watches(self, *, owner: object = None) -> None:
        """Let all open watches, or those of one owner, say nothing more: no quorum, or no way."""
        for watch in self._watches_of(owner):
            watch.silence()

    # From here on: for MemoryKv and Watch, which have expired the leases first.

    def range(self, key: bytes, end: bytes, *, limit: int, revision: int) -> RangeResult:
        """Read."""
        return self._store.range(key, end, limit=limit, revision=revision)

    def commit(self, txn: Txn) -> TxnResult:
        """Apply a transaction and tell the watchers."""
        if self.is_out_of_space and any(isinstance(o, Put) for o in txn.success + txn.failure):
            raise NoSpaceError("etcd: database space exceeded")
        before = self.revision
        result = self._store.commit(txn, self._leases.__contains__)
        self._publish(before)
        return result

    def compact(self, revision: int) -> None:
        """Forget history."""
        self._store.compact(revision)

    def history(
        self, start_revision: int, *, revisions_max: int
    ) -> Iterable[tuple[int, tuple[WatchEvent, ...]]]:
        """Return past changes."""
        return self._store.events_from(start_revision, revisions_max=revisions_max)

    def status(self) -> KvStatus:
        """Return the status."""
        used_bytes = self._store.size_bytes()
        return KvStatus(VERSION, self.revision, self._cluster_id, 1, used_bytes, used_bytes)

    def grant_lease(self, ttl_s: int) -> int:
        """Make a lease. Ids are counted up and never used again, not even after a wipe."""
        if self.is_out_of_space:
            raise NoSpaceError("etcd: database space exceeded")
        if ttl_s > LEASE_TTL_S_MAX:
            raise rejected("too large lease TTL")
        self._last_lease += 1
        ttl_s = max(ttl_s, LEASE_TTL_S_MIN)
        self._leases[self._last_lease] = _Lease(ttl_s, 0.0)
        self.keep_lease(self._last_lease)
        return self._last_lease

    def keep_lease(self, lease: int) -> float:
        """Renew a lease."""
        held = self._leases.get(lease)
        if held is None:
            return 0
        held.expires_s = self.clock.monotonic_s() + held.ttl_s
        heappush(self._expiries, (held.expires_s, lease))
        return held.ttl_s

    def lease_left_s(self, lease: int) -> float:
        """Return how long a lease has left; 0 if it is gone."""
        held = self._leases.get(lease)
        return math.ceil(held.expires_s - self.clock.monotonic_s()) if held is not None else 0

    def revoke_lease(self, lease: int) -> None:
        """End a lease and delete its keys."""
        if self._leases.pop(lease, None) is not None:
            before = self.revision
            self._store.delete_keys_of(lease)
            self._publish(before)

    def expire_leases(self) -> None:
        """End the leases whose time is over, the oldest first. A server that is down ends none."""
        pause_s = self.next_expiry_in_s()
        while pause_s == 0:
            _, lease = heappop(self._expiries)
            self.revoke_lease(lease)
            pause_s = self.next_expiry_in_s()

    def next_expiry_in_s(self) -> float | None:
        """Return how long until the next lease ends, 0 if it should have, None if there is none."""
        while self._expiries:
            expires_s, lease = self._expiries[0]
            held = self._leases.get(lease)
            if held is not None and held.expires_s == expires_s:
                return max(0.0, expires_s - self.clock.monotonic_s()) if self.is_up else None
            # It was renewed or revoked since this entry was made.
            heappop(self._expiries)
        return None

    def holds_leased(self, key: bytes, end: bytes) -> bool:
        """Tell whether a watcher of this range must wait for leases to end."""
        return self._store.holds_leased(key, end)

    def open_watch(self, watch: Watch, owner: object) -> None:
        """Feed a watcher from now on."""
        self._watches[watch] = owner

    def close_watch(self, watch: Watch) -> None:
        """Forget a watcher."""
        self._watches.pop(watch, None)

    def end_watches(self, why: str, *, owner: object = None) -> None:
        """End all watches, or those of one owner."""
        for watch in self._watches_of(owner):
            watch.fail(TransientError(why))

    def _watches_of(self, owner: object) -> list[Watch]:
        """Return one owner's watches; None stands for all."""
        return [watch for watch, its in self._watches.items() if owner is None or owner is its]

    def _publish(self, revision_before: int) -> None:
        if self.revision == revision_before:
            return
        ((revision, events),) = self._store.events_from(self.revision, revisions_max=1)
        is_leased = any(event.kv.lease for event in events)
        for watch in self._watches:
            watch.deliver(revision, events)
            if is_leased:
                watch.wake()


def _copied(store: Store, leases: dict[int, _Lease]) -> tuple[Store, dict[int, _Lease]]:
    return store.copy(), {number: replace(lease) for number, lease in leases.items()}
