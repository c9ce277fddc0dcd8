"""What is loaded to stay is no work for the garbage collector.

For: telling the collector when much of what is held is new and will stay. Not for: freeing, which
reference counts do, also of what the collector was told to leave alone. Invariant: what may be lost
by it, garbage in cycles that was alive at that moment, is small against what was loaded before.

A full collection looks at every object of every state: a second for 250,000 endpoints, in which
nothing else happens, and again whenever a quarter of them was replaced by others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from meshd.core.state import ClusterState
from meshd.model.event import Record
from meshd.model.ids import ClusterName
from meshd.runtime.projector import Projector

SPARED_FROM: Final = 20_000
"""Endpoints, services and so on that were loaded since: some 50 MB, beside which the cycles of a
few hundred open connections don't count."""


class LongLived:
    """Hears of states that are served anew. spare: has the collector leave alone what is there."""

    def __init__(self, projector: Projector, spare: Callable[[], None]) -> None:
        self._projector = projector
        self._spare = spare
        self._loaded = 0
        self._spared = False

    def folded(self, cluster: ClusterName, record: Record) -> None:
        """Nothing: what changes is as much as before."""

    def replaced(self, cluster: ClusterName) -> None:
        """Count what a state holds that was just loaded."""
        state = self._projector.state(cluster)
        self._loaded += 0 if state is None else _things(state)
        # With the own log the tables are made of all that was loaded before it.
        is_whole = cluster == self._projector.own
        if self._loaded >= SPARED_FROM or (is_whole and self._spared):
            self._spared, self._loaded = True, 0
            self._spare()


def _things(state: ClusterState) -> int:
    endpoints = sum(len(those) for those in state.endpoints.values())
    others = len(state.services) + len(state.nodes) + len(state.identities) + len(state.policies)
    return endpoints + others
