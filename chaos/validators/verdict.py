"""What a validator says.

For: all of them, and whoever shows it. Not for: judging. Invariant: a validator that looked at
nothing has judged nothing, whatever else it says.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from chaos.history import Entry
from chaos.validators.sentences import SENTENCES

VIOLATIONS_SHOWN_MAX: Final = 20
"""The first few say what is wrong; a broken log could give as many as it has events."""


class Status(StrEnum):
    """What was found."""

    HOLDS = "holds"
    VIOLATED = "violated"
    NOT_JUDGED = "not judged"


@dataclass(frozen=True, slots=True)
class Violation:
    """An invariant that doesn't hold. reason: where it doesn't. lines: of the history, as evidence,
    ascending.
    """

    invariant: str
    reason: str
    lines: tuple[int, ...]

    def __str__(self) -> str:
        name, sentence = SENTENCES[self.invariant]
        places = ", ".join(map(str, self.lines))
        return f"{self.invariant} {name} ({sentence}): {self.reason} [line {places}]"


@dataclass(frozen=True, slots=True)
class Figure:
    """A number that was measured on the way. bound: what it is held to, if it is."""

    what: str
    value: float
    unit: str
    bound: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found of one invariant. count: of all violations, of which the first are there.
    looked_at: how many things were judged, and what they are. missing: what couldn't be.
    """

    invariant: str
    violations: tuple[Violation, ...]
    count: int
    looked_at: int
    things: str
    missing: tuple[str, ...]
    figures: tuple[Figure, ...] = ()

    @property
    def status(self) -> Status:
        """In one word."""
        if self.count:
            return Status.VIOLATED
        return Status.HOLDS if self.looked_at else Status.NOT_JUDGED


@dataclass(slots=True)
class Findings:
    """What a validator has found so far. things: what it looks at."""

    invariant: str
    things: str
    looked_at: int = 0
    count: int = 0
    violations: list[Violation] = field(default_factory=list)
    missing: dict[str, None] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)

    def look(self, number: int = 1) -> None:
        """So many things were judged."""
        self.looked_at += number

    def violate(self, reason: str, *entries: Entry | None) -> None:
        """The invariant doesn't hold, and these entries show it."""
        self.count += 1
        if len(self.violations) < VIOLATIONS_SHOWN_MAX:
            lines = sorted({entry.line for entry in entries if entry is not None})
            self.violations.append(Violation(self.invariant, reason, tuple(lines)))

    def miss(self, what: str) -> None:
        """This couldn't be judged."""
        self.missing[what] = None

    def verdict(self) -> Verdict:
        """All of it."""
        return Verdict(
            self.invariant,
            tuple(self.violations),
            self.count,
            self.looked_at,
            self.things,
            tuple(self.missing),
            tuple(self.figures),
        )
