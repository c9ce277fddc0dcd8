"""Peers that lie or flood: each is stopped or slowed by itself, and nobody else notices."""

from __future__ import annotations

import asyncio

import pytest

from meshd.edges.memory import MemoryKv
from meshd.model.cluster import ClusterInfo
from meshd.model.codec import decode_head, encode_head, encode_record
from meshd.model.command import AllocateIdentity, SetCluster, SetNode
from meshd.model.event import Event
from meshd.model.identity import identity_number
from meshd.model.ids import ClusterName
from meshd.model.keyspace import Keyspace
from meshd.model.node import Node
from meshd.model.peer import Phase
from meshd.model.replica import Resync
from meshd.runtime.ports import Put, Txn
from tests.mesh import Mesh, Running, endpoint, service

pytestmark = pytest.mark.looptime

QUICK = ("replication.slow_retry_s=2",)


def reason(east: Running, peer: str) -> str:
    condition = east.parts.node.peers.condition(ClusterName(peer))
    return condition.reason if condition else ""


def said_id(east: Running, peer: str) -> int | None:
    state = east.parts.node.projector.state(ClusterName(peer))
    return state.info.value.id if state and state.info else None


async def test_a_peer_that_announces_this_machine_is_stopped_there() -> None:
    mesh = Mesh(names=("east", "west", "south"), overrides=QUICK)
    async with (
        mesh.running("east") as east,
        mesh.running("west") as west,
        mesh.running("south") as south,
    ):
        for one in (east, west, south):
            await one.submit(service())
        await west.submit(endpoint("shop/web/good", "10.0.0.1"))
        await east.until_count("shop/web", 1)
        outcome = await west.submit(endpoint("shop/web/bad", "127.0.0.1"))
        await east.until(lambda: east.phase("west") is Phase.QUARANTINED)
        assert f"west seq {outcome.first_seq}: endpoint shop/web/bad has address 127.0.0.1" in (
            reason(east, "west")
        )
        await south.submit(endpoint("shop/web/x", "10.3.0.1"))
        await east.until_count("shop/web", 2)
        # It stays where it was, and what came before stays served.
        await asyncio.sleep(60)
        assert east.phase("west") is Phase.QUARANTINED
        assert ("west", "good") in [one[:2] for one in east.eligible("shop/web")]
        assert east.phase("south") is Phase.READY


@pytest.mark.parametrize(
    ("announces", "bad", "says"),
    [
        ("", SetNode("n1", Node(addresses=("127.0.0.1",))), "node n1 has address 127.0.0.1"),
        (
            ", announces: [10.0.0.0/16]",
            SetNode("n1", Node(addresses=("10.0.0.1",), pod_cidrs=("10.2.0.0/24",))),
            "node n1 has address 10.2.0.0/24, which this peer may not announce",
        ),
    ],
)
async def test_a_peer_whose_nodes_are_where_they_may_not_be_is_stopped_there(
    announces: str, bad: SetNode, says: str
) -> None:
    mesh = Mesh(names=("east", "west"), overrides=QUICK)
    mesh.peer_fields = announces
    async with mesh.running("east") as east, mesh.running("west") as west:
        await west.submit(SetNode("n0", Node(addresses=("10.0.0.1",))))
        await east.until_ready("west")
        await west.submit(bad)
        await east.until(lambda: east.phase("west") is Phase.QUARANTINED)
        assert says in reason(east, "west")
        known = east.parts.node.projector.state(ClusterName("west"))
        assert known is not None
        assert list(known.nodes) == ["n0"]


async def steal_number(mesh: Mesh) -> str:
    """Have west's log give out a number of east: only a log that no meshd wrote says so, so it is
    written past `decide`. Returns what is to be said of it.
    """
    kv, keys = MemoryKv(mesh.etcds["west"]), Keyspace().export()
    head = decode_head((await kv.range(keys.head)).kvs[0].value, "head")
    number = str(identity_number(1, 256))
    stolen = Event("identity.set", number, {"labels": {"app": "web"}}, "eve")
    record = encode_record(head, 0, [stolen])
    puts = (Put(keys.record(record.last_seq), record.raw), Put(keys.head, encode_head(record.head)))
    await kv.commit(Txn(success=puts))
    return f"identity {number} has a number of cluster id 1, which is not this cluster's"


async def test_a_peer_that_gives_out_anothers_numbers_is_stopped_there() -> None:
    mesh = Mesh(names=("east", "west"), overrides=QUICK)
    async with mesh.running("west") as west:
        await west.submit(AllocateIdentity({"app": "web"}))
    async with mesh.running("east") as east:
        await east.until(lambda: said_id(east, "west") == 2)
        says = await steal_number(mesh)
        await east.until(lambda: east.phase("west") is Phase.QUARANTINED)
        assert says in reason(east, "west")
        known = east.parts.node.projector.state(ClusterName("west"))
        assert known is not None
        assert list(known.identities) == [identity_number(2, 256)]


