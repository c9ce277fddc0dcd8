"""`--as-of` and the like: a moment in the past, as people say it.

For: times relative to now, which only the one who asks can mean. Not for: other times and vectors,
which the server reads (`core.past`). Invariant: what isn't relative reaches the server as it is.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])

_AGO = re.compile(r"-([0-9]{1,9})(ms|s|m|h|d|w)\Z")
_UNIT_MS = {
    "ms": 1,
    "s": 1000,
    "m": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 7 * 86_400_000,
}

HELP = (
    "a time (2026-01-31T12:05:00Z, ms since 1970, or -15m, -2h, -3d ago) or a vector, as answers"
    " say it."
)


def moment_text(text: str, now_ms: int) -> str:
    """A moment as the server reads it: `-15m` as the time that it means."""
    found = _AGO.match(text)
    return str(now_ms - int(found[1]) * _UNIT_MS[found[2]]) if found else text


def moment_option(
    name: str, help_text: str, *, is_required: bool = False
) -> Callable[[Function], Function]:
    """An option that takes a moment."""

    def read(_context: click.Context, _option: click.Parameter, value: str) -> str:
        return moment_text(value, time.time_ns() // 1_000_000)

    return click.option(
        name,
        metavar="MOMENT",
        default="",
        required=is_required,
        callback=read,
        help=f"{help_text}: {HELP}",
    )


def as_of_option(command: Function) -> Function:
    """Add --as-of to a command, as its argument `as_of`."""
    return moment_option("--as-of", "As it was at")(command)
