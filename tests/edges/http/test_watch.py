"""Watching the mesh: all of it first, then what becomes otherwise, and numbers not too often."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson
import pytest

from meshd.edges.http.limits import Limits
from meshd.edges.http.watching import PEER, STATUS, Item, Seen, Watcher
from meshd.model.ids import ServiceKey
from tests.edges.http.served import Served, Stream, serve_cluster
from tests.mesh import Mesh, service

QUICK = ("replication.heartbeat_every_s=0.1",)
AGES = {"heartbeat_age_s", "unfresh_s", "round_trip_s", "records_read", "since"}
"""What may differ between two looks at a peer at which nothing happens."""


@asynccontextmanager
async def watching(east: Served, query: str = "", **headers: str) -> AsyncIterator[Stream]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with east.client.get(
        "/v1/watch" + query, headers=named, timeout=aiohttp.ClientTimeout(total=None)
    ) as response:
        assert response.status == 200, await response.read()
        yield Stream(response)


async def told(stream: Stream, kind: str, **fields: object) -> Any:
    """Read up to a message of a kind with these fields."""
    while True:
        found = await stream.event()
        assert found.id is None
        if found.event == kind and found.json.items() >= fields.items():
            return found.json


def settled(peer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in peer.items() if name not in AGES}


async def test_first_comes_all_of_it_as_status_and_peers_have_it() -> None:
    mesh = Mesh(("east", "west"), overrides=QUICK)
    async with serve_cluster("east", mesh=mesh) as east, mesh.running("west"):
        await east.meshd.until_ready("west")
        async with watching(east, Last_Event_ID="anything") as stream:
            found = await told(stream, "meshd.mesh")
        status = await east.get("/v1/status")
        assert found["status"] == {name: status[name] for name in found["status"]}
        assert {"ready", "leader", "digest", "vector_text"} <= found["status"].keys()
        (peer,) = (await east.get("/v1/peers"))["items"]
        assert [settled(one) for one in found["peers"]] == [settled(peer)]


async def test_a_peers_phase_and_trouble_are_told_and_whoever_comes_or_goes() -> None:
    mesh = Mesh(("east", "west"), overrides=QUICK)
    async with serve_cluster("east", mesh=mesh) as east, mesh.running("west"):
        await east.meshd.until_ready("west")
        async with watching(east, "?every_s=60") as stream:
            await told(stream, "meshd.mesh")
            await east.ask("POST", "/v1/peers/west/pause")
            peer = await told(stream, "meshd.peer", name="west", phase="Paused")
            assert "paused by a person" in peer["reason"]
            await east.ask("POST", "/v1/peers/west/resume")
            await told(stream, "meshd.peer", name="west", phase="Ready")
            east.meshd.links["west"].set_linked(linked=False)
            await told(stream, "meshd.peer", name="west", link="down")
            await east.ask("PUT", "/v1/peers/north", {"endpoints": ["north:2379"]})
            await told(stream, "meshd.peer", name="north")
            await east.ask("DELETE", "/v1/peers/north")
            assert await told(stream, "meshd.peer.removed") == {"name": "north"}


async def test_leadership_and_readiness_are_told(east: Served) -> None:
    async with watching(east, "?every_s=60") as stream:
        found = await told(stream, "meshd.mesh")
        assert (found["status"]["ready"], found["status"]["leader"]["self"]) == (True, True)
        east.node.leadership.leader = None
        assert (await told(stream, "meshd.status", leader=None))["ready"]
        head, east.node.projector.local_head = east.node.projector.local_head, None
        found = await told(stream, "meshd.status", ready=False)
        assert found["reasons"] == ["the own log has not been read to its end yet"]
        assert found["digest"] is None
        async with watching(east) as other:
            assert not (await told(other, "meshd.mesh"))["status"]["ready"]
        east.node.projector.local_head = head
        await told(stream, "meshd.status", ready=True)


async def test_how_far_everything_is_follows_and_ends_where_it_is() -> None:
    mesh = Mesh(("east", "west"), overrides=QUICK)
    async with serve_cluster("east", mesh=mesh) as east, mesh.running("west") as west:
        await east.meshd.until_ready("west")
        async with watching(east) as stream:
            await told(stream, "meshd.mesh")
            for turn in range(5):
                await east.meshd.submit(service(f"shop/a{turn}"))
                await west.submit(service(f"shop/a{turn}"))
            await east.meshd.until(lambda: _clusters_of(east, "shop/a4") == ("east", "west"))
            status = await east.get("/v1/status")
            ends = {name: status[name] for name in ("vector_text", "events_after", "digest")}
            await told(stream, "meshd.status", **ends)
        async with watching(east) as stream:
            (peer,) = (await told(stream, "meshd.mesh"))["peers"]
            await west.submit(service("shop/more"))
            await told(stream, "meshd.peer", seq=peer["seq"] + 1, lag_events=0)


def _clusters_of(east: Served, key: str) -> tuple[str, ...]:
    view = east.node.projector.tables.view(ServiceKey.parse(key))
    return view.clusters if view else ()


# --- when -----------------------------------------------------------------------------------------


def seen(
    at_s: float, *, phase: str = "Ready", seq: int = 1, digest: str = "d", **more: Any
) -> Seen:
    status = Item(STATUS, {"ready": True, "digest": digest, "leader": None})
    peer = Item(PEER, {"name": "west", "phase": phase, "seq": seq, **more})
    return Seen(at_s, status, {"west": peer})


def news(watcher: Watcher, now: Seen) -> list[tuple[str, Any]]:
    found = watcher.news(now, 1.0)
    return [(message.event, orjson.loads(message.data)) for message in found]


def test_what_is_as_it_was_is_not_told_and_neither_are_ages() -> None:
    first = seen(0.0)
    watcher = Watcher(first.status, dict(first.peers), 0.0)
    assert news(watcher, seen(5.0)) == []
    assert news(watcher, seen(6.0, unfresh_s=6.0)) == []


def test_numbers_are_told_when_it_is_time_and_a_phase_at_once() -> None:
    first = seen(0.0)
    watcher = Watcher(first.status, dict(first.peers), 0.0)
    assert news(watcher, seen(0.9, seq=2, digest="e")) == []
    assert [name for name, _ in news(watcher, seen(1.0, seq=3, digest="f"))] == [STATUS, PEER]
    assert news(watcher, seen(1.9, seq=4)) == []
    ((name, fields),) = news(watcher, seen(1.95, seq=5, phase="Stale", digest="g"))
    assert (name, fields["phase"], fields["seq"]) == (PEER, "Stale", 5)
    assert [name for name, _ in news(watcher, seen(2.0, phase="Stale", seq=5, digest="g"))] == [
        STATUS
    ]


def test_a_number_that_changed_and_is_as_it_was_again_is_no_news() -> None:
    first = seen(0.0)
    watcher = Watcher(first.status, dict(first.peers), 0.0)
    assert news(watcher, seen(0.5, seq=2)) == []
    assert news(watcher, seen(1.0, seq=1)) == []


def test_who_comes_and_goes_is_told_at_once() -> None:
    first = seen(0.0)
    watcher = Watcher(first.status, {}, 0.0)
    assert [name for name, _ in news(watcher, seen(0.1))] == [PEER]
    gone = Seen(0.2, first.status, {})
    assert news(watcher, gone) == [("meshd.peer.removed", {"name": "west"})]
    assert news(watcher, gone) == []


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", ["?colour=red", "?every_s=0", "?every_s=61", "?every_s=x"])
async def test_a_query_that_can_not_be_is_refused(east: Served, query: str) -> None:
    answer = await east.ask("GET", "/v1/watch" + query)
    assert (answer.status, answer.slug) == (400, "bad-request")


async def test_who_watches_counts_among_the_streams() -> None:
    async with serve_cluster(limits=Limits(subscribers_max=1)) as east, watching(east) as stream:
        await told(stream, "meshd.mesh")
        answer = await east.ask("GET", "/v1/watch")
        assert (answer.status, answer.slug) == (429, "overloaded")
