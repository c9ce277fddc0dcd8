"""After a link was down: until the table has what was missed, against a mirror behind such a link.

For: TCP wires that are cut and mended, one of a meshd and one of a mirror, to the same source. Not
for: silence, in which connections stay open. Counted are the records that came though they had been
folded before (the meshd's own metric), and the keys that the mirror wrote though its etcd had them
(the revisions of its etcd beyond one for each key that was missed).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chaos.wire import Mode, Wire
from tests.bench.catching_up import CHANGING, FIRST_ID, MIRROR, say
from tests.bench.daemons import Meshd
from tests.bench.mirror import PREFIX, fill_singly, mirror, mirrored_key, until_following
from tests.bench.mock_peers import MockPeer, append, lay
from tests.bench.places import etcd_at
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

OUR_WIRE: Final = etcd_at(34)
MIRROR_WIRE: Final = etcd_at(35)
LOOK_EVERY_S: Final = 0.01
TIMEOUT_S: Final = 600.0
MARKS: Final = 1000


@dataclass(slots=True)
class Linked:
    """Both, each behind a wire of its own. marks, keys: written so far."""

    source: Store
    target: Store
    there: Meshd
    peer: MockPeer
    ours: Wire
    others: Wire
    figures: Figures
    marks: int = 1
    keys: int = 0
    changes: int = 0

    def next_mark(self) -> int:
        """What the next last event says."""
        self.marks = self.marks % MARKS + 1
        return self.marks

    @property
    def duplicates(self) -> str:
        """The metric of records that were read again."""
        return f'meshd_replica_records_duplicate_total{{peer="{self.peer.name}"}}'


@asynccontextmanager
async def linked(folder: Path, figures: Figures) -> AsyncIterator[Linked]:
    """Start everything, and wait until each follows."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        source = await enter(store(folder / "source", SOURCE))
        await enter(store(folder / "reader", READER))
        target = await enter(store(folder / "target", TARGET))
        chance = random.Random(8)
        ours = await enter(Wire(OUR_WIRE, SOURCE, chance).running())
        others = await enter(Wire(MIRROR_WIRE, SOURCE, chance).running())
        peer = mock_peer(FIRST_ID, CHANGING)
        await lay(source.kv, peer)
        await append(source.kv, peer, mark(1))
        await enter(beating(source.kv, peer))
        there = await enter(following(folder))
        await offer(there, source.kv, peer)
        await list_peer(there, peer.name, OUR_WIRE, peer.prefix)
        await until_marked(there, peer, 1)
        await enter(mirror(folder, MIRROR_WIRE, TARGET))
        await until_following(source.kv, target.kv)
        yield Linked(source, target, there, peer, ours, others, figures)


async def measure_reconnect(
    folder: Path, figures: Figures, breaks: Sequence[tuple[float, int]], rounds: int
) -> None:
    """breaks: for how many seconds the link is down, and how many events are missed."""
    async with linked(folder, figures) as rig:
        for number in range(rounds):
            for down_s, missed in breaks:
                say(
                    f"link down for {down_s:.0f} s, {missed:,} events missed, round"
                    f" {number + 1} of {rounds}"
                )
                await _break(rig, down_s, missed)


async def _break(rig: Linked, down_s: float, missed: int) -> None:
    ours_s, again = await _ours(rig, down_s, missed)
    other_s, other_again = await _mirrors(rig, down_s, missed)
    what = f"{missed:,} events missed in {down_s:.0f} s without the link"
    rig.figures.add(f"{what}: back → all is there", "s", ours_s, other_s, MIRROR)
    rig.figures.add(f"{what}: written again", "records", again, other_again, f"{MIRROR}: keys")


async def _ours(rig: Linked, down_s: float, missed: int) -> tuple[float, float]:
    """How long it took from the link's return on, and how many records came again."""
    before = await rig.there.metric(rig.duplicates)
    began_s = time.perf_counter()
    rig.ours.set_mode(Mode.CUT)
    turns = (rig.peer.turn(rig.changes + number) for number in range(missed))
    await append(rig.source.kv, rig.peer, turns, per_record=1)
    rig.changes += missed
    await asyncio.sleep(max(0.0, began_s + down_s - time.perf_counter()))
    # One event more, so that there is something to see where nothing was missed.
    number = rig.next_mark()
    await append(rig.source.kv, rig.peer, mark(number))
    rig.ours.set_mode(Mode.PASS)
    healed_s = time.perf_counter()
    await until_marked(rig.there, rig.peer, number)
    return time.perf_counter() - healed_s, await rig.there.metric(rig.duplicates) - before


async def _mirrors(rig: Linked, down_s: float, missed: int) -> tuple[float, float]:
    kv = rig.target.kv
    before = (await kv.range(PREFIX, limit=1)).revision
    began_s = time.perf_counter()
    rig.others.set_mode(Mode.CUT)
    first = rig.keys
    # Each by itself: what was one transaction at the source is one at the target as well.
    events = (rig.peer.turn(number) for number in range(missed))
    rig.keys = await fill_singly(rig.source.channel, events, first)
    await asyncio.sleep(max(0.0, began_s + down_s - time.perf_counter()))
    rig.keys = await fill_singly(rig.source.channel, mark(1)[1:], rig.keys)
    rig.others.set_mode(Mode.PASS)
    healed_s = time.perf_counter()
    async with asyncio.timeout(TIMEOUT_S):
        while not await _all_there(rig, first):  # noqa: ASYNC110 it is asked
            await asyncio.sleep(LOOK_EVERY_S)
    took_s = time.perf_counter() - healed_s
    written = (await kv.range(PREFIX, limit=1)).revision - before
    return took_s, max(0, written - (rig.keys - first))


async def _all_there(rig: Linked, first: int) -> bool:
    found = await rig.target.kv.range(mirrored_key(first), mirrored_key(rig.keys), limit=1)
    return found.count == rig.keys - first
