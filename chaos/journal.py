"""Histories as files: JSON lines, one entry each.

For: writing a history so that a crash costs at most its last line, and reading it back exactly. Not
for: the entries (`history`). Invariants: what is written is read back equal; a kind, a field or a
value that isn't known is an error that names its line; a line is whole or it isn't there.
"""

from __future__ import annotations

import binascii
import os
import re
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO, Any, Self, Union, get_args, get_origin, get_type_hints

import orjson

from chaos.history import FORMAT, KINDS, Base64Text, Entry, RunStarted, VectorText

LINE_BYTES_MAX = 256 * 1024 * 1024
"""A raw dump of a log is one line: longer than any that a test makes, and less than memory."""
SHOWN_CHARS_MAX = 60
TAIL_BYTES = 64 * 1024
"""So much at a time is looked through for the last line's end."""

Decode = Callable[[Any], Any]


class JournalError(Exception):
    """A file that is no history. line: where, from 1; 0 for the file as a whole."""

    def __init__(self, source: str, line: int, what: str, remedy: str) -> None:
        place = f"{source}, line {line}" if line else source
        super().__init__(f"{place}: {what}: {remedy}")
        self.line = line


class _NotExactError(ValueError):
    """A value of another form than its field's."""


@dataclass(frozen=True, slots=True)
class Journal:
    """A history as it was read. cut: what was left out at its end, or empty."""

    source: str
    entries: tuple[Entry, ...]
    cut: str = ""


class Writer:
    """Appends entries to a file. Nothing is kept in memory, so a killed process leaves at most one
    cut line; `sync` also survives the machine.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last_ns = 0
        self._file: IO[bytes] = path.open("ab", buffering=0)
        _end_cut_line(path, self._file)

    def write(self, entry: Entry) -> None:
        """Append one entry; raises JournalError if it is older than the one before."""
        self._check_time(entry.KIND, entry.at_ns)
        self._append(encode(entry))

    def _check_time(self, kind: str, at_ns: int) -> None:
        if at_ns < self._last_ns:
            what = f"an entry of the kind {kind} is {self._last_ns - at_ns} ns late"
            raise JournalError(str(self._path), 0, what, "write it at the time that it says")
        self._last_ns = at_ns

    def _append(self, lines: bytes) -> None:
        """Write one line or several."""
        while lines:
            lines = lines[self._file.write(lines) :]

    def sync(self) -> None:
        """What was written is on the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Nothing more is written."""
        self.sync()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _end_cut_line(path: Path, file: IO[bytes]) -> None:
    """Cut off what a crash left half-written, so that what follows stands on lines of its own."""
    with path.open("rb") as past:
        end = past.seek(0, os.SEEK_END)
        whole = end
        while whole:
            start = max(0, whole - TAIL_BYTES)
            past.seek(start)
            found = past.read(whole - start).rfind(b"\n")
            if found >= 0:
                whole = start + found + 1
                break
            whole = start
    if whole != end:
        file.truncate(whole)


def encode(entry: Entry) -> bytes:
    """One line, with its end."""
    shape = _SHAPES[entry.KIND]
    data = {"kind": entry.KIND} | {name: _plain(getattr(entry, name)) for name, _ in shape.fields}
    return orjson.dumps(data) + b"\n"


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    return value


def write(path: Path, entries: Iterable[Entry]) -> None:
    """Write a whole history at once."""
    with path.open("wb") as file:
        file.writelines(map(encode, entries))


def read(path: Path) -> Journal:
    """Read a history; raises JournalError, and OSError if there is no such file."""
    with path.open("rb") as file:
        return read_lines(file, str(path))


def read_lines(lines: Iterable[bytes], source: str) -> Journal:
    """Read a history from its lines. The last one may be cut: it is left out and told."""
    entries: list[Entry] = []
    cut = ""
    for number, line in enumerate(lines, 1):
        if cut:
            raise JournalError(source, number - 1, "the line has no end", "this is no history")
        if not line.endswith(b"\n"):
            cut = f"line {number} is cut after {len(line)} bytes and was left out"
            continue
        entries.append(_entry(line, number, source))
    _check_beginning(entries, source)
    return Journal(source, tuple(entries), cut)


def _entry(line: bytes, number: int, source: str) -> Entry:
    if len(line) > LINE_BYTES_MAX:
        what = f"longer than {LINE_BYTES_MAX} bytes"
        raise JournalError(source, number, what, "dump shorter logs, one to a line")
    try:
        data = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        remedy = "every line of a history is one JSON object; record it anew"
        raise JournalError(source, number, f"no JSON ({error})", remedy) from None
    try:
        return decode(data, number)
    except _NotExactError as error:
        what, _, remedy = str(error).partition(": ")
        raise JournalError(source, number, what, remedy) from None


def decode(data: Any, line: int = 0) -> Entry:
    """Make an entry of a line's JSON value; raises ValueError unless it is exactly one."""
    if not isinstance(data, dict) or "kind" not in data:
        raise _NotExactError("no entry: an entry is an object with a `kind`")
    kind = data.pop("kind")
    shape = _SHAPES.get(kind) if isinstance(kind, str) else None
    if shape is None:
        raise _NotExactError(f"unknown kind {_shown(kind)}: known are {', '.join(sorted(KINDS))}")
    if data.keys() != shape.names:
        raise _NotExactError(_field_problem(kind, data, shape))
    values = {}
    for name, check in shape.fields:
        try:
            values[name] = check(data[name])
        except _NotExactError as error:
            raise _NotExactError(f"{kind}.{name} {error}") from None
    return shape.kind(**values, line=line)


