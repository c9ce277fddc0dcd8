"""`meshd probe list`: what probes of the cluster's own endpoints come to.

For: looking. Not for: why an endpoint is in or out of a table (`explaining`). Invariant: nothing is
changed.
"""

from __future__ import annotations

import click

from meshd.cli import columns
from meshd.cli.connection import Connection, pass_connection
from meshd.cli.output import Output, output_option, show_data, show_list
from meshd.cli.reading import namespace_option


@click.group()
def probe() -> None:
    """Look at probes of endpoints."""


@probe.command("list")
@namespace_option
@click.option("--service", default="", help="Only those of services of this name.")
@output_option
@pass_connection
def list_probes(connection: Connection, namespace: str, service: str, output: Output) -> None:
    """Show the endpoints of services with a probe, and what their probes come to."""
    found = connection.talk(lambda client: client.probes(namespace, service))
    if output is not Output.TABLE:
        show_data(output, found)
        return
    if not found["prober"]:
        click.echo("another meshd of the cluster leads and probes: ask it for more", err=True)
    if found["left_out"]:
        what = "health.probed_max says how many are probed"
        click.echo(f"{found['left_out']} endpoints more aren't probed: {what}", err=True)
    show_list(output, found["items"], columns.PROBES)
