"""`python -m chaos run`: arguments in, a run or many, exit status out.

For: the command line. Not for: running (`runner`, `rows`). Invariants: nothing is started before
all that was asked for makes sense; exit status 0 is only for what was run and held.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import orjson
from rich.console import Console

from chaos.command import BAD_INPUT, BadInput
from chaos.faults import catalogue
from chaos.faults.rows import ROWS
from chaos.mesh.shape import NotPossibleError, Plan
from chaos.report.plain import conclusion
from chaos.running import index, outputs
from chaos.running.drivers import able, enter, in_turn, powers_of
from chaos.running.durations import Duration
from chaos.running.progress import Progress
from chaos.running.rows import AllRows, RowRan
from chaos.running.runner import MESH, Ran, plan_of, run
from chaos.running.views import shown
from chaos.scenarios.known import recipe
from chaos.scenarios.scenario import (
    CLUSTERS_MAX,
    CLUSTERS_MIN,
    Scenario,
    ScenarioError,
    Wish,
    settings_of,
)

AROUND_S = 40.0
"""To start a mesh and to settle: for the bar that says how long it takes."""
FOLDERS = Path("chaos-runs")
EPILOG = """\b
Examples:
  python -m chaos run smoke
  python -m chaos run isolation --clusters 5 --seed 1
  python -m chaos run fault/kill-meshd --ha
  python -m chaos run --random --clusters 3 --duration 10m --seed 7 --ha --etcd-members 3
  python -m chaos run --all

Exit status: 0 it holds; 1 it is violated, or proves nothing; 2 wrong input, or the run itself
failed (a server that doesn't start, something that can't be healed, Ctrl-C).
"""

_OUT = click.Path(dir_okay=False, writable=True, path_type=Path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What was given on the command line, beside the scenario and the mesh."""

    driver: str
    folder: Path | None
    junit: Path | None
    as_json: Path | None
    keep: bool
    plain: bool
    rows: tuple[int, ...]


@click.command(epilog=EPILOG)
@click.argument("scenario", required=False)
@click.option("--random", "is_random", is_flag=True, help="Faults drawn from the seed.")
@click.option("--all", "is_all", is_flag=True, help="Every row of the catalogue that can run here.")
@click.option(
    "--row", "rows", type=click.IntRange(1, len(ROWS)), multiple=True, help="Of --all, only these."
)
@click.option(
    "--clusters",
    type=click.IntRange(CLUSTERS_MIN, CLUSTERS_MAX),
    help="How many; the scenario chooses if it isn't given.",
)
@click.option(
    "--duration",
    type=Duration(),
    help="How long a random run breaks things, or all rows take: 90s, 10m, 1h30m.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="What is drawn, and by whom.")
@click.option("--ha", is_flag=True, help="Two meshds for each cluster.")
@click.option("--etcd-members", type=click.Choice(["1", "3"]), default="1", show_default=True)
@click.option("--brokers", is_flag=True, help="An MQTT broker for each cluster.")
@click.option(
    "--driver",
    type=click.Choice(["auto", "loopback", "namespaces"]),
    default="auto",
    show_default=True,
    help="How clusters are kept apart: network namespaces need root; loopback has fewer faults.",
)
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where history and reports go; otherwise a new one below chaos-runs.",
)
@click.option("--junit", type=_OUT, help="Write JUnit XML here, too.")
@click.option("--json", "as_json", type=_OUT, help="Write JSON here, too.")
@click.option("--keep", is_flag=True, help="Keep what servers stored and logged.")
@click.option("--plain", is_flag=True, help="Lines instead of a live picture.")
@click.pass_context
def run_(ctx: click.Context, /, scenario: str | None, **given: object) -> None:
    """Run SCENARIO on a mesh of its own: break it, heal it, and judge what was recorded."""
    wish, asked = _wish(given), _asked(given)
    _one_of(
        scenario, given["rows"], is_random=bool(given["is_random"]), is_all=bool(given["is_all"])
    )
    _is_new(asked.folder)
    try:
        # From here on this process is in a network of its own, if the driver has one.
        enter(asked.driver)
        if given["is_all"]:
            ctx.exit(_all(wish, asked))
        ctx.exit(_one("random" if given["is_random"] else str(scenario), wish, asked))
    except (ScenarioError, NotPossibleError) as error:
        raise BadInput(str(error)) from None
    except KeyboardInterrupt:
        click.echo("Interrupted", err=True)
        ctx.exit(BAD_INPUT)


