"""What each event does to a state, and what no event can do."""

from copy import deepcopy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import meshd.core.fold
from meshd.core.fold import (
    Change,
    EndpointChange,
    IdentityChange,
    InfoChange,
    NodeChange,
    PeerChange,
    PolicyChange,
    ServiceChange,
    SkipChange,
    fold_event,
    fold_record,
    pass_over,
)
from meshd.core.state import CARRIED_MAX, UNKNOWN_TYPES_MAX, ClusterState, Held
from meshd.model.cluster import ClusterInfo
from meshd.model.command import Outcome
from meshd.model.endpoint import Endpoint
from meshd.model.errors import CorruptError
from meshd.model.event import Event, EventType, Record
from meshd.model.identity import Identity, identity_number
from meshd.model.ids import (
    GENESIS_HASH,
    ClusterName,
    EndpointKey,
    LogId,
    PolicyKey,
    Seq,
    ServiceKey,
)
from meshd.model.listed import ListedPeer, Skip, SkippedRecord
from meshd.model.node import Node
from meshd.model.policy import Direction, Policy
from meshd.model.service import Port, Service

WEST = ClusterName("west")
CART, CARD = ServiceKey("shop", "cart"), ServiceKey("shop", "card")
LOG_ID = LogId("f" * 32)


def event(kind: str, key: str, data: dict[str, object] | None = None, cause: str = "") -> Event:
    return Event(kind, key, data, "ann", cause)


def record(*events: Event, first: int = 1, time_ms: int = 1000) -> Record:
    return Record(LOG_ID, Seq(first), time_ms, GENESIS_HASH, events, b"", GENESIS_HASH)


def folded(*events: Event, onto: ClusterState | None = None) -> tuple[ClusterState, list[Change]]:
    state = ClusterState() if onto is None else onto
    return state, fold_record(state, record(*events, first=state.seq + 1), WEST)


CLUSTER_SET = event("cluster.set", "west", {"name": "west", "id": 7, "zone": "z1"})
SERVICE_SET = event("service.set", "shop/cart", {"global": True, "ports": [{"port": 80}]})
SERVICE_REMOVED = event("service.removed", "shop/cart")
ENDPOINT_SET = event("endpoint.set", "shop/cart/x", {"address": "10.0.0.1"})
ENDPOINT_REMOVED = event("endpoint.removed", "shop/cart/x")
PEER_SET = event("peer.set", "b", {"endpoints": ["b:2379"]})
PEER_REMOVED = event("peer.removed", "b")
SKIPPED: dict[str, object] = {"log_id": LOG_ID, "records": [{"seq": 7, "hash": "0" * 32}]}
SKIP_SET = event("skip.set", "b", SKIPPED)
SKIP_REMOVED = event("skip.removed", "b")
OPERATION_SET = event(
    "operation.set",
    "drain-1",
    {"kind": "drain", "subjects": ["cluster"], "stages": [{"turned_percent": 0}]},
)
OPERATION_REMOVED = event("operation.removed", "drain-1")
NODE_SET = event("node.set", "n1.west", {"addresses": ["10.0.1.1"], "pod_cidrs": ["10.1.1.0/24"]})
NODE_REMOVED = event("node.removed", "n1.west")
NUMBER = identity_number(7, 256)
IDENTITY_SET = event("identity.set", str(NUMBER), {"labels": {"app": "web"}})
IDENTITY_REMOVED = event("identity.removed", str(NUMBER))
POLICY_SET = event("policy.set", "shop/web.v1", {"directions": ["egress"]})
POLICY_REMOVED = event("policy.removed", "shop/web.v1")
B, B2 = ClusterName("b"), ClusterName("b2")

GLOBAL = Service(is_global=True, ports=(Port(80),))
UP = Endpoint(address="10.0.0.1")


# --- each type ------------------------------------------------------------------------------------


def test_cluster_set_says_what_the_cluster_is() -> None:
    state, changes = folded(CLUSTER_SET)
    assert state.info == Held(ClusterInfo(name="west", id=7, zone="z1"), Seq(1), 1000, "ann")
    assert changes == [InfoChange()]


def test_service_set_holds_the_whole_value_and_the_event_that_made_it_so() -> None:
    state, changes = folded(SERVICE_SET)
    assert state.services == {CART: Held(GLOBAL, Seq(1), 1000, "ann")}
    assert changes == [ServiceChange(CART)]


