"""A copy of the tables, kept by what a stream tells.

For: programs that want the tables at hand. Not for: following (`table_stream`). Invariants: what is
shown was whole at some moment: a new snapshot replaces the old copy once all of it has come; a
delta is applied to that value which it was made for, or nothing is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, assert_never, cast

from meshd.client.table_stream import (
    ServiceChanged,
    ServiceDelta,
    ServiceRemoved,
    ServiceTold,
    SnapshotBegun,
    SnapshotEnded,
    TableMessage,
    TablesReset,
    ToldService,
)
from meshd.client.tables import BackendItem, TableService

ServiceName = tuple[str, str]
"""Namespace and name."""
BackendName = tuple[str, str]
"""Cluster and name."""


class OutOfStepError(Exception):
    """A delta is of another value than the one that is held: follow anew."""


@dataclass(slots=True)
class _Held:
    """A service at a change. fields: all of it but its backends; None: it was told to be gone, at
    this place of the stream. view: it whole, once somebody asked.
    """

    change: int
    fields: dict[str, Any] | None
    backends: dict[BackendName, BackendItem]
    told: int = 0
    view: TableService | None = None


class TableMirror:
    """A copy of the tables. is_whole: whether it was ever all of them. place: where to go on."""

    def __init__(self) -> None:
        self.is_whole = False
        self.place = ""
        self._shown: dict[ServiceName, _Held] = {}
        self._coming: dict[ServiceName, _Held] | None = None
        self._places = 0

    def take(self, message: TableMessage) -> None:
        """Take in what the stream says next; raises OutOfStepError, and nothing is changed then."""
        match message:
            case SnapshotBegun():
                self._coming = {}
            case TablesReset():
                pass  # What is shown stays until the snapshot behind it is whole.
            case SnapshotEnded():
                self._shown, self._coming = self._coming or {}, None
                self.is_whole = True
            case ServiceTold():
                self._hold(message.service)
            case ServiceChanged():
                self._change(message.delta)
            case ServiceRemoved():
                name = (message.namespace, message.name)
                self._put(name, _Held(message.change, None, {}, self._places))
            case _:
                assert_never(message)
        self._go_on(message.place)

    def services(self) -> list[TableService]:
        """All services, as `GET /v1/tables` lists them."""
        return list(self._views())

    def service(self, namespace: str, name: str) -> TableService | None:
        """One service; None if there is no such."""
        held = self._shown.get((namespace, name))
        return None if held is None else _view_of(held)

    def _views(self) -> Iterator[TableService]:
        for name in sorted(self._shown):
            view = _view_of(self._shown[name])
            if view is not None:
                yield view

    @property
    def _taken(self) -> dict[ServiceName, _Held]:
        return self._shown if self._coming is None else self._coming

    def _hold(self, service: ToldService) -> None:
        fields: dict[str, Any] = {**service}
        change = fields.pop("change")
        backends = {_name_of(backend): backend for backend in fields.pop("backends")}
        self._put((service["namespace"], service["name"]), _Held(change, fields, backends))

    def _change(self, delta: ServiceDelta) -> None:
        name = (delta["namespace"], delta["name"])
        held = self._taken.get(name)
        if held is not None and delta["change"] <= held.change:
            return
        is_new = held is None or held.fields is None
        if delta["before"] != (0 if is_new or held is None else held.change):
            what = "nothing" if is_new or held is None else f"change {held.change}"
            raise OutOfStepError(
                f"{'/'.join(name)}: change {delta['change']} follows {delta['before']},"
                f" and {what} is held"
            )
        fields = dict(held.fields or {}) if held is not None else {}
        backends = {} if held is None else held.backends
        for removal in delta["removals"]:
            backends.pop((removal["cluster"], removal["name"]), None)
        backends.update((_name_of(backend), backend) for backend in delta["upserts"])
        fields |= {"namespace": name[0], "name": name[1]}
        fields |= delta["definition"] or {}
        fields |= {"stale": delta["stale"], "digest": delta["digest"]}
        if delta["tiers"] is not None or is_new:
            fields["tiers"] = delta["tiers"] or []
        self._taken[name] = _Held(delta["change"], fields, backends)

    def _put(self, name: ServiceName, held: _Held) -> None:
        """Take a value, or that there is none, unless what is held is newer."""
        former = self._taken.get(name)
        if former is None or former.change <= held.change:
            self._taken[name] = held

    def _go_on(self, place: str) -> None:
        """Note the place. What was removed two places ago is forgotten: all that is told from here
        on is newer.
        """
        if place == self.place or self._coming is not None:
            return
        self.place = place
        self._places += 1
        gone = [
            name
            for name, held in self._shown.items()
            if held.fields is None and held.told < self._places - 1
        ]
        for name in gone:
            del self._shown[name]


def _name_of(backend: BackendItem) -> BackendName:
    return backend["cluster"], backend["name"]


def _order_of(backend: BackendItem) -> tuple[int, str, str]:
    return backend["priority"], backend["cluster"], backend["name"]


def _view_of(held: _Held) -> TableService | None:
    if held.fields is None:
        return None
    if held.view is None:
        backends = sorted(held.backends.values(), key=_order_of)
        held.view = cast("TableService", held.fields | {"backends": backends})
    return held.view
