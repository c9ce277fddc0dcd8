"""What meshd's memory grows by for each endpoint, service and peer, and for an event on its way.

For: the part `costs` of `make bench`. Not for: what it has at the least: each figure is the slope
of a straight line through the resident memory of a real meshd process at several sizes. It is
started anew for each size, so that what is counted is what it holds, not what loading left. The
reference: the same objects as JSON, as its own REST tells them.
"""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson
import yaml
from rich.console import Console

from meshd.edges.embedded import EmbeddedConfig, EmbeddedEtcd
from meshd.edges.etcd import EtcdTarget, connect
from meshd.model.ids import ClusterName
from tests.bench.daemons import ETCD, NAMESPACE, START_TIMEOUT_S, Meshd, meshd
from tests.bench.mock_peers import MockPeer, Size, keep_beating, lay
from tests.bench.places import etcd_at, peers_of
from tests.bench.streams import Figures
from tests.bench.tables import Row

PEERS_ETCD: Final = etcd_at(8)
PER_SERVICE: Final = 100
PEER: Final = Size(endpoints=10, nodes=2, services=1)
"""As little as a peer has that is of any use."""
EVENTS_PER_REQUEST: Final = 500
LOOK_EVERY_S: Final = 0.5
LOOKS_MAX: Final = 10
STEADY_BYTES: Final = 256 * 1024
"""Far below what any of the sizes makes of difference."""
AS_JSON: Final = "as JSON"


@dataclass(frozen=True, slots=True)
class Sizes:
    """At which a meshd is looked at, smallest first, if at any. waiting: requests of 500 events."""

    endpoints: tuple[int, ...] = (0, 10_000, 20_000, 40_000)
    services: tuple[int, ...] = (0, 2_000, 4_000, 8_000)
    peers: tuple[int, ...] = (0, 25, 50, 100)
    waiting: tuple[int, ...] = (0, 10, 20)


async def measure_memory(rounds: int, sizes: Sizes) -> list[Row]:
    """All of it, `rounds` times."""
    figures = Figures()
    for number in range(rounds):
        for what, of, measure in (
            ("endpoint", sizes.endpoints, _by_endpoints),
            ("service", sizes.services, _by_services),
            ("peer", sizes.peers, _by_peers),
            ("event that waits to be committed", sizes.waiting, _by_waiting),
        ):
            if not of:
                continue
            Console(stderr=True).print(f"memory of each {what}, round {number + 1} of {rounds}")
            with tempfile.TemporaryDirectory(prefix="meshd-bench-") as name:
                found, json_bytes = await measure(Path(name), of)
            slope = statistics.linear_regression(*zip(*found, strict=True)).slope
            figures.add(f"memory of each {what}", "bytes", slope, json_bytes, AS_JSON)
    return list(figures.rows.values())


Found = tuple[list[tuple[float, float]], float]
"""How many there were, and what meshd took then; and what one of them is as JSON."""


@asynccontextmanager
async def _etcd(folder: Path) -> AsyncIterator[EmbeddedEtcd]:
    config = EmbeddedConfig(folder / "etcd", ETCD, peers_of(ETCD), history_kept="")
    async with EmbeddedEtcd(config) as etcd:
        yield etcd


async def _rss_anew(folder: Path, config: Path | None = None) -> float:
    async with meshd(folder, config=config) as one:
        await _until_ready(one)
        return await _steady_rss(one)


async def _steady_rss(one: Meshd) -> float:
    """Look until it hardly changes any more, but so often at most: a meshd with many peers is never
    at rest, and one whose etcd is stopped gives up after a while.
    """
    last = one.rss_bytes()
    for _ in range(LOOKS_MAX):
        await asyncio.sleep(LOOK_EVERY_S)
        found = one.rss_bytes()
        if abs(found - last) < STEADY_BYTES:
            return float(found)
        last = found
    return float(last)


async def _until_ready(one: Meshd) -> list[Any]:
    """Wait until it follows all peers; returns what it says of them."""
    async with asyncio.timeout(START_TIMEOUT_S):
        while True:
            peers: list[Any] = orjson.loads(await one.get("/v1/status"))["peers"]
            if all(peer["phase"] == "Ready" for peer in peers):
                return peers
            await asyncio.sleep(0.1)


