"""`meshd events tail`: events as they happen.

For: people and pipes. Not for: looking back at one log (`get events`). Invariant: each event is
printed once, whole, and at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing

import click
import orjson

from meshd.cli.columns import short_type
from meshd.cli.connection import Connection, pass_connection
from meshd.cli.failure import clean
from meshd.cli.output import Output, output_option, show_data
from meshd.client import Client, StreamEvent


@click.group()
def events() -> None:
    """Look at events."""


@events.command()
@click.option(
    "--from",
    "start",
    type=click.Choice(["now", "beginning"]),
    default="now",
    show_default=True,
    help="Where to begin.",
)
@click.option("--after", default="", help="Begin after this vector, as `status` prints it.")
@click.option("--cluster", "clusters", multiple=True, help="Only this cluster's; several times.")
@click.option(
    "-n", "--count", default=0, type=click.IntRange(min=0), help="End after so many; 0: never."
)
@output_option
@pass_connection
def tail(
    connection: Connection,
    start: str,
    after: str,
    clusters: Sequence[str],
    count: int,
    output: Output,
) -> None:
    """Print events as they happen; a lost connection is taken up again where it broke."""

    async def follow(client: Client) -> None:
        following = client.follow_events(after=after, start=start, clusters=clusters)
        printed = 0
        async with aclosing(following) as stream:
            async for event in stream:
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
