"""What the commands of operations do, by example."""

from dataclasses import replace

import pytest

from meshd.core import operating
from meshd.core.decide import decide
from meshd.core.draft import Draft, OfState
from meshd.core.fold import fold_event
from meshd.core.operating import UNDER_WAY_MAX
from meshd.core.state import ClusterState
from meshd.model.cluster import ClusterInfo
from meshd.model.command import (
    Command,
    DescribeCluster,
    IntroduceCluster,
    Move,
    MoveOperation,
    RemoveEndpoint,
    RemoveOperation,
    RemoveService,
    SetCluster,
    SetEndpoint,
    SetService,
    StartOperation,
)
from meshd.model.endpoint import Endpoint
from meshd.model.errors import RejectedError
from meshd.model.ids import ClusterName, EndpointKey, Seq, ServiceKey
from meshd.model.operation import Operation, OperationKind, Progress, Stage
from meshd.model.service import Service
from tests.logs import submission

NOW_MS = 1_700_000_000_000
WEB, CART = ServiceKey("shop", "web"), ServiceKey("shop", "cart")
A, B, C = (EndpointKey(WEB, name) for name in "abc")
ON_N1 = Endpoint(address="10.0.0.1", node="n1")
ON_N2 = Endpoint(address="10.0.0.2", node="n2")
INFO = ClusterInfo(name="west", id=7)
WORLD: tuple[Command, ...] = (
    SetCluster(INFO),
    SetService(WEB, Service(is_global=True)),
    SetEndpoint(A, ON_N1),
    SetEndpoint(B, ON_N2),
)
KINDS = ("cluster", f"service/{WEB}", f"endpoint/{A}", "node/n1")


def world(*more: Command) -> Draft:
    draft = Draft(OfState(ClusterState()))
    decide(draft, submission(*WORLD), 1)
    for command in more:
        decide(draft, submission(command), 2)
    return draft


def drain(*subjects: str, to: tuple[int, ...] = (50, 0), **more: object) -> Operation:
    stages = tuple(Stage(turned_percent=percent) for percent in to)
    values: dict[str, object] = {"kind": OperationKind.DRAIN, "stages": stages}
    return Operation(subjects=subjects or ("cluster",), **(values | more))  # type: ignore[arg-type]


def undrain(*subjects: str, to: tuple[int, ...] = (100,)) -> Operation:
    return drain(*subjects, to=to, kind=OperationKind.UNDRAIN)


START = StartOperation("one", drain())
ADVANCE = MoveOperation("one", Move.ADVANCE)
PAUSE = MoveOperation("one", Move.PAUSE, reason="lunch")
RESUME = MoveOperation("one", Move.RESUME)
BACK = MoveOperation("one", Move.ROLL_BACK, reason="no good")


def made(draft: Draft, command: Command) -> list[tuple[str, str]]:
    decision = decide(draft, submission(command), NOW_MS)
    return [(event.type, event.key) for event in decision.events]


def problems(draft: Draft, command: Command) -> list[str]:
    with pytest.raises(RejectedError) as caught:
        decide(draft, submission(command), NOW_MS)
    return [str(problem) for problem in caught.value.problems]


def turned(draft: Draft) -> dict[str, int]:
    """How far everything is turned up that isn't all the way."""
    info, service = draft.cluster(), draft.service(WEB)
    found = {"cluster": info.turned_percent if info else 100}
    found["web"] = service.turned_percent if service else 100
    found |= {name: endpoint.turned_percent for name, endpoint in draft.endpoints_of(WEB)}
    return {name: percent for name, percent in found.items() if percent != 100}


