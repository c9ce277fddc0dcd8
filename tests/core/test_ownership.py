"""Whose things are: every kind, adopted, refused, taken over, and what is left of an owner."""

from __future__ import annotations

import pytest

from meshd.core.decide import decide
from meshd.core.draft import Draft, OfState
from meshd.core.fold import fold_record
from meshd.core.ownership import OWNER_LABEL, Owner, owned, pruned
from meshd.core.state import ClusterState
from meshd.model.cluster import ClusterInfo
from meshd.model.codec import encode_record
from meshd.model.command import (
    AllocateIdentity,
    Command,
    DescribeCluster,
    RemoveEndpoint,
    RemoveIdentity,
    RemoveNode,
    RemovePolicy,
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
from meshd.model.errors import RejectedError
from meshd.model.identity import Identity, identity_number
from meshd.model.ids import EndpointKey, Head, PolicyKey, ServiceKey
from meshd.model.node import Node
from meshd.model.policy import Policy
from meshd.model.service import Service
from tests.logs import LOG_ID, WEST, submission

WEB, CART = ServiceKey("shop", "web"), ServiceKey("shop", "cart")
A, B = EndpointKey(WEB, "a"), EndpointKey(WEB, "b")
DENY = PolicyKey("shop", "deny")
FIRST, SECOND = identity_number(7, 256), identity_number(7, 300)
BLUE, GREEN = Owner("blue"), Owner("green")
LABELLED = {"team": "shop"}
EVERYTHING: tuple[Command, ...] = (
    SetService(WEB, Service(labels=LABELLED)),
    SetEndpoint(A, Endpoint(address="10.0.0.1")),
    ReplaceEndpoints(CART, "Endpoints/shop/cart", {"x": Endpoint(address="10.0.0.2")}),
    SetNode("n1", Node(addresses=("10.0.1.1",))),
    AllocateIdentity({"app": "web"}),
    SetIdentity(SECOND, Identity(labels={"app": "cart"})),
    SetPolicy(DENY, Policy()),
    DescribeCluster(weight=5),
)


def state_of(*commands: Command) -> ClusterState:
    state = ClusterState()
    head = Head.genesis(LOG_ID)
    asked = submission(SetCluster(ClusterInfo(name="west", id=7)), *commands)
    events = decide(Draft(OfState(state)), asked, 5).events
    fold_record(state, encode_record(head, 5, events), WEST)
    return state


def applied(owner: Owner, state: ClusterState, *commands: Command) -> tuple[Command, ...]:
    return owned(commands, [f"line {number}" for number, _ in enumerate(commands)], owner, state)


def refused(owner: Owner, state: ClusterState, *commands: Command) -> list[str]:
    with pytest.raises(RejectedError) as caught:
        applied(owner, state, *commands)
    return [problem.what for problem in caught.value.problems]


def owners(state: ClusterState) -> list[str | None]:
    """Whose each thing is."""
    labels = [held.value.labels for held in state.services.values()]
    for found in state.endpoints.values():
        labels += [held.value.labels for held in found.values()]
    labels += [held.value.labels for held in state.nodes.values()]
    labels += [held.value.labels for held in state.policies.values()]
    sources = [held.value.source.removeprefix("Owner/") for held in state.identities.values()]
    return [one.get(OWNER_LABEL) for one in labels] + [source or None for source in sources]


def test_every_kind_is_its_owners_but_what_the_cluster_says_of_itself() -> None:
    commands = applied(BLUE, state_of(), *EVERYTHING)
    assert owners(state_of(*commands)) == ["blue"] * 7
    assert commands[-1] == EVERYTHING[-1]
    first = commands[0]
    assert isinstance(first, SetService)
    assert first.service.labels == LABELLED | {OWNER_LABEL: "blue"}


def test_without_an_owner_things_stay_whose_they_are() -> None:
    nobodys = state_of(*EVERYTHING)
    assert owners(state_of(*applied(Owner(), nobodys, *EVERYTHING))) == [None] * 7
    blues = state_of(*applied(BLUE, nobodys, *EVERYTHING))
    again = applied(Owner(), blues, *EVERYTHING)
    assert owners(state_of(*again)) == ["blue"] * 7


def test_what_is_nobodys_is_adopted_and_what_is_anothers_is_not() -> None:
    nobodys = state_of(*EVERYTHING)
    blues = state_of(*applied(BLUE, nobodys, *EVERYTHING))
    assert applied(BLUE, blues, *EVERYTHING) == applied(BLUE, nobodys, *EVERYTHING)
    assert refused(GREEN, blues, *EVERYTHING) == [
        f"{thing} belongs to blue, not to green"
        for thing in (
            *("service shop/web", "endpoint shop/web/a", "endpoint shop/cart/x", "node n1"),
            *(f"identity {FIRST}", f"identity {SECOND}", "policy shop/deny"),
        )
    ]
    taken = applied(Owner("green", is_taking_over=True), blues, *EVERYTHING)
    assert owners(state_of(*taken)) == ["green"] * 7


def test_what_a_source_no_longer_gives_is_anothers_too() -> None:
    blues = state_of(*applied(BLUE, state_of(), EVERYTHING[2]))
    fewer = ReplaceEndpoints(CART, "Endpoints/shop/cart", {})
    assert refused(GREEN, blues, fewer) == ["endpoint shop/cart/x belongs to blue, not to green"]
    # Of another source, it isn't touched.
    assert applied(GREEN, blues, ReplaceEndpoints(CART, "Endpoints/shop/c2", {}))


def test_a_source_that_is_no_owner_is_replaced() -> None:
    state = state_of(AllocateIdentity({"app": "web"}, source="a-controller"))
    (command,) = applied(BLUE, state, AllocateIdentity({"app": "web"}))
    assert command == AllocateIdentity({"app": "web"}, source="Owner/blue")


def test_a_label_may_say_the_owner_but_not_another_one() -> None:
    said = SetService(WEB, Service(labels={OWNER_LABEL: "green"}))
    assert applied(Owner(), state_of(), said) == (said,)
    assert applied(GREEN, state_of(), said) == (said,)
    (what,) = refused(BLUE, state_of(), said)
    assert what == f"its label {OWNER_LABEL} says green, but it is applied as blue's"


def removals(state: ClusterState, *commands: Command, owner: str = "blue") -> list[Command]:
    return [removal.command for removal in pruned(state, commands, owner)]


BLUES = state_of(*applied(BLUE, state_of(), *EVERYTHING))


def test_all_that_an_owner_has_beyond_the_request_is_removed() -> None:
    assert removals(BLUES) == [
        RemoveService(WEB),
        RemoveEndpoint(EndpointKey(CART, "x")),
        RemoveNode("n1"),
        RemoveIdentity(FIRST),
        RemoveIdentity(SECOND),
        RemovePolicy(DENY),
    ]
    assert removals(BLUES, *EVERYTHING) == []
    assert removals(BLUES, owner="green") == []
    assert removals(state_of(*EVERYTHING)) == []


@pytest.mark.parametrize("kept", EVERYTHING[:7], ids=lambda command: type(command).__name__)
def test_what_is_in_the_request_stays(kept: Command) -> None:
    before = removals(BLUES, SetService(WEB, Service()))
    after = removals(BLUES, SetService(WEB, Service()), kept)
    lost = {str(command) for command in before} - {str(command) for command in after}
    assert len(lost) == (0 if isinstance(kept, SetService) else 1)


def test_an_identity_is_known_by_its_labels_as_by_its_number() -> None:
    web = removals(BLUES, SetService(WEB, Service()), AllocateIdentity({"app": "cart"}))
    assert RemoveIdentity(SECOND) not in web
    assert RemoveIdentity(FIRST) in web


def test_what_a_source_of_the_request_gave_is_for_that_to_take_away() -> None:
    kept = ReplaceEndpoints(CART, "Endpoints/shop/cart", {"y": Endpoint(address="10.0.0.3")})
    assert RemoveEndpoint(EndpointKey(CART, "x")) not in removals(BLUES, kept)
    # Moved to another service, it leaves the old one behind.
    moved = ReplaceEndpoints(WEB, "Endpoints/shop/cart", {})
    assert RemoveEndpoint(EndpointKey(CART, "x")) in removals(BLUES, moved)


def test_a_service_is_not_removed_with_endpoints_that_are_not_its_owners() -> None:
    others = Endpoint(address="10.0.0.9", labels={OWNER_LABEL: "green"})
    free = Endpoint(address="10.0.0.8")
    service = SetService(WEB, Service(labels={OWNER_LABEL: "blue"}))
    state = state_of(service, SetEndpoint(A, free), SetEndpoint(B, others))
    with pytest.raises(RejectedError, match="its endpoint b belongs to green"):
        pruned(state, (), "blue")
    with pytest.raises(RejectedError, match="no longer among the documents, but endpoints"):
        pruned(BLUES, [EVERYTHING[1]], "blue")
    # What has no owner goes with it, as it does when the service is deleted.
    assert removals(state_of(service, SetEndpoint(A, free))) == [RemoveService(WEB)]
