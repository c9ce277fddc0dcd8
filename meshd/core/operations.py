"""What an operation does next by itself.

For: the one decision of whoever leads, from how the operation stands and what is seen. Not for:
what a move does (`operating`), nor seeing anything (`runtime.operator`). Invariants: pure; the same
operation, time and facts give the same move; not knowing is a reason to wait and never to go on.

Rules, the first that holds:
1. Only what is running moves by itself.
2. A condition that doesn't hold is trouble: it pauses, or rolls back, as the operation says. So is
   a destination that is not to be seen, that lacks the service, or has no endpoint of it in.
3. What isn't known yet (no signal so far, or an old one) holds the operation where it is.
4. The stage is held for its time, by the clock of whoever leads.
5. Before a stage that turns down, what is left must be enough; else it is paused, however it was
   begun, but not where that was forced.
6. Then the next stage is reached.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from meshd.model.command import Move
from meshd.model.errors import Problem
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
class Destination:
    """The cluster that takes over, as it is seen. lag_events: how
    far behind its log is read. services: of each that moves, how many endpoints it has in the table
    and how many of them are in; None where it doesn't serve it.
    """

    name: ClusterName
    phase: Phase | None
    lag_events: int
    services: Mapping[ServiceKey, tuple[int, int] | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Signal:
    """What somebody outside measured: the percent of requests that failed. at_ms: when."""

    error_percent: float
    at_ms: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What is seen. too_little: services that would be left with too little if the subjects took no
    traffic at all (`capacity`).
    """

    now_ms: int
    destination: Destination | None = None
    signal: Signal | None = None
    too_little: Sequence[Problem] = ()


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
    if operation.progress is not Progress.RUNNING or operation.next_stage is None:
        return WAITS
    trouble = next(_trouble(operation, facts), None)
    if trouble is not None:
        is_back = operation.on_trouble is OnTrouble.ROLL_BACK
        return Next(Move.ROLL_BACK if is_back else Move.PAUSE, trouble)
    unknown = _unknown(operation.conditions, facts)
    if unknown:
        return Next(None, unknown)
    if facts.now_ms < held_until_ms(operation):
        return WAITS
    if facts.too_little and not operation.is_forced and _goes_down(operation):
        return Next(Move.PAUSE, str(facts.too_little[0]))
    return Next(Move.ADVANCE)


def held_until_ms(operation: Operation) -> int:
    """When the next stage is due at the earliest."""
    held = operation.stages[operation.stage - 1] if operation.stage else None
    return operation.since_ms + round(held.hold_s * 1000) if held is not None else 0


def _goes_down(operation: Operation) -> bool:
    return operation.kind is not OperationKind.UNDRAIN


def _trouble(operation: Operation, facts: Facts) -> Iterator[str]:
    """What speaks against the operation altogether, the first first."""
    conditions = operation.conditions
    if facts.destination is not None:
        yield from troubles_of(facts.destination, conditions)
    signal, most = facts.signal, conditions.error_percent_max
    is_fresh = signal is not None and _age_s(signal, facts.now_ms) <= conditions.signal_age_s_max
    if signal is not None and most is not None and is_fresh and signal.error_percent > most:
        yield f"{signal.error_percent:g} % of requests fail, as was told; at most {most:g} % may"


def troubles_of(destination: Destination, conditions: Conditions) -> Iterator[str]:
    """What speaks against handing over to a cluster."""
    name = destination.name
    if destination.phase not in {Phase.READY, *_ON_ITS_WAY}:
        yield f"{name} is {destination.phase or 'not followed'} here: what it can take isn't known"
    most = conditions.lag_events_max
    if most is not None and destination.lag_events > most:
        yield f"{name} is read {destination.lag_events} events behind; at most {most} may be"
    for key, found in destination.services.items():
        if found is None:
            yield f"{name} does not serve {key}: define it there, global and shared"
            continue
        backends, eligible = found
        least = conditions.healthy_percent_min
        if not eligible:
            yield f"{name} has no endpoint of {key} that takes traffic"
        elif least is not None and 100 * eligible < least * backends:
            percent = 100 * eligible / backends
            yield f"{percent:.0f} % of {name}'s endpoints of {key} take traffic; {least} % must"


def _unknown(conditions: Conditions, facts: Facts) -> str:
    """What has to be known first; '' if all is."""
    if facts.destination is not None and facts.destination.phase in _ON_ITS_WAY:
        return f"{facts.destination.name} is {facts.destination.phase} here"
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
    """Even stages from a level to another, over a time; the first at once. In no time there is only
    one.
    """
    steps = steps if over_s else 1
    levels = [level + round((to - level) * step / steps) for step in range(1, steps + 1)]
    distinct = sorted(set(levels), reverse=to < level)
    return tuple(Stage(turned_percent=one, hold_s=over_s / len(distinct)) for one in distinct)
