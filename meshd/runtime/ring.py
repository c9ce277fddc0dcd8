"""The latest records of every log, kept in memory.

For: subscribers that are close behind, who then cost no read of etcd. Not for: history
(`runtime.history` reads that from the logs). Invariants: per cluster the records are contiguous and
of one log; bytes in all stay below the limit, whoever reads or doesn't.

Records are kept as they are stored, since decoded they take nine times the memory and most are
never read from here. Those that came or were read last stay decoded, for others who read them too.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from meshd.model.codec import decode_record
from meshd.model.event import Record
from meshd.model.ids import ClusterName

ENTRY_BYTES: Final = 250
"""What a kept record takes beside its bytes: a few small objects, and its places in the tables."""
RECENT_BYTES_MAX: Final = 256 * 1024
"""Of records that stay decoded, as they are stored: 2 MiB of memory. Those who read a large record
in portions, or fell behind together, have it decoded once."""


@dataclass(frozen=True, slots=True, eq=False)
class _Kept:
    first_seq: int
    last_seq: int
    raw: bytes

    @property
    def size_bytes(self) -> int:
        return len(self.raw) + ENTRY_BYTES


class RecordRing:
    """Bounded in bytes over all clusters; the oldest record of all goes first."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._records: dict[ClusterName, list[_Kept]] = {}
        self._order: deque[tuple[ClusterName, _Kept]] = deque()
        self._recent: dict[_Kept, Record] = {}
        self._recent_bytes = 0

    def add(self, cluster: ClusterName, record: Record) -> None:
        """Keep the record that continues the cluster's log."""
        kept = _Kept(record.first_seq, record.last_seq, record.raw)
        self._records.setdefault(cluster, []).append(kept)
        self._order.append((cluster, kept))
        self._bytes += kept.size_bytes
        self._note(kept, record)
        while self._bytes > self._bytes_max:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        cluster, oldest = self._order.popleft()
        self._bytes -= oldest.size_bytes
        kept = self._records.get(cluster)
        if kept and kept[0] is oldest:
            del kept[0]

    def reset(self, cluster: ClusterName) -> None:
        """Forget a cluster's records: another log takes their place."""
        self._records.pop(cluster, None)

    def after(self, cluster: ClusterName, seq: int) -> Iterator[Record] | None:
        """The kept records with events after `seq`, to be taken before there are more; None if the
        ring no longer reaches back so far, which only the log can tell.
        """
        kept = self._records.get(cluster, [])
        if not kept or kept[0].first_seq > seq + 1:
            return None
        return self._decoded(kept, bisect_right(kept, seq, key=lambda one: one.last_seq))

    def _decoded(self, kept: Sequence[_Kept], start: int) -> Iterator[Record]:
        for at in range(start, len(kept)):
            one = kept[at]
            record = self._recent.get(one)
            if record is None:
                record = decode_record(one.raw, f"the record that was kept up to {one.last_seq}")
                self._note(one, record)
            yield record

    def _note(self, kept: _Kept, record: Record) -> None:
        """Keep it decoded, as long as no others take its place."""
        self._recent[kept] = record
        self._recent_bytes += len(kept.raw)
        while self._recent_bytes > RECENT_BYTES_MAX and len(self._recent) > 1:
            oldest = next(iter(self._recent))
            del self._recent[oldest]
            self._recent_bytes -= len(oldest.raw)
