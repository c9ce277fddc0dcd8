"""What peers may know: exactly what is offered, said in such a way that nothing else shows."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.core.decide import decide
from meshd.core.draft import Draft, OfState
from meshd.core.export import Exports, export_events
from meshd.core.fold import fold_record
from meshd.core.standpoint import as_seen_by
from meshd.core.state import ClusterState
from meshd.model.cluster import ClusterInfo
from meshd.model.codec import encode_record
from meshd.model.command import (
    AllocateIdentity,
    Command,
    Move,
    MoveOperation,
    RemoveEndpoint,
    RemoveIdentity,
    RemoveNode,
    RemoveOperation,
    RemovePeer,
    RemovePolicy,
    RemoveService,
    RemoveSkip,
    SetCluster,
    SetEndpoint,
    SetNode,
    SetPeer,
    SetPolicy,
    SetService,
    SkipRecord,
    StartOperation,
    Submission,
)
from meshd.model.endpoint import Endpoint
from meshd.model.errors import RejectedError
from meshd.model.event import Event
from meshd.model.identity import identity_number
from meshd.model.ids import ClusterName, EndpointKey, Head, LogId, PolicyKey, ServiceKey
from meshd.model.listed import ListedPeer, SkippedRecord
from meshd.model.node import Node
from meshd.model.operation import Operation, OperationKind, Stage
from meshd.model.policy import Policy
from meshd.model.service import Export, Service
from tests.logs import (
    LOG_ID,
    WEST,
    commands,
    infos,
    service_keys,
    services,
    submission,
)

WEB = ServiceKey("shop", "web")
A, B = EndpointKey(WEB, "a"), EndpointKey(WEB, "b")
UP = Endpoint(address="10.0.0.1")
SECRET, OFFERED = Service(), Service(is_global=True)
UNSHARED = Service(is_global=True, is_shared=False)

PEER = SetPeer(ClusterName("b"), ListedPeer(endpoints=("b:2379",)))
SKIP = SkipRecord(ClusterName("b"), LOG_ID, SkippedRecord(seq=1, hash="0" * 32))

INTRODUCED = SetCluster(ClusterInfo(name="west", id=7))
DRAIN = Operation(
    kind=OperationKind.DRAIN, subjects=("cluster",), stages=(Stage(turned_percent=5, hold_s=9.0),)
)
START = StartOperation("one", DRAIN)
START_WEB = StartOperation("one", replace(DRAIN, subjects=("service/shop/web",)))
PAUSE, BACK = (MoveOperation("one", move) for move in (Move.PAUSE, Move.ROLL_BACK))
NUMBER = str(identity_number(7, 256))
ALLOCATED = AllocateIdentity({"a": "b"})
IDENTITY = (INTRODUCED, ALLOCATED)
EU = SetCluster(ClusterInfo(name="west", id=7, audiences=("eu",)))
NODE, WIDE_NODE, EU_NODE = (
    SetNode("n1", Node(addresses=("10.0.1.1",), audiences=audiences))
    for audiences in (("mesh",), ("eu", "mesh"), ("eu",))
)
DENY = PolicyKey("shop", "deny")
POLICY, WIDE_POLICY, EU_POLICY = (
    SetPolicy(DENY, Policy(audiences=audiences))
    for audiences in (("mesh",), ("eu", "mesh"), ("eu",))
)
SET, GONE = "service.set", "service.removed"


def names_in(exports: Exports) -> dict[str, list[tuple[str, str]]]:
    return {
        audience: [(event.type, event.key) for event in events]
        for audience, events in exports.items()
    }


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
        # Nor is what it is about to do; what it has turned is, where the thing itself is told.
        ([INTRODUCED], START, [("cluster.set", "west")]),
        ([INTRODUCED, START], PAUSE, []),
        ([INTRODUCED, START], BACK, [("cluster.set", "west")]),
        ([INTRODUCED, START, BACK], RemoveOperation("one"), []),
        ([INTRODUCED, SetService(WEB, OFFERED)], START_WEB, [(SET, "shop/web")]),
        ([INTRODUCED, SetService(WEB, SECRET)], START_WEB, []),
        # A node and an identity say themselves who may know of them; others aren't told who.
        ([EU], EU_NODE, []),
        ([EU, EU_NODE], RemoveNode("n1"), []),
        ([], NODE, [("node.set", "n1")]),
        ([EU, NODE], WIDE_NODE, []),
        ([EU, NODE], EU_NODE, [("node.removed", "n1")]),
        ([EU, EU_NODE], WIDE_NODE, [("node.set", "n1")]),
        ([NODE], RemoveNode("n1"), [("node.removed", "n1")]),
        ([INTRODUCED], AllocateIdentity({"a": "b"}), [("identity.set", NUMBER)]),
        ([EU], AllocateIdentity({"a": "b"}, ("eu",)), []),
        ([EU, ALLOCATED], AllocateIdentity({"a": "b"}, ("eu", "mesh")), []),
        ([EU, ALLOCATED], AllocateIdentity({"a": "b"}, ("eu",)), [("identity.removed", NUMBER)]),
        ([*IDENTITY], RemoveIdentity(int(NUMBER)), [("identity.removed", NUMBER)]),
        # And so does a policy.
        ([EU], EU_POLICY, []),
        ([], POLICY, [("policy.set", "shop/deny")]),
        ([EU, POLICY], WIDE_POLICY, []),
        ([EU, POLICY], EU_POLICY, [("policy.removed", "shop/deny")]),
        ([EU, EU_POLICY], WIDE_POLICY, [("policy.set", "shop/deny")]),
        ([EU, EU_POLICY], RemovePolicy(DENY), []),
        ([POLICY], RemovePolicy(DENY), [("policy.removed", "shop/deny")]),
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
    assert names_in(decision.exports).get("mesh", []) == exported


def test_what_an_audience_is_told_names_no_audience() -> None:
    draft = Draft(OfState(ClusterState()))
    decide(draft, submission(EU), 5)
    decision = decide(draft, submission(WIDE_NODE), 5)
    assert decision.events[0].data == {"addresses": ["10.0.1.1"], "audiences": ["eu", "mesh"]}
    assert decision.exports["mesh"][0].data == {"addresses": ["10.0.1.1"]}


def test_a_type_that_is_not_known_here_is_not_exported() -> None:
    before = Draft(OfState(ClusterState()))
    assert export_events(before, Event("moon.set", "shop/web", {"x": 1}, "ann")) == {}


# --- audiences ------------------------------------------------------------------------------------

CART = ServiceKey("shop", "cart")
INFO = ClusterInfo(name="west", id=7)


def written(*audiences: str) -> SetCluster:
    return SetCluster(replace(INFO, audiences=audiences))


def offered_to(*audiences: str, key: ServiceKey = WEB, **fields: object) -> SetService:
    service = Service(is_global=True, export=Export(audiences=audiences), **fields)  # type: ignore[arg-type]
    return SetService(key, service)


WHOLE = [(SET, "shop/web"), ("endpoint.set", "shop/web/a"), ("endpoint.set", "shop/web/b")]
SAID = ("cluster.set", "west")
WITH_EU = [written("eu", "us"), SetEndpoint(B, UP), SetEndpoint(A, UP)]


@pytest.mark.parametrize(
    ("before", "command", "exported"),
    [
        # Each audience gets what it is offered, and nothing of the others.
        (WITH_EU, offered_to("eu"), {"eu": WHOLE}),
        (WITH_EU, offered_to("eu", "mesh"), {"eu": WHOLE, "mesh": WHOLE}),
        (
            [*WITH_EU, offered_to("eu")],
            SetEndpoint(A, replace(UP, ready=False)),
            {"eu": [("endpoint.set", "shop/web/a")]},
        ),
        (
            [*WITH_EU, offered_to("eu", "us")],
            RemoveService(WEB),
            {"eu": [(GONE, "shop/web")], "us": [(GONE, "shop/web")]},
        ),
        # Widening tells the new ones the whole, narrowing takes it from them, and those who have
        # it all the while hear of neither.
        ([*WITH_EU, offered_to("eu")], offered_to("eu", "us"), {"us": WHOLE}),
        ([*WITH_EU, offered_to("eu", "us")], offered_to("us"), {"eu": [(GONE, "shop/web")]}),
        (
            [*WITH_EU, offered_to("eu")],
            offered_to("mesh"),
            {"eu": [(GONE, "shop/web")], "mesh": WHOLE},
        ),
        # With another change besides, they hear of that alone.
        (
            [*WITH_EU, offered_to("eu")],
            offered_to("eu", "us", source="x"),
            {"eu": [(SET, "shop/web")], "us": WHOLE},
        ),
        (
            [*WITH_EU, offered_to("eu", "us")],
            SetService(WEB, replace(offered_to("eu", "us").service, is_shared=False)),
            {"eu": [(GONE, "shop/web")], "us": [(GONE, "shop/web")]},
        ),
        # An audience that begins to be written, and one that ends.
        ([written()], written("eu"), {"eu": [SAID]}),
        ([], written("eu"), {"eu": [SAID], "mesh": [SAID]}),
        (
            [*WITH_EU, offered_to("eu"), offered_to("eu", "us", key=CART)],
            written("us"),
            {"eu": [(GONE, "shop/cart"), (GONE, "shop/web")]},
        ),
        (
            [*WITH_EU, offered_to("eu"), offered_to("us", key=CART), written("us")],
            written("eu", "us"),
            {"eu": [SAID, *WHOLE]},
        ),
        # What isn't written is told nothing, whatever names it.
        ([*WITH_EU, offered_to("eu"), written("us")], RemoveEndpoint(A), {}),
        ([*WITH_EU, offered_to("eu"), written("us")], RemoveService(WEB), {}),
        (
            [*WITH_EU, written("us")],
            SetCluster(replace(INFO, zone="z", audiences=("us",))),
            {"mesh": [SAID], "us": [SAID]},
        ),
        # A name that is in the list though it needn't be.
        ([written()], written("mesh"), {}),
    ],
)
def test_what_each_audience_is_told(
    before: list[Command], command: Command, exported: dict[str, list[tuple[str, str]]]
) -> None:
    draft = Draft(OfState(ClusterState()))
    for one in before:
        decide(draft, submission(one), 5)
    decision = decide(draft, submission(command), 6)
    assert names_in(decision.exports) == exported
    told = [event for events in decision.exports.values() for event in events]
    assert not [event for event in told if "audiences" in str(event.data)]


def test_an_audience_that_begins_or_ends_has_nodes_identities_and_policies_too() -> None:
    """Those that name it, and no others: it may have been written before."""
    draft = Draft(OfState(ClusterState()))
    hers = SetNode("n2", Node(addresses=("10.0.1.2",)))
    numbered = AllocateIdentity({"a": "b"}, ("eu",))
    other = SetPolicy(PolicyKey("shop", "other"), Policy())
    more = (WIDE_POLICY, other, AllocateIdentity({"c": "d"}))
    for command in (EU, WIDE_NODE, hers, numbered, *more):
        decide(draft, submission(command), 5)
    ended = names_in(decide(draft, submission(INTRODUCED), 6).exports)
    gone = [("node.removed", "n1"), ("identity.removed", NUMBER), ("policy.removed", "shop/deny")]
    assert ended == {"eu": gone}
    begun = names_in(decide(draft, submission(EU), 7).exports)
    things = [("node.set", "n1"), ("identity.set", NUMBER), ("policy.set", "shop/deny")]
    assert begun == {"eu": [SAID, *things]}


def told_part(held: dict[Any, Any], audience: str) -> dict[object, object]:
    """Values that name their audiences, as an audience is told them."""
    known = {key: one.value for key, one in held.items() if audience in one.value.audiences}
    return {key: replace(value, audiences=("mesh",)) for key, value in known.items()}


def offered_part(state: ClusterState, audience: str) -> tuple[object, ...]:
    """What an audience should know, computed in another way: from the state, not from events."""
    info = state.info.value if state.info else None
    names = {"mesh", *(info.audiences if info else ())}
    plain = Export()
    offered = {
        key: replace(held.value, export=replace(plain, clusters=held.value.export.clusters))
        for key, held in state.services.items()
        if held.value.is_offered and audience in names and audience in held.value.export.audiences
    }
    endpoints = {
        key: {name: held.value for name, held in found.items()}
        for key, found in state.endpoints.items()
        if key in offered and found
    }
    if audience not in names:
        return replace(info, audiences=()) if info else None, offered, endpoints, {}, {}, {}
    named = (state.nodes, state.identities, state.policies)
    things = tuple(told_part(held, audience) for held in named)
    return replace(info, audiences=()) if info else None, offered, endpoints, *things


def whole(state: ClusterState) -> tuple[object, ...]:
    return (
        state.info.value if state.info else None,
        {key: held.value for key, held in state.services.items()},
        {
            key: {name: held.value for name, held in found.items()}
            for key, found in state.endpoints.items()
            if key in state.services
        },
        {name: held.value for name, held in state.nodes.items()},
        {number: held.value for number, held in state.identities.items()},
        {key: held.value for key, held in state.policies.items()},
    )


AUDIENCES = ("mesh", "aud-eu", "aud-us")
some_audiences = st.lists(st.sampled_from(AUDIENCES), min_size=1, unique=True).map(tuple)
offered_somewhere = st.builds(
    lambda service, audiences: replace(service, export=Export(audiences=tuple(sorted(audiences)))),
    services,
    some_audiences,
)
some_written = st.lists(st.sampled_from(AUDIENCES[1:]), unique=True).map(sorted).map(tuple)
histories_with_audiences = st.lists(
    st.builds(
        Submission,
        st.lists(
            st.one_of(
                commands,
                st.builds(SetService, service_keys, offered_somewhere),
                st.builds(
                    lambda name, audiences: SetNode(
                        name, Node(addresses=("10.0.1.1",), audiences=tuple(sorted(audiences)))
                    ),
                    st.sampled_from(("n1", "n2")),
                    some_audiences,
                ),
                st.builds(
                    lambda app, audiences: AllocateIdentity({"app": app}, tuple(sorted(audiences))),
                    st.sampled_from(("web", "cart")),
                    some_audiences,
                ),
                st.builds(
                    lambda name, audiences: SetPolicy(
                        PolicyKey("shop", name), Policy(audiences=tuple(sorted(audiences)))
                    ),
                    st.sampled_from(("web", "cart")),
                    some_audiences,
                ),
                st.builds(
                    lambda info, audiences: SetCluster(replace(info, audiences=audiences)),
                    infos,
                    some_written,
                ),
            ),
            min_size=1,
            max_size=3,
        ).map(tuple),
        actor=st.just("ann"),
        cause=st.sampled_from(("", "key-1", "key-2")),
    ),
    max_size=12,
)
BEGUN = submission(written("aud-eu", "aud-us"))


class Exported:
    """An export log, written as the writer does and folded as a peer does."""

    def __init__(self, log_id: LogId) -> None:
        self.state, self.head = ClusterState(), Head.genesis(log_id)

    def take(self, events: tuple[Event, ...]) -> bytes:
        record = encode_record(self.head, 5, events)
        assert record.first_seq == self.head.seq + 1
        self.head = record.head
        fold_record(self.state, record, WEST)
        return record.raw


def check_nothing_else_is_told(
    exports: Mapping[str, tuple[Event, ...]], states: tuple[ClusterState, ClusterState]
) -> None:
    """What is told to an audience was offered to it before, or is after, or in between."""
    for audience, events in exports.items():
        set_here = {event.key for event in events if event.type == SET}
        for event in events:
            assert event.cause == ""
            if not event.type.startswith(("service.", "endpoint.")):
                continue
            key = ServiceKey.parse("/".join(event.key.split("/")[:2]))
            assert str(key) in set_here or any(
                key in as_seen_by(one, audience).services for one in states
            )


@given(histories_with_audiences)
def test_folding_each_export_log_gives_exactly_what_is_offered_to_its_audience(
    history: list[Submission],
) -> None:
    local, local_head = ClusterState(), Head.genesis(LOG_ID)
    exports = {name: Exported(LogId(str(n) * 32)) for n, name in enumerate(AUDIENCES)}
    began, refused = {"mesh"}, list[str]()
    for asked in (BEGUN, *history):
        before = deepcopy(local)
        try:
            decision = decide(Draft(OfState(local)), asked, 5)
        except RejectedError as error:
            refused.append(str(error))
            continue
        if decision.events:
            record = encode_record(local_head, 5, decision.events)
            local_head = record.head
            fold_record(local, record, WEST)
        for audience, events in decision.exports.items():
            raw = exports[audience].take(events)
            assert not [name for name in AUDIENCES[1:] if name.encode() in raw]
        check_nothing_else_is_told(decision.exports, (before, local))
        # After every record, not only in the end: a peer may stop anywhere.
        names = {"mesh", *(local.info.value.audiences if local.info else ())}
        began |= names
        for audience in began:
            expected, known = offered_part(local, audience), whole(exports[audience].state)
            assert known[1:] == expected[1:]
            # Who is written no more isn't told what the cluster says of itself.
            assert known[0] == expected[0] or audience not in names
            assert whole(as_seen_by(local, audience)) == expected
            assert not exports[audience].state.causes
        assert decision.exports.keys() <= began
    assert all("this cluster has no audience" in reason for reason in refused)
