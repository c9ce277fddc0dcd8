"""How long a subscriber waits for what changes.

For: changes of endpoints, and the streams of a meshd that tell them. Not for: making changes.
Invariant: a change that was never told is missing, however many came after it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Final

import orjson

from tests.bench.daemons import Meshd
from tests.bench.observing import stream


@dataclass(slots=True)
class Lags:
    """How long changes took from when they were sent until a subscriber was told them. A value
    that was told counts for those of its endpoint that it took the place of.
    """

    values_s: list[float] = field(default_factory=list)
    _waiting: dict[tuple[str, str], deque[tuple[int, float]]] = field(default_factory=dict)

    def acked(self, cluster: str, endpoint: str, seq: int) -> None:
        """A change of an endpoint is in its log."""
        waiting = self._waiting.setdefault((cluster, endpoint), deque())
        waiting.append((seq, time.perf_counter()))

    def told(self, cluster: str, endpoint: str, seq: int) -> None:
        """A subscriber was told an endpoint as of a seq."""
        waiting = self._waiting.get((cluster, endpoint))
        while waiting and waiting[0][0] <= seq:
            self.values_s.append(time.perf_counter() - waiting.popleft()[1])

    @property
    def missing(self) -> int:
        """So many were not told yet."""
        return sum(map(len, self._waiting.values()))


async def follow_events(one: Meshd, lags: Lags, loaded: asyncio.Event) -> None:
    """Note when a subscriber of a meshd's events is told each."""
    async with stream(one, "/v1/events?from=now&type=endpoint.set") as answer:
        loaded.set()
        async for line in answer.content:
            if line.startswith(b"data:"):
                event = orjson.loads(line[5:])
                if "meshdseq" in event:
                    endpoint = event["subject"].rpartition("/")[2]
                    lags.told(event["meshdcluster"], endpoint, event["meshdseq"])


async def follow_tables(one: Meshd, lags: Lags, loaded: asyncio.Event) -> None:
    """Note when a subscriber of a meshd's tables is told each, once it has them whole."""
    async with stream(one, "/v1/tables/stream?delta=true") as answer:
        async for line in answer.content:
            if line.startswith(b"event: meshd.snapshot.end"):
                loaded.set()
            if loaded.is_set() and line.startswith(b"data:"):
                message = orjson.loads(line[5:])
                for backend in (*message.get("upserts", ()), *message.get("backends", ())):
                    origin = backend["origin"]
                    lags.told(backend["cluster"], backend["name"], origin["seq"])


FOLLOWING: Final = {"tables": follow_tables, "events": follow_events}
