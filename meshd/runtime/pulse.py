"""Whether the event loop keeps up.

For: the lag metric, and systemd's watchdog, which must hear from the loop itself. Not for: curing.
"""

from __future__ import annotations

from collections.abc import Callable

from meshd.runtime.ports import Clock
from meshd.telemetry import metrics

TICK_S = 0.25


async def keep_pulse(clock: Clock, watchdog_s: float, tell_watchdog: Callable[[], None]) -> None:
    """Measure how late each tick is, and tell the watchdog in time; for ever.

    watchdog_s: 0 for no watchdog.
    """
    told_s = clock.monotonic_s()
    while True:
        due_s = clock.monotonic_s() + TICK_S
        await clock.sleep(TICK_S)
        now_s = clock.monotonic_s()
        metrics.LOOP_LAG_SECONDS.observe(max(0.0, now_s - due_s))
        if watchdog_s and now_s - told_s >= watchdog_s:
            tell_watchdog()
            told_s = now_s
