"""From the logs to many subscribers, each at its own place.

For: streams of events. Not for: reading logs (`history`), what feeds share (`feed`), where a
subscriber is (`core.cursor`), nor sockets. Invariants: while a feed is open its end is where the
served logs end, since it is fed within each fold; a subscriber holds an index or a vector, and the
one batch that it is sending; one that stands still costs nothing else and delays nobody.

A feed is of one set of clusters (none: all), and of what the vectors of its subscribers say beyond
what is held here: peers that were removed, whose place goes on standing in the ids.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Final, Generic, TypeVar

from meshd.core.cursor import Kept, Standing, beyond, pause_s
from meshd.core.event_filter import ALL_EVENTS, EventFilter
from meshd.model.event import Record, Told
from meshd.model.ids import ClusterName, Position, Vector
from meshd.model.place import EventPlace
from meshd.runtime.feed import FLUSH_BYTES, Body, Encode, Feed, Pack, Press, Said
from meshd.runtime.history import History, told_of
from meshd.runtime.ports import Clock
from meshd.runtime.projector import Projector
from meshd.telemetry import metrics

B = TypeVar("B")

SEEN_PER_TURN: Final = 256
"""Who catches up lets others have their turn after so many events, also if it wants none of them;
one of them costs about 10 µs."""
CATCHING_UP_AT_ONCE: Final = 4
"""So many may take a turn in one round of the event loop, which are some 10 ms: after a restart all
subscribers come back at once, and requests want their turn too."""
PLACE_EVERY_S: Final = 15.0
"""How often one whose filter lets nothing through is told its place, so that it doesn't get older
than what is retained; as often as a stream shows life."""
SOON_S: Final = 0.01
"""What is due so soon is due now: a clock needn't move on by less."""

_Key = tuple[frozenset[ClusterName], tuple[Position, ...]]


