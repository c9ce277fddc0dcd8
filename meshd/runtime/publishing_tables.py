"""Publishing the tables over one connection to a broker: what it keeps equals what is served.

For: every global service that changed, and forgetting those that are gone. Not for: what a service
looks like (`core.telling`) nor connections (`publisher`). Invariants: level-triggered: what is sent
is how a service is at that moment, so a slow broker gets fewer and newer values and nothing is
queued; one service that the broker refuses keeps no other back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from functools import partial
from hashlib import blake2b
from typing import Final

import orjson

from meshd.core.table_changes import ALL
from meshd.core.telling import table_service
from meshd.model.errors import DeniedError
from meshd.model.ids import ServiceKey
from meshd.runtime.ports import Acknowledged, BrokerSession, Clock
from meshd.runtime.projector import Projector
from meshd.runtime.refusals import Refusals
from meshd.telemetry import metrics

COALESCE_S: Final = 0.1
"""Changes within it are one message; people and data planes that poll look less often."""
LOOK_EVERY_S: Final = 1.0
"""When it is said that nothing changed: services that were refused are then due again."""
QUIET_S: Final = 0.5
READ_BACK_S_MAX: Final = 10.0
"""The broker sends all that it keeps at once, and doesn't say when that was all: after a pause, or
after so long, we begin. What comes later is looked at too.
"""
AT_ONCE: Final = 200
"""Services looked at before others get a turn: less than a millisecond."""


class Changes:
    """Services that are other than they were when they were last given out, by the numbers of the
    tables' changes: what nothing happened to costs nothing.
    """

    def __init__(self, projector: Projector, clock: Clock) -> None:
        self._tables = projector.tables
        self._feed = projector.feed
        self._clock = clock
        self._number: int | None = None
        self._given: set[ServiceKey] = set()

    async def follow(self) -> AsyncIterator[tuple[ServiceKey, bytes] | None]:
        """Each changed service as it is now, b"" once it is gone; all of them at first; None
        whenever there is nothing more, and now and then while nothing happens.
        """
        while True:
            changed, self._number = self._changed(), self._feed.number
            for number, key in enumerate(changed):
                if number % AT_ONCE == 0:
                    await asyncio.sleep(0)
                service = self._service(key)
                if service or key in self._given:
                    (self._given.add if service else self._given.discard)(key)
                    yield key, service
            yield None
            if await self._is_changed():
                await self._clock.sleep(COALESCE_S)

    def give_again(self) -> None:
        """Give all of them out once more."""
        self._number = None

    def _changed(self) -> Collection[ServiceKey]:
        changes = self._feed.changes
        if self._number is not None and changes.reaches(self._number):
            return changes.changed_after(self._number, ALL)
        return [*self._tables.keys(), *(key for key in self._given if not self._is_served(key))]

    async def _is_changed(self) -> bool:
        """Whether there is a change within a while."""
        if self._number is None:
            return True
        try:
            async with asyncio.timeout(LOOK_EVERY_S):
                await self._feed.beyond(self._number)
        except TimeoutError:
            return False
        return True

    def _is_served(self, key: ServiceKey) -> bool:
        return self._tables.digest_of(key) is not None

    def _service(self, key: ServiceKey) -> bytes:
        view, digest = self._tables.view(key), self._tables.digest_of(key)
        if view is None or digest is None:
            return b""
        return orjson.dumps(table_service(view, digest, self._feed.unfresh))


class TablePublishing:
    """The tables of one connection. is_served: whether a service is in the table now.
    refusals: also those of connections before.
    """

    def __init__(
        self,
        session: BrokerSession,
        changes: Changes,
        is_served: Callable[[ServiceKey], bool],
        refusals: Refusals,
        clock: Clock,
    ) -> None:
        self._session = session
        self._changes = changes
        self._is_served = is_served
        self._clock = clock
        self._kept: dict[ServiceKey, bytes] | None = {}
        self._heard_s = clock.monotonic_s()
        self._refusals = refusals

    async def run(self) -> None:
        """Publish for ever; raises as the session does."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._read_back(), name="read back tables")
            tasks.create_task(self._publish(), name="publish tables")

    # What the broker keeps.

    async def _read_back(self) -> None:
        try:
            async for key, service in self._session.kept():
                self._heard_s = self._clock.monotonic_s()
                if not service:
                    continue
                if self._kept is not None:
                    self._kept[key] = _digest(service)
                elif not self._is_served(key):
                    await self._tell(key, b"")
        except DeniedError as error:
            # It then can't be known which of those that it keeps are gone.
            self._refusals.add("what is kept", error)

    async def _until_read(self) -> dict[ServiceKey, bytes]:
        began_s = self._clock.monotonic_s()
        while True:
            now_s = self._clock.monotonic_s()
            if now_s - self._heard_s >= QUIET_S or now_s - began_s >= READ_BACK_S_MAX:
                kept, self._kept = self._kept, None
                return kept or {}
            await self._clock.sleep(QUIET_S / 5)

    # What it is told.

    async def _publish(self) -> None:
        kept = await self._until_read()
        async for change in self._changes.follow():
            if change is None:
                for key in kept:
                    # It was there in an earlier time, and isn't any more.
                    await self._tell(key, b"")
                kept.clear()
                if self._refusals.release():
                    self._changes.give_again()
            elif kept.pop(change[0], None) != _digest(change[1]):
                await self._tell(*change)

    async def _tell(self, key: ServiceKey, service: bytes) -> None:
        if self._refusals.hold(key):
            return
        try:
            acknowledged = await self._session.table(key, service)
        except DeniedError as error:
            self._refusals.add(key, error)
            return
        acknowledged.add_done_callback(partial(self._told, key))

    def _told(self, key: ServiceKey, acknowledged: Acknowledged) -> None:
        if acknowledged.cancelled():
            return
        error = acknowledged.exception()
        if error is None:
            metrics.MQTT_TABLES.inc()
        else:
            self._refusals.add(key, error)


def _digest(service: bytes) -> bytes:
    return blake2b(service, digest_size=16).digest()