async def _by_endpoints(folder: Path, sizes: Sequence[int]) -> Found:
    found = []
    json_bytes = 0.0
    async with _etcd(folder):
        for before, size in zip((0, *sizes), sizes, strict=False):
            if size > before:
                async with meshd(folder) as one:
                    json_bytes = await _add_endpoints(one, before, size)
            found.append((float(size), await _rss_anew(folder)))
    return found, json_bytes


async def _add_endpoints(one: Meshd, before: int, size: int) -> float:
    """Write more of them; returns what one of the last is as JSON."""
    backends: list[Any] = []
    for first in range(before, size, PER_SERVICE):
        name = f"service-{first}"
        service = {"ports": [{"port": 80}], "global": True}
        await one.put(f"/v1/services/{NAMESPACE}/{name}", service)
        await one.touch_many(min(PER_SERVICE, size - first), service=name)
        table = await one.get(f"/v1/tables/{NAMESPACE}/{name}")
        backends = orjson.loads(table)["backends"]
    return len(orjson.dumps(backends)) / len(backends)


async def _by_services(folder: Path, sizes: Sequence[int]) -> Found:
    """Services without endpoints."""
    found = []
    json_bytes = 0.0
    async with _etcd(folder):
        for before, size in zip((0, *sizes), sizes, strict=False):
            if size > before:
                async with meshd(folder) as one:
                    for number in range(before, size):
                        path = f"{NAMESPACE}/service-{number}"
                        service = {"ports": [{"port": 80}], "global": True}
                        await one.put(f"/v1/services/{path}", service)
                    json_bytes = len(await one.get(f"/v1/tables/{NAMESPACE}/service-{before}"))
            found.append((float(size), await _rss_anew(folder)))
    return found, json_bytes


async def _by_peers(folder: Path, sizes: Sequence[int]) -> Found:
    """Mock peers' logs in one etcd. JSON: what meshd says of a peer, and all that its log says."""
    found = []
    json_bytes = 0.0
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(_etcd(folder))
        config = EmbeddedConfig(folder / "peers", PEERS_ETCD, peers_of(PEERS_ETCD), history_kept="")
        await stack.enter_async_context(EmbeddedEtcd(config))
        kv = connect(EtcdTarget(endpoints=(PEERS_ETCD,)))
        stack.push_async_callback(kv.close)
        peers = [MockPeer(ClusterName(f"mock-{one}"), one + 2, PEER) for one in range(sizes[-1])]
        for peer in peers:
            await lay(kv, peer)
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        beating = tasks.create_task(keep_beating(kv, peers))
        stack.callback(beating.cancel)
        said = [orjson.dumps(event.data) for event in peers[-1].beginning()]
        for size in sizes:
            file = _following(folder, peers[:size])
            async with meshd(folder, config=file) as one:
                statuses = await _until_ready(one)
            if statuses:
                json_bytes = len(orjson.dumps(statuses[0])) + sum(map(len, said))
            found.append((float(size), await _rss_anew(folder, file)))
    return found, json_bytes


def _following(folder: Path, peers: Sequence[MockPeer]) -> Path:
    listed = [
        {"name": peer.name, "endpoints": [PEERS_ETCD], "prefix": peer.prefix} for peer in peers
    ]
    file = folder / "meshd.yaml"
    file.write_text(yaml.safe_dump({"peers": listed}))
    return file


async def _by_waiting(folder: Path, sizes: Sequence[int]) -> Found:
    """Requests whose etcd is stopped, for a shorter time than meshd waits for it."""
    found = []
    json_bytes = 0.0
    async with _etcd(folder) as etcd:
        assert etcd.pid is not None
        for size in sizes:
            async with meshd(folder) as one, asyncio.TaskGroup() as tasks:
                await one.touch_many(EVENTS_PER_REQUEST)
                os.kill(etcd.pid, signal.SIGSTOP)
                try:
                    for writer in range(size):
                        tasks.create_task(_ask(one, writer))
                    rss_bytes = await _steady_rss(one)
                finally:
                    os.kill(etcd.pid, signal.SIGCONT)
                found.append((float(size * EVENTS_PER_REQUEST), rss_bytes))
                json_bytes = one.slice_bytes(EVENTS_PER_REQUEST) / EVENTS_PER_REQUEST
    return found, json_bytes


async def _ask(one: Meshd, writer: int) -> None:
    """Write; what comes of it is no matter here."""
    with suppress(aiohttp.ClientResponseError):
        await one.touch_many(EVENTS_PER_REQUEST, writer)
