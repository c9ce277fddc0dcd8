"""The doors: what the runtime asks of the world, and nothing wider.

For: the protocols that edges implement and that simulators replace. Not for: any behaviour.
Invariant: the two implementations of `Kv` (`edges.etcd`, `edges.memory`) pass one contract suite.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Never, Protocol

from meshd.model.event import Told
from meshd.model.ids import ServiceKey
from meshd.model.probe import Probe
from meshd.model.publishing import Reset


@dataclass(frozen=True, slots=True)
class KeyValue:
    """One key as etcd holds it. `lease` 0 means that it has none."""

    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int = 0


@dataclass(frozen=True, slots=True)
class RangeResult:
    """What a range read returned. `revision` is the store's, at which the answer is true.

    more: keys beyond `limit` exist. count: all keys of the range, whatever the limit.
    """

    revision: int
    kvs: tuple[KeyValue, ...]
    more: bool
    count: int


@dataclass(frozen=True, slots=True)
class ModRevisionIs:
    """Compare: the key's last modification has this revision. 0 means that it doesn't exist."""

    key: bytes
    revision: int


@dataclass(frozen=True, slots=True)
class CreateRevisionIs:
    """Compare: the key's creation has this revision. 0 means that it doesn't exist."""

    key: bytes
    revision: int


@dataclass(frozen=True, slots=True)
class ValueIs:
    """Compare: the key exists with this value."""

    key: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Put:
    """Write a key. lease: 0 for none."""

    key: bytes
    value: bytes
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete a key, or with `end` the range [key, end)."""

    key: bytes
    end: bytes = b""


@dataclass(frozen=True, slots=True)
class Get:
    """Read a key, or with `end` the range [key, end), inside a transaction. limit: 0 for all."""

    key: bytes
    end: bytes = b""
    limit: int = 0


Compare = ModRevisionIs | CreateRevisionIs | ValueIs
Operation = Put | Delete | Get


@dataclass(frozen=True, slots=True)
class Txn:
    """If all of `compares` hold, do `success`, else `failure`, at one revision.

    At most 128 compares and 128 operations in each list (etcd's max-txn-ops), no key put twice.
    patience_s: how long its answer is waited for, if that is less than for any other; 0 if not.
    """

    compares: tuple[Compare, ...] = ()
    success: tuple[Operation, ...] = ()
    failure: tuple[Operation, ...] = ()
    patience_s: float = 0.0


@dataclass(frozen=True, slots=True)
class TxnResult:
    """succeeded: the compares held. results: one per operation done, a RangeResult for a Get."""

    succeeded: bool
    revision: int
    results: tuple[RangeResult | None, ...]


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One change of one key. A delete has an empty `kv.value` and its own `kv.mod_revision`."""

    kv: KeyValue
    is_delete: bool


@dataclass(frozen=True, slots=True)
class WatchResponse:
    """All changes of one or more whole revisions, in order; never a part of a revision.

    Without events it is a progress notification, which proves that the stream lives and nothing
    else: a resume point is never taken from it. revision: the store's, from the header.
    """

    revision: int
    events: tuple[WatchEvent, ...]
    is_created: bool = False


@dataclass(frozen=True, slots=True)
class KvStatus:
    """What an etcd says of itself. version: like '3.4.23'. db_size_bytes: on disk. db_used_bytes:
    how much of that holds anything.
    """

    version: str
    revision: int
    cluster_id: int
    member_id: int
    db_size_bytes: int
    db_used_bytes: int


class Kv(Protocol):
    """An etcd, seen through this door only.

    Every call has a deadline. Reads raise TransientError, CompactedError or DeniedError; writes
    also OutcomeUnknownError (the write may or may not have happened) and NoSpaceError. What no etcd
    would take (an empty key, too many operations, too large) raises RejectedError, a put with a
    lease that is gone NotFoundError. No call retries a write by itself. Cancelling a call leaves
    nothing behind but, for a write, an unknown outcome.
    """

    async def range(
        self,
        key: bytes,
        end: bytes = b"",
        *,
        limit: int = 0,
        revision: int = 0,
        stretch: float = 1.0,
    ) -> RangeResult:
        """Read one key, or [key, end) in ascending order, linearizable.

        limit 0: all; revision 0: now. stretch: times the usual deadline that it may take. A
        revision that is compacted raises CompactedError, one in the future TransientError.
        """
        ...

    async def commit(self, txn: Txn) -> TxnResult:
        """Run a transaction, once."""
        ...

    def watch(
        self, key: bytes, end: bytes, *, start_revision: int, progress: bool = True
    ) -> AbstractAsyncContextManager[AsyncIterator[WatchResponse]]:
        """Follow [key, end) from `start_revision` (> 0) on, requiring a leader.

        The first response is the one that says `is_created`; its revision is the store's, which
        may be behind `start_revision` when the store was re-created. The iterator ends only by
        raising: CompactedError, DeniedError, TransientError.
        """
        ...

    async def grant_lease(self, ttl_s: int) -> int:
        """Make a lease; returns its id (not 0)."""
        ...

    async def keep_lease(self, lease: int) -> float:
        """Renew a lease once; returns the seconds it now has, 0 if it is gone."""
        ...

    async def keep_leases(self, leases: Sequence[int]) -> list[float]:
        """Renew many leases, each once, at the cost of one call and not of as many; returns what
        `keep_lease` would for each. If it raises, some may have been renewed.
        """
        ...

    async def lease_left_s(self, lease: int) -> float:
        """The seconds that a lease has left, rounded up by etcd; 0 if it is gone."""
        ...

    async def revoke_lease(self, lease: int) -> None:
        """End a lease and delete its keys; no error if it is gone already."""
        ...

    async def compact(self, revision: int) -> None:
        """Drop history before `revision`; raises CompactedError if that already happened."""
        ...

    async def defragment(self, free_bytes_min: int) -> None:
        """Give back disk space that holds nothing, in each member that has so much, one by one.

        A member answers nobody meanwhile: seconds for each GiB.
        """
        ...

    async def status(self) -> KvStatus:
        """Ask the etcd that answers first about itself.

        From etcd 3.5.28 on some versions tell this to root alone: others get DeniedError.
        """
        ...

    async def close(self) -> None:
        """Close connections; watches and calls under way end with TransientError."""
        ...


class Clock(Protocol):
    """Time. `monotonic_s` for waiting and ageing, `wall_ms` only for what people read."""

    def monotonic_s(self) -> float:
        """Seconds since some fixed moment; never goes back."""
        ...

    def wall_ms(self) -> int:
        """Milliseconds since 1970; may jump."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait; ends early only by cancellation."""
        ...


