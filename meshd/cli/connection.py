"""Which meshd a command speaks to.

For: the global options, and running a command's conversation. Not for: what is said. Invariant: a
token is never an argument, since arguments are there for everybody to see.
"""

from __future__ import annotations

import asyncio
import getpass
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import click

from meshd.client import Client, ClientTls, Target

T = TypeVar("T")

TOKEN_VARIABLE = "MESHD_TOKEN"  # noqa: S105 it is the name, not the token


@dataclass(frozen=True, slots=True)
class Connection:
    """What the global options say."""

    url: str
    token_file: Path | None = None
    tls: ClientTls = field(default_factory=ClientTls)

    def target(self) -> Target:
        """The meshd that they mean. A token file given wins over a token in the environment."""
        token = self._token_of_file() or os.environ.get(TOKEN_VARIABLE, "").strip()
        return Target(url=self.url, token=token, tls=self.tls, actor=_actor())

    def _token_of_file(self) -> str:
        if self.token_file is None:
            return ""
        # Settings take longer to import than most commands take altogether.
        from meshd.settings import secret_text

        return secret_text(self.token_file)

    def talk(self, conversation: Callable[[Client], Awaitable[T]]) -> T:
        """Hold a conversation with it."""

        async def hold() -> T:
            async with Client(self.target()) as client:
                return await conversation(client)

        return asyncio.run(hold())


pass_connection = click.make_pass_decorator(Connection)


def _actor() -> str:
    """Who writes, for the log: whoever sits at this machine."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        # A container's user often has no name.
        return "cli"
    printable = "".join(char for char in name if " " <= char <= "~")
    return f"cli:{printable[:64]}"
