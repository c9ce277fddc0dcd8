"""`python -m chaos.mesh`: look at a mesh file, try its commands one by one, undo what is left.

For: whoever writes such a file, before a run uses it. Not for: scenarios (`python -m chaos run`).
Invariant: what `do` has done is undone when it ends, however it ends.
"""

from __future__ import annotations

import asyncio
import random
import signal
from pathlib import Path

import click

from chaos.faults import catalogue
from chaos.faults.fault import Fault, Stage
from chaos.mesh.attached import AttachedMesh, attached, commanding_of, powers_of
from chaos.mesh.commanding import CommandError, NotUndoneError, RefusedError, undo_all
from chaos.mesh.mesh_file import UNDONE_BY, MeshFileError, Target, Verb, targets
from chaos.mesh.undoing import UndoFileError, UndoList

FAILED, BAD_INPUT, SIGNAL_STATUS = 1, 2, 128
HOLD_S = 10.0
BITE_WITHIN_S = 60.0
"""A mesh with the default settings takes 10 s to see that a peer is silent."""

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_PROBLEMS = (MeshFileError, UndoFileError, RefusedError)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Break and mend a mesh that you run, by the commands of a mesh file (chaos/README.md)."""


@cli.command()
@click.argument("file", type=_FILE)
def check(file: Path) -> None:
    """Say what FILE allows: every target, and every command that would be run for it."""
    commanding = commanding_of(file, click.echo, dry_run=True)
    powers = ", ".join(sorted(powers_of(commanding))) or "none"
    click.echo(f"powers: {powers}")
    for target in targets(commanding.file):
        for verb in Verb:
            if commanding.can(verb, target):
                commanding.do(verb, target)


@cli.command("do")
@click.argument("file", type=_FILE)
@click.argument("verb", type=click.Choice([str(verb) for verb in UNDONE_BY]))
@click.argument("target")
@click.argument("peer", default="")
@click.option("--for", "hold_s", type=click.FloatRange(0, 86_400), default=HOLD_S, metavar="S")
@click.option("--dry-run", is_flag=True, help="Print each command instead of running it.")
def do(file: Path, verb: str, target: str, peer: str, *, hold_s: float, dry_run: bool) -> None:
    """Do VERB to TARGET (as west/meshd-1, or two clusters), wait, and undo it; also on Ctrl-C."""
    aim = Target(target, peer=peer) if peer else Target.of_server(target)
    number = asyncio.run(_do(file, Verb(verb), aim, 0.0 if dry_run else hold_s, dry_run=dry_run))
    if number is not None:
        click.get_current_context().exit(SIGNAL_STATUS + number)


async def _do(
    file: Path, verb: Verb, target: Target, hold_s: float, *, dry_run: bool
) -> signal.Signals | None:
    """Returns the signal that ended it, if one did."""
    asked: asyncio.Queue[signal.Signals] = asyncio.Queue(maxsize=1)
    loop = asyncio.get_running_loop()

    def take(number: signal.Signals) -> None:
        if asked.empty():
            asked.put_nowait(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, take, number)
    async with attached(file, folder=file.parent, dry_run=dry_run, say=click.echo) as mesh:
        await asyncio.to_thread(mesh.commanding.do, verb, target)
        if dry_run:
            mesh.commanding.do(UNDONE_BY[verb], target)
        try:
            async with asyncio.timeout(hold_s):
                return await asked.get()
        except TimeoutError:
            return None


@cli.command()
@click.argument("file", type=_FILE)
@click.argument("name")
@click.argument("cluster")
@click.option("--for", "hold_s", type=click.FloatRange(0, 86_400), default=HOLD_S, metavar="S")
@click.option("--dry-run", is_flag=True, help="Print each command instead of running it.")
def fault(file: Path, name: str, cluster: str, *, hold_s: float, dry_run: bool) -> None:
    """Inject the fault NAME of the catalogue into CLUSTER, see it bite, wait, heal it."""
    try:
        asyncio.run(_fault(file, name, cluster, hold_s, dry_run=dry_run))
    except asyncio.CancelledError:
        click.get_current_context().exit(SIGNAL_STATUS + signal.SIGTERM)


async def _fault(file: Path, name: str, cluster: str, hold_s: float, *, dry_run: bool) -> None:
    try:
        kind = catalogue.named(name)
    except KeyError as error:
        raise RefusedError(str(error.args[0])) from None
    async with attached(file, folder=file.parent, dry_run=dry_run, say=click.echo) as mesh:
        _check_fault(mesh, catalogue.possible(kind, mesh.powers), cluster)
        one, stage = kind(), Stage(mesh=mesh, victims=[cluster], chance=random.Random(1))  # noqa: S311 which moment it takes
        try:
            await one.inject(stage)
            if not dry_run:
                click.echo(f"it bit: {await _bite(one, stage)}")
                await asyncio.sleep(hold_s)
        finally:
            await one.heal(stage)


async def _bite(one: Fault, stage: Stage) -> str:
    try:
        async with asyncio.timeout(BITE_WITHIN_S):
            return await one.bit(stage)
    except TimeoutError:
        what = f"{one.name} has no effect that is seen within {BITE_WITHIN_S:g} s"
        raise CommandError(f"{what}: look whether its commands do what they should") from None


def _check_fault(mesh: AttachedMesh, why_not: str, cluster: str) -> None:
    if cluster not in mesh.clusters:
        raise RefusedError(f"there is no cluster {cluster}; there are {', '.join(mesh.clusters)}")
    if why_not:
        raise RefusedError(f"{why_not}; give the commands for it")
    entries = [meshd.entry for one in mesh.clusters.values() for meshd in one.meshds]
    if any(entry.url.startswith("https") or entry.token() for entry in entries):
        raise RefusedError("faults are seen to bite by plain HTTP without a token; use `do`")


@cli.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def undo(file: Path) -> None:
    """Undo what a run that was killed has left; FILE is its list, beside the mesh file."""
    left = UndoList.read(file)
    if not len(left):
        click.echo(f"there is nothing to undo in {file}")
    undo_all(left, click.echo)


def main() -> None:
    """Run the command line; every problem is one message."""
    try:
        cli(standalone_mode=True)
    except _PROBLEMS as error:
        click.echo(f"Error: {error}", err=True)
        raise SystemExit(BAD_INPUT) from None
    except (CommandError, NotUndoneError) as error:
        click.echo(f"Error: {error}", err=True)
        raise SystemExit(FAILED) from None


if __name__ == "__main__":
    main()
