"""The body of an apply request: text to plain documents, each with its place.

For: YAML and JSON, one document or many. Not for: what the documents mean (`core.manifests`).
Invariants: what comes out is plain data without duplicate keys; a place of YAML is `line N`, which
the command line turns into file and line.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NoReturn

from meshd.model.errors import Problem, RejectedError
from meshd.settings.yaml_text import BYTES_MAX, read_yaml

JSON_TYPE = "application/json"
YAML_TYPES = frozenset(
    {
        "application/yaml",
        "application/x-yaml",
        "text/yaml",
        "text/x-yaml",
        "text/plain",
        "application/octet-stream",
        "",
    }
)
"""What YAML is called in the wild, and what tools say that don't know."""
INTEGER_DIGITS_MAX = 30


def parse_documents(
    raw: bytes, content_type: str, *, may_be_empty: bool = False
) -> list[tuple[str, object]]:
    """Read a body; raises RejectedError, also for one that holds no document and may not."""
    essence = content_type.partition(";")[0].strip().lower()
    if essence == JSON_TYPE or essence.endswith("+json"):
        documents = _read_json(raw)
    elif essence in YAML_TYPES or essence.endswith("+yaml"):
        found = read_yaml(raw, lambda line: f"line {line}")
        documents = [(f"line {document.line}", document.data) for document in found]
    else:
        _refuse("", f"content type {essence!r} is unknown", "send application/yaml")
    if not documents and not may_be_empty:
        _refuse("", "there is no document in it", "send at least one")
    return documents


def read_text(text: str) -> object:
    """Read a text within a document as YAML, which JSON is too; raises RejectedError."""
    found = read_yaml(text.encode(), lambda line: f"line {line}")
    if len(found) != 1:
        _refuse("", f"holds {len(found)} documents", "write one")
    return found[0].data


def _read_json(raw: bytes) -> list[tuple[str, object]]:
    if len(raw) > BYTES_MAX:
        _refuse("", f"more than {BYTES_MAX} bytes", "split it")
    try:
        data = json.loads(
            raw.decode("utf-8-sig"),
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_int=_integer,
        )
    except json.JSONDecodeError as error:
        _refuse(f"line {error.lineno}", f"is not JSON: {error.msg}", "mend it")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        _refuse(f"line {line}", "is not UTF-8", "save it as UTF-8")
    except RecursionError:
        _refuse("", "is nested too deep", "make it flatter")
    if isinstance(data, list):
        return [(f"document {index}", item) for index, item in enumerate(data)]
    return [("document", data)]


def _object(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            _refuse("", f"the key {key!r} is in one object twice", "remove one")
        found[key] = value
    return found


def _refuse_constant(name: str) -> NoReturn:
    _refuse("", f"{name} is not JSON", "remove it")


def _integer(text: str) -> int:
    if len(text) > INTEGER_DIGITS_MAX:
        _refuse("", f"a number of {len(text)} digits", "write it as a text")
    return int(text)


def _refuse(where: str, what: str, remedy: str) -> NoReturn:
    raise RejectedError((Problem(where, what, remedy),))