@pytest.mark.parametrize(
    ("subject", "first", "event"),
    [
        ("cluster", {"cluster": 50}, ("cluster.set", "west")),
        (f"service/{WEB}", {"web": 50}, ("service.set", str(WEB))),
        (f"endpoint/{A}", {"a": 50}, ("endpoint.set", str(A))),
        ("node/n1", {"a": 50}, ("endpoint.set", str(A))),
    ],
)
def test_a_drain_reaches_its_stages_one_by_one_and_goes_back(
    subject: str, first: dict[str, int], event: tuple[str, str]
) -> None:
    draft = world()
    assert made(draft, StartOperation("one", drain(subject))) == [event, ("operation.set", "one")]
    assert turned(draft) == first
    assert made(draft, ADVANCE) == [event, ("operation.set", "one")]
    assert turned(draft) == dict.fromkeys(first, 0)
    one = draft.operations()["one"]
    assert (one.progress, one.stage, one.by, one.started_ms) == (Progress.DONE, 2, "ann", NOW_MS)
    assert made(draft, ADVANCE) == []
    assert made(draft, BACK) == [event, ("operation.set", "one")]
    assert turned(draft) == {}
    one = draft.operations()["one"]
    assert (one.progress, one.reason) == (Progress.ROLLED_BACK, "no good")
    assert made(draft, BACK) == []


def test_one_stage_is_done_at_once() -> None:
    draft = world(StartOperation("one", drain(to=(0,))))
    assert draft.operations()["one"].progress is Progress.DONE


def test_the_last_stage_is_held_for_its_time_before_it_is_done() -> None:
    stages = (Stage(turned_percent=50), Stage(turned_percent=0, hold_s=5.0))
    draft = world(StartOperation("one", drain(stages=stages)), ADVANCE)
    assert turned(draft) == {"cluster": 0}
    assert draft.operations()["one"].progress is Progress.RUNNING
    assert made(draft, replace(ADVANCE, from_stage=2)) == [("operation.set", "one")]
    assert draft.operations()["one"].progress is Progress.DONE
    assert made(draft, replace(ADVANCE, from_stage=2)) == []


def test_a_move_that_somebody_else_made_already_is_none() -> None:
    draft = world(START)
    assert made(draft, replace(ADVANCE, from_stage=0)) == []
    assert made(draft, replace(ADVANCE, from_stage=1)) != []
    assert made(draft, replace(ADVANCE, from_stage=1)) == []


def test_what_is_paused_advances_no_more_until_it_is_resumed() -> None:
    draft = world(START)
    assert made(draft, PAUSE) == [("operation.set", "one")]
    one = draft.operations()["one"]
    assert (one.progress, one.reason, one.since_ms) == (Progress.PAUSED, "lunch", NOW_MS)
    assert made(draft, PAUSE) == []
    assert made(draft, ADVANCE) == []
    assert made(draft, RESUME) == [("operation.set", "one")]
    assert draft.operations()["one"].reason == ""
    assert made(draft, RESUME) == []
    assert made(draft, ADVANCE) != []


def test_what_manifests_and_settings_say_turns_nothing() -> None:
    draft = world(
        *(StartOperation(f"o{n}", drain(one, to=(7,))) for n, one in enumerate(KINDS[:3]))
    )
    before = turned(draft)
    assert before == {"cluster": 7, "web": 7, "a": 7}
    for command in (
        *(SetCluster(replace(INFO, zone="z")), IntroduceCluster(INFO), DescribeCluster(weight=9)),
        SetService(WEB, Service(is_global=True, weight=3)),
        SetService(WEB, Service(is_global=True, weight=3, turned_percent=80)),
        SetEndpoint(A, replace(ON_N1, weight=3)),
    ):
        decide(draft, submission(command), NOW_MS)
        assert turned(draft) == before
    assert made(draft, SetEndpoint(A, replace(ON_N1, weight=3))) == []


def test_an_endpoint_that_comes_to_a_drained_node_is_drained_with_it() -> None:
    draft = world(StartOperation("one", drain("node/n1", to=(0,))), SetEndpoint(C, ON_N1))
    assert turned(draft) == {"a": 0, "c": 0}
    decide(draft, submission(SetEndpoint(B, ON_N1)), NOW_MS)
    assert turned(draft) == {"a": 0, "c": 0}, "one that was there is as it was"
    decide(draft, submission(BACK, SetEndpoint(EndpointKey(WEB, "d"), ON_N1)), NOW_MS)
    assert turned(draft) == {}


def test_what_is_gone_meanwhile_is_turned_no_more() -> None:
    kinds = (*KINDS[1:3], "node/n2")
    draft = world(START, *(StartOperation(f"o{n}", drain(one)) for n, one in enumerate(kinds)))
    decide(draft, submission(RemoveEndpoint(A)), NOW_MS)
    for name in ("o0", "o1", "o2"):
        assert ("operation.set", name) in made(draft, replace(ADVANCE, name=name))
    decide(draft, submission(RemoveService(WEB)), NOW_MS)
    for name in ("o0", "o1", "o2"):
        assert made(draft, replace(BACK, name=name)) == [("operation.set", name)]


