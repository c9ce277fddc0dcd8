"""What a fault goes on doing between its injecting and its healing.

For: faults that repeat something. Not for: what ends within one call, which belongs into a
TaskGroup. Invariants: what failed is told by the next look; once stopped, nothing of it runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class GoingOn:
    """Tasks whose owner is a fault, since one call of it begins them and another ends them."""

    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def begin(self, deed: Coroutine[Any, Any, None], name: str) -> None:
        """Do this until `stop`."""
        self.tasks.append(asyncio.create_task(deed, name=name))  # noqa: TID251 see the class

    def look(self) -> None:
        """Raise what one of them failed of."""
        for task in self.tasks:
            if task.done():
                task.result()

    async def stop(self) -> None:
        """Stop them, whatever became of them, and wait until they have ended."""
        for task in self.tasks:
            task.cancel()
        if self.tasks:
            await asyncio.wait(self.tasks)
        self.tasks.clear()
