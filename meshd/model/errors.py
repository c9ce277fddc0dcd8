"""Errors, classed by how one reacts to them.

For: everything that can go wrong between meshd and the world. Not for: results that are
part of normal work (a lost compare-and-swap, a duplicate record), which are return values.
Invariant: each class names one reaction; a driver's own exception never leaves its edge.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with an input.

    where: a path into the input (`services[3].ports[0].port`, `meshd.yaml:12`).
    what: what is wrong with it. remedy: what to do about it.
    """

    where: str
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text} ({self.remedy})" if self.remedy else text


SHOWN_CHARS_MAX = 80
"""How much of a wrong value an error repeats: enough to find it, too little to flood a log."""


def shown(value: object) -> str:
    """A value of unknown origin for a message: short, and whatever the value is, never an error."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):
        # Nested deeper than Python can follow, or a number longer than it writes out.
        text = f"something unprintable of type {type(value).__name__}"
    return shortened(text)


def shortened(text: str) -> str:
    """The beginning of a text of unknown origin."""
    return text if len(text) <= SHOWN_CHARS_MAX else text[:SHOWN_CHARS_MAX] + "…"


class MeshdError(Exception):
    """Anything that meshd raises on purpose."""


class TransientError(MeshdError):
    """It did not happen and may work later: wait and try again."""


class OutcomeUnknownError(MeshdError):
    """A write was sent and its answer was lost: it counts 0 or 1 times. Look before you repeat."""


class CompactedError(MeshdError):
    """The wanted revision is gone from etcd's history. Read the log's keys by range instead.

    compact_revision: the oldest revision that can still be watched.
    """

    def __init__(self, compact_revision: int) -> None:
        super().__init__(f"history before revision {compact_revision} is compacted")
        self.compact_revision = compact_revision


class DeniedError(MeshdError):
    """Credentials are missing, wrong or not enough. Retry slowly; a person must act."""


class NoSpaceError(MeshdError):
    """etcd is over its quota: reads work, writes don't, until a person or a chore makes room."""


class CorruptError(MeshdError):
    """Bytes that are not what they claim to be. The log they came from stops here.

    where: the key or field. reason: what is wrong with it.
    """

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: {reason}")
        self.where = where
        self.reason = reason


class RejectedError(MeshdError):
    """A command, file or setting that can't be accepted. Repeating it changes nothing.

    problems: all of them at once, never only the first.
    """

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.problems = problems


class MovedError(RejectedError):
    """What a request was decided on is no longer how it is: look again, then decide again."""


class NotFoundError(MeshdError):
    """The thing that a request names isn't there."""


class OverloadedError(MeshdError):
    """A bounded queue is full. Try again after `retry_after_s`."""

    def __init__(self, what: str, retry_after_s: float) -> None:
        super().__init__(f"{what} is full; try again in {retry_after_s:g} s")
        self.retry_after_s = retry_after_s


class FatalError(MeshdError):
    """meshd can't go on and a person must act: a clear message, then exit status 1."""
