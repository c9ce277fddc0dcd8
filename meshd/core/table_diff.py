"""What is different between two tables of global services.

For: what changed from one time to another, or would by a plan. Not for: how either table came about
(`derive`), nor when. Invariants: pure; a table compared with itself differs in nothing; every field
that a service or a backend has is compared, those of later versions too, but for the event that
made it so: that tells who did it, and is no difference by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Final

from meshd.model.ids import ClusterName, ServiceKey
from meshd.model.table import Backend, GlobalService, Origin


class Kind(StrEnum):
    """What became of something."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One field that has another value. old, new: None where there was, or is, none."""

    field: str
    old: object
    new: object


@dataclass(frozen=True, slots=True)
class BackendDiff:
    """One backend that came, went or changed. origin: the event that made it what it is now; None
    where it is gone. before: the one that had made it what it was. Where both are the same, it is
    something else that changed what this backend is: the service's definition, or its place.
    """

    cluster: ClusterName
    name: str
    kind: Kind
    changes: tuple[FieldChange, ...]
    origin: Origin | None
    before: Origin | None


@dataclass(frozen=True, slots=True)
class ServiceDiff:
    """One service that came, went or changed. changes: of its definition. backends: sorted."""

    key: ServiceKey
    kind: Kind
    changes: tuple[FieldChange, ...]
    backends: tuple[BackendDiff, ...]


Table = Mapping[ServiceKey, GlobalService]

_NOT_COMPARED: Final = {"key", "backends", "cluster", "name", "origin"}
"""What says which one it is, and what is compared one by one."""


def diff_tables(old: Table, new: Table) -> tuple[ServiceDiff, ...]:
    """What is different in `new`, sorted by service."""
    found = (diff_services(old.get(key), new.get(key)) for key in sorted({*old, *new}))
    return tuple(diff for diff in found if diff is not None)


def diff_services(old: GlobalService | None, new: GlobalService | None) -> ServiceDiff | None:
    """What is different between two states of one service, either of which may not be there."""
    present = new or old
    if present is None:
        return None
    changes, backends = tuple(_changes(old, new)), tuple(_backends(old, new))
    if not changes and not backends and old is not None and new is not None:
        return None
    return ServiceDiff(present.key, _kind(old, new), changes, backends)


def _backends(old: GlobalService | None, new: GlobalService | None) -> Iterator[BackendDiff]:
    before, after = _by_name(old), _by_name(new)
    for place in sorted({*before, *after}):
        was, now = before.get(place), after.get(place)
        changes = tuple(_changes(was, now))
        if changes:
            yield BackendDiff(
                *place,
                _kind(was, now),
                changes,
                now.origin if now else None,
                was.origin if was else None,
            )


def _by_name(service: GlobalService | None) -> dict[tuple[ClusterName, str], Backend]:
    backends = service.backends if service else ()
    return {(backend.cluster, backend.name): backend for backend in backends}


def _kind(old: object, new: object) -> Kind:
    if old is None:
        return Kind.ADDED
    return Kind.REMOVED if new is None else Kind.CHANGED


def _changes(
    old: GlobalService | Backend | None, new: GlobalService | Backend | None
) -> Iterator[FieldChange]:
    """The fields that differ; of what came or went, all of them."""
    for field in fields(new or old):  # type: ignore[arg-type]  # One of them is there.
        if field.name not in _NOT_COMPARED:
            was, now = getattr(old, field.name, None), getattr(new, field.name, None)
            if was != now:
                yield FieldChange(field.name, was, now)
