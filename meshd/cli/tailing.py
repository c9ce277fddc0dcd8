"""`meshd events tail`: events as they happen.

For: people and pipes. Not for: looking back at one log (`get events`). Invariant: each event is
printed once, whole, and at once; what the stream
says of itself goes to standard error.
"""

from __future__ import annotations

import time
from contextlib import aclosing
from typing import Any

import click
import orjson

from meshd.cli.as_of import moment_text
from meshd.cli.choosing import choice_options
from meshd.cli.columns import short_type
from meshd.cli.connection import Connection, pass_connection
from meshd.cli.failure import clean
from meshd.cli.output import Output, output_option, show_data
from meshd.client import Client, Following, StreamEvent


@click.group()
def events() -> None:
    """Look at events."""


def _since(_context: click.Context, _option: click.Parameter, value: str) -> str:
    return moment_text(value, time.time_ns() // 1_000_000)


@events.command()
@click.option(
    "--from",
    "start",
    type=click.Choice(["now", "beginning", "snapshot"]),
    default="now",
    show_default=True,
    help="Where to begin; a snapshot is everything that exists, each thing as its last event.",
)
@click.option("--after", default="", help="Begin after this vector, as `status` prints it.")
@click.option(
    "--since",
    metavar="TIME",
    default="",
    callback=_since,
    help="Begin with the events of then: 2026-01-31T12:05:00Z, ms since 1970, or -15m, -2h, -3d.",
)
@click.option(
    "--resets",
    "has_resets",
    is_flag=True,
    help="Where the place is gone for good, go on with a snapshot instead of ending.",
)
@click.option("--cluster", "clusters", multiple=True, help="Only this cluster's; several times.")
@choice_options
@click.option(
    "-n", "--count", default=0, type=click.IntRange(min=0), help="End after so many; 0: never."
)
@output_option
@pass_connection
def tail(connection: Connection, /, count: int, output: Output, **what: Any) -> None:
    """Print events as they happen; a lost connection is taken up again where it broke."""
    following = Following(**what)
    if following.after and following.since:
        raise click.UsageError("give --after or --since: both say where to begin")

    async def follow(client: Client) -> None:
        printed = 0
        async with aclosing(client.follow(following)) as stream:
            async for event in stream:
                if event.notice is not None:
                    click.echo(f"{event.type}: {clean(event.data)}", err=True)
                    continue
                print_event(event, output)
                printed += 1
                if printed == count:
                    return

    connection.talk(follow)


def print_event(event: StreamEvent, output: Output) -> None:
    """Print one event: a line, a line of JSON, or a YAML document."""
    data = orjson.loads(event.data)
    match output:
        case Output.JSON:
            click.echo(orjson.dumps(data))
        case Output.YAML:
            click.echo("---")
            show_data(output, data)
        case Output.TABLE:
            place = f"{data['meshdcluster']}:{data['meshdseq']}"
            line = (
                f"{data['time']}  {place:<12}  {short_type(data):<17}"
                f"  {data['subject']}  by {data['meshdactor']}"
            )
            click.echo(clean(line))
