"""Where things stand: `get nodes`, `get identities`, `node show`, `cluster show`.

For: looking at what is said of clusters, nodes and labels. Not for: services (`reading`).
Invariant: nothing is changed.
"""

from __future__ import annotations

from collections.abc import Sequence

import click

from meshd.cli import columns
from meshd.cli.as_of import as_of_option
from meshd.cli.connection import Connection, pass_connection
from meshd.cli.output import Output, output_option, show_fields, show_list
from meshd.cli.reading import get_clusters

cluster_option = click.option("--cluster", default="", help="Whose; the asked one's if not given.")
label_option = click.option(
    "-l",
    "--label",
    "labels",
    multiple=True,
    metavar="NAME[=VALUE]",
    help="Only with this label. May be given several times.",
)


@click.command("nodes")
@cluster_option
@label_option
@as_of_option
@output_option
@pass_connection
def get_nodes(
    connection: Connection, cluster: str, labels: Sequence[str], as_of: str, output: Output
) -> None:
    """Show a cluster's nodes."""
    items = connection.talk(
        lambda client: client.nodes(cluster=cluster, labels=labels, as_of=as_of)
    )
    show_list(output, items, columns.NODES)


@click.command("identities")
@cluster_option
@label_option
@as_of_option
@output_option
@pass_connection
def get_identities(
    connection: Connection, cluster: str, labels: Sequence[str], as_of: str, output: Output
) -> None:
    """Show a cluster's identities: sets of labels, and their numbers."""
    items = connection.talk(
        lambda client: client.identities(cluster=cluster, labels=labels, as_of=as_of)
    )
    show_list(output, items, columns.IDENTITIES)


@click.group()
def node() -> None:
    """Look at nodes."""


node.add_command(get_nodes, "list")


@node.command("show")
@click.argument("name")
@output_option
@pass_connection
def show_node(connection: Connection, name: str, output: Output) -> None:
    """Show one of the cluster's own nodes."""
    show_fields(output, connection.talk(lambda client: client.node(name)))


@click.group()
def cluster() -> None:
    """Look at clusters."""


cluster.add_command(get_clusters, "list")


@cluster.command("show")
@click.argument("name")
@output_option
@pass_connection
def show_cluster(connection: Connection, name: str, output: Output) -> None:
    """Show one cluster, and where its address ranges collide with others'."""
    found = connection.talk(lambda client: client.cluster(name))
    beside = ("conditions", "conditions_count")
    shown = {name: value for name, value in found.items() if name not in beside}
    show_fields(output, found, shown | {"conditions": found["conditions_count"]})
    if output is Output.TABLE and found["conditions"]:
        click.echo()
        show_list(output, found["conditions"], columns.RANGE_CONDITIONS)