@pytest.mark.parametrize(
    ("before", "command", "expected"),
    [
        ((START,), START, "operation one: it is under way already (roll it back first"),
        (
            (START,),
            StartOperation("two", drain()),
            "subjects: cluster has an operation under way (wait for one (drain), or roll it",
        ),
        (
            (StartOperation("one", drain("node/n1")),),
            StartOperation("two", drain("cluster", f"endpoint/{A}")),
            f"subjects: endpoint/{A} has an operation under way (wait for one (drain), or roll it",
        ),
        (
            (StartOperation("one", drain(f"endpoint/{A}")),),
            StartOperation("two", drain("node/n1")),
            "subjects: node/n1 has an operation under way (wait for one (drain), or roll it",
        ),
        (
            (StartOperation("one", drain("node/n1", to=(0,))),),
            StartOperation("one", drain("cluster", to=(0,))),
            "operation one: an older one of this name turns a node down (take another name)",
        ),
        (
            (StartOperation("one", drain("cluster", "node/n1", to=(0,))),),
            RemoveOperation("one"),
            "operation one: node n1 is turned down by it, and so are endpoints that come there",
        ),
        (
            (),
            StartOperation("one", drain(f"service/{CART}")),
            f"subjects: this cluster has no service/{CART}",
        ),
        (
            (),
            StartOperation("one", drain("endpoint/shop/web/x")),
            "subjects: this cluster has no endpoint/",
        ),
        (
            (),
            StartOperation("one", drain("node/n9")),
            "subjects: this cluster has no node/n9 (look at",
        ),
        ((), StartOperation("one", drain(to=(50, 70))), "stages: drain only goes down (put the"),
        ((), StartOperation("one", undrain(to=(50, 20))), "stages: undrain only goes up (put the"),
        (
            (),
            StartOperation("one", undrain(to=(50, 70))),
            "stages: cluster is turned to 100 %, so 50 %",
        ),
        (
            (StartOperation("one", drain("node/n1", to=(20,))),),
            StartOperation("two", drain("node/n1", to=(50,))),
            "stages: node/n1 is turned to 20 %, so 50 % is the wrong way (begin",
        ),
        (
            (),
            StartOperation("One", drain()),
            "operation: 'One' is not an operation's name (use a DNS",
        ),
        ((), ADVANCE, "operation one: there is no such operation (look at them"),
        (
            (StartOperation("one", drain(to=(0,))),),
            PAUSE,
            "operation one: it is done (start another",
        ),
        (
            (StartOperation("one", drain(to=(0,))),),
            RESUME,
            "operation one: it is done (start another",
        ),
        ((START,), RemoveOperation("one"), "operation one: it is under way (roll it back, or wait"),
        (
            (
                StartOperation("one", drain(to=(0,))),
                StartOperation("two", undrain()),
            ),
            BACK,
            "operation one: it is done, and cluster was turned by something else since (start an",
        ),
    ],
)
def test_what_can_not_be(before: tuple[Command, ...], command: Command, expected: str) -> None:
    draft = world(*before)
    assert problems(draft, command)[0].startswith(expected)


def test_nothing_starts_before_the_cluster_has_said_its_name() -> None:
    draft = Draft(OfState(ClusterState()))
    assert problems(draft, START)[0].startswith("operation one: the cluster has not said its name")


def test_so_many_are_under_way_and_no_more() -> None:
    draft = world()
    for number in range(UNDER_WAY_MAX):
        decide(draft, submission(SetEndpoint(EndpointKey(WEB, f"e{number}"), ON_N1)), 1)
        start = StartOperation(f"o{number}", drain(f"endpoint/{WEB}/e{number}"))
        decide(draft, submission(start), 1)
    assert problems(draft, START) == [
        f"operation one: {UNDER_WAY_MAX} operations are under way (wait until one has ended)"
    ]