def test_service_set_replaces_and_merges_nothing() -> None:
    state, _ = folded(SERVICE_SET, event("service.set", "shop/cart", {"labels": {"a": "b"}}))
    assert state.service(CART) == Service(labels={"a": "b"})


def test_service_set_again_keeps_the_endpoints() -> None:
    state, _ = folded(SERVICE_SET, ENDPOINT_SET, SERVICE_SET)
    assert state.endpoint(EndpointKey(CART, "x")) == UP


def test_service_removed_takes_its_endpoints_along_and_no_others() -> None:
    other = event("endpoint.set", "shop/card/x", {"address": "10.0.0.1"})
    state, changes = folded(SERVICE_SET, ENDPOINT_SET, other, SERVICE_REMOVED)
    assert state.services == {}
    assert list(state.endpoints) == [CARD]
    assert changes[-1] == ServiceChange(CART, removed=True)


def test_an_endpoint_may_come_before_its_service() -> None:
    state, changes = folded(ENDPOINT_SET)
    assert state.endpoints == {CART: {"x": Held(UP, Seq(1), 1000, "ann")}}
    assert changes == [EndpointChange(EndpointKey(CART, "x"))]


def test_endpoint_removed_takes_one_endpoint() -> None:
    second = event("endpoint.set", "shop/cart/y", {"address": "10.0.0.2"})
    state, changes = folded(ENDPOINT_SET, second, ENDPOINT_REMOVED)
    assert list(state.endpoints_of(CART)) == ["y"]
    assert changes[-1] == EndpointChange(EndpointKey(CART, "x"))


def test_a_service_without_endpoints_has_no_entry() -> None:
    state, _ = folded(ENDPOINT_SET, ENDPOINT_REMOVED)
    assert state.endpoints == {}


def test_node_set_holds_the_whole_value_and_removed_takes_it_away() -> None:
    state, changes = folded(NODE_SET)
    node = Node(addresses=("10.0.1.1",), pod_cidrs=("10.1.1.0/24",))
    assert state.nodes == {"n1.west": Held(node, Seq(1), 1000, "ann")}
    assert changes == [NodeChange("n1.west")]
    state, changes = folded(NODE_REMOVED, onto=state)
    assert state.nodes == {}
    assert changes == [NodeChange("n1.west")]


def test_policy_set_holds_the_whole_value_and_removed_takes_it_away() -> None:
    state, changes = folded(POLICY_SET)
    key = PolicyKey("shop", "web.v1")
    assert state.policies == {
        key: Held(Policy(directions=(Direction.EGRESS,)), Seq(1), 1000, "ann")
    }
    assert changes == [PolicyChange(key)]
    state, changes = folded(POLICY_REMOVED, onto=state)
    assert state.policies == {}
    assert changes == [PolicyChange(key)]
    assert state.policy(key) is None


def test_identity_set_holds_labels_by_number_and_keeps_the_numbering() -> None:
    state, changes = folded(IDENTITY_SET)
    web = Identity(labels={"app": "web"})
    assert state.identities == {NUMBER: Held(web, Seq(1), 1000, "ann")}
    assert changes == [IdentityChange(NUMBER)]
    assert state.numbers().numbers_of({"app": "web"}) == (NUMBER,)
    # Made once, it is kept by every event that comes.
    cart = event("identity.set", str(NUMBER), {"labels": {"app": "cart"}})
    folded(cart, event("identity.set", str(NUMBER + 1), {"labels": {"app": "web"}}), onto=state)
    assert state.numbers().numbers_of({"app": "cart"}) == (NUMBER,)
    assert state.numbers().numbers_of({"app": "web"}) == (NUMBER + 1,)
    assert state.numbers().lowest_free() == 258
    state, changes = folded(IDENTITY_REMOVED, onto=state)
    assert list(state.identities) == [NUMBER + 1]
    assert changes == [IdentityChange(NUMBER)]
    assert state.numbers().lowest_free() == 256
    assert state.numbers().numbers_of({"app": "cart"}) == ()


@pytest.mark.parametrize(
    ("events", "ranges_seq"),
    [
        ([SERVICE_SET, ENDPOINT_SET, IDENTITY_SET], 0),
        ([CLUSTER_SET, SERVICE_SET], 1),
        ([SERVICE_SET, NODE_SET, SERVICE_SET], 2),
        ([NODE_SET, NODE_REMOVED, SERVICE_SET], 2),
    ],
)
def test_a_state_knows_when_its_address_ranges_may_have_changed(
    events: list[Event], ranges_seq: int
) -> None:
    state, _ = folded(*events)
    assert state.ranges_seq == ranges_seq
    # Nobody knows what was passed over.
    pass_over(state, record(SERVICE_SET, first=10))
    assert state.ranges_seq == 10


