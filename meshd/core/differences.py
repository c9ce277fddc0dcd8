"""What a command changes, field by field.

For: showing people what an apply does, or would do. Not for: deciding it (`decide`). Invariant: who
makes all the changes that are told to the old value gets the new one, but for when a service was
defined first and how far a thing is turned up, which meshd itself notes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from meshd.core.draft import Draft
from meshd.model.command import (
    AllocateIdentity,
    Command,
    DescribeCluster,
    ReplaceEndpoints,
    SetEndpoint,
    SetIdentity,
    SetNode,
    SetPolicy,
    SetService,
)
from meshd.model.endpoint import Endpoint
from meshd.model.identity import Identity
from meshd.model.node import Node
from meshd.model.policy import Policy
from meshd.model.schema import all_data, to_data
from meshd.model.service import Service

SAID_WHILE_RUNNING = ("state", "weight", "announces")
NOTED_BY_MESHD = frozenset({"created_ms", "turned_percent"})

Value = Service | Endpoint | Node | Identity | Policy
Seen = Mapping[str, object] | None
"""A thing by the paths of its parts, each a value or plain data; '' is the thing itself. None if it
isn't there.
"""


@dataclass(frozen=True, slots=True)
class FieldChange:
    """A field that changes. path: its names with dots between them. None: it isn't there."""

    path: str
    old: object
    new: object


def seen(draft: Draft, command: Command) -> Seen:
    """What a command is about, as it is now: values by the paths that are told of them."""
    match command:
        case SetService(key):
            return _value(draft.service(key))
        case SetEndpoint(key):
            return _value(draft.endpoint(key))
        case ReplaceEndpoints(service, source):
            found = draft.endpoints_from(service, source)
            return {f"endpoints.{name}": endpoint for name, endpoint in found.items()} or None
        case SetNode(name):
            return _value(draft.node(name))
        case SetIdentity(number):
            return _value(draft.identity(number))
        case AllocateIdentity(labels):
            numbers = draft.numbers().numbers_of(labels)
            return {"number": numbers[0], "": draft.identity(numbers[0])} if numbers else None
        case SetPolicy(policy_key):
            return _value(draft.policy(policy_key))
        case DescribeCluster():
            info = draft.cluster()
            data = all_data(info) if info is not None else {}
            return {name: data[name] for name in SAID_WHILE_RUNNING if name in data} or None
        case _:
            return None


def _value(value: Value | None) -> Seen:
    return None if value is None else {"": value}


def differences(before: Seen, after: Seen) -> list[FieldChange]:
    """What changed from one to the other. What comes whole or goes whole is told without its
    defaults.
    """
    old, new = before or {}, after or {}
    found: list[FieldChange] = []
    for path in (*old, *(path for path in new if path not in old)):
        found += _between(path, old.get(path), new.get(path))
    return found


def _between(path: str, old: object, new: object) -> Iterator[FieldChange]:
    if old == new:
        return
    if isinstance(old, Value) and isinstance(new, Value):
        yield from _in_fields(path, all_data(old), all_data(new))
    elif path:
        yield FieldChange(path, _plain(old), _plain(new))
    else:
        yield from _in_fields(path, _plain(old) or {}, _plain(new) or {})


def _in_fields(path: str, old: object, new: object) -> Iterator[FieldChange]:
    if not (isinstance(old, Mapping) and isinstance(new, Mapping)):
        yield FieldChange(path, old, new)
        return
    for name in (*old, *(name for name in new if name not in old)):
        known, value = old.get(name), new.get(name)
        if known != value and name not in NOTED_BY_MESHD:
            yield from _in_fields(f"{path}.{name}" if path else name, known, value)


def _plain(value: object) -> object:
    return to_data(value) if isinstance(value, Value) else value
