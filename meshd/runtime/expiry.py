"""Removing the endpoints of registrations that ran out: a leader's chore.

For: making an event of what etcd has let go. Not for: when that is (its leases). Invariants: an
endpoint is removed only in a transaction that finds its registration gone and this meshd leading;
what ran out while nobody led is found by whoever leads next; what is renewed is never touched.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator

import structlog

from meshd.core.registered import is_registered
from meshd.model.command import DropRegistered, Submission
from meshd.model.errors import MeshdError
from meshd.model.ids import EndpointKey
from meshd.runtime.guards import GuardError, Guards
from meshd.runtime.leadership import Leadership
from meshd.runtime.ports import Clock
from meshd.runtime.projector import Projector
from meshd.runtime.registrations import Registrations
from meshd.runtime.writer import Writer
from meshd.telemetry import metrics

log = structlog.get_logger(__name__)

ACTOR = "meshd: registration ran out"
LOOK_EVERY_S = 0.5
"""How soon a new leader begins, and how soon what failed is tried again."""
COMPARE_EVERY_S = 30.0
"""How often all registered endpoints are compared with the keys, beside what the watch tells."""
REMOVED_AT_ONCE = 500
"""A tenth of a second's work for the writer, which others share."""


class Expiry:
    """The leader's removal of what ran out."""

    def __init__(
        self,
        projector: Projector,
        writer: Writer,
        registrations: Registrations,
        leadership: Leadership,
        clock: Clock,
    ) -> None:
        self._projector = projector
        self._writer = writer
        self._registrations = registrations
        self._leadership = leadership
        self._clock = clock
        self._reign: Guards | None = None
        self._compare_due_s = -math.inf
        self._failure = ""

    async def run(self) -> None:
        """Remove what ran out, for ever."""
        woken = self._registrations.woken
        while True:
            try:
                async with asyncio.timeout(LOOK_EVERY_S):
                    await woken.wait()
            except TimeoutError:
                pass
            woken.clear()
            if await self._look():
                # What failed is tried again, but not at once.
                await self._clock.sleep(LOOK_EVERY_S)

    async def _look(self) -> bool:
        """Remove some; says whether something is left to do."""
        dropped = self._registrations.dropped
        fence = self._leadership.fence()
        if fence is None:
            # Who leads hears of it too, and looks at everything when it begins.
            self._reign = None
            dropped.clear()
            return False
        if not self._registrations.is_known or self._projector.local_head is None:
            return False
        now_s = self._clock.monotonic_s()
        if fence != self._reign or now_s >= self._compare_due_s:
            dropped.update(self._unregistered())
            self._reign, self._compare_due_s = fence, now_s + COMPARE_EVERY_S
        while dropped:
            some = [key for key, _ in zip(dropped, range(REMOVED_AT_ONCE), strict=False)]
            async with asyncio.TaskGroup() as tasks:
                for key in some:
                    tasks.create_task(self._remove(key, fence))
            if not dropped.isdisjoint(some):
                log.warning("registrations ran out, endpoints stay", reason=self._failure)
                return True
        return False

    def _unregistered(self) -> Iterator[EndpointKey]:
        """Registered endpoints of which no registration is known."""
        state, live = self._projector.state(self._projector.own), self._registrations.live
        for service, endpoints in state.endpoints.items() if state is not None else ():
            for name, held in endpoints.items():
                if is_registered(held.value):
                    key = EndpointKey(service, name)
                    if key not in live:
                        yield key

    async def _remove(self, key: EndpointKey, fence: Guards) -> None:
        guards = (*fence, *self._registrations.absence(key))
        try:
            submission = Submission((DropRegistered(key),), ACTOR)
            outcome = await self._writer.submit(submission, guards)
        except GuardError:
            # It is registered again, or somebody else leads and looks for itself.
            pass
        except MeshdError as error:
            self._failure = str(error)
            return
        else:
            metrics.REGISTRATIONS_EXPIRED.inc(outcome.events)
        self._registrations.dropped.discard(key)
