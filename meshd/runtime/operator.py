"""Operations, kept going by whoever leads.

For: seeing what `core.operations` asks for, and having its moves written. Not for: which move
(`core.operations`) nor what it does (`core.operating`). Invariants: a move is written from the
stage that it was decided on and compares the leader key, so one who was deposed without knowing
makes none, and one who follows a killed leader makes none twice; what can't be seen or written now
is tried again at the next look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

import structlog

from meshd.core.capacity import concerned, too_little
from meshd.core.operations import Destination, Facts, Next, Taking, next_move
from meshd.core.planned import services_of, turned_up
from meshd.model.command import Move, MoveOperation, Submission
from meshd.model.errors import MeshdError, Problem
from meshd.model.event import ACTOR_CHARS_MAX
from meshd.model.ids import ClusterName, ServiceKey
from meshd.model.operation import Operation, Subject
from meshd.model.table import GlobalService
from meshd.runtime.guards import GuardError
from meshd.runtime.leadership import Leadership
from meshd.runtime.peers import Peers
from meshd.runtime.ports import Clock
from meshd.runtime.projector import Projector
from meshd.runtime.signals import Signals
from meshd.runtime.writer import Writer

log = structlog.get_logger(__name__)

LOOK_EVERY_S: Final = 0.5
"""Stages are held for seconds; what is in trouble is to be noticed within one."""
SERVICES_AT_ONCE: Final = 200
"""So many services are looked at in one step of the event loop."""


class Operator:
    """One meshd's part in the operations of its cluster."""

    def __init__(
        self,
        projector: Projector,
        peers: Peers,
        leadership: Leadership,
        writer: Writer,
        signals: Signals,
        clock: Clock,
    ) -> None:
        self._projector = projector
        self._peers = peers
        self._leadership = leadership
        self._writer = writer
        self._clock = clock
        self.signals = signals
        self.waits: dict[str, str] = {}
        self._seen: dict[str, tuple[Operation, float]] = {}

    async def run(self) -> None:
        """Look after the operations while this meshd leads, for ever."""
        while True:
            await self._clock.sleep(LOOK_EVERY_S)
            if not self._leadership.is_leader:
                self.waits.clear()
                self._seen.clear()
                continue
            for name, operation in self._running():
                try:
                    await self._look_after(name, operation)
                except GuardError:
                    log.info("another meshd leads, and moves operations itself")
                except MeshdError as error:
                    self.waits[name] = str(error)
                    log.warning("an operation can't go on now", operation=name, reason=str(error))

    def _running(self) -> list[tuple[str, Operation]]:
        state = self._projector.state(self._projector.own)
        if state is None or self._projector.local_head is None:
            return []
        found = [(name, held.value) for name, held in state.operations.items()]
        running = [(name, value) for name, value in found if value.is_under_way]
        names = {name for name, _ in running}
        self.waits = {name: why for name, why in self.waits.items() if name in names}
        self._seen = {name: seen for name, seen in self._seen.items() if name in names}
        return running

    async def _look_after(self, name: str, operation: Operation) -> None:
        move = await self.next_of(name, operation)
        if move.reason and move.move is None:
            self.waits[name] = move.reason
        else:
            self.waits.pop(name, None)
        fence = self._leadership.fence()
        if move.move is None or fence is None:
            return
        command = MoveOperation(name, move.move, operation.stage, move.reason)
        actor = f"operation {name} of {operation.by}"[:ACTOR_CHARS_MAX]
        outcome = await self._writer.submit(Submission((command,), actor), fence)
        if outcome.events:
            log.info("operation moved", operation=name, move=str(move.move), reason=move.reason)

    async def next_of(self, name: str, operation: Operation) -> Next:
        """What an operation does next. Every service is looked at only when all else is well."""
        signal, seen_s = None, self._seen_s(name, operation)
        if operation.conditions.error_percent_max is not None:
            signal = await self.signals.last(name, operation.started_ms)
        now_ms = self._clock.wall_ms()
        destination = self.destination_of(operation) if operation.to else None
        facts = Facts(now_ms, destination, signal, seen_s=seen_s)
        found = next_move(operation, facts)
        if found.move is not Move.ADVANCE:
            return found
        lacking = tuple(await self.lacking(operation))
        return next_move(operation, replace(facts, too_little=lacking))

    def _seen_s(self, name: str, operation: Operation) -> float:
        """For how long this meshd, while it leads, has seen an operation stand as it does."""
        now_s = self._clock.monotonic_s()
        stands, first_s = self._seen.get(name, (operation, now_s))
        if stands != operation:
            first_s = now_s
        self._seen[name] = operation, first_s
        return now_s - first_s

    def destination_of(self, operation: Operation) -> Destination:
        """The cluster that takes over, as it is seen."""
        name = ClusterName(operation.to)
        condition = self._peers.condition(name)
        lag_events = 0
        if condition is not None and condition.target is not None:
            read_seq = condition.head.seq if condition.head is not None else 0
            lag_events = max(0, condition.target.seq - read_seq)
        return Destination(
            name,
            None if condition is None else condition.phase,
            lag_events,
            {key: self._found(name, key) for key in services_of(operation)},
        )

    def _found(self, cluster: ClusterName, key: ServiceKey) -> Taking | None:
        view = self._projector.tables.view(key)
        state = self._projector.state(cluster)
        if view is None or cluster not in view.clusters or state is None:
            return None
        theirs = [backend for backend in view.backends if backend.cluster == cluster]
        eligible = sum(backend.reason is None for backend in theirs)
        return Taking(len(theirs), eligible, turned_up(state, key))

    async def lacking(self, operation: Operation) -> list[Problem]:
        """The services that would be left with too little if its subjects took no traffic."""
        subjects = frozenset(map(Subject.parse, operation.subjects))
        state, found = self._projector.state(self._projector.own), list[Problem]()
        keys = concerned(state, subjects) if state is not None else []
        for start in range(0, len(keys), SERVICES_AT_ONCE):
            views = self._views(keys[start : start + SERVICES_AT_ONCE])
            own, floor = self._projector.own, operation.floor_percent
            found += too_little(views, own, subjects, floor)
            await asyncio.sleep(0)
        return found

    def _views(self, keys: Iterable[ServiceKey]) -> Iterator[GlobalService]:
        for key in keys:
            view = self._projector.tables.view(key)
            if view is not None:
                yield view
