"""Durations as people write them: `90s`, `10m`, `1h30m`.

For: options of commands. Not for: settings of meshd. Invariant: what isn't one is told, never
guessed.
"""

from __future__ import annotations

import re

import click

_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?")
HOURS_MAX = 24
"""Whoever wants longer starts it again: a history is held in memory when it is judged."""


class Duration(click.ParamType[float]):
    """In seconds."""

    name = "duration"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read it."""
        if isinstance(value, float):
            return value
        text = str(value)
        found = _DURATION.fullmatch(text)
        if not text or found is None:
            self.fail(f"{text!r} is no duration: write 90s, 10m or 1h30m", param, ctx)
        hours, minutes, seconds = (float(part or 0) for part in found.groups())
        total_s = hours * 3600 + minutes * 60 + seconds
        if not 0 < total_s <= HOURS_MAX * 3600:
            self.fail(f"{text!r}: longer than nothing, and {HOURS_MAX}h at most", param, ctx)
        return total_s
