"""Kept messages that a broker refused: tables and the status.

For: not sending them again at once, on this connection and the next. Not for: events, which can't
be left out. Invariant: what was refused is held back for a while and then tried again; where much
is refused, everything is, since some brokers end the connection at each refusal, and events would
go on in small steps.
"""

from __future__ import annotations

import math
from typing import Final

import structlog

from meshd.runtime.ports import Clock
from meshd.telemetry import metrics

log = structlog.get_logger(__name__)

HOLD_S: Final = 300.0
"""A refusal ends when a person has changed something."""
HELD_MAX: Final = 10
"""A broker that refuses so many refuses them all, as one does that doesn't know what we may do."""


class Refusals:
    """What is held back, by what it is about. reason: of the last refusal, '' if none is held."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until_s: dict[object, float] = {}
        self.reason = ""

    def add(self, what: object, error: BaseException) -> None:
        """Hold something back from now on."""
        metrics.MQTT_REFUSED.inc()
        if len(self._until_s) < HELD_MAX and what not in self._until_s:
            log.warning("the broker refused a message", reason=str(error))
        self.reason = str(error)
        self._until_s[what] = self._clock.monotonic_s() + HOLD_S

    def hold(self, what: object) -> bool:
        """Whether something is held back."""
        is_held = self._until_s.get(what, -math.inf) > self._clock.monotonic_s()
        return is_held or len(self._until_s) >= HELD_MAX

    def release(self) -> tuple[object, ...]:
        """What may be tried again now; all of it, if everything was held back."""
        due_s = min(self._until_s.values(), default=math.inf)
        if due_s > self._clock.monotonic_s():
            return ()
        released = tuple(self._until_s)
        self._until_s.clear()
        self.reason = ""
        return released
