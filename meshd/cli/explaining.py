"""`meshd service explain` and `meshd service slots`: one global service, looked into.

For: answering why. Not for: lists and single things as they are (`reading`). Invariant: nothing is
changed.
"""

from __future__ import annotations

from collections import Counter

import click

from meshd.cli import columns
from meshd.cli.as_of import as_of_option
from meshd.cli.connection import Connection, pass_connection
from meshd.cli.output import Output, output_option, print_fields, print_table, show_data
from meshd.client import Explained, Slots
from meshd.core.slots import SLOTS_DEFAULT, SLOTS_SIZES
from meshd.model.ids import ServiceKey

perspective_option = click.option(
    "--perspective", default="", help="As this cluster sees it; the asked one if not given."
)


def key_of(name: str) -> ServiceKey:
    """NAMESPACE/NAME, or NAME in namespace `default`; raises RejectedError."""
    return ServiceKey.parse(name if "/" in name else f"default/{name}")


@click.command()
@click.argument("name")
@perspective_option
@as_of_option
@output_option
@pass_connection
def explain(
    connection: Connection, name: str, perspective: str, as_of: str, output: Output
) -> None:
    """Explain one global service, NAMESPACE/NAME: for every tier how much of the traffic it takes
    and why, for every endpoint why it is in or out, and the event that made it so.
    """
    key = key_of(name)
    found = connection.talk(
        lambda client: client.explain(key.namespace, key.name, perspective=perspective, as_of=as_of)
    )
    if output is Output.TABLE:
        _print(found)
    else:
        show_data(output, found)


def _print(found: Explained) -> None:
    print_fields(
        {
            "service": f"{found['namespace']}/{found['name']}, as {found['perspective']} sees it",
            "served": f"{'yes' if found['served'] else 'no'}: {found['why']}",
        }
    )
    for condition in found["conditions"]:
        text = f"{condition['type']}: {condition['cluster']}: {condition['message']}"
        print_fields({"condition": text})
    if found["tiers"]:
        click.echo()
        print_table(list(enumerate(found["tiers"])), columns.EXPLAINED_TIERS)
    if found["endpoints"]:
        click.echo()
        print_table(found["endpoints"], columns.EXPLAINED_ENDPOINTS)


@click.command()
@click.argument("name")
@click.option(
    "--size",
    default=SLOTS_DEFAULT,
    show_default=True,
    type=int,
    help=f"How many slots: {', '.join(map(str, SLOTS_SIZES))}.",
)
@perspective_option
@output_option
@pass_connection
def slots(connection: Connection, name: str, size: int, perspective: str, output: Output) -> None:
    """Show one global service as slots for consistent hashing (Maglev): here how many each backend
    has, with -o json which.
    """
    key = key_of(name)
    found: Slots = connection.talk(
        lambda client: client.slots(key.namespace, key.name, size=size, perspective=perspective)
    )
    if output is not Output.TABLE:
        show_data(output, found)
        return
    counts = Counter(found["slots"])
    rows = [(backend, counts[number]) for number, backend in enumerate(found["backends"])]
    print_table(rows, columns.SLOTS)
