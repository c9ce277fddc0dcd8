"""What is left to take the load, and what contradicts a plan of a migration."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from meshd.core.capacity import capacity, concerned, too_little
from meshd.core.draft import Draft, OfState
from meshd.core.planned import conflicts_of, drain_of, migration_of, services_of, turned_up
from meshd.core.state import ClusterState, Held
from meshd.core.tiers import DEMOTION
from meshd.model.cluster import ClusterInfo
from meshd.model.endpoint import Endpoint
from meshd.model.errors import RejectedError
from meshd.model.ids import ClusterName, LogId, Seq, ServiceKey
from meshd.model.operation import (
    Conditions,
    DrainPlan,
    MigrationPlan,
    OnTrouble,
    OperationKind,
    PlanStep,
    Stage,
    Subject,
)
from meshd.model.schema import from_data
from meshd.model.service import Affinity, Exposure, Service, SessionAffinity, Spill
from meshd.model.table import WEIGHT_UNIT, Backend, GlobalService, Origin, Reason

EAST, WEST = ClusterName("east"), ClusterName("west")
WEB, CART = ServiceKey("shop", "web"), ServiceKey("shop", "cart")
ORIGIN = Origin(LogId("f" * 32), Seq(1), 1, "ann")


def backend(
    cluster: ClusterName,
    name: str = "a",
    *,
    reason: Reason | None = None,
    weight: int = 100,
    priority: int = 0,
    node: str = "n1",
) -> Backend:
    return Backend(
        cluster=cluster,
        name=name,
        address="10.0.0.1",
        ports=(),
        priority=priority,
        endpoint_weight=weight,
        weight=weight * WEIGHT_UNIT // 100,
        region="",
        zone="",
        node=node,
        serving=True,
        reason=reason,
        origin=ORIGIN,
    )


def service(*backends: Backend, key: ServiceKey = WEB) -> GlobalService:
    return GlobalService(
        key=key,
        ports=(),
        headless=False,
        session_affinity=SessionAffinity.NONE,
        session_timeout_s=1,
        affinity=Affinity.NONE,
        spill=Spill(),
        exposure=Exposure.INTERNAL,
        labels={},
        clusters=(EAST, WEST),
        conditions=(),
        tiers=(),
        backends=backends,
    )


def lacking(
    subject: str, *backends: Backend, floor_percent: int = 25, key: ServiceKey = WEB
) -> list[str]:
    found = too_little([service(*backends, key=key)], EAST, {Subject.parse(subject)}, floor_percent)
    return [str(problem) for problem in found]


@pytest.mark.parametrize(
    "subject", ["cluster", "service/shop/web", "endpoint/shop/web/a", "node/n1"]
)
def test_what_only_this_could_serve_has_nobody_else(subject: str) -> None:
    expected = "service shop/web: nobody else could take its traffic (bring up or mend endpoints"
    (problem,) = lacking(subject, backend(EAST))
    assert problem.startswith(expected)
    assert lacking(subject, backend(EAST), backend(WEST)) == []


@pytest.mark.parametrize(
    ("subject", "others"),
    [
        ("service/shop/cart", []),
        ("endpoint/shop/web/b", []),
        ("node/n2", []),
        ("endpoint/shop/web/a", [backend(EAST, "b")]),
        ("node/n1", [backend(EAST, "b", node="n2")]),
    ],
)
def test_what_does_not_leave_is_left(subject: str, others: Sequence[Backend]) -> None:
    assert lacking(subject, backend(EAST), *others) == []


@pytest.mark.parametrize(
    "other",
    [
        backend(WEST, reason=Reason.NOT_READY),
        backend(WEST, reason=Reason.DRAINING),
        backend(WEST, priority=DEMOTION),
        backend(WEST, reason=Reason.NOT_EXPORTED),
    ],
)
def test_what_takes_no_traffic_or_is_out_of_sight_is_not_counted_on(other: Backend) -> None:
    assert len(lacking("cluster", backend(EAST), other)) == 1


def test_the_floor_is_of_all_that_is_healthy_by_weight() -> None:
    backends = (backend(EAST, weight=300), backend(WEST, weight=100))
    assert lacking("cluster", *backends, floor_percent=25) == []
    (problem,) = lacking("cluster", *backends, floor_percent=26)
    assert problem.startswith(
        "service shop/web: 25 % of what is healthy would be left; the floor is 26 % (bring up"
    )


def test_a_service_that_takes_no_traffic_here_loses_nothing() -> None:
    assert lacking("cluster", backend(EAST, reason=Reason.NOT_READY)) == []
    found = capacity(service(), EAST, frozenset())
    assert found.left_percent == 100


@pytest.mark.parametrize(
    ("subjects", "expected"),
    [
        (("cluster",), [CART, WEB]),
        (("service/shop/cart", "service/shop/gone"), [CART]),
        (("endpoint/shop/web/a",), [WEB]),
        (("endpoint/shop/web/a", "service/shop/cart"), [CART, WEB]),
        (("node/n1",), [WEB]),
        (("node/n2", "node/n3"), []),
    ],
)
def test_which_services_something_is_turned_of(
    subjects: tuple[str, ...], expected: list[ServiceKey]
) -> None:
    state = ClusterState()
    state.services = {key: Held(Service(), Seq(1), 1, "ann") for key in (WEB, CART)}
    place = Endpoint(address="10.0.0.1", node="n1")
    # Of a service that isn't there any more, or not yet, nothing is told.
    endpoints = {"a": Held(place, Seq(2), 1, "ann")}
    state.endpoints = {WEB: endpoints, ServiceKey("shop", "gone"): endpoints}
    assert concerned(state, set(map(Subject.parse, subjects))) == expected


def test_how_far_a_cluster_has_turned_a_service_up() -> None:
    state = ClusterState()
    assert turned_up(state, WEB) == 100
    state.services[WEB] = Held(Service(turned_percent=60), Seq(1), 1, "ann")
    assert turned_up(state, WEB) == 60
    info = ClusterInfo(name="west", id=2, turned_percent=50)
    state.info = Held(info, Seq(2), 1, "ann")
    assert turned_up(state, WEB) == 30


# --- plans ----------------------------------------------------------------------------------------


PLAN = MigrationPlan(
    from_cluster=EAST,
    to=WEST,
    services=("shop/web", "shop/cart"),
    steps=(PlanStep(moved_percent=10, hold_s=30.0), PlanStep(moved_percent=100)),
    conditions=Conditions(healthy_percent_min=90),
)


def test_a_plan_turns_down_what_it_moves() -> None:
    operation = migration_of(PLAN, EAST)
    assert operation.kind is OperationKind.MIGRATION
    assert operation.subjects == ("service/shop/web", "service/shop/cart")
    assert operation.stages == (Stage(turned_percent=90, hold_s=30.0), Stage(turned_percent=0))
    assert (operation.to, operation.on_trouble) == (WEST, OnTrouble.ROLL_BACK)
    assert operation.conditions.healthy_percent_min == 90
    assert services_of(operation) == (WEB, CART)
    assert services_of(replace(operation, subjects=("cluster",))) == ()


@pytest.mark.parametrize(
    ("plan", "levels", "expected"),
    [
        ({}, [100, 40], [100, 50, 0]),
        ({"to_percent": 20}, [100, 40], [100, 60, 20]),
        ({"kind": "undrain"}, [60, 0], [0, 50, 100]),
        ({"kind": "undrain", "to_percent": 40}, [60, 0], [0, 20, 40]),
    ],
)
def test_a_drain_begins_where_the_furthest_of_its_subjects_is(
    plan: dict[str, object], levels: list[int], expected: list[int]
) -> None:
    keys = (WEB, CART)
    state = ClusterState(
        services={
            key: Held(Service(turned_percent=level), Seq(1), 1, "ann")
            for key, level in zip(keys, levels, strict=True)
        }
    )
    data = {"kind": "drain", "subjects": [f"service/{key}" for key in keys], "steps": 2}
    asked = from_data(DrainPlan, data | {"over_s": 60.0, "floor_percent": 7} | plan, "")
    operation = drain_of(asked, Draft(OfState(state)))
    assert [stage.turned_percent for stage in operation.stages] == expected[1:]
    assert (operation.kind, operation.floor_percent) == (asked.kind, 7)
    at_once = drain_of(replace(asked, over_s=0.0), Draft(OfState(state)))
    assert [stage.turned_percent for stage in at_once.stages] == expected[2:]


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        (
            replace(PLAN, from_cluster=WEST, to=EAST),
            "from: is west, but this is east (start it at a",
        ),
        (replace(PLAN, to=EAST), "to: is where the services are moved from (name another"),
        (replace(PLAN, steps=PLAN.steps[::-1]), "steps: each must move more than the one before"),
        (replace(PLAN, steps=PLAN.steps[:1] * 2), "steps: each must move more than the one before"),
        (replace(PLAN, services=("shop",)), "services[0]: "),
    ],
)
def test_a_contradictory_plan_is_refused(plan: MigrationPlan, expected: str) -> None:
    with pytest.raises(RejectedError) as caught:
        migration_of(plan, EAST)
    assert str(caught.value.problems[0]).startswith(expected)


@pytest.mark.parametrize(
    ("theirs", "view", "expected"),
    [
        (Service(is_global=True), None, "is not a global service of this cluster"),
        (None, service(), "west doesn't have it for this cluster (define it in west, global"),
        (Service(), replace(service(), clusters=(EAST,)), "west doesn't have it for this cluster"),
    ],
)
def test_who_can_not_take_over(
    theirs: Service | None, view: GlobalService | None, expected: str
) -> None:
    (problem,) = conflicts_of(WEB, WEST, theirs, view)
    assert str(problem).startswith(f"service shop/web: {expected}")


def test_who_can_take_over() -> None:
    assert list(conflicts_of(WEB, WEST, Service(is_global=True), service())) == []