def _one_of(scenario: str | None, rows: object, *, is_random: bool, is_all: bool) -> None:
    chosen = [bool(scenario), is_random, is_all]
    if rows and not is_all:
        raise BadInput("--row: goes with --all; a single fault is `run fault/NAME`")
    if sum(chosen) != 1:
        raise BadInput("run: give one of SCENARIO, --random and --all; see `list --scenarios`")


def _is_new(folder: Path | None) -> None:
    if folder is not None and folder.exists() and any(folder.iterdir()):
        raise BadInput(f"--folder {folder}: there is something in it already; name a new one")


def _wish(given: dict[str, object]) -> Wish:
    return Wish(
        seed=int(str(given["seed"])),
        clusters=int(str(given["clusters"] or 0)),
        duration_s=float(str(given["duration"] or 0)),
        is_ha=bool(given["ha"]),
        etcd_members=int(str(given["etcd_members"])),
        has_brokers=bool(given["brokers"]),
    )


def _asked(given: dict[str, object]) -> Asked:
    def path(name: str) -> Path | None:
        value = given[name]
        return value if isinstance(value, Path) else None

    return Asked(
        driver=str(given["driver"]),
        folder=path("folder"),
        junit=path("junit"),
        as_json=path("as_json"),
        keep=bool(given["keep"]),
        plain=bool(given["plain"]),
        rows=given["rows"] if isinstance(given["rows"], tuple) else (),
    )


def _one(name: str, wish: Wish, asked: Asked) -> int:
    """One scenario."""
    faults = catalogue.faults()
    made = recipe(name, faults)
    if name == "random":
        plan = Plan(
            names=(),
            is_ha=wish.is_ha,
            etcd_members=wish.etcd_members,
            has_brokers=wish.has_brokers,
        )
        powers = powers_of(asked.driver, plan)
        faults = {key: one for key, one in faults.items() if not catalogue.possible(one, powers)}
    scenario = made.make(wish, faults)
    settings_of(scenario, faults)
    folder = asked.folder or _folder(name, wish.seed)
    driver = able(
        asked.driver,
        plan_of(scenario, faults, folder / MESH),
        [faults[one] for one in scenario.faults],
    )
    ran = watched(
        scenario,
        lambda progress: run(scenario, faults, driver, folder, progress),
        asked.plain,
    )
    outputs.write(ran, json_file=asked.as_json, junit_file=asked.junit)
    outputs.tidy(ran, keep=asked.keep)
    for line in outputs.lines(ran):
        click.echo(line)
    return ran.status


def _all(wish: Wish, asked: Asked) -> int:
    """All rows."""
    folder = asked.folder or _folder("all", wish.seed)
    folder.mkdir(parents=True, exist_ok=True)

    def watch(scenario: Scenario, perform: Callable[[Progress], Ran]) -> Ran:
        ran = watched(scenario, perform, asked.plain)
        said = ran.error or ran.skipped or (conclusion(ran.judgement) if ran.judgement else "")
        click.echo(f"{scenario.name}: {said}", err=True)
        return ran

    rows = AllRows(
        wish=wish,
        drivers={one: powers_of(one) for one in in_turn(asked.driver)},
        folder=folder,
        keep=asked.keep,
        watched=watch,
    ).run(asked.rows)
    _tell_all(rows, folder, asked)
    return index.status_of_all(rows)


def _tell_all(rows: Sequence[RowRan], folder: Path, asked: Asked) -> None:
    title = "Every row of the catalogue"
    (folder / "index.html").write_text(index.page(rows, folder, title))
    raw = orjson.dumps(index.data(rows), option=orjson.OPT_INDENT_2) + b"\n"
    for file in (folder / "index.json", asked.as_json):
        if file is not None:
            file.write_bytes(raw)
    for file in (folder / "index.xml", asked.junit):
        if file is not None:
            file.write_bytes(index.junit(rows))
    Console().print(index.table(rows))
    click.echo(index.conclusion(rows))
    click.echo(f"page  {folder / 'index.html'}")


def watched(scenario: Scenario, perform: Callable[[Progress], Ran], plain: bool) -> Ran:
    """Run it while it is shown."""
    progress = Progress(
        title=f"{scenario.name}, seed {scenario.seed}", expected_s=scenario.length_s + AROUND_S
    )
    with shown(progress, plain=plain):
        return perform(progress)


def _folder(name: str, seed: int) -> Path:
    when = time.strftime("%Y%m%d-%H%M%S")
    return FOLDERS / f"{name.replace('/', '-')}-seed{seed}-{when}"
