"""What a person may say about a peer: `peer pause`, `peer resume`, `peer resync`.

For: asking one meshd to do it. Not for: looking (`reading`). Invariant: only that meshd's reading
is changed; the peer itself is never spoken to.
"""

from __future__ import annotations

from typing import Literal

import click

from meshd.cli.connection import Connection, pass_connection
from meshd.cli.reading import peer


def _add(action: Literal["pause", "resume", "resync"], says: str) -> None:
    @peer.command(action, help=says)
    @click.argument("name")
    @pass_connection
    def command(connection: Connection, name: str) -> None:
        connection.talk(lambda client: client.control_peer(name, action))
        click.echo(f"{name}: {action} asked for; see `meshd peer show {name}`")


_add("pause", "Stop reading a peer until it is resumed or meshd starts again.")
_add("resume", "Read a paused peer again.")
_add("resync", "Read a peer's log anew; what is served stays until that is done.")

__all__ = ["peer"]
