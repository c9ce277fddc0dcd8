"""A client of an in-memory etcd.

For: the door `Kv` onto a `MemoryEtcd`, with a link that can be cut. Not for: what the server does.
Invariant: a call takes two turns of the loop and, unless a fault says so, no time.

Faults of one client:
    kv.set_linked(...)     its network; cutting ends its watches
    kv.is_denied           its rights (a running watch survives their loss, as in etcd)
    kv.lose_next_reply     the next write is applied and its answer lost
    kv.lose_next_request   the next write is lost on its way, which nobody can tell from the above
    kv.set_hearing(...)    its network in one direction: what it asks arrives, no answer does
    kv.latency_s           how long each call takes, half of it on the way there
What it asked: `kv.calls`, by the door's method names.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

from meshd.edges.memory.etcd import MemoryEtcd
from meshd.edges.memory.limits import is_write
from meshd.edges.memory.watch import Watch
from meshd.model.errors import DeniedError, MeshdError, OutcomeUnknownError, TransientError
from meshd.runtime.ports import KvStatus, RangeResult, Txn, TxnResult, WatchResponse

_T = TypeVar("_T")

DEADLINE_S = 5.0
"""How long a call waits for an answer that doesn't come: meshd's own setting unless told."""


class MemoryKv:
    """A client: implements `Kv`."""

    def __init__(self, etcd: MemoryEtcd) -> None:
        self.is_linked = True
        self.is_denied = False
        self.lose_next_reply = False
        self.lose_next_request = False
        self.is_hearing = True
        self.latency_s = 0.0
        self.calls: Counter[str] = Counter()
        self._etcd = etcd
        self._is_closed = False
        self._cuts = 0

    def set_linked(self, *, linked: bool) -> None:
        """Cut or mend this client's network; cutting ends its watches."""
        self.is_linked = linked
        if not linked:
            self._cuts += 1
            self._etcd.end_watches("the link is down", owner=self)

    def set_hearing(self, *, hears: bool) -> None:
        """Cut or mend the way back. Cut, its watches fall silent; mended, they end, since a
        connection that was dead for so long doesn't live on.
        """
        if hears and not self.is_hearing:
            self._etcd.end_watches("the link was dead", owner=self)
        if not hears:
            self._cuts += 1
            self._etcd.silence_watches(owner=self)
        self.is_hearing = hears

    async def range(
        self,
        key: bytes,
        end: bytes = b"",
        *,
        limit: int = 0,
        revision: int = 0,
        stretch: float = 1.0,
    ) -> RangeResult:
        """Read, as `Kv.range`."""

        def ask() -> RangeResult:
            return self._etcd.range(key, end, limit=limit, revision=revision)

        return await self._call("range", ask, limit_s=DEADLINE_S * stretch)

    async def commit(self, txn: Txn) -> TxnResult:
        """Run a transaction, as `Kv.commit`."""
        return await self._call(
            "commit",
            lambda: self._etcd.commit(txn),
            writes=is_write(txn),
            limit_s=min(txn.patience_s or math.inf, DEADLINE_S),
        )

    def watch(
        self, key: bytes, end: bytes, *, start_revision: int, progress: bool = True
    ) -> AbstractAsyncContextManager[AsyncIterator[WatchResponse]]:
        """Follow a range, as `Kv.watch`."""
        if start_revision < 1:
            raise ValueError("a watch must say from which revision")
        return self._watch(key, end, start_revision, progress=progress)

    @asynccontextmanager
    async def _watch(
        self, key: bytes, end: bytes, start_revision: int, *, progress: bool
    ) -> AsyncIterator[Watch]:
        self.calls["watch"] += 1
        await asyncio.sleep(0)
        if self.latency_s:
            await self._etcd.clock.sleep(self.latency_s / 2)
        watch = Watch(self._etcd, key, end, start_revision, progress=progress)
        self._etcd.open_watch(watch, self)
        if not self.is_hearing:
            watch.silence()
        try:
            # As with a real one, opening succeeds and the first response fails.
            self._check()
        except MeshdError as error:
            watch.fail(error)
        try:
            yield watch
        finally:
            self._etcd.close_watch(watch)

    async def grant_lease(self, ttl_s: int) -> int:
        """Make a lease, as `Kv.grant_lease`."""
        return await self._call("grant_lease", lambda: self._etcd.grant_lease(ttl_s), writes=True)

    async def keep_lease(self, lease: int) -> float:
        """Renew a lease, as `Kv.keep_lease`."""
        return await self._call("keep_lease", lambda: self._etcd.keep_lease(lease))

    async def keep_leases(self, leases: Sequence[int]) -> list[float]:
        """Renew many leases, as `Kv.keep_leases`."""
        return await self._call("keep_leases", lambda: [*map(self._etcd.keep_lease, leases)])

    async def lease_left_s(self, lease: int) -> float:
        """Look at a lease, as `Kv.lease_left_s`."""
        return await self._call("lease_left_s", lambda: self._etcd.lease_left_s(lease))

    async def revoke_lease(self, lease: int) -> None:
        """End a lease, as `Kv.revoke_lease`."""
        await self._call("revoke_lease", lambda: self._etcd.revoke_lease(lease), writes=True)

    async def compact(self, revision: int) -> None:
        """Forget history, as `Kv.compact`."""
        await self._call("compact", lambda: self._etcd.compact(revision), writes=True)

    async def defragment(self, free_bytes_min: int) -> None:
        """Do nothing, as `Kv.defragment` with a store that has no holes."""
        del free_bytes_min
        await self._call("defragment", lambda: None, writes=True)

    async def status(self) -> KvStatus:
        """Ask for the status, as `Kv.status`."""
        return await self._call("status", self._etcd.status)

    async def close(self) -> None:
        """Close, as `Kv.close`."""
        self._is_closed = True
        self._etcd.end_watches("the client is closed", owner=self)

    async def _call(
        self,
        name: str,
        ask: Callable[[], _T],
        *,
        writes: bool = False,
        limit_s: float = DEADLINE_S,
    ) -> _T:
        self.calls[name] += 1
        # One turn on the way there and one on the way back: both are places to be cancelled at.
        await asyncio.sleep(0)
        if self.latency_s:
            await self._etcd.clock.sleep(self.latency_s / 2)
        self._check()
        if writes and self.lose_next_request:
            self.lose_next_request = False
            raise OutcomeUnknownError(f"etcd: the answer to {name} was lost")
        self._etcd.expire_leases()
        connection = self._connection
        answer = ask()
        is_lost = writes and self.lose_next_reply
        if is_lost:
            self.lose_next_reply = False
        await asyncio.sleep(0)
        if not self.is_hearing:
            is_lost = True
            await self._etcd.clock.sleep(limit_s)
        elif self.latency_s > limit_s:
            is_lost = True
            await self._etcd.clock.sleep(max(0.0, limit_s - self.latency_s / 2))
        elif self.latency_s:
            await self._etcd.clock.sleep(self.latency_s / 2)
        is_lost = is_lost or connection != self._connection
        if is_lost or not self._is_connected:
            error = OutcomeUnknownError if writes else TransientError
            raise error(f"etcd: the answer to {name} was lost")
        return answer

    @property
    def _connection(self) -> tuple[int, int]:
        """Which connection this is: no answer comes by another one than its question."""
        return self._etcd.restarts, self._cuts

    @property
    def _is_connected(self) -> bool:
        return self.is_linked and self._etcd.is_up and not self._is_closed

    def _check(self) -> None:
        if not self._is_connected:
            raise TransientError("etcd: no connection")
        if self.is_denied:
            raise DeniedError("etcd: permission denied")