def test_of_those_that_ended_the_oldest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = 50
    monkeypatch.setattr(operating, "ENDED_MAX", kept)
    draft = world()
    for number in range(kept):
        kind = undrain(to=(100,)) if number % 2 else drain(to=(0,))
        decide(draft, submission(StartOperation(f"o{number}", kind)), 1)
    assert len(draft.operations()) == kept
    assert made(draft, START) == [
        ("operation.removed", "o0"),
        ("cluster.set", "west"),
        ("operation.set", "one"),
    ]
    assert made(draft, RemoveOperation("o1")) == [("operation.removed", "o1")]
    assert made(draft, RemoveOperation("o1")) == []


def test_a_node_that_is_drained_is_remembered_until_it_is_undrained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(operating, "ENDED_MAX", 1)
    monkeypatch.setattr(operating, "HELD_MAX", 2)
    draft = world(
        StartOperation("node", drain("node/n1", to=(0,))),
        StartOperation("o0", drain(to=(0,))),
    )
    assert ("operation.removed", "o0") in made(draft, StartOperation("more", undrain()))
    decide(draft, submission(SetEndpoint(C, ON_N1)), 1)
    assert turned(draft)["c"] == 0
    # Then another one has the last word on it.
    decide(draft, submission(StartOperation("back", undrain("node/n1"))), 1)
    assert made(draft, RemoveOperation("node")) == [("operation.removed", "node")]
    assert made(draft, RemoveOperation("back")) == [("operation.removed", "back")]
    # And even that has a limit.
    for node, key in (("n1", A), ("n2", B), ("n3", EndpointKey(WEB, "d"))):
        decide(draft, submission(SetEndpoint(key, replace(ON_N1, node=node))), 1)
        words = made(draft, StartOperation(node, drain(f"node/{node}", to=(0,))))
        assert (("operation.removed", "n1") in words) == (node == "n3")


def test_an_endpoint_of_another_node_has_an_operation_of_its_own() -> None:
    draft = world(StartOperation("one", drain("node/n1")))
    assert made(draft, StartOperation("two", drain(f"endpoint/{B}"))) != []


@pytest.mark.parametrize("before", [(), (PAUSE,)])
def test_what_is_under_way_is_rolled_back_to_where_it_was(before: tuple[Command, ...]) -> None:
    draft = world(StartOperation("zero", drain(to=(80,))), START, *before)
    assert turned(draft) == {"cluster": 50}
    assert made(draft, BACK) == [("cluster.set", "west"), ("operation.set", "one")]
    assert turned(draft) == {"cluster": 80}
    assert made(draft, ADVANCE) == []


def test_what_is_there_already_is_not_turned() -> None:
    assert made(world(), StartOperation("one", undrain())) == [("operation.set", "one")]


def test_the_same_name_may_be_used_again_once_it_ended() -> None:
    draft = world(StartOperation("one", drain(to=(0,))))
    decide(draft, submission(StartOperation("one", undrain())), NOW_MS)
    assert draft.operations()["one"].kind is OperationKind.UNDRAIN
    assert turned(draft) == {}


def test_how_far_nodes_are_turned_is_kept_and_made_anew_once_an_operation_changes() -> None:
    """Every new endpoint asks, and there may be thousands of operations."""
    state = ClusterState()
    asked = []
    for command in (
        *WORLD,
        StartOperation("one", drain("node/n1", to=(40,))),
        SetEndpoint(C, ON_N1),
        StartOperation("two", drain("node/n2", to=(0,))),
        replace(BACK, name="one"),
        StartOperation("three", undrain("node/n2")),
        RemoveOperation("two"),
    ):
        draft = Draft(OfState(state))
        decision = decide(draft, submission(command), NOW_MS)
        drafted = dict(draft.nodes_turned())
        before = state.nodes_turned()
        for number, event in enumerate(decision.events, state.seq + 1):
            fold_event(state, event, Seq(number), NOW_MS, ClusterName("west"))
        has_changed = any(event.type.startswith("operation.") for event in decision.events)
        assert (state.nodes_turned() is before) is not has_changed
        assert state.nodes_turned() == drafted
        asked.append(drafted)
    assert asked[len(WORLD) :] == [
        {"n1": 40},
        {"n1": 40},
        {"n1": 40, "n2": 0},
        {"n1": 100, "n2": 0},
        {"n1": 100, "n2": 100},
        {"n1": 100, "n2": 100},
    ]
