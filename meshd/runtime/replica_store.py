"""This cluster's durable copy of one peer's log, written behind what is folded.

For: coming back at once after a restart, though every peer is dead. Not for: following the peer.
Invariants: a record lies in the copy byte for byte; records and cursor move in one transaction,
compared against the old cursor; the durable cursor never runs ahead of what was folded; an own etcd
that is slow or down holds up nobody, since the backlog is bounded and read anew from the peer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import aclosing
from dataclasses import dataclass

import structlog
from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    wait_random_exponential,
)

from meshd.core.audit import Audit
from meshd.core.position import Verdict, classify
from meshd.core.state import ClusterState
from meshd.model.archive import Entry
from meshd.model.codec import Cursor, decode_cursor, encode_cursor
from meshd.model.errors import CorruptError, MeshdError, TransientError
from meshd.model.event import Record
from meshd.model.ids import ClusterName, Head, LogId, Revision, Seq
from meshd.model.keyspace import LogKeys
from meshd.runtime.follower import FOLDS_PER_TURN
from meshd.runtime.ports import (
    Clock,
    Delete,
    Get,
    Kv,
    ModRevisionIs,
    Operation,
    Put,
    Txn,
)
from meshd.runtime.reading import LogReader
from meshd.telemetry import metrics

log = structlog.get_logger(__name__)

TXN_RECORDS_MAX = 100
"""Below etcd's 128 operations, with room for the cursor and a delete."""
TXN_BYTES_MAX = 1024 * 1024
RETRY_CAP_S = 5.0


@dataclass(frozen=True, slots=True)
class Loaded:
    """A replica as it was found: how far it goes, and what it folds into."""

    cursor: Cursor
    state: ClusterState


@dataclass(slots=True)
class _Staged:
    """The records of a generation that isn't complete; too many are read anew later."""

    records: deque[tuple[Record, int]]
    size_bytes: int = 0
    head: Head | None = None


