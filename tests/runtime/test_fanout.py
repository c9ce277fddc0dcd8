"""The fan-out: whoever stalls, falls behind or comes back is told the log, filtered, in order."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest

from meshd.core.event_filter import ALL_EVENTS, EventFilter
from meshd.edges.memory import MemoryEtcd
from meshd.model.command import Command, RemoveEndpoint, RemoveService
from meshd.model.event import Told
from meshd.model.ids import (
    ClusterName,
    EndpointKey,
    Head,
    LogId,
    Position,
    Seq,
    ServiceKey,
    format_vector,
    parse_vector,
)
from meshd.model.place import EventPlace, mark_of
from meshd.runtime.fanout import PLACE_EVERY_S, Fanout
from meshd.runtime.feed import WOKEN_PER_TURN, Said
from meshd.runtime.history import GoneError, History
from meshd.runtime.ring import RecordRing
from tests.logs import LOG_ID, OTHER_LOG_ID, WEST, Log, ticked
from tests.mesh import LoopClock, endpoint, service
from tests.runtime.appending import EAST, SPACE, Appender, appending, events_in
from tests.runtime.test_projector import logged, read

pytestmark = pytest.mark.looptime

Batch = Sequence[Said]


@pytest.fixture
def etcd() -> MemoryEtcd:
    return MemoryEtcd(LoopClock())


@dataclass(slots=True)
class Rig:
    """A log that is written, and a fan-out of it. encoded: how often each event was encoded."""

    it: Appender
    fanout: Fanout[Batch]
    encoded: dict[Position, int] = field(default_factory=dict)
    packed: int = 0

    @property
    def head(self) -> dict[ClusterName, Position]:
        return self.it.projector.log_vector()

    @property
    def place(self) -> EventPlace:
        head = self.it.projector.head(EAST)
        assert head is not None
        return EventPlace(self.head, mark_of(head.hash))


def text_of(told: Told) -> bytes:
    return f"{told.position} {told.event.type} {told.event.key}".encode()


@asynccontextmanager
async def fanning(etcd: MemoryEtcd, feed_bytes: int = 1 << 20) -> AsyncIterator[Rig]:
    async with appending(etcd) as it, asyncio.TaskGroup() as tasks:
        history = History(it.kv, SPACE, it.projector, lambda _: 0)
        clock = LoopClock()

        def encode(told: Told) -> bytes:
            rig.encoded[told.position] = rig.encoded.get(told.position, 0) + 1
            return text_of(told)

        def pack(said: Batch) -> Batch:
            rig.packed += 1
            return tuple(said)

        rig = Rig(it, Fanout(it.projector, history, clock, (encode, pack), feed_bytes))
        running = tasks.create_task(rig.fanout.run())
        try:
            async with asyncio.timeout(3600):
                yield rig
        finally:
            running.cancel()


async def taken(batches: AsyncGenerator[Batch], count: int) -> list[Said]:
    """The next messages that aren't places alone."""
    found: list[Said] = []
    async for batch in batches:
        found += [said for said in batch if said.type]
        if len(found) >= count:
            return found
    raise AssertionError("a subscription never ends by itself")


def seqs(found: Sequence[Said]) -> list[int]:
    return [Position.parse(said.data.split()[0].decode()).seq for said in found]


async def idle() -> None:
    """Let everything happen that waits for no more than a round."""
    for _ in range(50):
        await asyncio.sleep(0.01)


# --- what is shared -------------------------------------------------------------------------------


async def test_active_subscribers_share_one_encoding_and_one_batch(etcd: MemoryEtcd) -> None:
    async with fanning(etcd) as rig, asyncio.TaskGroup() as tasks:
        await rig.it.submit(service())
        subscribers = [rig.fanout.subscribe(rig.head) for _ in range(100)]
        waiting = [tasks.create_task(_next(one)) for one in subscribers]
        await idle()
        rig.packed = 0
        await rig.it.submit(*(endpoint(f"shop/web/e{n}") for n in range(5)))
        batches = [await one for one in waiting]
        assert all(batch is batches[0] for batch in batches)
        assert seqs(batches[0]) == [2, 3, 4, 5, 6]
        assert batches[0][-1].id == str(rig.place)
        assert rig.packed == 1
        assert set(rig.encoded.values()) == {1}
        for one in subscribers:
            await one.aclose()
        assert rig.it.projector.listeners == []
        assert rig.fanout.press.kept.bytes == 0


