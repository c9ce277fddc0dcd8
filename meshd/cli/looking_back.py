"""`diff` and `history`: what changed, when, and who did it.

For: people who look back. Not for: a list as it was, which is `--as-of` of the command that shows
it (`reading`). Invariant: nothing is changed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterator
from typing import Literal

import click
import orjson

from meshd.cli import columns
from meshd.cli.as_of import moment_option
from meshd.cli.connection import Connection, pass_connection
from meshd.cli.explaining import perspective_option
from meshd.cli.output import Output, output_option, print_fields, print_table, show_data, show_list
from meshd.cli.planning import COUNTED
from meshd.cli.reading import namespace_option
from meshd.client import Client, HistoryPage, TableDiff
from meshd.client.answers import FieldChangeItem
from meshd.core.trail import KINDS

SHARE = "share_ppm"


@click.command()
@moment_option("--from", "The older one", is_required=True)
@moment_option("--to", "The newer one, now if not given")
@namespace_option
@perspective_option
@output_option
@pass_connection
def diff(
    connection: Connection,
    /,
    namespace: str,
    perspective: str,
    output: Output,
    **moments: str,
) -> None:
    """Show what is different between the global services of two moments."""

    def ask(client: Client) -> Awaitable[TableDiff]:
        return client.diff(
            moments["from"], moments["to"], perspective=perspective, namespace=namespace
        )

    found = connection.talk(ask)
    if output is not Output.TABLE:
        show_data(output, found)
        return
    print_fields(
        {
            "from": found["from"],
            "to": found["to"],
            "not known then": found["unknown_from"],
            "not known at the end": found["unknown_to"],
        }
    )
    rows = list(diff_rows(found))
    if rows:
        click.echo()
        print_table(rows, columns.DIFF)
    else:
        click.echo("nothing is different", err=True)


def diff_rows(found: TableDiff) -> Iterator[tuple[str, str, str, str, str]]:
    """One row for each service that is another, and one for each of its backends that is."""
    for service in found["services"]:
        key = f"{service['namespace']}/{service['name']}"
        told = [one for one in service["fields"] if not COUNTED.match(one["path"])]
        fields = changes_text(told) if service["change"] == "changed" else ""
        if fields or service["change"] != "changed":
            yield key, "", service["change"], fields, ""
        for backend in service["backends"]:
            is_changed = backend["change"] == "changed"
            yield (
                key,
                f"{backend['cluster']}/{backend['name']}",
                backend["change"],
                changes_text(backend["fields"]) if is_changed else "",
                columns.origin_text(backend["origin"]),
            )


def changes_text(changes: list[FieldChangeItem]) -> str:
    """Changes like `weight: 100 → 50`."""
    return ", ".join(
        f"{one['path']}: {_shown(one, 'old')} → {_shown(one, 'new')}" for one in changes
    )


def _shown(change: FieldChangeItem, which: Literal["old", "new"]) -> str:
    value = change[which]
    if change["path"].endswith(SHARE) and isinstance(value, int):
        return columns.percent_text(value)
    return _plain(value)


def _plain(value: object) -> str:
    if isinstance(value, str):
        return value or "''"
    return "-" if value is None else orjson.dumps(value).decode()


@click.command()
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("name")
@click.option("--cluster", default="", help="Only in this cluster's log; in all if not given.")
@click.option("--endpoints", is_flag=True, help="With the service's endpoints.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 1000))
@click.option("--before", default="", help="Older ones, as the page before said.")
@output_option
@pass_connection
def history(
    connection: Connection,
    /,
    kind: str,
    name: str,
    output: Output,
    **asked: str | bool | int,
) -> None:
    """Show what happened to one thing, newest first: KIND, and NAME like shop/web for a service
    (web in namespace `default`), shop/web/web-1 for an endpoint.
    """
    slashes = {"service": 1, "endpoint": 2}.get(kind, 0)
    full = f"default/{name}" if name.count("/") == slashes - 1 else name

    def ask(client: Client) -> Awaitable[HistoryPage]:
        return client.history(
            kind,
            full,
            cluster=str(asked["cluster"]),
            limit=int(asked["limit"]),
            before=str(asked["before"]),
            endpoints=bool(asked["endpoints"]),
        )

    page = connection.talk(ask)
    if output is not Output.TABLE:
        show_data(output, page)
        return
    rows = [(step, step["changes"]) for step in page["items"]]
    show_list(output, [(step, _what(changes)) for step, changes in rows], columns.HISTORY)
    if page["unknown"]:
        click.echo(f"nothing is held of: {', '.join(page['unknown'])}", err=True)
    if page["next"] is not None:
        click.echo(f"there may be more: --before {page['next']}", err=True)


def _what(changes: list[FieldChangeItem] | None) -> str:
    return "" if changes is None else changes_text(changes)
