"""Telling one subscriber what becomes of the tables.

For: the snapshot, the rounds behind it, and what is sent together. Not for: what is asked for
(`table_stream`), what changed (`core.table_changes`), nor the messages (`table_messages`).
Invariants: whoever takes all messages has the tables, or what was selected of them; messages that
belong together come together, and only the last of them has an id.

A subscriber is a number: the last change that it was told. It costs nothing while it takes nothing,
and reads what there is by then once it does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, assert_never

import orjson

from meshd.core.table_changes import Selection, ServiceStep, Telling
from meshd.edges.http.event_query import LAST_EVENT_ID
from meshd.edges.http.messages import SNAPSHOT_BEGIN, SNAPSHOT_END
from meshd.edges.http.outlets import RESET, Batch, Message, Outlet
from meshd.edges.http.problems import problem_fields, problem_of
from meshd.edges.http.table_messages import TableMessages, snapshot_message
from meshd.model.errors import Problem
from meshd.model.ids import ServiceKey, format_vector
from meshd.runtime.history import GoneError
from meshd.runtime.projector import Projector

FLUSH_BYTES: Final = 64 * 1024
"""What is gathered at most before it is sent, and others get their turn."""
ROUNDS_APART_S: Final = 0.005
"""Between the beginnings of two rounds: whoever is told of a thousand changes a second is told five
at a time, and the place behind them once, which in a large mesh is kilobytes.
"""
PASSED_MAX: Final = 1000
"""Services that are passed over before others get their turn: a millisecond's work."""
PLACE_EVERY: Final = 1000
"""Changes of other services after which a subscriber is told a place alone: so one who selects
little can resume within reach, and isn't sent a frame for everything that it didn't select."""


@dataclass(frozen=True, slots=True)
class TableWish:
    """What a client asks for. is_reset: to be given a snapshot where its place is gone. path: by
    which it asked.
    """

    selection: Selection
    by_deltas: bool
    is_reset: bool
    path: str


def out_of_reach(number: int) -> str:
    """Why a place can't be gone on from any more."""
    return f"more services were removed since change {number} than are remembered"


def gone_problem(what: str) -> Problem:
    """That, and what to do."""
    remedy = "read /v1/tables, then follow without a place, or ask with reset=snapshot"
    return Problem(LAST_EVENT_ID, what, remedy)


