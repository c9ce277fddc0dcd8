"""Reading a state: what is there, and what isn't."""

from dataclasses import replace

from meshd.core.fold import fold_event
from meshd.core.state import ClusterState, Held
from meshd.model.endpoint import Endpoint
from meshd.model.event import Event
from meshd.model.identity import Identity, identity_number
from meshd.model.ids import ClusterName, EndpointKey, Seq, ServiceKey
from meshd.model.service import Service

CART, CARD = ServiceKey("shop", "cart"), ServiceKey("shop", "card")
UP = Endpoint(address="10.0.0.1")
SERVICE = Service(is_global=True)

FULL = ClusterState(
    services={CART: Held(SERVICE, Seq(1), 0, "ann")},
    endpoints={CART: {"x": Held(UP, Seq(2), 0, "ann")}},
)


def test_a_state_starts_before_the_first_event_and_empty() -> None:
    state = ClusterState()
    assert (state.seq, state.time_ms, state.info) == (0, 0, None)
    assert (state.services, state.endpoints) == ({}, {})
    assert (state.causes, state.unknown) == ({}, {})


def test_states_share_nothing() -> None:
    one, other = ClusterState(), ClusterState()
    one.services[CART] = Held(SERVICE, Seq(1), 0, "ann")
    one.unknown["mystery"] += 1
    assert other == ClusterState()


def test_a_service_is_found_by_its_key() -> None:
    assert FULL.service(CART) == SERVICE
    assert FULL.service(CARD) is None


def test_an_endpoint_is_found_by_its_key() -> None:
    assert FULL.endpoint(EndpointKey(CART, "x")) == UP
    assert FULL.endpoint(EndpointKey(CART, "y")) is None
    assert FULL.endpoint(EndpointKey(CARD, "x")) is None


def test_the_endpoints_of_a_service_are_all_of_them() -> None:
    assert FULL.endpoints_of(CART) == {"x": Held(UP, Seq(2), 0, "ann")}
    assert FULL.endpoints_of(CARD) == {}


def test_a_copy_has_a_numbering_of_its_own() -> None:
    """What is made of a state's values on demand follows the values of its own state only."""
    number = identity_number(7, 256)
    state = ClusterState(identities={number: Held(Identity(labels={"app": "web"}), Seq(1), 0, "")})
    assert state.numbers().lowest_free() == 257
    copy = replace(state, identities=dict(state.identities))
    gone = Event("identity.removed", str(number), None, "ann")
    fold_event(state, gone, Seq(2), 0, ClusterName("west"))
    assert state.numbers().lowest_free() == 256
    assert copy.numbers().lowest_free() == 257
    assert copy.numbers().numbers_of({"app": "web"}) == (number,)
