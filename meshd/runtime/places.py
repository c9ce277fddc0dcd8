"""Where in the logs a vector or a time is.

For: finding the place in each log, in a few reads. Not for: what the log came to there (`past`).
Invariants: nothing is written; a place is found, or refused with the reason: it is never replaced
by one that is near.

Rules:
- A position of the own cluster may be of its local log, or of one of its export logs: these are
  written in one transaction, so the record of one and the record of the other have the same mod
  revision. An export position stands for the end of that transaction.
- The logs of a cluster that was restored begin with snapshots of one moment, which were written in
  one transaction too. Where a log was cut later nothing tells which place of the other one it is.
- A position of a peer is one of its export log, as held in the replica.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass

from meshd.core.past import AsOf, Search, oldest, time_text
from meshd.model.archive import LogName
from meshd.model.errors import Problem, RejectedError, TransientError
from meshd.model.event import Record
from meshd.model.ids import ClusterName, Position, Seq
from meshd.model.keyspace import DEFAULT_AUDIENCE, Keyspace
from meshd.model.snapshot import NO_MARK
from meshd.runtime.history import GoneError
from meshd.runtime.ports import Kv
from meshd.runtime.projector import Projector
from meshd.runtime.stored_log import StoredLog, open_log

Found = tuple[dict[ClusterName, StoredLog], dict[ClusterName, Position]]
"""The logs, and the place in each."""


@dataclass(frozen=True, slots=True)
class Places:
    """Finds places. open: a cluster's log as the own etcd holds it; None if there is none."""

    kv: Kv
    keyspace: Keyspace
    projector: Projector
    open: Callable[[ClusterName], Awaitable[StoredLog | None]]

    async def find(self, as_of: AsOf, held: Iterable[ClusterName]) -> Found:
        """The logs of the clusters that were known at a vector or a time, and the place in each.

        Raises RejectedError, GoneError, CorruptError, TransientError, DeniedError.
        """
        if isinstance(as_of, dict):
            return await self._of_vector(as_of)
        logs: dict[ClusterName, StoredLog] = {}
        at: dict[ClusterName, Position] = {}
        for cluster in held:
            log = await self.open(cluster)
            seq = None if log is None else await _seq_at(log, cluster, as_of)
            if log is not None and seq is not None:
                logs[cluster], at[cluster] = log, Position(cluster, log.head.log_id, seq)
        if self.projector.own not in at:
            first = f"the log of {self.projector.own} had no record by {time_text(as_of)}"
            raise GoneError((Problem("as_of", first, "ask for a later time"),))
        return logs, at

    async def since(
        self, time_ms: int, clusters: Iterable[ClusterName]
    ) -> dict[ClusterName, Position]:
        """Behind which place of each log the events of a time and of later times are; without the
        clusters of which no log is held.

        Raises GoneError where some of them were cut off, CorruptError, TransientError, DeniedError.
        """
        at: dict[ClusterName, Position] = {}
        for cluster in clusters:
            log = await self.open(cluster)
            if log is not None:
                seq = await _seq_before(log, cluster, time_ms)
                at[cluster] = Position(cluster, log.head.log_id, seq)
        return at

    async def _of_vector(self, vector: Mapping[ClusterName, Position]) -> Found:
        own = self.projector.own
        if own not in vector:
            remedy = "take the vector from an answer of this cluster"
            raise refused(f"the vector has no position of {own}, whose tables these are", remedy)
        logs: dict[ClusterName, StoredLog] = {}
        at: dict[ClusterName, Position] = {}
        for cluster, position in vector.items():
            log = await self.open(cluster)
            if log is None:
                raise refused(f"no log of {cluster} is held here", "leave it out of the vector")
            if position.log_id != log.head.log_id:
                position = await self._of_export(log, position)  # noqa: PLW2901 it is the same place
            self._check_reached(log, position)
            logs[cluster], at[cluster] = log, position
        return logs, at

    def _check_reached(self, log: StoredLog, position: Position) -> None:
        cluster, head = position.cluster, self.projector.head(position.cluster)
        if position.seq <= log.head.seq:
            return
        is_folded = head is not None and head.log_id == position.log_id
        if head is not None and is_folded and position.seq <= head.seq:
            raise TransientError(f"seq {position.seq} of {cluster} is not in the own etcd yet")
        what = f"seq {position.seq} of {cluster} is not reached yet: its log ends at {log.head.seq}"
        raise refused(what, "ask for that one, or for now")

    async def _of_export(self, log: StoredLog, position: Position) -> Position:
        """The place in the own local log that one in an export log stands for."""
        local_head = log.reader.local_head if position.cluster == self.projector.own else None
        heads = local_head.exports if local_head else {}
        audience = next((name for name in heads if heads[name].log_id == position.log_id), None)
        if audience is None:
            raise await _replaced(log, position)
        if position.seq == 0:
            return Position(position.cluster, log.head.log_id, Seq(0))
        export = await open_log(self.kv, self.keyspace, LogName("export", audience))
        self._check_reached(export, position)
        founded = _founded(log)
        if founded and position.seq == _founded(export):
            return Position(position.cluster, log.head.log_id, founded)
        if position.seq <= export.first_seq - 1:
            # What can be told instead is said of the local log, of which all that is kept can be.
            raise beyond_reach(log, position.cluster, f"seq {position.seq} of its export log")
        _, revision = await export.reader.holding(position.seq)
        seq = await _last(log, lambda _, at_revision: at_revision <= revision)
        if seq < log.first_seq:
            raise beyond_reach(log, position.cluster, f"seq {position.seq} of its export log")
        return Position(position.cluster, log.head.log_id, seq)

    async def shared(
        self, logs: Mapping[ClusterName, StoredLog], at: Mapping[ClusterName, Position]
    ) -> dict[ClusterName, Position]:
        """The same places in the positions that all clusters share; without the own cluster where
        its place is inside a transaction, or its export log doesn't reach back to it.
        """
        own = self.projector.own
        shared = {name: position for name, position in at.items() if name != own}
        log, position = logs[own], at[own]
        if log.reader.local_head is None or DEFAULT_AUDIENCE not in log.reader.local_head.exports:
            return shared
        export = await open_log(self.kv, self.keyspace, LogName("export", DEFAULT_AUDIENCE))
        seq = await _exported(log, export, position.seq)
        if seq is not None:
            shared[own] = Position(own, export.head.log_id, seq)
        return shared


