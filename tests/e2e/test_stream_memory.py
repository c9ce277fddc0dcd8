"""Memory of a meshd with many subscribers, of which some have stopped reading (show 4 of streams).

The issue's numbers: `pytest tests/e2e/test_stream_memory.py -s --timeout 1500
--subscribers 1000 --stopped 200 --hold-for-s 600`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson
import pytest

from meshd.edges.http.limits import Limits
from meshd.settings.subjects import StreamsSettings
from tests.e2e.conftest import Daemon, NewEtcd, RunDaemon
from tests.stream_readers import Readers, readers

MIB: Final = 1024 * 1024
STREAMS: Final = StreamsSettings(
    ring_bytes=4 * MIB, feed_bytes=2 * MIB, subscribers_max=1100, per_client_max=1100
)
"""Small, so that both are full soon, and what isn't bounded by them shows."""
WORK_BYTES: Final = 24 * MIB
"""What else grows under a load: the state, answers under way, and what the allocator keeps."""
HISTORY_WRITES: Final = 30
EVENTS_PER_WRITE: Final = 500
"""With the history 15,000 events: 7 MB as server-sent events, more than a socket takes of one who
stopped, and more than the ring holds."""
WRITE_EVERY_S: Final = 0.5
WRITE_TIMEOUT: Final = aiohttp.ClientTimeout(total=60)
"""With a thousand subscribers on two cores, other things on them can take seconds."""
STOPPED_FOR_S: Final = Limits().send_timeout_s + 15
"""A stopped subscriber is replaced by a new one after this time, when it was cut; they are as many
as were asked for, all the time."""
WAVES: Final = 10
PAGE_BYTES: Final = 4096
NOW: Final = "/v1/events?from=now"
BEGINNING: Final = "/v1/events?from=beginning"


def cap_bytes(base_bytes: int, subscribers: int, stopped: int) -> int:
    """The documented one (`meshd.settings.subjects.StreamsSettings`)."""
    return base_bytes + WORK_BYTES + STREAMS.memory_bytes_max(subscribers, stopped)


def rss_bytes(daemon: Daemon) -> int:
    return int(Path(f"/proc/{daemon.process.pid}/statm").read_text().split()[1]) * PAGE_BYTES


def kernel_bytes() -> int:
    """What all TCP sockets of this machine hold."""
    fields = Path("/proc/net/sockstat").read_text().partition("TCP:")[2].split("\n")[0].split()
    return int(fields[fields.index("mem") + 1]) * PAGE_BYTES


async def metric(daemon: Daemon, name: str) -> float:
    async with daemon.http.get(f"{daemon.url}/metrics") as response:
        for line in (await response.text()).splitlines():
            if line.startswith(f"{name} "):
                return float(line.rpartition(" ")[2])
    return 0.0


@dataclass(slots=True)
class Load:
    """Writes of many events each, for as long as it is entered. events: acknowledged so far."""

    daemon: Daemon
    events: int = 0
    writes: int = 0

    async def write(self) -> None:
        self.writes += 1
        async with self.daemon.http.post(
            f"{self.daemon.url}/v1/apply",
            data=orjson.dumps(_slice(self.writes)),
            headers={"Content-Type": "application/json"},
            timeout=WRITE_TIMEOUT,
        ) as response:
            assert response.status == 200, await response.text()
        self.events += EVENTS_PER_WRITE

    async def _go_on(self, over: asyncio.Event) -> None:
        # A write is never cut off: nobody would know whether it is to be counted.
        while not over.is_set():
            await self.write()
            await asyncio.sleep(WRITE_EVERY_S)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        over = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._go_on(over))
            try:
                yield
            finally:
                over.set()


def _slice(number: int) -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": "shop",
            "name": "many",
            "labels": {"kubernetes.io/service-name": "many"},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 1024 + number, "protocol": "TCP"}],
        "endpoints": [
            {
                "addresses": [f"10.{one >> 8}.{one & 255}.1"],
                "targetRef": {"kind": "Pod", "namespace": "shop", "name": f"many-{one}"},
            }
            for one in range(EVENTS_PER_WRITE)
        ],
    }


