"""Measured distance: what tells apart clusters that are alike otherwise."""

from __future__ import annotations

from dataclasses import replace

import pytest

from meshd.model.command import SetPeer
from meshd.model.ids import ClusterName
from meshd.model.listed import ListedPeer
from meshd.model.replica import Pause
from meshd.model.staleness import Staleness
from meshd.runtime.distance import READS_KEPT, READS_MIN, RoundTrips
from tests.mesh import Mesh, Running, endpoint, service

pytestmark = pytest.mark.looptime

FAR_S = 0.05
B = ClusterName("b")


async def test_of_two_that_are_alike_the_nearer_comes_first() -> None:
    mesh = Mesh(("east", "west", "south"))
    async with (
        mesh.running("east") as east,
        mesh.running("west") as west,
        mesh.running("south") as south,
    ):
        for running in (west, south):
            await running.submit(service(), endpoint("shop/web/a"))
        await east.submit(service())
        await east.until_count("shop/web", 2)
        assert priorities(east) == {"west": 16, "south": 16}
        east.links["south"].latency_s = FAR_S
        await east.until(lambda: priorities(east) == {"west": 16, "south": 17})
        view = east.parts.node.projector.tables
        assert view.digest == east.parts.node.projector.digest_as(east.name)


async def test_a_slow_moment_moves_nothing_and_a_new_place_does() -> None:
    mesh = Mesh(("east", "west"))
    async with mesh.running("east") as east, mesh.running("west") as west:
        await west.submit(service(), endpoint("shop/web/a"))
        await east.submit(service())
        await east.until(lambda: trips_of(east).quickest_s is not None)
        known = len(trips_of(east)._times_s)
        east.links["west"].latency_s = FAR_S
        await east.until(lambda: len(trips_of(east)._times_s) > known, timeout_s=200)
        assert trips_of(east).distance == 0
        await east.until(lambda: trips_of(east).distance == 1, timeout_s=60 * (READS_KEPT + 1))
        assert trips_of(east).quickest_s == pytest.approx(FAR_S)


async def test_who_is_away_is_not_measured_and_stays_where_it_was() -> None:
    mesh = Mesh(("east", "west"))
    async with mesh.running("east") as east:
        async with mesh.running("west"):
            await east.until(lambda: trips_of(east).quickest_s is not None)
        before = list(trips_of(east)._times_s)
        mesh.etcds["west"].set_up(up=False)
        clock = east.parts.node.clock
        await clock.sleep(200)
        assert list(trips_of(east)._times_s) == before
        assert len(before) >= READS_MIN


async def test_who_is_paused_is_left_alone() -> None:
    mesh = Mesh(("east", "west"))
    async with mesh.running("east") as east, mesh.running("west"):
        await east.until_ready("west")
        (peer,) = east.parts.node.peers
        east.parts.node.peers.control(peer.name, Pause(), "ann")
        await east.parts.node.clock.sleep(200)
        assert peer.round_trips.quickest_s is None


@pytest.mark.parametrize("is_elsewhere", [False, True])
async def test_a_peer_that_is_followed_otherwise_is_as_far_away_as_it_was(
    *, is_elsewhere: bool
) -> None:
    """Unless its etcd is another one now."""
    mesh = Mesh(("east", "west"))
    async with mesh.running("east") as east, mesh.running("west"):
        listed = ListedPeer(endpoints=("b:1",), staleness=Staleness(stale_after_s=7))
        other = replace(listed, endpoints=("b:2",)) if is_elsewhere else listed
        await east.submit(SetPeer(B, replace(listed, staleness=Staleness())))
        peers = east.parts.node.peers
        await east.until(lambda: B in peers.names() and peers.state(B) is not None)
        known = next(peer for peer in peers if peer.name == B)
        known.round_trips._times_s.extend([FAR_S] * READS_MIN)
        await east.submit(SetPeer(B, other))
        await east.until(lambda: not any(peer is known for peer in peers))
        found = next(peer for peer in peers if peer.name == B)
        assert found.round_trips.distance == (0 if is_elsewhere else 1)


def priorities(running: Running) -> dict[str, int]:
    return {cluster: priority for cluster, _, priority in running.eligible("shop/web")}


def trips_of(running: Running) -> RoundTrips:
    (peer,) = running.parts.node.peers
    return peer.round_trips
