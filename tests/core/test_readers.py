"""Who reads which of our export logs, and what another cluster sees of the mesh."""

from __future__ import annotations

import pytest

from meshd.core.readers import Outlook, needed_seq, outlook_of, states_about, states_in, vector_of
from meshd.core.state import ClusterState, Held
from meshd.model.ids import ClusterName, Head, LogId, Position, Seq, ServiceKey, Vector
from meshd.model.service import Service

EAST, WEST, SOUTH, NORTH = (ClusterName(name) for name in ("east", "west", "south", "north"))
MESH, EU, LOCAL, W, S, S2, OLD = (LogId(digit * 32) for digit in "0123456")
EXPORTS = {"mesh": Head.genesis(MESH), "eu": Head.genesis(EU)}
LOG_IDS = {EAST: LOCAL, WEST: W, SOUTH: S}


def vector(**log_ids: LogId) -> Vector:
    return {
        ClusterName(name): Position(ClusterName(name), log_id, Seq(5))
        for name, log_id in log_ids.items()
    }


@pytest.mark.parametrize(
    ("text", "known"),
    [(None, None), ("nonsense", None), ("", {}), (f"east:{EU}:5", vector(east=EU))],
)
def test_a_heartbeats_vector(text: str | None, known: Vector | None) -> None:
    assert vector_of(text) == known


@pytest.mark.parametrize(
    ("vectors", "mesh", "eu"),
    [
        ([], None, None),
        # Who wasn't heard may read any of them, and so may one whose log we don't have.
        ([None], 0, 0),
        ([vector(east=OLD)], 0, 0),
        # Who reads one of them doesn't need the others; who reads none needs nothing.
        ([vector(east=MESH)], 5, None),
        ([vector(east=EU)], None, 5),
        ([vector(west=W)], None, None),
        ([vector(east=EU), vector(east=MESH), vector(west=W)], 5, 5),
        ([vector(east=EU), None], 0, 0),
    ],
)
def test_what_is_still_needed_of_each_log(
    vectors: list[Vector | None], mesh: int | None, eu: int | None
) -> None:
    assert needed_seq(vectors, EAST, MESH, EXPORTS) == mesh
    assert needed_seq(vectors, EAST, EU, EXPORTS) == eu


ALL = frozenset({EAST, WEST, SOUTH})


@pytest.mark.parametrize(
    ("heard", "sight"),
    [
        (vector(east=MESH, west=W, south=S), Outlook("mesh", ALL, ())),
        (vector(east=EU, west=W, south=S), Outlook("eu", ALL, ())),
        # Of a third cluster it reads another log than we do, or one that isn't read here at all.
        (vector(east=EU, west=W, south=S2), Outlook("eu", ALL, (SOUTH,))),
        (
            vector(east=MESH, west=W, north=S2),
            Outlook("mesh", frozenset({EAST, WEST, NORTH}), (NORTH,)),
        ),
        # It doesn't read the third, or not us.
        (vector(east=MESH, west=W), Outlook("mesh", frozenset({EAST, WEST}), ())),
        (vector(west=W, south=S), Outlook(None, frozenset({WEST, SOUTH}), ())),
        # What it reads of us is no log of ours: it is behind, or we are.
        (vector(east=OLD, west=W, south=S), Outlook("mesh", ALL, (EAST,))),
        # It wasn't heard: everything is a guess.
        (None, Outlook("mesh", ALL, (EAST, SOUTH))),
    ],
)
def test_what_another_cluster_sees(heard: Vector | None, sight: Outlook) -> None:
    assert outlook_of(WEST, heard, (EAST, EXPORTS), LOG_IDS) == sight


def test_the_states_of_a_sight_are_those_it_has() -> None:
    service = Held(Service(is_global=True), Seq(1), 0, "ann")
    states = {name: ClusterState(services={ServiceKey("a", name): service}) for name in ALL}

    def seen(audience: str | None, *clusters: ClusterName) -> dict[ClusterName, int]:
        sight = Outlook(audience, frozenset(clusters), ())
        return {name: len(state.services) for name, state in states_in(sight, EAST, states).items()}

    assert seen("mesh", *ALL) == {EAST: 1, WEST: 1, SOUTH: 1}
    assert seen("eu", EAST, WEST) == {EAST: 0, WEST: 1}
    assert seen(None, WEST, NORTH) == {WEST: 1}
    del states[EAST]
    assert seen("mesh", *ALL) == {WEST: 1, SOUTH: 1}


@pytest.mark.parametrize(
    ("service", "audience", "is_known", "unheard"),
    [
        (Service(is_global=True), "mesh", True, set()),
        (Service(is_global=True), "eu", False, {EAST}),
        # What we share with nobody is no secret to ourselves, who ask.
        (Service(is_global=True, is_shared=False), "mesh", True, set()),
        (Service(), "eu", True, set()),
        (Service(is_global=True), None, False, set()),
        (None, "mesh", False, set()),
    ],
)
def test_the_states_about_one_service(
    service: Service | None, audience: str | None, is_known: bool, unheard: set[ClusterName]
) -> None:
    key = ServiceKey("shop", "web")
    own = ClusterState()
    if service is not None:
        own.services[key] = Held(service, Seq(1), 0, "ann")
    outlook = Outlook(audience, ALL, ())
    states, found = states_about(outlook, EAST, {EAST: own, WEST: ClusterState()}, key)
    assert (states.get(EAST, ClusterState()).service(key) is not None) is is_known
    assert found == unheard
