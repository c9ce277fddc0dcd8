"""What of a history is drawn over time.

For: `lanes`. Not for: drawing. Invariant: nothing is left out that stands out: where there are more
points than can be seen, the worst of each stretch is kept.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from chaos.evidence import NS_PER_S, Evidence
from chaos.history import Outcome, StatusRead
from chaos.validators.isolation import lag_samples

POINTS_MAX = 1500
"""Of one row: about as many as there are pixels."""
BINS = 120
GAP_FACTOR = 10
"""Nothing is said of a time in which nobody looked for so many times as long as usual."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Places a moment of a run: 0 is its beginning, 1 its end."""

    start_ns: int
    end_ns: int

    def at(self, at_ns: int) -> float:
        """Where a moment is."""
        return (at_ns - self.start_ns) / max(1, self.end_ns - self.start_ns)

    @property
    def length_s(self) -> float:
        """How long the run is."""
        return (self.end_ns - self.start_ns) / NS_PER_S


def clock_of(evidence: Evidence) -> Clock:
    """The clock of a run."""
    return Clock(evidence.run.at_ns, evidence.end_ns)


@dataclass(frozen=True, slots=True)
class Point:
    """A value at a place."""

    place: float
    value: float


@dataclass(frozen=True, slots=True)
class Appends:
    """The commands of one cluster: how long those took that succeeded, and where others are."""

    took: tuple[Point, ...]
    failed: tuple[float, ...]
    unknown: tuple[float, ...]


def appends(evidence: Evidence, clock: Clock) -> Mapping[str, Appends]:
    """By cluster."""
    took: dict[str, list[Point]] = {name: [] for name in evidence.run.clusters}
    others: dict[tuple[str, Outcome], list[float]] = defaultdict(list)
    for operation in evidence.operations:
        cluster, place = operation.invoked.cluster, clock.at(operation.invoked.at_ns)
        if operation.outcome is Outcome.OK:
            took.setdefault(cluster, []).append(Point(place, operation.took_s))
        else:
            others[cluster, operation.outcome].append(place)
    return {
        cluster: Appends(
            worst(points),
            tuple(others[cluster, Outcome.FAIL]),
            tuple(others[cluster, Outcome.UNKNOWN]),
        )
        for cluster, points in took.items()
    }


def worst(points: Sequence[Point]) -> tuple[Point, ...]:
    """All of them, or of each stretch the highest and the one in the middle."""
    if len(points) <= POINTS_MAX:
        return tuple(points)
    stretches: dict[int, list[Point]] = defaultdict(list)
    for point in points:
        stretches[int(point.place * POINTS_MAX / 2)].append(point)
    kept: list[Point] = []
    for stretch in stretches.values():
        ordered = sorted(stretch, key=lambda point: point.value)
        kept += {ordered[-1], ordered[len(ordered) // 2]}
    return tuple(sorted(kept, key=lambda point: point.place))


def lags(evidence: Evidence, clock: Clock) -> Mapping[tuple[str, str], Mapping[int, float]]:
    """By origin and reader, and by stretch of time: the longest lag in s."""
    found: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for lag_s, message in lag_samples(evidence):
        # An event is drawn where it was acknowledged, so that a long lag isn't hidden behind a gap.
        place = clock.at(message.at_ns - round(lag_s * NS_PER_S))
        stretch = min(BINS - 1, int(place * BINS))
        row = found[message.of, message.cluster]
        row[stretch] = max(lag_s, row.get(stretch, 0.0))
    return dict(sorted(found.items()))


def versions(evidence: Evidence, clock: Clock) -> Mapping[str, tuple[float, ...]]:
    """By process: where its table was first seen to be another."""
    found: dict[str, tuple[float, ...]] = {}
    for (cluster, process), tables in sorted(evidence.tables.items()):
        found[process or cluster] = tuple(
            clock.at(after.at_ns)
            for before, after in pairwise(tables)
            if (before.digest, before.services) != (after.digest, after.services)
        )
    return found


@dataclass(frozen=True, slots=True)
class Span:
    """A phase, and from where to where it was seen."""

    start: float
    end: float
    phase: str


def phases(evidence: Evidence, clock: Clock) -> Mapping[tuple[str, str], tuple[Span, ...]]:
    """By process and peer: what the process called the peer."""
    seen: dict[tuple[str, str], list[tuple[int, str]]] = defaultdict(list)
    for status in evidence.all(StatusRead):
        for peer in status.peers:
            seen[status.process, peer.name].append((status.at_ns, peer.phase))
    return {key: tuple(_spans(looks, clock)) for key, looks in sorted(seen.items())}


def _spans(looks: Sequence[tuple[int, str]], clock: Clock) -> Iterator[Span]:
    steps = sorted(after - before for (before, _), (after, _) in pairwise(looks))
    usual_ns = steps[len(steps) // 2] if steps else 0
    start_ns, phase = looks[0]
    for (before_ns, _), (after_ns, after) in pairwise(looks):
        is_gap = after_ns - before_ns > GAP_FACTOR * usual_ns
        if is_gap or after != phase:
            end_ns = before_ns + usual_ns if is_gap else after_ns
            yield Span(clock.at(start_ns), clock.at(min(end_ns, clock.end_ns)), phase)
            start_ns, phase = after_ns, after
    end_ns = min(looks[-1][0] + usual_ns, clock.end_ns)
    yield Span(clock.at(start_ns), clock.at(end_ns), phase)
