"""What event streams cost: to 1, 10, 100 and 1,000 subscribers, over real sockets.

For: one meshd as a process, on a real etcd, with its subscribers in another process. Not for:
judging. Each round is a new meshd on the same log. The references of the same round: a bare asyncio
server that sends as many ready-made bytes to as many sockets; the write itself; reads without
subscribers.

On a machine with two cores the subscribers, the etcd and the writer have one of them together, so
what the subscribers take is printed beside.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rich.console import Console

from meshd.edges.embedded import EmbeddedConfig, EmbeddedEtcd
from meshd.settings.subjects import STOPPED_BYTES_MAX
from tests.bench.bare_streams import Bare, bare_streams
from tests.bench.daemons import ETCD, TABLE_PATH, Meshd, meshd
from tests.bench.places import peers_of
from tests.bench.tables import Row
from tests.stream_readers import Readers, readers

SUBSCRIBERS: Final = (1, 10, 100, 1000)
LATENCY_SUBSCRIBERS: Final = (0, 1, 100, 1000)
BESIDE: Final = 10
IDLE: Final = 500
STOPPED: Final = 200
EVENTS_PER_WRITE: Final = 100
WRITERS: Final = 2
RATE_HZ: Final = 20
"""Of single writes while latencies are measured, and of reads: nothing queues at it."""
HISTORY_EVENTS: Final = 10_000
"""What a stopped subscriber is offered at once: 5 MB, more than any socket takes."""
BARE_NAME: Final = "bare asyncio"
NOW: Final = "/v1/events?from=now"
BEGINNING: Final = "/v1/events?from=beginning"


@dataclass(slots=True)
class Figures:
    """Rows by their names, in the order in which they were first measured."""

    rows: dict[str, Row] = field(default_factory=dict)

    def add(self, name: str, unit: str, ours: float, reference: float, reference_name: str) -> None:
        """Add one round's."""
        row = self.rows.setdefault(name, Row(name, unit, [], [], reference_name))
        row.ours.append(ours)
        row.reference.append(reference)


@dataclass(frozen=True, slots=True)
class Rig:
    """What one round has."""

    meshd: Meshd
    readers: Readers
    bare: Bare
    figures: Figures


