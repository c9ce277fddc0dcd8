"""Looking after the own etcd: forgetting its history, and giving disk space back.

For: clusters where nobody else does it. Not for: logs (`chores`). Invariants: only the leader does
it; what was written since the last time is kept, so that no watch that is nearly up to date breaks.
"""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from meshd.model.errors import CompactedError, MeshdError
from meshd.runtime.leadership import Leadership
from meshd.runtime.ports import Clock, Kv

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class UpkeepRules:
    """compact_every_s: 0 for never. defragment_free_bytes: at how much free space; 0 for never."""

    compact_every_s: float
    defragment_free_bytes: int


class Upkeep:
    """The leader's care for the etcd."""

    def __init__(self, kv: Kv, leadership: Leadership, rules: UpkeepRules, clock: Clock) -> None:
        self._kv = kv
        self._leadership = leadership
        self._rules = rules
        self._clock = clock
        self._last_revision = 0

    async def run(self) -> None:
        """Do it for ever; returns at once where somebody else does."""
        if not self._rules.compact_every_s:
            return
        while True:
            await self._clock.sleep(self._rules.compact_every_s)
            if not self._leadership.is_leader:
                self._last_revision = 0
                continue
            try:
                await self._compact()
            except MeshdError as error:
                log.warning("the own etcd can't be compacted", reason=str(error))

    async def _compact(self) -> None:
        revision = (await self._kv.status()).revision
        last, self._last_revision = self._last_revision, revision
        if not last:
            return
        try:
            await self._kv.compact(last)
        except CompactedError:
            log.debug("somebody else compacts this etcd too", revision=last)
        if self._rules.defragment_free_bytes:
            await self._kv.defragment(self._rules.defragment_free_bytes)
