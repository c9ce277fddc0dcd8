"""Customers who go by the tables, and the servers that answer them: real requests, all counted.

For: tests that say how many requests failed while clusters were operated on. Not for: operating.
Invariants: every request is counted once; a customer goes by the last good table, whatever becomes
of the meshd that gave it.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from math import sqrt

from meshd.client import Client, Target
from meshd.demo.caller import Caller, open_session
from meshd.demo.children import Child, Children
from meshd.demo.feed import Feed
from meshd.demo.shop import Server
from meshd.demo.tally import Tally
from meshd.demo.waiting import Missing, until
from tests.e2e.conftest import Daemon
from tests.e2e.test_daemon import put

SERVICE = "web"
PATH = f"/v1/services/shop/{SERVICE}"
PAUSE_S = 0.01
"""Between two requests of a customer: so many that no moment of an operation passes without one,
and so few that two cores have time for meshds and etcds as well."""
READS = 2
"""After so many more reads a table was asked for and answered since."""
SETTLE_TIMEOUT_S = 60.0
GOLDEN = (sqrt(5) - 1) / 2


class EvenDice(random.Random):
    """Throws as even as can be: of n throws that a share p is compared with, the number below p is
    n times p give or take log n, where chance would give or take the root of n.

    A request takes two throws, the tier's and the backend's; each has a sequence of its own.
    """

    def __init__(self) -> None:
        super().__init__(0)
        self._throws = 0

    def random(self) -> float:
        self._throws += 1
        return self._throws // 2 * (GOLDEN if self._throws % 2 else GOLDEN**2) % 1.0


@dataclass(slots=True)
class Shop:
    """The servers of one cluster, in a process of their own."""

    child: Child
    servers: tuple[Server, ...]

    @staticmethod
    async def open(
        children: Children, cluster: str, number: int, free_address: Callable[[], str]
    ) -> Shop:
        """Start so many servers and wait until they answer."""
        servers = []
        for place in range(1, number + 1):
            host, _, port = free_address().rpartition(":")
            servers.append(Server(SERVICE, f"{cluster}-{place}", host, int(port)))
        listed = ["--cluster", cluster, "--serve", *map(str, servers)]
        shop = Shop(
            children.add(f"{cluster}-shop", ["-m", "meshd.demo.shop", *listed]), tuple(servers)
        )
        await shop.start()
        return shop

    async def start(self) -> None:
        """Start it, or start it again."""
        await self.child.start()
        last = self.servers[-1]

        async def missing() -> Missing:
            try:
                _, writer = await asyncio.open_connection(last.host, last.port)
            except OSError as error:
                return str(error)
            writer.close()
            return ""

        await until("the shop to open", missing, SETTLE_TIMEOUT_S)

    async def tell(self, daemon: Daemon, *, ready: bool = True) -> None:
        """Say in the cluster's log where they are."""
        for server in self.servers:
            body = {
                "address": server.host,
                "ports": [{"name": "http", "port": server.port}],
                "ready": ready,
            }
            assert await put(daemon, f"{PATH}/endpoints/{server.endpoint}", body) in {200, 201}


@dataclass(slots=True)
class Customers:
    """The customers of every cluster. tally: all that they have asked."""

    stack: AsyncExitStack
    tasks: asyncio.TaskGroup
    feeds: dict[str, Feed] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @staticmethod
    @asynccontextmanager
    async def in_town() -> AsyncIterator[Customers]:
        """Customers until the end of the block."""
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
            found = Customers(stack, tasks)
            try:
                yield found
            finally:
                for task in found._tasks:
                    task.cancel()

    async def follow(self, cluster: str, daemon: Daemon) -> None:
        """Go by this meshd's tables from now on."""
        client = await self.stack.enter_async_context(Client(Target(url=daemon.url)))
        feed, known = Feed(client), self.feeds.get(cluster)
        if known is not None:
            feed.table = known.table
        self.feeds[cluster] = feed
        self._tasks.append(self.tasks.create_task(feed.run()))
        if known is None:
            self._tasks.append(self.tasks.create_task(self._stroll(cluster)))

    async def _stroll(self, cluster: str) -> None:
        async with open_session() as session:
            caller = Caller(session, random.Random(cluster))
            while True:
                table = self.feeds[cluster].table
                if SERVICE in table:
                    self.tally.count(cluster, await caller.call(table, SERVICE))
                await asyncio.sleep(PAUSE_S)

    async def settle(self, wanted: Mapping[str, int], *clusters: str) -> None:
        """Wait until the tables that customers go by have so many backends with a share, by
        cluster.
        """

        async def missing() -> Missing:
            found = {cluster: self.shares(cluster) for cluster in clusters}
            return "" if all(one == wanted for one in found.values()) else str(found)

        await until(f"traffic to be {wanted}", missing, SETTLE_TIMEOUT_S)

    async def read_anew(self, cluster: str) -> None:
        """Wait until a customer's table was asked for and answered from now on."""
        feed = self.feeds[cluster]
        wanted = feed.reads + READS

        async def missing() -> Missing:
            return "" if feed.reads >= wanted else f"{feed.reads} of {wanted} reads"

        await until(f"{cluster}'s table to be read", missing, SETTLE_TIMEOUT_S)

    def shares(self, cluster: str) -> dict[str, int]:
        """How the table of a customer gives out its traffic: who has any."""
        return Counter(
            target.cluster for target in self.feeds[cluster].table.get(SERVICE, ()) if target.share
        )

    async def measure(self, cluster: str, number: int) -> dict[str, float]:
        """Send so many requests by a customer's table as it is now, and say in percent who
        answered.
        """
        tally = Tally()
        async with open_session() as session:
            caller = Caller(session, EvenDice())
            table = self.feeds[cluster].table
            for _ in range(number):
                answer = await caller.call(table, SERVICE)
                tally.count(cluster, answer)
                self.tally.count(cluster, answer)
        found = tally.by_cluster(cluster, SERVICE)
        return {name: 100 * count / number for name, count in found.items()}

    @property
    def asked(self) -> int:
        return sum(self.tally.sent.values())

    @property
    def troubles(self) -> dict[str, int]:
        """Requests that failed, that had nobody to go to, and that had to be sent again."""
        tally = self.tally
        found = {"failed": tally.failed, "without": tally.without, "retried": tally.retried}
        return {name: sum(counts.values()) for name, counts in found.items() if counts.total()}
