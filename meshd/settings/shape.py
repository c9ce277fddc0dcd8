"""The shape of the settings: which paths there are, and what lies at each.

For: sources, which have to know a field from a typing error and a text from a number. Not for:
checking values (pydantic does, by the same declarations). Invariant: derived from `subjects` alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from pydantic import SecretStr

from meshd.settings.hostport import HostPort
from meshd.settings.subjects import Settings

SettingPath = tuple[str, ...]

_TEXTS = (str, Enum, HostPort, Path, SecretStr)


@dataclasses.dataclass(frozen=True, slots=True)
class Leaf:
    """A field that is set as a whole. is_text: a text stands for itself and isn't read as YAML."""

    path: SettingPath
    is_text: bool
    is_secret: bool
    is_path: bool
    default: object


@cache
def leaves() -> Mapping[SettingPath, Leaf]:
    """All fields, in the order of their declaration."""
    return {leaf.path: leaf for leaf in _walk(Settings, ())}


LISTS: frozenset[SettingPath] = frozenset({("peers",), ("gate", "readers")})
"""Fields whose values are lists of subjects."""


@cache
def subjects() -> frozenset[SettingPath]:
    """All paths that have fields below them; () is the whole."""
    return frozenset(path[:length] for path in leaves() for length in range(len(path)))


def nearest(path: SettingPath) -> str:
    """A remedy for a path that doesn't exist: the existing one that looks most like it."""
    dotted = [".".join(known) for known in (*leaves(), *subjects())]
    found = get_close_matches(".".join(path), dotted, n=1, cutoff=0.75)
    return f"did you mean {found[0]}?" if found else "remove it or check its spelling"


def _walk(subject: type, above: SettingPath) -> Iterator[Leaf]:
    kinds = get_type_hints(subject)
    for field in dataclasses.fields(subject):
        kind, path = kinds[field.name], (*above, field.name)
        if dataclasses.is_dataclass(kind) and isinstance(kind, type) and kind is not HostPort:
            yield from _walk(kind, path)
        else:
            parts = set(_parts(kind))
            yield Leaf(
                path,
                is_text=any(issubclass(part, _TEXTS) for part in parts),
                is_secret=SecretStr in parts,
                is_path=Path in parts,
                default=field.default,
            )


def _parts(kind: Any) -> Iterator[type]:
    """The classes that a field's values are made of; a map or a list of subjects is not a text."""
    origin = get_origin(kind)
    if origin is None:
        if isinstance(kind, type) and (kind is HostPort or not dataclasses.is_dataclass(kind)):
            yield kind
    elif not (isinstance(origin, type) and issubclass(origin, Mapping)):
        for part in get_args(kind):
            yield from _parts(part)
