"""Settings for people to look at: every field, its value, and where it came from.

For: `meshd config show`. Not for: writing a configuration file. Invariant: no secret is in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from meshd.settings.load import Loaded, place_of
from meshd.settings.shape import LISTS, SettingPath, leaves
from meshd.settings.subjects import Settings

HIDDEN = "***"
DEFAULT = "default"
_ADAPTER = TypeAdapter(Settings)


@dataclass(frozen=True, slots=True)
class Row:
    """One field. origin: the place that set it, or `default`."""

    setting: str
    value: object
    origin: str


def describe(loaded: Loaded) -> list[Row]:
    """All fields in the order of their declaration; those of each peer and reader by themselves."""
    tree = _ADAPTER.dump_python(loaded.settings, mode="json")
    rows: list[Row] = []
    for path, leaf in leaves().items():
        value = _value(tree, path)
        if path in LISTS and value:
            rows += _items(path, value, loaded)
        elif leaf.is_secret:
            rows.append(_row(".".join(path), HIDDEN if value else "", loaded))
        else:
            rows.append(_row(".".join(path), value, loaded))
    return rows


def _value(tree: Any, path: tuple[str, ...]) -> Any:
    for step in path:
        tree = tree[step]
    return tree


def _items(path: SettingPath, items: list[Mapping[str, object]], loaded: Loaded) -> Iterator[Row]:
    given: Any = loaded.origins[path].value
    for index, item in enumerate(items):
        yield from _flat(f"{'.'.join(path)}[{index}]", item, given[index], loaded)


def _flat(dotted: str, value: object, given: object, loaded: Loaded) -> Iterator[Row]:
    """What an item was given has the place of the list; the rest of it is at its default."""
    if not isinstance(value, Mapping):
        yield _row(dotted, value, loaded) if given is not None else Row(dotted, value, DEFAULT)
        return
    parts = given if isinstance(given, Mapping) else {}
    for key, part in value.items():
        yield from _flat(f"{dotted}.{key}", part, parts.get(key), loaded)


def _row(dotted: str, value: object, loaded: Loaded) -> Row:
    place = place_of(dotted, loaded.origins)
    if place == dotted:
        return Row(dotted, value, DEFAULT)
    # A flag is named by the setting's path; a file and a variable have names of their own.
    is_flag = place.startswith("flag ")
    return Row(dotted, value, place if is_flag else place.removesuffix(f" {dotted}"))
