"""Tables and clusters, with two meshds that follow each other."""

from __future__ import annotations

import asyncio

import pytest

from meshd.model.ids import ClusterName, format_vector, parse_vector
from meshd.model.peer import Phase
from tests.edges.http.served import Served, serve_cluster
from tests.mesh import Mesh, endpoint, service

EAST, WEST = ClusterName("east"), ClusterName("west")
QUICK = ("replication.heartbeat_every_s=0.1",)


async def test_a_table_has_all_backends_with_reason_and_origin(east: Served) -> None:
    await east.meshd.submit(
        service(), endpoint("shop/web/a"), endpoint("shop/web/b", "10.0.0.2", ready=False)
    )
    table = await east.get("/v1/tables")
    assert table["perspective"] == "east"
    fields = {"perspective", "vector_text", "events_after", "digest", "stale", "services"}
    fields |= {"as_of", "unknown", "unsure"}
    assert set(table) == fields
    assert table["unsure"] == []
    (shown,) = table["services"]
    backends = {backend["name"]: backend for backend in shown["backends"]}
    assert backends["a"]["eligible"] is True
    assert backends["a"]["reason"] is None
    assert (backends["b"]["eligible"], backends["b"]["reason"]) == (False, "not-ready")
    assert backends["b"]["origin"]["seq"] == 4
    assert backends["b"]["ports"] == shown["ports"]
    assert await east.get("/v1/tables/shop/web") == shown
    assert table["digest"] == shown["digest"] == east.node.projector.tables.digest


async def test_a_table_is_filtered_by_namespace(east: Served) -> None:
    for key in ("shop/web", "blog/web"):
        await east.define(key)
    whole, part = await east.get("/v1/tables"), await east.get("/v1/tables?namespace=blog")
    assert [item["namespace"] for item in whole["services"]] == ["blog", "shop"]
    assert part == whole | {"services": whole["services"][:1]}


async def test_what_is_not_global_is_in_no_table(east: Served) -> None:
    await east.meshd.submit(service(is_global=False))
    assert (await east.get("/v1/tables"))["services"] == []
    assert (await east.ask("GET", "/v1/tables/shop/web")).slug == "not-found"


@pytest.mark.parametrize("path", ["/v1/tables", "/v1/tables/shop/web"])
@pytest.mark.parametrize("perspective", ["mars", ""])
async def test_an_unknown_perspective_is_not_found(
    east: Served, path: str, perspective: str
) -> None:
    assert (await east.ask("GET", f"{path}?perspective={perspective}")).slug == "not-found"


async def test_two_clusters_show_one_mesh_each_from_its_side() -> None:
    mesh = Mesh(("east", "west"), overrides=QUICK)
    async with (
        serve_cluster("east", mesh=mesh) as east,
        serve_cluster("west", mesh=mesh) as west,
    ):
        await east.define(address="10.1.0.1")
        await west.define(address="10.2.0.1")
        for served, peer in ((east, "west"), (west, "east")):
            await served.meshd.until_count("shop/web", 2)
            # Until its heartbeat was seen it is stale.
            await served.meshd.until_ready(peer)
        seen_by_east, seen_by_west = await east.get("/v1/tables"), await west.get("/v1/tables")
        assert seen_by_east["vector_text"] == seen_by_west["vector_text"]
        assert _places(seen_by_east) == [("east", 0), ("west", 16)]
        assert _places(seen_by_west) == [("west", 0), ("east", 16)]
        west_from_east = await east.get("/v1/tables?perspective=west")
        assert west_from_east["perspective"] == "west"
        assert west_from_east["unsure"] == []
        assert _places(west_from_east) == _places(seen_by_west)
        assert west_from_east["digest"] == seen_by_west["digest"] != seen_by_east["digest"]
        (one,) = west_from_east["services"]
        assert await east.get("/v1/tables/shop/web?perspective=west") == one
        assert one["digest"] == seen_by_west["services"][0]["digest"]
        # The place to follow from is in the logs that are told here: the own local one.
        assert parse_vector(seen_by_east["events_after"]) == east.node.projector.log_vector()


def _places(table: dict[str, list[dict[str, list[dict[str, object]]]]]) -> list[tuple[object, ...]]:
    (shown,) = table["services"]
    return [(backend["cluster"], backend["priority"]) for backend in shown["backends"]]


