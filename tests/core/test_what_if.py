"""What events would do: the same as if they were folded, seen from everywhere, and nothing done."""

from copy import deepcopy
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.core.derive import derive
from meshd.core.excerpt import excerpt, excerpts
from meshd.core.fold import fold_event
from meshd.core.liveness import ALL_IN_SIGHT, Sight
from meshd.core.state import ClusterState
from meshd.core.table_diff import diff_tables
from meshd.core.what_if import (
    PIECE_ENDPOINTS,
    Mesh,
    effects_on,
    folded,
    pieces,
    touched,
)
from meshd.model.event import Event, EventType
from meshd.model.ids import ClusterName, LogId, Seq, ServiceKey
from tests.core.model_mesh import LOCAL, RULES, WEB, Cluster, down, states_of, up
from tests.core.test_tables import CLUSTERS, Fold, at_work, event, folds

CART, CARD = ServiceKey("shop", "cart"), ServiceKey("shop", "card")
LOG_IDS = dict.fromkeys(CLUSTERS, LogId("a" * 32))
States = dict[ClusterName, ClusterState]


def fold_all(state: ClusterState, events: tuple[Event, ...], cluster: ClusterName) -> None:
    for one in events:
        fold_event(state, one, Seq(state.seq + 1), 7, cluster)


@st.composite
def meshes(draw: st.DrawFn) -> States:
    """Three clusters at work, and what they did then."""
    states = {name: ClusterState() for name in CLUSTERS}
    for name, state in states.items():
        fold_all(state, at_work, name)
    for step in draw(st.lists(folds, max_size=6)):
        fold_all(states[step.cluster], step.events, step.cluster)
    return states


@settings(deadline=None)
@given(meshes(), folds)
def test_the_effect_is_that_of_folding_in_every_perspective(states: States, step: Fold) -> None:
    served = deepcopy(states)
    own, events = states[step.cluster], step.events
    keys = touched(events, own)
    copies = excerpts(states, keys)
    after = folded(copies[step.cluster], events, step.cluster, 7)
    meshes_seen = Mesh(copies, LOG_IDS), Mesh({**copies, step.cluster: after}, LOG_IDS)
    assert states == served, "what is served was written to"
    fold_all(served[step.cluster], events, step.cluster)
    for perspective in CLUSTERS:
        sights = {name: Sight(RULES, 40.0) for name in CLUSTERS if perspective == CLUSTERS[0]}
        found = effects_on(keys, perspective, *meshes_seen, sights)
        old = derive(perspective, states, LOG_IDS, sights)
        new = derive(perspective, served, LOG_IDS, sights)
        assert tuple(one.diff for one in found) == diff_tables(old, new)
        for one in found:
            key = one.diff.key
            counts = [len(side[key].eligible) if key in side else None for side in (old, new)]
            assert [one.eligible_before, one.eligible_after] == counts


@settings(deadline=None)
@given(meshes(), st.sampled_from([None, (), (CART,), (CARD, WEB)]))
def test_an_excerpt_is_equal_and_shares_nothing_that_is_written_to(
    states: States, keys: tuple[ServiceKey, ...] | None
) -> None:
    state = states[CLUSTERS[0]]
    before = deepcopy(state)
    copy = excerpt(state, keys)
    wanted = {*state.services, *state.endpoints} if keys is None else set(keys)
    assert copy.services == {key: it for key, it in state.services.items() if key in wanted}
    assert copy.endpoints == {key: it for key, it in state.endpoints.items() if key in wanted}
    assert (copy.seq, copy.time_ms, copy.info) == (state.seq, state.time_ms, state.info)
    fold_all(copy, at_work, CLUSTERS[0])
    fold_all(copy, (event(EventType.PEER_REMOVED, "b"),), CLUSTERS[0])
    for key in list(copy.services):
        fold_all(copy, (event(EventType.SERVICE_REMOVED, str(key)),), CLUSTERS[0])
    assert state == before


def test_an_excerpt_leaves_out_what_is_about_the_log() -> None:
    state = ClusterState()
    fold_event(state, Event("new.kind", "x", {}, "ann", "key-1"), Seq(1), 1, CLUSTERS[0])
    assert state.carried
    copy = excerpt(state)
    assert (copy.causes, copy.unknown, copy.carried, copy.seq) == ({}, {}, {}, 1)


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ((), set()),
        ((event(EventType.ENDPOINT_SET, "shop/new/a", {"address": "10.0.0.1"}),), {"shop/new"}),
        ((event(EventType.ENDPOINT_REMOVED, "shop/cart/x"),), {"shop/cart"}),
        ((event(EventType.SERVICE_SET, "shop/new", {}),), {"shop/new"}),
        ((event(EventType.SERVICE_REMOVED, "shop/cart"),), {"shop/cart"}),
        ((event(EventType.PEER_SET, "b", {}), event(EventType.PEER_REMOVED, "b")), set()),
        ((event(EventType.SKIP_SET, "b", {}), event(EventType.SKIP_REMOVED, "b")), set()),
        # What a cluster says of itself, or anything unknown, may reach all of its services.
        ((event(EventType.CLUSTER_SET, "a", {}),), {"shop/cart", "shop/card"}),
        ((Event("new.kind", "x", {}, "ann"),), {"shop/cart", "shop/card"}),
    ],
)
def test_which_services_can_change(events: tuple[Event, ...], expected: set[str]) -> None:
    state = ClusterState()
    fold_all(state, at_work, CLUSTERS[0])
    assert {str(key) for key in touched(events, state)} == expected


