"""What the answers to an endpoint's probes come to.

For: one endpoint's answers, one by one. Not for: asking (`runtime.prober`), nor who is asked
(`probing`). Invariants: nothing is out for lack of knowledge; one answer alone changes nothing that
`rise` or `fall` ask more for; an endpoint that comes and goes is let in so often and no oftener.

Rules:
1. unknown until `rise` answers in a row are good (passing) or `fall` in a row are bad (failing);
   the same two thresholds lead from one to the other.
2. An endpoint that would come back from failing for the RETURNS_MAXth time within RETURNS_WINDOW_S
   is flapping instead, which is out too.
3. It is passing again once its answers have been good for HOLD_S without a bad one, and at least
   `rise` of them; then its returns are forgotten. `fall` bad ones in a row make it failing.
4. Who takes over begins with the result that was recorded, and with nothing counted: a hold begins
   anew, a flap takes as many returns as before.
"""

from __future__ import annotations

from typing import NamedTuple

from meshd.model.probe import ProbeResult

RETURNS_MAX = 3
"""The third time is no accident."""
RETURNS_WINDOW_S = 600.0
"""A restart that fails is tried again within minutes by whoever supervises it."""
HOLD_S = 60.0
"""What was well for a minute has outlived most of what dies at its start."""


class Health(NamedTuple):
    """What is known of one endpoint. good, bad: answers in a row. returns_s: when it came back from
    failing. good_since_s: when the good answers in a row began.
    """

    result: ProbeResult = ProbeResult.UNKNOWN
    good: int = 0
    bad: int = 0
    returns_s: tuple[float, ...] = ()
    good_since_s: float = 0.0


def answered(health: Health, rise: int, fall: int, now_s: float, *, is_good: bool) -> Health:
    """What one more answer makes of it."""
    return _good(health, rise, now_s) if is_good else _bad(health, fall)


def _bad(health: Health, fall: int) -> Health:
    health = health._replace(good=0, bad=health.bad + 1)
    return health._replace(result=ProbeResult.FAILING) if health.bad >= fall else health


def _good(health: Health, rise: int, now_s: float) -> Health:
    since_s = now_s if health.good == 0 else health.good_since_s
    health = health._replace(good=health.good + 1, bad=0, good_since_s=since_s)
    if health.good < rise:
        return health
    match health.result:
        case ProbeResult.FAILING:
            recent = tuple(at for at in health.returns_s if now_s - at < RETURNS_WINDOW_S)
            returns_s = (*recent, now_s)
            is_flapping = len(returns_s) >= RETURNS_MAX
            result = ProbeResult.FLAPPING if is_flapping else ProbeResult.PASSING
            return health._replace(result=result, returns_s=returns_s)
        case ProbeResult.FLAPPING:
            if now_s - health.good_since_s < HOLD_S:
                return health
            return health._replace(result=ProbeResult.PASSING, returns_s=())
        case _:
            return health._replace(result=ProbeResult.PASSING)
