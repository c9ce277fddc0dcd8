"""A draft is the state as it would be: equal to the fold of its events, and nothing but a draft."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.core.decide import decide
from meshd.core.draft import Draft, OfState
from meshd.core.fold import fold_record
from meshd.core.readable import Readable
from meshd.core.state import ClusterState
from meshd.model.cluster import ClusterInfo
from meshd.model.codec import encode_record
from meshd.model.command import (
    Outcome,
    RemoveEndpoint,
    RemoveService,
    SetEndpoint,
    SetService,
    Submission,
)
from meshd.model.endpoint import Endpoint
from meshd.model.errors import RejectedError
from meshd.model.event import Event
from meshd.model.identity import Identity
from meshd.model.ids import ClusterName, EndpointKey, Head, PolicyKey, Seq, ServiceKey
from meshd.model.listed import ListedPeer, Skip
from meshd.model.node import Node
from meshd.model.policy import Policy
from meshd.model.service import Service
from tests.logs import (
    LABELS,
    LOG_ID,
    NAMES,
    NODES,
    NUMBERS,
    PEERS,
    POLICIES,
    SERVICES,
    SOURCES,
    WEST,
    histories,
    rejected_submissions,
    submission,
)

WEB = ServiceKey("shop", "web")
A = EndpointKey(WEB, "a")
UP = Endpoint(address="10.0.0.1")


@dataclass(frozen=True, slots=True)
class Seen:
    """All that one can ask of a state or a draft."""

    last: tuple[int, int]
    info: ClusterInfo | None
    services: dict[ServiceKey, Service | None]
    defined: list[tuple[ServiceKey, Service]]
    endpoints: dict[ServiceKey, dict[str, Endpoint]]
    given: dict[tuple[ServiceKey, str], dict[str, Endpoint]]
    single: dict[EndpointKey, Endpoint | None]
    has_any: dict[ServiceKey, bool]
    nodes: dict[str, Node | None]
    identities: dict[int, Identity | None]
    policies: dict[PolicyKey, Policy]
    single_policies: dict[PolicyKey, Policy | None]
    numbers: list[tuple[int, ...]]
    lowest_free: int | None
    has_no_identity: bool
    peers: dict[ClusterName, ListedPeer]
    skips: dict[ClusterName, Skip | None]
    outcomes: list[Outcome | None]


def seen(what: Readable) -> Seen:
    endpoints = {key: list(what.endpoints_of(key)) for key in SERVICES}
    assert all(len(dict(found)) == len(found) for found in endpoints.values())
    given = {
        (key, source): what.endpoints_from(key, source) for key in SERVICES for source in SOURCES
    }
    for (key, source), found in given.items():
        # What an index says is what looking through all endpoints says, in the order of names.
        scanned = sorted(name for name, endpoint in endpoints[key] if endpoint.source == source)
        assert list(found) == scanned
        assert found.items() <= dict(endpoints[key]).items()
    return Seen(
        last=what.last,
        info=what.cluster(),
        services={key: what.service(key) for key in SERVICES},
        defined=sorted(what.services(), key=lambda item: item[0]),
        endpoints={key: dict(found) for key, found in endpoints.items()},
        given=given,
        single={
            EndpointKey(key, name): what.endpoint(EndpointKey(key, name))
            for key in SERVICES
            for name in NAMES
        },
        nodes={name: what.node(name) for name in NODES},
        identities={number: what.identity(number) for number in NUMBERS},
        policies=what.policies(),
        single_policies={key: what.policy(key) for key in POLICIES},
        numbers=[
            what.numbers().numbers_of(labels)
            for labels in (*LABELS, *({"number": str(number)} for number in NUMBERS))
        ],
        lowest_free=what.numbers().lowest_free(),
        has_no_identity=what.numbers().is_empty,
        peers=dict(what.peers()),
        skips={name: what.skip(name) for name in PEERS},
        has_any={key: Draft(what).has_endpoints(key) for key in SERVICES},
        outcomes=[what.outcome_of(cause) for cause in ("key-1", "key-2")],
    )


def folded(state: ClusterState, events: list[Event]) -> ClusterState:
    """Fold events into a copy, as the record that they would be committed as."""
    after = deepcopy(state)
    if events:
        prev = Head(LOG_ID, state.seq, Head.genesis(LOG_ID).hash)
        fold_record(after, encode_record(prev, state.time_ms, events), WEST)
    return after


def decided(draft: Draft, history: list[Submission]) -> list[Event]:
    return [event for asked in history for event in decide(draft, asked, now_ms=0).events]


@given(histories, histories)
def test_a_draft_is_the_fold_of_its_events(first: list[Submission], then: list[Submission]) -> None:
    """Also on a state that already holds something, and read by those that are still to come."""
    empty = ClusterState()
    state = folded(empty, decided(Draft(OfState(empty)), first))
    before = seen(OfState(state))
    draft = Draft(OfState(state))
    events = decided(draft, then)
    assert seen(draft) == seen(OfState(folded(state, events)))
    assert seen(OfState(state)) == before


@given(histories, histories, histories)
def test_absorbing_a_draft_is_folding_its_events(
    first: list[Submission], below: list[Submission], above: list[Submission]
) -> None:
    empty = ClusterState()
    state = folded(empty, decided(Draft(OfState(empty)), first))
    lower = Draft(OfState(state))
    events = decided(lower, below)
    upper = Draft(lower)
    events += decided(upper, above)
    as_seen_above = seen(upper)
    lower.absorb(upper)
    assert seen(lower) == as_seen_above == seen(OfState(folded(state, events)))
    # What is absorbed is a copy: a draft thrown on afterwards changes nothing below.
    upper.fold(Event("service.removed", str(WEB), None, "ann"))
    assert seen(lower) == as_seen_above


@given(histories, rejected_submissions)
def test_a_rejected_submission_leaves_no_trace(
    history: list[Submission], wrong: Submission
) -> None:
    draft = Draft(OfState(ClusterState()))
    decided(draft, history)
    before = seen(draft)
    if wrong.cause and draft.outcome_of(wrong.cause):
        return
    with pytest.raises(RejectedError):
        decide(draft, wrong, now_ms=0)
    assert seen(draft) == before


def test_a_removed_service_comes_back_without_its_endpoints() -> None:
    state = folded(
        ClusterState(),
        decided(
            Draft(OfState(ClusterState())),
            [submission(SetService(WEB, Service()), SetEndpoint(A, UP))],
        ),
    )
    draft = Draft(OfState(state))
    decided(draft, [submission(RemoveService(WEB), SetService(WEB, Service(is_global=True)))])
    assert draft.service(WEB) == Service(is_global=True)
    assert draft.endpoint(A) is None
    assert not draft.has_endpoints(WEB)
    decided(draft, [submission(SetEndpoint(A, UP))])
    assert dict(draft.endpoints_of(WEB)) == {"a": UP}
    decided(draft, [submission(RemoveEndpoint(A))])
    assert not draft.has_endpoints(WEB)


def test_what_meshd_does_not_know_it_can_not_have_decided() -> None:
    with pytest.raises(AssertionError, match=r"moon\.set"):
        Draft(OfState(ClusterState())).fold(Event("moon.set", "x", None, "ann"))


@given(st.integers(0, 5))
def test_drafts_may_be_stacked_and_count_on(height: int) -> None:
    top: Readable = OfState(ClusterState(seq=Seq(40), time_ms=7))
    for number in range(height):
        draft = Draft(top)
        decided(draft, [submission(SetService(ServiceKey("shop", f"s{number}"), Service()))])
        top = draft
    assert top.last == (40 + height, 7)
