"""Who is told what another cluster's table has, and who writes what it is told.

For: latencies from a write to another cluster's table, seen by one subscriber of the stream of
tables or of events, which is what any client has. Not for: measuring. Of a mock peer's changes only
places are read (at which seq that stands which was told), so that looking costs little at thousands
a second; of a meshd's, whose local and exported seqs differ, each backend's name and weight.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import islice
from typing import Final

import aiohttp
import orjson

from meshd.edges.etcd import EtcdKv
from meshd.runtime.ports import Txn
from tests.bench.alongside import alongside
from tests.bench.daemons import SERVICE_PATH, Meshd
from tests.bench.mock_peers import EVENTS_PER_RECORD, MockPeer
from tests.bench.pacing import Times

STREAM: Final = "/v1/tables/stream?delta=true"
EVENTS: Final = "/v1/events?from=now&type=endpoint.set"
PLACE: Final = b"id: "
ENDPOINTS: Final = 200
"""Of a meshd's service that changes: each is told before it changes again."""
WEIGHTS: Final = 1000
JOIN_TIMEOUT_S: Final = 60.0


class MockWriter:
    """Writes a mock peer's log as a meshd's writer does: whatever waits becomes one record."""

    def __init__(self, kv: EtcdKv, peer: MockPeer) -> None:
        self._kv = kv
        self._peer = peer
        self._changes = 0
        self._waiting: deque[int] = deque()
        self._some = asyncio.Event()
        self._written: deque[tuple[int, int]] = deque()
        self.times = Times()

    def ask(self, due_s: float) -> None:
        """Have the next change written."""
        self._waiting.append(self.times.ask(due_s))
        self._some.set()

    async def run(self) -> None:
        """Write, until cancelled."""
        while True:
            await self._some.wait()
            self._some.clear()
            while self._waiting:
                await self._write([*islice(self._waiting, EVENTS_PER_RECORD)])

    async def _write(self, numbers: list[int]) -> None:
        times = self.times
        for _ in numbers:
            self._waiting.popleft()
        events = [self._peer.turn(self._changes + place) for place in range(len(numbers))]
        self._changes += len(numbers)
        puts = self._peer.record(events)
        first_seq = self._peer.head.seq - len(numbers) + 1
        # Noted before it is written: it may be seen before it is acknowledged.
        self._written.extend(enumerate(numbers, first_seq))
        await self._kv.commit(Txn(success=puts))
        for number in numbers:
            times.ack(number)

    def tell(self, seq: int) -> None:
        """Note that the table stands at a seq."""
        while self._written and self._written[0][0] <= seq:
            self.times.tell(self._written.popleft()[1])

    def begin(self, every: int = 1) -> Times:
        """Begin anew, with nothing under way. every: if it is the number of the peer's services,
        those that are looked for are of the first service.
        """
        self._waiting.clear()
        self._written.clear()
        self._changes += -self._changes % every
        self.times = Times(every)
        return self.times


@dataclass(slots=True)
class RestWriter:
    """Writes endpoints of a meshd's service, each by a request of its own."""

    one: Meshd
    changes: int = 0
    times: Times = field(default_factory=Times)
    _under_way: dict[tuple[str, int], int] = field(default_factory=dict)

    async def put(self, due_s: float) -> None:
        """Write the next change."""
        turns, endpoint = divmod(self.changes, ENDPOINTS)
        self.changes += 1
        times, number = self.times, self.times.ask(due_s)
        name, weight = f"e{endpoint}", 1 + turns % WEIGHTS
        self._under_way[name, weight] = number
        body = {"address": f"10.8.0.{endpoint + 1}", "weight": weight}
        await self.one.put(f"{SERVICE_PATH}/endpoints/{name}", body)
        times.ack(number)

    def tell(self, name: str, weight: int) -> None:
        """Note that the table has an endpoint's weight."""
        number = self._under_way.pop((name, weight), None)
        if number is not None:
            self.times.tell(number)

    def begin(self) -> Times:
        """Begin anew, with nothing under way."""
        self._under_way.clear()
        self.times = Times()
        return self.times


@asynccontextmanager
async def seen_places(
    one: Meshd, peer: MockPeer, see: Callable[[int], None], path: str = STREAM
) -> AsyncIterator[None]:
    """Have a subscriber tell at which seq of a peer that stands which it was told. path: of what,
    `STREAM` or `EVENTS`, or a part of it.
    """
    pattern = re.compile(rb"\b%b:[0-9a-f]{32}:(\d+)" % str(peer.name).encode())
    begun = asyncio.Event()

    async def read() -> None:
        left = b""
        async with stream(one, path) as answer:
            async for chunk in answer.content.iter_any():
                # Places only go on, so the last of what came at once says it all.
                left += chunk
                start = left.rfind(PLACE)
                end = left.find(b"\n", start) if start >= 0 else -1
                if end >= 0:
                    if found := pattern.search(left, start, end):
                        see(int(found[1]))
                    begun.set()
                    left = left[end:]
                elif start >= 0:
                    left = left[start:]
                else:
                    left = left[-len(PLACE) :]

    async with _reading(read(), begun):
        yield


@asynccontextmanager
async def seen_backends(one: Meshd, see: Callable[[str, int], None]) -> AsyncIterator[None]:
    """Have a subscriber of the tables tell the name and the weight of each backend that changed."""
    begun = asyncio.Event()

    async def read() -> None:
        async with stream(one, STREAM) as answer:
            async for line in answer.content:
                if line.startswith(PLACE):
                    begun.set()
                if not line.startswith(b"data:"):
                    continue
                for backend in orjson.loads(line[5:]).get("upserts", ()):
                    see(backend["name"], backend["endpoint_weight"])

    async with _reading(read(), begun):
        yield


@asynccontextmanager
async def stream(one: Meshd, path: str) -> AsyncIterator[aiohttp.ClientResponse]:
    """Be told what a stream of a meshd says; its lines may be as long as a large service."""
    headers = {"Accept": "text/event-stream"}
    timeout = aiohttp.ClientTimeout(total=None)
    url = f"http://{one.address}{path}"
    async with one.http.get(url, headers=headers, timeout=timeout, read_bufsize=1 << 22) as answer:
        assert answer.status == HTTPStatus.OK, await answer.text()
        yield answer


@asynccontextmanager
async def _reading(read: Coroutine[None, None, None], begun: asyncio.Event) -> AsyncIterator[None]:
    """Read in the background, and go on once the first place was told."""
    async with alongside(read):
        async with asyncio.timeout(JOIN_TIMEOUT_S):
            await begun.wait()
        yield
