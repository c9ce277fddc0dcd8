"""An open loop: what is due is asked for whether or not earlier answers have come.

For: latencies at a rate. Not for: measuring how fast something can be at most with so many callers.
Invariant: an event that was asked for late counts from when it was due, so that whoever makes the
writer wait doesn't look fast for it.
"""

from __future__ import annotations

import asyncio
import math
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Final

TIMER_S: Final = 0.0012
"""How late the event loop's timers may be. A slow pacer waits for the rest without sleeping."""
EXACT_HZ_MAX: Final = 250.0
"""Beyond that, waiting without sleeping would take the processor from what is measured."""
UNTOLD: Final = math.nan


@dataclass(slots=True)
class Times:
    """Of events by their numbers, in seconds of `time.perf_counter`; nan for what hasn't happened.
    due: by the rate. asked: given to the writer. acked: acknowledged. told: seen on the other side.
    every: only each so-manieth event is looked for.
    """

    every: int = 1
    due_s: list[float] = field(default_factory=list)
    asked_s: list[float] = field(default_factory=list)
    acked_s: list[float] = field(default_factory=list)
    told_s: list[float] = field(default_factory=list)

    def ask(self, due_s: float) -> int:
        """Note that an event is asked for now; returns its number."""
        self.due_s.append(due_s)
        self.asked_s.append(time.perf_counter())
        self.acked_s.append(UNTOLD)
        self.told_s.append(UNTOLD)
        return len(self.due_s) - 1

    def ack(self, number: int) -> None:
        """Note that it is acknowledged now."""
        self.acked_s[number] = time.perf_counter()

    def tell(self, number: int) -> None:
        """Note that it is seen now, unless it was before."""
        if math.isnan(self.told_s[number]):
            self.told_s[number] = time.perf_counter()

    def untold(self) -> int:
        """So many of those that are looked for weren't seen yet."""
        return sum(map(math.isnan, self.told_s[:: self.every]))

    def after_ack_s(self) -> list[float]:
        """From acknowledged to seen, and how late it was asked for; seen before the acknowledgement
        is seen at once.
        """
        columns = (self.due_s, self.asked_s, self.acked_s, self.told_s)
        looked_for = zip(*(column[:: self.every] for column in columns), strict=True)
        return [
            max(0.0, told - acked) + asked - due
            for due, asked, acked, told in looked_for
            if not math.isnan(told + acked)
        ]

    def after_due_s(self) -> list[float]:
        """From due to seen, in the order in which they were due."""
        both = zip(self.due_s[:: self.every], self.told_s[:: self.every], strict=True)
        return [told - due for due, told in both if not math.isnan(told)]

    def late_s(self) -> list[float]:
        """How late each was asked for."""
        return [asked - due for asked, due in zip(self.asked_s, self.due_s, strict=True)]


async def due(rate_hz: float, seconds: float) -> AsyncIterator[float]:
    """Yield when each event is due, once it is."""
    began_s = time.perf_counter()
    is_exact = rate_hz <= EXACT_HZ_MAX
    for number in range(max(1, round(rate_hz * seconds))):
        due_s = began_s + number / rate_hz
        while (left_s := due_s - time.perf_counter()) > 0:
            pause_s = max(0.0, left_s - TIMER_S) if is_exact else left_s
            await asyncio.sleep(pause_s)
        yield due_s
        if number % 64 == 0:
            # Who is behind must let those go on who take what was asked for.
            await asyncio.sleep(0)


async def until_told(times: Times, timeout_s: float) -> bool:
    """Wait until all were seen; says whether they were."""
    until_s = time.perf_counter() + timeout_s
    while times.untold():
        if time.perf_counter() > until_s:
            return False
        await asyncio.sleep(0.02)
    return True


def at(values: Sequence[float], share: float) -> float:
    """The value that a share of them isn't above; nan if there are none."""
    if not values:
        return math.nan
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def grows(values: Sequence[float], margin_s: float) -> bool:
    """Whether the last quarter waited longer than the first half, beyond a margin."""
    if len(values) < 4:
        return False
    half, quarter = values[: len(values) // 2], values[-(len(values) // 4) :]
    return statistics.median(quarter) > 2 * statistics.median(half) + margin_s
