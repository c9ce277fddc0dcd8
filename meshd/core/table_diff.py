"""What is different between two tables of one cluster.

For: naming every change, field by field, old and new. Not for: deltas of a table that is kept up to
date (`tables`), nor how the two came about. Invariants: pure; two tables have no difference exactly
if they are equal but for origins; a field that is added to a service or backend is compared without
a word here.

Origins are left out: they say which event made a backend so, and the same backend made so by
another event takes the same traffic.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from itertools import zip_longest
from typing import TypeGuard

from meshd.model.ids import ClusterName, ServiceKey
from meshd.model.table import Backend, BackendKey, GlobalService


class DiffKind(StrEnum):
    """What happened to a service or backend."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One value that is another. path: like `affinity`, `ports[0].port` or `labels.team`. old, new:
    None where there is no such value.
    """

    path: str
    old: object
    new: object


@dataclass(frozen=True, slots=True)
class BackendDiff:
    """A backend that came, went or changed. fields: of one that came or went all it has."""

    cluster: ClusterName
    name: str
    kind: DiffKind
    fields: tuple[FieldChange, ...]


@dataclass(frozen=True, slots=True)
class ServiceDiff:
    """A service that came, went or changed. fields: of one that came or went all it has.

    backends: those that differ, by cluster and name.
    """

    key: ServiceKey
    kind: DiffKind
    fields: tuple[FieldChange, ...]
    backends: tuple[BackendDiff, ...]


Table = Mapping[ServiceKey, GlobalService]

_NOT_OF_A_SERVICE = frozenset({"key", "backends"})
_NOT_OF_A_BACKEND = frozenset({"cluster", "name", "origin"})


def diff_tables(before: Table, after: Table) -> tuple[ServiceDiff, ...]:
    """All that differs, sorted by service."""
    pairs = ((key, before.get(key), after.get(key)) for key in sorted({*before, *after}))
    found = (_diff_service(key, old, new) for key, old, new in pairs)
    return tuple(diff for diff in found if diff is not None)


def _diff_service(
    key: ServiceKey, old: GlobalService | None, new: GlobalService | None
) -> ServiceDiff | None:
    if old is new:
        return None
    changes = tuple(_field_changes(GlobalService, old, new, _NOT_OF_A_SERVICE))
    mine, theirs = _backends(old), _backends(new)
    pairs = ((name, mine.get(name), theirs.get(name)) for name in sorted({*mine, *theirs}))
    found = (_diff_backend(name, one, other) for name, one, other in pairs)
    backends = tuple(diff for diff in found if diff is not None)
    return ServiceDiff(key, _kind(old, new), changes, backends) if changes or backends else None


def _backends(service: GlobalService | None) -> dict[BackendKey, Backend]:
    backends = service.backends if service is not None else ()
    return {(backend.cluster, backend.name): backend for backend in backends}


def _diff_backend(name: BackendKey, old: Backend | None, new: Backend | None) -> BackendDiff | None:
    changes = tuple(_field_changes(Backend, old, new, _NOT_OF_A_BACKEND))
    return BackendDiff(*name, _kind(old, new), changes) if changes else None


def _kind(old: object, new: object) -> DiffKind:
    if old is None:
        return DiffKind.ADDED
    return DiffKind.REMOVED if new is None else DiffKind.CHANGED


def _field_changes(
    shape: type[GlobalService | Backend],
    old: GlobalService | Backend | None,
    new: GlobalService | Backend | None,
    left_out: frozenset[str],
) -> Iterator[FieldChange]:
    """The fields that differ; of what is there alone, all of them, whole."""
    for field in fields(shape):
        name = field.name
        if name in left_out:
            continue
        if old is None:
            yield FieldChange(name, None, getattr(new, name))
        elif new is None:
            yield FieldChange(name, getattr(old, name), None)
        else:
            yield from _changes(name, getattr(old, name), getattr(new, name))


def _changes(path: str, old: object, new: object) -> Iterator[FieldChange]:
    """Where two values differ, as deep as both have the same shape."""
    if old == new:
        return
    if is_dataclass(old) and type(old) is type(new):
        for field in fields(old):
            name = field.name
            yield from _changes(f"{path}.{name}", getattr(old, name), getattr(new, name))
    elif isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            yield from _changes(f"{path}.{key}", old.get(key), new.get(key))
    elif _is_listed(old) and _is_listed(new):
        for number, (mine, theirs) in enumerate(zip_longest(old, new)):
            yield from _changes(f"{path}[{number}]", mine, theirs)
    else:
        yield FieldChange(path, old, new)


def _is_listed(value: object) -> TypeGuard[tuple[object, ...]]:
    """Whether this is a list of things with fields; a list of plain values is one value."""
    return isinstance(value, tuple) and all(map(is_dataclass, value))
