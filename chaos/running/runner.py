"""Runs a scenario: a mesh, traffic, faults in their windows, and a history that is judged.

For: `python -m chaos run`. Not for: judging (`validators`), nor what is done to whom (`scenarios`).
Invariants: whatever happens, what was broken is healed, the history has an end that says why, and
a run that failed for other reasons than meshd's is none that passed.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from chaos import journal
from chaos.evidence import Evidence
from chaos.faults import catalogue
from chaos.history import RunEnded, RunStarted
from chaos.mesh.choose import running_mesh
from chaos.mesh.shape import Mesh, NotPossibleError, Plan
from chaos.recorder import Recorder
from chaos.running.held import HeldWriter, Place
from chaos.running.interrupts import cancelled_by_signals
from chaos.running.nemesis import Nemesis
from chaos.running.progress import Progress, told
from chaos.running.pulse import pulse
from chaos.running.versions import versions
from chaos.scenarios.scenario import Faults, Scenario, settings_of
from chaos.traffic.traffic import Rates, Traffic
from chaos.validators.judging import Judgement, judge

HISTORY = "history.jsonl"
MESH = "mesh"
"""Beside the history: what the mesh's processes keep and write."""
SETTLE_TIMEOUT_S = 60.0
"""After the last fault healed all have to come to the same within `Bounds.converge_s`; whoever
hasn't by then is recorded as it is."""
HOLDS, FAILS, BROKEN = 0, 1, 2


@dataclass(slots=True)
class Ran:
    """A run that is over. error: why it proves nothing though it might have; begun: faults, in
    their order; toothless: those whose effect wasn't seen; skipped: why nothing was run at all.
    """

    scenario: Scenario
    history: Path
    driver: str = ""
    error: str = ""
    skipped: str = ""
    interrupted: bool = False
    begun: list[str] = field(default_factory=list)
    toothless: list[str] = field(default_factory=list)
    judgement: Judgement | None = None
    evidence: Evidence | None = None
    cut: str = ""
    took_s: float = 0.0

    @property
    def status(self) -> int:
        """The exit status."""
        if self.error or self.skipped or self.judgement is None:
            return BROKEN
        return HOLDS if self.judgement.holds else FAILS


def run(scenario: Scenario, faults: Faults, driver: str, folder: Path, progress: Progress) -> Ran:
    """Run it in this folder, and judge it. It raises nothing but what is a bug of this package."""
    folder.mkdir(parents=True, exist_ok=True)
    ran = Ran(scenario, folder / HISTORY)
    progress.windows = len(scenario.windows)
    with asyncio.Runner() as loop:
        loop.run(_record(ran, faults, driver, progress))
    ran.took_s = progress.took_s
    if not ran.skipped:
        progress.enter("judging")
        _judge(ran)
    return ran


async def _record(ran: Ran, faults: Faults, driver: str, progress: Progress) -> None:
    """Run it, with a history that has an end in any case."""
    with HeldWriter(ran.history) as writer:
        recorder = Recorder(writer)
        header = writer.take(recorder.now_ns())
        try:
            with cancelled_by_signals(progress.tell) as seen:
                try:
                    await _run(_Run(ran, faults, driver, writer, recorder, progress, header))
                except asyncio.CancelledError:
                    if not seen.by:
                        raise
                    ran.interrupted, ran.error = True, f"interrupted by {seen.by}"
        except NotPossibleError as error:
            ran.skipped = str(error)
        except Exception as error:  # noqa: BLE001 the run is over, and its record says why
            ran.error = told(error)
        if not header.is_known:
            writer.fill(header, _header(ran, header.at_ns, {}))
        recorder.note(RunEnded(at_ns=recorder.now_ns(), error=ran.error or ran.skipped))


@dataclass(frozen=True, slots=True)
class _Run:
    """What a run has while it goes on."""

    ran: Ran
    faults: Faults
    driver: str
    writer: HeldWriter
    recorder: Recorder
    progress: Progress
    header: Place


async def _run(one: _Run) -> None:
    scenario, progress = one.ran.scenario, one.progress
    plan = plan_of(scenario, one.faults, one.ran.history.parent / MESH)
    plan.folder.mkdir(parents=True, exist_ok=True)
    takes_part = await versions()
    progress.enter(f"starting {len(scenario.names)} clusters")
    async with running_mesh(plan, driver=one.driver, listener=one.recorder.process_changed) as mesh:
        one.ran.driver = mesh.driver
        one.writer.fill(one.header, _header(one.ran, one.header.at_ns, takes_part))
        _check(scenario, one.faults, mesh)
        chance = random.Random(f"traffic {scenario.seed}")  # noqa: S311 it is to be drawn again
        traffic = Traffic(mesh, one.recorder, chance, Rates(**scenario.rates))
        progress.figures = lambda: str(traffic.counters)
        nemesis = Nemesis(
            mesh=mesh,
            writer=one.writer,
            recorder=one.recorder,
            faults=one.faults,
            seed=scenario.seed,
            progress=progress,
            begun=one.ran.begun,
            toothless=one.ran.toothless,
        )
        async with pulse(one.recorder, one.ran.history.parent), traffic.running():
            await traffic.dump()
            for number, window in scenario.due(time.monotonic):
                progress.window = number
                progress.enter(f"window {number} of {progress.windows}: {window}")
                await nemesis.perform(window)
            progress.enter("settling")
            if not await traffic.settle(SETTLE_TIMEOUT_S):
                progress.tell(f"not at rest after {SETTLE_TIMEOUT_S:g} s: {traffic.unrest}")


def plan_of(scenario: Scenario, faults: Faults, folder: Path) -> Plan:
    """The mesh that it wants."""
    settings = settings_of(scenario, faults)
    return Plan(
        names=scenario.names,
        is_ha=scenario.is_ha,
        etcd_members=scenario.etcd_members,
        has_brokers=scenario.has_brokers,
        has_fixed_shares=scenario.has_fixed_shares,
        settings=tuple(f"{key}={as_setting(value)}" for key, value in settings.items()),
        folder=folder,
    )


def as_setting(value: object) -> str:
    """As `--set` takes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _check(scenario: Scenario, faults: Faults, mesh: Mesh) -> None:
    """Raise NotPossibleError if this mesh can't do something that is to be done."""
    reasons = {name: catalogue.possible(faults[name], mesh.powers) for name in scenario.faults}
    lacking = [f"{name}: {why}" for name, why in reasons.items() if why]
    if lacking:
        raise NotPossibleError(f"{'; '.join(lacking)} (driver {mesh.driver})")


def _header(ran: Ran, at_ns: int, takes_part: dict[str, str]) -> RunStarted:
    driver = {"driver": ran.driver} if ran.driver else {}
    return RunStarted(
        at_ns=at_ns,
        seed=ran.scenario.seed,
        scenario=ran.scenario.name,
        versions=takes_part | driver,
        clusters=ran.scenario.names,
        bounds=replace(ran.scenario.bounds),
    )


def _judge(ran: Ran) -> None:
    history = journal.read(ran.history)
    ran.cut, ran.evidence = history.cut, Evidence(history.entries)
    ran.judgement = judge(ran.evidence, ran.scenario.needed)
