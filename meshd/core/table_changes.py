"""What changed in the tables since when, for those who follow them.

For: numbering changes, remembering which service changed last when, and keeping the latest deltas;
and whom which change concerns. Not for: making deltas (`tables`), waiting (`runtime.table_feed`) or
telling them. Invariants: numbers rise by one; who stands at a number within reach learns of every
service that changed after it, however far behind; what is kept is bounded, whoever reads.

A subscriber is a number here, and costs nothing. One that is close behind is told the deltas, in
order. One that is further behind is told the services that changed since, each once, as they are by
then: so a slow one sees fewer and newer values, and never a queue.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from typing import Final

from meshd.core.merge import Definition
from meshd.model.ids import ClusterName, ServiceKey
from meshd.model.table import ServiceDelta, TableDelta

KEPT_ITEMS_MAX: Final = 20_000
"""Services and backends in the deltas that are kept, most of which the tables hold anyway: some
10 MB at worst. A thousand changes a second of small services reach back 10 s."""
GONE_MAX: Final = 10_000
"""Removed services that are remembered: who followed before the oldest of them begins anew. One is
a name and a definition, some 500 bytes."""

Definitions = Callable[[ServiceKey], Definition | None]
Labels = tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which services somebody follows: those to which all of this applies; empty: whatever it is.

    labels: of the service, as name and value, or None for any value. clusters: of which one takes
    part.
    """

    namespaces: frozenset[str] = frozenset()
    services: frozenset[ServiceKey] = frozenset()
    labels: Labels = ()
    clusters: frozenset[ClusterName] = frozenset()

    @property
    def mark(self) -> str:
        """The same for the same selection, another for another; '' for all services."""
        if self == ALL:
            return ""
        parts: tuple[Iterable[object], ...] = (
            sorted(self.namespaces),
            sorted(self.services),
            sorted(self.labels, key=repr),
            sorted(self.clusters),
        )
        text = repr([[str(item) for item in part] for part in parts])
        return blake2b(text.encode(), digest_size=8).hexdigest()

    def may_name(self, key: ServiceKey) -> bool:
        """Whether a service of this name may be among them."""
        return (not self.namespaces or key.namespace in self.namespaces) and (
            not self.services or key in self.services
        )

    def has(self, key: ServiceKey, definition: Definition | None) -> bool:
        """Whether a service is among them; one that isn't served never is."""
        return (
            definition is not None
            and self.may_name(key)
            and (not self.clusters or not self.clusters.isdisjoint(definition.clusters))
            and all(_is_in(definition.labels, *label) for label in self.labels)
        )


def _is_in(labels: Mapping[str, str], name: str, value: str | None) -> bool:
    return name in labels and (value is None or labels[name] == value)


ALL: Final = Selection()


class Telling(StrEnum):
    """How a subscriber is told of a service."""

    VALUE = "value"
    DELTA = "delta"
    REMOVED = "removed"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class ServiceStep:
    """One service's part of a change.

    before: the number of its change before this one; 0 if it wasn't served then, and the delta is
    all of it. former, definition: what it was and is; None if it wasn't or isn't served. unfresh:
    the clusters that are out of sight.
    """

    number: int
    delta: ServiceDelta
    before: int
    former: Definition | None
    definition: Definition | None
    unfresh: frozenset[ClusterName]

    def telling(self, selection: Selection) -> Telling:
        """How this step is told to somebody who was told all before it."""
        was = selection.has(self.delta.key, self.former)
        if not selection.has(self.delta.key, self.definition):
            return Telling.REMOVED if was else Telling.NOTHING
        return Telling.DELTA if was or not self.before else Telling.VALUE


@dataclass(frozen=True, slots=True)
class TableChange:
    """What changed together: by one record, or by how one cluster is seen."""

    number: int
    steps: tuple[ServiceStep, ...]

    @property
    def items(self) -> int:
        """How much is in it."""
        return sum(1 + len(step.delta.upserts) + len(step.delta.removals) for step in self.steps)


@dataclass(slots=True)
class _Last:
    """The last change of a service. since: from which on it is known. chosen_by: the last change of
    what selections go by. definition: as it is, or last was.
    """

    number: int
    since: int
    chosen_by: int
    definition: Definition | None
    is_gone: bool


