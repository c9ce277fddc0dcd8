"""Commands that look: `get`, `service`, `peer`, `status`.

For: asking one meshd. Not for: following (`tailing`) nor changing (`applying`). Invariant: nothing
is changed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import click

from meshd.cli import columns
from meshd.cli.as_of import as_of_option
from meshd.cli.choosing import choice_options
from meshd.cli.connection import Connection, pass_connection
from meshd.cli.explaining import explain, key_of, perspective_option, slots
from meshd.cli.lazily import LazyGroup
from meshd.cli.output import (
    Output,
    output_option,
    print_fields,
    print_table,
    show_data,
    show_fields,
    show_list,
)
from meshd.client import Client, EventChoice, EventPage, MqttItem, Status, Table
from meshd.client.answers import LeaderItem

namespace_option = click.option("-n", "--namespace", default="", help="Only this namespace.")


@click.group(
    cls=LazyGroup,
    homes={
        "nodes": "placing:get_nodes",
        "identities": "placing:get_identities",
        "registrations": "registering:get_registrations",
    },
)
def get() -> None:
    """Show lists of things."""


@get.command("services")
@namespace_option
@as_of_option
@output_option
@pass_connection
def get_services(connection: Connection, namespace: str, as_of: str, output: Output) -> None:
    """Show the cluster's own services."""
    items = connection.talk(lambda client: client.services(namespace, as_of=as_of))
    show_list(output, items, columns.SERVICES)


@get.command("endpoints")
@namespace_option
@click.option("--service", default="", help="Only those of this service.")
@as_of_option
@output_option
@pass_connection
def get_endpoints(
    connection: Connection, namespace: str, service: str, as_of: str, output: Output
) -> None:
    """Show the cluster's own endpoints."""
    items = connection.talk(lambda client: client.endpoints(namespace, service, as_of=as_of))
    show_list(output, items, columns.ENDPOINTS)


@get.command("tables")
@namespace_option
@perspective_option
@as_of_option
@output_option
@pass_connection
def get_tables(
    connection: Connection, namespace: str, perspective: str, as_of: str, output: Output
) -> None:
    """Show the global services, made from all clusters."""

    def ask(client: Client) -> Awaitable[Table]:
        return client.tables(perspective=perspective, namespace=namespace, as_of=as_of)

    table = connection.talk(ask)
    if output is Output.TABLE:
        show_list(output, table["services"], columns.TABLES)
        if table["unknown"]:
            click.echo(f"not known then: {', '.join(table['unknown'])}", err=True)
    else:
        show_data(output, table)


@get.command("clusters")
@as_of_option
@output_option
@pass_connection
def get_clusters(connection: Connection, as_of: str, output: Output) -> None:
    """Show all clusters of the mesh."""
    items = connection.talk(lambda client: client.clusters(as_of=as_of))
    show_list(output, items, columns.CLUSTERS)


@get.command("peers")
@output_option
@pass_connection
def get_peers(connection: Connection, output: Output) -> None:
    """Show how following each peer goes."""
    show_list(output, connection.talk(Client.peers), columns.PEERS)


