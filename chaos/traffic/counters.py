"""How much was done so far, for people who watch a run.

For: live progress. Not for: judging, which goes by the history alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from chaos.history import Outcome


@dataclass(slots=True)
class Counters:
    """Counts of one run. behind: by meshd, how many events of peers it has yet to read, as it says
    itself. unanswered: questions, beside commands, that got no answer or a refusal. skipped: dumps
    that could not be had.
    """

    commands: Counter[Outcome] = field(default_factory=Counter)
    requests: Counter[bool] = field(default_factory=Counter)
    events: int = 0
    resets: int = 0
    tables: int = 0
    statuses: int = 0
    dumps: int = 0
    skipped: int = 0
    unanswered: int = 0
    behind: dict[str, int] = field(default_factory=dict)

    @property
    def lag_events(self) -> int:
        """How far whoever is furthest behind is behind now."""
        return max(self.behind.values(), default=0)

    def figures(self) -> Mapping[str, int]:
        """All of them, by name."""
        return {
            "commands ok": self.commands[Outcome.OK],
            "fail": self.commands[Outcome.FAIL],
            "unknown": self.commands[Outcome.UNKNOWN],
            "events told": self.events,
            "tables read": self.tables,
            "requests ok": self.requests[True],
            "failed": self.requests[False],
            "lag now": self.lag_events,
        }

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.figures().items())
