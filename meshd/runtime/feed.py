"""What subscribers share: each event is encoded once, each batch made once.

For: one feed. Not for: which feeds there are, nor its subscribers (`fanout`). Invariants: an event
is encoded when a subscriber first wants it, and then for all feeds; those who stand at one index
and want the same get the same batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, Generic, TypeVar

from meshd.core.cursor import Kept, Track, VectorText
from meshd.core.event_filter import EventFilter
from meshd.model.event import Told
from meshd.model.ids import ClusterName
from meshd.model.place import EventPlace

B = TypeVar("B")

FLUSH_BYTES: Final = 64 * 1024
"""What is gathered at most before it is sent: a catch-up goes at the speed of the socket."""
WOKEN_PER_TURN: Final = 32
"""Waking so many takes some 3 ms; then requests have their turn."""
MADE_MAX: Final = 32
"""Batches that are kept for those who want the same; with more different filters than that some
are made twice."""


@dataclass(frozen=True, slots=True)
class Said:
    """One message. type: of the event, '' where only a place is said. data: its cloud event. id:
    where all followed logs stand behind it.
    """

    type: str
    data: bytes
    id: str


Encode = Callable[[Told], bytes]
Pack = Callable[[Sequence[Said]], B]
"""Makes of messages what goes to the sockets."""


@dataclass(slots=True)
class Body:
    """What all feeds share of one event. data: once somebody wants it."""

    told: Told
    data: bytes | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One message of a feed."""

    body: Body
    id: str


@dataclass(frozen=True, slots=True)
class Made(Generic[B]):
    """Some messages as one batch; None if the filter lets none through. next: the index behind
    them. place: the id there. said: the last id in the batch, else ''.
    """

    batch: B | None
    next: int
    place: str
    said: str


@dataclass(frozen=True, slots=True)
class Press(Generic[B]):
    """How events become what is sent."""

    encode: Encode
    pack: Pack[B]
    kept: Kept[Entry]


class Feed(Generic[B]):
    """The messages of one set of clusters, as they are folded. members: how many are active in it.
    is_broken: it ends here.
    """

    def __init__(
        self, press: Press[B], clusters: frozenset[ClusterName], place: EventPlace
    ) -> None:
        self.clusters = clusters
        self.track = Track[Entry]()
        self.text = VectorText(place)
        self.is_broken = False
        self.members = 0
        self._press = press
        self._waiting: dict[asyncio.Future[None], None] = {}
        self._made: dict[tuple[int, EventFilter], Made[B]] = {}

    def follows(self, cluster: ClusterName) -> bool:
        """Whether it tells of a cluster."""
        return not self.clusters or cluster in self.clusters

    def add(self, bodies: Sequence[Body], size_bytes: int) -> None:
        """Take what was folded. size_bytes: of one of them, until it is encoded."""
        for body in bodies:
            entry = Entry(body, self.text.advance(body.told))
            self._press.kept.add(self.track, entry, size_bytes + len(entry.id))

    def take(self, index: int, wanted: EventFilter) -> Made[B]:
        """The next messages from an index, made once for all who stand there and want the same."""
        made = self._made.get((index, wanted))
        if made is None:
            made = self._made[index, wanted] = self._make(index, wanted)
            if len(self._made) > MADE_MAX:
                del self._made[next(iter(self._made))]
        return made

    def _make(self, index: int, wanted: EventFilter) -> Made[B]:
        entries = self.track.take(index, FLUSH_BYTES)
        said = [
            Said(entry.body.told.event.type, self._encoded(entry.body, at), entry.id)
            for at, entry in enumerate(entries, index)
            if wanted.passes(entry.body.told.event)
        ]
        batch = self._press.pack(said) if said else None
        last_id = said[-1].id if said else ""
        return Made(batch, index + len(entries), entries[-1].id, last_id)

    def _encoded(self, body: Body, index: int) -> bytes:
        if body.data is None:
            body.data = self._press.encode(body.told)
            self._press.kept.grow(self.track, index, len(body.data))
        return body.data

    async def news(self, timeout_s: float | None) -> None:
        """Wait for the next round, or for a while."""
        told = asyncio.get_running_loop().create_future()
        self._waiting[told] = None
        try:
            async with asyncio.timeout(timeout_s):
                await told
        except TimeoutError:
            return
        finally:
            self._waiting.pop(told, None)

    async def tell(self) -> None:
        """Let all who wait have what came since the last round, a few at a time."""
        if self.track.mark == self.track.end and not self.is_broken:
            return
        self.track.mark = self.track.end
        self._made.clear()
        waiting = iter(list(self._waiting))
        while some := list(islice(waiting, WOKEN_PER_TURN)):
            for told in some:
                if not told.done():
                    told.set_result(None)
            await asyncio.sleep(0)
