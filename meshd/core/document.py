"""Reading a plain document field by field, and collecting what is wrong with it.

For: manifests, whose shape is only partly ours. Not for: values whose shape is declared
(`model.schema`). Invariant: reading never raises for what the document holds; every wrong field
becomes one problem with its place, and reads as if it were absent.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import TypeVar

from meshd.model.cluster import ClusterInfo
from meshd.model.endpoint import Endpoint
from meshd.model.errors import Problem, RejectedError
from meshd.model.identity import Identity
from meshd.model.node import Node
from meshd.model.policy import Policy
from meshd.model.schema import from_data
from meshd.model.service import Service

DEPTH_MAX = 64
"""Kubernetes' deepest kinds need about 20."""
SHOWN_CHARS_MAX = 60

Value = TypeVar("Value", Service, Endpoint, Node, Identity, ClusterInfo, Policy)

_REMEDIES = (
    ("valid string", "put it in quotes"),
    ("valid integer", "write a whole number without quotes"),
    ("valid boolean", "write true or false"),
)


class Report:
    """The problems of one document, and what else there is to say of it. subject: what it is about,
    as soon as that is known.
    """

    __slots__ = ("_found", "_notes", "subject", "where")

    def __init__(self, where: str) -> None:
        self.where = where
        self.subject = ""
        self._found: dict[tuple[str, str, str], None] = {}
        self._notes: list[str] = []

    def add(self, path: str, what: str, remedy: str) -> None:
        """Add a problem of the field at a path, once even if the field is read twice."""
        self._found[path, what, remedy] = None

    def note(self, text: str) -> None:
        """Say something that nobody has to do anything about."""
        self._notes.append(text)

    @property
    def notes(self) -> str:
        """All that was noted, as one text."""
        return "; ".join(self._notes)

    @property
    def problems(self) -> list[Problem]:
        """All problems in order, each with its whole place."""
        return [
            Problem(" ".join(filter(None, (self.where, self.subject, path))), what, remedy)
            for path, what, remedy in self._found
        ]


class Fields:
    """A map within a document."""

    __slots__ = ("data", "path", "report")

    def __init__(self, report: Report, path: str, data: Mapping[str, object]) -> None:
        self.report = report
        self.path = path
        self.data = data

    def at(self, key: str) -> str:
        """The path of a field, whether or not it is there."""
        return ".".join(filter(None, (self.path, key)))

    def problem(self, key: str, what: str, remedy: str) -> None:
        """Say what is wrong with a field."""
        self.report.add(self.at(key), what, remedy)

    def map(self, key: str) -> Fields:
        """The map at a key; empty if it is absent or null."""
        value = self.data.get(key)
        if value is not None and not isinstance(value, Mapping):
            self.problem(key, f"is not a map, but {shown(value)}", "write `key: value` below it")
        return Fields(self.report, self.at(key), value if isinstance(value, Mapping) else {})

    def maps(self, key: str) -> list[Fields]:
        """The list of maps at a key; empty if it is absent or null."""
        value = self.data.get(key)
        if value is None:
            return []
        if not isinstance(value, list | tuple):
            self.problem(key, f"is not a list, but {shown(value)}", "write `- ` before each item")
            return []
        found: list[Fields] = []
        for index, item in enumerate(value):
            place = f"{key}[{index}]"
            if isinstance(item, Mapping):
                found.append(Fields(self.report, self.at(place), item))
            else:
                self.problem(place, f"is not a map, but {shown(item)}", "write its fields below it")
        return found

    def text(self, key: str) -> str:
        """The text at a key; empty if it is absent or null."""
        value = self.data.get(key)
        if value is None or isinstance(value, str):
            return value or ""
        self.problem(key, f"is not a text, but {shown(value)}", "put it in quotes")
        return ""

    def allow(self, known: Sequence[str]) -> None:
        """Every other field is a mistake."""
        for key in self.data:
            if key not in known:
                near = get_close_matches(key, known, n=1)
                remedy = f"did you mean {near[0]}?" if near else f"it may have {', '.join(known)}"
                self.problem(key, "unknown field", remedy)

    def value(
        self, kind: type[Value], data: Mapping[str, object], places: Mapping[str, str]
    ) -> Value | None:
        """Check plain data that was put together from this map.

        places: where the data's fields are in the document, for those that are elsewhere than
        below this map under the same name; paths from the document's root.
        """
        try:
            return from_data(kind, data, "")
        except RejectedError as error:
            for problem in error.problems:
                path = self._place(problem.where, places)
                self.report.add(path, problem.what, problem.remedy or _remedy(problem.what))
            return None

    def _place(self, path: str, places: Mapping[str, str]) -> str:
        for name, place in places.items():
            rest = path.removeprefix(name)
            if len(rest) < len(path) and rest[:1] in {"", ".", "["}:
                return place + rest
        return self.at(path)


def plain_problems(data: object) -> Iterator[tuple[str, str, str]]:
    """What makes a document something else than plain data: (path, what is wrong, remedy).

    Without recursion, since the depth is the sender's choice.
    """
    stack: list[tuple[str, int, object]] = [("", 0, data)]
    while stack:
        path, depth, value = stack.pop()
        if depth > DEPTH_MAX:
            yield f"{path[:SHOWN_CHARS_MAX]}…", f"nested deeper than {DEPTH_MAX}", "make it flatter"
        elif isinstance(value, Mapping):
            for key, part in value.items():
                if isinstance(key, str):
                    stack.append((f"{path}.{key}" if path else key, depth + 1, part))
                else:
                    yield path, f"has the key {shown(key)}, which is not a text", "quote it"
        elif isinstance(value, list | tuple):
            stack += [(f"{path}[{i}]", depth + 1, part) for i, part in enumerate(value)]
        elif isinstance(value, float) and not math.isfinite(value):
            yield path, f"{value} is not a number that can be sent", "remove it"
        elif value is not None and not isinstance(value, str | int | float):
            yield path, f"{shown(value)} is not plain data", "write it as a text"


def shown(value: object) -> str:
    """A wrong value, long enough to be found and no longer."""
    text = repr(value)
    return text if len(text) <= SHOWN_CHARS_MAX else text[:SHOWN_CHARS_MAX] + "…"


def _remedy(what: str) -> str:
    return next((remedy for words, remedy in _REMEDIES if words in what), "correct it")
