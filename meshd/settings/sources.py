"""Where settings come from: a file, the environment, flags.

For: turning each into values by path, with the place of each value. Not for: which source wins
(`load`) nor whether a value is right. Invariant: a key that doesn't exist is a problem in every
source, and no source reads another's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from meshd.model.errors import Problem, RejectedError
from meshd.settings.shape import SettingPath, leaves, nearest, subjects
from meshd.settings.yaml_text import BYTES_MAX, YamlPath, read_yaml

ENVIRONMENT_PREFIX = "MESHD_"
CLIENT_VARIABLES = frozenset(
    {
        "MESHD_CONFIG",
        "MESHD_URL",
        "MESHD_TOKEN",
        "MESHD_TOKEN_FILE",
        "MESHD_CA_FILE",
        "MESHD_CERT_FILE",
        "MESHD_KEY_FILE",
    }
)
"""What the command line reads for itself; every other MESHD_ variable is a setting."""

_SHORT_FORMS: Mapping[SettingPath, SettingPath] = {("etcd",): ("etcd", "mode")}
"""A text in place of a subject stands for this field of it: `etcd: embedded`."""


@dataclass(frozen=True, slots=True)
class Given:
    """A value as it was given. places: of parts of it, by their path within the value."""

    value: object
    place: str
    places: Mapping[YamlPath, str] = field(default_factory=dict)


@dataclass(slots=True)
class Source:
    """What one source gives, and what is wrong with it."""

    takes_secrets: bool = False
    values: dict[SettingPath, Given] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def from_file(path: Path) -> Source:
    """Read the configuration file; an unreadable one is a problem as well."""
    source = Source()
    try:
        raw = _read(path)
        documents = read_yaml(raw, lambda line: f"{path}:{line}", with_lines=True)
    except OSError as error:
        reason = error.strerror or str(error)
        source.problems.append(Problem(str(path), reason, "name a file that can be read"))
        return source
    except RejectedError as error:
        source.problems.extend(error.problems)
        return source
    if len(documents) > 1:
        place = f"{path}:{documents[1].line}"
        source.problems.append(Problem(place, "a second document", "keep one; remove the ---"))
    for document in documents[:1]:
        places = {at: f"{path}:{line}" for at, line in document.lines.items()}
        _take(source, (), Given(document.data, f"{path}:{document.line}", places))
    return source


def from_environment(environ: Mapping[str, str]) -> Source:
    """Read all MESHD_ variables but the command line's own."""
    source = Source(takes_secrets=True)
    for name in sorted(environ):
        if name.startswith(ENVIRONMENT_PREFIX) and name not in CLIENT_VARIABLES:
            path = tuple(name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__"))
            _take_text(source, path, environ[name], f"environment {name}")
    return source


def from_flags(overrides: Sequence[str]) -> Source:
    """Read `etcd.endpoints=a:1,b:2`; of two for the same path the later one counts."""
    source = Source()
    for override in overrides:
        dotted, equals, text = override.partition("=")
        place = f"flag --set {dotted.strip()}"
        if not equals:
            source.problems.append(
                Problem(place, "has no value", "write --set path.to.field=value")
            )
            continue
        _take_text(source, tuple(dotted.strip().split(".")), text, place)
    return source


def environment_name(path: SettingPath) -> str:
    """The variable that sets a field."""
    return ENVIRONMENT_PREFIX + "__".join(path).upper()


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(BYTES_MAX + 1)


def _take_text(source: Source, path: SettingPath, text: str, place: str) -> None:
    leaf = leaves().get(path)
    if leaf is not None and leaf.is_secret and not source.takes_secrets:
        source.problems.append(_secret(path, place))
    elif leaf is not None and leaf.is_text:
        source.values[path] = Given(text, place)
    elif leaf is None and path not in subjects():
        source.problems.append(Problem(place, "is not a setting", nearest(path)))
    else:
        try:
            documents = read_yaml(text.encode(), lambda _: place)
        except RejectedError as error:
            source.problems.extend(error.problems)
            return
        _take(source, path, Given(documents[0].data if documents else None, place))


def _take(source: Source, path: SettingPath, given: Given) -> None:
    """Take a value apart into fields."""
    value = given.value
    if path in _SHORT_FORMS and isinstance(value, str):
        path = _SHORT_FORMS[path]
    if value is None:
        # A key whose lines below it are commented out sets nothing.
        return
    if path in leaves():
        source.values[path] = given
        return
    if not isinstance(value, dict):
        place = f"{given.place} {'.'.join(path)}".rstrip()
        source.problems.append(
            Problem(place, f"is not a map, but {value!r:.60}", "write `key: value` lines below it")
        )
        return
    for key, part in value.items():
        _take_key(source, (*path, key), _part(given, key, part))


def _take_key(source: Source, path: SettingPath, given: Given) -> None:
    leaf = leaves().get(path)
    if leaf is None and path not in subjects():
        place = f"{given.place} {'.'.join(path)}"
        source.problems.append(Problem(place, "is not a setting", nearest(path)))
    elif leaf is not None and leaf.is_secret and not source.takes_secrets:
        source.problems.append(_secret(path, f"{given.place} {'.'.join(path)}"))
    else:
        _take(source, path, given)


def _part(given: Given, key: str, value: object) -> Given:
    places = dict(_below(given.places, key))
    return Given(value, places.get((), given.place), places)


def _below(places: Mapping[YamlPath, str], key: str) -> Iterator[tuple[YamlPath, str]]:
    for at, place in places.items():
        if at and at[0] == key:
            yield at[1:], place


def _secret(path: SettingPath, place: str) -> Problem:
    instead = ".".join((*path[:-1], f"{path[-1]}_file"))
    return Problem(
        place,
        "a secret may be given by the environment only",
        f"use {environment_name(path)}, or {instead} with the name of a file that holds it",
    )
