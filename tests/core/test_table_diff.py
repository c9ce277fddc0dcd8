"""Differences of tables: every change is named, and nothing else."""

from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.core.derive import derive
from meshd.core.fold import fold_event
from meshd.core.state import ClusterState
from meshd.core.table_diff import (
    BackendDiff,
    DiffKind,
    FieldChange,
    ServiceDiff,
    diff_tables,
)
from meshd.model.ids import ClusterName, LogId, Seq, ServiceKey
from meshd.model.service import Affinity, Port, Spill
from meshd.model.table import (
    Backend,
    Condition,
    ConditionType,
    GlobalService,
    Origin,
    Reason,
)
from tests.core.model_mesh import HTTP, WEB, Cluster, down, states_of, up
from tests.core.test_tables import CLUSTERS, Fold, folds

EAST, WEST = ClusterName("east"), ClusterName("west")
OTHER = ServiceKey("shop", "cart")


def table(**clusters: Cluster) -> dict[ServiceKey, GlobalService]:
    states = states_of(clusters)
    return derive(EAST, states, dict.fromkeys(states, LogId("a" * 32)))


TABLE = table(east=Cluster(endpoints=up(1)), west=Cluster(endpoints=(*up(1), *down(1))))
SERVICE = TABLE[WEB]
(ONE,) = (backend for backend in SERVICE.backends if backend.cluster == EAST)


def with_service(**changes: object) -> dict[ServiceKey, GlobalService]:
    return {WEB: replace(SERVICE, **changes)}  # type: ignore[arg-type]


def with_one(**changes: object) -> dict[ServiceKey, GlobalService]:
    changed = replace(ONE, **changes)  # type: ignore[arg-type]
    return with_service(
        backends=tuple(changed if backend is ONE else backend for backend in SERVICE.backends)
    )


CONDITION = Condition(ConditionType.PORTS_CONFLICT, WEST, "why")


@pytest.mark.parametrize(
    ("after", "changes"),
    [
        (with_service(affinity=Affinity.LOCAL), [("affinity", Affinity.NONE, Affinity.LOCAL)]),
        # As deep as both have the same shape.
        (with_service(ports=(replace(HTTP, port=81),)), [("ports[0].port", 80, 81)]),
        (with_service(ports=(HTTP, Port(81))), [("ports[1]", None, Port(81))]),
        (with_service(ports=()), [("ports[0]", HTTP, None)]),
        (with_service(labels={"team": "a"}), [("labels.team", None, "a")]),
        (
            with_service(spill=Spill(below_percent=50)),
            [("spill.below_percent", Spill().below_percent, 50)],
        ),
        (with_service(conditions=(CONDITION,)), [("conditions[0]", None, CONDITION)]),
        (
            with_service(tiers=(replace(SERVICE.tiers[0], share_ppm=1),)),
            [("tiers[0].share_ppm", 1_000_000, 1)],
        ),
        # A list of plain values is one value.
        (with_service(clusters=(EAST,)), [("clusters", (EAST, WEST), (EAST,))]),
        (
            with_service(affinity=Affinity.REMOTE, headless=True),
            [("headless", False, True), ("affinity", Affinity.NONE, Affinity.REMOTE)],
        ),
    ],
)
def test_fields_of_a_service(
    after: dict[ServiceKey, GlobalService], changes: list[tuple[str, object, object]]
) -> None:
    expected = tuple(FieldChange(*change) for change in changes)
    assert diff_tables(TABLE, after) == (ServiceDiff(WEB, DiffKind.CHANGED, expected, ()),)
    back = tuple(FieldChange(path, new, old) for path, old, new in changes)
    assert diff_tables(after, TABLE) == (ServiceDiff(WEB, DiffKind.CHANGED, back, ()),)


@pytest.mark.parametrize(
    ("changes", "path", "old", "new"),
    [
        ({"address": "10.0.0.9"}, "address", ONE.address, "10.0.0.9"),
        ({"reason": Reason.DRAINING}, "reason", None, Reason.DRAINING),
        ({"weight": 0}, "weight", ONE.weight, 0),
        ({"ports": (Port(81, "http"),)}, "ports[0].port", 80, 81),
    ],
)
def test_fields_of_a_backend(
    changes: dict[str, object], path: str, old: object, new: object
) -> None:
    (diff,) = diff_tables(TABLE, with_one(**changes))
    change = FieldChange(path, old, new)
    assert diff.backends == (BackendDiff(EAST, ONE.name, DiffKind.CHANGED, (change,)),)
    assert (diff.kind, diff.fields) == (DiffKind.CHANGED, ())