@dataclass(slots=True)
class Stopped:
    """Subscribers that don't read, in waves: half of them begin with all that ever was, and stop in
    the midst of it; the others stop in what is new.
    """

    daemon: Daemon
    many: Readers
    size: int
    opened: int = 0
    waves: list[tuple[float, int]] = field(default_factory=list)

    async def fill(self) -> None:
        """Close the waves that are over, and open as many."""
        due_s = time.monotonic() - STOPPED_FOR_S
        for opened_s, group in self.waves:
            if opened_s <= due_s:
                await self.many.close(group)
        self.waves = [wave for wave in self.waves if wave[0] > due_s]
        while len(self.waves) < WAVES:
            path = NOW if len(self.waves) % 2 else BEGINNING
            size = self.size // WAVES
            group = await self.many.open(self.daemon.api, path, size, stops=True)
            self.opened += size
            self.waves.append((time.monotonic(), group))


@dataclass(slots=True)
class Watched:
    """The most that was seen of each."""

    rss_bytes: int = 0
    kernel_bytes: int = 0
    subscribers: float = 0

    async def look(self, daemon: Daemon) -> None:
        self.rss_bytes = max(self.rss_bytes, rss_bytes(daemon))
        self.kernel_bytes = max(self.kernel_bytes, kernel_bytes())
        self.subscribers = max(self.subscribers, await metric(daemon, "meshd_stream_subscribers"))


async def test_show_4_subscribers_that_stopped_cost_no_more_than_is_documented(
    new_etcd: NewEtcd, run_daemon: RunDaemon, pytestconfig: pytest.Config
) -> None:
    subscribers = int(pytestconfig.getoption("--subscribers"))
    stopped = int(pytestconfig.getoption("--stopped"))
    hold_for_s = float(pytestconfig.getoption("--hold-for-s"))
    etcd = await new_etcd()
    overrides = [
        f"streams.{name}={getattr(STREAMS, name)}"
        for name in ("ring_bytes", "feed_bytes", "subscribers_max", "per_client_max")
    ]
    async with (
        run_daemon("east", 1, etcd.endpoints, None, *overrides) as east,
        readers() as many,
        readers() as still,
    ):
        load = Load(east)
        for _ in range(HISTORY_WRITES):
            await load.write()
        base_bytes = rss_bytes(east)
        history, begun_s = load.events, time.monotonic()
        group = await many.open(east.api, NOW, subscribers - stopped)
        cap, watched = cap_bytes(base_bytes, subscribers, stopped), Watched()
        waves = Stopped(east, still, stopped)
        await waves.fill()
        async with load.running():
            while time.monotonic() < begun_s + hold_for_s:
                await waves.fill()
                await watched.look(east)
                assert watched.rss_bytes < cap
                await asyncio.sleep(1)
        await many.until(group, load.events - history)
        had = await many.counts(group)
        cuts = await _cut(east)
        _show(watched, base_bytes, cap, load.events - history, cuts)
        print(f"stopped: {waves.opened} in all, {stopped} at a time")
        # Whoever reads has every event once, and none of them was cut.
        assert had["least"] == had["most"] == load.events - history
        assert had["lost"] == 0
        assert 0 < cuts <= waves.opened or hold_for_s < STOPPED_FOR_S
        for reason in ("reset", "error", "bug"):
            assert not await metric(east, f'meshd_stream_cuts_total{{reason="{reason}"}}')


async def _cut(daemon: Daemon) -> float:
    """How many were cut since they took nothing."""
    return await metric(daemon, 'meshd_stream_cuts_total{reason="slow"}')


def _show(watched: Watched, base_bytes: int, cap: int, events: int, cuts: float) -> None:
    print(f"{events} events to each; at most {watched.subscribers:.0f} subscribers at a time")
    print(
        f"memory: {base_bytes / MIB:.0f} MiB before, at most {watched.rss_bytes / MIB:.0f} MiB;"
        f" the cap is {cap / MIB:.0f} MiB; all sockets of the machine"
        f" {watched.kernel_bytes / MIB:.0f} MiB"
    )
    print(f"{cuts:.0f} were cut since they took nothing")
