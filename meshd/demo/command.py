"""The command `meshd demo`.

For: its options, where its output goes, and its exit status. Not for: what the demo does
(`performance`). Invariant: with `--json` standard output gets exactly one JSON object, whatever
happens; everything for people goes to standard error then.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click
import orjson
from rich.console import Console

from meshd.demo.performance import Options, Performance
from meshd.demo.plain import PlainLines
from meshd.demo.scene import Scene
from meshd.demo.story import STEPS_TOTAL, STEPS_WITHOUT_STORY
from meshd.demo.view import can_show, watch

SEED = 7
FAILED = 1
SIGNAL_STATUS = 128
"""Shells report a death by signal as this plus the signal's number."""


@click.command()
@click.option("--check", is_flag=True, help="Unattended: no pauses, ends by itself; 1 if amiss.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep data, configuration and logs here. Else: a temporary folder, removed at the end.",
)
@click.option("--seed", type=int, default=SEED, show_default=True, help="Of the customers' dice.")
@click.option(
    "--pace",
    type=click.FloatRange(0, 10),
    default=1.0,
    show_default=True,
    help="Length of the pauses for watching; 0 for none.",
)
@click.option("--fast", is_flag=True, help="Short for --pace 0.2.")
@click.option("--no-story", is_flag=True, help="Start the clusters and leave them alone.")
@click.option("--plain", is_flag=True, help="Lines in place of the live view.")
@click.pass_context
def demo(  # noqa: PLR0913, PLR0917 one for each option
    ctx: click.Context,
    check: bool,
    as_json: bool,
    folder: Path | None,
    seed: int,
    pace: float,
    fast: bool,
    no_story: bool,
    plain: bool,
) -> None:
    """Run three clusters on this machine, send requests, break things, and watch.

    Ctrl-C ends it at any time and leaves nothing behind.
    """
    pace = 0.0 if check else 0.2 if fast else pace
    options = Options(seed=seed, pace=pace, folder=folder, stay=not check, has_story=not no_story)
    scene = Scene(STEPS_WITHOUT_STORY if no_story else STEPS_TOTAL)
    performance = Performance(options, scene)
    console = Console()
    if can_show(console) and not (plain or check or as_json):
        asyncio.run(watch(performance, console))
    else:
        scene.listeners.append(PlainLines(sys.stderr if as_json else sys.stdout))
        asyncio.run(performance.play())
    _close(performance, as_json=as_json)
    ctx.exit(_status(performance, check=check))


def _close(performance: Performance, *, as_json: bool) -> None:
    if as_json:
        text = orjson.dumps(performance.report, option=orjson.OPT_INDENT_2)
        sys.stdout.write(text.decode() + "\n")
        sys.stdout.flush()
    if performance.report["problem"] and performance.signalled is None:
        click.echo(f"Error: {performance.report['problem']}", err=True)
    for name, lines in performance.logs.items():
        click.echo(f"\nthe last lines of {name}:", err=True)
        for line in lines:
            click.echo(f"    {line}", err=True)


def _status(performance: Performance, *, check: bool) -> int:
    if performance.signalled is not None:
        # Ctrl-C is the usual end of an attended demo, and a failure of an unattended one.
        broken = not performance.scene.ok
        return SIGNAL_STATUS + performance.signalled if check else FAILED if broken else 0
    return 0 if performance.report["ok"] else FAILED
