"""Where somebody stands who follows the tables.

For: the id of such a stream's messages. Not for: places in logs (`ids`), nor what changed since
(`core.table_changes`). Invariant: equal places are equal strings.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from meshd.model.errors import Problem, RejectedError
from meshd.model.ids import format_vector, parse_vector

_END: Final = re.compile(r"([0-9a-f]{16})\.([0-9]{1,15})(?:\.([0-9a-f]{16}))?\Z")


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
