"""Where somebody stands who follows the tables, or events.

For: the ids of such streams' messages. Not for: places in logs (`ids`), nor what changed since
(`core.table_changes`). Invariant: equal places are equal strings.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from meshd.model.errors import Problem, RejectedError
from meshd.model.ids import RecordHash, Vector, format_vector, parse_vector

_END: Final = re.compile(r"([0-9a-f]{16})\.([0-9]{1,15})(?:\.([0-9a-f]{16}))?\Z")
_MARK: Final = re.compile(r"[0-9a-f]{8}\Z")
_MARK_BYTES: Final = 4
"""One of four billion logs that were put back has the same by chance."""


def mark_of(record: RecordHash) -> str:
    """What tells a record, and all that lies before it in its log, from any other."""
    return record[:_MARK_BYTES].hex()


@dataclass(frozen=True, slots=True)
class EventPlace:
    """As text: a vector, and `~<mark>` behind it if there is one.

    vector: what was told last of each log. mark: of the record of the own log that its last event
    is in. A log that was put back comes to the same seq again by other events, and nobody but who
    was told the lost ones knows of them. '' for who was told nothing of that log.
    """

    vector: Vector
    mark: str = ""

    def __str__(self) -> str:
        return format_vector(self.vector) + self.end

    @property
    def end(self) -> str:
        """What its text has behind the vector."""
        return f"~{self.mark}" if self.mark else ""

    @staticmethod
    def parse(text: str) -> EventPlace:
        """Read a place, or a vector; raises RejectedError if it is neither."""
        vector, tilde, mark = text.partition("~")
        if tilde and _MARK.match(mark) is None:
            what = f"{text!r} is not a place in a stream of events"
            raise RejectedError((Problem("place", what, "bring back an id as it was told"),))
        return EventPlace(parse_vector(vector), mark)


@dataclass(frozen=True, slots=True)
class TablePlace:
    """As text: `<events_after>@<run>.<number>`, and `.<mark>` behind it if there is one.

    events_after: a vector, where the events stand that the tables come from. run: whose numbering
    it is. number: the last change that was told. mark: which services were asked for; '' for all.
    """

    events_after: str
    run: str
    number: int
    mark: str = ""

    def __str__(self) -> str:
        mark = f".{self.mark}" if self.mark else ""
        return f"{self.events_after}@{self.run}.{self.number}{mark}"

    @staticmethod
    def parse(text: str) -> TablePlace:
        """Read a place; raises RejectedError if it is anything else."""
        before, at, after = text.rpartition("@")
        found = _END.match(after)
        if not at or found is None:
            what = f"{text!r} is not a place in a stream of tables"
            raise RejectedError((Problem("place", what, "bring back an id as it was told"),))
        run, number, mark = found.groups()
        return TablePlace(format_vector(parse_vector(before)), run, int(number), mark or "")
