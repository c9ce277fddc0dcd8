"""Which of the records that came are taken, and why the taking stops.

For: one batch of records against a position. Not for: what a stop means (`replica`). Invariant:
what is taken continues the log, one record after the other.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshd.core.position import Verdict, classify
from meshd.model.codec import decode_record, hash_record
from meshd.model.errors import CorruptError
from meshd.model.event import Record
from meshd.model.ids import ClusterName, Head
from meshd.model.replica import Fetched

Stop = tuple[Verdict | None, str]
"""Why taking records stopped; a verdict of None means that the bytes themselves are bad."""


@dataclass(frozen=True, slots=True)
class Intake:
    """What became of a batch. taken: with their mod revisions. duplicates: how many came again."""

    taken: tuple[tuple[Record, int], ...]
    duplicates: int
    stop: Stop | None


def take(at: Head | None, fetched: tuple[Fetched, ...], cluster: ClusterName) -> Intake:
    """Judge records in order and take those that come next, up to the first that doesn't."""
    taken: list[tuple[Record, int]] = []
    duplicates = 0
    for item in fetched:
        found = _judge(at, item, cluster)
        if found is None:
            duplicates += 1
        elif isinstance(found, Record):
            taken.append((found, item.revision))
            at = found.head
        else:
            return Intake(tuple(taken), duplicates, found)
    return Intake(tuple(taken), duplicates, None)


def _judge(at: Head | None, item: Fetched, cluster: ClusterName) -> Record | Stop | None:
    """Return the record if it comes next, None if it was read before, else why reading stops."""
    if at is None:
        return Verdict.FORK, "records came before the log was identified"
    if 0 <= item.key_seq < at.seq or (item.key_seq == at.seq and hash_record(item.raw) == at.hash):
        return None
    try:
        record = decode_record(item.raw, f"{cluster} record {item.key_seq}")
    except CorruptError as error:
        return None, str(error)
    if record.last_seq != item.key_seq:
        return None, f"the record at key {item.key_seq} ends with seq {record.last_seq}"
    verdict = classify(at, record)
    return record if verdict is Verdict.NEXT else (verdict, _misfit(verdict, at, record))


def _misfit(verdict: Verdict, at: Head, record: Record) -> str:
    have = at.seq
    if verdict is Verdict.GAP:
        return f"seq {have + 1} is missing before seq {record.first_seq}"
    return f"the record at seq {record.last_seq} does not continue the log after seq {have}"
