"""What a command changes, field by field."""

from __future__ import annotations

import pytest

from meshd.core.decide import decide
from meshd.core.differences import FieldChange, differences, seen
from meshd.core.draft import Draft, OfState
from meshd.core.state import ClusterState
from meshd.model.cluster import Availability, ClusterInfo
from meshd.model.command import (
    AllocateIdentity,
    Command,
    DescribeCluster,
    RemoveService,
    ReplaceEndpoints,
    SetCluster,
    SetEndpoint,
    SetIdentity,
    SetNode,
    SetPolicy,
    SetService,
)
from meshd.model.endpoint import Endpoint
from meshd.model.identity import Identity, identity_number
from meshd.model.ids import EndpointKey, PolicyKey, ServiceKey
from meshd.model.node import Node
from meshd.model.policy import Policy, Rule
from meshd.model.service import Port, Service, Spill
from tests.logs import submission

WEB = ServiceKey("shop", "web")
A = EndpointKey(WEB, "a")
UP, OTHER = Endpoint(address="10.0.0.1"), Endpoint(address="10.0.0.2")
FIRST = identity_number(7, 256)

Expected = list[tuple[str, object, object]]


@pytest.mark.parametrize(
    ("before", "command", "expected"),
    [
        # What comes is told without its defaults, and when it came isn't for its author to say.
        (None, SetService(WEB, Service()), []),
        (
            None,
            SetService(WEB, Service(ports=(Port(80),), labels={"a": "b"})),
            [("ports", None, [{"port": 80}]), ("labels", None, {"a": "b"})],
        ),
        (SetService(WEB, Service()), SetService(WEB, Service()), []),
        (
            SetService(WEB, Service(labels={"a": "b", "c": "d"})),
            SetService(WEB, Service(labels={"a": "x", "e": "f"}, spill=Spill(below_percent=5))),
            [
                ("spill.below_percent", 70, 5),
                ("labels.a", "b", "x"),
                ("labels.c", "d", None),
                ("labels.e", None, "f"),
            ],
        ),
        (
            SetPolicy(PolicyKey("shop", "web"), Policy()),
            SetPolicy(PolicyKey("shop", "web"), Policy(ingress=(Rule(),))),
            [("ingress", [], [{"peers": [], "ports": [], "http": []}])],
        ),
        (SetEndpoint(A, UP), SetEndpoint(A, OTHER), [("address", "10.0.0.1", "10.0.0.2")]),
        (None, SetEndpoint(A, UP), [("address", None, "10.0.0.1")]),
        (
            ReplaceEndpoints(WEB, "s", {"a": UP, "b": UP}),
            ReplaceEndpoints(WEB, "s", {"b": OTHER, "c": UP}),
            [
                ("endpoints.a", {"address": "10.0.0.1", "source": "s"}, None),
                ("endpoints.b.address", "10.0.0.1", "10.0.0.2"),
                ("endpoints.c", None, {"address": "10.0.0.1", "source": "s"}),
            ],
        ),
        (
            SetNode("n1", Node(addresses=("10.0.1.1",))),
            SetNode("n1", Node(addresses=("10.0.1.1",), zone="z")),
            [("zone", "", "z")],
        ),
        (
            None,
            AllocateIdentity({"a": "b"}),
            [("number", None, FIRST), ("labels", None, {"a": "b"})],
        ),
        (
            AllocateIdentity({"a": "b"}),
            AllocateIdentity({"a": "b"}, ("eu",)),
            [("audiences", ["mesh"], ["eu"])],
        ),
        (
            AllocateIdentity({"a": "b"}),
            SetIdentity(FIRST, Identity(labels={"a": "c"})),
            [("labels.a", "b", "c")],
        ),
        (
            DescribeCluster(weight=5),
            DescribeCluster(state=Availability.DRAINING),
            [("state", "active", "draining"), ("weight", 5, 100)],
        ),
        (SetService(WEB, Service()), RemoveService(WEB), []),
    ],
)
def test_what_changes_is_told_by_its_path(
    before: Command | None, command: Command, expected: Expected
) -> None:
    draft = Draft(OfState(ClusterState()))
    decide(draft, submission(SetCluster(ClusterInfo(name="west", id=7, audiences=("eu",)))), 5)
    if before is not None:
        decide(draft, submission(before), 5)
    old = seen(draft, command)
    decide(draft, submission(command), 6)
    found = differences(old, seen(draft, command))
    assert found == [FieldChange(*one) for one in expected]


def test_a_cluster_that_says_nothing_of_itself_is_not_there_yet() -> None:
    assert seen(Draft(OfState(ClusterState())), DescribeCluster()) is None
