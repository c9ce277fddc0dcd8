"""Publishing the own log, event by event, over one connection to a broker.

For: sending in order from the cursor on, some ahead of their acknowledgements, and moving the
cursor behind them. Not for: connections (`publisher`). Invariants: events are sent in the log's
order, and the cursor never passes one that was not acknowledged, so what comes after a break is
again in order, with some of the last ones repeated; where events are missing, a reset says so
first; nothing is queued but what the broker has not acknowledged.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

import structlog

from meshd.model.errors import DeniedError, MeshdError
from meshd.model.event import Told
from meshd.model.ids import ClusterName, Position
from meshd.model.publishing import Reset
from meshd.runtime.history import GoneError, History
from meshd.runtime.ports import Acknowledged, BrokerSession, Clock
from meshd.runtime.publish_cursor import Begin, CursorKey, DeposedError, Fence
from meshd.telemetry import metrics

log = structlog.get_logger(__name__)

CURSOR_EVERY_EVENTS: Final = 1000
"""A second under a heavy load, so that writing the cursor costs a thousandth of the appends."""
CURSOR_EVERY_S: Final = 0.5
"""What a restart repeats; two small writes a second, while there is something new."""
SENT_MAX: Final = 1000
"""Events that were sent and whose acknowledgement nobody has looked at yet; no more are in flight
than the broker allows."""


@dataclass(frozen=True, slots=True)
class Reign:
    """What one leader publishes with. is_on: whether it still leads, as far as it knows."""

    fence: Fence
    cursor: CursorKey
    is_on: Callable[[], bool]


class EventPublishing:
    """The events of one connection. tell: is called with each position that was acknowledged."""

    def __init__(
        self,
        session: BrokerSession,
        history: History,
        own: ClusterName,
        reign: Reign,
        clock: Clock,
        tell: Callable[[Position], None],
    ) -> None:
        self._session = session
        self._history = history
        self._own = own
        self._reign = reign
        self._clock = clock
        self._tell = tell
        self._sent: asyncio.Queue[tuple[Position | None, Acknowledged]] = asyncio.Queue(SENT_MAX)
        self._acknowledged: Position | None = None
        self._unsaved = 0
        self._save_due_s = math.inf

    async def run(self, begin: Begin) -> None:
        """Publish for ever; raises as the session does, and DeposedError."""
        start = begin.cursor.at(self._own) if begin.cursor else None
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._send_all(start, begin.unreadable), name="send")
            tasks.create_task(self._follow_acknowledgements(), name="acknowledgements")

    # Sending.

    async def _send_all(self, start: Position | None, missing: str) -> None:
        """missing: why what comes first doesn't follow what was published, '' if it does."""
        before = start
        while True:
            vector = {} if before is None or missing else {self._own: before}
            try:
                async with aclosing(self._history.follow(vector, (self._own,))) as events:
                    async for told in events:
                        if told is None:
                            continue
                        if missing:
                            await self._send_reset(Reset(before, told.position, missing))
                            missing = ""
                        await self._send(told)
                        before = told.position
            except GoneError as error:
                missing = str(error)

    async def _send(self, told: Told) -> None:
        if not self._reign.is_on():
            raise DeposedError("another meshd leads")
        acknowledged = await self._session.event(told)
        await self._sent.put((told.position, acknowledged))

    async def _send_reset(self, reset: Reset) -> None:
        log.warning(
            "published events don't follow those before",
            before=str(reset.before),
            next=str(reset.next),
            reason=reset.reason,
        )
        metrics.MQTT_RESETS.inc()
        await self._sent.put((None, await self._session.reset(reset)))

    # Behind it.

    async def _follow_acknowledgements(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._save_in_s()):
                    position, acknowledged = await self._sent.get()
            except TimeoutError:
                await self._save()
                continue
            try:
                await acknowledged
            except DeniedError:
                await self._save()
                raise
            if position is None:
                continue
            self._note(position)
            if self._unsaved >= CURSOR_EVERY_EVENTS or self._save_in_s() == 0:
                await self._save()

    def _note(self, position: Position) -> None:
        metrics.MQTT_EVENTS.inc()
        self._acknowledged = position
        self._tell(position)
        if not self._unsaved:
            self._save_due_s = self._clock.monotonic_s() + CURSOR_EVERY_S
        self._unsaved += 1

    def _save_in_s(self) -> float | None:
        if not self._unsaved:
            return None
        return max(0.0, self._save_due_s - self._clock.monotonic_s())

    async def _save(self) -> None:
        """Move the cursor. An etcd that is away holds nothing up: soon we don't lead any more."""
        if self._acknowledged is None or not self._unsaved:
            return
        try:
            await self._reign.cursor.write(self._acknowledged, self._reign.fence)
        except DeposedError:
            raise
        except MeshdError as error:
            log.debug("the publish cursor can't be written", reason=str(error))
            self._save_due_s = self._clock.monotonic_s() + CURSOR_EVERY_S
        else:
            self._unsaved = 0
