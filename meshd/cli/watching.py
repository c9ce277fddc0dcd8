"""`meshd watch`: how the mesh is, and what becomes of it.

For: people who look on while something happens, and pipes. Not for: one look (`status`, `get`).
Invariant: each change is printed once, whole, and at once.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import Any, assert_never

import click
import orjson

from meshd.cli.connection import Connection, pass_connection
from meshd.cli.failure import clean
from meshd.cli.output import Output, output_option, show_data
from meshd.client import (
    Client,
    ConditionMessage,
    MeshSeen,
    OwnCondition,
    PeerGone,
    PeerItem,
    PeerSeen,
    StatusSeen,
)


@click.command()
@click.option(
    "--every",
    "every_s",
    default=1,
    show_default=True,
    type=click.IntRange(1, 60),
    help="Seconds between changes of numbers alone.",
)
@click.option(
    "-n", "--count", default=0, type=click.IntRange(min=0), help="End after so many; 0: never."
)
@output_option
@pass_connection
def watch(connection: Connection, every_s: int, count: int, output: Output) -> None:
    """Print how this meshd and its peers are, and every change of it."""

    async def follow(client: Client) -> None:
        printed = 0
        async with aclosing(client.watch(every_s=every_s)) as messages:
            async for message in messages:
                print_message(message, output)
                printed += 1
                if printed == count:
                    return

    connection.talk(follow)


def print_message(message: ConditionMessage, output: Output) -> None:
    """Print one message: lines, a line of JSON, or a YAML document."""
    match output:
        case Output.JSON:
            click.echo(orjson.dumps(_data_of(message)))
        case Output.YAML:
            click.echo("---")
            show_data(output, _data_of(message))
        case Output.TABLE:
            for line in _lines_of(message):
                click.echo(clean(line))


def _data_of(message: ConditionMessage) -> dict[str, Any]:
    match message:
        case MeshSeen():
            return {"status": message.status, "peers": message.peers}
        case StatusSeen():
            return {"status": message.status}
        case PeerSeen():
            return {"peer": message.peer}
        case PeerGone():
            return {"removed": message.name}
        case _:
            assert_never(message)


def _lines_of(message: ConditionMessage) -> list[str]:
    match message:
        case MeshSeen():
            return [_status_line(message.status), *map(_peer_line, message.peers)]
        case StatusSeen():
            return [_status_line(message.status)]
        case PeerSeen():
            return [_peer_line(message.peer)]
        case PeerGone():
            return [f"{message.name}  removed"]
        case _:
            assert_never(message)


def _status_line(status: OwnCondition) -> str:
    ready = "ready" if status["ready"] else "; ".join(status["reasons"])
    leader = status["leader"]
    led = "nobody" if leader is None else "this meshd" if leader["self"] else leader["host"]
    return (
        f"{status['cluster']}  {ready}  led by {led}  digest {status['digest'] or '-'}"
        f"  at {status['vector_text']}"
    )


def _peer_line(peer: PeerItem) -> str:
    lag = "-" if peer["lag_events"] is None else str(peer["lag_events"])
    reason = f"  {peer['reason']}" if peer["reason"] else ""
    return (
        f"{peer['name']}  {peer['phase']} since {peer['since']}  {peer['standing']}"
        f"  seq {peer['seq'] or 0}  lag {lag} events, {peer['unfresh_s']:g} s{reason}"
    )
