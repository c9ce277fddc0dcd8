"""`meshd plan`: what a set of changes would do to the tables of every cluster.

For: sending files and removals, and showing what differs. Not for: applying (`applying`).
Invariant: nothing is changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import click

from meshd.cli.applying import Bundle, bundle_files, read_files, sent
from meshd.cli.columns import ports_text
from meshd.cli.connection import Connection, pass_connection
from meshd.cli.failure import BadInput, clean
from meshd.cli.output import Output, cell_text, output_option, show_data
from meshd.cli.permitting import class_text
from meshd.client import Client, Plan, PlannedBackendItem, PortItem, ServiceEffectItem
from meshd.client.reports import ReachItem, ThroughItem
from meshd.model.table import PPM

FAILED = 1
_SIGNS = {"added": "+", "removed": "-", "changed": "~"}
_SHOWN_OF_A_NEW_BACKEND = ("address", "ports", "priority", "weight", "zone", "reason")
COUNTED = re.compile(r"tiers\[\d+\]\.(?!clusters|percent|share_ppm)")
"""What follows from a service's backends, which are named one by one; JSON has it all."""
_NOTHING: tuple[object, ...] = (None, "", [], {})
_SHOWN_OF_A_NEW_SERVICE = ("ports", "affinity", "clusters")


@click.command()
@click.option(
    "-f",
    "--file",
    "names",
    multiple=True,
    metavar="FILE",
    help="YAML or JSON as for `meshd apply`; - is standard input. May be given several times.",
)
@click.option(
    "--remove",
    "removals",
    multiple=True,
    metavar="THING",
    help="Also remove service/NAMESPACE/NAME, endpoint/NAMESPACE/SERVICE/NAME or"
    " policy/NAMESPACE/NAME. May be given several times.",
)
@click.option(
    "--perspective",
    "perspectives",
    multiple=True,
    metavar="CLUSTER",
    help="Only as this cluster would see it; all that are known if not given.",
)
@click.option(
    "--fail-on-empty",
    is_flag=True,
    help="Exit status 1 if a service would be served without any backend that is in.",
)
@output_option
@pass_connection
@click.pass_context
def plan(  # noqa: PLR0913, PLR0917 one for each option
    ctx: click.Context,
    connection: Connection,
    names: Sequence[str],
    removals: Sequence[str],
    perspectives: Sequence[str],
    fail_on_empty: bool,
    output: Output,
) -> None:
    """Show what manifests and removals would change in the tables, as every cluster sees them, and
    change nothing. They are this cluster's own; what is another's is planned at that one's meshd.

    Exit status 0 whatever would change; see --fail-on-empty.
    """
    if not names and not removals:
        raise BadInput(["there is nothing to plan: give -f, --remove, or both"])
    bundle = bundle_files(read_files(names)) if names else Bundle(b"", "", ())

    async def ask(client: Client) -> Plan:
        asked = client.plan(
            bundle.raw,
            content_type=bundle.content_type,
            remove=removals,
            perspectives=perspectives,
        )
        return await sent(bundle, asked)

    found = connection.talk(ask)
    for entry in (*found["applied"], *found["ignored"]):
        entry["where"] = bundle.place(entry["where"])
    if output is Output.TABLE:
        for line in plan_lines(found):
            click.echo(clean(line))
    else:
        show_data(output, found)
    if fail_on_empty and found["empty"]:
        ctx.exit(FAILED)


def plan_lines(found: Plan) -> Iterator[str]:
    """A plan for people: first what is dangerous, then each cluster's changes, then the sum."""
    for one in found["empty"]:
        before = one["eligible_before"]
        was = "it isn't served now" if before is None else f"{before} now"
        name = f"{one['namespace']}/{one['name']}"
        seen = f"as {one['perspective']} sees it"
        yield f"WARNING: {name} would have no backend that is in, {seen} ({was})"
    for ignored in found["ignored"]:
        name = "/".join(part for part in (ignored["namespace"], ignored["name"]) if part)
        yield f"{ignored['kind']} {name} ignored: {ignored['reason']}"
    for effect in found["perspectives"]:
        if effect["services"]:
            yield f"as {effect['perspective']} sees it:"
            for service in effect["services"]:
                yield from _service_lines(service)
        else:
            yield f"as {effect['perspective']} sees it: nothing changes"
    for name in found["unknown"]:
        yield f"as {name} sees it: nothing is known of it yet"
    yield from _reach_lines(found["reach"])
    yield _summary(found)


