"""Ctrl-C and SIGTERM: a run that is interrupted heals what it broke, and ends what it started.

For: the commands that run something. Not for: healing. Invariant: the first signal cancels; others
are told that it takes a moment, and change nothing, since what would be left broken is somebody's
network.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(slots=True)
class Interrupts:
    """by: the signal that came first, or empty."""

    by: str = ""


@contextmanager
def cancelled_by_signals(tell: Callable[[str], None]) -> Iterator[Interrupts]:
    """Cancel the task that enters this at the first signal. Only in an event loop's main thread."""
    loop, task, seen = asyncio.get_running_loop(), asyncio.current_task(), Interrupts()

    def came(number: signal.Signals) -> None:
        if seen.by:
            tell(f"{number.name} again: still healing; it ends by itself")
            return
        seen.by = number.name
        tell(f"{number.name}: healing what is broken and ending what was started")
        if task is not None:
            task.cancel(number.name)

    for number in SIGNALS:
        loop.add_signal_handler(number, came, number)
    try:
        yield seen
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)
