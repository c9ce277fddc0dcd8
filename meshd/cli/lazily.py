"""Commands that are imported when they are asked for.

For: a command line that starts in the time of the one command that is run. Not for: the commands.
Invariant: what a command is called is what its module calls it; all are imported for the list in
`--help`, which shows the first line of each.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click

from meshd.cli.failure import Commands


class LazyCommands(Commands):
    """A group whose commands lie in modules of `meshd.cli`. homes: the module of each."""

    def __init__(self, *args: Any, homes: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._homes = homes

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, sorted."""
        return sorted({*super().list_commands(ctx), *self._homes})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One command, imported now; None if there is no such command."""
        home = self._homes.get(cmd_name)
        if home is None:
            return super().get_command(ctx, cmd_name)
        command: click.Command = getattr(import_module(f"meshd.cli.{home}"), cmd_name)
        return command
