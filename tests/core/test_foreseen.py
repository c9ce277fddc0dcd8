"""What is foreseen of an operation is what the table shows once each stage is reached."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.core.decide import decide
from meshd.core.draft import Draft, OfState
from meshd.core.excerpt import excerpt, excerpts
from meshd.core.fold import fold_event
from meshd.core.foreseen import Foreseen, Seen, foresee, shares_of
from meshd.core.liveness import Sight
from meshd.core.operations import ramp
from meshd.core.state import ClusterState
from meshd.core.tables import Tables
from meshd.model.command import Command, Move, MoveOperation, StartOperation
from meshd.model.errors import RejectedError
from meshd.model.ids import ClusterName, LogId, Seq, ServiceKey
from meshd.model.operation import Operation, OperationKind, Stage
from meshd.model.service import Affinity
from meshd.model.table import PPM
from tests.core.model_mesh import GLOBAL, RULES, WEB, Cluster, Endpoints, down, states_of, up
from tests.logs import submission

EAST, WEST, SOUTH = map(ClusterName, ("east", "west", "south"))
LOG_IDS = dict.fromkeys((EAST, WEST, SOUTH), LogId("a" * 32))
SIGHTS = {name: Sight(RULES) for name in LOG_IDS}
States = dict[ClusterName, ClusterState]
Shares = dict[ClusterName, int]


def foreseen(states: States, operation: Operation) -> list[Foreseen]:
    copies = excerpts(states, [WEB]) | {EAST: excerpt(states[EAST])}
    return list(foresee(Seen(EAST, copies, LOG_IDS, SIGHTS), "one", operation, [WEB]))


def happened(states: States, operation: Operation) -> list[Shares]:
    """The shares in a table that is kept up to date while the stages are reached."""
    tables = Tables(EAST)
    for name, sight in SIGHTS.items():
        tables.set_sight(name, sight)
        tables.replace(name, states, LOG_IDS)
    found = []
    for number in range(len(operation.stages)):
        start = StartOperation("one", operation)
        command: Command = MoveOperation("one", Move.ADVANCE) if number else start
        decision = decide(Draft(OfState(states[EAST])), submission(command), 5)
        changes = [
            change
            for event in decision.events
            for change in fold_event(states[EAST], event, Seq(states[EAST].seq + 1), 5, EAST)
        ]
        tables.apply(EAST, changes, states, LOG_IDS)
        view = tables.view(WEB)
        found.append({} if view is None else shares_of(view))
    return found


endpoints = st.lists(
    st.one_of(
        st.builds(lambda weight: up(weight=weight), st.sampled_from([1, 50, 100])), st.just(down())
    ),
    max_size=3,
).map(lambda lists: tuple(one for each in lists for one in each))
services = st.builds(
    lambda affinity, weight, turned: replace(
        GLOBAL, affinity=affinity, weight=weight, turned_percent=turned
    ),
    st.sampled_from(list(Affinity)),
    st.sampled_from([50, 100]),
    st.sampled_from([40, 100]),
)
clusters = st.builds(Cluster, services, endpoints)


@settings(deadline=None)
@given(
    east=clusters,
    west=clusters,
    south=clusters,
    subject=st.sampled_from(["cluster", f"service/{WEB}", "endpoint/shop/web/east-1", "node/n1"]),
    steps=st.integers(1, 5),
)
def test_what_is_foreseen_comes_true(
    east: Cluster, west: Cluster, south: Cluster, subject: str, steps: int
) -> None:
    placed: Endpoints = tuple(replace(one, node="n1") for one in (*east.endpoints, *up()))
    turned = east.service.turned_percent if east.service else 100
    operation = Operation(
        kind=OperationKind.DRAIN,
        subjects=(subject,),
        stages=ramp(turned if subject.startswith("service") else 100, 0, 60.0, steps),
    )
    mesh = {"east": replace(east, endpoints=placed), "west": west, "south": south}
    stages = foreseen(states_of(mesh), operation)
    assert [one.turned_percent for one in stages] == [
        stage.turned_percent for stage in operation.stages
    ]
    assert [dict(one.shares[WEB]) for one in stages] == happened(states_of(mesh), operation)


@pytest.mark.parametrize(
    ("affinity", "expected"),
    [
        # A tier that is turned down lets as much overflow to the next.
        (Affinity.LOCAL, [{EAST: 600_000, WEST: 400_000}, {WEST: PPM}]),
        # Among equals it is the weight that is turned down: twice 60 beside twice 100.
        (Affinity.NONE, [{EAST: 375_000, WEST: 625_000}, {WEST: PPM}]),
    ],
)
def test_a_drain_in_two_stages(affinity: Affinity, expected: list[Shares]) -> None:
    service = replace(GLOBAL, affinity=affinity)
    mesh = {"east": Cluster(service, up(2)), "west": Cluster(service, up(2)), "south": Cluster()}
    operation = Operation(
        kind=OperationKind.DRAIN,
        subjects=("cluster",),
        stages=(Stage(turned_percent=60), Stage(turned_percent=0)),
    )
    states = states_of(mesh)
    assert [one.shares for one in foreseen(states, operation)] == [{WEB: one} for one in expected]
    assert states[EAST].operations == {}, "what is served was written to"


def test_what_takes_no_traffic_has_no_share() -> None:
    mesh = {"east": Cluster(GLOBAL, up()), "west": Cluster(GLOBAL, down()), "south": Cluster()}
    operation = Operation(
        kind=OperationKind.DRAIN, subjects=("cluster",), stages=(Stage(turned_percent=0),)
    )
    assert [one.shares for one in foreseen(states_of(mesh), operation)] == [{WEB: {}}]


def test_what_can_not_begin_is_not_foreseen() -> None:
    mesh = {"east": Cluster(GLOBAL, up()), "west": Cluster(), "south": Cluster()}
    operation = Operation(
        kind=OperationKind.DRAIN,
        subjects=(f"service/{ServiceKey('shop', 'gone')}",),
        stages=(Stage(turned_percent=0),),
    )
    with pytest.raises(RejectedError, match="no service/shop/gone"):
        foreseen(states_of(mesh), operation)
