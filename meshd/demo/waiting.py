"""Waiting for something to become so.

For: every wait of the demo. Not for: pauses, which are for people (`stage`). Invariant: a wait
ends: with how long it took, or with `NotInTimeError` that says what didn't come and what was
there instead.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

POLL_S = 0.05


class NotInTimeError(Exception):
    """Something did not become so within its deadline."""


Missing = str
"""What is still in the way, in words; empty when nothing is."""


async def until(what: str, missing: Callable[[], Awaitable[Missing]], within_s: float) -> float:
    """Wait until nothing is missing; returns the seconds that it took."""
    began_s = time.monotonic()
    still = "nothing was seen yet"
    try:
        async with asyncio.timeout(within_s):
            while still := await missing():  # noqa: ASYNC110 who is asked is another process
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise NotInTimeError(f"{what} not within {within_s:g} s: {still}") from None
    return time.monotonic() - began_s
