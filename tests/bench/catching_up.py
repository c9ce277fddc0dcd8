"""Catching up: a peer's history, a first copy, and a cold start, against a mirror of as many keys.

For: one meshd as a process that is told of a peer whose log lies there already. Not for: what
happens live (`live`). Each round has a new etcd for the reader and one for the mirror. What ends a
run of ours is that the table has the last event; of the mirror's, that its etcd has all keys.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console

from meshd.edges.etcd import EtcdKv
from meshd.model.event import Event
from tests.bench.daemons import Meshd
from tests.bench.mirror import fill, mirror, until_following, until_there
from tests.bench.mock_peers import EVENTS_PER_RECORD, MockPeer, Size, append, lay
from tests.bench.sides import (
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

CHANGING: Final = Size(endpoints=1_000, nodes=10, services=10)
"""Whose history it is: endpoints whose weights change again and again."""
PER_RECORD: Final = (EVENTS_PER_RECORD, 1)
"""As a meshd writes them when much comes at once, and when each comes by itself."""
ENDPOINTS_PER_SERVICE: Final = 100
ENDPOINTS_PER_NODE: Final = 100
MIRROR: Final = "mirror"
LOOK_EVERY_S: Final = 0.1
SUMMED_UP_TIMEOUT_S: Final = 300.0
FIRST_ID: Final = 2


@dataclass(frozen=True, slots=True)
class History:
    """What lies at the source: the logs of mock peers, and the same events as keys."""

    source: Store
    peers: tuple[MockPeer, ...]
    keys: int


# --- from a history -------------------------------------------------------------------------------


async def measure_history(folder: Path, figures: Figures, events: int, rounds: int) -> None:
    """Events per second until the table has all of a history."""
    async with store(folder / "source", SOURCE) as source:
        peers = tuple(mock_peer(FIRST_ID + place, CHANGING) for place in range(len(PER_RECORD)))
        for peer, per_record in zip(peers, PER_RECORD, strict=True):
            await lay(source.kv, peer)
            await append(source.kv, peer, _changes(peer, events), per_record)
        history = History(source, peers, await fill(source.kv, _changes(peers[0], events)))
        async with beating(source.kv, *peers):
            for number in range(rounds):
                say(f"catching up with {events:,} events, round {number + 1} of {rounds}")
                mirror_s = await mirrored(folder, history)
                for peer, per_record in zip(peers, PER_RECORD, strict=True):
                    name = f"catch-up from {events:,} events, records of {per_record}"
                    ours_s = await _caught_up(folder, source.kv, peer)
                    figures.add(name, "events/s", events / ours_s, history.keys / mirror_s, MIRROR)


def _changes(peer: MockPeer, events: int) -> Iterator[Event]:
    marks = mark(1)
    yield from (peer.turn(number) for number in range(events - len(marks)))
    yield from marks


async def _caught_up(folder: Path, kv: EtcdKv, peer: MockPeer) -> float:
    """In how many seconds one that just heard of a peer has all of it in its table."""
    async with store(folder / "reader", READER), following(folder) as one:
        return await _heard(one, kv, peer)


async def _heard(one: Meshd, kv: EtcdKv, peer: MockPeer) -> float:
    await offer(one, kv, peer)
    began_s = time.perf_counter()
    await list_peer(one, peer.name, prefix=peer.prefix)
    await until_marked(one, peer, 1)
    return time.perf_counter() - began_s


async def mirrored(folder: Path, history: History) -> float:
    """In how many seconds a mirror that is started has put all keys into its etcd."""
    async with store(folder / "target", TARGET) as target:
        return await _filled(folder, target, history.keys)


async def _filled(folder: Path, target: Store, keys: int) -> float:
    began_s = time.perf_counter()
    async with mirror(folder, SOURCE, TARGET):
        await until_there(target.kv, keys)
        return time.perf_counter() - began_s


# --- a first copy, and a cold start with it -------------------------------------------------------


async def measure_first_copy(folder: Path, figures: Figures, endpoints: int, rounds: int) -> None:
    """Endpoints per second until all are served, and the seconds of a start that has them."""
    size = Size(
        endpoints,
        nodes=max(1, endpoints // ENDPOINTS_PER_NODE),
        services=max(1, endpoints // ENDPOINTS_PER_SERVICE),
    )
    async with store(folder / "source", SOURCE) as source:
        peer = mock_peer(FIRST_ID, size)
        await lay(source.kv, peer)
        await append(source.kv, peer, mark(1))
        keys = await fill(source.kv, (peer.turn(number) for number in range(endpoints)))
        history = History(source, (peer,), keys)
        async with beating(source.kv, peer):
            for number in range(rounds):
                say(f"first copy of {endpoints:,} endpoints, round {number + 1} of {rounds}")
                await _first_copy(folder, figures, history)


async def _first_copy(folder: Path, figures: Figures, history: History) -> None:
    peer, keys = history.peers[0], history.keys
    async with store(folder / "target", TARGET) as target:
        mirror_s = await _filled(folder, target, keys)
        again_s = await _mirrored_again(folder, history.source.kv, target.kv)
    async with store(folder / "reader", READER):
        async with following(folder) as one:
            ours_s = await _heard(one, history.source.kv, peer)
        name = f"first copy of {keys:,} endpoints to a served table"
        figures.add(name, "endpoints/s", keys / ours_s, keys / mirror_s, MIRROR)
        start_s = await _cold_start(folder, peer)
        name = f"cold start from a snapshot of {keys:,} endpoints to a served table"
        figures.add(name, "s", start_s, again_s, f"{MIRROR}, until it follows")


async def _mirrored_again(folder: Path, source: EtcdKv, target: EtcdKv) -> float:
    """In how many seconds a mirror whose etcd has everything passes on what is new."""
    began_s = time.perf_counter()
    async with mirror(folder, SOURCE, TARGET):
        await until_following(source, target)
        return time.perf_counter() - began_s


async def _cold_start(folder: Path, peer: MockPeer) -> float:
    """In how many seconds, from its process on, a meshd with a replica serves all of it."""
    summing_up = (
        "retention.check_every_s=0.2",
        f"retention.snapshot_every_events={max(1, peer.size.endpoints // 2)}",
    )
    async with following(folder, *summing_up) as one, asyncio.timeout(SUMMED_UP_TIMEOUT_S):
        while not await one.metric(snapshots_of(peer)):  # noqa: ASYNC110 it is asked
            await asyncio.sleep(LOOK_EVERY_S)
    began_s = time.perf_counter()
    async with following(folder) as one:
        await until_marked(one, peer, 1)
        return time.perf_counter() - began_s


def snapshots_of(peer: MockPeer) -> str:
    """The metric of the snapshots that were written of its replica."""
    return f'meshd_snapshots_total{{log="replica/{peer.name}"}}'


def say(what: str) -> None:
    """Tell who waits what is being done."""
    Console(stderr=True).print(what)