@get.command("events")
@click.option("--cluster", default="", help="Whose log; the asked cluster's if not given.")
@click.option("--after", default=0, type=click.IntRange(min=0), help="Only after this seq.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 1000))
@choice_options
@output_option
@pass_connection
def get_events(
    connection: Connection,
    cluster: str,
    after: int,
    limit: int,
    choice: EventChoice,
    output: Output,
) -> None:
    """Show a page of a log."""

    def ask(client: Client) -> Awaitable[EventPage]:
        return client.events(cluster=cluster, after=after, limit=limit, choice=choice)

    page = connection.talk(ask)
    if output is not Output.TABLE:
        show_data(output, page)
        return
    show_list(output, page["items"], columns.EVENTS)
    if page["next"] is not None:
        click.echo(f"there are more: --after {page['next']}", err=True)


@click.group()
def service() -> None:
    """Look at services."""


for command in (get_services, explain, slots):
    service.add_command(command, "list" if command is get_services else None)


@service.command("show")
@click.argument("name")
@perspective_option
@as_of_option
@output_option
@pass_connection
def show_service(
    connection: Connection, name: str, perspective: str, as_of: str, output: Output
) -> None:
    """Show one global service, NAMESPACE/NAME (or NAME in namespace `default`), with every backend
    that is in or out of it, why, and the event that made it so.
    """
    key = key_of(name)
    found = connection.talk(
        lambda client: client.table(key.namespace, key.name, perspective=perspective, as_of=as_of)
    )
    if output is not Output.TABLE:
        show_data(output, found)
        return
    print_fields(
        {
            "service": str(key),
            "ports": columns.ports_text(found["ports"]),
            "affinity": found["affinity"],
            "clusters": found["clusters"],
            **({"as last known": found["stale"]} if found["stale"] else {}),
            "backends": columns.in_and_all(found),
            "digest": found["digest"],
        }
    )
    for condition in found["conditions"]:
        text = f"{condition['type']}: {condition['cluster']}: {condition['message']}"
        print_fields({"condition": text})
    click.echo()
    show_list(output, found["backends"], columns.BACKENDS)


@click.group()
def peer() -> None:
    """Look at peers, and say what is to be done with them."""


peer.add_command(get_peers, "list")


@peer.command("show")
@click.argument("name")
@output_option
@pass_connection
def show_peer(connection: Connection, name: str, output: Output) -> None:
    """Show how following one peer goes."""
    show_fields(output, connection.talk(lambda client: client.peer(name)))


@click.command()
@click.option("--wait", is_flag=True, help="Wait until it is ready.")
@click.option(
    "--timeout",
    "timeout_s",
    default=60.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="How long to wait, in seconds.",
)
@output_option
@pass_connection
def status(connection: Connection, wait: bool, timeout_s: float, output: Output) -> None:
    """Show one meshd in short."""
    ask: Callable[[Client], Awaitable[Status]] = (
        (lambda client: client.wait_ready(timeout_s)) if wait else Client.status
    )
    found = connection.talk(ask)
    if output is Output.TABLE:
        _print_status(found)
    else:
        show_data(output, found)


def _leader(leader: LeaderItem | None) -> str:
    if leader is None:
        return "nobody yet"
    return (
        "this meshd"
        if leader["self"]
        else f"pid {leader['pid']} on {leader['host']}, {leader['api']}"
    )


def _mqtt(mqtt: MqttItem) -> str:
    behind = mqtt["behind_events"]
    lag = "" if behind is None else f", {behind} events behind"
    reason = f": {mqtt['reason']}" if mqtt["reason"] else ""
    return f"{mqtt['phase']} at {mqtt['broker']}{lag}{reason}"


def _print_status(found: Status) -> None:
    mqtt = found.get("mqtt")
    etcd = found["etcd"]
    reachable = f"{etcd['version']}, {etcd['db_size_bytes']} bytes"
    print_fields(
        {
            "cluster": f"{found['cluster']} (id {found['id']})",
            "version": found["version"],
            "ready": found["ready"] or f"no: {'; '.join(found['reasons'])}",
            "etcd": reachable if etcd["reachable"] else f"can't be reached: {etcd['reason']}",
            "vector": ", ".join(f"{name}:{at['seq']}" for name, at in found["vector"].items()),
            "exported to": ", ".join(
                f"{log['audience']}:{log['seq']}" + ("" if log["written"] else " (no more)")
                for log in found["exports"]
            ),
            "digest": found["digest"] or "",
            "leader": _leader(found["leader"]),
            **({} if mqtt is None else {"mqtt": _mqtt(mqtt)}),
            "up for": f"{found['uptime_s']:.0f} s",
        }
    )
    if found["peers"]:
        click.echo()
        print_table(found["peers"], columns.PEERS)
