"""What is different between two tables."""

from __future__ import annotations

from dataclasses import fields, replace

from hypothesis import given
from hypothesis import strategies as st

from meshd.core.table_diff import (
    FieldChange,
    Kind,
    ServiceDiff,
    diff_services,
    diff_tables,
)
from meshd.model.ids import ClusterName, LogId, Seq, ServiceKey
from meshd.model.service import Affinity, Port
from meshd.model.table import Backend, GlobalService, Origin, Reason

EAST, WEST = ClusterName("east"), ClusterName("west")
KEY = ServiceKey("shop", "web")


def origin(seq: int) -> Origin:
    return Origin(LogId("a" * 32), Seq(seq), seq * 1000, "ann")


def backend(name: str = "a", seq: int = 1, **changes: object) -> Backend:
    made = Backend(EAST, name, "10.0.0.1", (Port(80),), 0, 100, "z", "n", None, origin(seq))
    return replace(made, **changes)  # type: ignore[arg-type]


def service(*backends: Backend, **changes: object) -> GlobalService:
    made = GlobalService(KEY, (Port(80, "http"),), Affinity.NONE, (EAST,), (), backends)
    return replace(made, **changes)  # type: ignore[arg-type]


def only(old: GlobalService | None, new: GlobalService | None) -> ServiceDiff:
    found = diff_services(old, new)
    assert found is not None
    return found


def test_what_is_the_same_differs_in_nothing() -> None:
    assert diff_services(None, None) is None
    assert diff_services(service(backend()), service(backend())) is None
    # Who said it last is no difference where what was said is the same.
    assert diff_services(service(backend(seq=1)), service(backend(seq=9))) is None
    # Nor is the order in which they are listed.
    one, other = backend("a"), backend("b")
    assert diff_services(service(one, other), service(other, one)) is None


def test_a_service_that_came_or_went_is_told_with_all_of_it() -> None:
    came = only(None, service(backend()))
    assert came.kind is Kind.ADDED
    assert FieldChange("affinity", None, Affinity.NONE) in came.changes
    (shown,) = came.backends
    assert (shown.kind, shown.origin, shown.before) == (Kind.ADDED, origin(1), None)
    assert FieldChange("address", None, "10.0.0.1") in shown.changes
    went = only(service(backend()), None)
    assert went.kind is Kind.REMOVED
    (shown,) = went.backends
    assert (shown.kind, shown.origin, shown.before) == (Kind.REMOVED, None, origin(1))
    assert FieldChange("weight", 100, None) in shown.changes
    assert only(None, service()).backends == ()


def test_a_backend_that_changed_is_told_by_its_fields_and_its_events() -> None:
    old = service(backend("a", weight=50), backend("b"), backend("c"))
    new = service(
        backend("a", seq=5, weight=10, reason=Reason.NOT_READY), backend("b"), backend("d")
    )
    found = only(old, new)
    assert (found.key, found.kind, found.changes) == (KEY, Kind.CHANGED, ())
    assert [(one.name, one.kind) for one in found.backends] == [
        ("a", Kind.CHANGED),
        ("c", Kind.REMOVED),
        ("d", Kind.ADDED),
    ]
    changed = found.backends[0]
    assert changed.changes == (
        FieldChange("weight", 50, 10),
        FieldChange("reason", None, Reason.NOT_READY),
    )
    assert (changed.origin, changed.before) == (origin(5), origin(1))


def test_every_field_of_a_definition_and_of_a_backend_is_compared() -> None:
    for field in fields(GlobalService):
        if field.name not in {"key", "backends"}:
            found = only(service(), service(**{field.name: ("another",)}))
            assert [change.field for change in found.changes] == [field.name]
    for field in fields(Backend):
        if field.name not in {"cluster", "name", "origin"}:
            changed = replace(backend(), **{field.name: ("another",)})  # type: ignore[arg-type]
            (shown,) = only(service(backend()), service(changed)).backends
            assert [change.field for change in shown.changes] == [field.name]


tables = st.dictionaries(
    st.sampled_from([ServiceKey("shop", name) for name in "abc"]),
    st.lists(
        st.builds(backend, st.sampled_from("abc"), weight=st.integers(0, 2)),
        unique_by=lambda one: one.name,
        max_size=3,
    ),
).map(lambda found: {key: service(*parts, key=key) for key, parts in found.items()})


@given(tables, tables)
def test_a_difference_the_other_way_round_is_its_mirror(
    old: dict[ServiceKey, GlobalService], new: dict[ServiceKey, GlobalService]
) -> None:
    there, back = diff_tables(old, new), diff_tables(new, old)
    assert diff_tables(old, old) == ()
    assert [one.key for one in there] == [one.key for one in back] == sorted(o.key for o in there)
    mirrored = {Kind.ADDED: Kind.REMOVED, Kind.REMOVED: Kind.ADDED, Kind.CHANGED: Kind.CHANGED}
    for one, other in zip(there, back, strict=True):
        assert mirrored[one.kind] is other.kind
        for first, second in zip(one.backends, other.backends, strict=True):
            assert mirrored[first.kind] is second.kind
            assert [(c.field, c.new, c.old) for c in first.changes] == [
                (c.field, c.old, c.new) for c in second.changes
            ]
    keys = {one.key for one in there}
    assert all(old.get(key) == new.get(key) for key in {*old, *new} - keys)
