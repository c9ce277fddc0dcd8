"""The command `python -m chaos`: what there is, a history judged, and its report.

For: arguments in, exit status out. Not for: judging (`validators`) nor how it looks (`report`); nor
what needs a mesh (`running`). Invariants: exit status 0 is a history that holds, 1 one that doesn't
or proves nothing, 2 wrong input; what is wrong with the input is said with its place and what to
do; who only judges loads nothing of what runs a mesh.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import IO, Any

import click
import orjson

from chaos import journal
from chaos.evidence import Evidence
from chaos.report import junit, plain
from chaos.report.page import page
from chaos.validators.judging import VALIDATORS, Judgement, judge
from chaos.validators.sentences import SENTENCES

BAD_INPUT = 2

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_OUT = click.Path(dir_okay=False, writable=True, path_type=Path)


class BadInput(click.ClickException):
    """How a command ends whose input is wrong."""

    exit_code = BAD_INPUT

    def show(self, file: IO[Any] | None = None) -> None:
        """Write it to standard error."""
        click.echo(f"Error: {self.format_message()}", file=file, err=file is None)


EPILOG = """\b
Exit status: 0 it holds; 1 it is violated, or proves nothing; 2 the command or its input is wrong.
"""


LATER: Mapping[str, str] = {
    "run": "chaos.running.command:run_",
    "mutate": "chaos.running.mutating:mutate",
}
"""Commands that need a mesh: by name, where each is."""


class _Commands(click.Group):
    """Those of this module, and those that are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, sorted."""
        return sorted({*super().list_commands(ctx), *LATER})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One command; None if there is no such command."""
        if cmd_name not in LATER:
            return super().get_command(ctx, cmd_name)
        module, _, name = LATER[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command


@click.group(cls=_Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Break a mesh on purpose, and prove what still holds."""


@cli.command("list")
@click.option("--invariants", is_flag=True, help="What histories are judged by.")
@click.option("--faults", is_flag=True, help="What can be broken, row by row.")
@click.option("--scenarios", is_flag=True, help="What `run` takes.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def list_(*, invariants: bool, faults: bool, scenarios: bool, as_json: bool) -> None:
    """List what there is."""
    wanted = {"invariants": invariants, "faults": faults, "scenarios": scenarios}
    chosen = [name for name, is_wanted in wanted.items() if is_wanted] or ["invariants"]
    listed = {name: list(_listed(name)) for name in chosen}
    if as_json:
        click.echo(orjson.dumps(listed, option=orjson.OPT_INDENT_2))
        return
    for items in listed.values():
        for item in items:
            click.echo(_line(item))


def _listed(what: str) -> Iterator[Mapping[str, Any]]:
    if what != "invariants":
        yield from getattr(import_module("chaos.running.listing"), what)()
        return
    for key, (name, sentence) in SENTENCES.items():
        yield {"invariant": key, "name": name, "sentence": sentence}


def _line(item: Mapping[str, Any]) -> str:
    match item:
        case {"invariant": key, "name": name, "sentence": sentence}:
            return f"{key:<4} {name:<19} {sentence}"
        case {"fault": name, "row": row, "summary": summary, "skipped": skipped}:
            return f"{row:>2}  {name:<26} {summary}{f' [{skipped}]' if skipped else ''}"
        case _:
            return f"{item['scenario']:<32} {item['summary']}"


@cli.command()
@click.argument("file", type=_FILE)
@click.option(
    "--need",
    multiple=True,
    metavar="INVARIANT",
    help="Fail if this one can't be judged; may be given several times.",
)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_context
def validate(ctx: click.Context, file: Path, need: Sequence[str], *, as_json: bool) -> None:
    """Judge the recorded history in FILE."""
    history, evidence = _read(file)
    judgement = judge(evidence, _known(need))
    if as_json:
        data = plain.judgement_data(judgement, evidence, history.cut)
        click.echo(orjson.dumps(data, option=orjson.OPT_INDENT_2))
    else:
        for line in plain.judgement_lines(judgement, evidence, history.cut):
            click.echo(line)
    ctx.exit(_status(judgement))


@cli.command()
@click.argument("file", type=_FILE)
@click.option("-o", "--output", type=_OUT, required=True, help="The page to write, HTML.")
@click.option("--json", "json_file", type=_OUT, help="Write what was found as JSON, too.")
@click.option("--junit", "junit_file", type=_OUT, help="Write it as JUnit XML, too.")
@click.option("--need", multiple=True, metavar="INVARIANT", help="As of validate.")
@click.pass_context
def report(
    ctx: click.Context,
    file: Path,
    output: Path,
    json_file: Path | None,
    junit_file: Path | None,
    need: Sequence[str],
) -> None:
    """Judge the history in FILE, and write a page that shows it."""
    history, evidence = _read(file)
    judgement = judge(evidence, _known(need))
    _write(output, page(judgement, evidence, history.cut).encode())
    if json_file is not None:
        data = plain.judgement_data(judgement, evidence, history.cut)
        _write(json_file, orjson.dumps(data, option=orjson.OPT_INDENT_2) + b"\n")
    if junit_file is not None:
        _write(junit_file, junit.document(judgement, evidence))
    click.echo(plain.conclusion(judgement))
    ctx.exit(_status(judgement))


def _read(file: Path) -> tuple[journal.Journal, Evidence]:
    # All that is read stays until the end, and nothing of it is in a cycle: looking for garbage
    # took a third of the time of a million entries.
    gc.disable()
    try:
        history = journal.read(file)
        return history, Evidence(history.entries)
    except journal.JournalError as error:
        raise BadInput(str(error)) from None
    except OSError as error:
        raise BadInput(f"{file}: {error.strerror}: give a file that can be read") from None


def _write(file: Path, raw: bytes) -> None:
    try:
        file.write_bytes(raw)
    except OSError as error:
        raise BadInput(f"{file}: {error.strerror}: name a file that can be written") from None


def _known(need: Sequence[str]) -> Sequence[str]:
    for invariant in need:
        if invariant not in VALIDATORS:
            known = f"{next(iter(VALIDATORS))} to {list(VALIDATORS)[-1]}"
            raise BadInput(f"--need: there is no invariant {invariant!r}: there are {known}")
    return need


def _status(judgement: Judgement) -> int:
    return 0 if judgement.holds else 1


def main() -> None:
    """Run the command line, and end the process with its exit status."""
    cli(prog_name="python -m chaos")
