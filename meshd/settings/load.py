"""Settings from all their sources, or every problem at once.

For: precedence (flags, then environment, then file, then default) and checking. Not for: reading a
source (`sources`). Invariants: nothing of a source with problems is used; relative paths mean the
folder of the configuration file, or without one the working folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from meshd.model.errors import Problem, RejectedError
from meshd.model.schema import problem_of
from meshd.settings.rules import check
from meshd.settings.shape import LISTS, SettingPath, leaves, subjects
from meshd.settings.sources import (
    Given,
    environment_name,
    from_environment,
    from_file,
    from_flags,
)
from meshd.settings.subjects import Settings

_ADAPTERS: Mapping[str, TypeAdapter[Any]] = {
    name: TypeAdapter(kind) for name, kind in get_type_hints(Settings, include_extras=True).items()
}

Origins = Mapping[SettingPath, Given]


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, and where each that isn't at its default came from."""

    settings: Settings
    origins: Origins


def load(path: Path | None, environ: Mapping[str, str], overrides: Sequence[str]) -> Settings:
    """Load the settings; raises RejectedError with all problems of all sources."""
    return read(path, environ, overrides).settings


def read(path: Path | None, environ: Mapping[str, str], overrides: Sequence[str]) -> Loaded:
    """As `load`, but keep where everything came from."""
    sources = [from_file(path)] if path is not None else []
    sources += [from_environment(environ), from_flags(overrides)]
    origins: dict[SettingPath, Given] = {}
    for source in sources:
        origins |= source.values
    problems = [problem for source in sources for problem in source.problems]
    sound: dict[str, Any] = {}
    tree = _tree(origins, path.parent if path is not None else Path())
    for name, adapter in _ADAPTERS.items():
        try:
            sound[name] = adapter.validate_python(tree[name], extra="forbid")
        except ValidationError as error:
            details = error.errors(include_url=False)
            problems += [_problem(detail, name, origins) for detail in details]
    problems += [
        Problem(place_of(problem.where, origins), problem.what, problem.remedy)
        for problem in check(sound)
    ]
    if problems:
        raise RejectedError(tuple(problems))
    return Loaded(Settings(**sound), origins)


def place_of(dotted: str, origins: Origins) -> str:
    """A setting's path, led by the place that set it: `meshd.yaml:12 etcd.endpoints`."""
    path = _steps(dotted)
    for length in range(len(path), 0, -1):
        given = origins.get(tuple(str(step) for step in path[:length]))
        if given is not None:
            place = _deepest(given, path[length:])
            return place if place.endswith(f" {dotted}") else f"{place} {dotted}"
    return dotted


def _steps(dotted: str) -> tuple[str | int, ...]:
    steps = dotted.replace("[", ".").replace("]", "").split(".")
    return tuple(int(step) if step.isdecimal() else step for step in steps)


def _deepest(given: Given, path: tuple[str | int, ...]) -> str:
    for length in range(len(path), 0, -1):
        if path[:length] in given.places:
            return given.places[path[:length]]
    return given.place


def _tree(origins: Origins, folder: Path) -> dict[str, Any]:
    """The values as one tree. Every subject is in it, so that what is missing is named by field."""
    tree: dict[str, Any] = {}
    for subject in sorted(subjects() - {()}):
        _at(tree, subject[:-1])[subject[-1]] = {}
    for path, leaf in leaves().items():
        value = origins[path].value if path in origins else leaf.default
        if leaf.is_path and isinstance(value, str | Path) and value != "":
            value = folder / value
        elif path in LISTS:
            value = _resolved(value, folder) if path in origins else []
        elif path not in origins:
            continue
        _at(tree, path[:-1])[path[-1]] = value
    return tree


def _at(tree: dict[str, Any], path: SettingPath) -> dict[str, Any]:
    for step in path:
        tree = tree[step]
    return tree


def _resolved(part: object, folder: Path) -> object:
    """A list of subjects with its paths resolved: those are the fields that end in `_file`."""
    if isinstance(part, list):
        return [_resolved(item, folder) for item in part]
    if not isinstance(part, dict):
        return part
    return {
        key: folder / value
        if key.endswith("_file") and isinstance(value, str) and value
        else _resolved(value, folder)
        for key, value in part.items()
    }


def _problem(detail: ErrorDetails, subject: str, origins: Origins) -> Problem:
    problem = problem_of(detail, subject)
    remedy = problem.remedy or _remedy(detail)
    path = (subject, *(str(step) for step in detail["loc"]))
    if detail["type"].startswith("missing") and path in leaves():
        remedy = f"add it, or set {environment_name(path)}"
    return Problem(place_of(problem.where, origins), problem.what, remedy)


def _remedy(detail: ErrorDetails) -> str:
    kind = detail["type"]
    for part, remedy in _REMEDIES:
        if part in kind:
            return remedy
    return "correct it"


_REMEDIES: Sequence[tuple[str, str]] = (
    ("string_type", "put it in quotes"),
    ("int", "write a whole number without quotes"),
    ("float", "write a number without quotes"),
    ("bool", "write true or false"),
    ("tuple_type", "write a list"),
    ("enum", "choose one of these"),
    ("greater", "choose a larger value"),
    ("less", "choose a smaller value"),
    ("too_long", "take some away"),
    ("too_short", "add one"),
)
