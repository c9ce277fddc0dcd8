"""Showing life to peers, and standing for election.

For: the heartbeat in the export logs, written by the leader. Not for: the election itself
(`leadership`). Invariants: the heartbeat is written only while the leader key is ours, in the same
transaction that compares it; the lease is kept even where nothing can be written; vector and digest
of a heartbeat are of one moment.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import structlog

from meshd.model.codec import Heartbeat, decode_heartbeat, encode_heartbeat
from meshd.model.errors import MeshdError
from meshd.model.ids import Head, format_vector
from meshd.model.keyspace import DEFAULT_AUDIENCE, Keyspace
from meshd.runtime.leadership import Leadership
from meshd.runtime.ports import Clock, Compare, Kv, Put, Txn
from meshd.runtime.projector import Projector

log = structlog.get_logger(__name__)

RESIGN_TIMEOUT_S = 2.0
PAUSE_S_MIN = 0.01


class Presence:
    """The heartbeat of one meshd, and its candidacy. heartbeat_every_s: also how often one who
    doesn't lead tries to.
    """

    def __init__(
        self,
        kv: Kv,
        keyspace: Keyspace,
        projector: Projector,
        leadership: Leadership,
        heartbeat_every_s: float,
        clock: Clock,
    ) -> None:
        self._kv = kv
        self._keyspace = keyspace
        self._projector = projector
        self.leadership = leadership
        self._heartbeat_every_s = heartbeat_every_s
        self._clock = clock
        self._last_beat = 0
        self._reign: Sequence[Compare] | None = None
        self._said: dict[str, Heartbeat] = {}
        self._beat_due_s = -math.inf

    async def run(self) -> None:
        """Beat and keep the lease for ever; lost, it is claimed anew as soon as it is free."""
        while True:
            await self._run_once()
            due_s = min(self.leadership.keep_due_s, self._beat_due_s)
            await self._clock.sleep(max(PAUSE_S_MIN, due_s - self._clock.monotonic_s()))

    async def _run_once(self) -> None:
        now_s = self._clock.monotonic_s()
        try:
            if now_s >= self.leadership.keep_due_s:
                await self.leadership.keep()
            if now_s >= self._beat_due_s:
                self._beat_due_s = now_s + self._heartbeat_every_s
                if await self.leadership.campaign():
                    await self._beat()
        except MeshdError as error:
            log.debug("heartbeat failed", reason=str(error))

    async def _beat(self) -> None:
        fence = self.leadership.fence()
        if fence is None:
            return
        if fence != self._reign:
            await self._follow_on()
            self._reign, self._said = fence, {}
        if self._projector.is_settled:
            self._said = {name: self._heartbeat(name, head) for name, head in self._logs()}
        # While the own log is read on, what was said before is said again: it is still true of
        # where it was said of, and shows life. Who has said nothing yet waits for the next beat.
        if not self._said:
            return
        now_ms = self._clock.wall_ms()
        beat = self._next_beat(now_ms)
        puts = tuple(
            Put(
                self._keyspace.export(name).heartbeat,
                encode_heartbeat(replace(said, beat=beat, time_ms=now_ms)),
            )
            for name, said in self._said.items()
        )
        result = await self._kv.commit(Txn(compares=tuple(fence), success=puts))
        if not result.succeeded:
            self.leadership.lose()

    def _logs(self) -> Iterator[tuple[str, Head | None]]:
        """All export logs there are, also those that nothing is written to any more: who reads one
        is to see a cluster that lives and offers it nothing. Before the own log is read there is
        one, to be sure.
        """
        exports = self._projector.exports
        yield DEFAULT_AUDIENCE, exports.get(DEFAULT_AUDIENCE)
        for audience in sorted(exports.keys() - {DEFAULT_AUDIENCE}):
            yield audience, exports[audience]

    def _heartbeat(self, audience: str, head: Head | None) -> Heartbeat:
        """What one audience is told, at any time: nothing of the other export logs (I17)."""
        projector = self._projector
        vector = projector.vector(audience)
        if not projector.is_written(audience):
            # Who is offered nothing any more needn't know how the mesh goes on.
            vector = {name: at for name, at in vector.items() if name == projector.own}
        return Heartbeat(
            beat=0,
            time_ms=0,
            vector=format_vector(vector),
            digest=projector.digest_for(audience),
            head=head,
        )

    async def _follow_on(self) -> None:
        """Begin after the former leader's last beat, whatever its clock said. All audiences are
        told the same beat, and `mesh` is always among them.
        """
        found = await self._kv.range(self._keyspace.export().heartbeat)
        if found.kvs:
            last = decode_heartbeat(found.kvs[0].value, "the heartbeat").beat
            self._last_beat = max(self._last_beat, last)

    def _next_beat(self, now_ms: int) -> int:
        """A number above all before, and about the time."""
        self._last_beat = max(self._last_beat + 1, now_ms)
        return self._last_beat

    async def resign(self) -> None:
        """Give the leader key back, unless the own etcd takes too long."""
        try:
            async with asyncio.timeout(RESIGN_TIMEOUT_S):
                await self.leadership.resign()
        except TimeoutError:
            log.info("the lease is left to run out")