async def _next(batches: AsyncGenerator[Batch]) -> Batch:
    return await anext(batches)


async def test_nothing_is_kept_or_encoded_while_nobody_is_active(etcd: MemoryEtcd) -> None:
    async with fanning(etcd) as rig:
        await rig.it.submit(service(), endpoint("shop/web/a"))
        assert (rig.encoded, rig.fanout.press.kept.bytes) == ({}, 0)


async def test_many_are_woken_a_few_at_a_time(etcd: MemoryEtcd) -> None:
    async with fanning(etcd) as rig, asyncio.TaskGroup() as tasks:
        turns, told = 0, set[int]()

        async def take(batches: AsyncGenerator[Batch]) -> None:
            await anext(batches)
            told.add(turns)

        async def count() -> None:
            nonlocal turns
            while len(told) < 5:
                await asyncio.sleep(0)
                turns += 1

        subscribers = [rig.fanout.subscribe(rig.head) for _ in range(5 * WOKEN_PER_TURN)]
        for one in subscribers:
            tasks.create_task(take(one))
        await idle()
        await rig.it.submit(service())
        async with asyncio.timeout(60):
            await count()
        for one in subscribers:
            await one.aclose()


async def test_one_that_stands_still_falls_behind_and_is_told_all_from_the_logs(
    etcd: MemoryEtcd,
) -> None:
    async with fanning(etcd, feed_bytes=2000) as rig:
        rig.it.projector.ring = RecordRing(500)
        still, quick = rig.fanout.subscribe(rig.head), rig.fanout.subscribe(rig.head)
        found: list[Said] = []
        async with aclosing(still), aclosing(quick):
            async with asyncio.TaskGroup() as tasks:
                first = [tasks.create_task(_next(one)) for one in (still, quick)]
                await idle()
                await rig.it.submit(service())
            found += first[1].result()
            for number in range(60):
                await rig.it.submit(endpoint("shop/web/a", weight=number))
                found += await taken(quick, 1)
                assert rig.fanout.press.kept.bytes <= 2000
            assert seqs(found) == list(range(1, 62))
            assert seqs([*first[0].result(), *await taken(still, 60)]) == list(range(1, 62))


async def test_all_are_left_and_their_places_given_back(etcd: MemoryEtcd) -> None:
    """Also one that ends while it is sent what it was told last before it became active."""
    async with fanning(etcd) as rig:
        await rig.it.submit(service())
        subscriber = rig.fanout.subscribe({})
        assert seqs(await anext(subscriber)) == [1]
        assert len(rig.it.projector.listeners) == 1
        await subscriber.aclose()
        assert rig.it.projector.listeners == []


# --- which logs there are -------------------------------------------------------------------------


def west_log(log_id: LogId = LOG_ID) -> Log:
    return logged(ticked(1), ticked(2), log_id=log_id)


async def test_a_cluster_that_joins_and_goes_keeps_its_place_in_the_ids(etcd: MemoryEtcd) -> None:
    async with fanning(etcd) as rig:
        projector, log = rig.it.projector, west_log()
        await rig.it.submit(service())
        async with (
            aclosing(rig.fanout.subscribe(rig.head)) as batches,
            asyncio.TaskGroup() as tasks,
        ):
            told = tasks.create_task(taken(batches, 2))
            await idle()
            read(projector, WEST, Log(Head.genesis(LOG_ID)))
            await idle()
            projector.fold(WEST, log.records[0])
            assert [said.data.split()[0] for said in await told] == [
                f"west:{LOG_ID}:{seq}".encode() for seq in (1, 2)
            ]
            place = format_vector(rig.head)

            told = tasks.create_task(taken(batches, 1))
            await idle()
            projector.remove(WEST)
            await rig.it.submit(endpoint("shop/web/a"))
            (said,) = await told
            assert EventPlace.parse(said.id).vector == parse_vector(place) | rig.head
            assert len(EventPlace.parse(said.id).vector) == 2
            # Who comes now has never heard of it.
            async with aclosing(rig.fanout.subscribe(rig.head)) as newer:
                told = tasks.create_task(taken(newer, 1))
                await idle()
                await rig.it.submit(endpoint("shop/web/a", weight=7))
                assert [EventPlace.parse(said.id).vector for said in await told] == [rig.head]
            await taken(batches, 1)

            # It comes back as it was, and nothing of it is told twice.
            told = tasks.create_task(taken(batches, 1))
            await idle()
            read(projector, WEST, log)
            await rig.it.submit(endpoint("shop/web/b"))
            (said,) = await told
            assert EventPlace.parse(said.id).vector == rig.head


