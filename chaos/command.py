"""The command `python -m chaos`: what can be judged, a history judged, and its report.

For: arguments in, exit status out. Not for: judging (`validators`) nor how it looks (`report`).
Invariants: exit status 0 is a history that holds, 1 one that doesn't or proves nothing, 2 wrong
input; what is wrong with the input is said with its place and what to do.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
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


@click.group(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Break a mesh on purpose, and prove what still holds."""


@cli.command("list")
@click.option("--invariants", is_flag=True, help="What histories are judged by.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def list_(*, invariants: bool, as_json: bool) -> None:
    """List what there is."""
    del invariants  # So far there is nothing else to list.
    if as_json:
        items = [
            {"invariant": key, "name": name, "sentence": sentence}
            for key, (name, sentence) in SENTENCES.items()
        ]
        click.echo(orjson.dumps({"invariants": items}, option=orjson.OPT_INDENT_2))
        return
    for key, (name, sentence) in SENTENCES.items():
        click.echo(f"{key:<4} {name:<19} {sentence}")


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
