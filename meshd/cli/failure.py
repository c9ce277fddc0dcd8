"""Errors as the last lines of a command.

For: one clear text with a remedy, and the exit status. Not for: the errors themselves. Invariants:
every error that meshd raises on purpose ends here, without a traceback; nothing a server sent can
move a terminal's cursor.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import IO, Any

import click

from meshd.client import ClientError
from meshd.model.errors import MeshdError, Problem, RejectedError

BAD_INPUT = 2
INTERRUPTED = 130
"""As shells have it: 128 and the number of SIGINT."""

_BAD_INPUT_STATUSES = frozenset({400, 405, 413, 415, 422})
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Failure(click.ClickException):
    """How a command ends that did not work: exit status 1."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = tuple(lines)

    def show(self, file: IO[Any] | None = None) -> None:
        """Write it to standard error."""
        first, *rest = self.lines
        click.echo(f"Error: {clean(first)}", file=file, err=file is None)
        for line in rest:
            click.echo(f"  {clean(line)}", file=file, err=file is None)


class BadInput(Failure):
    """How a command ends whose input is wrong."""

    exit_code = BAD_INPUT


class Commands(click.Group):
    """A group of commands whose errors end in one place."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; what it raises on purpose becomes a Failure."""
        try:
            return super().invoke(ctx)
        except ClientError as error:
            raise _of_client(error) from None
        except RejectedError as error:
            raise _of_problems(error.problems) from None
        except MeshdError as error:
            raise Failure((str(error),)) from None
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)


def clean(text: str) -> str:
    """A text without characters that a terminal would obey."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def _of_problems(problems: Sequence[Problem]) -> Failure:
    if len(problems) == 1:
        return BadInput((str(problems[0]),))
    return BadInput((f"{len(problems)} problems:", *map(str, problems)))


def _of_client(error: ClientError) -> Failure:
    lines = [str(error)]
    if error.problems:
        # The detail repeats the problems in one long line.
        first = f"{error.url}: {error.title} ({error.status})"
        lines = [first, *map(str, error.problems)]
    remedy = _remedy(error)
    if remedy:
        lines[0] = f"{lines[0]} ({remedy})"
    return BadInput(lines) if error.status in _BAD_INPUT_STATUSES else Failure(lines)


def _remedy(error: ClientError) -> str:
    if error.is_unreachable:
        return "is meshd running there? --url or MESHD_URL says where it is"
    match error.status:
        case 401:
            return "give the token with --token-file or MESHD_TOKEN"
        case 503:
            return "try again later"
        case _:
            return ""
