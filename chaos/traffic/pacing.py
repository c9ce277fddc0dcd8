"""So many a second, and pauses.

For: all traffic. Not for: what is done. Invariants: what was late isn't made up for, so that a
server which comes back isn't run over; once a pause has begun nothing new is begun.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

REST_S_MAX: Final = 5.0
"""Who got no answer for long is asked again soon all the same."""


@dataclass(slots=True)
class Gate:
    """Lets work begin, or not."""

    _open: asyncio.Event = field(default_factory=asyncio.Event)
    _idle: asyncio.Event = field(default_factory=asyncio.Event)
    _busy: int = 0

    def __post_init__(self) -> None:
        self._open.set()
        self._idle.set()

    def open(self) -> None:
        """Work may begin."""
        self._open.set()

    async def close(self) -> None:
        """Nothing begins any more; returns once what was begun is over."""
        self._open.clear()
        await self._idle.wait()

    async def wait_until_open(self) -> None:
        """Return once work may begin."""
        await self._open.wait()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Work. Between `wait_until_open` and this nothing may be awaited."""
        self._busy += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._busy -= 1
            if not self._busy:
                self._idle.set()


async def paced(
    every_s: float, gate: Gate, first_s: float = 0.0, rest: float = 0.0
) -> AsyncIterator[None]:
    """Yield every so often, and only while the gate is open: each turn is work. rest: for so many
    times as long as a turn took there is none, up to REST_S_MAX, however often they are due.
    """
    loop = asyncio.get_running_loop()
    due_s = loop.time() + first_s
    while True:
        await asyncio.sleep(max(0.0, due_s - loop.time()))
        await gate.wait_until_open()
        begun_s = loop.time()
        with gate.at_work():
            yield
        ended_s = loop.time()
        due_s = max(due_s + every_s, ended_s + min(REST_S_MAX, rest * (ended_s - begun_s)))
