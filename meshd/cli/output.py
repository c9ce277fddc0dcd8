"""Answers on the terminal: as tables for people, as JSON or YAML for programs.

For: one look of all commands. Not for: what is shown (each command's own). Invariants: JSON and
YAML hold what the server said, whole; a table that is piped is not cut to a width.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

import click
import orjson
import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from meshd.cli.failure import clean

PIPE_COLUMNS = 1000
"""Wide enough that nothing wraps where a program or a file takes the output."""

Function = TypeVar("Function", bound=Callable[..., Any])
Cell = Callable[[Any], object]


class Output(StrEnum):
    """How to show an answer."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table. cell: what of a row it shows."""

    name: str
    cell: Cell


def output_option(command: Function) -> Function:
    """Add -o to a command, as its argument `output`."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice([output.value for output in Output]),
        default=Output.TABLE.value,
        show_default=True,
        callback=lambda _context, _option, value: Output(value),
        help="How to show it.",
    )(command)


def show_list(output: Output, items: Sequence[Any], columns: Sequence[Column]) -> None:
    """Show a list; an empty one says so beside the output."""
    if output is not Output.TABLE:
        show_data(output, list(items))
    elif items:
        print_table(items, columns)
    else:
        click.echo("there are none", err=True)


def show_fields(
    output: Output, found: Mapping[str, object], shown: Mapping[str, object] | None = None
) -> None:
    """Show one thing. shown: what of it people are shown, if that isn't all."""
    if output is Output.TABLE:
        fields = found if shown is None else shown
        print_fields({name.replace("_", " "): value for name, value in fields.items()})
    else:
        show_data(output, found)


def show_data(output: Output, data: object) -> None:
    """Show data as JSON or YAML."""
    if output is Output.YAML:
        text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=PIPE_COLUMNS)
        click.echo(text, nl=False)
    else:
        click.echo(orjson.dumps(data, option=orjson.OPT_INDENT_2))


def print_table(items: Sequence[Any], columns: Sequence[Column]) -> None:
    """Print rows below their columns' names."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.name, overflow="fold")
    for item in items:
        table.add_row(*(Text(cell_text(column.cell(item))) for column in columns))
    _print(table)


def print_fields(fields: Mapping[str, object]) -> None:
    """Print names and values below each other; empty values are left out."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in fields.items():
        text = cell_text(value)
        if text:
            table.add_row(name, Text(text))
    _print(table)


def cell_text(value: object) -> str:
    """A value in a table's cell."""
    match value:
        case None:
            return "-"
        case True:
            return "yes"
        case False:
            return "no"
        case Mapping():
            return ", ".join(f"{key}={cell_text(part)}" for key, part in value.items())
        case list() | tuple():
            return ", ".join(map(cell_text, value))
        case _:
            return clean(str(value))


def _print(table: Table) -> None:
    is_terminal = sys.stdout.isatty()
    console = Console(
        file=sys.stdout,
        width=None if is_terminal else PIPE_COLUMNS,
        force_terminal=is_terminal,
        highlight=False,
    )
    with console.capture() as captured:
        console.print(table)
    # The last column is padded to its width, which helps nobody.
    for line in captured.get().splitlines():
        click.echo(line.rstrip())
