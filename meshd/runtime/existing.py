"""Everything that exists now, as events: what a stream begins with that starts from a snapshot.

For: the served states at one moment, with the vector of just that moment. Not for: the snapshots
that stand in the logs (`shortening`). Invariants: what comes after the vector is exactly what isn't
in the snapshot; no more than a few are told at a time, since each holds a list of everything.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Final

from meshd.core.snapshot import kept_of
from meshd.model.event import Told
from meshd.model.ids import ClusterName, LogId, Position
from meshd.model.snapshot import Kept
from meshd.runtime.projector import Projector

AT_ONCE: Final = 4
"""Snapshots that are told at a time: of 100,000 endpoints each holds some 15 MB, and takes seconds
of this process's time; the others wait for their turn."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What exists. vector: of which moment. items: the last event of each thing, per cluster in the
    order of its log; to be read once.
    """

    vector: dict[ClusterName, Position]
    items: Iterator[Told]


class Existing:
    """Tells what exists."""

    def __init__(self, projector: Projector) -> None:
        self._projector = projector
        self._turns = asyncio.Semaphore(AT_ONCE)

    @asynccontextmanager
    async def snapshot(self, clusters: frozenset[ClusterName]) -> AsyncIterator[Snapshot]:
        """What exists in some clusters, or in all, once it is one's turn, for as long as it is
        told.
        """
        async with self._turns:
            yield self._taken(clusters)

    def _taken(self, clusters: frozenset[ClusterName]) -> Snapshot:
        at = self._projector.log_vector()
        vector = {name: at[name] for name in sorted(at) if not clusters or name in clusters}
        states = self._projector.states
        # All are looked through here, before anything else is folded.
        kept = [
            _told(name, position.log_id, kept_of(states[name])) for name, position in vector.items()
        ]
        return Snapshot(vector, chain.from_iterable(kept))


def _told(cluster: ClusterName, log_id: LogId, kept: Iterator[Kept]) -> Iterator[Told]:
    for item in kept:
        yield Told(Position(cluster, log_id, item.seq), item.time_ms, item.event)
