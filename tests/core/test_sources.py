"""Which endpoints a source gave: always what looking through all of them would find."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from meshd.core.decide import decide
from meshd.core.differences import seen
from meshd.core.draft import Draft, OfState
from meshd.core.excerpt import excerpt
from meshd.core.fold import fold_record
from meshd.core.ownership import Owner, owned
from meshd.core.snapshot import load_part, manifest_of, parts_of
from meshd.core.standpoint import as_seen_by
from meshd.core.state import ClusterState, Held
from meshd.model.codec import encode_record
from meshd.model.command import (
    RemoveService,
    ReplaceEndpoints,
    SetEndpoint,
    SetService,
    Submission,
)
from meshd.model.endpoint import Endpoint
from meshd.model.ids import EndpointKey, Head, ServiceKey
from meshd.model.service import Service
from meshd.model.snapshot import decode_part
from tests.core.watched import Watched
from tests.logs import LOG_ID, SERVICES, SOURCES, WEST, histories, submission

WEB = ServiceKey("shop", "web")
UP, OTHER = Endpoint(address="10.0.0.1"), Endpoint(address="10.0.0.2")
MESH = "mesh"

Answers = list[list[tuple[str, Held[Endpoint]]]]


def asked(state: ClusterState) -> Answers:
    return [
        list(state.endpoints_from(key, source).items()) for key in SERVICES for source in SOURCES
    ]


def looked_through(state: ClusterState) -> Answers:
    return [
        sorted(
            (name, held)
            for name, held in state.endpoints_of(key).items()
            if held.value.source == source
        )
        for key in SERVICES
        for source in SOURCES
    ]


def fold_all(state: ClusterState, *history: Submission) -> None:
    for one in history:
        events = decide(Draft(OfState(state)), one, now_ms=0).events
        if events:
            prev = Head(LOG_ID, state.seq, Head.genesis(LOG_ID).hash)
            fold_record(state, encode_record(prev, state.time_ms, events), WEST)


@given(histories, st.sets(st.integers(0, 11)))
def test_the_index_says_what_a_scan_says(history: list[Submission], asking: set[int]) -> None:
    """Whenever it is first asked for; and it holds nothing of a service without endpoints."""
    state = ClusterState()
    for number, one in enumerate(history):
        fold_all(state, one)
        if number in asking:
            assert asked(state) == looked_through(state)
        assert state.sources.keys() <= state.endpoints.keys()
    assert asked(state) == looked_through(state)
    assert state.sources.keys() == state.endpoints.keys()


@given(histories, histories)
def test_copies_keep_to_their_own_values(first: list[Submission], then: list[Submission]) -> None:
    """However a state is copied, what its log says later doesn't reach the copy, nor the other way
    round.
    """
    state = ClusterState()
    fold_all(state, *first)
    before = asked(state)
    loaded, head = ClusterState(), Head(LOG_ID, state.seq, Head.genesis(LOG_ID).hash)
    for raw in parts_of(state):
        load_part(loaded, decode_part(raw, ""), WEST, manifest_of(state, head, 0, [], None))
    endpoints = {key: dict(named) for key, named in state.endpoints.items()}
    copies = [
        loaded,
        excerpt(state),
        excerpt(state, SERVICES),
        replace(state, endpoints=endpoints, services=dict(state.services)),
    ]
    fold_all(state, *then)
    assert [asked(copy) for copy in copies] == [before] * len(copies)
    # What shares the endpoints shares what is served now; its answers are no older than those.
    assert asked(as_seen_by(state, MESH)) == asked(state) == looked_through(state)
    after = asked(state)
    fold_all(copies[1], submission(*map(RemoveService, SERVICES)))
    assert asked(state) == after


def test_states_are_equal_whether_or_not_they_were_asked() -> None:
    one, other = ClusterState(), ClusterState()
    history = [submission(SetEndpoint(EndpointKey(WEB, "a"), UP))]
    fold_all(one, *history)
    fold_all(other, *history)
    asked(one)
    assert one == other
    assert repr(one) == repr(other)


def test_asking_of_what_is_not_there_leaves_nothing_behind() -> None:
    """Anybody may have an apply tried of as many services as they like."""
    state = ClusterState()
    assert state.endpoints_from(WEB, "slice-1") == {}
    assert state.sources == {}
    fold_all(state, submission(SetEndpoint(EndpointKey(WEB, "a"), UP)))
    assert state.endpoints_from(WEB, "slice-1") == {}
    assert list(state.sources[WEB]) == [""]
    # Nor does a source that gives nothing any more.
    fold_all(state, submission(SetEndpoint(EndpointKey(WEB, "a"), replace(UP, source="s"))))
    assert state.sources[WEB] == {"s": {"a"}}


def test_replacing_what_one_source_gave_looks_through_nobody_elses() -> None:
    """Filling a service portion by portion would otherwise cost the square of its endpoints."""
    state = ClusterState()
    fold_all(
        state,
        submission(
            SetService(WEB, Service()),
            *(SetEndpoint(EndpointKey(WEB, f"e{n}"), replace(UP, source="s")) for n in range(9)),
        ),
    )
    watched = Watched(state.endpoints[WEB])
    state.endpoints[WEB] = watched
    for number in range(3):
        command = ReplaceEndpoints(WEB, f"slice-{number}", {"a": UP, "b": OTHER})
        draft = Draft(OfState(state))
        for one in owned((command,), ("",), Owner("blue"), state):
            assert seen(draft, one) is None
            assert len(decide(draft, submission(one), 0).events) == 2
            assert list(seen(draft, one) or {}) == ["endpoints.a", "endpoints.b"]
    assert watched.passes == 1
