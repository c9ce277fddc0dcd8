"""Where the subscribers of a feed are, and what of it is kept for them.

For: the decisions of the fan-out (`runtime.fanout`). Not for: waiting, encoding, sending.
Invariants: pure; what is kept of all feeds together stays below one limit, whoever reads or
doesn't; a subscriber takes every message after its index once, in order, or is told that it is
behind.

A subscriber is in one of three places:

| place | it has | what happens | it goes on |
| --- | --- | --- | --- |
| active | an index into its feed | there is news | active, behind it |
| active | | it is behind what is kept, or the feed broke | lagging, from what it was told last |
| lagging | a vector | everything after it was told | active, at the feed's end |
| lagging | | its place isn't retained any more | cut: it is told so, and ends or starts over |
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from enum import Enum, auto
from typing import Final, Generic, TypeVar

from meshd.model.event import Told
from meshd.model.ids import ClusterName, Position, Vector
from meshd.model.place import EventPlace

T = TypeVar("T")

ENTRY_BYTES: Final = 250
"""What a kept message takes beside its text: a few small objects, and its places in the tables."""
WAKE_S: Final = 100e-6
"""What it takes at most to wake one subscriber and to write to its socket. Measured: 10 to 30 µs of
a processor, with 1,000 subscribers of 10 events in a round; slower machines take longer."""
PAUSE_S_MAX: Final = 1.0
"""However many subscribers there are, nobody hears later than that because of them."""


class Standing(Enum):
    """How an index is to a feed."""

    NEWS = auto()
    """There is something to take."""
    UP_TO_DATE = auto()
    """Everything was taken."""
    BEHIND = auto()
    """What comes next isn't kept."""


class Track(Generic[T]):
    """The messages of one feed that are kept. start: the index of the oldest. end: that of the next
    to come. mark: up to where they may be taken; it moves in rounds, so that many subscribers take
    the same.
    """

    __slots__ = ("_items", "_sizes", "end", "mark", "start")

    def __init__(self) -> None:
        self.start = self.end = self.mark = 0
        self._items: dict[int, T] = {}
        self._sizes: dict[int, int] = {}

    def standing(self, index: int) -> Standing:
        """How a subscriber's index is to it."""
        if index < self.start:
            return Standing.BEHIND
        return Standing.NEWS if index < self.mark else Standing.UP_TO_DATE

    def take(self, index: int, bytes_max: int) -> list[T]:
        """The next messages up to the mark, as many as fit; one at least, if there is news."""
        found: list[T] = []
        size_bytes = 0
        for at in range(index, self.mark):
            size_bytes += self._sizes[at]
            if found and size_bytes > bytes_max:
                break
            found.append(self._items[at])
        return found

    def append(self, item: T, size_bytes: int) -> None:
        """Keep the next message."""
        self._items[self.end] = item
        self._sizes[self.end] = size_bytes
        self.end += 1

    def grow(self, index: int, size_bytes: int) -> bool:
        """Note that a message got larger; false if it isn't kept any more."""
        if index < self.start:
            return False
        self._sizes[index] += size_bytes
        return True

    def drop_oldest(self) -> int:
        """Keep the oldest no longer; returns the bytes that are free now."""
        del self._items[self.start]
        size_bytes = self._sizes.pop(self.start)
        self.start += 1
        return size_bytes

    @property
    def bytes(self) -> int:
        """How much is kept."""
        return sum(self._sizes.values())


class Kept(Generic[T]):
    """The tracks of all feeds, bounded in bytes together; the oldest message of all goes first."""

    __slots__ = ("_bytes_max", "_order", "bytes")

    def __init__(self, bytes_max: int) -> None:
        self.bytes = 0
        self._bytes_max = bytes_max
        self._order: deque[Track[T]] = deque()

    def add(self, track: Track[T], item: T, size_bytes: int) -> None:
        """Keep the next message of a track."""
        size_bytes += ENTRY_BYTES
        track.append(item, size_bytes)
        self._order.append(track)
        self.bytes += size_bytes
        self._shrink()

    def grow(self, track: Track[T], index: int, size_bytes: int) -> None:
        """Note that a message got larger."""
        if track.grow(index, size_bytes):
            self.bytes += size_bytes
            self._shrink()

    def _shrink(self) -> None:
        while self.bytes > self._bytes_max:
            self.bytes -= self._order.popleft().drop_oldest()

    def close(self, track: Track[T]) -> None:
        """Keep nothing of a track any more."""
        self.bytes -= track.bytes
        self._order = deque(other for other in self._order if other is not track)


class VectorText:
    """A place that goes forward, as text: what `EventPlace` says, for the price of one join."""

    __slots__ = ("_end", "_texts", "text")

    def __init__(self, place: EventPlace) -> None:
        self._texts = {name: str(place.vector[name]) for name in sorted(place.vector)}
        self._end = place.end
        self.text = str(place)

    def advance(self, told: Told) -> str:
        """Go behind an event of a cluster that is in it; returns the new text."""
        self._texts[told.position.cluster] = str(told.position)
        if told.mark:
            self._end = EventPlace({}, told.mark).end
        self.text = ",".join(self._texts.values()) + self._end
        return self.text


def beyond(vector: Vector, head: Mapping[ClusterName, Position]) -> tuple[Position, ...] | None:
    """What a vector says of clusters of which nothing is held here, for ids to go on saying it;
    None while it isn't where the logs end. A log of which nothing was told stands at 0.
    """
    for name, position in head.items():
        told = vector.get(name)
        if told != position and (told is not None or position.seq):
            return None
    return tuple(vector[name] for name in sorted(vector) if name not in head)


def pause_s(subscribers: int) -> float:
    """How long after one round the next one begins: as long as a round takes, so that no more than
    half of the time is spent in rounds.
    """
    return min(subscribers * WAKE_S, PAUSE_S_MAX)
