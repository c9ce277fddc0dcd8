"""Live: from a write at one cluster to the other's table, against a put that a mirror passes on.

For: latencies at a rate, the highest rate that is kept up with, and the processor time of each
event. Not for: what happens after a break (`reconnecting`). Everything is there at once, and one
side at a time is written to. At 100/s a real meshd is written to by REST; where rates are higher
the source is a mock peer's log, written as a meshd's writer does, and the mirror's a put for each
event, so that neither side pays for an HTTP server.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from meshd.model.event import Event
from tests.bench.alongside import alongside
from tests.bench.catching_up import CHANGING, FIRST_ID, MIRROR, say
from tests.bench.daemons import Meshd, meshd
from tests.bench.mirror import (
    PREFIX,
    BarePuts,
    Mirror,
    event_json,
    mirror,
    mirrored_key,
    number_of,
    seen_keys,
    until_following,
)
from tests.bench.mock_peers import MockPeer, append, lay
from tests.bench.observing import (
    EVENTS,
    STREAM,
    MockWriter,
    RestWriter,
    seen_backends,
    seen_places,
)
from tests.bench.pacing import Times, at, due, grows, until_told
from tests.bench.sides import (
    HERE_API,
    HERE_ID,
    READER,
    SOURCE,
    TARGET,
    Store,
    beating,
    following,
    list_peer,
    mark,
    mock_peer,
    offer,
    store,
    until_marked,
)
from tests.bench.streams import Figures

SLOW_HZ: Final = 100.0
FAST_HZ: Final = 1000.0
"""At which it is measured what an event costs, too."""
RATES_HZ: Final = (1.0, FAST_HZ, 10_000.0)
EVENTS_MIN: Final = 5
"""Of a load, however low its rate."""
BEYOND_HZ: Final = 2000.0
"""Beyond that one service of many is looked at, and for a second at most: a mirror that can't keep
up has to come to its end."""
BEYOND_S: Final = 1.0
FIRST_HZ: Final = 700.0
STEP: Final = 1.4
P99_S_MAX: Final = 1.0
MARGIN_S: Final = 0.05
"""Lag that doubles below that is noise of two cores."""
DRAIN_S: Final = 60.0
EVERY: Final = CHANGING.services
"""At high rates one service of so many is looked at, and so each so-manieth event."""

Load = Callable[[float], Awaitable[Times]]


@dataclass(frozen=True, slots=True)
class Ramps:
    """How the highest rate is searched for. rounds_max: a search takes a minute. step_s: long
    enough for lag to show that it grows. steps_max: up to 55,000 a second, which nothing here comes
    near, so that the search ends.
    """

    rounds_max: int = 3
    step_s: float = 3.0
    steps_max: int = 14


@dataclass(slots=True)
class Both:
    """Everything. keys: written to the mirror's source so far."""

    source: Store
    own: Store
    target: Store
    here: Meshd
    there: Meshd
    mirror: Mirror
    peer: MockPeer
    events: MockWriter
    requests: RestWriter
    figures: Figures
    keys: int = 0