async def test_a_log_that_is_replaced_ends_those_who_follow_it_and_no_others(
    etcd: MemoryEtcd,
) -> None:
    async with fanning(etcd) as rig:
        projector = rig.it.projector
        read(projector, WEST, west_log())
        of_all = rig.fanout.subscribe(rig.head)
        of_own = rig.fanout.subscribe({EAST: rig.head[EAST]}, frozenset({EAST}))
        async with aclosing(of_all), aclosing(of_own), asyncio.TaskGroup() as tasks:
            ended = tasks.create_task(_ended(of_all))
            told = tasks.create_task(taken(of_own, 1))
            await idle()
            read(projector, WEST, west_log(OTHER_LOG_ID))
            assert "was replaced" in await ended
            await rig.it.submit(service())
            assert [said.id for said in await told] == [
                str(EventPlace({EAST: rig.head[EAST]}, rig.place.mark))
            ]


@pytest.mark.parametrize("longer", [-1, 1], ids=["shorter", "longer"])
async def test_a_log_that_was_restored_under_its_id_ends_those_who_were_told_its_former_past(
    etcd: MemoryEtcd, longer: int
) -> None:
    """Going on behind the place that they have, or waiting for it, they would never be told what
    took the places of what is lost. Who begins in the new past goes on.
    """
    async with fanning(etcd) as rig:
        projector = rig.it.projector
        read(projector, WEST, west_log())
        end = rig.head[WEST].seq
        told_all = rig.fanout.subscribe(rig.head)
        async with aclosing(told_all), asyncio.TaskGroup() as tasks:
            ended = tasks.create_task(_ended(told_all))
            await idle()
            another = logged(*map(ticked, range(end, 2 * end + longer)))
            read(projector, WEST, another, is_fork=True)
            assert "another past" in await ended
        beyond = rig.head | {WEST: Position(WEST, LOG_ID, Seq(end + 9))}
        async with aclosing(rig.fanout.subscribe(beyond)) as gone:
            assert "it was restored" in await _ended(gone)
        async with aclosing(rig.fanout.subscribe(rig.head)) as new, asyncio.TaskGroup() as tasks:
            told = tasks.create_task(taken(new, 1))
            await idle()
            another.append(ticked(1))
            projector.fold(WEST, another.records[-1])
            assert seqs(await told) == [end + longer + 1]


async def _ended(batches: AsyncGenerator[Batch]) -> str:
    with pytest.raises(GoneError) as caught:
        await anext(batches)
    return str(caught.value)


# --- filters --------------------------------------------------------------------------------------


async def test_one_whose_filter_lets_nothing_through_is_told_its_place(etcd: MemoryEtcd) -> None:
    wanted = EventFilter(services=frozenset({"shop/none"}))
    async with fanning(etcd) as rig:
        await rig.it.submit(service())
        async with aclosing(rig.fanout.subscribe({}, wanted=wanted)) as batches:
            for number in range(3):
                before_s = rig.fanout.clock.monotonic_s()
                async with asyncio.TaskGroup() as tasks:
                    told = tasks.create_task(_next(batches))
                    await idle()
                    await rig.it.submit(endpoint("shop/web/a", weight=number))
                assert told.result() == (Said("", b"", str(rig.place)),)
                assert rig.fanout.clock.monotonic_s() - before_s <= PLACE_EVERY_S + 1
            assert rig.encoded == {}


