"""How long to wait before the next try.

For: waits whose count lives in a state machine. Not for: plain retries, which are tenacity's.
Invariant: the delay never exceeds the cap and, for a chance above 0, is never 0.
"""

from __future__ import annotations

DOUBLINGS_MAX = 16


def delay_s(attempt: int, first_s: float, cap_s: float, chance: float) -> float:
    """Exponential delay with jitter: between half of the n-th step and the whole of it.

    chance: from 0 to 1, passed in so that this stays pure. Half is kept so that a crowd that lost
    the same peer at once does not come back at once, and none comes back immediately.
    """
    step_s = min(cap_s, first_s * 2.0 ** min(attempt, DOUBLINGS_MAX))
    return step_s * (0.5 + chance / 2)
