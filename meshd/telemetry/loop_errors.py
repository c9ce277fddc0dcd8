"""What an event loop could not tell anybody: lines in the log as all others are, and not a storm.

For: asyncio's exception handler. Not for: errors that a part can handle. Invariant: one message is
a line once in a while, however often it comes: for a connection that can't be taken for want of a
descriptor asyncio has a hundred a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import structlog

log = structlog.get_logger(__name__)

QUIET_S: Final = 10.0
MESSAGES_MAX: Final = 100
"""Different ones are remembered; asyncio has some dozens."""


class LoopErrors:
    """Lines of one loop. What came since the last line of a message is counted in the next."""

    def __init__(self) -> None:
        self._last_s: dict[str, float] = {}
        self._unsaid: dict[str, int] = {}

    def __call__(self, loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
        """Log it, unless the same was logged a moment ago."""
        message = str(context.get("message", "an error without a message"))
        now_s = loop.time()
        last_s = self._last_s.get(message)
        if last_s is not None and now_s - last_s < QUIET_S:
            self._unsaid[message] = self._unsaid.get(message, 0) + 1
            return
        if len(self._last_s) >= MESSAGES_MAX:
            self._last_s.clear()
        self._last_s[message] = now_s
        error = context.get("exception")
        unsaid = self._unsaid.pop(message, 0)
        log.error("event loop", detail=message, unsaid=unsaid, error=repr(error), exc_info=error)
