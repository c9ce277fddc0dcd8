"""The machine's own clock and dice, behind the doors of `runtime.ports`."""

from __future__ import annotations

import asyncio
import random
import time
import uuid


class SystemClock:
    """Time as the machine has it."""

    def monotonic_s(self) -> float:
        """Seconds since some fixed moment."""
        return time.monotonic()

    def wall_ms(self) -> int:
        """Milliseconds since 1970."""
        return time.time_ns() // 1_000_000

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


class SystemChance:
    """Randomness as the machine has it; jitter needs no cryptography, ids do."""

    def uuid_hex(self) -> str:
        """Make a random UUID as 32 hexadecimal digits."""
        return uuid.uuid4().hex

    def uniform(self, low: float, high: float) -> float:
        """Draw a number between the two."""
        return random.uniform(low, high)  # noqa: S311 jitter is no secret
