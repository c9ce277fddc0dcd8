"""`meshd apply`: files to the server, in one request.

For: reading files, asking before anything is done, and telling which line of which file a message
is about. Not for: understanding what is in them; the server does. Invariants: all files are applied
or none; what was shown and agreed to is what is done, or nothing is.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import click

from meshd.cli.changes import show_result
from meshd.cli.connection import Connection, pass_connection
from meshd.cli.failure import BadInput, Failure
from meshd.cli.output import Output, output_option, show_data
from meshd.client import ApplyResult, Client, ClientError, Ownership
from meshd.model.errors import RejectedError

T = TypeVar("T")

STDIN = "-"
YAML_TYPE = "application/yaml"
JSON_TYPE = "application/json"
MOVED = 409
"""The status that says that the state is no longer the one that was shown."""
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
@click.option("--diff", "is_diff", is_flag=True, help="Say what would change, then ask.")
@click.option("--yes", "is_sure", is_flag=True, help="With --diff: don't ask.")
@click.option("--owner", default="", metavar="NAME", help="In whose name; others' things are kept.")
@click.option("--take-over", is_flag=True, help="What others own becomes the owner's.")
@click.option("--prune", is_flag=True, help="Remove what the owner has and the files don't.")
@click.option("--allow-empty", is_flag=True, help="With --prune: also if nothing is in the files.")
@output_option
@pass_connection
def apply(
    connection: Connection,
    /,
    names: Sequence[str],
    output: Output,
    *,
    dry_run: bool,
    is_diff: bool,
    is_sure: bool,
    **given: Any,
) -> None:
    """Apply manifests: meshd's own kinds, and Kubernetes' Service, EndpointSlice, Node,
    NetworkPolicy and workloads. All of them are applied or none.
    """
    ownership = Ownership(**given)
    if not ownership.owner and (ownership.prune or ownership.take_over):
        raise BadInput(("--prune and --take-over are about an owner's things: add --owner NAME",))
    is_asking = is_diff and not dry_run
    if is_asking and not is_sure and not has_terminal():
        what = "there is no terminal to ask on: add --yes to apply what --diff shows"
        raise BadInput((f"{what}, or --dry-run to look only",))
    bundle = bundle_files(read_files(names))
    request = _Request(bundle, ownership)
    if is_asking:
        shown = request.send(connection, dry_run=True)
        show_result(shown, with_changes=True, aside=output is not Output.TABLE)
        if shown["events"] and not is_sure and not click.confirm("Apply this?", err=True):
            raise Failure(("nothing was applied",))
        request = replace(request, expect_position=shown["decided_on"])
    result = request.send(connection, dry_run=dry_run)
    if output is Output.TABLE:
        show_result(result, with_changes=dry_run)
    else:
        show_data(output, result)


def has_terminal() -> bool:
    """Whether there is somebody to ask."""
    return sys.stdin.isatty()


@dataclass(frozen=True, slots=True)
class _Request:
    """Files, and how they are to be applied."""

    bundle: Bundle
    ownership: Ownership
    expect_position: str = ""

    def send(self, connection: Connection, *, dry_run: bool) -> ApplyResult:
        """Have them applied, or looked at; places come out as places in the files."""
        result = connection.talk(lambda client: self._send(client, dry_run=dry_run))
        for entry in (*result["applied"], *result["ignored"]):
            entry["where"] = self.bundle.place(entry["where"])
        return result

    async def _send(self, client: Client, *, dry_run: bool) -> ApplyResult:
        asked = client.apply(
            self.bundle.raw,
            dry_run=dry_run,
            ownership=self.ownership,
            expect_position=self.expect_position,
            content_type=self.bundle.content_type,
        )
        return await sent(self.bundle, asked)


async def sent(bundle: Bundle, answer: Awaitable[T]) -> T:
    """What the server says to files; problems are told with their places in them."""
    try:
        return await answer
    except ClientError as error:
        if not error.problems or error.status == MOVED:
            raise
        problems = (replace(one, where=bundle.place(one.where)) for one in error.problems)
        raise RejectedError(tuple(problems)) from None


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
