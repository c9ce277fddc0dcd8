"""What a run of the simulator counts, and how it says that an invariant broke.

For: both rings. Not for: any check itself. Invariant: a check that is not counted was not made.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


class BrokenError(AssertionError):
    """An invariant of the design, section 9, does not hold."""

    def __init__(self, invariant: str, reason: str) -> None:
        super().__init__(f"{invariant}: {reason}")
        self.invariant = invariant


@dataclass(slots=True)
class Tally:
    """checks: by invariant. sometimes: what really happened, and in how many schedules or times."""

    schedules: int = 0
    checks: Counter[str] = field(default_factory=Counter)
    sometimes: Counter[str] = field(default_factory=Counter)

    def hold(self, invariant: str, holds: bool, reason: str) -> None:
        """Count one check; raises BrokenError if it fails."""
        self.checks[invariant] += 1
        if not holds:
            raise BrokenError(invariant, reason)

    def saw(self, what: str, times: int = 1) -> None:
        """Count something that has to happen sometimes, or the schedules prove little."""
        if times:
            self.sometimes[what] += times
