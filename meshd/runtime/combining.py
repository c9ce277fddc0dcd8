"""Transactions of many writers, several in one.

For: the copies of peers' logs, whose writers don't know of each other: hundreds of peers that each
say something cost one request now and then, and not one each. Not for: the own log, whose writer
groups its commands itself. Invariants: each transaction is committed whole or not, at most once, as
it would be alone; one whose compares don't hold costs no other its commit.

The transactions of one batch touch different keys: nobody hands in another one before the last is
answered, and each writes below its own peer's keys.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from meshd.model.errors import MeshdError
from meshd.runtime.ports import Clock, Compare, Kv, Put, Txn, TxnResult
from meshd.telemetry import metrics

OPERATIONS_MAX: Final = 128
"""Of a batch, and of what it compares: etcd's `max-txn-ops`, if nobody has changed it."""
BYTES_MAX: Final = 1024 * 1024
"""Of all values of a batch: below the 1.5 MiB that etcd takes in one request."""
APART_S: Final = 0.02
"""Between the beginnings of two batches. A copy isn't waited for by anybody: only a restart reads
it, which then reads the last moments from the peer."""
PAUSE_S_MAX: Final = 1.0
"""How long an etcd is left alone at most after a batch. It is as long as the batch took, so that
what peers say, however much that is, costs own commands no more than half of the etcd's time."""


@dataclass(slots=True)
class _Waiting:
    """A transaction, and who waits for its result."""

    txn: Txn
    answer: asyncio.Future[TxnResult]

    @property
    def size_bytes(self) -> int:
        return sum(len(one.value) for one in self.txn.success if isinstance(one, Put))


class CombinedCommits:
    """Commits what several hand in together."""

    def __init__(self, kv: Kv, clock: Clock) -> None:
        self._kv = kv
        self._clock = clock
        self._waiting: deque[_Waiting] = deque()
        self._wake = asyncio.Event()

    async def commit(self, txn: Txn) -> TxnResult:
        """Commit a transaction as `Kv.commit` does, with others' if there are any, while `run`
        runs. Who is cancelled doesn't know whether it was done.
        """
        one = _Waiting(txn, asyncio.get_running_loop().create_future())
        self._waiting.append(one)
        self._wake.set()
        return await one.answer

    async def run(self) -> None:
        """Commit what is handed in, for ever."""
        next_s = self._clock.monotonic_s()
        while True:
            await self._wake.wait()
            if (left_s := next_s - self._clock.monotonic_s()) > 0:
                await self._clock.sleep(left_s)
            begun_s = self._clock.monotonic_s()
            batch = self._take()
            if not self._waiting:
                self._wake.clear()
            try:
                await self._commit(batch)
            finally:
                for one in batch:
                    # Nothing is left waiting for whoever is no more.
                    one.answer.cancel()
            now_s = self._clock.monotonic_s()
            next_s = max(begun_s + APART_S, now_s + min(PAUSE_S_MAX, now_s - begun_s))

    def _take(self) -> list[_Waiting]:
        """As many as fit into one transaction, the first one in any case."""
        batch: list[_Waiting] = []
        operations, size_bytes = 0, 0
        compares: set[Compare] = set()
        while self._waiting:
            one = self._waiting[0]
            operations += max(len(one.txn.success), len(one.txn.failure))
            compares.update(one.txn.compares)
            size_bytes += one.size_bytes
            is_full = max(operations, len(compares)) > OPERATIONS_MAX or size_bytes > BYTES_MAX
            if batch and is_full:
                break
            self._waiting.popleft()
            if not one.answer.cancelled():
                batch.append(one)
        return batch

    async def _commit(self, batch: Sequence[_Waiting]) -> None:
        if batch:
            metrics.REPLICA_COMMIT_TRANSACTIONS.observe(len(batch))
        if len(batch) > 1:
            try:
                done = await self._kv.commit(_combined(batch))
            except MeshdError as error:
                for one in batch:
                    _tell(one, error)
                return
            if done.succeeded:
                _tell_all(batch, done)
                return
        for one in batch:
            if one.answer.cancelled():
                continue
            try:
                _tell(one, await self._kv.commit(one.txn))
            except MeshdError as error:
                _tell(one, error)


def _combined(batch: Sequence[_Waiting]) -> Txn:
    """One transaction that does what all do if all that any compares holds."""
    return Txn(
        # What they all compare, as who leads, is compared once.
        compares=tuple(dict.fromkeys(it for one in batch for it in one.txn.compares)),
        success=tuple(it for one in batch for it in one.txn.success),
    )


def _tell_all(batch: Sequence[_Waiting], done: TxnResult) -> None:
    start = 0
    for one in batch:
        end = start + len(one.txn.success)
        _tell(one, TxnResult(True, done.revision, done.results[start:end]))
        start = end


def _tell(one: _Waiting, result: TxnResult | MeshdError) -> None:
    if one.answer.done():
        return
    if isinstance(result, MeshdError):
        one.answer.set_exception(result)
    else:
        one.answer.set_result(result)
