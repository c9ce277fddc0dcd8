"""Who reads tables and statuses of a meshd, again and again.

For: histories with tables. Not for: what they come to. Invariants: one meshd is read by one reader
and one thing at a time, so that what is noted of it stands in the order in which it was answered; a
table derived anew comes right behind the one that was kept up to date.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import Final

from chaos import answers
from chaos.history import StatusRead, TableRead
from chaos.mesh.shape import Meshd
from chaos.recorder import Recorder
from chaos.traffic.calls import Answer, Calls, UnansweredError
from chaos.traffic.counters import Counters
from chaos.traffic.pacing import Gate, paced

SUCCESS: Final = 200
READER: Final = "reader"
REST: Final = 4.0
"""Reading takes a fifth of the time at most: tables of tens of thousands of backends would take all
that meshd and this process have, and what is measured of others would be our own doing."""
ROWS_MAX: Final = 2000
"""Of larger tables only the digest is noted, but for the last one: a row takes some 10 us here."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a meshd says that it stands. is_calm: it is ready, sees all peers, has read all that they
    have, and nothing goes on by itself.
    """

    is_calm: bool
    vector: str
    events_after: str
    why: str = ""


@dataclass(slots=True)
class Reader:
    """Of one meshd. last: the table that was last noted whole, which outlives it."""

    meshd: Meshd
    calls: Calls
    recorder: Recorder
    counters: Counters
    last: TableRead | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def run(self, every_s: float, gate: Gate, phase: float) -> None:
        """Read tables and statuses for ever. phase: where in `every_s` it begins, from 0 to 1."""
        async for _ in paced(every_s, gate, first_s=every_s * phase, rest=REST):
            await self.table()
            await self.status()

    async def run_anew(self, every_s: float, gate: Gate, phase: float) -> None:
        """Have tables derived anew for ever, less often: that costs meshd more."""
        async for _ in paced(every_s, gate, first_s=every_s * (1 + phase) / 2, rest=REST):
            await self.table_anew()

    async def table(self, rows_max: float = ROWS_MAX) -> str:
        """Read the table; returns where its events stand, '' if there was no answer."""
        async with self._lock:
            return await self._table("/v1/tables", rows_max=rows_max)

    async def table_anew(self) -> bool:
        """Read the table, and have it derived anew at the same place."""
        async with self._lock:
            place = await self._table("/v1/tables")
            return bool(place and await self._table(f"/v1/tables?as_of={place}", anew=True))

    async def status(self) -> StatusRead | None:
        """Read the status."""
        async with self._lock:
            found = await self._status()
            return None if found is None else found[0]

    async def standing(self) -> Standing:
        """Read the status, and what else says whether all has come to rest."""
        async with self._lock:
            found = await self._status()
            if found is None:
                return Standing(is_calm=False, vector="", events_after="", why="no answer")
            answer = found[1].data
            operations = await self._ask("/v1/operations")
        why = _unrest(answer)
        if operations is None or any(
            one["progress"] == "running" for one in operations.data["items"]
        ):
            why = why or "operations go on"
        return Standing(not why, answer["vector_text"], answer["events_after"], why)

    async def _table(self, path: str, *, anew: bool = False, rows_max: float = ROWS_MAX) -> str:
        answer = await self._ask(path)
        if answer is None:
            return ""
        at_ns, data = self.recorder.now_ns(), answer.data
        is_whole = sum(len(service["backends"]) for service in data["services"]) <= rows_max
        noted = data if is_whole else {**data, "services": []}
        read = answers.table_read(READER, self.meshd.name, at_ns, noted, anew=anew)
        if is_whole:
            self.last = read
        self.recorder.note(read if is_whole else replace(read, services=None))
        self.counters.tables += 1
        return read.events_after

    async def _status(self) -> tuple[StatusRead, Answer] | None:
        answer = await self._ask("/v1/status")
        if answer is None:
            self.counters.behind.pop(self.meshd.name, None)
            return None
        read = answers.status_read(self.meshd.name, self.recorder.now_ns(), answer.data)
        self.recorder.note(read)
        self.counters.statuses += 1
        lags = (peer["lag_events"] or 0 for peer in answer.data["peers"])
        self.counters.behind[self.meshd.name] = max(lags, default=0)
        return read, answer

    async def _ask(self, path: str) -> Answer | None:
        try:
            answer = await self.calls.ask(self.meshd, path)
        except UnansweredError:
            self.counters.unanswered += 1
            return None
        if answer.status != SUCCESS:
            self.counters.unanswered += 1
            return None
        return answer


def _unrest(answer: answers.Json) -> str:
    """Why a status isn't that of a meshd that has read everything; empty if it is."""
    if not answer["ready"]:
        return f"not ready: {', '.join(answer['reasons'])}"
    for peer in answer["peers"]:
        if peer["phase"] != "Ready":
            return f"{peer['name']} is {peer['phase']}: {peer['reason']}"
        if peer["lag_events"]:
            return f"{peer['lag_events']} events behind {peer['name']}"
    return ""