async def test_what_is_only_known_from_before_is_marked() -> None:
    mesh = Mesh(("east", "west"), overrides=(*QUICK, "replication.silent_after_s=1"))
    async with serve_cluster("east", mesh=mesh) as east:
        async with serve_cluster("west", mesh=mesh) as west:
            for served in (east, west):
                await served.define()
            await east.meshd.until_count("shop/web", 2)
            await east.meshd.until_ready("west")
            table = await east.get("/v1/tables")
            assert (table["stale"], table["services"][0]["stale"]) == ([], [])
        await east.meshd.until(lambda: east.meshd.phase("west") is Phase.STALE)
        table, one = await east.get("/v1/tables"), await east.get("/v1/tables/shop/web")
        assert table["stale"] == one["stale"] == ["west"]
        assert table["services"] == [one]
        assert len(one["backends"]) == 2
        await east.define("shop/own")
        assert (await east.get("/v1/tables/shop/own"))["stale"] == []


async def test_clusters_and_peers_are_shown_with_what_is_known_of_them() -> None:
    mesh = Mesh(("east", "west", "south"), overrides=QUICK)
    mesh.etcds["south"].set_up(up=False)
    async with (
        serve_cluster("east", mesh=mesh) as east,
        serve_cluster("west", mesh=mesh) as west,
    ):
        await west.define()
        await east.meshd.until_ready("west")
        await east.meshd.until(lambda: _west_seq(east) == 3)
        own, south, seen = (await east.get("/v1/clusters"))["items"]
        assert [own["name"], south["name"], seen["name"]] == ["east", "south", "west"]
        assert (own["self"], seen["self"]) == (True, False)
        assert (own["id"], own["phase"], own["services"]) == (1, "Ready", 0)
        assert (seen["id"], seen["phase"], seen["services"], seen["endpoints"]) == (
            2,
            "Ready",
            1,
            1,
        )
        unknown = {key: south[key] for key in ("id", "region", "zone", "log_id", "seq", "services")}
        assert set(unknown.values()) == {None}
        assert await east.get("/v1/clusters/west") == seen
        assert await east.get("/v1/clusters/east") == own

        silent, peer = (await east.get("/v1/peers"))["items"]
        assert (silent["name"], silent["link"], silent["phase"]) == ("south", "down", "Connecting")
        assert silent["reason"]
        assert silent["heartbeat_age_s"] is silent["lag_events"] is silent["head_seq"] is None
        assert (peer["name"], peer["link"], peer["phase"]) == ("west", "up", "Ready")
        assert (peer["standing"], peer["lag_events"], peer["seq"]) == ("fresh", 0, 3)
        assert peer["heartbeat_age_s"] >= 0
        assert peer["log_id"] == seen["log_id"]
        one = await east.get("/v1/peers/west")
        assert (one["name"], one["log_id"]) == ("west", peer["log_id"])
        assert (await east.get("/v1/status"))["peers"][1]["name"] == "west"


def _west_seq(served: Served) -> int:
    condition = served.node.peers.conditions()[1]
    return condition.head.seq if condition.head else 0


@pytest.mark.parametrize("path", ["/v1/clusters/mars", "/v1/peers/mars", "/v1/peers/east"])
async def test_an_unknown_cluster_is_not_found(east: Served, path: str) -> None:
    assert (await east.ask("GET", path)).slug == "not-found"


# --- while the own log is read on -----------------------------------------------------------------

BESIDE_A_VECTOR = (
    "/v1/tables",
    "/v1/tables?perspective=east",
    "/v1/verify",
    "/v1/tables/shop/web/explain",
    "/v1/tables/shop/web/slots",
)


@pytest.mark.parametrize("path", BESIDE_A_VECTOR)
async def test_what_is_told_beside_a_vector_is_of_its_place(east: Served, path: str) -> None:
    await east.define()
    projector = east.node.projector
    before, told = projector.local_head, await east.get(path)
    await east.define(address="10.0.0.2")
    after, projector.local_head = projector.local_head, before
    assert after is not None
    async with asyncio.TaskGroup() as tasks:
        asked = tasks.create_task(east.get(path))
        await asyncio.sleep(0.1)
        assert not asked.done()
        projector.settle(after)
    assert asked.result()["vector_text"] == format_vector(projector.vector())
    assert asked.result()["vector_text"] != told["vector_text"]


async def test_what_is_not_at_one_place_soon_is_asked_for_again(
    east: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshd.runtime.settled.SETTLE_FOR_S", 0.05)
    await east.define()
    projector, at = east.node.projector, await east.get("/v1/tables")
    before = projector.local_head
    await east.define(address="10.0.0.2")
    after, projector.local_head = projector.local_head, before
    assert after is not None
    for path in BESIDE_A_VECTOR:
        assert (await east.ask("GET", path)).slug == "unavailable"
    # What was is told all the same, and how this meshd is.
    assert (await east.get(f"/v1/tables?as_of={at['events_after']}"))["digest"] == at["digest"]
    assert (await east.get("/v1/status"))["digest"] is None
    projector.settle(after)
    assert (await east.get("/v1/status"))["digest"] == projector.tables.digest