def _reach_lines(reach: ReachItem) -> Iterator[str]:
    """Who may talk to whom otherwise than before."""
    if reach["changes"]:
        yield "who may talk to whom:"
    for change in reach["changes"]:
        ends = f"{class_text(change['from'])} to {class_text(change['to'])}"
        yield f"  ~ {ends}: {_through(change['old'])} → {_through(change['new'])}"
    left = reach["count"] - len(reach["changes"])
    if left:
        yield f"  and {left} more"
    if not reach["complete"]:
        yield "  more pairs than can be looked at are concerned"


def _through(through: ThroughItem) -> str:
    sure = ", ".join(through["ports"]) or "nothing"
    maybe = ", ".join(through["conditional"])
    return f"{sure} (and on conditions {maybe})" if maybe else sure


def _summary(found: Plan) -> str:
    changed = {
        (service["namespace"], service["name"])
        for effect in found["perspectives"]
        for service in effect["services"]
    }
    events = _counted(found["events"], "event")
    where = sum(bool(effect["services"]) for effect in found["perspectives"])
    return (
        f"{events}; {_counted(len(changed), 'service')} would change, in the tables of"
        f" {where} of {_counted(len(found['perspectives']), 'cluster')}"
    )


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _service_lines(service: ServiceEffectItem) -> Iterator[str]:
    before, after = service["eligible_before"], service["eligible_after"]
    name = f"{service['namespace']}/{service['name']}"
    counts = f"backends in: {cell_text(before)} → {cell_text(after)}"
    yield f"  {_SIGNS[service['change']]} {name}  ({counts})"
    yield from _field_lines(service, _SHOWN_OF_A_NEW_SERVICE, "      ")
    for backend in service["backends"]:
        name = f"{backend['cluster']} {backend['name']}"
        yield f"      {_SIGNS[backend['change']]} {name}{_inline(backend)}"
        if backend["change"] == "changed":
            yield from _field_lines(backend, (), "          ")
    if service["backends_omitted"]:
        yield f"      … and {_counted(service['backends_omitted'], 'backend')} more"


def _inline(backend: PlannedBackendItem) -> str:
    """What is remarkable about a backend that would come."""
    if backend["change"] != "added":
        return ""
    values = {change["path"]: change["new"] for change in backend["fields"]}
    shown = (
        f"{path} {_value(path, values[path])}"
        for path in _SHOWN_OF_A_NEW_BACKEND
        if values.get(path) not in _NOTHING
    )
    return "  " + ", ".join(shown)


def _field_lines(
    diff: ServiceEffectItem | PlannedBackendItem, of_new: Sequence[str], indent: str
) -> Iterator[str]:
    for change in diff["fields"]:
        path = change["path"]
        if COUNTED.match(path):
            continue
        if diff["change"] == "changed":
            yield f"{indent}~ {path}: {_value(path, change['old'])} → {_value(path, change['new'])}"
        elif diff["change"] == "added" and path in of_new:
            yield f"{indent}+ {path}: {_value(path, change['new'])}"


def _value(path: str, value: object) -> str:
    """One value in a few words."""
    if value in _NOTHING:
        return "none"
    if isinstance(value, int) and path.endswith("_ppm"):
        return f"{value * 100 / PPM:.1f} %"
    if isinstance(value, Mapping) and "port" in value:
        return ports_text((cast("PortItem", value),))
    if isinstance(value, Mapping):
        parts = (f"{key}={_value(str(key), part)}" for key, part in value.items())
        return "{" + ", ".join(parts) + "}"
    if isinstance(value, list):
        return ", ".join(_value(path, part) for part in value)
    return cell_text(value)