class TableChanges:
    """The changes of one table. number: of the last one. reach: who stands before it must begin
    anew, since services that were removed after it are forgotten.
    """

    def __init__(self, items_max: int = KEPT_ITEMS_MAX, gone_max: int = GONE_MAX) -> None:
        self.number = 0
        self.reach = 0
        self._items_max = items_max
        self._gone_max = gone_max
        self._last: dict[ServiceKey, _Last] = {}
        self._gone: dict[ServiceKey, None] = {}
        self._kept: deque[TableChange] = deque()
        self._items = 0

    def add(
        self, delta: TableDelta, definitions: Definitions, unfresh: frozenset[ClusterName]
    ) -> None:
        """Take in what changed; definitions: of the services as they are now."""
        if not delta:
            return
        self.number += 1
        steps = tuple(self._step(one, definitions(one.key), unfresh) for one in delta)
        change = TableChange(self.number, steps)
        self._kept.append(change)
        self._items += change.items
        while self._items > self._items_max:
            self._items -= self._kept.popleft().items
        while len(self._gone) > self._gone_max:
            key = next(iter(self._gone))
            del self._gone[key]
            self.reach = self._last.pop(key).number

    def _step(
        self, delta: ServiceDelta, definition: Definition | None, unfresh: frozenset[ClusterName]
    ) -> ServiceStep:
        key = delta.key
        last = self._last.pop(key, None)
        self._gone.pop(key, None)
        former = None if last is None or last.is_gone else last.definition
        before = 0 if last is None or last.is_gone else last.number
        if last is None:
            last = _Last(self.number, self.number, self.number, definition, is_gone=False)
        elif definition is not None:
            if not _are_chosen_alike(last.definition, definition):
                last.chosen_by = self.number
            last.definition = definition
        last.number, last.is_gone = self.number, definition is None
        if last.is_gone:
            self._gone[key] = None
        # Put at the end: the map is in the order of changes.
        self._last[key] = last
        return ServiceStep(self.number, delta, before, former, definition, unfresh)

    def number_of(self, key: ServiceKey) -> int:
        """The last change of a service; 0 if nothing is known of it."""
        last = self._last.get(key)
        return 0 if last is None else last.number

    def reaches(self, number: int) -> bool:
        """Whether somebody who stands there can go on."""
        return self.reach <= number <= self.number

    def steps_after(self, number: int) -> list[ServiceStep] | None:
        """The steps behind a number, in order; None if they are kept no more."""
        found: list[ServiceStep] = []
        reached = self.number
        for change in reversed(self._kept):
            if change.number <= number:
                break
            found.extend(reversed(change.steps))
            reached = change.number - 1
        if reached > number:
            return None
        found.reverse()
        return found

    def changed_after(self, number: int, selection: Selection) -> list[ServiceKey]:
        """The services that changed behind a number within reach, in the order of their changes."""
        found: list[ServiceKey] = []
        for key in reversed(self._last):
            if self._last[key].number <= number:
                break
            if selection.may_name(key):
                found.append(key)
        found.reverse()
        return found

    def telling(
        self, key: ServiceKey, after: int, seen: int, selection: Selection
    ) -> tuple[Telling, int]:
        """How a service is told as it is now, and the number of that. after: where the subscriber
        stands. seen: the last change when this service was found to have changed; it is told of
        those behind it too.
        """
        last = self._last.get(key)
        if last is None:
            # It was there when it was found, so it was removed, and forgotten.
            return Telling.REMOVED, self.number
        fits = selection.has(key, last.definition)
        if fits and not last.is_gone:
            return Telling.VALUE, last.number
        if last.number > seen:
            # A change between that and this one may be of a value which will never be told.
            return Telling.REMOVED, last.number
        may_be_held = last.since <= after and (fits or last.chosen_by > after)
        return (Telling.REMOVED if may_be_held else Telling.NOTHING), last.number


def _are_chosen_alike(one: Definition | None, other: Definition) -> bool:
    """Whether every selection that has one has the other."""
    return one is not None and one.labels == other.labels and one.clusters == other.clusters