@asynccontextmanager
async def both(folder: Path, figures: Figures) -> AsyncIterator[Both]:
    """Start everything, and wait until each follows."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        source = await enter(store(folder / "source", SOURCE))
        own = await enter(store(folder / "reader", READER))
        target = await enter(store(folder / "target", TARGET))
        peer = mock_peer(FIRST_ID, CHANGING)
        await lay(source.kv, peer)
        await append(source.kv, peer, mark(1))
        await enter(beating(source.kv, peer))
        settings = ("cluster.name=here", f"cluster.id={HERE_ID}", f"etcd.endpoints={SOURCE}")
        here = await enter(meshd(folder, *settings, address=HERE_API))
        there = await enter(following(folder))
        await offer(there, source.kv, peer)
        await list_peer(there, peer.name, prefix=peer.prefix)
        await list_peer(there, "here")
        await until_marked(there, peer, 1)
        passing = await enter(mirror(folder, SOURCE, TARGET))
        await until_following(source.kv, target.kv)
        events = MockWriter(source.kv, peer)
        await enter(alongside(events.run()))
        yield Both(
            source, own, target, here, there, passing, peer, events, RestWriter(here), figures
        )


async def measure_live(
    folder: Path,
    figures: Figures,
    rounds: int,
    seconds: float,
    ramps: Ramps,
    rates_hz: Sequence[float] = RATES_HZ,
) -> None:
    """All of it, `rounds` times; the highest rates, which take long, not as often. seconds: of each
    load. rates_hz: at which latencies are measured, beside those by REST.
    """
    async with both(folder, figures) as rig:
        for number in range(rounds):
            say(f"live, round {number + 1} of {rounds}")
            await _slow(rig, seconds)
            for rate_hz in rates_hz:
                await _at_rate(rig, rate_hz, seconds)
            if number < ramps.rounds_max:
                await _highest(rig, ramps)


async def _slow(rig: Both, seconds: float) -> None:
    """From a real meshd to the other, each event by a request of its own."""
    all_ours = (rig.here.cpu_s, rig.source.cpu_s, rig.there.cpu_s, rig.own.cpu_s)
    all_mirrors = (rig.source.cpu_s, rig.mirror.cpu_s, rig.target.cpu_s)
    ours, ours_ms = await _costing(_by_rest(rig, SLOW_HZ, seconds), all_ours)
    other, other_ms = await _costing(_by_mirror(rig, SLOW_HZ, seconds), all_mirrors)
    name = f"processor, each event by REST at {SLOW_HZ:,.0f}/s: both meshds and their etcds"
    rig.figures.add(name, "ms", ours_ms, other_ms, "mirror and both etcds")
    for what, values in (
        ("acknowledged here", Times.after_ack_s),
        ("sent here", Times.after_due_s),
    ):
        name = f"{what} → in the other cluster's table, p50 at {SLOW_HZ:,.0f}/s"
        ours_s, other_s = statistics.median(values(ours)), statistics.median(values(other))
        rig.figures.add(name, "ms", ours_s * 1e3, other_s * 1e3, MIRROR)


async def _at_rate(rig: Both, rate_hz: float, seconds: float) -> None:
    """From a log to a meshd's table and to a subscriber of its events, and what the first costs who
    follows.
    """
    every, load_s = 1, max(seconds, EVENTS_MIN / rate_hz)
    if rate_hz > BEYOND_HZ:
        every, load_s = EVERY, min(load_s, BEYOND_S)
    all_ours = (rig.there.cpu_s, rig.own.cpu_s)
    all_mirrors = (rig.mirror.cpu_s, rig.target.cpu_s)
    ours, ours_cpu_ms = await _costing(_by_log(rig, rate_hz, load_s, every), all_ours)
    other, other_cpu_ms = await _costing(_by_mirror(rig, rate_hz, load_s), all_mirrors)
    told = await _by_log(rig, rate_hz, load_s, every, EVENTS)
    for seen, where in ((ours, "in the other's table"), (told, "told by its event stream")):
        for since, values in (("acknowledged", Times.after_ack_s), ("due", Times.after_due_s)):
            for share in (0.5, 0.99):
                name = f"{since} → {where}, p{share * 100:.0f} at {rate_hz:,.0f}/s"
                ours_ms, other_ms = at(values(seen), share) * 1e3, at(values(other), share) * 1e3
                rig.figures.add(name, "ms", ours_ms, other_ms, MIRROR)
    if rate_hz == FAST_HZ:
        name = f"processor, each event at {FAST_HZ:,.0f}/s: who follows and its etcd"
        rig.figures.add(name, "ms", ours_cpu_ms, other_cpu_ms, "mirror and its etcd")


async def _costing(
    load: Awaitable[Times], cpu_s: Sequence[Callable[[], float]]
) -> tuple[Times, float]:
    """What was seen of a load, and the processor time of each event in ms, of these processes."""
    before_s = sum(one() for one in cpu_s)
    times = await load
    return times, (sum(one() for one in cpu_s) - before_s) / len(times.due_s) * 1e3


async def _highest(rig: Both, ramps: Ramps) -> None:
    """The highest rates, by steps, which are kept up with."""

    async def ours(rate_hz: float) -> Times:
        return await _by_log(rig, rate_hz, ramps.step_s, EVERY)

    async def other(rate_hz: float) -> Times:
        return await _by_mirror(rig, rate_hz, ramps.step_s)

    ours_hz = await _highest_of("meshd", ours, ramps.steps_max)
    other_hz = await _highest_of("mirror", other, ramps.steps_max)
    name = "highest live rate with p99 below 1 s and no growing lag"
    rig.figures.add(name, "events/s", ours_hz, other_hz, MIRROR)


async def _highest_of(who: str, load: Load, steps_max: int) -> float:
    """Raise the rate until it isn't kept up with; 0 if not even the first is."""
    best_hz, rate_hz = 0.0, FIRST_HZ
    for _ in range(steps_max):
        times = await load(rate_hz)
        lags_s, late_s = times.after_due_s(), times.late_s()
        p99_s = at(lags_s, 0.99)
        say(
            f"  {who} at {rate_hz:,.0f}/s: p99 {p99_s * 1e3:,.0f} ms, of which the pacer's own"
            f" lateness {at(late_s, 0.99) * 1e3:,.0f} ms"
        )
        if times.untold() or p99_s >= P99_S_MAX or grows(lags_s, MARGIN_S):
            break
        best_hz, rate_hz = rate_hz, rate_hz * STEP
    return best_hz


# --- loads ----------------------------------------------------------------------------------------


async def _by_rest(rig: Both, rate_hz: float, seconds: float) -> Times:
    times = rig.requests.begin()
    async with seen_backends(rig.there, rig.requests.tell), asyncio.TaskGroup() as tasks:
        async for due_s in due(rate_hz, seconds):
            tasks.create_task(rig.requests.put(due_s))
        await _until_told(times)
    return times


async def _by_log(
    rig: Both, rate_hz: float, seconds: float, every: int = 1, path: str = STREAM
) -> Times:
    """every: who looks is told of one service of so many. path: what it is told."""
    times = rig.events.begin(every)
    looked_at = f"{path}&service={rig.peer.namespace}/web-0" if every > 1 else path
    async with seen_places(rig.there, rig.peer, rig.events.tell, looked_at):
        async for due_s in due(rate_hz, seconds):
            rig.events.ask(due_s)
        await _until_told(times)
    return times


async def _by_mirror(rig: Both, rate_hz: float, seconds: float) -> Times:
    times, first = Times(), rig.keys
    puts = BarePuts(rig.source.channel)

    def see(key: bytes) -> None:
        number = number_of(key)
        if number is not None and number >= first:
            times.tell(number - first)

    async def put(number: int, event: Event) -> None:
        await puts.put(mirrored_key(first + number), event_json(event))
        times.ack(number)

    async with seen_keys(rig.target.channel, PREFIX, see), asyncio.TaskGroup() as tasks:
        async for due_s in due(rate_hz, seconds):
            number = times.ask(due_s)
            tasks.create_task(put(number, rig.peer.turn(number)))
        await _until_told(times)
    rig.keys += len(times.due_s)
    return times


async def _until_told(times: Times) -> None:
    if not await until_told(times, DRAIN_S):
        say(f"  {times.untold():,} of {len(times.due_s):,} events never arrived")