async def measure_streams(rounds: int, seconds: float) -> list[Row]:
    """All of it, `rounds` times. seconds: of each load."""
    figures = Figures()
    with tempfile.TemporaryDirectory(prefix="meshd-bench-") as name:
        folder = Path(name)
        config = EmbeddedConfig(folder / "etcd", ETCD, peers_of(ETCD), history_kept="")
        async with EmbeddedEtcd(config):
            async with meshd(folder) as first:
                for _ in range(HISTORY_EVENTS // 200):
                    await first.touch_many(200)
            for number in range(rounds):
                Console(stderr=True).print(f"streams, round {number + 1} of {rounds}")
                async with meshd(folder) as one, readers() as many, bare_streams() as bare:
                    rig = Rig(one, many, bare, figures)
                    await measure_memory(rig)
                    for subscribers in SUBSCRIBERS:
                        await measure_speed(rig, subscribers, seconds)
                    await measure_latency(rig, seconds)
                    await measure_beside_stopped(rig, seconds)
    return list(figures.rows.values())


# --- memory ---------------------------------------------------------------------------------------


async def measure_memory(rig: Rig) -> None:
    """Of one that waits for events, and of one that stopped reading in the midst of many."""
    before = rig.meshd.rss_bytes()
    group = await rig.readers.open(rig.meshd.address, NOW, IDLE)
    idle = (rig.meshd.rss_bytes() - before) / IDLE
    await rig.readers.close(group)

    before = await rig.bare.send(0, 1)
    group = await rig.readers.open(rig.bare.address, "/", IDLE)
    bare = (await rig.bare.send(0, 1) - before) / IDLE
    await rig.readers.close(group)
    rig.figures.add("memory of an idle subscriber", "bytes", idle, bare, BARE_NAME)
    await _until_gone(rig)

    before = rig.meshd.rss_bytes()
    group = await rig.readers.open(rig.meshd.address, BEGINNING, STOPPED, stops=True)
    stopped = (await rig.meshd.settled_rss_bytes() - before) / STOPPED
    await rig.readers.close(group)
    rig.figures.add(
        "memory of a stopped subscriber", "bytes", stopped, STOPPED_BYTES_MAX, "as documented"
    )
    await _until_gone(rig)


async def _until_gone(rig: Rig) -> None:
    while await rig.meshd.metric("meshd_stream_subscribers"):  # noqa: ASYNC110 it is asked
        await asyncio.sleep(0.1)


# --- speed ----------------------------------------------------------------------------------------


async def measure_speed(rig: Rig, subscribers: int, seconds: float) -> None:
    """Write as fast as writes are acknowledged, until all subscribers have everything."""
    group = await rig.readers.open(rig.meshd.address, NOW, subscribers)
    cpu_s, before = rig.meshd.cpu_s(), await rig.readers.counts(group)
    began_s = time.perf_counter()
    events = await _write(rig.meshd, seconds)
    acked_s = time.perf_counter() - began_s
    took_s = await rig.readers.until(group, events) - began_s
    cpu_s, after = rig.meshd.cpu_s() - cpu_s, await rig.readers.counts(group)
    await rig.readers.close(group)

    group = await rig.readers.open(rig.bare.address, "/", subscribers)
    began_s = time.perf_counter()
    await rig.bare.send(events // EVENTS_PER_WRITE, EVENTS_PER_WRITE)
    bare_s = await rig.readers.until(group, events) - began_s
    await rig.readers.close(group)

    add, of = rig.figures.add, f"{subscribers:,} subscribers, saturated"
    each, bare = events / took_s, events / bare_s
    add(f"{of}: to each", "events/s", each, bare, BARE_NAME)
    add(f"{of}: to all", "events/s", each * subscribers, bare * subscribers, BARE_NAME)
    add(f"{of}: all have all", "ms", took_s * 1e3, acked_s * 1e3, "all is acknowledged")
    delivered = events * subscribers
    read_s = after["cpu_s"] - before["cpu_s"]
    ours_us, theirs_us = cpu_s / delivered * 1e6, read_s / delivered * 1e6
    add(f"{of}: processor, each of them", "µs", ours_us, theirs_us, "the subscribers' own")
    await _until_gone(rig)


async def _write(one: Meshd, seconds: float) -> int:
    """Write for so long; returns how many events."""
    until_s = time.perf_counter() + seconds
    events = 0

    async def write(writer: int) -> None:
        nonlocal events
        while time.perf_counter() < until_s:
            await one.touch_many(EVENTS_PER_WRITE, writer)
            events += EVENTS_PER_WRITE

    async with asyncio.TaskGroup() as tasks:
        for writer in range(WRITERS):
            tasks.create_task(write(writer))
    return events


# --- latency --------------------------------------------------------------------------------------


async def measure_latency(rig: Rig, seconds: float) -> None:
    """From a write's acknowledgement to the subscribers, and what a read takes meanwhile."""
    quiet: list[float] = []
    for subscribers in LATENCY_SUBSCRIBERS:
        group = await rig.readers.open(rig.meshd.address, NOW, subscribers)
        await rig.readers.time(group)
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(_read(rig.meshd, seconds))
            acked_s, wrote_s = await _touch(rig.meshd, seconds)
        read_s = reading.result()
        if subscribers:
            await rig.readers.until(group, len(acked_s))
            found = await rig.readers.latencies(group, acked_s)
            write_s = statistics.median(wrote_s)
            for what in ("p50", "p99"):
                name = f"{subscribers:,} subscribers: acknowledged → with each, {what}"
                rig.figures.add(name, "ms", found[what] * 1e3, write_s * 1e3, "the write, p50")
            for what, at in (("p50", 0.5), ("p99", 0.99)):
                name = f"{subscribers:,} subscribers: a table read meanwhile, {what}"
                ours, other = _at(read_s, at) * 1e3, _at(quiet, at) * 1e3
                rig.figures.add(name, "ms", ours, other, "without subscribers")
        else:
            quiet = read_s
        await rig.readers.close(group)
        await _until_gone(rig)


async def measure_beside_stopped(rig: Rig, seconds: float) -> None:
    """The same for others, before and while one subscriber takes nothing of what it is sent."""
    found: list[dict[str, float]] = []
    for stopped in (0, 1):
        still = await rig.readers.open(rig.meshd.address, BEGINNING, stopped, stops=True)
        group = await rig.readers.open(rig.meshd.address, NOW, BESIDE)
        await rig.readers.time(group)
        acked_s, wrote_s = await _touch(rig.meshd, seconds)
        sent_s = [acked - wrote for acked, wrote in zip(acked_s, wrote_s, strict=True)]
        await rig.readers.until(group, len(sent_s))
        found.append(await rig.readers.latencies(group, sent_s))
        for opened in (group, still):
            await rig.readers.close(opened)
        await _until_gone(rig)
    before, beside = found
    for what in ("p50", "p99"):
        name = f"{BESIDE} subscribers beside a stopped one: write sent → with each, {what}"
        rig.figures.add(name, "ms", beside[what] * 1e3, before[what] * 1e3, "without it")


async def _touch(one: Meshd, seconds: float) -> tuple[list[float], list[float]]:
    """Single writes at a rate: when each was acknowledged, and how long it took."""
    acked_s: list[float] = []
    wrote_s: list[float] = []
    for _ in range(int(seconds * RATE_HZ)):
        began_s = time.perf_counter()
        await one.touch()
        acked_s.append(time.perf_counter())
        wrote_s.append(acked_s[-1] - began_s)
        await asyncio.sleep(max(0.0, 1 / RATE_HZ - wrote_s[-1]))
    return acked_s, wrote_s


async def _read(one: Meshd, seconds: float) -> list[float]:
    """Reads of a service's table at a rate."""
    read_s: list[float] = []
    for _ in range(int(seconds * RATE_HZ)):
        began_s = time.perf_counter()
        await one.get(TABLE_PATH)
        read_s.append(time.perf_counter() - began_s)
        await asyncio.sleep(max(0.0, 1 / RATE_HZ - read_s[-1]))
    return read_s


def _at(values: list[float], share: float) -> float:
    return sorted(values)[int(len(values) * share)]