async def test_a_peer_that_is_read_anew_is_stopped_by_anothers_numbers_too() -> None:
    mesh = Mesh(names=("east", "west"), overrides=QUICK)
    async with mesh.running("west"):
        pass
    says = await steal_number(mesh)
    async with mesh.running("east") as east:
        await east.until(lambda: east.phase("west") is Phase.QUARANTINED)
        assert says in reason(east, "west")


async def test_a_copy_that_says_what_may_not_be_said_any_more_is_not_served() -> None:
    """The settings were narrowed: the peer is read anew and stopped where it says it."""
    mesh = Mesh(names=("east", "west"), overrides=QUICK)
    async with mesh.running("west") as west:
        await west.submit(service(), endpoint("shop/web/a", "10.0.0.1"))
        async with mesh.running("east") as east:
            await east.submit(service())
            await east.until_count("shop/web", 1)
            store = next(iter(east.parts.node.peers)).store
            await east.until(lambda: store.durable_seq == 3)
        mesh.peer_fields = ", announces: [10.9.0.0/16]"
        async with mesh.running("east") as east:
            assert east.eligible("shop/web") == []
            await east.until(lambda: east.phase("west") is Phase.QUARANTINED)
            assert "10.0.0.1" in reason(east, "west")
        mesh.peer_fields = ", announces: [10.0.0.0/8]"
        async with mesh.running("east") as east:
            await east.until_count("shop/web", 1)
            await east.until_ready("west")


async def test_a_peer_that_is_too_large_is_stopped_there() -> None:
    mesh = Mesh(names=("east", "west"), overrides=(*QUICK, "replication.budget.endpoints_max=3"))
    async with mesh.running("east") as east, mesh.running("west") as west:
        await east.submit(service())
        await west.submit(service())
        await east.until_ready("west")
        for number in range(5):
            await west.submit(endpoint(f"shop/web/e{number}"))
        await east.until(lambda: east.phase("west") is Phase.QUARANTINED)
        assert "more than 3 endpoints" in reason(east, "west")
        assert len(east.eligible("shop/web")) == 3
        # What is its own has no ceiling here.
        assert len(west.eligible("shop/web")) == 5


async def test_a_peer_that_floods_is_slowed_and_loses_nothing() -> None:
    slow = ("replication.budget.events_per_s=5", "replication.budget.burst_s=1")
    mesh = Mesh(names=("east", "west", "south"), overrides=slow)
    async with (
        mesh.running("east") as east,
        mesh.running("west") as west,
        mesh.running("south") as south,
    ):
        for one in (east, west, south):
            await one.submit(service())
        await east.until_ready("west", "south")
        for number in range(100):
            await west.submit(endpoint(f"shop/web/e{number}"))
        await south.submit(endpoint("shop/web/x"))
        await east.until(lambda: ("south", "x", 16) in east.eligible("shop/web"), timeout_s=5)
        assert len(east.eligible("shop/web")) < 100
        await east.until_count("shop/web", 101)
        slowed = east.parts.node.peers.condition(ClusterName("west"))
        other = east.parts.node.peers.condition(ClusterName("south"))
        assert slowed is not None
        assert other is not None
        assert slowed.slowed_s > 10
        assert slowed.traffic.records_duplicate == 0
        assert other.slowed_s < 1
        await east.until_ready("west")


async def test_a_newcomer_with_an_id_that_is_taken_is_refused_and_the_first_one_stays() -> None:
    mesh = Mesh(names=("east", "west", "south"), overrides=QUICK)
    async with mesh.running("east") as east, mesh.running("west") as west:
        await east.submit(service())
        await west.submit(service(), endpoint("shop/web/a"))
        await east.until_ready("west")
        # South says that it has west's id.
        mesh.ids["south"] = 2
        async with mesh.running("south") as south:
            await south.submit(SetCluster(ClusterInfo(name="south", id=2)), service())
            await east.until(lambda: east.phase("south") is Phase.REFUSED)
            assert "cluster id 2 is already another cluster's" in reason(east, "south")
            assert east.phase("west") is Phase.READY
            await west.submit(endpoint("shop/web/b"))
            await east.until_count("shop/web", 2)


