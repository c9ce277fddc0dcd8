"""Events in the order of their logs: from the ring while it reaches back, else from etcd.

For: lists and streams of events, of the own local log and of the replicas. Not for: tables.
Invariants: a reader has only a position, so one that stands still costs nothing and delays nobody;
per cluster every event after the position is given out once, in order, or the reader is told that
its position is of another log.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from itertools import islice

from meshd.model.codec import decode_record
from meshd.model.errors import CorruptError, NotFoundError, Problem, RejectedError, TransientError
from meshd.model.event import Record, Told
from meshd.model.ids import ClusterName, Head, LogId, Position, Seq, Vector
from meshd.model.keyspace import Keyspace, LogKeys
from meshd.model.place import EventPlace, mark_of
from meshd.runtime.ports import Kv
from meshd.runtime.projector import Projector
from meshd.runtime.reading import WINDOW_SEQS, LogReader

TOLD_AT_ONCE = 256
"""Events that are read for one reader at a time, or one record: one that is sent them and takes
nothing holds no more, which is some 200 KiB."""
READS_AT_ONCE = 16
"""Reads of the own etcd for those who follow: when a cluster joins, all of them read its log. Who
asks for a list doesn't wait for them."""
RETRY_S = 0.5
"""When a log that couldn't be read is looked at again, if nothing happens before."""

START_OVER = "begin with a snapshot (from=snapshot), or read the tables and follow from 'now'"

NO_TURNS: AbstractAsyncContextManager[object] = nullcontext()


class GoneError(RejectedError):
    """The position is of a log that no longer exists; start over from the tables."""


class History:
    """The events of all logs that are held here."""

    def __init__(
        self,
        kv: Kv,
        keyspace: Keyspace,
        projector: Projector,
        place_of: Callable[[ClusterName], int],
    ) -> None:
        """place_of: in which of its places a peer's replica lies now."""
        self._kv = kv
        self._keyspace = keyspace
        self._projector = projector
        self._place_of = place_of
        self._turns = asyncio.Semaphore(READS_AT_ONCE)

    async def read(self, cluster: ClusterName, after: int, limit: int) -> list[Told]:
        """Up to `limit` events of a cluster after a seq; fewer only at the log's end. After 0 means
        from the oldest that is still there.

        Raises NotFoundError for a cluster that isn't known, GoneError for events that were cut off,
        TransientError when neither ring nor own etcd has the events.
        """
        told: list[Told] = []
        while len(told) < limit:
            batch = await self._next(cluster, after)
            if not batch:
                break
            told.extend(batch)
            after = batch[-1].position.seq
        return told[:limit]

    async def follow(
        self,
        start: Mapping[ClusterName, Position],
        clusters: Collection[ClusterName] = (),
        pasts: dict[ClusterName, int] | None = None,
    ) -> AsyncGenerator[Told | None]:
        """All events after a vector, for ever; None whenever everything has been told.

        clusters: only these; () for all, also those that join later. A cluster that `start` doesn't
        name is told from the oldest event that is still there. pasts: the logs' (`Projector.past`)
        when `start` was told, kept up to date here; None: as now. Raises GoneError when a log was
        replaced, has another past, or was cut beyond the position; it names all logs of which that
        is known by then, since whoever hears it begins all of them anew.
        """
        vector = dict(start)
        pasts = self.pasts() if pasts is None else pasts
        while True:
            changed = self._projector.changed
            any_told = is_held_up = False
            for cluster in sorted(self._projector.log_vector()):
                if clusters and cluster not in clusters:
                    continue
                after = _place(vector, cluster)[0]
                self._check_places(vector, cluster, clusters, pasts)
                try:
                    batch = await self._next(cluster, after, self._turns)
                except NotFoundError:
                    # It was removed while the others were told.
                    continue
                except TransientError:
                    # Its copy isn't written yet, or the own etcd is away: that holds up this log
                    # and no other.
                    is_held_up = True
                    continue
                for item in batch:
                    any_told = True
                    vector[cluster] = item.position
                    yield item
            if not any_told:
                yield None
                await _wait(changed, RETRY_S if is_held_up else None)

    def pasts(self) -> dict[ClusterName, int]:
        """Of every log that has another past than it began with: which one."""
        past_of = self._projector.past
        return {name: past for name in self._projector.log_vector() if (past := past_of(name))}

    def _check_places(
        self,
        vector: Mapping[ClusterName, Position],
        cluster: ClusterName,
        clusters: Collection[ClusterName],
        pasts: dict[ClusterName, int],
    ) -> None:
        """Raise GoneError if a cluster's log can't be gone on with from where the vector stands."""
        if self._gone(cluster, *_place(vector, cluster), pasts) is None:
            if past := self._projector.past(cluster):
                pasts[cluster] = past
            return
        followed = (
            name for name in self._projector.log_vector() if not clusters or name in clusters
        )
        found = (self._gone(name, *_place(vector, name), pasts) for name in sorted(followed))
        raise GoneError(tuple(problem for problem in found if problem is not None))

    def _gone(
        self,
        cluster: ClusterName,
        after: int,
        log_id: LogId | None,
        pasts: Mapping[ClusterName, int],
    ) -> Problem | None:
        """Why a log can't be gone on with behind a seq. pasts: as `follow` has them."""
        head, past = self._projector.head(cluster), self._projector.past(cluster)
        if head is None or log_id is None:
            return None
        if log_id != head.log_id:
            what = f"log {log_id} of {cluster} was replaced by log {head.log_id}"
            return Problem("position", what, START_OVER)
        if after and past != pasts.get(cluster, 0):
            # Events that it was never told may lie before its place.
            what = (
                f"the log of {cluster} has another past than when {after} was told; it was restored"
            )
            return Problem("position", what, START_OVER)
        if after > head.seq and (cluster == self._projector.own or past):
            # Of the own log nothing is told here before the own etcd has it, so it was set back
            # since then; and a peer's log that was isn't behind for other reasons for long.
            what = f"the log of {cluster} ends at {head.seq}, before {after}; it was restored"
            return Problem("position", what, START_OVER)
        return None

    async def _next(
        self,
        cluster: ClusterName,
        after: int,
        turns: AbstractAsyncContextManager[object] = NO_TURNS,
    ) -> list[Told]:
        """The next few events after a seq; [] at the log's end. turns: who may read the log now."""
        head = self._projector.head(cluster)
        if head is None:
            raise NotFoundError(f"there is no cluster {cluster} here")
        if after >= head.seq:
            return []
        records: Iterable[Record] | None = self._projector.ring.after(cluster, after)
        if records is None:
            async with turns:
                records = await self._read(cluster, after, head)
        is_own = cluster == self._projector.own
        told = (one for record in records for one in told_of(cluster, record, after, is_own=is_own))
        return list(islice(told, TOLD_AT_ONCE))

    async def _read(self, cluster: ClusterName, after: int, head: Head) -> list[Record]:
        reader = self._reader(cluster)
        records = await _records_after(reader, after, head)
        if not records:
            cut_seq = await self._cut_seq(reader, head)
            if after < cut_seq:
                _refuse_cut(cluster, after, cut_seq)
                records = await _records_after(reader, cut_seq, head)
        if not records:
            raise TransientError(f"seq {after + 1} of {cluster} is not in the own etcd yet")
        return records

    def place(self, vector: Vector) -> EventPlace:
        """The place of a vector, with its mark where the own log ends there."""
        head, at = self._projector.head(self._projector.own), vector.get(self._projector.own)
        is_end = head is not None and at is not None and at.seq == head.seq > 0
        return EventPlace(vector, mark_of(head.hash) if head is not None and is_end else "")

    async def mark_at(self, seq: int) -> str:
        """The mark of the own log's record that holds a seq; '' if it is there no more. Raises
        TransientError when neither ring nor own etcd has it.
        """
        own = self._projector.own
        head = self._projector.head(own)
        if head is not None and head.seq == seq:
            return mark_of(head.hash)
        kept = self._projector.ring.after(own, seq - 1)
        if kept is not None:
            return next((mark_of(record.hash) for record in kept), "")
        try:
            record, _ = await self._reader(own).holding(seq)
        except CorruptError:
            return ""
        return mark_of(record.hash)

    def _reader(self, cluster: ClusterName) -> LogReader:
        is_own = cluster == self._projector.own
        keys: LogKeys = (
            self._keyspace.local
            if is_own
            else self._keyspace.replica(cluster, self._place_of(cluster))
        )
        return LogReader(self._kv, self._keyspace, keys, is_local=is_own)

    async def _cut_seq(self, reader: LogReader, head: Head) -> int:
        snapshot = (await reader.identify(0)).snapshot
        is_of_it = snapshot is not None and snapshot.head.log_id == head.log_id
        return snapshot.trim.seq if snapshot is not None and is_of_it else 0