@dataclass(slots=True)
class Subscriber:
    """One that stalls, breaks off and comes back, at random. told: what it got."""

    fanout: Fanout[Batch]
    chance: random.Random
    place: str
    wanted: EventFilter
    told: list[bytes] = field(default_factory=list)
    connections: int = 0

    async def run(self) -> None:
        while True:
            start = EventPlace.parse(self.place)
            self.connections += 1
            events = self.fanout.subscribe(start.vector, wanted=self.wanted, mark=start.mark)
            async with aclosing(events) as batches:
                async for batch in batches:
                    if not self.take(batch):
                        break
                    if self.chance.random() < 0.2:
                        await asyncio.sleep(self.chance.uniform(0, 3))

    def take(self, batch: Batch) -> bool:
        """Take messages; false where it breaks off, maybe in the middle."""
        for said in batch:
            if self.chance.random() < 0.03:
                return False
            self.place = said.id
            if said.type:
                self.told.append(said.data)
        return True


FILTERS = (
    ALL_EVENTS,
    EventFilter(types=frozenset({"service.set", "service.removed"})),
    EventFilter(namespaces=frozenset({"shop"})),
    EventFilter(services=frozenset({"bank/web"})),
    EventFilter(labels=(("color", "red"),)),
)


@pytest.mark.parametrize("seed", range(8))
async def test_each_is_told_exactly_the_log_filtered_in_order(etcd: MemoryEtcd, seed: int) -> None:
    chance = random.Random(seed)
    async with fanning(etcd, feed_bytes=chance.choice((0, 3000, 1 << 20))) as rig:
        rig.it.projector.ring = RecordRing(chance.choice((0, 2000, 1 << 20)))
        subscribers: list[tuple[Subscriber, int]] = []
        async with asyncio.TaskGroup() as tasks:
            running: list[asyncio.Task[None]] = []
            for turn in range(120):
                if turn % 8 == 0:
                    at = rig.head if chance.random() < 0.5 else {}
                    one = Subscriber(
                        rig.fanout,
                        random.Random(f"{seed} {turn}"),
                        format_vector(at),
                        chance.choice(FILTERS),
                    )
                    subscribers.append((one, at[EAST].seq if at else 0))
                    running.append(tasks.create_task(one.run()))
                await rig.it.submit(*commands(chance))
                if chance.random() < 0.3:
                    await asyncio.sleep(chance.uniform(0, 1))
            log = await events_in(etcd)
            head = rig.head[EAST]
            expected = [
                [
                    text_of(Told(replace(head, seq=Seq(seq)), 0, event))
                    for seq, event in enumerate(log, 1)
                    if seq > after and one.wanted.passes(event)
                ]
                for one, after in subscribers
            ]
            for _ in range(1000):
                if [len(one.told) for one, _ in subscribers] == [len(all_) for all_ in expected]:
                    break
                await asyncio.sleep(1)
            await idle()
            for task in running:
                task.cancel()
        for (one, _), wanted in zip(subscribers, expected, strict=True):
            assert one.told == wanted
        assert sum(one.connections for one, _ in subscribers) > 2 * len(subscribers)
        assert rig.it.projector.listeners == []
        assert rig.fanout.press.kept.bytes == 0


def commands(chance: random.Random) -> list[Command]:
    """A few changes, of which some come to nothing."""
    found: list[Command] = []
    for _ in range(chance.randint(1, 4)):
        key = f"{chance.choice(('shop', 'bank'))}/{chance.choice(('web', 'api'))}"
        labels = {"color": chance.choice(("red", "blue"))}
        name = EndpointKey.parse(f"{key}/{chance.choice('abc')}")
        match chance.randrange(6):
            case 0:
                found.append(service(key, labels=labels))
            case 1:
                found.append(RemoveService(ServiceKey.parse(key)))
            case 2:
                found.append(RemoveEndpoint(name))
            case _:
                found.append(endpoint(str(name), weight=chance.randint(0, 99), labels=labels))
    return found