class ReplicaStore:
    """Keeps one peer's replica. durable_seq: how far the copy in etcd has come."""

    def __init__(
        self,
        kv: Kv,
        keys: LogKeys,
        peer: ClusterName,
        source: LogReader,
        clock: Clock,
        backlog_bytes_max: int,
    ) -> None:
        self._kv = kv
        self._keys = keys
        self._peer = peer
        self._source = source
        self._clock = clock
        self._backlog_bytes_max = backlog_bytes_max
        self._backlog: deque[tuple[Record, int]] = deque()
        self._backlog_bytes = 0
        self._overflowed = False
        self._staged: _Staged | None = None
        self._folded: Head | None = None
        self._durable: Cursor | None = None
        self._durable_revision = 0
        self._renew: LogId | None = None
        self._wake = asyncio.Event()

    @property
    def durable_seq(self) -> Seq:
        """The seq of the durable cursor."""
        return self._durable.head.seq if self._durable else Seq(0)

    @property
    def backlog_bytes(self) -> int:
        """Bytes folded but not yet durable."""
        return self._backlog_bytes

    # At the start.

    async def load(self) -> Loaded | None:
        """Read the replica back; None if there is none, or if it is damaged and must be read anew.

        Raises TransientError when the own etcd can't be read.
        """
        found = await self._kv.range(self._keys.cursor)
        if not found.kvs:
            return None
        self._durable_revision = found.kvs[0].mod_revision
        try:
            cursor = decode_cursor(found.kvs[0].value, f"replica of {self._peer}")
            if cursor.head.seq == 0:
                # Begun and not yet written: that is not a peer that offers nothing.
                return None
            state = await self._fold_copy(cursor)
        except CorruptError as error:
            log.warning(
                "replica is damaged and will be read anew", peer=self._peer, reason=str(error)
            )
            return None
        self._durable = cursor
        self._folded = cursor.head
        return Loaded(cursor, state)

    async def _fold_copy(self, cursor: Cursor) -> ClusterState:
        """Fold the copy up to the cursor, checking the chain all the way."""
        reader = LogReader(self._kv, self._source.keyspace, self._keys, is_local=False)
        log_id = cursor.head.log_id
        audit = Audit(self._peer, log_id, at=Head.genesis(log_id))
        async with aclosing(reader.records(0, cursor.head.seq)) as records:
            async for record, revision in records:
                audit.take(Entry(record, revision, reader.place(record.last_seq)))
                if audit.span.records % FOLDS_PER_TURN == 0:
                    await asyncio.sleep(0)
        if audit.at != cursor.head:
            raise CorruptError(reader.place(cursor.head.seq), "is not what the cursor says")
        return audit.state

    # While following.

    def begin_generation(self) -> None:
        """From here on records belong to a new generation, kept apart until it is complete."""
        self._staged = _Staged(deque())

    def complete_generation(self, log_id: LogId) -> None:
        """The new generation is served: it takes the old copy's place."""
        staged, self._staged = self._staged, None
        self._backlog.clear()
        self._backlog_bytes = 0
        self._renew = log_id
        self._overflowed = staged is not None and staged.size_bytes > self._backlog_bytes_max
        self._folded = Head.genesis(log_id)
        if staged is not None:
            self._folded = staged.head or self._folded
            for record, revision in staged.records:
                self._enqueue(record, revision)
        self._wake.set()

    def add(self, record: Record, revision: int) -> None:
        """Keep a record that was folded."""
        staged = self._staged
        if staged is None:
            self._enqueue(record, revision)
            self._wake.set()
            return
        staged.head = record.head
        staged.size_bytes += len(record.raw)
        if staged.size_bytes > self._backlog_bytes_max:
            staged.records.clear()
        else:
            staged.records.append((record, revision))

    def _enqueue(self, record: Record, revision: int) -> None:
        self._folded = record.head
        if self._overflowed:
            return
        self._backlog.append((record, revision))
        self._backlog_bytes += len(record.raw)
        if self._backlog_bytes > self._backlog_bytes_max:
            self._backlog.clear()
            self._backlog_bytes = 0
            self._overflowed = True

    async def run(self) -> None:
        """Write what was folded, for ever, however long the own etcd is away."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(MeshdError),
                wait=wait_random_exponential(multiplier=0.1, max=RETRY_CAP_S),
                sleep=self._clock.sleep,
            ):
                with attempt:
                    await self._drain()

    async def _drain(self) -> None:
        while True:
            metrics.REPLICA_BACKLOG_BYTES.labels(self._peer).set(self._backlog_bytes)
            if self._renew is not None:
                await self._start_over(self._renew)
            elif self._overflowed:
                await self._refill()
            elif self._backlog:
                await self._write_some()
            else:
                return

    async def _start_over(self, log_id: LogId) -> None:
        """Drop the old generation's copy and set the cursor before the new one's first event."""
        await self._read_cursor()
        cursor = Cursor(Head.genesis(log_id), Revision(0))
        await self._move(cursor, (Delete(self._keys.log, self._keys.log_end),))
        if self._renew == log_id:
            self._renew = None

    async def _write_some(self) -> None:
        """Write the next records and the cursor that stands behind the last of them."""
        taken: list[tuple[Record, int]] = []
        size_bytes = 0
        for record, revision in self._backlog:
            size_bytes += len(record.raw)
            if taken and (len(taken) >= TXN_RECORDS_MAX or size_bytes > TXN_BYTES_MAX):
                break
            if record.last_seq > self.durable_seq:
                taken.append((record, revision))
        if taken and not self._continues(taken[0][0]):
            # Somebody else has moved the copy to where the backlog doesn't fit: make it anew.
            self._renew, self._overflowed = taken[0][0].log_id, True
            return
        if taken:
            last, last_revision = taken[-1]
            puts = tuple(Put(self._keys.record(item.last_seq), item.raw) for item, _ in taken)
            await self._move(Cursor(last.head, Revision(last_revision)), puts)
        if self._renew is None:
            self._forget_durable()

    def _forget_durable(self) -> None:
        while self._backlog and self._backlog[0][0].last_seq <= self.durable_seq:
            record, _ = self._backlog.popleft()
            self._backlog_bytes -= len(record.raw)

    async def _refill(self) -> None:
        """Read from the peer what the backlog had to let go, up to what was folded."""
        folded = self._folded
        self._overflowed = False
        if folded is None:
            return
        try:
            async with aclosing(self._source.records(self.durable_seq, folded.seq)) as records:
                async for record, revision in records:
                    await self._append(record, revision)
        except MeshdError:
            self._overflowed = True
            raise

    async def _append(self, record: Record, revision: int) -> None:
        if not self._continues(record):
            raise TransientError(f"seq {record.first_seq} of {self._peer} is not what was folded")
        put = Put(self._keys.record(record.last_seq), record.raw)
        await self._move(Cursor(record.head, Revision(revision)), (put,))

    def _continues(self, record: Record) -> bool:
        at = self._durable.head if self._durable else Head.genesis(record.log_id)
        return classify(at, record) is Verdict.NEXT

    async def _move(self, cursor: Cursor, operations: tuple[Operation, ...]) -> None:
        """Do the operations and move the cursor, if it is still where it was left.

        Raises TransientError if it isn't, after having read where it is now: another meshd of this
        cluster keeps the same replica, or an earlier write was done though its answer was lost.
        """
        result = await self._kv.commit(
            Txn(
                compares=(ModRevisionIs(self._keys.cursor, self._durable_revision),),
                success=(*operations, Put(self._keys.cursor, encode_cursor(cursor))),
                failure=(Get(self._keys.cursor),),
            )
        )
        if result.succeeded:
            self._durable, self._durable_revision = cursor, result.revision
            return
        await self._read_cursor()
        raise TransientError(f"the replica of {self._peer} was moved by another writer")

    async def _read_cursor(self) -> None:
        found = await self._kv.range(self._keys.cursor)
        if not found.kvs:
            self._durable, self._durable_revision = None, 0
            return
        self._durable_revision = found.kvs[0].mod_revision
        try:
            self._durable = decode_cursor(found.kvs[0].value, f"replica of {self._peer}")
        except CorruptError as error:
            # It will be written over: a cursor that can't be read stands before every record.
            log.warning("replica's cursor is damaged", peer=self._peer, reason=str(error))
            self._durable = None
