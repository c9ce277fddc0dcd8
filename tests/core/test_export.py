"""What peers may know: exactly what is offered, said in such a way that nothing else shows."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given

from meshd.core.decide import decide
from meshd.core.draft import Draft, OfState
from meshd.core.export import export_events
from meshd.core.fold import fold_record
from meshd.core.state import ClusterState
from meshd.model.cluster import ClusterInfo
from meshd.model.codec import encode_record
from meshd.model.command import (
    AllocateIdentity,
    Command,
    RemoveEndpoint,
    RemoveIdentity,
    RemoveNode,
    RemovePeer,
    RemoveService,
    RemoveSkip,
    SetCluster,
    SetEndpoint,
    SetNode,
    SetPeer,
    SetService,
    SkipRecord,
    Submission,
)
from meshd.model.endpoint import Endpoint
from meshd.model.event import Event
from meshd.model.identity import identity_number
from meshd.model.ids import ClusterName, EndpointKey, Head, ServiceKey
from meshd.model.listed import ListedPeer, SkippedRecord
from meshd.model.node import Node
from meshd.model.service import Service
from tests.logs import LOG_ID, OTHER_LOG_ID, WEST, histories, submission

WEB = ServiceKey("shop", "web")
A, B = EndpointKey(WEB, "a"), EndpointKey(WEB, "b")
UP = Endpoint(address="10.0.0.1")
SECRET, OFFERED = Service(), Service(is_global=True)
UNSHARED = Service(is_global=True, is_shared=False)

PEER = SetPeer(ClusterName("b"), ListedPeer(endpoints=("b:2379",)))
SKIP = SkipRecord(ClusterName("b"), LOG_ID, SkippedRecord(seq=1, hash="0" * 32))

INTRODUCED = SetCluster(ClusterInfo(name="west", id=7))
NUMBER = str(identity_number(7, 256))
IDENTITY = (INTRODUCED, AllocateIdentity({"a": "b"}))
NODE, WIDE_NODE, EU_NODE = (
    SetNode("n1", Node(addresses=("10.0.1.1",), audiences=audiences))
    for audiences in (("mesh",), ("eu", "mesh"), ("eu",))
)
SET, GONE = "service.set", "service.removed"


@pytest.mark.parametrize(
    ("before", "command", "exported"),
    [
        ([], SetCluster(ClusterInfo(name="west", id=7)), [("cluster.set", "west")]),
        # A service that is not offered, and what happens to it, is nobody's business.
        ([], SetService(WEB, SECRET), []),
        ([], SetService(WEB, UNSHARED), []),
        ([SetService(WEB, SECRET)], SetEndpoint(A, UP), []),
        ([SetService(WEB, SECRET), SetEndpoint(A, UP)], RemoveEndpoint(A), []),
        ([SetService(WEB, SECRET)], RemoveService(WEB), []),
        ([SetService(WEB, SECRET)], SetService(WEB, UNSHARED), []),
        # Whom a cluster follows is nobody's business either.
        ([], PEER, []),
        ([PEER], RemovePeer(ClusterName("b")), []),
        ([PEER], SKIP, []),
        ([SKIP], RemoveSkip(ClusterName("b"), LOG_ID), []),
        # A node and an identity say themselves who may know of them; others aren't told who.
        ([], EU_NODE, []),
        ([EU_NODE], RemoveNode("n1"), []),
        ([], NODE, [("node.set", "n1")]),
        ([NODE], WIDE_NODE, []),
        ([NODE], EU_NODE, [("node.removed", "n1")]),
        ([EU_NODE], WIDE_NODE, [("node.set", "n1")]),
        ([NODE], RemoveNode("n1"), [("node.removed", "n1")]),
        ([INTRODUCED], AllocateIdentity({"a": "b"}), [("identity.set", NUMBER)]),
        ([INTRODUCED], AllocateIdentity({"a": "b"}, ("eu",)), []),
        ([*IDENTITY], AllocateIdentity({"a": "b"}, ("eu", "mesh")), []),
        ([*IDENTITY], AllocateIdentity({"a": "b"}, ("eu",)), [("identity.removed", NUMBER)]),
        ([*IDENTITY], RemoveIdentity(int(NUMBER)), [("identity.removed", NUMBER)]),
        # Endpoints without a service wait for it.
        ([], SetEndpoint(A, UP), []),
        ([SetEndpoint(A, UP)], RemoveService(WEB), []),
        # One that is offered is told with all that happens to it.
        ([], SetService(WEB, OFFERED), [(SET, "shop/web")]),
        ([SetService(WEB, OFFERED)], SetEndpoint(A, UP), [("endpoint.set", "shop/web/a")]),
        (
            [SetService(WEB, OFFERED), SetEndpoint(A, UP)],
            RemoveEndpoint(A),
            [("endpoint.removed", "shop/web/a")],
        ),
        ([SetService(WEB, OFFERED), SetEndpoint(A, UP)], RemoveService(WEB), [(GONE, "shop/web")]),
        (
            [SetService(WEB, OFFERED), SetEndpoint(A, UP)],
            SetService(WEB, Service(is_global=True, source="x")),
            [(SET, "shop/web")],
        ),
        # Becoming offered tells the endpoints too, sorted; ceasing to be takes all away.
        (
            [SetEndpoint(B, UP), SetEndpoint(A, UP), SetService(WEB, SECRET)],
            SetService(WEB, OFFERED),
            [(SET, "shop/web"), ("endpoint.set", "shop/web/a"), ("endpoint.set", "shop/web/b")],
        ),
        (
            [SetService(WEB, OFFERED), SetEndpoint(A, UP)],
            SetService(WEB, UNSHARED),
            [(GONE, "shop/web")],
        ),
        (
            [SetService(WEB, OFFERED), SetEndpoint(A, UP)],
            SetService(WEB, SECRET),
            [(GONE, "shop/web")],
        ),
    ],
)
def test_what_a_command_tells_the_peers(
    before: list[Command], command: Command, exported: list[tuple[str, str]]
) -> None:
    draft = Draft(OfState(ClusterState()))
    decide(draft, submission(*before), 5)
    decision = decide(draft, submission(command), 6)
    assert [(event.type, event.key) for event in decision.exports] == exported


def test_what_an_audience_is_told_names_no_audience() -> None:
    draft = Draft(OfState(ClusterState()))
    decision = decide(draft, submission(WIDE_NODE), 5)
    assert decision.events[0].data == {"addresses": ["10.0.1.1"], "audiences": ["eu", "mesh"]}
    assert decision.exports[0].data == {"addresses": ["10.0.1.1"]}


def test_a_type_that_is_not_known_here_is_not_exported() -> None:
    before = Draft(OfState(ClusterState()))
    assert export_events(before, Event("moon.set", "shop/web", {"x": 1}, "ann")) == ()


def told_part(held: dict[Any, Any]) -> dict[object, object]:
    """Values that name their audiences, as `mesh` is told them."""
    mesh = {key: one.value for key, one in held.items() if "mesh" in one.value.audiences}
    return {key: replace(value, audiences=("mesh",)) for key, value in mesh.items()}


def offered_part(state: ClusterState) -> tuple[object, ...]:
    """What peers should know, computed in another way: from the state, not from the events."""
    offered = {key: held.value for key, held in state.services.items() if held.value.is_offered}
    endpoints = {
        key: {name: held.value for name, held in found.items()}
        for key, found in state.endpoints.items()
        if key in offered and found
    }
    info = state.info.value if state.info else None
    return info, offered, endpoints, told_part(state.nodes), told_part(state.identities)


def whole(state: ClusterState) -> tuple[object, ...]:
    return (
        state.info.value if state.info else None,
        {key: held.value for key, held in state.services.items()},
        {
            key: {name: held.value for name, held in found.items()}
            for key, found in state.endpoints.items()
        },
        {name: held.value for name, held in state.nodes.items()},
        {number: held.value for number, held in state.identities.items()},
    )


@given(histories)
def test_folding_the_export_log_gives_exactly_what_is_offered(history: list[Submission]) -> None:
    local, export = ClusterState(), ClusterState()
    local_head, export_head = Head.genesis(LOG_ID), Head.genesis(OTHER_LOG_ID)
    for asked in history:
        before = deepcopy(local)
        decision = decide(Draft(OfState(local)), asked, 5)
        if decision.events:
            record = encode_record(local_head, 5, decision.events)
            local_head = record.head
            fold_record(local, record, WEST)
        if decision.exports:
            exported = encode_record(export_head, 5, decision.exports)
            export_head = exported.head
            fold_record(export, exported, WEST)
        # After every record, not only in the end: a peer may stop anywhere.
        assert whole(export) == offered_part(local)
        assert not export.causes
        for event in decision.exports:
            assert event.cause == ""
            if event.type.startswith(("service.", "endpoint.")):
                key = ServiceKey.parse("/".join(event.key.split("/")[:2]))
                known = [state.service(key) for state in (before, local)]
                told = {event.key for event in decision.events if event.type == SET}
                assert any(one is not None and one.is_offered for one in known) or str(key) in told
    assert export.seq == export_head.seq