NOT_READY = event(
    EventType.ENDPOINT_SET, "shop/web/east-1", {"address": "10.0.0.1", "ready": False}
)
GONE = event(EventType.SERVICE_REMOVED, "shop/web")


@pytest.mark.parametrize(
    ("mesh", "events", "emptied"),
    [
        # The last one that is in goes out.
        ({"east": Cluster(LOCAL, up(1))}, (NOT_READY,), {"east": [(1, 0)]}),
        # Others are left, as both see it.
        ({"east": Cluster(LOCAL, up(1)), "west": Cluster(endpoints=up(1))}, (NOT_READY,), {}),
        # In the other one's table it was the only one.
        (
            {"east": Cluster(LOCAL, up(1)), "west": Cluster(endpoints=down(1))},
            (GONE,),
            {"west": [(1, 0)]},
        ),
        # What is removed is no longer served at all: it isn't left empty.
        ({"east": Cluster(LOCAL, up(1))}, (GONE,), {}),
        # It was empty before, but this changes it.
        (
            {"east": Cluster(LOCAL, down(2))},
            (event(EventType.ENDPOINT_REMOVED, "shop/web/east-1"),),
            {"east": [(0, 0)]},
        ),
        # A new one without endpoints.
        (
            {"east": Cluster(None)},
            (event(EventType.SERVICE_SET, "shop/web", {"global": True}),),
            {"east": [(None, 0)]},
        ),
        # West isn't told of what is not shared.
        (
            {"east": Cluster(replace(LOCAL, is_shared=False), up(1)), "west": Cluster()},
            (NOT_READY,),
            {"east": [(1, 0)]},
        ),
    ],
)
def test_services_that_would_be_empty(
    mesh: dict[str, Cluster],
    events: tuple[Event, ...],
    emptied: dict[str, list[tuple[int | None, int]]],
) -> None:
    east = ClusterName("east")
    states = states_of(mesh)
    log_ids = dict.fromkeys(states, LogId("a" * 32))
    after = folded(states[east], events, east, 7)
    found = {
        str(name): [
            (one.eligible_before, one.eligible_after)
            for one in effects_on(
                {WEB},
                name,
                Mesh(states, log_ids),
                Mesh({**states, east: after}, log_ids),
                ALL_IN_SIGHT,
            )
            if one.is_emptied
        ]
        for name in states
    }
    assert {name: them for name, them in found.items() if them} == emptied


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 1200)), max_size=12))
def test_pieces_are_all_services_in_order_and_none_is_large(sizes: list[tuple[str, int]]) -> None:
    counts = {ServiceKey("shop", name): count for name, count in sizes}
    state, other = ClusterState(), ClusterState()
    held = next(iter(Cluster(endpoints=up(1)).state(CLUSTERS[0], 1).endpoints[WEB].values()))
    for key, count in counts.items():
        state.endpoints[key] = {str(number): held for number in range(count)}
        other.endpoints[key] = {"one": held}
    found = list(pieces(counts, Mesh({CLUSTERS[0]: state, CLUSTERS[1]: other}, LOG_IDS)))
    assert [key for piece in found for key in piece] == sorted(counts)
    for piece in found:
        assert piece
        assert sum(counts[key] + 1 for key in piece[:-1]) < PIECE_ENDPOINTS
    for piece in found[:-1]:
        assert sum(counts[key] + 1 for key in piece) >= PIECE_ENDPOINTS


def test_what_is_not_named_is_counted() -> None:
    mesh = {"east": Cluster(LOCAL, up(3))}
    east = ClusterName("east")
    states, log_ids = states_of(mesh), {east: LogId("a" * 32)}
    after = Mesh({east: ClusterState()}, log_ids)
    (found,) = effects_on({WEB}, east, Mesh(states, log_ids), after, ALL_IN_SIGHT)
    assert (len(found.diff.backends), found.omitted) == (3, 0)
    cut = found.shortened(2)
    assert (cut.diff.backends, cut.omitted) == (found.diff.backends[:2], 1)
    assert (cut.shortened(0).diff.backends, cut.shortened(0).omitted) == ((), 3)
    assert found.shortened(3) == found
