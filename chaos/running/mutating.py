"""`python -m chaos mutate`: takes away a defence at a time, and sees whether the suite notices.

For: trusting the suite. Not for: what is taken away (`chaos.mutations`). Invariants: it is always a
copy that is changed and run; a mutation that nobody noticed is told as one that survived, and a run
that failed for other reasons as neither.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

import click
import orjson
from rich.console import Console
from rich.table import Table

import chaos
from chaos.command import BAD_INPUT, BadInput
from chaos.mutations import MUTATIONS, Mutation, MutationError, fits, mutated_copy

ROOT = Path(chaos.__file__).resolve().parent.parent
RUN_TIMEOUT_S = 600.0
"""A scenario that is named here takes one or two minutes."""


class Fate(StrEnum):
    """What became of a mutation."""

    CAUGHT = "caught"
    """By an invariant that is to catch it."""
    ELSEWHERE = "caught elsewhere"
    """By another one."""
    NOTHING = "proves nothing"
    """The run didn't hold, and no invariant says why."""
    SURVIVED = "survived"
    FAILED = "failed"
    """The run itself failed, which says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A mutation that was run. by: invariants that were violated. told: the first of what was."""

    name: str
    defence: str
    command: str
    wanted: tuple[str, ...]
    fate: Fate
    by: tuple[str, ...]
    told: str
    took_s: float


@click.command()
@click.option("--only", multiple=True, metavar="NAME", help="Only this one, or these.")
@click.option("--list", "is_list", is_flag=True, help="List them, and run none.")
@click.option(
    "--driver",
    type=click.Choice(["auto", "loopback", "namespaces"]),
    default="loopback",
    show_default=True,
)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_context
def mutate(
    ctx: click.Context, only: Sequence[str], driver: str, *, is_list: bool, as_json: bool
) -> None:
    """Remove defences of meshd, one at a time, and see which scenario and invariant notices.

    Exit status: 0 all were caught; 1 some weren't; 2 wrong input, or a run failed.
    """
    chosen = _chosen(only)
    if is_list:
        for one in chosen:
            click.echo(f"{one.name:<22} {one.defence} [{' '.join(one.run)}: {_or(one.caught_by)}]")
        return
    tried = []
    for one in chosen:
        click.echo(f"{one.name}: without it: {one.defence}", err=True)
        tried.append(_try(one, driver))
        last = tried[-1]
        click.echo(f"{one.name}: {last.fate}: {', '.join(last.by)} {last.told}", err=True)
    if as_json:
        click.echo(orjson.dumps([asdict(one) for one in tried], option=orjson.OPT_INDENT_2))
    else:
        Console().print(_table(tried))
    ctx.exit(_status(tried))


def _chosen(only: Sequence[str]) -> list[Mutation]:
    known = {one.name: one for one in MUTATIONS}
    for name in only:
        if name not in known:
            raise BadInput(f"--only: there is no mutation {name!r}: there are {', '.join(known)}")
    chosen = [known[name] for name in only] or list(MUTATIONS)
    for one in chosen:
        try:
            fits(one, ROOT)
        except MutationError as error:
            raise BadInput(str(error)) from None
    return chosen


def _try(one: Mutation, driver: str) -> Tried:
    """Run its scenario on a copy of this tree that lacks the defence."""
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="chaos-mutation-") as name:
        folder = Path(name)
        mutated_copy(one, ROOT, folder)
        report = folder / "report.json"
        arguments = [*one.run, "--driver", driver]
        given = ["--plain", "--folder", str(folder / "run"), "--json", str(report)]
        # Of two packages of one name Python takes the one in the working directory.
        command = [sys.executable, "-m", "chaos", "run", *arguments, *given]
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=RUN_TIMEOUT_S,
                check=False,
            )
            said = done.stderr
        except subprocess.TimeoutExpired:
            said = f"it took longer than {RUN_TIMEOUT_S:g} s"
        found = orjson.loads(report.read_bytes()) if report.exists() else {"error": said[-500:]}
    by, told = _violated(found)
    return Tried(
        name=one.name,
        defence=one.defence,
        command=f"run {' '.join(arguments)}",
        wanted=one.caught_by,
        fate=_fate(one, found, by),
        by=by,
        told=told or str(found.get("error") or found.get("conclusion", "")),
        took_s=round(time.monotonic() - began_s, 1),
    )


def _violated(found: dict[str, object]) -> tuple[tuple[str, ...], str]:
    """Which invariants were, and the first of what was found."""
    verdicts = found.get("invariants")
    violated = [
        one for one in (verdicts if isinstance(verdicts, list) else []) if one["violation_count"]
    ]
    told = str(violated[0]["violations"][0]["reason"]) if violated else ""
    return tuple(one["invariant"] for one in violated), told


def _fate(one: Mutation, found: dict[str, object], by: Sequence[str]) -> Fate:
    if set(by) & set(one.caught_by):
        return Fate.CAUGHT
    if by:
        return Fate.ELSEWHERE
    if found.get("error") or found.get("skipped"):
        return Fate.FAILED
    return Fate.SURVIVED if found.get("holds") else Fate.NOTHING


def _or(names: Sequence[str]) -> str:
    return " or ".join(names)


def _table(tried: Sequence[Tried]) -> Table:
    made = Table(box=None, padding=(0, 1), pad_edge=False)
    for name in ("mutation", "fate", "by", "to be caught by", "run", "what was found"):
        made.add_column(name, overflow="fold")
    for one in tried:
        made.add_row(
            one.name,
            one.fate,
            ", ".join(one.by),
            _or(one.wanted),
            one.command,
            one.told,
            style="" if one.fate is Fate.CAUGHT else "bold red",
        )
    return made


def _status(tried: Sequence[Tried]) -> int:
    if any(one.fate is Fate.FAILED for one in tried):
        return BAD_INPUT
    return 0 if all(one.fate is Fate.CAUGHT for one in tried) else 1
