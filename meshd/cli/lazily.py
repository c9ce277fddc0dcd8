"""Commands that are imported when they are asked for.

For: a command line that starts in the time of the one command that is run. Not for: the commands.
Invariant: a group names all its commands, and where each is; importing a module adds none to a
group of another, or there would be commands that are there only sometimes.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click


class LazyGroup(click.Group):
    """A group of commands of other modules. homes: the module of `meshd.cli` that each is in, and
    after a colon what it is called there, if not as the command is. All are imported for `--help`.
    """

    def __init__(self, *args: Any, homes: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.homes = homes

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, sorted."""
        return sorted({*super().list_commands(ctx), *self.homes})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One command, imported now; None if there is no such command."""
        home = self.homes.get(cmd_name)
        if home is None:
            return super().get_command(ctx, cmd_name)
        module, _, name = home.partition(":")
        command: click.Command = getattr(import_module(f"meshd.cli.{module}"), name or cmd_name)
        return command