class Chance(Protocol):
    """Randomness, so that a whole mesh can run from a seed."""

    def uuid_hex(self) -> str:
        """A new random UUID as 32 hexadecimal digits."""
        ...

    def uniform(self, low: float, high: float) -> float:
        """A number between the two."""
        ...


RawRecords = Sequence[tuple[int, bytes]]
"""Records as read from a log: (mod revision, bytes), ascending by seq."""


class Look(Protocol):
    """Asking an endpoint whether it is well."""

    async def __call__(self, address: str, port: int, probe: Probe) -> str:
        """Ask once, within the probe's time; returns what is wrong, '' for nothing. Never raises
        for what the other side does.
        """
        ...


Json = Mapping[str, object]
Acknowledged = asyncio.Future[None]
"""Done once the broker has taken a message for good; raises DeniedError if it refused it."""


class BrokerSession(Protocol):
    """One connection to a broker.

    Messages are sent in the order of the calls and not again; a call returns when its message was
    sent, which waits while too many are not acknowledged. All raise TransientError once the
    connection is lost, and DeniedError for what the broker is known not to take.
    """

    async def event(self, told: Told) -> Acknowledged:
        """Publish an event of the own log."""
        ...

    async def reset(self, reset: Reset) -> Acknowledged:
        """Say that what follows doesn't follow what came before."""
        ...

    async def table(self, key: ServiceKey, service: bytes) -> Acknowledged:
        """Have the broker keep a service; b"" to forget it."""
        ...

    async def status(self, status: Json) -> Acknowledged:
        """Have the broker keep how the cluster is."""
        ...

    def kept(self) -> AsyncIterator[tuple[ServiceKey, bytes]]:
        """The services that the broker keeps of this cluster, for as long as the connection is:
        all that there are come first, and nothing marks their end. To be called once.
        """
        ...

    async def lost(self) -> Never:
        """Wait until the connection is lost, or hangs; then raise TransientError."""
        ...


class Broker(Protocol):
    """A broker that this cluster publishes to. address: as people know it."""

    @property
    def address(self) -> str:
        """Where it is."""
        ...

    def connect(self, *, alone: bool) -> AbstractAsyncContextManager[BrokerSession]:
        """Connect, which ends any other connection of this cluster. Raises TransientError, or
        DeniedError if a person must act. alone: have one message in flight at a time, at first, so
        that the broker's word on it isn't lost with what is behind it.
        """
        ...
