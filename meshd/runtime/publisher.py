"""Publishing to a broker, while this meshd leads.

For: connections one after the other, each from the durable cursor on, and telling how that goes.
Not for: what is published (`publishing_events`, `publishing_tables`) nor MQTT (`edges.mqtt`).
Invariants: nothing is published before the leader's key was compared in the own etcd *after* the
connection was made; whatever the broker does costs this meshd a task and a bounded number of
messages, and no one else anything.

Why order holds across a change of leader: all meshds of a cluster have one client id, so a broker
has one connection of them at a time. A leader connects, and then reads the cursor in a transaction
that holds only if it leads. Whoever comes to lead later connects later, which ends the connection
before, and reads a cursor of what was acknowledged before that. A former leader that connects all
the same, because it was slow, fails the transaction and has published nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Never

import structlog

from meshd import __version__
from meshd.core.backoff import delay_s
from meshd.model.errors import DeniedError, MeshdError, TransientError
from meshd.model.ids import ClusterName, Position, format_vector
from meshd.model.publishing import PublishCondition, PublishPhase
from meshd.runtime.history import History
from meshd.runtime.leadership import Leadership
from meshd.runtime.peers import Peers
from meshd.runtime.ports import Broker, BrokerSession, Chance, Clock, Json
from meshd.runtime.projector import Projector
from meshd.runtime.publish_cursor import CursorKey, DeposedError, Fence
from meshd.runtime.publishing_events import EventPublishing, Reign
from meshd.runtime.publishing_tables import Changes, TablePublishing
from meshd.runtime.refusals import Refusals
from meshd.telemetry import metrics

log = structlog.get_logger(__name__)

LOOK_EVERY_S: Final = 0.2
"""How soon a meshd that comes to lead begins, and one that doesn't any more ends."""
STATUS_EVERY_S: Final = 1.0
"""The most often that the status is published; it names a vector, which changes all the time."""
BACKOFF_MIN_S: Final = 0.2
"""The first wait after a failure: a restart of a broker is over quickly."""
BACKOFF_MAX_S: Final = 10.0
"""The longest wait: a broker that comes back is seen within it."""
SLOW_RETRY_S: Final = 30.0
"""The wait after a refusal, which only a person can end."""
STEADY_S: Final = 10.0
"""A connection that held for so long was a good one: waits begin anew."""
FAILURES_TOGETHER: Final = 2
"""Connections that end soon one after the other: some brokers end one for a message that they won't
have, and their word on it is lost with what else is in flight. From then on it is one at a time.
"""
GOODBYE_S: Final = 1.0
STATUS: Final = "status"


@dataclass(frozen=True, slots=True)
class Published:
    """What is published, as the settings say."""

    events: bool
    tables: bool
    status: bool


@dataclass(frozen=True, slots=True)
class Sources:
    """Where what is published comes from."""

    projector: Projector
    history: History
    peers: Peers


