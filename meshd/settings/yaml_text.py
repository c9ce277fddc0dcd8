"""YAML text to plain data, with the line of everything.

For: the configuration file and manifests. Not for: what the data means. Invariants: what comes
out is a tree of dict (text keys), list, str, int, float, bool and None; work and memory are
bounded by the text's size, since aliases are refused and nodes are counted.

Scalars follow YAML 1.2's core schema: `yes` and `on` are texts, and so is a number with a leading
zero, which is octal for some readers and decimal for others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

import yaml

from meshd.model.errors import Problem, RejectedError

BYTES_MAX = 8 * 1024 * 1024
"""As much as REST takes in one request; a tenth of it would be a large configuration."""
NODES_MAX = 200_000
"""About 10,000 services; more than one record could hold, and read in less than a second."""
DEPTH_MAX = 64
"""Kubernetes' deepest kinds need about 20."""
PROBLEMS_MAX = 100
"""More than a person reads; a hostile file must not make a long answer."""

YamlPath = tuple[str | int, ...]
Place = Callable[[int], str]
"""Makes the name of a line: 12 becomes `meshd.yaml:12`."""

_LOADER: type[yaml.CSafeLoader | yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?(0|[1-9][0-9]{0,29})\Z|0x[0-9a-fA-F]{1,24}\Z|0o[0-7]{1,30}\Z")
_EXPONENT = r"[eE][-+]?[0-9]+"
_WHOLE = r"(0|[1-9][0-9]*)"
_FLOAT = re.compile(
    rf"[-+]?({_WHOLE}?\.[0-9]+({_EXPONENT})?|{_WHOLE}\.({_EXPONENT})?|{_WHOLE}{_EXPONENT})\Z"
)
_SPECIAL: Mapping[str, object] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **{sign + text: float(sign + "inf") for sign in ("", "+", "-") for text in (".inf", ".Inf")},
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}
_TYPES: Mapping[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "null": (type(None),),
}


@dataclass(frozen=True, slots=True)
class YamlDocument:
    """One document. line: where it starts. lines: where each key and item is, if asked for."""

    line: int
    data: object
    lines: Mapping[YamlPath, int]


def read_yaml(raw: bytes, place: Place, *, with_lines: bool = False) -> list[YamlDocument]:
    """Read all documents; raises RejectedError. Documents without content are left out."""
    reader = _Reader(place, with_lines=with_lines)
    for event in _events(_text(raw, place), place, reader.problems):
        reader.take(event)
    if reader.problems:
        raise RejectedError(tuple(reader.problems))
    return [document for document in reader.documents if document.data is not None]


def read_scalar(text: str) -> object:
    """What a plain scalar stands for: null, a boolean, a number, or the text itself."""
    if text in _SPECIAL:
        return _SPECIAL[text]
    if _INT.match(text):
        return int(text, 0)
    return float(text) if _FLOAT.match(text) else text


def _text(raw: bytes, place: Place) -> str:
    if len(raw) > BYTES_MAX:
        raise RejectedError((Problem(place(1), f"more than {BYTES_MAX} bytes", "split it"),))
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise RejectedError((Problem(place(line), "is not UTF-8", "save it as UTF-8"),)) from None


def _events(text: str, place: Place, found: list[Problem]) -> Iterator[yaml.Event]:
    """The parser's events; its error comes after the problems that were found before it."""
    events: Iterable[yaml.Event] = yaml.parse(text, Loader=_LOADER)
    try:
        yield from events
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or str(error).partition("\n")[0]
        problem = Problem(place(mark.line + 1 if mark else 1), f"is not YAML: {what}", "mend it")
        raise RejectedError((*found, problem)) from None


@dataclass(slots=True)
class _Frame:
    """A container under construction. key: the key whose value comes next (maps only)."""

    container: dict[str, object] | list[object]
    path: YamlPath
    key: str | None = None


@dataclass(slots=True)
class _Reader:
    """Builds documents from the parser's events, without recursion: the input sets no depth."""

    place: Place
    with_lines: bool
    documents: list[YamlDocument] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    _stack: list[_Frame] = field(default_factory=list)
    _lines: dict[YamlPath, int] = field(default_factory=dict)
    _nodes: int = 0

    def take(self, event: yaml.Event) -> None:
        """Take the next event."""
        line = event.start_mark.line + 1 if event.start_mark else 1
        match event:
            case yaml.ScalarEvent():
                self._count(line)
                self._scalar(event, line)
            case yaml.MappingStartEvent():
                self._open({}, event, line)
            case yaml.SequenceStartEvent():
                self._open([], event, line)
            case yaml.CollectionEndEvent():
                self._stack.pop()
            case yaml.AliasEvent():
                self._add(line, "aliases (`*name`) are not read", "write the value out")
                self._put(None, line)
            case _:
                pass

    def _scalar(self, event: yaml.ScalarEvent, line: int) -> None:
        frame = self._stack[-1] if self._stack else None
        if frame is None or frame.key is not None or isinstance(frame.container, list):
            self._put(self._value(event, line), line)
            return
        frame.key = event.value
        if frame.key in frame.container:
            self._add(line, f"the key {frame.key!r} is here twice", "remove one")
        if self.with_lines:
            self._lines[(*frame.path, frame.key)] = line

    def _value(self, event: yaml.ScalarEvent, line: int) -> object:
        text: str = event.value
        tag = event.tag.removeprefix(_TAG) if event.tag else ""
        if tag in {"str", "!"} or (not tag and not event.implicit[0]):
            return text
        value = read_scalar(text)
        if tag and not (tag in _TYPES and isinstance(value, _TYPES[tag])):
            self._add(line, f"the tag !!{tag} is unknown or does not fit", "remove it")
        return value

    def _open(
        self, container: dict[str, object] | list[object], event: yaml.NodeEvent, line: int
    ) -> None:
        self._count(line)
        tag = getattr(event, "tag", None)
        if tag not in {None, "!", _TAG + "map", _TAG + "seq"}:
            self._add(line, f"the tag {tag} is unknown", "remove it")
        if len(self._stack) == DEPTH_MAX:
            self._stop(line, f"nested deeper than {DEPTH_MAX}", "make it flatter")
        frame = self._stack[-1] if self._stack else None
        if frame is not None and isinstance(frame.container, dict) and frame.key is None:
            self._stop(line, "a map or list is used as a key", "keys are texts")
        self._stack.append(_Frame(container, self._put(container, line)))

    def _put(self, value: object, line: int) -> YamlPath:
        """Put a value where it belongs; returns its path."""
        if not self._stack:
            self._lines = {(): line} if self.with_lines else {}
            self.documents.append(YamlDocument(line, value, self._lines))
            return ()
        frame = self._stack[-1]
        if isinstance(frame.container, list):
            path = (*frame.path, len(frame.container))
            frame.container.append(value)
            if self.with_lines:
                self._lines[path] = line
            return path
        if frame.key is None:
            self._stop(line, "an alias is used as a key", "keys are texts")
        path = (*frame.path, frame.key)
        frame.container[frame.key] = value
        frame.key = None
        return path

    def _count(self, line: int) -> None:
        self._nodes += 1
        if self._nodes > NODES_MAX:
            self._stop(line, f"more than {NODES_MAX} values", "split the file")

    def _add(self, line: int, what: str, remedy: str) -> None:
        self.problems.append(Problem(self.place(line), what, remedy))
        if len(self.problems) == PROBLEMS_MAX:
            raise RejectedError(tuple(self.problems))

    def _stop(self, line: int, what: str, remedy: str) -> NoReturn:
        raise RejectedError((*self.problems, Problem(self.place(line), what, remedy)))
