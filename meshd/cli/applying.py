"""`meshd apply`: files to the server, in one request.

For: reading files, and telling which line of which file a message is about. Not for: understanding
what is in them; the server does. Invariant: all files are applied or none.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import click

from meshd.cli.connection import Connection, pass_connection
from meshd.cli.failure import BadInput, clean
from meshd.cli.output import Output, output_option, show_data
from meshd.client import ApplyResult, Client, ClientError
from meshd.model.errors import RejectedError

T = TypeVar("T")

STDIN = "-"
YAML_TYPE = "application/yaml"
JSON_TYPE = "application/json"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_LINE = re.compile(r"line ([0-9]{1,9})\b")


@dataclass(frozen=True, slots=True)
class File:
    """One file. name: as people call it. first_line: where it begins in what is sent."""

    name: str
    raw: bytes
    first_line: int = 1


@dataclass(frozen=True, slots=True)
class Bundle:
    """Files as one request."""

    raw: bytes
    content_type: str
    files: tuple[File, ...]

    def place(self, where: str) -> str:
        """A place in what was sent, as a place in a file: `line 40` becomes `b.yaml:7`."""
        if where.startswith("?"):
            # It is an option rather than anything in a file.
            return where
        match = _LINE.match(where)
        if match is None:
            only = self.files[0].name if len(self.files) == 1 else ""
            return f"{only} {where}".strip()
        line = int(match[1])
        file = next(file for file in reversed(self.files) if file.first_line <= max(line, 1))
        return f"{file.name}:{line - file.first_line + 1}{where[match.end() :]}"


@click.command()
@click.option(
    "-f",
    "--file",
    "names",
    required=True,
    multiple=True,
    metavar="FILE",
    help="YAML or JSON with one document or many; - is standard input. May be given several times.",
)
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
@output_option
@pass_connection
def apply(connection: Connection, names: Sequence[str], dry_run: bool, output: Output) -> None:
    """Apply manifests: meshd's own kinds and Kubernetes' Service and EndpointSlice. All of them are
    applied or none.
    """
    bundle = bundle_files(read_files(names))

    async def ask(client: Client) -> ApplyResult:
        kind = bundle.content_type
        return await sent(bundle, client.apply(bundle.raw, dry_run=dry_run, content_type=kind))

    result = connection.talk(ask)
    for entry in (*result["applied"], *result["ignored"]):
        entry["where"] = bundle.place(entry["where"])
    if output is Output.TABLE:
        _print(result)
    else:
        show_data(output, result)


def read_files(names: Sequence[str]) -> list[File]:
    """Read all files; raises BadInput naming every one that can't be read."""
    files: list[File] = []
    failed: list[str] = []
    if names.count(STDIN) > 1:
        failed.append("-f - is given twice: standard input can be read once")
    for name in dict.fromkeys(names):
        try:
            raw = sys.stdin.buffer.read() if name == STDIN else Path(name).read_bytes()
        except OSError as error:
            failed.append(f"can't read {name}: {error.strerror or error}")
            continue
        files.append(File("standard input" if name == STDIN else name, raw))
    if failed:
        raise BadInput(failed)
    return files


def bundle_files(files: Sequence[File]) -> Bundle:
    """Put files together, as documents of one YAML stream; a single JSON file stays what it is."""
    if len(files) == 1 and files[0].name.endswith(".json"):
        return Bundle(files[0].raw, JSON_TYPE, tuple(files))
    raw = b""
    placed: list[File] = []
    for file in files:
        content = file.raw.removeprefix(BYTE_ORDER_MARK)
        if file.name.endswith(".json"):
            # YAML holds JSON but for tabs, which can only be between JSON's tokens.
            content = content.replace(b"\t", b" ")
        if placed:
            # A directive (%YAML) may only follow the end of the document before.
            raw += b"" if raw.endswith(b"\n") else b"\n"
            raw += b"...\n" if content.startswith(b"%") else b"---\n"
        placed.append(replace(file, first_line=raw.count(b"\n") + 1))
        raw += content
    return Bundle(raw, YAML_TYPE, tuple(placed))


async def sent(bundle: Bundle, answer: Awaitable[T]) -> T:
    """What the server says to files; problems are told with their places in them."""
    try:
        return await answer
    except ClientError as error:
        if not error.problems:
            raise
        problems = error.problems
        raise RejectedError(
            tuple(replace(problem, where=bundle.place(problem.where)) for problem in problems)
        ) from None


def _print(result: ApplyResult) -> None:
    note = " (dry run)" if result["dry_run"] else ""
    for applied in result["applied"]:
        name = f"{applied['kind']} {applied['namespace']}/{applied['name']}"
        click.echo(clean(f"{name} {applied['change']}{note}"))
    for ignored in result["ignored"]:
        name = "/".join(part for part in (ignored["namespace"], ignored["name"]) if part)
        click.echo(clean(f"{ignored['kind']} {name} ignored: {ignored['reason']}"))
    events = "1 event" if result["events"] == 1 else f"{result['events']} events"
    position = f", now at {result['position']}" if result["position"] else ""
    click.echo(f"{events}{note}{position}")
