"""Events cut into records: how much one holds, and how one continues the other.

For: the writer, which may have to tell an audience more at once than a record holds. Not for: what
is told (`core.export`). Invariant: every record but the last holds BATCH_BYTES or BATCH_EVENTS.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from meshd.model.codec import encode_record, event_bytes
from meshd.model.event import EVENTS_PER_RECORD_MAX, RECORD_BYTES_MAX, Event, Record
from meshd.model.ids import Head

BATCH_BYTES = RECORD_BYTES_MAX // 2
BATCH_EVENTS = EVENTS_PER_RECORD_MAX // 2


def chained(head: Head, now_ms: int, portions: Iterator[Sequence[Event]]) -> tuple[Record, ...]:
    """The records that continue a log."""
    records: list[Record] = []
    for portion in portions:
        records.append(encode_record(head, now_ms, portion))
        head = records[-1].head
    return tuple(records)


def portions(exports: list[Event], exports_bytes: int) -> Iterator[list[Event]]:
    """Cut exported events into what a record holds; nearly always that is one portion.

    exports_bytes: of all audiences together, so at least of these.
    """
    if exports and exports_bytes <= BATCH_BYTES and len(exports) <= BATCH_EVENTS:
        yield exports
        return
    portion: list[Event] = []
    size_bytes = 0
    for event in exports:
        if size_bytes >= BATCH_BYTES or len(portion) >= BATCH_EVENTS:
            yield portion
            portion, size_bytes = [], 0
        portion.append(event)
        size_bytes += event_bytes(event)
    if portion:
        yield portion
