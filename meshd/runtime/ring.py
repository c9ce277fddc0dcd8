"""The latest records of every log, kept in memory.

For: subscribers that are close behind, who then cost no read of etcd. Not for: history
(`runtime.history` reads that from the logs). Invariant: per cluster the records are contiguous and
of one log; bytes in all stay below the limit, whoever reads or doesn't.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence

from meshd.model.event import Record
from meshd.model.ids import ClusterName


class RecordRing:
    """Bounded in bytes over all clusters; the oldest record of all goes first."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._records: dict[ClusterName, list[Record]] = {}
        self._order: deque[tuple[ClusterName, Record]] = deque()

    def add(self, cluster: ClusterName, record: Record) -> None:
        """Keep the record that continues the cluster's log."""
        self._records.setdefault(cluster, []).append(record)
        self._order.append((cluster, record))
        self._bytes += len(record.raw)
        while self._bytes > self._bytes_max:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        cluster, record = self._order.popleft()
        self._bytes -= len(record.raw)
        kept = self._records.get(cluster)
        if kept and kept[0] is record:
            del kept[0]

    def reset(self, cluster: ClusterName) -> None:
        """Forget a cluster's records: another log takes their place."""
        self._records.pop(cluster, None)

    def after(
        self, cluster: ClusterName, seq: int, most: int | None = None
    ) -> Sequence[Record] | None:
        """The kept records with events after `seq`, or the first of them; None if the ring no
        longer reaches back so far, which only the log can tell.
        """
        kept = self._records.get(cluster, [])
        if not kept or kept[0].first_seq > seq + 1:
            return None
        first = bisect_right(kept, seq, key=lambda record: record.last_seq)
        return kept[first : None if most is None else first + most]
