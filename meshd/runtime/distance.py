"""How far away a peer is, as the time that a read of its etcd takes.

For: telling clusters apart that are alike in everything that their logs say (`core.tiers`). Not
for: noticing that a peer is gone; silence says that (`core.freshness`). Invariants: a peer is read
seldom and in one key; it is not told apart before it was measured a few times, and the quickest of
the last reads counts, so that a slow moment moves no traffic; nor does it move by how busy this
meshd is, which is no peer's distance.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from meshd.core.liveness import distance_of
from meshd.model.errors import MeshdError
from meshd.runtime.ports import Clock, Kv

READS_MIN: Final = 3
"""Before that many reads nothing is said."""
READS_KEPT: Final = 5
"""So a peer that moved away is known to have moved after five minutes."""
FIRST_EVERY_S: Final = 5.0
EVERY_S: Final = 60.0
"""With 510 peers, nine reads a second."""
LATE_S_MAX: Final = 0.002
"""An answer waits until the event loop comes by. Where a turn of it takes longer than that, a fifth
of the nearest bound, what was measured counts for nothing."""


@dataclass(slots=True)
class RoundTrips:
    """The last reads of one peer. is_left_alone: while it is, nothing is read."""

    kv: Kv
    key: bytes
    clock: Clock
    is_left_alone: Callable[[], bool]
    _times_s: deque[float] = field(default_factory=lambda: deque(maxlen=READS_KEPT))
    _late: int = 0
    """Reads that counted for nothing."""

    @property
    def quickest_s(self) -> float | None:
        """The quickest of the last reads; None while there were too few."""
        return min(self._times_s) if len(self._times_s) >= READS_MIN else None

    @property
    def distance(self) -> int:
        """How far away it is, in steps of `core.liveness`; 0 while it isn't known."""
        quickest_s = self.quickest_s
        return 0 if quickest_s is None else distance_of(quickest_s)

    def go_on_from(self, former: RoundTrips) -> None:
        """Count what was measured of the same place before; to be called before `run`."""
        self._times_s.extend(former._times_s)

    async def run(self) -> None:
        """Measure for ever."""
        while True:
            is_first = len(self._times_s) + self._late < READS_MIN
            await self.clock.sleep(FIRST_EVERY_S if is_first else EVERY_S)
            if not self.is_left_alone():
                await self._measure()

    async def _measure(self) -> None:
        late_s = await self._turn_s()
        before_s = self.clock.monotonic_s()
        try:
            await self.kv.range(self.key)
        except MeshdError:
            # Who can't be read now is where it was.
            return
        took_s = self.clock.monotonic_s() - before_s
        if max(late_s, await self._turn_s()) > LATE_S_MAX:
            self._late += 1
        else:
            self._times_s.append(took_s)

    async def _turn_s(self) -> float:
        """How long the event loop takes to come by again."""
        before_s = self.clock.monotonic_s()
        await asyncio.sleep(0)
        return self.clock.monotonic_s() - before_s
