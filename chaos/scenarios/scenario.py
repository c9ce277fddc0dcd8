"""What a scenario is.

For: those who write scenarios and who runs them. Not for: any scenario itself. Invariants: it is
data, and the same wish and seed make the same one; nobody is done two things at once, since healing
one of them would undo the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from chaos.faults.fault import Fault
from chaos.history import Bounds

NAMES = ("east", "west", "south", "north", "center", "coast", "delta", "field", "glade", "haven")
"""Of clusters, in the order of their numbers."""
CLUSTERS_MAX = len(NAMES)
"""An etcd, a meshd and two subscribers for each: a small machine carries no more."""
CLUSTERS_MIN = 2
"""A mesh of one has no peers."""
CONVERGE_S = 45.0
"""A meshd that starts anew takes some 3 s, a peer that was given up is tried again within some
10 s, and everything goes slower where two processors carry fifteen processes."""
LATENCY_SLACK_S = 10.0
"""Where all clusters share a few processors, servers that start take them from others for seconds:
that is the machine. Who gets no answer within 5 s has failed, which is judged; only `isolation`
measures long enough to hold a p99 to the design's bound as well."""
USUAL_BOUNDS = Bounds(converge_s=CONVERGE_S, latency_slack_s=LATENCY_SLACK_S)

Faults = Mapping[str, type[Fault]]
"""All faults by name."""


class ScenarioError(Exception):
    """A scenario that can't be made or run as it was asked for: what, and what to do."""


class Healing(StrEnum):
    """In which order what was broken is healed."""

    TOGETHER = "together"
    """All at once."""
    IN_TURN = "in turn"
    """What was broken first is healed first."""
    SWIZZLE = "swizzle"
    """In an order of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A fault, and whom it is done to."""

    fault: str
    victims: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.fault} of {', '.join(self.victims)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A stretch of a run. hits: what is broken in it; nothing in a quiet one. hold_s: how long,
    once all of it is broken. apart_s: between one and the next, where not all is done at once.
    rest_s: without faults, afterwards.
    """

    hits: tuple[Hit, ...] = ()
    hold_s: float
    apart_s: float = 0.0
    healing: Healing = Healing.TOGETHER
    rest_s: float = 0.0

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is broken in it."""
        return not self.hits

    @property
    def length_s(self) -> float:
        """About how long it takes."""
        return self.hold_s + 2 * self.apart_s * max(0, len(self.hits) - 1) + self.rest_s

    def __str__(self) -> str:
        return "; ".join(map(str, self.hits)) or "quiet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What is to be run. names: of the clusters. needed: invariants that must have been judged, or
    the run proves nothing. settings: of every meshd, beside those that its faults need.
    rates: of traffic, where they aren't the usual ones. has_fixed_shares: of the processors, so
    that how long something takes can be held against the clusters. duration_s: what was asked for,
    0 if the scenario chose. is_open: no window is begun once that time is up, since windows take
    as long as their faults need to show and to be healed.
    """

    name: str
    summary: str
    seed: int
    names: tuple[str, ...]
    windows: tuple[Window, ...]
    is_ha: bool = False
    etcd_members: int = 1
    has_brokers: bool = False
    settings: Mapping[str, object] = field(default_factory=dict)
    bounds: Bounds = USUAL_BOUNDS
    rates: Mapping[str, float] = field(default_factory=dict)
    has_fixed_shares: bool = False
    needed: tuple[str, ...] = ()
    duration_s: float = 0.0
    is_open: bool = False

    @property
    def faults(self) -> tuple[str, ...]:
        """The names of all that is done, each once."""
        return tuple(dict.fromkeys(hit.fault for window in self.windows for hit in window.hits))

    @property
    def length_s(self) -> float:
        """About how long its windows take."""
        return sum(window.length_s for window in self.windows)

    def due(self, now_s: Callable[[], float]) -> Iterator[tuple[int, Window]]:
        """Its windows with their numbers, from 1, each when the one before it is over."""
        until_s = now_s() + self.duration_s
        for number, window in enumerate(self.windows, 1):
            if self.is_open and now_s() >= until_s:
                return
            yield number, window


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a person asks for. clusters, duration_s: 0 where the scenario may choose."""

    seed: int = 1
    clusters: int = 0
    duration_s: float = 0.0
    is_ha: bool = False
    etcd_members: int = 1
    has_brokers: bool = False

    def names(self, usual: int) -> tuple[str, ...]:
        """The clusters' names; raises ScenarioError if there can't be so many."""
        number = self.clusters or usual
        if not CLUSTERS_MIN <= number <= CLUSTERS_MAX:
            raise ScenarioError(
                f"{number} clusters: a mesh under test has {CLUSTERS_MIN} to {CLUSTERS_MAX}"
            )
        return NAMES[:number]


def settings_of(scenario: Scenario, faults: Faults) -> dict[str, object]:
    """The settings of every meshd; raises ScenarioError if two faults want different ones."""
    return agreed(scenario.faults, faults, scenario.settings)


def agreed(
    names: Iterable[str], faults: Faults, given: Mapping[str, object] | None = None
) -> dict[str, object]:
    """The settings that all these faults can be seen with. Of two numbers that is the smaller: what
    a fault asks for is a time or a limit that is reached while it lasts.
    """
    found: dict[str, object] = {}
    said_by: dict[str, str] = {}
    for name in names:
        for key, value in faults[name].settings.items():
            if key in found and not (_is_number(value) and _is_number(found[key])):
                if found[key] != value:
                    raise ScenarioError(
                        f"{name} needs {key}={value}, and {said_by[key]} {key}={found[key]}: run"
                        " them in two scenarios"
                    )
            elif key not in found or float(str(value)) < float(str(found[key])):
                found[key], said_by[key] = value, name
    return found | dict(given or {})


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def rotated(names: Sequence[str], by: int) -> tuple[str, ...]:
    """The same names, beginning with another one."""
    by %= len(names)
    return (*names[by:], *names[:by])
