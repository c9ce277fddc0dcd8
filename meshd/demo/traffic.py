"""The customers of the shop: requests from every cluster, all the time, and bursts to measure by.

For: sending and counting. Not for: what the counts should be (`expect`). Invariant: at most a fixed
number of requests is under way, so a machine with two cores has time for the mesh as well.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Iterator, Mapping, Sequence

from meshd.demo.caller import Caller, open_session
from meshd.demo.catalog import SERVICES, services_for
from meshd.demo.feed import Feed
from meshd.demo.scene import Scene
from meshd.demo.tally import Tally

EVERY_S = 0.03
"""Between two requests from one cluster."""
BURST_PARALLEL = 8


class Traffic:
    """All requests of the demo. Every cluster's customers have dice of their own, from the seed."""

    def __init__(self, feeds: Mapping[str, Feed], scene: Scene, seed: int) -> None:
        self._feeds = feeds
        self._scene = scene
        self._seed = seed

    async def run(self) -> None:
        """Send requests from every cluster until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for cluster in self._feeds:
                tasks.create_task(self._stroll(cluster), name=f"customers of {cluster}")

    async def _stroll(self, cluster: str) -> None:
        dice = random.Random(f"{self._seed} {cluster} stroll")
        async with open_session() as session:
            caller = Caller(session, dice)
            for service in itertools.cycle(services_for(cluster)):
                table = self._feeds[cluster].table
                if service in table:
                    answer = await caller.call(table, service)
                    if self._scene.step is not None:
                        self._scene.step.meanwhile.count(cluster, answer)
                    self._scene.recent.add(cluster, answer)
                await asyncio.sleep(EVERY_S)

    async def burst(
        self, tally: Tally, callers: Sequence[str], number: int, services: Sequence[str] = SERVICES
    ) -> None:
        """Send so many requests to each of the services that these clusters know, and count."""
        async with open_session() as session, asyncio.TaskGroup() as tasks:
            for cluster in callers:
                dice = random.Random(f"{self._seed} {cluster} burst")
                known = [name for name in services_for(cluster) if name in services]
                orders = iter(known * number)
                for _ in range(BURST_PARALLEL // len(callers) + 1):
                    tasks.create_task(
                        self._work(Caller(session, dice), cluster, orders, tally),
                        name=f"burst from {cluster}",
                    )

    async def _work(
        self, caller: Caller, cluster: str, orders: Iterator[str], tally: Tally
    ) -> None:
        for service in orders:
            answer = await caller.call(self._feeds[cluster].table, service)
            tally.count(cluster, answer)
            self._scene.recent.add(cluster, answer)
