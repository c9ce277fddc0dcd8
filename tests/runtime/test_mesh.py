"""Three clusters in one thread: record, replicate, derive; peers that are down, come and go."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from meshd.model.command import RemoveEndpoint
from meshd.model.ids import ClusterName, EndpointKey
from meshd.model.peer import Phase
from meshd.model.replica import Pause, Resume, Resync
from meshd.model.table import Standing
from tests.mesh import Mesh, Running, endpoint, service

pytestmark = pytest.mark.looptime

EAST, WEST, SOUTH = "east", "west", "south"


async def test_a_command_in_one_cluster_reaches_the_tables_of_the_others() -> None:
    mesh = Mesh()
    async with AsyncExitStack() as stack:
        east, west, south = [await stack.enter_async_context(mesh.running(n)) for n in mesh.names]
        for cluster, address in ((east, "10.1.0.1"), (west, "10.2.0.1"), (south, "10.3.0.1")):
            await cluster.submit(service(), endpoint("shop/web/a", address))
        expected = {
            EAST: [(EAST, "a", 0), (SOUTH, "a", 16), (WEST, "a", 16)],
            WEST: [(WEST, "a", 0), (EAST, "a", 16), (SOUTH, "a", 16)],
            SOUTH: [(SOUTH, "a", 0), (EAST, "a", 16), (WEST, "a", 16)],
        }
        for cluster in (east, west, south):
            await cluster.until_eligible("shop/web", expected[cluster.name])
            await cluster.until_ready(*(name for name in mesh.names if name != cluster.name))
        vectors = [cluster.parts.node.projector.vector() for cluster in (east, west, south)]
        assert vectors[0] == vectors[1] == vectors[2]

        await east.submit(RemoveEndpoint(EndpointKey.parse("shop/web/a")))
        await west.until(lambda: (EAST, "a", 16) not in west.eligible("shop/web"))


async def test_the_same_vector_and_perspective_give_the_same_digest_everywhere() -> None:
    mesh = Mesh()
    async with AsyncExitStack() as stack:
        clusters = [await stack.enter_async_context(mesh.running(n)) for n in mesh.names]
        for number, cluster in enumerate(clusters):
            await cluster.submit(
                service("shop/web"), endpoint("shop/web/a", f"10.{number}.0.1", weight=number + 1)
            )
            await cluster.submit(
                service("shop/secret", is_shared=False), endpoint("shop/secret/a", "10.9.9.9")
            )
        for cluster in clusters:
            await cluster.until_count("shop/web", 3)
        for perspective in mesh.names:
            digests = {c.parts.node.projector.digest_as(ClusterName(perspective)) for c in clusters}
            assert len(digests) == 1
        own = clusters[0].parts.node.projector
        assert own.digest_as(ClusterName(EAST)) == own.tables.digest


async def test_what_is_not_shared_leaves_no_trace_in_the_export_log() -> None:
    mesh = Mesh(names=(EAST, WEST))
    async with mesh.running(EAST) as east, mesh.running(WEST) as west:
        await west.until_ready(EAST)
        before = west.parts.node.projector.head(ClusterName(EAST))
        await east.submit(service("shop/secret", is_global=False), endpoint("shop/secret/a"))
        await east.submit(service("shop/web"), endpoint("shop/web/a"))
        state = west.parts.node.projector.state(ClusterName(EAST))
        assert state is not None
        assert before is not None
        await west.until(lambda: state.seq == before.seq + 2)
        assert [str(key) for key in state.services] == ["shop/web"]
        # Shared later, it comes with the endpoints that it already had.
        await east.submit(service("shop/secret"))
        await west.until(lambda: len(state.endpoints) == 2)
        # And taken back, it goes with them.
        await east.submit(service("shop/secret", is_global=False))
        await west.until(lambda: len(state.services) == 1)
        assert len(state.endpoints) == 1


async def test_a_large_service_is_shared_at_once_in_several_records() -> None:
    mesh = Mesh(names=(EAST, WEST))
    async with mesh.running(EAST) as east, mesh.running(WEST) as west:
        await east.submit(service(is_global=False))
        for first in range(0, 5000, 1000):
            numbers = range(first, first + 1000)
            await east.submit(*(endpoint(f"shop/web/e{number}") for number in numbers))
        await west.submit(service())
        await east.submit(service())
        await west.until_count("shop/web", 5000)
        ours, theirs = east.parts.node.projector, west.parts.node.projector
        await east.until(lambda: ours.vector() == theirs.vector())
        assert theirs.digest_as(ClusterName(EAST)) == ours.tables.digest


async def test_a_peer_that_is_down_at_the_start_delays_nobody() -> None:
    mesh = Mesh(names=(EAST, WEST))
    mesh.etcds[WEST].set_up(up=False)
    async with mesh.running(EAST) as east:
        await east.submit(service(), endpoint("shop/web/a"))
        assert east.eligible("shop/web") == [(EAST, "a", 0)]
        assert east.phase(WEST) is Phase.CONNECTING
        await east.until(lambda: east.phase(WEST) is Phase.STALE)
        await east.until(lambda: east.phase(WEST) is Phase.LOST, timeout_s=120)
        mesh.etcds[WEST].set_up(up=True)
        async with mesh.running(WEST) as west:
            await west.submit(service(), endpoint("shop/web/b"))
            await east.until_ready(WEST)
            assert (WEST, "b", 16) in east.eligible("shop/web")


async def test_a_peer_that_comes_and_goes_is_never_read_twice() -> None:
    mesh = Mesh(names=(EAST, WEST))
    async with mesh.running(EAST) as east, mesh.running(WEST) as west:
        await west.submit(service(), endpoint("shop/web/a"))
        await east.until_ready(WEST)
        for round_number in range(5):
            east.links[WEST].set_linked(linked=False)
            await east.until(lambda: east.phase(WEST) is Phase.CONNECTING)
            await west.submit(endpoint("shop/web/a", f"10.0.1.{round_number + 1}"))
            east.links[WEST].set_linked(linked=True)
            await east.until_ready(WEST)
        condition = east.parts.node.peers.condition(ClusterName(WEST))
        assert condition is not None
        assert condition.head is not None
        assert condition.traffic.records_duplicate == 0
        assert condition.traffic.forks == 0
        assert condition.traffic.records_read == 7  # cluster.set, the first submission, five more
        await east.until(lambda: _copied(east, WEST))


async def test_a_dead_peer_is_demoted_after_a_while_and_never_forgotten() -> None:
    mesh = Mesh(names=(EAST, WEST))
    async with mesh.running(EAST) as east:
        async with mesh.running(WEST) as west:
            await west.submit(service(), endpoint("shop/web/a"))
            await east.submit(service(affinity="none"), endpoint("shop/web/b"))
            await east.until_ready(WEST)
            assert east.eligible("shop/web") == [(EAST, "b", 0), (WEST, "a", 0)]
        # Its etcd lives on, its heartbeat doesn't.
        await east.until(lambda: east.phase(WEST) is Phase.STALE)
        assert east.eligible("shop/web") == [(EAST, "b", 0), (WEST, "a", 0)]
        projector = east.parts.node.projector
        await east.until(lambda: projector.standing(ClusterName(WEST)) is Standing.DEMOTED)
        names = [(cluster, name) for cluster, name, _ in east.eligible("shop/web")]
        assert names == [(EAST, "b"), (WEST, "a")]
        assert east.eligible("shop/web")[1][2] > 0
        async with mesh.running(WEST):
            await east.until_ready(WEST)
            await east.until(lambda: projector.standing(ClusterName(WEST)) is Standing.FRESH)
            assert east.eligible("shop/web") == [(EAST, "b", 0), (WEST, "a", 0)]


async def test_the_tables_come_back_with_every_peer_dead() -> None:
    mesh = Mesh()
    async with AsyncExitStack() as stack:
        east, west, south = [await stack.enter_async_context(mesh.running(n)) for n in mesh.names]
        for cluster in (east, west, south):
            await cluster.submit(service(), endpoint("shop/web/a"))
        await east.until(lambda: len(east.eligible("shop/web")) == 3)
        before = east.eligible("shop/web")
        peers = east.parts.node.peers
        await east.until(
            lambda: all(c.head and c.replica_seq == c.head.seq for c in peers.conditions())
        )
    mesh.etcds[WEST].set_up(up=False)
    mesh.etcds[SOUTH].set_up(up=False)
    async with mesh.running(EAST) as east:
        assert east.eligible("shop/web") == before
        assert east.phase(WEST) is Phase.CONNECTING
        reads = east.parts.node.peers.conditions()
        assert all(condition.traffic.records_read == 0 for condition in reads)


@pytest.mark.parametrize("grown", [False, True])
async def test_a_wiped_peer_is_taken_anew_and_its_old_services_are_withdrawn(
    *, grown: bool
) -> None:
    mesh = Mesh(names=(EAST, WEST))
    async with mesh.running(EAST) as east:
        await east.submit(service("shop/old"), service("shop/new"))
        async with mesh.running(WEST) as west:
            await west.submit(service("shop/old"), endpoint("shop/old/a"))
            await east.until(lambda: (WEST, "a", 16) in east.eligible("shop/old"))
        mesh.etcds[WEST].wipe()
        east.links[WEST].set_linked(linked=False)
        async with mesh.running(WEST) as west:
            for number in range(20 if grown else 1):
                await west.submit(service("shop/new"), endpoint("shop/new/b", weight=number + 1))
            east.links[WEST].set_linked(linked=True)
            await east.until(lambda: east.eligible("shop/new") == [(WEST, "b", 16)])
            await east.until_ready(WEST)
            assert east.eligible("shop/old") == []
            condition = east.parts.node.peers.condition(ClusterName(WEST))
            assert condition is not None
            assert condition.traffic.forks == 1
            await east.until(lambda: _copied(east, WEST))


def _copied(cluster: Running, peer: str) -> bool:
    condition = cluster.parts.node.peers.condition(ClusterName(peer))
    assert condition is not None
    return condition.head is not None and condition.replica_seq == condition.head.seq


async def test_another_cluster_behind_the_address_is_refused() -> None:
    mesh = Mesh()
    async with mesh.running(SOUTH), mesh.running(WEST) as west:
        await west.submit(service(), endpoint("shop/web/a"))
        mesh.etcds[SOUTH], mesh.etcds[WEST] = mesh.etcds[WEST], mesh.etcds[SOUTH]
        async with mesh.running(EAST) as east:
            await east.submit(service(), endpoint("shop/web/b"))
            await east.until(lambda: east.phase(WEST) is Phase.REFUSED)
            await east.until(lambda: east.phase(SOUTH) is Phase.REFUSED)
            condition = east.parts.node.peers.condition(ClusterName(WEST))
            assert condition is not None
            assert "south, not west" in condition.reason
            assert east.eligible("shop/web") == [(EAST, "b", 0)]


async def test_a_paused_peer_is_left_alone_and_its_backends_stay() -> None:
    mesh = Mesh(names=(EAST, WEST))
    async with mesh.running(EAST) as east, mesh.running(WEST) as west:
        await east.submit(service())
        await west.submit(service(), endpoint("shop/web/a"))
        await east.until_ready(WEST)
        assert east.parts.node.peers.control(ClusterName(WEST), Pause(), "test")
        await east.until(lambda: east.phase(WEST) is Phase.PAUSED)
        await west.submit(endpoint("shop/web/b", "10.0.0.2"))
        await east.until_eligible("shop/web", [(WEST, "a", 16)])
        assert east.parts.node.peers.control(ClusterName(WEST), Resume(), "test")
        await east.until_ready(WEST)
        await east.until_eligible("shop/web", [(WEST, "a", 16), (WEST, "b", 16)])
        condition = east.parts.node.peers.condition(ClusterName(WEST))
        assert condition is not None
        assert condition.traffic.records_duplicate == 0
        assert not east.parts.node.peers.control(ClusterName("north"), Pause(), "test")


async def test_a_resync_replaces_the_state_and_the_copy_and_withdraws_nothing_meanwhile() -> None:
    mesh = Mesh(names=(EAST, WEST))
    async with mesh.running(EAST) as east, mesh.running(WEST) as west:
        await east.submit(service())
        await west.submit(service(), endpoint("shop/web/a"))
        await east.until_ready(WEST)
        peers = east.parts.node.peers
        before = peers.condition(ClusterName(WEST))
        assert before is not None
        assert peers.control(ClusterName(WEST), Resync(), "test")
        read_twice = 2 * before.traffic.records_read

        def is_read_again() -> bool:
            assert east.eligible("shop/web") == [(WEST, "a", 16)]
            condition = peers.condition(ClusterName(WEST))
            return condition is not None and condition.traffic.records_read == read_twice

        await east.until(is_read_again)
        await east.until_ready(WEST)
        await east.until(lambda: _copied(east, WEST))
        after = peers.condition(ClusterName(WEST))
        assert after is not None
        assert after.traffic.forks == 0
