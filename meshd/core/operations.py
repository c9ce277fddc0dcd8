"""What an operation does next by itself.

For: the one decision of whoever leads, from how the operation stands and what is seen. Not for:
what a move does (`operating`), nor seeing anything (`runtime.operator`). Invariants: pure; the same
operation, time and facts give the same move; not knowing is a reason to wait and never to go on.

Rules, the first that holds:
1. Only what is running moves by itself.
2. A condition that doesn't hold is trouble: it pauses, or rolls back, as the operation says. So is
   a destination that is not to be seen, that lacks the service, has no endpoint of it in, or, but
   where that was forced, turns it away itself.
3. What isn't known yet holds the operation where it is: no signal so far, or an old one; and of a
   destination that is being connected to or read, nothing is known.
4. The stage is held for its time, by the wall clock, so that it is the same for the next leader;
   but no longer than that time as this leader saw it pass, should the clock have been put back.
5. Before a stage that turns down, what is left must be enough; else it is paused, however it was
   begun, but not where that was forced.
6. Then the next stage is reached; or it is done, if the last one was held as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from meshd.model.command import Move
from meshd.model.errors import Problem
from meshd.model.forms import TURNED_UP
from meshd.model.ids import ClusterName, ServiceKey
from meshd.model.operation import (
    Conditions,
    OnTrouble,
    Operation,
    OperationKind,
    Progress,
    Stage,
)
from meshd.model.peer import Phase


@dataclass(frozen=True, slots=True)
class Taking:
    """What the destination has of a service. backends, eligible: how many endpoints it has in the
    table, and how many of them are in. turned_percent: how far it is turned up there.
    """

    backends: int
    eligible: int
    turned_percent: int = TURNED_UP


@dataclass(frozen=True, slots=True)
class Destination:
    """The cluster that takes over, as it is seen. lag_events: how far behind its log is read.
    services: what it has of each that moves; None where it doesn't serve it.
    """

    name: ClusterName
    phase: Phase | None
    lag_events: int
    services: Mapping[ServiceKey, Taking | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Signal:
    """What somebody outside measured: the percent of requests that failed. at_ms: when."""

    error_percent: float
    at_ms: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What is seen. too_little: services that would be left with too little if the subjects took no
    traffic at all (`capacity`). seen_s: for how long whoever looks has seen it stand as it does.
    """

    now_ms: int
    destination: Destination | None = None
    signal: Signal | None = None
    too_little: Sequence[Problem] = ()
    seen_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Next:
    """A move that is due, and why if there is a reason to tell; without a move: what is waited
    for.
    """

    move: Move | None = None
    reason: str = ""


WAITS = Next()
_ON_ITS_WAY = frozenset({Phase.CONNECTING, Phase.SYNCING})
"""So every peer is to a meshd that has just begun to lead."""


def next_move(operation: Operation, facts: Facts) -> Next:
    """The move that is due now."""
    if operation.progress is not Progress.RUNNING:
        return WAITS
    trouble = next(_trouble(operation, facts), None)
    if trouble is not None:
        is_back = operation.on_trouble is OnTrouble.ROLL_BACK
        return Next(Move.ROLL_BACK if is_back else Move.PAUSE, trouble)
    unknown = _unknown(operation.conditions, facts)
    if unknown:
        return Next(None, unknown)
    if facts.now_ms < held_until_ms(operation) and facts.seen_s < _hold_s(operation):
        return WAITS
    if facts.too_little and not operation.is_forced and _goes_down(operation):
        return Next(Move.PAUSE, str(facts.too_little[0]))
    return Next(Move.ADVANCE)


def held_until_ms(operation: Operation) -> int:
    """When the next stage is due, or the last one was held."""
    return operation.since_ms + round(_hold_s(operation) * 1000)


def _hold_s(operation: Operation) -> float:
    return operation.stages[operation.stage - 1].hold_s if operation.stage else 0.0


def _goes_down(operation: Operation) -> bool:
    """Whether its next stage takes traffic away."""
    return operation.kind is not OperationKind.UNDRAIN and operation.next_stage is not None


def _trouble(operation: Operation, facts: Facts) -> Iterator[str]:
    """What speaks against the operation altogether, the first first."""
    conditions = operation.conditions
    if facts.destination is not None:
        yield from troubles_of(facts.destination, conditions, is_forced=operation.is_forced)
    signal, most = facts.signal, conditions.error_percent_max
    if signal is None or most is None:
        return
    is_fresh = _age_s(signal, facts.now_ms) <= conditions.signal_age_s_max
    if is_fresh and signal.error_percent > most:
        yield f"{signal.error_percent:g} % of requests fail, as was told; at most {most:g} % may"


def troubles_of(
    destination: Destination, conditions: Conditions, *, is_forced: bool = False
) -> Iterator[str]:
    """What speaks against handing over to a cluster."""
    name = destination.name
    if destination.phase in _ON_ITS_WAY:
        return
    if destination.phase is not Phase.READY:
        yield f"{name} is {destination.phase or 'not followed'} here: what it can take isn't known"
    most = conditions.lag_events_max
    if most is not None and destination.lag_events > most:
        yield f"{name} is read {destination.lag_events} events behind; at most {most} may be"
    for key, found in destination.services.items():
        if found is None:
            yield f"{name} does not serve {key}: define it there, global and shared"
            continue
        least = conditions.healthy_percent_min
        if found.turned_percent < TURNED_UP and not is_forced:
            yield f"{name} turns {key} away itself: it is turned to {found.turned_percent} % there"
        elif not found.eligible:
            yield f"{name} has no endpoint of {key} that takes traffic"
        elif least is not None and 100 * found.eligible < least * found.backends:
            percent = 100 * found.eligible / found.backends
            yield f"{percent:.0f} % of {name}'s endpoints of {key} take traffic; {least} % must"


def unseen(destination: Destination) -> str:
    """Why nothing is known of a destination yet; '' if it is."""
    if destination.phase not in _ON_ITS_WAY:
        return ""
    return f"{destination.name} is {destination.phase} here"


def _unknown(conditions: Conditions, facts: Facts) -> str:
    """What has to be known first; '' if all is."""
    if facts.destination is not None and unseen(facts.destination):
        return unseen(facts.destination)
    if conditions.error_percent_max is None:
        return ""
    if facts.signal is None:
        return "nobody has told an error rate yet: meshd migration signal"
    age_s = _age_s(facts.signal, facts.now_ms)
    if age_s > conditions.signal_age_s_max:
        return f"the error rate was last told {age_s:.0f} s ago: meshd migration signal"
    return ""


def _age_s(signal: Signal, now_ms: int) -> float:
    return max(0, now_ms - signal.at_ms) / 1000


def ramp(level: int, to: int, over_s: float, steps: int) -> tuple[Stage, ...]:
    """Even stages from a level to another, over a time: the first at once, each held for its part
    of it. In no time there is only one.
    """
    steps = steps if over_s else 1
    levels = [level + round((to - level) * step / steps) for step in range(1, steps + 1)]
    distinct = sorted(set(levels), reverse=to < level)
    return tuple(Stage(turned_percent=one, hold_s=over_s / len(distinct)) for one in distinct)