@pytest.mark.parametrize(
    "bad",
    [
        event("node.set", "N1", {"addresses": ["10.0.1.1"]}),
        event("node.set", "n1", {"addresses": []}),
        event("node.removed", "a/b"),
        event("identity.set", str(NUMBER), {"labels": {}}),
        event("identity.set", "5", {"labels": {"app": "web"}}),
        event("identity.removed", "web"),
    ],
)
def test_what_is_no_node_or_identity_is_refused(bad: Event) -> None:
    with pytest.raises(CorruptError, match=r"west seq 1 (node|identity)\."):
        folded(bad)


def test_peer_set_says_how_a_peer_is_followed() -> None:
    state, changes = folded(PEER_SET)
    assert state.peers == {B: Held(ListedPeer(endpoints=("b:2379",)), Seq(1), 1000, "ann")}
    assert changes == [PeerChange(B)]


def test_peer_removed_takes_along_what_was_passed_over_of_it_and_no_namesake() -> None:
    twins = [
        event("peer.set", "b2", {"endpoints": ["b2:2379"]}),
        event("skip.set", "b2", SKIPPED),
    ]
    state, changes = folded(PEER_SET, SKIP_SET, *twins, PEER_REMOVED)
    assert list(state.peers) == [B2]
    assert list(state.skips) == [B2]
    assert changes[-1] == PeerChange(B)


def test_skip_set_holds_all_that_is_passed_over_and_can_be_removed_alone() -> None:
    state, changes = folded(PEER_SET, SKIP_SET)
    assert state.skip(B) == Skip(log_id=LOG_ID, records=(SkippedRecord(seq=7, hash="0" * 32),))
    assert state.skip(B2) is None
    assert changes[-1] == SkipChange(B)
    state, changes = folded(SKIP_REMOVED, onto=state)
    assert state.skips == {}
    assert list(state.peers) == [B]
    assert changes == [SkipChange(B)]


def test_a_record_that_is_passed_over_only_moves_the_state_on() -> None:
    state, _ = folded(SERVICE_SET)
    pass_over(state, record(SERVICE_REMOVED, ENDPOINT_SET, first=2, time_ms=2000))
    assert (state.seq, state.time_ms) == (3, 2000)
    assert list(state.services) == [CART]
    assert state.endpoints == {}
    pass_over(state, record(SERVICE_REMOVED, first=4, time_ms=1))
    assert (state.seq, state.time_ms) == (4, 2000)


@pytest.mark.parametrize(
    "bad",
    [
        event("peer.set", "B!", {"endpoints": ["b:2379"]}),
        event("peer.set", "b", {"endpoints": []}),
        event("peer.removed", ""),
        event("skip.set", "b", {"log_id": LOG_ID, "records": []}),
        event("skip.removed", "a/b"),
    ],
)
def test_what_says_nothing_of_a_peer_is_refused(bad: Event) -> None:
    with pytest.raises(CorruptError, match=r"west seq 1 (peer|skip)\."):
        folded(bad)


@pytest.mark.parametrize(
    "removal",
    [
        *(SERVICE_REMOVED, ENDPOINT_REMOVED, NODE_REMOVED, IDENTITY_REMOVED),
        *(PEER_REMOVED, SKIP_REMOVED),
    ],
)
def test_removing_what_is_not_there_is_harmless(removal: Event) -> None:
    state, _ = folded(removal)
    assert state == ClusterState(seq=Seq(1), time_ms=1000)


def test_a_newer_writers_fields_are_left_aside() -> None:
    newer = event("endpoint.set", "shop/cart/x", {"address": "10.0.0.1", "hue": "blue"})
    state, _ = folded(newer)
    assert state.endpoint(EndpointKey(CART, "x")) == UP


