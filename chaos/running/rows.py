"""All rows of the catalogue, each in a run of its own or several.

For: `python -m chaos run --all`. Not for: a single scenario (`runner`). Invariant: a row of which
nothing could be run is skipped with the reason, and never counted as one that passed; so is a
fault of a row that was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path

from chaos.faults import catalogue
from chaos.faults.rows import ROWS, Row
from chaos.mesh.shape import Power
from chaos.report.plain import conclusion
from chaos.running import outputs
from chaos.running.progress import Progress
from chaos.running.runner import Ran, run
from chaos.scenarios.each import of_faults
from chaos.scenarios.scenario import Faults, Scenario, ScenarioError, Wish, agreed

BUDGET_S = 3600.0
"""An hour for all of them, as a person lets it run over lunch."""
SCENARIO_S_MAX = 240.0
"""A row of more faults than fit into this is cut into several runs: a mesh that something ruined
ruins no more than one of them."""
AROUND_S = 45.0
"""To start a mesh, to settle and to judge; so much at least must be left for another run."""


class Status(StrEnum):
    """What became of a row."""

    PASSED = "passed"
    VIOLATED = "violated"
    PROVES_NOTHING = "proves nothing"
    FAILED = "failed"
    """For other reasons than meshd's."""
    SKIPPED = "skipped"


WORST_FIRST = (Status.VIOLATED, Status.FAILED, Status.PROVES_NOTHING, Status.PASSED)


@dataclass(slots=True)
class RowRan:
    """A row, and what became of it. skipped: by fault, why it wasn't run."""

    row: Row
    runs: list[Ran] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    reason: str = ""

    @property
    def status(self) -> Status:
        """The worst of its runs."""
        found = {status_of(ran) for ran in self.runs}
        return next((one for one in WORST_FIRST if one in found), Status.SKIPPED)

    @property
    def faults(self) -> list[str]:
        """Those that were run."""
        return list(dict.fromkeys(fault for ran in self.runs for fault in ran.begun))

    @property
    def told(self) -> str:
        """Why it has this status, in a line."""
        for ran in self.runs:
            if status_of(ran) is self.status and self.status is not Status.PASSED:
                said = ran.error or (conclusion(ran.judgement) if ran.judgement else "")
                return f"{said} {'; '.join(ran.toothless)}".strip()
        if self.status is Status.SKIPPED:
            return self.reason or "; ".join(dict.fromkeys(self.skipped.values()))
        return ""

    @property
    def took_s(self) -> float:
        """All of its runs."""
        return sum(ran.took_s for ran in self.runs)


def status_of(ran: Ran) -> Status:
    """What a run says of its row."""
    if ran.skipped:
        return Status.SKIPPED
    if ran.error or ran.judgement is None:
        return Status.FAILED
    if ran.judgement.violated:
        return Status.VIOLATED
    return Status.PROVES_NOTHING if ran.judgement.absent else Status.PASSED


@dataclass(frozen=True, slots=True, kw_only=True)
class AllRows:
    """How they are to be run. drivers: which may be used and what each can do, the one that can
    most first. watched: makes what shows a run.
    """

    wish: Wish
    drivers: Mapping[str, frozenset[Power]]
    folder: Path
    keep: bool
    watched: Callable[[Scenario, Callable[[Progress], Ran]], Ran]

    def run(self, numbers: Collection[int] = ()) -> list[RowRan]:
        """All rows, or those of these numbers, in order, until the time given for it is used up."""
        until_s = time.monotonic() + (self.wish.duration_s or BUDGET_S)
        found: list[RowRan] = []
        for row in (one for one in ROWS if not numbers or one.number in numbers):
            found.append(self._row(row, until_s))
            if found[-1].runs and found[-1].runs[-1].interrupted:
                break
        return found

    def _row(self, row: Row, until_s: float) -> RowRan:
        reasons = {one: catalogue.possible(row, powers) for one, powers in self.drivers.items()}
        done = RowRan(row, reason="" if "" in reasons.values() else next(iter(reasons.values())))
        if done.reason:
            return done
        faults = {fault.name: fault for fault in catalogue.faults_of(row)}
        groups = [
            (driver, chosen)
            for driver, names in self._by_driver(faults, done).items()
            for chosen in grouped(names, faults, self.wish)
        ]
        for number, (driver, chosen) in enumerate(groups, 1):
            name = f"row-{row.number:02}" + (f"-{number}" if len(groups) > 1 else "")
            scenario = of_faults(name, row.title, chosen, self.wish, faults)
            if time.monotonic() + scenario.length_s + AROUND_S > until_s:
                why = "skipped: the time given for all rows is used up"
                done.skipped |= dict.fromkeys(chosen, why)
                continue
            ran = self.watched(scenario, partial(self._run, scenario, faults, driver))
            done.runs.append(ran)
            if ran.interrupted:
                break
        return done

    def _by_driver(self, faults: Faults, done: RowRan) -> Mapping[str, list[str]]:
        """By the first driver that can do them; what none can is skipped."""
        found: dict[str, list[str]] = {driver: [] for driver in self.drivers}
        for name, fault in faults.items():
            reasons = {one: catalogue.possible(fault, it) for one, it in self.drivers.items()}
            able = [driver for driver, why in reasons.items() if not why]
            if able:
                found[able[0]].append(name)
            else:
                done.skipped[name] = next(iter(reasons.values()))
        return found

    def _run(self, scenario: Scenario, faults: Faults, driver: str, progress: Progress) -> Ran:
        ran = run(scenario, faults, driver, self.folder / scenario.name, progress)
        outputs.write(ran, json_file=None, junit_file=None)
        outputs.tidy(ran, keep=self.keep)
        # All that was recorded of an hour doesn't fit into memory.
        ran.evidence = None
        return ran


def grouped(names: Sequence[str], faults: Faults, wish: Wish) -> list[list[str]]:
    """Which faults share a run: those that want the same mesh and settings, as many as fit."""
    groups: list[list[str]] = []
    for name in names:
        for group in groups:
            if (
                _agree(name, group, faults)
                and _length_s([*group, name], faults, wish) <= SCENARIO_S_MAX
            ):
                group.append(name)
                break
        else:
            groups.append([name])
    return groups


def _agree(name: str, group: Sequence[str], faults: Faults) -> bool:
    mesh = frozenset({Power.HA, Power.MEMBERS, Power.BROKER})
    if any(faults[name].needs & mesh != faults[other].needs & mesh for other in group):
        return False
    try:
        agreed([*group, name], faults)
    except ScenarioError:
        return False
    return True


def _length_s(names: Sequence[str], faults: Faults, wish: Wish) -> float:
    return of_faults("", "", names, wish, faults).length_s