class Publisher:
    """One meshd's part in publishing."""

    def __init__(
        self,
        broker: Broker,
        published: Published,
        sources: Sources,
        leadership: Leadership,
        cursor: CursorKey,
        doors: tuple[Clock, Chance],
    ) -> None:
        self._broker = broker
        self._published = published
        self._sources = sources
        self._leadership = leadership
        self._cursor = cursor
        self._clock, self._chance = doors
        self._phase = PublishPhase.STANDBY
        self._reason = ""
        self._position: Position | None = None
        self._said = ""
        self._is_refused = False
        self._failures = 0
        self._refusals = Refusals(self._clock)
        self._say(PublishPhase.STANDBY)

    @property
    def condition(self) -> PublishCondition:
        """How it goes."""
        phase, reason = self._phase, self._reason or self._refusals.reason
        return PublishCondition(phase, self._broker.address, self._position, self._behind(), reason)

    def _behind(self) -> int | None:
        head = self._sources.projector.head(self._own)
        if self._position is None or head is None:
            return None
        is_same = self._position.log_id == head.log_id
        return max(0, head.seq - self._position.seq) if is_same else head.seq

    @property
    def _own(self) -> ClusterName:
        return self._sources.projector.own

    # Connections.

    async def run(self) -> None:
        """Publish while this meshd leads, for ever."""
        while True:
            fence = self._leadership.fence()
            # Before the own log is read to its end, the tables lack what isn't known yet.
            if fence is None or self._sources.projector.local_head is None:
                self._failures, self._position = 0, None
                self._say(PublishPhase.STANDBY)
                await self._clock.sleep(LOOK_EVERY_S)
                continue
            began_s = self._clock.monotonic_s()
            error = await self._try(fence)
            if error is None:
                continue
            if self._clock.monotonic_s() - began_s >= STEADY_S:
                self._failures = 0
            wait_s = self._failed(error)
            self._failures += 1
            await self._wait(wait_s, fence)

    async def _try(self, fence: Fence) -> MeshdError | None:
        """Publish over one connection until something goes wrong; None if we were deposed."""
        errors: list[MeshdError] = []
        try:
            self._say(PublishPhase.CONNECTING)
            await self._connect(fence)
        except* MeshdError as group:
            errors += _flat(group)
        except* Exception as group:
            # Whatever a library does with what a broker sends it: the rest of meshd goes on.
            log.exception("publishing failed")
            errors.append(TransientError(f"publishing failed: {group.exceptions[0]!r}"))
        if any(isinstance(error, DeposedError) for error in errors):
            return None
        denied = (error for error in errors if isinstance(error, DeniedError))
        return next(denied, errors[0] if errors else None)

    def _failed(self, error: MeshdError) -> float:
        """Say what went wrong; returns how long to wait."""
        self._is_refused = isinstance(error, DeniedError)
        phase = PublishPhase.REFUSED if self._is_refused else PublishPhase.WAITING
        self._say(phase, str(error))
        if str(error) != self._said:
            log.warning("publishing is held up", broker=self._broker.address, reason=str(error))
            self._said = str(error)
        first_s, cap_s = (SLOW_RETRY_S,) * 2 if self._is_refused else (BACKOFF_MIN_S, BACKOFF_MAX_S)
        return delay_s(self._failures, first_s, cap_s, self._chance.uniform(0, 1))

    async def _wait(self, wait_s: float, fence: Fence) -> None:
        until_s = self._clock.monotonic_s() + wait_s
        while self._leads(fence) and (left_s := until_s - self._clock.monotonic_s()) > 0:
            await self._clock.sleep(min(LOOK_EVERY_S, left_s))

    def _leads(self, fence: Fence) -> bool:
        return self._leadership.fence() == fence

    def _say(self, phase: PublishPhase, reason: str = "") -> None:
        self._phase, self._reason = phase, reason
        for one in PublishPhase:
            metrics.MQTT_PHASE.labels(one.value).set(one is phase)

    # One connection.

    async def _connect(self, fence: Fence) -> None:
        alone = self._is_refused or self._failures >= FAILURES_TOGETHER
        async with self._broker.connect(alone=alone) as session:
            begin = await self._cursor.read(fence)
            if begin.cursor is not None:
                self._position = begin.cursor.at(self._own)
            metrics.MQTT_CONNECTIONS.inc()
            self._say(PublishPhase.PUBLISHING)
            if self._said:
                log.info("publishing goes on", broker=self._broker.address)
                self._said = ""
            reign = Reign(fence, self._cursor, lambda: self._leads(fence))
            events = EventPublishing(
                session, self._sources.history, self._own, reign, self._clock, self._note
            )
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(session.lost(), name="connection")
                    tasks.create_task(self._while_leading(fence), name="leadership")
                    if self._published.events:
                        tasks.create_task(events.run(begin), name="events")
                    if self._published.tables:
                        tasks.create_task(self._tables(session).run(), name="tables")
                    if self._published.status:
                        tasks.create_task(self._tell_status(session), name="status")
            except asyncio.CancelledError:
                # We stop, and the connection ends well: no last will is said.
                if self._published.status:
                    await self._say_goodbye(session)
                raise

    def _note(self, position: Position) -> None:
        self._position = position

    async def _while_leading(self, fence: Fence) -> Never:
        while self._leads(fence):
            await self._clock.sleep(LOOK_EVERY_S)
            metrics.MQTT_BEHIND_EVENTS.set(self._behind() or 0)
        raise DeposedError("another meshd leads")

    def _tables(self, session: BrokerSession) -> TablePublishing:
        projector, clock = self._sources.projector, self._clock
        return TablePublishing(
            session,
            Changes(projector, clock),
            lambda key: projector.tables.digest_of(key) is not None,
            self._refusals,
            clock,
        )

    # The status.

    async def _tell_status(self, session: BrokerSession) -> Never:
        said: Json = {}
        while True:
            fields = self._status("live")
            if fields != said and not self._refusals.hold(STATUS):
                said = fields
                try:
                    await (await session.status(fields))
                except DeniedError as error:
                    self._refusals.add(STATUS, error)
                    said = {}
            await self._clock.sleep(STATUS_EVERY_S)

    async def _say_goodbye(self, session: BrokerSession) -> None:
        with suppress(TimeoutError, MeshdError):
            async with asyncio.timeout(GOODBYE_S):
                await (await session.status(self._status("gone")))

    def _status(self, state: str) -> Json:
        projector, leader = self._sources.projector, self._leadership.leader
        is_settled = projector.is_settled
        return {
            "state": state,
            "cluster": self._own,
            "version": __version__,
            "leader": None if leader is None else {"host": leader.host, "api": leader.api},
            "vector_text": format_vector(projector.vector()) if is_settled else None,
            "digest": projector.tables.digest if is_settled else None,
            "events_after": format_vector(projector.log_vector()),
            "peers": {one.name: one.phase for one in self._sources.peers.conditions()},
        }


def _flat(group: BaseExceptionGroup[MeshdError]) -> Iterator[MeshdError]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _flat(error)
        else:
            yield error
