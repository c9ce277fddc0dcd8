"""What there is to tell: steps, narration, findings, as they happen.

For: the one record of the demo's run that the live view, the plain lines and the report are made
from. Not for: drawing or printing. Invariant: nothing that was told is ever changed, only added to.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from meshd.demo.tally import Recent, Tally


class Tone(StrEnum):
    """What kind of a line it is."""

    STEP = "step"
    SAY = "say"
    DONE = "done"
    GOOD = "good"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the narration. at_s: since the demo began."""

    at_s: float
    tone: Tone
    text: str


@dataclass(frozen=True, slots=True)
class Finding:
    """An expectation and what came of it. detail: the facts that decided it."""

    what: str
    ok: bool
    detail: str


@dataclass(slots=True)
class Step:
    """One step of the story. requests: what was sent to measure by, under what it was to show.
    meanwhile: the traffic that never stops. timings: seconds until something was so.
    """

    number: int
    name: str
    title: str
    began_s: float
    did: list[str] = field(default_factory=list)
    requests: dict[str, Tally] = field(default_factory=dict)
    meanwhile: Tally = field(default_factory=Tally)
    timings: dict[str, float] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    ended_s: float | None = None

    @property
    def ok(self) -> bool:
        """Whether everything that was expected came true."""
        return all(finding.ok for finding in self.findings)


class Scene:
    """The story so far."""

    def __init__(self, steps_total: int) -> None:
        self.steps_total = steps_total
        self.steps: list[Step] = []
        self.lines: list[Line] = []
        self.recent = Recent()
        self.listeners: list[Callable[[Line], None]] = []
        self._began_s = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the demo began."""
        return time.monotonic() - self._began_s

    @property
    def step(self) -> Step | None:
        """The step that is played, or was last."""
        return self.steps[-1] if self.steps else None

    def begin_step(self, name: str, title: str) -> Step:
        """Begin the next step."""
        step = Step(len(self.steps) + 1, name, title, self.elapsed_s)
        self.steps.append(step)
        self.tell(Tone.STEP, f"{step.number}/{self.steps_total} {title}")
        return step

    def tell(self, tone: Tone, text: str) -> None:
        """Add a line."""
        line = Line(self.elapsed_s, tone, text)
        self.lines.append(line)
        for listener in self.listeners:
            listener(line)

    def say(self, text: str) -> None:
        """Add a line of narration."""
        self.tell(Tone.SAY, text)

    def did(self, text: str) -> None:
        """Add a line about what the demo did to the mesh."""
        if self.step is not None:
            self.step.did.append(text)
        self.tell(Tone.DONE, text)

    def find(self, finding: Finding) -> None:
        """Add an expectation with its outcome."""
        if self.step is not None:
            self.step.findings.append(finding)
        detail = f": {finding.detail}" if finding.detail else ""
        self.tell(Tone.GOOD if finding.ok else Tone.BAD, finding.what + detail)

    @property
    def ok(self) -> bool:
        """Whether everything that was expected so far came true."""
        return all(step.ok for step in self.steps)