class TableTelling:
    """One subscriber."""

    def __init__(
        self, projector: Projector, messages: TableMessages, wish: TableWish, outlet: Outlet
    ) -> None:
        self._projector = projector
        self._messages = messages
        self._wish = wish
        self._outlet = outlet
        self._gathered: list[Message] = []
        self._gathered_bytes = 0
        self._is_begun = False
        # The last change whose number was told.
        self._placed = 0

    async def follow(self, at: int | None) -> None:
        """Tell everything behind a change, or everything there is, and go on for ever."""
        feed, selection = self._projector.feed, self._wish.selection
        loop = asyncio.get_running_loop()
        self._placed = at or 0
        at = await self._snapshot() if at is None else at
        while True:
            next_s = loop.time() + ROUNDS_APART_S
            await feed.beyond(at)
            if feed.changes.reaches(at):
                at = await self._round(at, selection)
            else:
                await self.reset(out_of_reach(at))
                at = await self._snapshot()
            # A round from memory never waits by itself; others want their turn.
            await asyncio.sleep(max(0.0, next_s - loop.time()))

    async def reset(self, why: str) -> None:
        """Say that all which was told before is void; raises GoneError if that isn't wanted."""
        error = GoneError((gone_problem(why),))
        if not self._wish.is_reset:
            raise error
        fields = problem_fields(problem_of(error), self._wish.path)
        await self._outlet.send(Batch((Message(RESET, orjson.dumps(fields)),)))

    async def _snapshot(self) -> int:
        """Tell all services that match, each as it is when its turn comes; what changes meanwhile
        is told again by the first round after it.
        """
        projector, selection = self._projector, self._wish.selection
        target, place = projector.feed.number, self._messages.place(selection.mark)
        tables = projector.tables
        served = tables.keys()
        keys = [key for key in served if selection.has(key, tables.definition_of(key))]
        await self._add(
            snapshot_message(
                SNAPSHOT_BEGIN,
                perspective=projector.own,
                events_after=format_vector(projector.log_vector()),
                services=len(keys),
            )
        )
        for key in keys:
            await self._add(await self._as_it_is(key, -1, target))
        await self._finish(snapshot_message(SNAPSHOT_END, change=target), place)
        self._placed = target
        return target

    async def _round(self, at: int, selection: Selection) -> int:
        """Tell what changed since then; returns up to which change."""
        target, place = self._projector.feed.number, self._messages.place(selection.mark)
        what = (selection.mark, self._wish.by_deltas, at, target)
        shared = self._messages.shared(what)
        if shared is not None:
            await self._outlet.send(shared)
            self._placed = target
            return target
        since: Sequence[ServiceStep | ServiceKey] = self._since(at)
        for count, item in enumerate(since, 1):
            if isinstance(item, ServiceStep):
                await self._add(await self._step(item))
            else:
                await self._add(await self._as_it_is(item, at, target))
            if count % PASSED_MAX == 0:
                await asyncio.sleep(0)
        is_told = bool(self._gathered) or self._is_begun
        if is_told or target - self._placed >= PLACE_EVERY:
            batch = await self._finish(None, place)
            if batch is not None:
                self._messages.share(what, batch)
            self._placed = target
        return target

    def _since(self, at: int) -> Sequence[ServiceStep] | Sequence[ServiceKey]:
        """What changed: in steps, where they are wanted and kept, else the services."""
        changes = self._projector.feed.changes
        steps = changes.steps_after(at) if self._wish.by_deltas else None
        return changes.changed_after(at, self._wish.selection) if steps is None else steps

    async def _step(self, step: ServiceStep) -> Message | None:
        """How one service's part of a change is told."""
        key = step.delta.key
        match step.telling(self._wish.selection):
            case Telling.DELTA:
                return await self._messages.delta(step)
            case Telling.VALUE:
                return await self._as_it_is(key, -1, step.number)
            case Telling.REMOVED:
                return self._messages.removed(key, step.number)
            case Telling.NOTHING:
                return None
            case other:
                assert_never(other)

    async def _as_it_is(self, key: ServiceKey, after: int, seen: int) -> Message | None:
        """A service as it is by now, as `TableChanges.telling` has it."""
        changes, selection = self._projector.feed.changes, self._wish.selection
        telling, number = changes.telling(key, after, seen, selection)
        if telling is Telling.VALUE:
            return await self._messages.value(key)
        return self._messages.removed(key, number) if telling is Telling.REMOVED else None

    # What is sent.

    async def _add(self, message: Message | None) -> None:
        """Tell it soon, and others of the same before it."""
        if message is None:
            return
        if self._gathered_bytes >= FLUSH_BYTES:
            self._is_begun = True
            await self._send()
            await asyncio.sleep(0)
        self._gathered.append(message)
        self._gathered_bytes += len(message.data)

    async def _finish(self, last: Message | None, place: str) -> Batch | None:
        """Tell what is left, and the place behind it; returns it if this is all there was."""
        if last is not None:
            self._gathered.append(last)
        if self._gathered:
            self._gathered[-1] = replace(self._gathered[-1], id=place)
        else:
            self._gathered.append(Message("", b"", place))
        is_whole, self._is_begun = not self._is_begun, False
        batch = await self._send()
        return batch if is_whole else None

    async def _send(self) -> Batch:
        batch = Batch(self._gathered)
        self._gathered, self._gathered_bytes = [], 0
        await self._outlet.send(batch)
        return batch