def test_what_came_and_what_went_says_all_it_had() -> None:
    (gone,) = diff_tables(TABLE, {})
    (came,) = diff_tables({}, TABLE)
    assert (gone.kind, came.kind) == (DiffKind.REMOVED, DiffKind.ADDED)
    paths = {field.name for field in fields(GlobalService)} - {"key", "backends"}
    for diff, kind in ((gone, DiffKind.REMOVED), (came, DiffKind.ADDED)):
        assert {change.path for change in diff.fields} == paths
        assert [(one.cluster, one.name, one.kind) for one in diff.backends] == [
            ("east", "east-1", kind),
            ("west", "west-1", kind),
            ("west", "west-2", kind),
        ]
        of_backends = {field.name for field in fields(Backend)} - {"cluster", "name", "origin"}
        assert {change.path for change in diff.backends[0].fields} == of_backends
    assert FieldChange("ports", (HTTP,), None) in gone.fields
    assert FieldChange("address", None, "10.0.0.1") in came.backends[0].fields


def test_backends_that_come_and_go_beside_others() -> None:
    (diff,) = diff_tables(TABLE, with_service(backends=SERVICE.backends[1:]))
    assert [(one.name, one.kind) for one in diff.backends] == [("east-1", DiffKind.REMOVED)]


def test_another_origin_is_no_difference() -> None:
    origin = Origin(LogId("b" * 32), Seq(99), 5, "bob")
    assert diff_tables(TABLE, with_one(origin=origin)) == ()
    assert diff_tables(TABLE, dict(TABLE)) == ()


def test_services_are_sorted() -> None:
    both = {WEB: SERVICE, OTHER: replace(SERVICE, key=OTHER)}
    assert [diff.key for diff in diff_tables(both, {})] == [OTHER, WEB]


def _without_origins(
    tables: dict[ServiceKey, GlobalService],
) -> dict[ServiceKey, GlobalService]:
    origin = Origin(LogId(""), Seq(0), 0, "")
    return {
        key: replace(
            service,
            backends=tuple(replace(backend, origin=origin) for backend in service.backends),
        )
        for key, service in tables.items()
    }


@settings(deadline=None)
@given(st.lists(folds, min_size=4, max_size=12), st.integers(0, 12))
def test_there_is_a_difference_exactly_if_the_tables_differ(steps: list[Fold], cut: int) -> None:
    """And every service and backend that differs is named once."""
    before, after = _derived(steps[:cut]), _derived(steps)
    diffs = diff_tables(before, after)
    plain, other = _without_origins(before), _without_origins(after)
    differing = sorted(key for key in {*plain, *other} if plain.get(key) != other.get(key))
    assert [diff.key for diff in diffs] == differing
    for diff in diffs:
        old, new = (
            {(one.cluster, one.name): one for one in side[diff.key].backends}
            if diff.key in side
            else {}
            for side in (plain, other)
        )
        names = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
        assert [(one.cluster, one.name) for one in diff.backends] == names
        for one in diff.backends:
            _check_kind(one.kind, (one.cluster, one.name) in old, (one.cluster, one.name) in new)


def _check_kind(kind: DiffKind, was: object, is_now: object) -> None:
    assert (
        kind
        is {
            (False, True): DiffKind.ADDED,
            (True, False): DiffKind.REMOVED,
            (True, True): DiffKind.CHANGED,
        }[bool(was), bool(is_now)]
    )


def _derived(steps: list[Fold]) -> dict[ServiceKey, GlobalService]:
    states = {name: ClusterState() for name in CLUSTERS}
    for step in steps:
        state = states[step.cluster]
        for event in step.events:
            fold_event(state, event, Seq(state.seq + 1), 1, step.cluster)
    return derive(CLUSTERS[0], states, dict.fromkeys(states, LogId("a" * 32)))
