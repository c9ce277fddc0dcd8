"""Where a record stands relative to how far a log was read.

For: the one judgement that every reader of a log makes, of the own one as of a peer's. Not for:
what to do about it (`replica`). Invariant: only NEXT may be folded, and folding exactly the NEXT
records in order reproduces the log.
"""

from __future__ import annotations

from enum import Enum, auto

from meshd.model.event import Record
from meshd.model.ids import Head


class Verdict(Enum):
    """What a record is to a reader that stands at some head."""

    NEXT = auto()
    """It continues the log right here."""
    DUPLICATE = auto()
    """It was read before."""
    GAP = auto()
    """Records between here and it are missing."""
    FORK = auto()
    """It belongs to another history."""


def classify(at: Head, record: Record) -> Verdict:
    """Judge a record against the head that was read so far (design, section 6, rule 2)."""
    if record.log_id != at.log_id:
        return Verdict.FORK
    if record.first_seq > at.seq + 1:
        return Verdict.GAP
    if record.first_seq == at.seq + 1:
        return Verdict.NEXT if record.prev_hash == at.hash else Verdict.FORK
    if record.last_seq > at.seq or (record.last_seq == at.seq and record.hash != at.hash):
        return Verdict.FORK
    return Verdict.DUPLICATE
