"""Turning traffic away and back: `drain`, `undrain`, `operation`, `migration`.

For: beginning operations, watching them, and undoing them. Not for: doing them, which whoever leads
the cluster does: this command may end meanwhile. Invariant: what is shown before it begins is what
the server foresees.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import click

from meshd.cli import columns
from meshd.cli.connection import Connection, pass_connection
from meshd.cli.failure import Failure
from meshd.cli.output import Output, output_option, show_data, show_fields, show_list
from meshd.client import Client
from meshd.client.operating import OperationItem, Started
from meshd.client.waiting import wait_until
from meshd.model.errors import Problem, RejectedError
from meshd.settings.yaml_text import read_yaml

Command = Callable[..., None]

WATCH_TIMEOUT_S = 7 * 86_400.0
"""As long as a stage may be held."""
RAMP_S = 60.0
RAMP_STEPS = 6
"""What comes back gets the caches and connections that it lost in a minute rather than at once."""


def _turning_options(over_s: float, steps: int) -> Callable[[Command], Command]:
    """The options of drain and undrain."""
    options = (
        click.option(
            "--to", "to_percent", type=click.IntRange(0, 100), help="How far, in percent."
        ),
        click.option(
            "--over",
            "over_s",
            type=click.FloatRange(0),
            default=over_s,
            show_default=True,
            help="Over how many seconds.",
        ),
        click.option(
            "--steps",
            type=click.IntRange(1, 100),
            default=steps,
            show_default=True,
            help="In how many steps.",
        ),
        click.option(
            "--floor",
            "floor_percent",
            type=click.IntRange(0, 100),
            help="How much of what is healthy must be left, in percent.",
        ),
        click.option("--force", is_flag=True, help="Although too little would be left."),
        click.option("--name", default="", help="What to call it; made up if not given."),
        click.option("--dry-run", is_flag=True, help="Say what it would do, and do nothing."),
        click.option("--wait", is_flag=True, help="Until it has ended."),
        output_option,
        pass_connection,
    )

    def decorated(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorated


def _group(kind: Literal["drain", "undrain"], text: str, over_s: float, steps: int) -> click.Group:
    """`drain` or `undrain` with what can be turned."""

    @click.group(kind, help=text)
    def group() -> None:
        pass

    names = (
        ("cluster", None, "All that this cluster serves."),
        ("service", "NAMESPACE/NAME", "This cluster's part of a service."),
        ("endpoint", "NAMESPACE/SERVICE/NAME", "One of this cluster's endpoints."),
        ("node", "NAME", "All endpoints that this cluster has on a node, later ones too."),
    )
    for what, metavar, help_text in names:
        begin: Command = partial(_begin, kind, what)
        command = _turning_options(over_s, steps)(begin)
        if metavar is not None:
            command = click.argument("key", metavar=metavar)(command)
        group.command(what, help=help_text)(command)
    return group


def _begin(
    kind: str,
    what: str,
    connection: Connection,
    /,
    key: str = "",
    **given: Any,
) -> None:
    how = {name: given.pop(name) for name in ("wait", "dry_run", "output")}
    left_out = (None, "", False)
    # By identity, since a floor of 0 is something that was said.
    plan = {
        name: value for name, value in given.items() if not any(value is one for one in left_out)
    }
    plan |= {"kind": kind, "subjects": [f"{what}/{key}" if key else what]}
    started = connection.talk(lambda client: client.start_operation(plan, dry_run=how["dry_run"]))
    _show_started(connection, started, wait=how["wait"], output=how["output"])


def _show_started(connection: Connection, started: Started, *, wait: bool, output: Output) -> None:
    name = started["name"]
    if output is not Output.TABLE:
        show_data(output, started)
    else:
        _print_started(started)
    if wait and not started["dry_run"]:
        _wait(connection, name)


def _print_started(started: Started) -> None:
    rows = [
        {
            "stage": number,
            "turned_percent": stage["turned_percent"],
            "service": service,
            "shares": shares,
        }
        for number, stage in enumerate(started.get("stages", ()), 1)
        for service, shares in (stage["shares_ppm"] or {"": {}}).items()
    ]
    show_list(Output.TABLE, rows, columns.FORESEEN)
    for problem in started.get("too_little", ()):
        click.echo(f"forced although: {problem['where']}: {problem['what']}")
    if started["dry_run"]:
        click.echo("nothing was done (dry run)")
    else:
        click.echo(f"{started['name']} has begun; see `meshd operation show {started['name']}`")


def _wait(connection: Connection, name: str) -> None:
    """Until it has ended; one that is paused waits for a person, so it counts as ended."""

    async def ended(client: Client) -> OperationItem:
        return await wait_until(
            partial(client.operation, name),
            lambda one: one["progress"] != "running",
            what=f"operation {name} to end",
            timeout_s=WATCH_TIMEOUT_S,
        )

    found = connection.talk(ended)
    if found["progress"] != "done":
        raise Failure((f"{name} is {found['progress']}: {found['reason'] or 'somebody said so'}",))
    click.echo(f"{name} is done")


drain = _group(
    "drain",
    "Turn traffic away: at once, or in steps over a time.",
    over_s=0.0,
    steps=1,
)
undrain = _group(
    "undrain", "Turn traffic back to what was drained, in steps.", over_s=RAMP_S, steps=RAMP_STEPS
)


# --- operations -----------------------------------------------------------------------------------


@click.group()
def operation() -> None:
    """Watch operations (drains, ramps, migrations), stop them, undo them."""


@click.group()
def migration() -> None:
    """Move services from this cluster to another, watch it, stop it, undo it."""


name_argument = click.argument("name")
wait_option = click.option("--wait", is_flag=True, help="Until it has ended.")


@operation.command("list")
@output_option
@pass_connection
def list_operations(connection: Connection, output: Output) -> None:
    """Show all operations, the one that changed last first."""
    show_list(output, connection.talk(lambda client: client.operations()), columns.OPERATIONS)


@operation.command("show")
@name_argument
@wait_option
@output_option
@pass_connection
def show_operation(connection: Connection, name: str, output: Output, *, wait: bool) -> None:
    """Show one operation."""
    if wait:
        _wait(connection, name)
    found = connection.talk(lambda client: client.operation(name))
    beside = ("stages", "conditions", "origin", "since_ms", "started_ms", "stage")
    fields: dict[str, object] = {key: value for key, value in found.items() if key not in beside}
    told = {key: value for key, value in found["conditions"].items() if value is not None}
    said_by = columns.origin_text(found["origin"])
    show_fields(output, found, fields | {"conditions": told, "said by": said_by})
    if output is not Output.TABLE:
        return
    click.echo()
    rows = [
        {"number": number, "reached": number <= found["stage"], **stage}
        for number, stage in enumerate(found["stages"], 1)
    ]
    show_list(output, rows, columns.STAGES)


@migration.command("status")
@click.argument("name", required=False, default="")
@wait_option
@output_option
@click.pass_context
def migration_status(ctx: click.Context, name: str, output: Output, *, wait: bool) -> None:
    """Show one migration, or all operations."""
    if name:
        ctx.invoke(show_operation, name=name, output=output, wait=wait)
    else:
        ctx.invoke(list_operations, output=output)


def _moving(move: Literal["pause", "resume", "rollback"], text: str) -> click.Command:
    """The command that moves an operation."""

    @click.command(move, help=text)
    @name_argument
    @click.option("--reason", default="", help="Why, for whoever looks later.")
    @pass_connection
    def command(connection: Connection, name: str, reason: str) -> None:
        outcome = connection.talk(lambda client: client.move_operation(name, move, reason=reason))
        found = connection.talk(lambda client: client.operation(name))
        again = "" if outcome["events"] else " already"
        click.echo(f"{name} is {found['progress']}{again}")

    return command


for moving in (
    _moving("pause", "Hold an operation where it is, until it is resumed."),
    _moving("resume", "Let a paused operation go on."),
    _moving("rollback", "Turn everything back to where it was before an operation, at once."),
):
    operation.add_command(moving)
    migration.add_command(moving)


@operation.command("remove")
@name_argument
@pass_connection
def _remove(connection: Connection, name: str) -> None:
    """Forget an operation that ended. The log keeps what it did: meshd history operation NAME."""
    connection.talk(lambda client: client.delete_operation(name))
    click.echo(f"{name} is forgotten")


@migration.command("signal")
@name_argument
@click.option(
    "--error-percent",
    type=click.FloatRange(0, 100),
    required=True,
    help="How many percent of requests fail.",
)
@pass_connection
def _signal(connection: Connection, name: str, error_percent: float) -> None:
    """Tell what you measured; a plan with conditions.error_percent_max goes by it."""
    connection.talk(lambda client: client.tell_signal(name, error_percent))


@migration.command("start")
@click.option(
    "-f",
    "--file",
    "file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True),
    required=True,
    help="The plan, YAML or JSON.",
)
@click.option("--force", is_flag=True, help="Although something speaks against it.")
@click.option("--dry-run", is_flag=True, help="Say what it would do, and do nothing.")
@click.option("--wait", is_flag=True, help="Until it has ended.")
@output_option
@pass_connection
def _start(connection: Connection, /, file: Path, output: Output, **given: bool) -> None:
    """Start the migration of a plan, at a meshd of the cluster that services are moved from."""
    plan = _plan_of(file) | ({"force": True} if given["force"] else {})
    started = connection.talk(lambda client: client.start_migration(plan, dry_run=given["dry_run"]))
    _show_started(connection, started, wait=given["wait"], output=output)


def _plan_of(file: Path) -> dict[str, object]:
    with click.open_file(str(file), "rb") as stream:
        documents = read_yaml(stream.read(), lambda line: f"{file}:{line}")
    data = documents[0].data if len(documents) == 1 else None
    if not isinstance(data, dict):
        remedy = "write one map with from, to, services and steps"
        raise RejectedError((Problem(str(file), "is not one plan", remedy),))
    return data
