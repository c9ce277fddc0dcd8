"""What became of an apply, or would, in words.

For: `meshd apply` as a person reads it. Not for: asking the server (`applying`).
"""

from __future__ import annotations

import click
import orjson

from meshd.cli.failure import clean
from meshd.client import ApplyResult
from meshd.client.answers import AppliedItem, FieldChangeItem


def show_result(result: ApplyResult, *, with_changes: bool, aside: bool = False) -> None:
    """Print what became of each thing; with_changes: and of each of its fields. aside: to standard
    error, since the output is something else.
    """
    note = " (dry run)" if result["dry_run"] else ""
    for applied in result["applied"]:
        name = _name(applied["namespace"], applied["name"])
        said = f" ({applied['note']})" if with_changes and applied["note"] else ""
        click.echo(clean(f"{applied['kind']} {name} {applied['change']}{note}{said}"), err=aside)
        if with_changes:
            _show_changes(applied, aside=aside)
    for removed in result["removed"]:
        name = _name(removed["namespace"], removed["name"])
        click.echo(clean(f"{removed['kind']} {name} removed{note}"), err=aside)
    for ignored in result["ignored"]:
        name = _name(ignored["namespace"], ignored["name"])
        click.echo(clean(f"{ignored['kind']} {name} ignored: {ignored['reason']}"), err=aside)
    events = "1 event" if result["events"] == 1 else f"{result['events']} events"
    position = f", now at {result['position']}" if result["position"] else ""
    click.echo(f"{events}{note}{position}", err=aside)


def _name(namespace: str, name: str) -> str:
    return "/".join(part for part in (namespace, name) if part)


def _show_changes(applied: AppliedItem, *, aside: bool) -> None:
    changes = applied["changes"]
    for change in changes:
        click.echo(clean(_change_text(change)), err=aside)
    left = applied["changes_count"] - len(changes)
    if left:
        click.echo(f"    and {left} more", err=aside)


def _change_text(change: FieldChangeItem) -> str:
    old, new = (_text(change["old"]), _text(change["new"]))
    if change["old"] is None:
        return f"  + {change['path']}: {new}"
    if change["new"] is None:
        return f"  - {change['path']}: {old}"
    return f"  ~ {change['path']}: {old} -> {new}"


def _text(value: object) -> str:
    return orjson.dumps(value).decode()
