"""What goes on in the background while something is measured.

For: readers, writers and heartbeats that have no end of their own. Not for: work whose result is
waited for. Invariant: what fails in the background fails the measurement.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager


@asynccontextmanager
async def alongside(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Let it run as long as the context lasts."""
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(work)
        try:
            yield
        finally:
            task.cancel()
