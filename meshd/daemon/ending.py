"""How a meshd ends: said at once, and done within a time.

For: the moment from which on it ends, by a signal or since a part of it failed. Not for: ending its
parts, which is the task group's (`run`). Invariant: whatever a part waits for while it ends, the
process is gone in time and has said where it was, so that a supervisor starts it again.

Without it a failure is told when all other parts have ended; one that never does keeps a process
that serves nothing, says nothing and is taken for one that runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import structlog

log = structlog.get_logger(__name__)

ENDED_AFTER_S: Final = 20.0
"""Beyond the time for requests under way: for the leader key, the links, and an embedded etcd."""


@dataclass(slots=True)
class Ending:
    """end_within: has the process ended after so many seconds, if it is there by then."""

    drain_timeout_s: float
    end_within: Callable[[float], None]
    _has_begun: bool = field(default=False, init=False)

    def begin(self) -> None:
        """It ends from now on."""
        if not self._has_begun:
            self._has_begun = True
            self.end_within(self.drain_timeout_s + ENDED_AFTER_S)

    def watch(self, part: asyncio.Task[None]) -> None:
        """A part that fails ends the others, and says so before they have ended."""
        part.add_done_callback(self._ended)

    def _ended(self, part: asyncio.Task[None]) -> None:
        error = None if part.cancelled() else part.exception()
        if error is not None:
            reason = str(error) or type(error).__name__
            log.error("a part failed, and this meshd ends", part=part.get_name(), reason=reason)
            self.begin()
