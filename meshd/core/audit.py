"""Whether records, wherever they were kept, make a log.

For: chain, contiguity, revisions, and that every event folds, of archives and of an etcd alike. Not
for: following a log that grows (`replica`). Invariant: what was taken without an error is an
unbroken piece of one log.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from meshd.core.fold import fold_record, pass_over
from meshd.core.past import beginning
from meshd.core.position import Verdict, classify
from meshd.core.skipping import is_skipped
from meshd.core.snapshot import finish_loading, load_part
from meshd.core.state import ClusterState
from meshd.model.archive import Entry
from meshd.model.control import SEQ_MAX
from meshd.model.errors import CorruptError
from meshd.model.event import Record
from meshd.model.ids import ClusterName, Head, LogId, Seq
from meshd.model.listed import Skip
from meshd.model.snapshot import Manifest, decode_part


@dataclass(slots=True)
class Span:
    """What a piece of a log holds. size_bytes: of its records, uncompressed."""

    first_seq: int = 0
    last_seq: int = 0
    records: int = 0
    events: int = 0
    size_bytes: int = 0
    first_ms: int = 0
    last_ms: int = 0
    revision: int = 0

    def add(self, entry: Entry) -> None:
        """Count a record."""
        record = entry.record
        if not self.records:
            self.first_seq, self.first_ms = record.first_seq, record.time_ms
        self.last_seq, self.last_ms = record.last_seq, record.time_ms
        self.records += 1
        self.events += len(record.events)
        self.size_bytes += len(record.raw)
        self.revision = entry.revision


@dataclass(slots=True)
class Audit:
    """Judges a log's records one after the other. at: how far it has come; None before the first.

    is_folding: whether events must fold too, into `state`. span: since the last `begin`. snapshot:
    what it began with; records up to there are judged, and are in the state already. skip: what is
    judged and not folded. through_seq: what is behind it is judged and not folded either.
    """

    speaker: ClusterName
    log_id: LogId
    is_folding: bool = True
    at: Head | None = None
    state: ClusterState = field(default_factory=ClusterState)
    span: Span = field(default_factory=Span)
    snapshot: Manifest | None = None
    skip: Skip | None = None
    through_seq: int = SEQ_MAX

    def begin_with(self, snapshot: Manifest, parts: Iterable[bytes], where: str) -> None:
        """Begin with a snapshot, before any record; raises CorruptError."""
        if snapshot.head.log_id != self.log_id:
            raise CorruptError(where, f"its snapshot is of log {snapshot.head.log_id}")
        for number, raw in enumerate(parts):
            part = decode_part(raw, f"{where} snapshot part {number}")
            load_part(self.state, part, self.speaker, snapshot)
        finish_loading(self.state, snapshot)
        self.snapshot = snapshot
        self.at = Head(self.log_id, snapshot.trim.seq, snapshot.trim.hash)

    def end(self, where: str) -> Head:
        """Where the log ends by all that was taken; raises CorruptError if that is no whole log."""
        snapshot, at = self.snapshot, self.at
        if at is None or (snapshot is not None and at.seq < snapshot.head.seq):
            raise CorruptError(where, "ends before the snapshot that it begins with")
        return at

    def begin(self, speaker: ClusterName, log_id: LogId, where: str) -> None:
        """Go on with another file, whose revisions may be another etcd's."""
        if (speaker, log_id) != (self.speaker, self.log_id):
            raise CorruptError(
                where,
                f"is of log {log_id} of {speaker}, what came before is of log {self.log_id} of"
                f" {self.speaker}",
            )
        self.span = Span()

    def take(self, entry: Entry) -> None:
        """Judge the next record; raises CorruptError."""
        record = entry.record
        at = self.at or _before(self.log_id, record)
        verdict = classify(at, record)
        if verdict is not Verdict.NEXT:
            raise CorruptError(entry.where, _reason(at, record, verdict))
        if entry.revision < self.span.revision:
            raise CorruptError(
                entry.where,
                f"mod revision {entry.revision} comes after {self.span.revision}",
            )
        self._check_snapshot(entry)
        if self.is_folding and (self.snapshot is None or record.first_seq > self.snapshot.head.seq):
            self._fold(record)
        self.at = record.head
        self.span.add(entry)

    def _fold(self, whole: Record) -> None:
        record = beginning(whole, self.through_seq)
        if is_skipped(self.skip, record):
            pass_over(self.state, record)
        else:
            fold_record(self.state, record, self.speaker)

    def _check_snapshot(self, entry: Entry) -> None:
        """The snapshot must stand at the end of a record, and of just that one."""
        head, record = self.snapshot.head if self.snapshot else None, entry.record
        if head is None or not record.first_seq <= head.seq <= record.last_seq:
            return
        if record.head != head:
            raise CorruptError(
                entry.where, f"is not the record that the snapshot at {head.seq} names"
            )


def _before(log_id: LogId, record: Record) -> Head:
    """Where a piece begins: nothing says what came before but its first record itself."""
    if record.first_seq == 1:
        return Head.genesis(log_id)
    return Head(log_id, Seq(record.first_seq - 1), record.prev_hash)


def _reason(at: Head, record: Record, verdict: Verdict) -> str:
    if record.log_id != at.log_id:
        return f"is of log {record.log_id}, not of {at.log_id}"
    if verdict is Verdict.GAP:
        return f"seq {at.seq + 1} to {record.first_seq - 1} are missing"
    if record.first_seq <= at.seq:
        return f"seq {record.first_seq} to {record.last_seq} come again after seq {at.seq}"
    return f"the chain is broken: its previous hash is not that of seq {at.seq}"
