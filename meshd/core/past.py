"""Which earlier state is asked for, and from where it can be told.

For: reading a time or a vector; finding a place in a log by looking at few of its records; the
snapshot that an earlier state is folded from. Not for: reading any log (`runtime.past`).
Invariants: pure; a search looks at no more records than the logarithm of the log; the snapshot that
is named is the nearest one at or before the place, and one that the log's manifest says is there.

Rules:
- A state stands at one seq. Where a vector names a seq inside a record, the record's events up to
  just that one are folded: an event stream names such places.
- A time stands for the last record of each log that isn't later. A log's time never goes back, so
  that is one place; clocks of clusters differ, so places of one time in several logs are as alike
  as their clocks.
- A place before what is retained can't be told, nor one of a log that was replaced, nor one that
  isn't reached yet: each is refused, never told as something near it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from meshd.model.errors import Problem, RejectedError, shown
from meshd.model.event import Record
from meshd.model.ids import ClusterName, Position, Seq, parse_vector
from meshd.model.snapshot import NO_MARK, Manifest, Mark

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TIME_MS_MAX = 253_402_300_799_999
"""The end of the year 9999, where RFC 3339 ends; a record may claim a later one."""

_EPOCH_MS = re.compile(r"[0-9]{1,15}\Z")
_RFC_3339 = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]")

AsOf = int | dict[ClusterName, Position]
"""A time in milliseconds since 1970, or a vector."""


def parse_as_of(text: str, where: str) -> AsOf:
    """Read a time (RFC 3339, or milliseconds since 1970) or a vector; raises RejectedError."""
    if _EPOCH_MS.match(text):
        return int(text)
    if _RFC_3339.match(text):
        return _time_ms(text, where)
    try:
        vector = parse_vector(text)
    except RejectedError:
        vector = {}
    if not vector:
        remedy = "write a time like 2026-01-31T12:05:00Z, or a vector as an answer says it"
        raise RejectedError((Problem(where, f"{shown(text)} is no time and no vector", remedy),))
    return vector


def parse_time(text: str, where: str) -> int:
    """Read a time (RFC 3339, or milliseconds since 1970); raises RejectedError."""
    return int(text) if _EPOCH_MS.match(text) else _time_ms(text, where)


def _time_ms(text: str, where: str) -> int:
    try:
        moment = datetime.fromisoformat(text.upper())
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None or moment < EPOCH:
        remedy = "write it like 2026-01-31T12:05:00Z; in a URL the + of an offset is %2B"
        raise RejectedError((Problem(where, f"{shown(text)} is not RFC 3339", remedy),))
    return (moment - EPOCH) // timedelta(milliseconds=1)


def time_text(time_ms: int) -> str:
    """A moment as RFC 3339 in UTC, with milliseconds."""
    moment = EPOCH + timedelta(milliseconds=min(time_ms, TIME_MS_MAX))
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(slots=True)
class Search:
    """Finds the last record of which something holds, where it holds of all before it too.

    low: it holds up to here. high: it holds of none that ends behind here. Both are seqs at which
    a record ends, or at which the log was cut.
    """

    low: int
    high: int

    @property
    def probe(self) -> int | None:
        """The seq whose record is to be looked at; None when `low` is the answer."""
        return None if self.low >= self.high else (self.low + self.high) // 2 + 1

    def take(self, record: Record, *, holds: bool) -> None:
        """Note what holds of the record that was looked at."""
        if holds:
            self.low = record.last_seq
        else:
            self.high = record.first_seq - 1


def beginning(record: Record, through_seq: int) -> Record:
    """The record's events up to a seq, for folding; its bytes and hash stay those of the whole."""
    if record.last_seq <= through_seq:
        return record
    events = record.events[: through_seq - record.first_seq + 1]
    return Record(
        record.log_id,
        record.first_seq,
        record.time_ms,
        record.prev_hash,
        events,
        record.raw,
        record.hash,
    )


def oldest(manifest: Manifest | None) -> Mark:
    """The oldest place of a log whose state can be told."""
    if manifest is None or not manifest.trim.seq:
        return NO_MARK
    if not manifest.kept:
        return manifest.mark
    first = manifest.kept[0]
    return next((mark for mark in manifest.marks if mark.seq == first), manifest.trim)


def base_seq(manifest: Manifest | None, seq: int) -> Seq:
    """Where the nearest snapshot at or before a place stands, which isn't before the oldest; 0 for
    the beginning of a log that was never cut.
    """
    if manifest is None:
        return Seq(0)
    found = (place for place in (*manifest.kept, manifest.head.seq) if place <= seq)
    return max(found, default=Seq(0))