async def _records_after(reader: LogReader, after: int, head: Head) -> list[Record]:
    """The next records after a seq; [] where they aren't.

    A copy is written behind what is folded, and may still be that of a log that was replaced.
    """
    found = (await reader.window(after, min(head.seq, after + TOLD_AT_ONCE))).records
    if not found and head.seq > after + TOLD_AT_ONCE:
        # The next record is larger than that; those behind it may be as large.
        found = (await reader.window(after, min(head.seq, after + WINDOW_SEQS))).records[:1]
    records = [decode_record(fetched.raw, reader.place(fetched.key_seq)) for fetched in found]
    is_it = records and records[0].first_seq <= after + 1
    is_it = is_it and all(record.log_id == head.log_id for record in records)
    return records if is_it else []


def _refuse_cut(cluster: ClusterName, after: int, cut_seq: int) -> None:
    """Who asks for everything gets what there is; who asks for more than that must be told."""
    if after:
        raise GoneError(
            (
                Problem(
                    "position",
                    f"the events of {cluster} up to {cut_seq} were cut off, and {after + 1} is"
                    " among them",
                    START_OVER,
                ),
            )
        )


async def _wait(changed: asyncio.Event, timeout_s: float | None) -> None:
    """Wait for the next change, or for the time to look again without one."""
    try:
        async with asyncio.timeout(timeout_s):
            await changed.wait()
    except TimeoutError:
        return


def _place(
    vector: Mapping[ClusterName, Position], cluster: ClusterName
) -> tuple[Seq, LogId | None]:
    position = vector.get(cluster)
    return (position.seq, position.log_id) if position else (Seq(0), None)


def told_of(
    cluster: ClusterName, record: Record, after: int = 0, *, is_own: bool
) -> Iterator[Told]:
    """A record's events after a seq, each with its place. is_own: it is of the own log."""
    first = max(0, after + 1 - record.first_seq)
    mark = mark_of(record.hash) if is_own else ""
    for offset, event in enumerate(islice(record.events, first, None), first):
        position = Position(cluster, record.log_id, Seq(record.first_seq + offset))
        yield Told(position, record.time_ms, event, mark)
