"""Measured distance: what tells apart clusters that are alike otherwise."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from meshd.edges.memory import MemoryEtcd, MemoryKv
from meshd.edges.system import SystemClock
from meshd.model.replica import Pause
from meshd.runtime.distance import READS_KEPT, READS_MIN, RoundTrips
from tests.mesh import Mesh, Running, endpoint, service

pytestmark = pytest.mark.looptime

FAR_S = 0.05


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


class Busy(SystemClock):
    """The clock of an event loop that comes by every so many seconds."""

    turn_s = 0.0
    _now_s = 0.0

    def monotonic_s(self) -> float:
        self._now_s += self.turn_s
        return self._now_s


@pytest.mark.parametrize(("turn_s", "counted"), [(0.05, 0), (0.001, 1)])
async def test_who_is_busy_itself_takes_nobody_for_farther_away(
    turn_s: float, counted: int
) -> None:
    clock = Busy()
    clock.turn_s = turn_s
    trips = RoundTrips(MemoryKv(MemoryEtcd(SystemClock())), b"key", clock, lambda: False)
    await trips._measure()
    assert len(trips._times_s) == counted


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


async def test_who_is_followed_otherwise_stays_where_it_was_unless_it_is_somewhere_else() -> None:
    mesh = Mesh(("east", "west"))
    mesh.etcds["elsewhere"] = mesh.etcds["west"]
    async with mesh.running("east") as east, mesh.running("west") as west:
        await west.submit(service(), endpoint("shop/web/a"))
        await east.submit(service())
        east.links["west"].latency_s = FAR_S
        await east.until(lambda: priorities(east) == {"west": 17})
        former, (listed,) = trips_of(east), mesh.settings("east").peers
        east.parts.node.peers.relist((replace(listed, username="another"),))
        await east.until(lambda: trips_of(east) is not former)
        east.links["west"].latency_s = FAR_S
        for _ in range(30):
            # At every moment: what moves traffic is a distance that is measured.
            assert priorities(east) == {"west": 17}
            await asyncio.sleep(1)
        former, moved = trips_of(east), replace(listed.endpoints[0], host="elsewhere")
        east.parts.node.peers.relist((replace(listed, endpoints=(moved,)),))
        await east.until(lambda: trips_of(east) is not former)
        assert trips_of(east).quickest_s is None
        await east.until(lambda: priorities(east) == {"west": 16})


def priorities(running: Running) -> dict[str, int]:
    return {cluster: priority for cluster, _, priority in running.eligible("shop/web")}


def trips_of(running: Running) -> RoundTrips:
    (peer,) = running.parts.node.peers
    return peer.round_trips