async def _exported(log: StoredLog, export: StoredLog, seq: Seq) -> Seq | None:
    """How much of the export log there was at a place in the local log; None where that isn't told
    any more, or the place is inside a transaction.
    """
    if seq == 0:
        return Seq(0)
    founded = _founded(export)
    if seq < log.first_seq:
        return founded if seq == _founded(log) else None
    record, revision = await log.reader.holding(seq)
    last = await _last(export, lambda _, at_revision: at_revision <= revision)
    is_told = last >= export.first_seq or export.first_seq == 1 or last == founded
    return last if is_told and record.last_seq == seq else None


def _founded(log: StoredLog) -> Seq | None:
    """Where a log begins that was founded with a snapshot, unless it was cut since then; None for
    all others.
    """
    trim = log.snapshot.trim if log.snapshot else NO_MARK
    # That of any other place counts the records before it.
    return trim.seq if trim.seq and not trim.log_bytes else None


async def _seq_at(log: StoredLog, cluster: ClusterName, time_ms: int) -> Seq | None:
    """The last seq of a log at a time; None if the log had no record by then."""
    trim = log.snapshot.trim if log.snapshot else NO_MARK
    seq = await _last(log, lambda record, _: record.time_ms <= time_ms)
    first = oldest(log.snapshot)
    if seq < first.seq or (seq == trim.seq and time_ms < trim.time_ms):
        raise beyond_reach(log, cluster, time_text(time_ms))
    return seq or None


async def _seq_before(log: StoredLog, cluster: ClusterName, time_ms: int) -> Seq:
    """The last seq of a log before a time; 0 where all of it is of that time or later."""
    trim = log.snapshot.trim if log.snapshot else NO_MARK
    if trim.seq and time_ms <= trim.time_ms:
        what = f"events of {cluster} since {time_text(time_ms)} were cut off"
        later = f"ask for those after {time_text(trim.time_ms)}"
        raise GoneError((Problem("since", what, later),))
    return await _last(log, lambda record, _: record.time_ms < time_ms)


async def _last(log: StoredLog, holds: Callable[[Record, int], bool]) -> Seq:
    """The last seq of the last record of which something holds; the trim point where of none."""
    search = Search(log.first_seq - 1, log.head.seq)
    while search.probe is not None:
        record, revision = await log.reader.holding(search.probe)
        search.take(record, holds=holds(record, revision))
    return Seq(search.low)


async def _replaced(log: StoredLog, position: Position) -> GoneError:
    """Why there is no such log, and since when there is another."""
    began = "since "
    if log.snapshot is not None and log.snapshot.trim.seq:
        began = f"at the latest since {time_text(log.snapshot.trim.time_ms)}"
    elif log.head.seq:
        record, _ = await log.reader.holding(1)
        began += time_text(record.time_ms)
    else:
        began = "and is empty"
    what = (
        f"log {position.log_id} of {position.cluster} was re-created: log {log.head.log_id} stands"
        f" behind its name, {began}"
    )
    return GoneError((Problem("as_of", what, "ask for a position of that log"),))


def beyond_reach(log: StoredLog, cluster: ClusterName, what: str) -> GoneError:
    """A place before what is retained."""
    first = oldest(log.snapshot)
    return GoneError(
        (
            Problem(
                "as_of",
                f"{what} of {cluster} is before what is kept of {log.origin.log}; the oldest state"
                f" that can be told is that at seq {first.seq} of {time_text(first.time_ms)}",
                f"ask for {cluster}:{log.head.log_id}:{first.seq} or later; retention.keep_… says"
                " how much is kept",
            ),
        )
    )


def refused(what: str, remedy: str) -> RejectedError:
    """A vector or a time that can't be told of."""
    return RejectedError((Problem("as_of", what, remedy),))
