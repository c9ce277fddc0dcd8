"""Whoever follows the changes of the tables has the tables, however slowly and in whatever mode."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.core.derive import whole
from meshd.core.merge import Definition, resolve
from meshd.core.table_changes import ALL, Selection, ServiceStep, TableChanges, Telling
from meshd.core.tables import Tables
from meshd.model.ids import ClusterName, ServiceKey
from meshd.model.service import Port, Service
from meshd.model.table import GlobalService, ServiceDelta, TableDelta
from tests.core.test_tables import CLUSTERS, Mesh, Step, beginnings, by_key, steps, table_of

A, B = ClusterName("a"), ClusterName("b")
CART, CARD = ServiceKey("shop", "cart"), ServiceKey("shop", "card")
NOBODY: frozenset[ClusterName] = frozenset()

# --- examples -------------------------------------------------------------------------------------


def definition(*clusters: ClusterName, **labels: str) -> Definition:
    service = Service(is_global=True, ports=(Port(80),), labels=labels)
    return resolve(A, dict.fromkeys((A, *clusters), service), CLUSTERS)


PLAIN = definition()


def changed(key: ServiceKey, *, gone: bool = False) -> ServiceDelta:
    return ServiceDelta(key, gone=gone, redefined=not gone, tiers=None, upserts=(), removals=())


@dataclass
class Log:
    """Changes that are said to have happened."""

    changes: TableChanges = field(default_factory=TableChanges)
    known: dict[ServiceKey, Definition] = field(default_factory=dict)

    def set(self, key: ServiceKey, to: Definition = PLAIN) -> None:
        self.known[key] = to
        self._add((changed(key),))

    def remove(self, key: ServiceKey) -> None:
        del self.known[key]
        self._add((changed(key, gone=True),))

    def _add(self, delta: TableDelta) -> None:
        self.changes.add(delta, self.known.get, NOBODY)

    def telling(self, key: ServiceKey, after: int, selection: Selection = ALL) -> Telling:
        telling, _ = self.changes.telling(key, after, self.changes.number, selection)
        return telling


def test_a_service_that_changed_often_is_told_once_and_the_last_changed_last() -> None:
    log = Log()
    for key in (CART, CARD, CART, CART):
        log.set(key)
    assert log.changes.number == 4
    assert log.changes.changed_after(0, ALL) == [CARD, CART]
    assert log.changes.changed_after(2, ALL) == [CART]
    assert log.changes.changed_after(4, ALL) == []
    assert log.changes.changed_after(0, Selection(services=frozenset({CARD}))) == [CARD]
    assert [log.changes.number_of(key) for key in (CART, CARD, ServiceKey("a", "b"))] == [4, 2, 0]


def test_nothing_that_changed_is_no_change() -> None:
    changes = TableChanges()
    changes.add((), lambda _: None, NOBODY)
    assert changes.number == 0
    assert changes.steps_after(0) == []


def test_deltas_are_kept_up_to_a_number_of_items_and_all_after_a_number_or_none() -> None:
    log = Log(TableChanges(items_max=2))
    for key in (CART, CARD, CART):
        log.set(key)
    kept = log.changes.steps_after(1)
    assert kept is not None
    assert [(step.number, step.delta.key, step.before) for step in kept] == [
        (2, CARD, 0),
        (3, CART, 1),
    ]
    assert log.changes.steps_after(0) is None
    assert log.changes.steps_after(3) == []


def test_a_change_larger_than_what_is_kept_is_told_by_values_alone() -> None:
    log = Log(TableChanges(items_max=1))
    log.set(CART)
    log.known[CARD] = PLAIN
    log._add((changed(CARD), changed(CART)))
    assert log.changes.steps_after(1) is None
    assert log.changes.changed_after(1, ALL) == [CARD, CART]
    assert log.changes.steps_after(2) == []


def test_removed_services_are_remembered_up_to_a_number_and_the_reach_says_of_which() -> None:
    log = Log(TableChanges(gone_max=1))
    for key in (CART, CARD):
        log.set(key)
        log.remove(key)
    assert [log.changes.reaches(number) for number in range(6)] == [
        *(False, False, True, True, True, False)
    ]
    # Whoever had found it before it was forgotten is told that it is gone.
    assert log.telling(CART, 1) is Telling.REMOVED
    assert log.telling(CARD, 3) is Telling.REMOVED
    assert log.telling(CARD, 2) is Telling.NOTHING
    log.set(CARD)
    assert log.changes.changed_after(2, ALL) == [CARD]
    assert log.telling(CARD, 3) is Telling.VALUE


BLUE = Selection(labels=(("team", "blue"),))


def test_a_service_that_stops_matching_is_told_as_removed_to_those_who_may_have_it() -> None:
    log = Log()
    log.set(CART, definition(team="blue"))
    log.set(CART, definition(team="red"))
    log.set(CART, definition(team="red"))
    assert log.telling(CART, 0, BLUE) is Telling.NOTHING
    assert log.telling(CART, 1, BLUE) is Telling.REMOVED
    assert log.telling(CART, 2, BLUE) is Telling.NOTHING
    log.remove(CART)
    assert log.telling(CART, 1, BLUE) is Telling.REMOVED
    assert log.telling(CART, 3, BLUE) is Telling.NOTHING
    assert log.telling(CART, 3, ALL) is Telling.REMOVED
    log.set(CART, definition(team="blue"))
    assert log.telling(CART, 4, BLUE) is Telling.VALUE


def test_who_reads_late_is_told_what_goes_before_the_changes_that_it_will_be_told() -> None:
    """Else it would be told a delta of a value that it was never told."""
    log = Log()
    for team in ("blue", "blue", "red"):
        log.set(CART, definition(team=team))
    assert log.changes.telling(CART, 0, 1, BLUE) == (Telling.REMOVED, 3)
    assert log.changes.telling(CART, 0, 3, BLUE) == (Telling.NOTHING, 3)
    log.set(CART, definition(team="blue"))
    assert log.changes.telling(CART, 0, 1, BLUE) == (Telling.VALUE, 4)


def test_each_step_says_how_it_is_told_to_whom() -> None:
    log = Log()
    log.set(CART, definition(team="red"))
    log.set(CART, definition(B, team="blue"))
    log.set(CART, definition(B, team="blue"))
    log.set(CART, definition(team="red"))
    log.remove(CART)
    log.set(CART, definition(team="blue"))
    found = log.changes.steps_after(0) or []
    assert [step.telling(BLUE) for step in found] == [
        *(Telling.NOTHING, Telling.VALUE, Telling.DELTA),
        *(Telling.REMOVED, Telling.NOTHING, Telling.DELTA),
    ]
    assert [step.telling(ALL) for step in found] == [
        *(Telling.DELTA, Telling.DELTA, Telling.DELTA),
        *(Telling.DELTA, Telling.REMOVED, Telling.DELTA),
    ]
    assert [step.before for step in found] == [0, 1, 2, 3, 4, 0]


@pytest.mark.parametrize(
    ("selection", "fits"),
    [
        (ALL, True),
        (Selection(namespaces=frozenset({"shop", "other"})), True),
        (Selection(namespaces=frozenset({"other"})), False),
        (Selection(services=frozenset({CART, CARD})), True),
        (Selection(services=frozenset({CARD})), False),
        (Selection(labels=(("team", None),)), True),
        (Selection(labels=(("team", "red"),)), False),
        (Selection(labels=(("team", "blue"), ("gold", None))), False),
        (Selection(clusters=frozenset({B, ClusterName("c")})), True),
        (Selection(clusters=frozenset({ClusterName("c")})), False),
        (Selection(namespaces=frozenset({"shop"}), services=frozenset({CARD})), False),
    ],
)
def test_a_selection_has_what_all_of_it_applies_to(selection: Selection, fits: bool) -> None:
    assert selection.has(CART, definition(B, team="blue")) is fits
    assert not selection.has(CART, None)


def test_the_same_selection_has_the_same_mark_and_another_another() -> None:
    both = Selection(labels=(("a", "1"), ("b", None)), clusters=frozenset({A, B}))
    again = replace(both, labels=(("b", None), ("a", "1")))
    assert ALL.mark == ""
    assert both.mark == again.mark
    others = [
        Selection(namespaces=frozenset({"shop"})),
        Selection(clusters=frozenset({ClusterName("shop")})),
        Selection(labels=(("shop", None),)),
        Selection(labels=(("shop", "None"),)),
    ]
    assert len({one.mark for one in (ALL, both, *others)}) == 6


# --- the property ---------------------------------------------------------------------------------


@dataclass
class Follower:
    """Somebody who has a copy, as a stream of values or of deltas gives it. held: by service, the
    number of what is held, and that; None: told to be gone.
    """

    tables: Tables
    changes: TableChanges
    selection: Selection
    by_deltas: bool
    at: int = -1
    held: dict[ServiceKey, tuple[int, GlobalService | None]] = field(default_factory=dict)

    @property
    def copy(self) -> dict[ServiceKey, GlobalService]:
        return {key: value for key, (_, value) in self.held.items() if value is not None}

    def go_on(self) -> Iterator[None]:
        """Take what there is now, piece by piece; time may pass in between."""
        if not self.changes.reaches(self.at):
            self.held, self.at = {}, self.changes.number
            seen, served = self.at, self.tables.keys()
            for key in list(filter(self._selects, served)):
                yield
                self._take(key, -1, seen)
            return
        target = self.changes.number
        kept = self.changes.steps_after(self.at) if self.by_deltas else None
        if kept is None:
            for key in self.changes.changed_after(self.at, self.selection):
                yield
                self._take(key, self.at, target)
        for step in kept or ():
            yield
            self._take_step(step)
        self.at = target

    def _selects(self, key: ServiceKey) -> bool:
        return self.selection.has(key, self.tables.definition_of(key))

    def _take_step(self, step: ServiceStep) -> None:
        match step.telling(self.selection):
            case Telling.DELTA:
                self._patch(step.delta, step.number, step.before, step.definition)
            case Telling.REMOVED:
                self._hold(step.delta.key, step.number, None)
            case Telling.VALUE:
                self._take(step.delta.key, -1, step.number)
            case Telling.NOTHING:
                pass

    def _take(self, key: ServiceKey, after: int, seen: int) -> None:
        telling, number = self.changes.telling(key, after, seen, self.selection)
        if telling is Telling.VALUE:
            value = self.tables.view(key)
            assert value is not None
            self._hold(key, number, value)
        elif telling is Telling.REMOVED:
            self._hold(key, number, None)

    def _hold(self, key: ServiceKey, number: int, value: GlobalService | None) -> None:
        if number >= self.held.get(key, (0, None))[0]:
            self.held[key] = number, value

    def _patch(
        self, delta: ServiceDelta, number: int, before: int, definition: Definition | None
    ) -> None:
        held, old = self.held.get(delta.key, (0, None))
        if number <= held:
            return
        assert old is None or before == held
        assert (old is None) == (before == 0)
        assert definition is not None
        backends = by_key(old.backends if old else ())
        for key in delta.removals:
            del backends[key]
        backends.update(by_key(delta.upserts))
        tiers = (old.tiers if old else ()) if delta.tiers is None else delta.tiers
        self._hold(delta.key, number, whole(delta.key, definition, tiers, backends.values()))


selections = st.sampled_from(
    [
        ALL,
        ALL,
        BLUE,
        Selection(clusters=frozenset({B})),
        Selection(services=frozenset({CART})),
        Selection(labels=(("team", None),), clusters=frozenset({B})),
    ]
)


@given(
    beginning=beginnings,
    history=st.lists(steps, max_size=12),
    selection=selections,
    by_deltas=st.booleans(),
    begins_late=st.booleans(),
    items_max=st.sampled_from([0, 3, 20_000]),
    gone_max=st.sampled_from([0, 1, 10_000]),
    data=st.data(),
)
@settings(max_examples=400, deadline=None)
def test_a_follower_who_stalls_wherever_it_likes_ends_with_the_tables(
    beginning: list[Step],
    history: list[Step],
    selection: Selection,
    by_deltas: bool,
    begins_late: bool,
    items_max: int,
    gone_max: int,
    data: st.DataObject,
) -> None:
    mesh = Mesh(Tables(A))
    changes = TableChanges(items_max, gone_max)
    follower = Follower(mesh.tables, changes, selection, by_deltas, -1 if begins_late else 0)
    reading: Iterator[None] | None = None
    for step in (*beginning, *history):
        changes.add(mesh.take(step), mesh.tables.definition_of, NOBODY)
        for _ in range(data.draw(st.integers(0, 4))):
            reading = follower.go_on() if reading is None else reading
            if next(reading, "end") == "end":
                reading = None
    for _ in reading or ():
        pass
    while follower.at != changes.number:
        for _ in follower.go_on():
            pass
    expected = {
        key: view
        for key, view in table_of(mesh.tables).items()
        if selection.has(key, mesh.tables.definition_of(key))
    }
    assert follower.copy == expected