def _field_problem(kind: str, data: Mapping[str, Any], shape: _Shape) -> str:
    unknown = sorted(data.keys() - shape.names)
    if unknown:
        return f"unknown field {_shown(unknown[0])} of {kind}: known are {_names(shape)}"
    missing = sorted(shape.names - data.keys())
    return f"{kind} has no field {missing[0]}: it needs {_names(shape)}"


def _names(shape: _Shape) -> str:
    return ", ".join(name for name, _ in shape.fields)


def _check_beginning(entries: list[Entry], source: str) -> None:
    if not entries or not isinstance(entries[0], RunStarted):
        what = "it doesn't begin with the header of a run"
        remedy = 'the first line of a history is an entry of the kind "run"'
        raise JournalError(source, 1 if entries else 0, what, remedy)
    if entries[0].format != FORMAT:
        what = f"a history of format {entries[0].format}"
        raise JournalError(source, 1, what, f"this version reads format {FORMAT}")
    before = entries[0].at_ns
    for entry in entries:
        if entry.at_ns < before:
            what = f"time goes back by {before - entry.at_ns} ns"
            remedy = "all entries are of one monotonic clock, in its order"
            raise JournalError(source, entry.line, what, remedy)
        before = entry.at_ns


# --- exact decoding, made once from the declared types --------------------------------------------


@dataclass(frozen=True, slots=True)
class _Shape:
    """How an entry of a kind is read."""

    kind: type[Entry]
    fields: tuple[tuple[str, Decode], ...]
    names: frozenset[str]


def _shape_of(kind: type[Entry]) -> _Shape:
    hints = get_type_hints(kind, include_extras=True)
    found = tuple(
        (one.name, _decoder(hints[one.name])) for one in fields(kind) if one.name != "line"
    )
    return _Shape(kind, found, frozenset(name for name, _ in found))


def _decoder(hint: Any) -> Decode:
    origin, parts = get_origin(hint), get_args(hint)
    if hint in _PLAIN:
        return _PLAIN[hint]
    if origin is tuple:
        return _tuple_of(_decoder(parts[0]))
    if origin in {Union, types.UnionType}:
        return _or_none(_decoder(next(part for part in parts if part is not type(None))))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _map_of(_decoder(parts[1]))
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return _one_of(hint)
    if is_dataclass(hint):
        return _object_of(hint)
    return _row_of(hint)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_CHARS_MAX else text[:SHOWN_CHARS_MAX] + "…"


def _wrong(value: Any, wanted: str) -> _NotExactError:
    return _NotExactError(f"is {_shown(value)}: write {wanted}")


def _exactly(kind: type, wanted: str) -> Decode:
    def check(value: Any) -> Any:
        if type(value) is not kind:
            raise _wrong(value, wanted)
        return value

    return check


def _number(value: Any) -> float:
    if type(value) is not float and type(value) is not int:
        raise _wrong(value, "a number")
    return float(value)


_POSITION = "[^:,]+:[0-9a-f]{32}:[0-9]{1,19}"
_VECTOR = re.compile(f"(?:{_POSITION}(?:,{_POSITION})*)?")


def _vector(value: Any) -> str:
    if not isinstance(value, str) or _VECTOR.fullmatch(value) is None:
        raise _wrong(value, "positions like `cluster:log id:seq`, with commas between")
    return value


def _base64(value: Any) -> str:
    try:
        binascii.a2b_base64(value, strict_mode=True)
    except (binascii.Error, TypeError, ValueError):
        raise _wrong(value, "base64") from None
    return str(value)


_PLAIN: Mapping[Any, Decode] = {
    VectorText: _vector,
    Base64Text: _base64,
    int: _exactly(int, "a whole number"),
    str: _exactly(str, "a text"),
    bool: _exactly(bool, "true or false"),
    float: _number,
}


def _one_of(kind: type[StrEnum]) -> Decode:
    known = {str(member): member for member in kind}

    def check(value: Any) -> Any:
        found = known.get(value) if isinstance(value, str) else None
        if found is None:
            raise _wrong(value, f"one of {', '.join(known)}")
        return found

    return check


def _tuple_of(part: Decode) -> Decode:
    def check(value: Any) -> Any:
        if type(value) is not list:
            raise _wrong(value, "a list")
        return tuple(map(part, value))

    return check


def _map_of(part: Decode) -> Decode:
    def check(value: Any) -> Any:
        if type(value) is not dict:
            raise _wrong(value, "an object")
        return {key: part(inner) for key, inner in value.items()}

    return check


def _or_none(inner: Decode) -> Decode:
    return lambda value: None if value is None else inner(value)


def _object_of(kind: Any) -> Decode:
    hints = get_type_hints(kind, include_extras=True)
    parts = {one.name: _decoder(hints[one.name]) for one in fields(kind)}

    def check(value: Any) -> Any:
        if type(value) is not dict or value.keys() != parts.keys():
            raise _wrong(value, f"an object with just {', '.join(parts)}")
        return kind(**{name: part(value[name]) for name, part in parts.items()})

    return check


def _row_of(kind: Any) -> Decode:
    hints = get_type_hints(kind, include_extras=True)
    parts = tuple(_decoder(hints[name]) for name in kind._fields)

    def check(value: Any) -> Any:
        if type(value) is not list or len(value) != len(parts):
            raise _wrong(value, f"a list of {', '.join(kind._fields)}")
        return kind._make([part(inner) for part, inner in zip(parts, value, strict=True)])

    return check


_SHAPES: Mapping[str, _Shape] = {name: _shape_of(kind) for name, kind in KINDS.items()}