def test_every_type_that_there_is_is_folded() -> None:
    samples = [
        *(CLUSTER_SET, SERVICE_SET, SERVICE_REMOVED, ENDPOINT_SET, ENDPOINT_REMOVED),
        *(NODE_SET, NODE_REMOVED, IDENTITY_SET, IDENTITY_REMOVED),
        *(POLICY_SET, POLICY_REMOVED, PEER_SET, PEER_REMOVED, SKIP_SET, SKIP_REMOVED),
        *(OPERATION_SET, OPERATION_REMOVED),
    ]
    assert {sample.type for sample in samples} == set(EventType)
    for sample in samples:
        state, changes = folded(sample)
        assert changes, sample.type
        assert not state.unknown, sample.type


# --- seq, time, order -----------------------------------------------------------------------------


def test_the_seq_follows_the_record_and_each_value_knows_its_own() -> None:
    state = ClusterState()
    fold_record(state, record(SERVICE_SET, ENDPOINT_SET, first=41), WEST)
    assert state.seq == 42
    assert state.services[CART].seq == 41
    assert state.endpoints_of(CART)["x"].seq == 42


def test_the_time_never_goes_back() -> None:
    state = ClusterState()
    fold_record(state, record(SERVICE_SET, time_ms=2000), WEST)
    fold_record(state, record(ENDPOINT_SET, first=2, time_ms=1000), WEST)
    assert state.time_ms == 2000
    assert state.endpoints_of(CART)["x"].time_ms == 1000


def test_changes_are_reported_in_the_order_of_the_events() -> None:
    _, changes = folded(ENDPOINT_SET, SERVICE_SET, ENDPOINT_REMOVED)
    endpoint = EndpointChange(EndpointKey(CART, "x"))
    assert changes == [endpoint, ServiceChange(CART), endpoint]


# --- folding twice --------------------------------------------------------------------------------

any_event = st.one_of(
    st.just(CLUSTER_SET),
    st.builds(
        lambda name, is_global: event("service.set", f"shop/{name}", {"global": is_global}),
        st.sampled_from(["cart", "card"]),
        st.booleans(),
    ),
    st.builds(
        lambda name, weight: event(
            "endpoint.set", f"shop/cart/{name}", {"address": "10.0.0.1", "weight": weight}
        ),
        st.sampled_from("xy"),
        st.integers(0, 3),
    ),
    st.sampled_from([SERVICE_REMOVED, ENDPOINT_REMOVED]),
)


@given(before=st.lists(any_event, max_size=6), one=any_event)
@settings(max_examples=100, deadline=None)
def test_folding_an_event_twice_equals_folding_it_once(before: list[Event], one: Event) -> None:
    once, _ = folded(*before)
    fold_event(once, one, Seq(9), 1000, WEST)
    twice = deepcopy(once)
    fold_event(twice, one, Seq(9), 1000, WEST)
    assert twice == once


@given(before=st.lists(any_event, max_size=4), again=st.lists(any_event, max_size=4))
@settings(max_examples=100, deadline=None)
def test_folding_a_record_twice_equals_folding_it_once(
    before: list[Event], again: list[Event]
) -> None:
    """Also with an idempotency key, which must not count its events twice."""
    caused = [Event(one.type, one.key, one.data, one.actor, "k") for one in again]
    once, _ = folded(*before)
    repeated = record(*caused, first=once.seq + 1)
    fold_record(once, repeated, WEST)
    twice = deepcopy(once)
    fold_record(twice, repeated, WEST)
    assert twice == once


# --- types that this version doesn't know ---------------------------------------------------------


def test_an_unknown_type_changes_nothing_but_its_counter_and_the_seq() -> None:
    state, changes = folded(event("moon.set", "anything at all", {"any": ["data"]}))
    assert changes == []
    assert state == ClusterState(
        seq=Seq(1), time_ms=1000, unknown=state.unknown, carried=state.carried
    )
    assert state.unknown == {"moon.set": 1}


def test_the_last_unknown_event_of_each_type_and_key_is_carried() -> None:
    first, last, other = (event("moon.set", key, {"n": n}) for n, key in enumerate("aab"))
    gone = event("moon.removed", "a")
    state, _ = folded(first, last, other, gone)
    assert [item.event for item in state.carried.values()] == [last, other, gone]
    assert [item.seq for item in state.carried.values()] == [2, 3, 4]
    assert state.is_whole


def test_more_than_can_be_carried_is_noted() -> None:
    state, _ = folded(*(event("moon.set", str(n)) for n in range(4000)))
    for _ in range(2):
        first = state.seq + 1
        fold_record(
            state,
            record(*(event("moon.set", str(first + n)) for n in range(4000)), first=first),
            WEST,
        )
    assert len(state.carried) == CARRIED_MAX
    assert not state.is_whole


