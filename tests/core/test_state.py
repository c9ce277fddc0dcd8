"""Reading a state: what is there, and what isn't."""

from meshd.core.state import ClusterState, Held
from meshd.model.endpoint import Endpoint
from meshd.model.ids import EndpointKey, Seq, ServiceKey
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
