"""This cluster's durable copy of one peer's log, written behind what is folded.

For: coming back at once after a restart, though every peer is dead. Not for: following the peer,
nor the transactions (`replica_copy`). Invariants: what is written is byte for byte the peer's; the
durable cursor never runs ahead of what was folded; an own etcd that is slow or down holds up
nobody, since the backlog is bounded and read anew from the peer; only the leader writes, and the
others keep what it hasn't written yet, to go on where it stops.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import aclosing
from dataclasses import dataclass, field

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


@dataclass(frozen=True, slots=True)
class _RecordItem:
    record: Record
    revision: int


@dataclass(frozen=True, slots=True)
class _PartItem:
    """A part of the snapshot that a generation begins with; raw None: that was the last one."""

    manifest: Manifest
    number: int
    raw: bytes | None


_Item = _RecordItem | _PartItem


@dataclass(slots=True)
class _Backlog:
    """What was folded and isn't durable, in order, up to a limit; beyond it everything is let go,
    to be read anew from the peer.

    folded: how far it would reach. last: the last record there, if it is one. is_cut: something was
    let go.
    """

    bytes_max: int
    folded: Head | None = None
    last: Record | None = None
    items: deque[_Item] = field(default_factory=deque)
    size_bytes: int = 0
    is_cut: bool = False

    def add(self, item: _Item) -> None:
        if isinstance(item, _RecordItem):
            self.last = item.record
        if not self.is_cut:
            self.items.append(item)
            self.size_bytes += _size_bytes(item)
            if self.size_bytes > self.bytes_max:
                self.cut()

    def cut(self) -> None:
        self.items.clear()
        self.size_bytes, self.is_cut = 0, True

    def drop_first(self) -> None:
        self.size_bytes -= _size_bytes(self.items.popleft())

    def forget_through(self, durable: Head) -> bool:
        """Let go what a copy that reaches so far holds; says whether it is a copy of this.

        Only a place that this itself passes through says so: another past of the same log, such as
        that of a peer which was put back to a backup, has the same id and may have been longer.
        """
        if durable == self.folded:
            self.cut()
            self.is_cut = False
            return True
        if not any(_ends_at(item, durable) for item in self.items):
            return False
        while not _ends_at(self.items[0], durable):
            self.drop_first()
        self.drop_first()
        return True


@dataclass(slots=True, eq=False)
class _Renewal:
    """A generation whose copy is to be built and then served. until_seq: what it must hold then."""

    log_id: LogId
    until_seq: Seq
    is_begun: bool = False


def _size_bytes(item: _Item) -> int:
    match item:
        case _RecordItem(record):
            return len(record.raw)
        case _PartItem(raw=raw):
            return len(raw or b"")


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
        self._backlog = _Backlog(backlog_bytes_max)
        self._staged: _Backlog | None = None
        self._renewal: _Renewal | None = None
        self._wake = asyncio.Event()

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
        self._staged = _Backlog(self._backlog.bytes_max)

    def add_part(self, manifest: Manifest, number: int, raw: bytes) -> None:
        """Keep a part of a snapshot that was folded."""
        self._add(_PartItem(manifest, number, raw))

    def finish_snapshot(self, manifest: Manifest) -> None:
        """All its parts were folded."""
        self._add(_PartItem(manifest, len(manifest.parts), None), manifest.head)

    def add(self, record: Record, revision: int) -> None:
        """Keep a record that was folded."""
        self._add(_RecordItem(record, revision), record.head)

    def _add(self, item: _Item, folded: Head | None = None) -> None:
        backlog = self._backlog if self._staged is None else self._staged
        backlog.add(item)
        backlog.folded = folded or backlog.folded
        if self._staged is None:
            self._wake.set()

    def complete_generation(self, log_id: LogId) -> None:
        """The new generation is served: once it is written, it takes the old copy's place."""
        staged, self._staged = self._staged, None
        self._backlog = staged or _Backlog(self._backlog.bytes_max)
        self._backlog.folded = self._backlog.folded or Head.genesis(log_id)
        self._renewal = _Renewal(log_id, self._backlog.folded.seq)
        self._wake.set()

    # Writing.

    async def run(self) -> None:
        """Write what was folded, for ever, however long the own etcd is away."""
        while True:
            await self._wait()
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(MeshdError),
                wait=wait_random_exponential(multiplier=0.1, max=RETRY_CAP_S),
                sleep=self._clock.sleep,
            ):
                with attempt:
                    await self._drain()

    async def _wait(self) -> None:
        """Wait for something to do; who doesn't lead looks now and then what the leader did."""
        if self._copy.fence() is None:
            await self._clock.sleep(LOOK_EVERY_S)
        else:
            await self._wake.wait()
        self._wake.clear()

    async def _drain(self) -> None:
        while True:
            metrics.REPLICA_BACKLOG_BYTES.labels(self._peer).set(self._backlog.size_bytes)
            if self._copy.fence() is None:
                await self._look_on()
                return
            renewal, backlog = self._renewal, self._backlog
            if renewal is not None and not (renewal.is_begun and self._copy.is_building):
                await self._begin(renewal, backlog)
            elif backlog.is_cut:
                await self._refill(backlog)
            elif backlog.items and not self._is_ahead(backlog):
                await self._write_some(backlog)
            elif renewal is not None:
                await self._serve(renewal)
            else:
                return

    def _is_ahead(self, backlog: _Backlog) -> bool:
        """Whether the former leader wrote more than is folded here: what comes will tell."""
        at, folded = self._copy.head, backlog.folded
        if at is None or folded is None or self._renewal is not None:
            return False
        return at.log_id == folded.log_id and at.seq > folded.seq

    async def _look_on(self) -> None:
        """Let go what the leader has written."""
        backlog, renewal = self._backlog, self._renewal
        if not backlog.items and not backlog.is_cut:
            return
        await self._copy.look()
        if await self._is_written(backlog) and renewal is not None:
            self._finish(renewal)

    async def _is_written(self, backlog: _Backlog) -> bool:
        """Whether the copy is one of what is folded here; lets go as much of it as the copy has."""
        cursor, last, renewal = self._copy.cursor, backlog.last, self._renewal
        if cursor is None or (renewal is not None and cursor.head.seq < renewal.until_seq):
            return False
        if last is not None and cursor.head.seq > last.last_seq and await self._copy.holds(last):
            # What was folded while that was looked up stays.
            backlog.forget_through(last.head)
            return True
        return backlog.forget_through(cursor.head)

    async def _begin(self, renewal: _Renewal, backlog: _Backlog) -> None:
        """Begin a new copy. A former try that was lost had taken from the backlog."""
        items, folded = backlog.items, backlog.folded
        if folded is not None and folded.seq and not (items and _is_first(items[0])):
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

    async def _write_some(self, backlog: _Backlog) -> None:
        """Write the next part, or the next records, and the cursor that stands behind them."""
        renewal, item = self._renewal, backlog.items[0]
        match item:
            case _PartItem(manifest, number, raw):
                if raw is None:
                    await self._copy.finish_snapshot(manifest)
                else:
                    await self._copy.add_part(manifest, number, raw)
                backlog.drop_first()
            case _RecordItem():
                await self._write_records(backlog)
        if renewal is not None and self._is_built(renewal):
            await self._serve(renewal)

    def _is_built(self, renewal: _Renewal) -> bool:
        head = self._copy.head
        is_it = renewal.is_begun and self._copy.is_building
        return is_it and head is not None and head.seq >= renewal.until_seq

    async def _write_records(self, backlog: _Backlog) -> None:
        durable = self._copy.head
        if durable is not None:
            backlog.forget_through(durable)
        taken: list[tuple[Record, int]] = []
        size_bytes = 0
        for item in backlog.items:
            if not isinstance(item, _RecordItem):
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
        backlog.forget_through(taken[-1][0].head)

    def _continues(self, record: Record) -> bool:
        at = self._copy.head or Head.genesis(record.log_id)
        return classify(at, record) is Verdict.NEXT

    # What the backlog had to let go.

    async def _refill(self, backlog: _Backlog) -> None:
        """Read from the peer what the backlog had to let go, up to what was folded."""
        folded = backlog.folded
        backlog.is_cut = False
        if folded is None:
            return
        try:
            await self._copy_from_peer(folded)
        except MeshdError:
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


def _is_first(item: _Item) -> bool:
    """Whether a generation may begin with this."""
    match item:
        case _RecordItem(record):
            return record.first_seq == 1
        case _PartItem(number=number):
            return number == 0


def _ends_at(item: _Item, head: Head) -> bool:
    """Whether a copy stands there once it holds this."""
    match item:
        case _RecordItem(record):
            return record.last_seq == head.seq and record.head == head
        case _PartItem(manifest, raw=raw):
            return raw is None and manifest.head == head
