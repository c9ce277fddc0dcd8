"""How much of a log its link carries before a deadline, as far as answers show it.

For: what to ask for next, and how long to wait for it. Not for: asking, nor what an answer may
weigh (`runtime.reading`). Invariants: whatever the link's rate, some number of records and some
time come to be asked for that it carries, if it carries the largest record within STRETCH_MAX
deadlines; a link that is fast again is soon asked for much.

A link is slow, and not dead, where questions of a few bytes are answered and this one isn't. Each
such answer that doesn't come in time costs a deadline, and as it is on its way already, some of
what the link carries in the next one. So the first steps are large: a quarter of the records, in
twice the time. Back up they are small, or every other answer would fail on a link that stays slow.
"""

from __future__ import annotations

from typing import Final, NamedTuple

RECORDS_MAX: Final = 5000
FEWER: Final = 4
MORE: Final = 4
"""A quarter of the records after an answer that didn't come, and a quarter more after one that
did."""
STRETCH_MAX: Final = 6.0
"""Times the usual deadline: half a minute as by default, in which 17 KB a second carry the largest
record. A connection that has died meanwhile isn't noticed before."""
LONGER: Final = 2.0
SHORTER: Final = 0.9


class Carried(NamedTuple):
    """records: that may be asked for at once. stretch: times the usual deadline that they may
    take.
    """

    records: int = RECORDS_MAX
    stretch: float = 1.0


def unanswered(before: Carried, asked: int) -> Carried:
    """What to try when no answer came in time to a question for so many records."""
    return Carried(max(1, asked // FEWER), min(STRETCH_MAX, before.stretch * LONGER))


def answered(before: Carried) -> Carried:
    """What to try after an answer to what `before` says."""
    records = min(RECORDS_MAX, before.records + max(1, before.records // MORE))
    return Carried(records, max(1.0, before.stretch * SHORTER))
