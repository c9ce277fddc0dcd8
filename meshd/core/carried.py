"""How much of a log its link carries before a deadline, as far as answers show it.

For: what to ask for next, and how long to wait for it. Not for: asking, nor what an answer may
weigh (`runtime.reading`). Invariants: whatever the link's rate, some number of records and some
time come to be asked for that it carries, if it carries the largest record within STRETCH_MAX
deadlines; a link that is fast is soon asked for much.

As TCP finds its way: it begins with little and multiplies that with every answer, up to where none
came in time; from there on it grows by small steps, or every other answer would fail on a link that
stays slow. An answer that is given up is on its way all the same, and delays what is asked next: a
quarter is asked for then, in twice the time.
"""

from __future__ import annotations

from typing import Final, NamedTuple

RECORDS_MAX: Final = 5000
FIRST_RECORDS: Final = 2
"""Of the usual kilobyte or of the largest half megabyte."""
MULTIPLE: Final = 4
STEP: Final = 4
"""A quarter more."""
STRETCH_MAX: Final = 6.0
"""Times the usual deadline: half a minute as by default, in which 17 KB a second carry the largest
record. A connection that has died meanwhile isn't noticed before."""
LONGER: Final = 2.0
SHORTER: Final = 0.9


class Carried(NamedTuple):
    """records: that may be asked for at once; without a link, as of the own etcd, all. stretch:
    times the usual deadline that they may take. too_many: how many weren't carried when they were
    asked for last.
    """

    records: int = RECORDS_MAX
    stretch: float = 1.0
    too_many: int = MULTIPLE * RECORDS_MAX


def linked_anew(before: Carried) -> Carried:
    """What to try over a new link, which may carry less than the one before it."""
    return before._replace(records=FIRST_RECORDS)


def unanswered(before: Carried, asked: int) -> Carried:
    """What to try when no answer came in time to a question for so many records."""
    stretch = min(STRETCH_MAX, before.stretch * LONGER)
    return Carried(max(1, asked // MULTIPLE), stretch, too_many=asked)


def answered(before: Carried) -> Carried:
    """What to try after an answer to what `before` says."""
    records = before.records * MULTIPLE
    if records >= before.too_many:
        records = before.records + max(1, before.records // STEP)
    stretch = max(1.0, before.stretch * SHORTER)
    return before._replace(records=min(RECORDS_MAX, records), stretch=stretch)
