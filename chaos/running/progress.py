"""How far a run is, and what it told on the way.

For: the runner, which writes it, and views, which show it. Not for: what is recorded (`history`).
Invariant: showing it changes nothing of the run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field


def told(error: BaseException) -> str:
    """An error in one line; of a group, all that is in it."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(dict.fromkeys(map(told, error.exceptions)))
    return f"{type(error).__name__}: {error}".rstrip(": ")


@dataclass(slots=True)
class Progress:
    """Of one run. phase: what goes on now. window, windows: how manieth, of how many. broken: what
    is broken now. expected_s: how long it takes, about. figures: of the traffic, in words. tell: is
    called with every line.
    """

    title: str = ""
    phase: str = ""
    window: int = 0
    windows: int = 0
    broken: list[str] = field(default_factory=list)
    expected_s: float = 0.0
    began_s: float = field(default_factory=time.monotonic)
    figures: Callable[[], str] = field(default=lambda: "")
    tell: Callable[[str], None] = field(default=lambda _: None)

    @property
    def took_s(self) -> float:
        """How long it has been going on."""
        return time.monotonic() - self.began_s

    def enter(self, phase: str) -> None:
        """Another phase begins."""
        self.phase = phase
        self.tell(phase)
