"""This cluster's durable copy of one peer's log, written behind what is folded.

For: coming back at once after a restart, though every peer is dead. Not for: following the peer,
nor the transactions (`replica_copy`). Invariants: what is written is byte for byte the peer's; the
durable cursor never runs ahead of what was folded; an own etcd that is slow or down holds up
nobody, since the backlog is bounded and read anew from the peer; only the leader writes, and the
others keep what it hasn't written yet, to go on where it stops.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass

from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    wait_random_exponential,
)

from meshd.core.identity import usable_snapshot
from meshd.core.position import Verdict, classify
from meshd.model.errors import MeshdError, TransientError
from meshd.model.event import Record
from meshd.model.ids import Head, LogId, Seq
from meshd.model.snapshot import Manifest
from meshd.runtime.backlog import Backlog, Item, PartItem, RecordItem
from meshd.runtime.ports import Clock
from meshd.runtime.reading import LogReader
from meshd.runtime.replica_copy import Loaded, ReplicaCopy
from meshd.telemetry import metrics

TXN_RECORDS_MAX = 100
"""Below etcd's 128 operations, with room for the cursor and a delete."""
TXN_BYTES_MAX = 1024 * 1024
RETRY_CAP_S = 5.0
LOOK_EVERY_S = 2.0
"""How often one who doesn't lead looks how far the leader has written."""
WRITES_APART_S = 0.2
"""Between the beginnings of two rounds of writing: a peer that says something all the time costs
five transactions a second, however many records that are. Only a restart reads the copy, which
then reads the last moments from the peer.
"""
DOUBT_AFTER_S = 30.0
"""When one who leads and has nothing to write looks whether the copy is still where it was left: an
own etcd that was restored from a backup may hold an older one, though the own log is the same.
"""


@dataclass(slots=True, eq=False)
class _Renewal:
    """A generation whose copy is to be built and then served. until_seq: what it must hold then."""

    log_id: LogId
    until_seq: Seq
    is_begun: bool = False