class Fanout(Generic[B]):
    """All feeds, which exist while they have subscribers."""

    def __init__(
        self,
        projector: Projector,
        history: History,
        clock: Clock,
        press: tuple[Encode, Pack[B]],
        bytes_max: int,
    ) -> None:
        """press: what makes an event's text, and a batch of messages. bytes_max: what is kept for
        those who are a little behind, in all.
        """
        encode, pack = press
        self.history = history
        self.clock = clock
        self.press = Press(encode, pack, Kept(bytes_max))
        self._projector = projector
        self._feeds: dict[_Key, Feed[B]] = {}
        self._broken: list[Feed[B]] = []
        self._news = asyncio.Event()
        self._turns = asyncio.Semaphore(CATCHING_UP_AT_ONCE)

    async def run(self) -> None:
        """Wake the subscribers in rounds, for ever."""
        while True:
            await self._news.wait()
            self._news.clear()
            broken, self._broken = self._broken, []
            for feed in (*self._feeds.values(), *broken):
                await feed.tell()
            active = sum(feed.members for feed in self._feeds.values())
            await self.clock.sleep(pause_s(active))

    def subscribe(
        self,
        start: Vector,
        clusters: frozenset[ClusterName] = frozenset(),
        wanted: EventFilter = ALL_EVENTS,
        mark: str = "",
    ) -> AsyncGenerator[B]:
        """Batches of everything that is wanted after a place, for ever. Raises as `History.follow`
        does. Close it with `contextlib.aclosing`. mark: of the place (`EventPlace`).
        """
        return _Subscription(self, EventPlace(start, mark), clusters, wanted).batches()

    async def turn(self) -> None:
        """Let others have their turn, where one would go on without waiting."""
        async with self._turns:
            await asyncio.sleep(0)

    # What subscribers do.

    def attach(self, clusters: frozenset[ClusterName], vector: Vector) -> Feed[B] | None:
        """The feed whose end is at a vector; None while something is still to be told before it."""
        head = {
            name: position
            for name, position in self._projector.log_vector().items()
            if not clusters or name in clusters
        }
        left = beyond(vector, head)
        if left is None:
            return None
        feed = self._feeds.get((clusters, left))
        if feed is None:
            if not self._feeds:
                self._projector.listeners.append(self)
            held = {position.cluster: position for position in left}
            place = self.history.place(held | head)
            feed = self._feeds[clusters, left] = Feed(self.press, clusters, place)
        feed.members += 1
        return feed

    def leave(self, feed: Feed[B]) -> None:
        """One subscriber less; the last one closes it."""
        feed.members -= 1
        if not feed.members and not feed.is_broken:
            self._close(feed)

    def _close(self, feed: Feed[B]) -> None:
        self._feeds = {key: other for key, other in self._feeds.items() if other is not feed}
        self.press.kept.close(feed.track)
        if not self._feeds:
            self._projector.listeners.remove(self)

    # What the projector says.

    def folded(self, cluster: ClusterName, record: Record) -> None:
        """Add what a served log goes on with."""
        is_own = cluster == self._projector.own
        bodies = [Body(told) for told in told_of(cluster, record, is_own=is_own)]
        for feed in self._feeds.values():
            if feed.follows(cluster):
                feed.add(bodies, len(record.raw) // len(bodies))
        self._news.set()

    def replaced(self, cluster: ClusterName) -> None:
        """Break what goes on with another log, or none: its subscribers look where they are."""
        for feed in [feed for feed in self._feeds.values() if feed.follows(cluster)]:
            self._close(feed)
            feed.is_broken = True
            self._broken.append(feed)
        self._news.set()


class _Subscription(Generic[B]):
    """One subscriber: lagging, then active, and so on."""

    def __init__(
        self,
        fanout: Fanout[B],
        start: EventPlace,
        clusters: frozenset[ClusterName],
        wanted: EventFilter,
    ) -> None:
        self._fanout = fanout
        self._clusters = clusters
        self._wanted = wanted
        self._vector, self._mark = dict(start.vector), start.mark
        self._pasts = fanout.history.pasts()
        self._feed: Feed[B] | None = None
        self._index = 0
        # Where it is, and which place it was told last.
        self._place = self._said = str(start)
        self._said_s = fanout.clock.monotonic_s()

    async def batches(self) -> AsyncGenerator[B]:
        """What it is to be sent."""
        try:
            while True:
                async with aclosing(self._counted("lagging", self._lag())) as batches:
                    async for batch in batches:
                        yield batch
                        # One that waits for news holds nothing of what it was sent.
                        del batch
                async with aclosing(self._counted("active", self._keep_up())) as batches:
                    async for batch in batches:
                        yield batch
                        del batch
                self._leave()
        finally:
            self._leave()

    async def _counted(self, state: str, batches: AsyncGenerator[B]) -> AsyncGenerator[B]:
        with metrics.STREAM_FOLLOWERS.labels(state).track_inprogress():
            async with aclosing(batches):
                async for batch in batches:
                    yield batch
                    del batch

    async def _lag(self) -> AsyncGenerator[B]:
        """Read the logs from its own place, until there is nothing that it wasn't told."""
        gathered: list[Said] = []
        size_bytes = seen = 0
        events = self._fanout.history.follow(self._vector, self._clusters, self._pasts)
        async with aclosing(events):
            async for told in events:
                if told is not None:
                    seen += 1
                    self._vector[told.position.cluster] = told.position
                    self._mark = told.mark or self._mark
                    if self._wanted.passes(told.event):
                        gathered.append(self._said_of(told))
                        size_bytes += len(gathered[-1].data) + len(gathered[-1].id)
                    if size_bytes < FLUSH_BYTES and seen < SEEN_PER_TURN:
                        continue
                is_whole = told is None and self._attach()
                batch = self._packed(gathered)
                gathered, size_bytes, seen = [], 0, 0
                if batch is not None:
                    yield batch
                    del batch
                if is_whole:
                    return
                if told is not None:
                    await self._fanout.turn()

    def _said_of(self, told: Told) -> Said:
        data = self._fanout.press.encode(told)
        return Said(told.event.type, data, self._read_to)

    @property
    def _read_to(self) -> str:
        return str(EventPlace(self._vector, self._mark))

    def _attach(self) -> bool:
        """Become active if it is where a feed ends. Nothing is folded meanwhile: there is no await
        between being told everything and this.
        """
        self._feed = self._fanout.attach(self._clusters, self._vector)
        if self._feed is None:
            return False
        self._index, self._place = self._feed.track.end, self._feed.text.text
        return True

    def _leave(self) -> None:
        feed, self._feed = self._feed, None
        if feed is not None:
            self._fanout.leave(feed)

    async def _keep_up(self) -> AsyncGenerator[B]:
        """Take from the feed what comes, until it is behind or the feed is broken."""
        feed = self._feed
        while feed is not None and not feed.is_broken:
            standing = feed.track.standing(self._index)
            if standing is Standing.BEHIND:
                break
            if standing is Standing.UP_TO_DATE:
                await feed.news(self._place_due_s())
                batch = self._packed(())
            else:
                batch = self._take(feed)
                if batch is None:
                    # Passing over much never waits by itself.
                    await asyncio.sleep(0)
                    batch = self._packed(())
            if batch is not None:
                yield batch
                del batch
        place = EventPlace.parse(self._place)
        self._vector, self._mark = dict(place.vector), place.mark

    def _take(self, feed: Feed[B]) -> B | None:
        made = feed.take(self._index, self._wanted)
        self._index, self._place = made.next, made.place
        if made.batch is not None:
            self._note(made.said)
        return made.batch

    # How it is told its place.

    def _packed(self, gathered: Sequence[Said]) -> B | None:
        """What was gathered; else its place, where that is due; else nothing."""
        if gathered:
            self._note(gathered[-1].id)
            return self._fanout.press.pack(gathered)
        if self._feed is None:
            self._place = self._read_to
        due_s = self._place_due_s()
        if due_s is None or due_s > SOON_S:
            return None
        self._note(self._place)
        return self._fanout.press.pack((Said("", b"", self._place),))

    def _place_due_s(self) -> float | None:
        """In how many seconds it is to be told its place; None if it knows it."""
        if self._place == self._said:
            return None
        return max(0.0, self._said_s + PLACE_EVERY_S - self._fanout.clock.monotonic_s())

    def _note(self, said: str) -> None:
        self._said = said
        self._said_s = self._fanout.clock.monotonic_s()