def test_unknown_types_are_counted_each() -> None:
    state, _ = folded(event("a", ""), event("b", ""), event("a", ""))
    assert state.unknown == {"a": 2, "b": 1}


def test_a_peer_cannot_grow_the_counter_without_end() -> None:
    state, _ = folded(*(event(f"type-{number}", "") for number in range(UNKNOWN_TYPES_MAX + 10)))
    assert len(state.unknown) == UNKNOWN_TYPES_MAX + 1
    assert state.unknown["…"] == 10
    folded(event("type-0", ""), onto=state)
    assert state.unknown["type-0"] == 2, "a type that has its name keeps it"
    assert state.unknown.total() == UNKNOWN_TYPES_MAX + 11


# --- corrupt events -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        pytest.param(event("service.set", "cart", {}), "service name", id="service name"),
        pytest.param(event("service.set", "shop/Cart", {}), "service name", id="upper case"),
        pytest.param(event("service.removed", "", None), "service name", id="no name"),
        pytest.param(event("service.set", "shop/cart", None), "", id="no data"),
        pytest.param(event("service.set", "shop/cart", {"global": 1}), "global", id="type"),
        pytest.param(event("endpoint.set", "shop/cart", {}), "service name", id="no endpoint"),
        pytest.param(event("endpoint.set", "x", {}), "endpoint name", id="endpoint name"),
        pytest.param(event("endpoint.removed", "shop/cart/", None), "endpoint name", id="empty"),
        pytest.param(event("endpoint.set", "shop/cart/x", {}), "address", id="no address"),
        pytest.param(event("endpoint.set", "shop/cart/x", {"address": "0.0.0.0"}), "one host",
                     id="address of nobody"),
        pytest.param(event("cluster.set", "west", {"name": "west", "id": 512}), "512",
                     id="cluster id"),
        pytest.param(event("cluster.set", "west", {"name": "east", "id": 7}), "speaks for east",
                     id="another cluster's name in the data"),
        pytest.param(event("cluster.set", "east", {"name": "west", "id": 7}), "the log of west",
                     id="another cluster's name as the key"),
    ],
)  # fmt: skip
def test_a_corrupt_event_changes_nothing_and_says_where(bad: Event, says: str) -> None:
    state, _ = folded(CLUSTER_SET, SERVICE_SET, ENDPOINT_SET)
    before = deepcopy(state)
    with pytest.raises(CorruptError) as caught:
        fold_event(state, bad, Seq(4), 9000, WEST)
    assert state == before
    assert caught.value.where == f"west seq 4 {bad.type} {bad.key!r}"
    assert says in caught.value.reason


def test_a_record_with_a_corrupt_event_changes_nothing_at_all() -> None:
    """A state stands where a record ends, so that equal positions mean equal states."""
    bad = event("service.set", "shop/cart", {"global": "perhaps"})
    state = ClusterState()
    with pytest.raises(CorruptError, match="west seq 6 "):
        fold_record(state, record(ENDPOINT_SET, bad, SERVICE_SET, first=5), WEST)
    assert state == ClusterState()


# --- idempotency keys -----------------------------------------------------------------------------


def test_a_cause_stands_for_the_events_that_carry_it() -> None:
    state, _ = folded(
        event("a", "", cause="k1"),
        event("b", "", cause="k2"),
        event("c", "", cause="k2"),
        event("d", ""),
    )
    assert state.causes == {
        "k1": Outcome(Seq(1), Seq(1), 1),
        "k2": Outcome(Seq(2), Seq(3), 2),
    }


def test_a_cause_that_comes_again_later_stands_for_its_first_run() -> None:
    state, _ = folded(event("a", "", cause="k"))
    folded(event("b", ""), event("c", "", cause="k"), onto=state)
    assert state.causes == {"k": Outcome(Seq(1), Seq(1), 1)}


@pytest.mark.parametrize("caused", [SERVICE_SET, event("moon.set", "")])
def test_a_cause_is_remembered_whatever_the_type(caused: Event) -> None:
    state, _ = folded(Event(caused.type, caused.key, caused.data, "ann", "k"))
    assert list(state.causes) == ["k"]


def test_the_oldest_causes_are_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meshd.core.fold, "CAUSES_MAX", 2)
    state, _ = folded(*(event("a", "", cause=f"k{number}") for number in range(4)))
    assert list(state.causes) == ["k2", "k3"]