async def test_a_peer_that_claims_anothers_id_in_its_log_is_stopped_and_not_the_other() -> None:
    """Ring 1, seed 74: whose id was claimed was refused at its next link."""
    mesh = Mesh(names=("east", "west", "south"), overrides=QUICK)
    async with (
        mesh.running("east") as east,
        mesh.running("west") as west,
        mesh.running("south") as south,
    ):
        for one in (east, west, south):
            await one.submit(service())
        await east.until(lambda: east.phase("west") is Phase.READY is east.phase("south"))
        await west.submit(SetCluster(ClusterInfo(name="west", id=3)))
        await east.until(lambda: east.phase("west") is Phase.QUARANTINED)
        assert "cluster id 3 is already another cluster's" in reason(east, "west")
        east.parts.node.peers.control(ClusterName("south"), Resync(), "ann")
        await south.submit(endpoint("shop/web/x", "10.3.0.1"))
        await east.until_count("shop/web", 1)
        await east.until(lambda: east.phase("south") is Phase.READY)


async def test_two_peers_that_exchanged_their_ids_do_not_keep_each_other_out_for_ever() -> None:
    """Ring 1, seed 3698: each was refused for what the other had said, and neither was read on."""
    mesh = Mesh(names=("east", "west", "south"), overrides=QUICK)
    async with (
        mesh.running("east") as east,
        mesh.running("west") as west,
        mesh.running("south") as south,
    ):
        await east.submit(service())
        # Each gives its own id up before the other one claims it.
        for one, name, number in ((west, "west", 9), (south, "south", 2), (west, "west", 3)):
            await say_id(one, name, number, east)
        for name in ("west", "south"):
            east.parts.node.peers.control(ClusterName(name), Resync(), "ann")
        await east.until(lambda: east.phase("west") is Phase.REFUSED)
        for one, name, number in ((south, "south", 3), (west, "west", 2)):
            await say_id(one, name, number, east)
        await east.until(lambda: east.phase("west") is Phase.READY is east.phase("south"))


async def test_an_id_that_changed_hands_long_ago_stops_nobody_who_is_read_anew() -> None:
    mesh = Mesh(names=("east", "west", "south"), overrides=QUICK)
    async with (
        mesh.running("east") as east,
        mesh.running("west") as west,
        mesh.running("south") as south,
    ):
        await east.submit(service())
        for one, name, number in ((west, "west", 9), (south, "south", 2)):
            await say_id(one, name, number, east)
        # Its log says that it had 2 once, and doesn't have it any more.
        assert said_id(east, "west") == 9
        await south.submit(SetCluster(ClusterInfo(name="south", id=3)))
        await west.submit(SetCluster(ClusterInfo(name="west", id=3)))
        await east.until(lambda: east.phase("west") is Phase.QUARANTINED)
        await west.submit(SetCluster(ClusterInfo(name="west", id=2)))
        east.parts.node.peers.control(ClusterName("west"), Resync(), "ann")
        await east.until(lambda: east.phase("west") is Phase.READY)


async def test_a_peer_whose_snapshot_claims_anothers_id_is_read_on_behind_it() -> None:
    """Ring 1, seed 10478. What was loaded is kept, and its replica is whole."""
    summed_up = ("retention.check_every_s=1", "retention.snapshot_every_events=5")
    mesh = Mesh(names=("east", "west", "south"), overrides=(*QUICK, *summed_up))
    async with mesh.running("west") as west, mesh.running("south") as south:
        await south.submit(service())
        await west.submit(SetCluster(ClusterInfo(name="west", id=3)), service())
        for number in range(10):
            await west.submit(endpoint("shop/web/a", "10.2.0.1", weight=1 + number))
        await asyncio.sleep(5)
        async with mesh.running("east") as east:
            await east.submit(service())
            await east.until(lambda: east.phase("south") is Phase.READY)
            await east.until(lambda: Phase.QUARANTINED is east.phase("west"))
            assert "cluster id 3 is already another cluster's" in reason(east, "west")
            await west.submit(SetCluster(ClusterInfo(name="west", id=2)))
            await east.until(lambda: east.phase("west") is Phase.READY)
            condition = east.parts.node.peers.condition(ClusterName("west"))
            assert condition is not None
            assert condition.traffic.records_read <= 2
            await asyncio.sleep(5)
    async with mesh.running("east") as east:
        await east.until_count("shop/web", 1)


async def say_id(one: Running, name: str, number: int, reader: Running) -> None:
    """Say an id, and wait until it was read."""
    await one.submit(SetCluster(ClusterInfo(name=name, id=number)))
    await reader.until(lambda: said_id(reader, name) == number)


async def test_keys_beside_the_log_are_nobodys() -> None:
    mesh = Mesh(names=("east", "west"), overrides=QUICK)
    async with mesh.running("east") as east, mesh.running("west") as west:
        await east.submit(service())
        await west.submit(service())
        await east.until_ready("west")
        root = Keyspace().export().root
        for number in range(200):
            put = Put(root + f"rubbish/{number}".encode(), b"x" * 1000)
            await MemoryKv(mesh.etcds["west"]).commit(Txn(success=(put,)))
        await west.submit(endpoint("shop/web/a"))
        await east.until_count("shop/web", 1)
        assert east.phase("west") is Phase.READY
