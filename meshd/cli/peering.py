"""What a person decides about the peers of a whole cluster: `peer add`, `peer remove`, `peer skip`.

For: having it put into the cluster's log, for all its meshds. Not for: what is said to one meshd
(`controlling`). Invariant: files are named, never read here: they are those of the meshds' hosts.
"""

from __future__ import annotations

from collections.abc import Mapping

import click

from meshd.cli.connection import Connection, pass_connection
from meshd.cli.controlling import peer
from meshd.model.staleness import StalenessPolicy

__all__ = ["peer"]

_SECONDS = click.FloatRange(min=1)


@peer.command("add")
@click.argument("name")
@click.option(
    "--endpoint", "endpoints", multiple=True, required=True, metavar="HOST:PORT", help="Its etcd."
)
@click.option("--ca-file", metavar="FILE", help="Who signs its etcd's certificate.")
@click.option("--cert-file", metavar="FILE", help="Our certificate towards it.")
@click.option("--key-file", metavar="FILE", help="Our certificate's key.")
@click.option("--server-name", metavar="NAME", help="The name in its etcd's certificate.")
@click.option("--username", help="The etcd user that may read its log.")
@click.option("--password-file", metavar="FILE", help="That user's password.")
@click.option("--audience", help="Which of its export logs; mesh if not given.")
@click.option("--prefix", help="What its keys start with; /meshd/v1 if not given.")
@click.option("--announces", multiple=True, metavar="RANGE", help="Where its endpoints may be.")
@click.option(
    "--staleness",
    "policy",
    type=click.Choice([str(one) for one in StalenessPolicy]),
    help="What losing sight of it does; as in the settings if not given.",
)
@click.option(
    "--stale-after", "stale_after_s", type=_SECONDS, help="When it counts as stale, in seconds."
)
@click.option(
    "--withdraw-after", "withdraw_after_s", type=_SECONDS, help="When it is withdrawn, in seconds."
)
@pass_connection
def add_peer(connection: Connection, /, name: str, **given: object) -> None:
    """Follow a peer, or follow it otherwise: all meshds of the cluster do, and go on doing so.

    What isn't given is at its default, whatever it was before. Files are absolute paths on the
    hosts of the cluster's meshds.
    """
    value = _value(given)
    outcome = connection.talk(lambda client: client.put_peer(name, value))
    if outcome["events"]:
        click.echo(f"{name} is followed, now at {outcome['position']}")
    else:
        click.echo(f"{name} is followed like that already")


_BELOW = {
    "tls": ("ca_file", "cert_file", "key_file", "server_name"),
    "staleness": ("policy", "stale_after_s", "withdraw_after_s"),
}
"""Which options are fields of a field."""


def _value(given: Mapping[str, object]) -> dict[str, object]:
    """The options as a peer's value, without those that weren't given."""
    fields = {name: value for name, value in given.items() if value not in {None, ()}}
    value: dict[str, object] = {}
    for name, below in _BELOW.items():
        inner = {field: fields.pop(field) for field in below if field in fields}
        if inner:
            value[name] = inner
    return value | fields


@peer.command("remove")
@click.argument("name")
@pass_connection
def remove_peer(connection: Connection, name: str) -> None:
    """Follow a peer no more. Its backends are withdrawn at once, also if it can't be reached."""
    outcome = connection.talk(lambda client: client.delete_peer(name))
    click.echo(f"{name} is removed, now at {outcome['position']}")


@peer.command("skip")
@click.argument("name")
@click.option("--seq", type=click.IntRange(min=1), help="Only if it is Quarantined at this seq.")
@pass_connection
def skip_record(connection: Connection, name: str, seq: int | None) -> None:
    """Pass over the record at which a peer is Quarantined, in all meshds of the cluster.

    What it says is folded nowhere here; `meshd peer show` lists what was skipped, since this state
    is then not the whole log.
    """
    connection.talk(lambda client: client.skip_record(name, seq))
    click.echo(f"{name}: the record is passed over; see `meshd peer show {name}`")