class ReplicaStore:
    """Keeps one peer's replica. durable_seq: how far the copy in etcd has come."""

    def __init__(
        self, copy: ReplicaCopy, source: LogReader, clock: Clock, backlog_bytes_max: int
    ) -> None:
        """source: the peer's own log, where what the backlog lets go is read again."""
        self._copy = copy
        self._peer = copy.peer
        self._source = source
        self._clock = clock
        self._backlog = Backlog(backlog_bytes_max)
        self._staged: Backlog | None = None
        self._renewal: _Renewal | None = None
        self._wake = asyncio.Event()
        self._is_doubted = False
        self._backlog_gauge = metrics.REPLICA_BACKLOG_BYTES.labels(copy.peer)

    @property
    def durable_seq(self) -> Seq:
        """The seq of the durable cursor."""
        cursor = self._copy.cursor
        return cursor.head.seq if cursor else Seq(0)

    @property
    def durable_log_id(self) -> LogId | None:
        """Which log the durable copy is of; None if there is none."""
        cursor = self._copy.cursor
        return cursor.head.log_id if cursor else None

    @property
    def place(self) -> int:
        """In which of its two places the copy lies."""
        return self._copy.cursor.place if self._copy.cursor else 0

    @property
    def backlog_bytes(self) -> int:
        """Bytes folded but not yet durable."""
        return self._backlog.size_bytes

    def read_from(self, source: LogReader) -> None:
        """Read the peer's own log by another way from now on; not while `run` runs."""
        self._source = source

    async def load(self) -> Loaded | None:
        """Read the replica back; None if there is none, or if it is damaged and must be read anew.

        Raises TransientError when the own etcd can't be read.
        """
        loaded = await self._copy.load()
        if loaded is not None:
            self._backlog.folded = loaded.cursor.head
        return loaded

    # While following.

    def begin_generation(self) -> None:
        """From here on everything belongs to a new generation, kept apart until it is complete."""
        self._staged = Backlog(self._backlog.bytes_max)

    def add_part(self, manifest: Manifest, number: int, raw: bytes) -> None:
        """Keep a part of a snapshot that was folded."""
        self._add(PartItem(manifest, number, raw))

    def finish_snapshot(self, manifest: Manifest) -> None:
        """All its parts were folded."""
        self._add(PartItem(manifest, len(manifest.parts), None), manifest.head)

    def add(self, record: Record, revision: int) -> None:
        """Keep a record that was folded."""
        self._add(RecordItem(record, revision), record.head)

    def _add(self, item: Item, folded: Head | None = None) -> None:
        backlog = self._backlog if self._staged is None else self._staged
        backlog.add(item)
        backlog.folded = folded or backlog.folded
        if self._staged is None:
            self._wake.set()

    def complete_generation(self, log_id: LogId) -> None:
        """The new generation is served: once it is written, it takes the old copy's place."""
        staged, self._staged = self._staged, None
        self._backlog = staged or Backlog(self._backlog.bytes_max)
        self._backlog.folded = self._backlog.folded or Head.genesis(log_id)
        self._renewal = _Renewal(log_id, self._backlog.folded.seq)
        self._wake.set()

    # Writing.

    async def run(self) -> None:
        """Write what was folded, for ever, however long the own etcd is away."""
        # Whoever ran before may have been ended in the middle of it.
        self._wake.set()
        while True:
            await self._wait()
            next_s = self._clock.monotonic_s() + WRITES_APART_S
            try:
                await self._drain()
            except MeshdError:
                await self._drain_again()
            if (left_s := next_s - self._clock.monotonic_s()) > 0:
                await self._clock.sleep(left_s)

    async def _drain_again(self) -> None:
        """Try until it is done. What failed once was mostly a lost race: a second try settles it.

        Tenacity comes in only here: even where nothing fails it takes 0.1 ms.
        """
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(MeshdError),
            wait=wait_random_exponential(multiplier=0.1, max=RETRY_CAP_S),
            sleep=self._clock.sleep,
        ):
            with attempt:
                await self._drain()

    async def _wait(self) -> None:
        """Wait for something to do, or to look at."""
        if self._copy.fence() is None:
            await self._clock.sleep(LOOK_EVERY_S)
        else:
            try:
                async with asyncio.timeout(DOUBT_AFTER_S):
                    await self._wake.wait()
            except TimeoutError:
                self._is_doubted = True
        self._wake.clear()

    async def _drain(self) -> None:
        while True:
            self._backlog_gauge.set(self._backlog.size_bytes)
            if self._copy.fence() is None:
                await self._look_on()
                # Who has begun to lead meanwhile goes on with what is left, without being woken.
                self._wake.set()
                return
            if self._is_doubted:
                await self._look_again()
                self._is_doubted = False
            renewal, backlog = self._renewal, self._backlog
            if renewal is not None and not (renewal.is_begun and self._copy.is_building):
                await self._begin(renewal, backlog)
            elif backlog.is_cut:
                await self._refill(backlog)
            elif backlog.items and not self._is_overtaken(backlog):
                await self._write_some(backlog)
            elif renewal is None:
                return
            elif self._is_built(renewal):
                await self._serve(renewal)
            else:
                backlog.cut()

    def _is_overtaken(self, backlog: Backlog) -> bool:
        """Whether more was written than was folded here: by a former leader that had read further,
        or of a history that was lost. Which of the two shows with time.
        """
        durable, folded = self._copy.head, backlog.folded
        if durable is None or folded is None or self._renewal is not None:
            return False
        return durable.log_id == folded.log_id and durable.seq > folded.seq

    async def _look_on(self) -> None:
        """Let go what the leader has written."""
        backlog, renewal = self._backlog, self._renewal
        if not backlog.items and not backlog.is_cut:
            return
        await self._copy.look()
        written = await self._written(backlog)
        if written is None:
            return
        if renewal is not None and written.seq >= renewal.until_seq:
            self._finish(renewal)
        if self._renewal is None:
            backlog.forget_until(written)

    async def _written(self, backlog: Backlog) -> Head | None:
        """Up to where the copy holds what was folded here; None if it is of another history, or
        can't be told from one yet. A leader that is ahead is told by the last record that it has.
        """
        cursor, last = self._copy.cursor, backlog.last
        if cursor is None:
            return None
        if last is not None and last.last_seq < cursor.head.seq and await self._copy.holds(last):
            return last.head
        return cursor.head if backlog.passes(cursor.head) else None

    async def _look_again(self) -> None:
        """Make the copy anew if it isn't where it was left, or is still ahead of what was folded:
        then it is of a history that is no more.
        """
        cursor, backlog = self._copy.cursor, self._backlog
        if self._renewal is not None or cursor is None:
            return
        await self._copy.look()
        folded, is_moved = backlog.folded, self._copy.cursor != cursor
        if folded is None or self._renewal is not None:
            return
        if is_moved or self._is_overtaken(backlog):
            self._renewal = _Renewal(folded.log_id, folded.seq)

    async def _begin(self, renewal: _Renewal, backlog: Backlog) -> None:
        """Begin a new copy. A former try that was lost had taken from the backlog."""
        items, folded = backlog.items, backlog.folded
        if folded is not None and folded.seq and not (items and items[0].is_first):
            backlog.cut()
        await self._copy.begin(renewal.log_id)
        renewal.is_begun = True

    async def _serve(self, renewal: _Renewal) -> None:
        await self._copy.serve()
        self._finish(renewal)

    def _finish(self, renewal: _Renewal) -> None:
        """Unless a newer generation has been completed meanwhile."""
        if self._renewal is renewal:
            self._renewal = None

    async def _write_some(self, backlog: Backlog) -> None:
        """Write the next part, or the next records, and the cursor that stands behind them."""
        renewal, item = self._renewal, backlog.items[0]
        match item:
            case PartItem(manifest, number, raw):
                if raw is None:
                    await self._copy.finish_snapshot(manifest)
                else:
                    await self._copy.add_part(manifest, number, raw)
                backlog.drop_first()
            case RecordItem():
                await self._write_records(backlog)
        if renewal is not None and self._is_built(renewal):
            await self._serve(renewal)

    def _is_built(self, renewal: _Renewal) -> bool:
        head = self._copy.head
        is_it = renewal.is_begun and self._copy.is_building
        return is_it and head is not None and head.seq >= renewal.until_seq

    async def _write_records(self, backlog: Backlog) -> None:
        durable = self._copy.head
        if durable is not None and backlog.passes(durable):
            backlog.forget_until(durable)
        taken: list[tuple[Record, int]] = []
        size_bytes = 0
        for item in backlog.items:
            if not isinstance(item, RecordItem):
                break
            size_bytes += len(item.record.raw)
            if taken and (len(taken) >= TXN_RECORDS_MAX or size_bytes > TXN_BYTES_MAX):
                break
            taken.append((item.record, item.revision))
        if not taken:
            return
        if not self._continues(taken[0][0]):
            # Somebody else has moved the copy to where the backlog doesn't fit: make it anew.
            self._renewal = _Renewal(taken[0][0].log_id, taken[-1][0].last_seq)
            backlog.cut()
            return
        await self._copy.append(taken)
        backlog.forget_until(taken[-1][0].head)

    def _continues(self, record: Record) -> bool:
        at = self._copy.head or Head.genesis(record.log_id)
        return classify(at, record) is Verdict.NEXT

    # What the backlog had to let go.

    async def _refill(self, backlog: Backlog) -> None:
        """Read from the peer what the backlog had to let go, up to what was folded."""
        folded = backlog.folded
        backlog.is_cut = False
        if folded is None:
            return
        try:
            await self._copy_from_peer(folded)
        except BaseException:
            # Also where it is cancelled: whoever goes on must not take a part for the whole.
            backlog.cut()
            raise

    async def _copy_from_peer(self, folded: Head) -> None:
        renewal, head = self._renewal, self._copy.head
        after_seq = head.seq if head else 0
        snapshot = usable_snapshot(await self._source.identify(0))
        if snapshot is not None and after_seq < snapshot.trim.seq:
            if renewal is None:
                # What the copy lacks is gone at the peer: begin anew, with its snapshot.
                self._renewal = _Renewal(folded.log_id, folded.seq)
                raise TransientError(f"the log of {self._peer} was cut beyond its copy")
            await self._copy_snapshot(snapshot, folded)
            after_seq = snapshot.head.seq
        async with aclosing(self._source.records(after_seq, folded.seq)) as records:
            async for record, revision in records:
                if not self._continues(record):
                    raise TransientError(
                        f"seq {record.first_seq} of {self._peer} is not what was folded"
                    )
                await self._copy.append([(record, revision)])
        if renewal is not None and self._is_built(renewal):
            await self._serve(renewal)

    async def _copy_snapshot(self, snapshot: Manifest, folded: Head) -> None:
        if snapshot.head.seq > folded.seq or snapshot.head.log_id != folded.log_id:
            raise TransientError(f"the snapshot of {self._peer} is newer than what was folded")
        for number in range(len(snapshot.parts)):
            raw = await self._source.part(snapshot.head.seq, number)
            if raw is None:
                raise TransientError(f"the snapshot of {self._peer} was replaced")
            await self._copy.add_part(snapshot, number, raw)
        await self._copy.finish_snapshot(snapshot)
