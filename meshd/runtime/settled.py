"""Waiting until states, digests and the vector that others share are of one place.

For: answers that name a vector beside what they say. Not for: who only reads states, which are
always whole. Invariant: nobody waits for long: the own log is read on within moments, or can't be.
"""

from __future__ import annotations

import asyncio
from typing import Final

from meshd.model.errors import TransientError
from meshd.runtime.projector import Projector

SETTLE_FOR_S: Final = 5.0
"""Tens of thousands of events are read on in that time; who lacks more is better asked later."""


async def settled(projector: Projector) -> None:
    """Wait while the own log is read on; what is read without waiting after this is of one place.

    Raises TransientError if that takes too long.
    """
    try:
        async with asyncio.timeout(SETTLE_FOR_S):
            while not projector.is_settled:
                await projector.changed.wait()
    except TimeoutError:
        raise TransientError("the own log is being read on; ask again") from None
