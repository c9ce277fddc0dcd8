"""The changes of the tables, for those who wait for the next.

For: one process's numbering of its tables' changes, and the word that there are new ones. Not for:
what a change is (`core.table_changes`) nor telling it to anybody. Invariants: only the projector
writes here, in the same breath as the tables; a change that nobody waits for wakes nobody.
"""

from __future__ import annotations

import asyncio
from typing import Final

from meshd.core.table_changes import TableChanges
from meshd.core.tables import Tables
from meshd.model.ids import ClusterName, ServiceKey
from meshd.model.table import ServiceDelta, TableDelta

RUN_CHARS: Final = 16


class TableFeed:
    """run: names this numbering; another start of meshd has another. unfresh: the clusters that are
    out of sight, whose part of the tables is as last known.
    """

    def __init__(self, run: str) -> None:
        self.run = run[:RUN_CHARS]
        self.changes = TableChanges()
        self.unfresh: frozenset[ClusterName] = frozenset()
        self._awaited: asyncio.Event | None = None

    @property
    def number(self) -> int:
        """The last change."""
        return self.changes.number

    def note(self, delta: TableDelta, tables: Tables) -> None:
        """Take in what just changed in the tables."""
        if not delta:
            return
        self.changes.add(delta, tables.definition_of, self.unfresh)
        if self._awaited is not None:
            self._awaited.set()
            self._awaited = None

    def see(self, unfresh: frozenset[ClusterName], tables: Tables) -> bool:
        """Take in who is out of sight now: it is told with every service; says whether it is new to
        any.
        """
        changed = self.unfresh ^ unfresh
        self.unfresh = unfresh
        if not changed:
            return False
        keys = tables.keys()
        delta = tuple(
            _as_it_was(key, tables.digest_of(key) or "")
            for key in keys
            if not changed.isdisjoint(_clusters_of(tables, key))
        )
        self.note(delta, tables)
        return bool(delta)

    async def beyond(self, number: int) -> None:
        """Wait for a change behind a number."""
        while self.number <= number:
            if self._awaited is None:
                self._awaited = asyncio.Event()
            await self._awaited.wait()


def _as_it_was(key: ServiceKey, digest: str) -> ServiceDelta:
    """No change but of who is out of sight."""
    return ServiceDelta(
        key, gone=False, redefined=False, tiers=None, upserts=(), removals=(), digest=digest
    )


def _clusters_of(tables: Tables, key: ServiceKey) -> tuple[ClusterName, ...]:
    definition = tables.definition_of(key)
    return () if definition is None else definition.clusters
