"""Nodes, identities and the cluster itself over real HTTP, the own ones and peers'."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from meshd.core.excerpt import excerpt
from meshd.model.command import AllocateIdentity, DescribeCluster, SetNode
from meshd.model.ids import ClusterName
from meshd.model.node import Node
from tests.edges.http.served import Served, serve_cluster
from tests.mesh import Mesh, service

WEST = ClusterName("west")

QUICK = ("replication.heartbeat_every_s=0.1",)
NODE = {"addresses": ["10.0.0.1"], "pod_cidrs": ["10.1.1.0/24"], "labels": {"rack": "7"}}


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Served, Mesh]]:
    """Give a served east whose peer west says something of everything."""
    mesh = Mesh(("east", "west"), overrides=(*QUICK, "cluster.audiences=eu"))
    async with serve_cluster("east", mesh=mesh) as east, mesh.running("west") as west:
        await west.submit(
            service(),
            SetNode("w1", Node(addresses=("10.2.0.1",), pod_cidrs=("10.1.1.0/25",))),
            SetNode("secret", Node(addresses=("10.2.0.2",), audiences=("eu",))),
            AllocateIdentity({"app": "web"}),
            AllocateIdentity({"app": "cart"}, ("eu", "mesh")),
            DescribeCluster(announces=("10.1.0.0/16",)),
        )
        await east.meshd.until_ready("west")
        yield east, mesh


async def test_a_node_is_set_read_and_removed(east: Served) -> None:
    assert (await east.ask("PUT", "/v1/nodes/n1.rack", NODE)).json["events"] == 1
    found = await east.get("/v1/nodes/n1.rack")
    assert found["origin"]["seq"] == 2
    assert {name: found[name] for name in NODE} == NODE
    assert (found["tunnel_endpoint"], found["audiences"]) == ("", ["mesh"])
    # What GET answers, PUT takes.
    assert (await east.ask("PUT", "/v1/nodes/n1.rack", found)).json["events"] == 0
    assert (await east.ask("DELETE", "/v1/nodes/n1.rack")).json["events"] == 1
    for method in ("GET", "DELETE"):
        assert (await east.ask(method, "/v1/nodes/n1.rack")).slug == "not-found"


@pytest.mark.parametrize(
    ("name", "body", "where"),
    [
        ("N1", NODE, "node"),
        ("n1", {}, "addresses"),
        ("n1", NODE | {"name": "n2"}, "name"),
        ("n1", NODE | {"pod_cidrs": ["10.1.1.1/24"]}, "pod_cidrs[0]"),
        ("n1", NODE | {"colour": "red"}, "colour"),
    ],
)
async def test_what_is_no_node_is_refused(
    east: Served, name: str, body: dict[str, object], where: str
) -> None:
    answer = await east.ask("PUT", f"/v1/nodes/{name}", body)
    assert answer.slug == "invalid"
    assert [problem["where"] for problem in answer.json["problems"]] == [where]


async def test_lists_are_sorted_and_filtered_by_label(east: Served) -> None:
    for name, rack in (("n2", "7"), ("n10", "8"), ("n1", "7")):
        await east.ask("PUT", f"/v1/nodes/{name}", NODE | {"labels": {"rack": rack, name: ""}})

    async def names(query: str) -> list[str]:
        return [item["name"] for item in (await east.get("/v1/nodes" + query))["items"]]

    assert await names("") == ["n1", "n10", "n2"]
    assert await names("?label=rack=7") == ["n1", "n2"]
    assert await names("?label=rack&label=n10") == ["n10"]
    assert await names("?label=n10=x") == []
    assert (await east.ask("GET", "/v1/nodes?label==7")).slug == "bad-request"
    many = "&".join(["label=a"] * 65)
    assert (await east.ask("GET", "/v1/identities?" + many)).slug == "bad-request"


async def test_the_same_labels_have_the_same_number_whoever_asks_at_once(east: Served) -> None:
    asked = [{"labels": {"app": str(number % 5)}} for number in range(40)]
    async with asyncio.TaskGroup() as tasks:
        asking = [tasks.create_task(east.ask("POST", "/v1/identities", one)) for one in asked]
    answers = [task.result() for task in asking]
    assert {answer.status for answer in answers} == {200}
    numbers = [answer.json["number"] for answer in answers]
    assert sorted(set(numbers)) == [65_792 + number for number in range(5)]
    assert numbers[:5] * 8 == numbers
    assert sum(answer.json["events"] for answer in answers) == 5
    items = (await east.get("/v1/identities?label=app=3"))["items"]
    assert [item["number"] for item in items] == [numbers[3]]
    assert await east.get(f"/v1/identities/{numbers[3]}") == items[0]


async def test_an_identity_may_be_told_to_others_and_taken_back(
    pair: tuple[Served, Mesh],
) -> None:
    east, _ = pair
    labels = {"app": "web"}
    number = (await east.ask("POST", "/v1/identities", {"labels": labels})).json["number"]
    wider = await east.ask("POST", "/v1/identities", {"labels": labels, "audiences": ["eu"]})
    assert (wider.json["number"], wider.json["events"]) == (number, 1)
    again = await east.ask("POST", "/v1/identities", {"labels": labels})
    assert again.json["events"] == 0
    assert (await east.get(f"/v1/identities/{number}"))["audiences"] == ["eu"]
    key = {"Idempotency_Key": "k1"}
    other = await east.ask("POST", "/v1/identities", {"labels": {"app": "cart"}}, **key)
    assert (await east.ask("DELETE", f"/v1/identities/{other.json['number']}")).status == 200
    assert (await east.ask("DELETE", f"/v1/identities/{other.json['number']}")).slug == "not-found"
    assert (await east.ask("GET", f"/v1/identities/{other.json['number']}")).slug == "not-found"
    # It was given under this key once, and isn't given again.
    gone = await east.ask("POST", "/v1/identities", {"labels": {"app": "cart"}}, **key)
    assert gone.slug == "conflict"


@pytest.mark.parametrize("body", [{}, {"labels": {}}, {"labels": {"a": 1}}, {"number": 5}])
async def test_what_is_no_identity_is_refused(east: Served, body: dict[str, object]) -> None:
    assert (await east.ask("POST", "/v1/identities", body)).slug == "invalid"


@pytest.mark.parametrize("number", ["5", "65536", "x", "065792", "99999999999"])
async def test_what_is_no_number_is_refused(east: Served, number: str) -> None:
    for method in ("GET", "DELETE"):
        assert (await east.ask(method, f"/v1/identities/{number}")).slug == "invalid"


async def test_peers_nodes_and_identities_are_read_here(pair: tuple[Served, Mesh]) -> None:
    east, _ = pair
    (node,) = (await east.get("/v1/nodes?cluster=west"))["items"]
    assert (node["name"], node["origin"]["cluster"], node["audiences"]) == ("w1", "west", ["mesh"])
    identities = (await east.get("/v1/identities?cluster=west"))["items"]
    assert [(one["number"] >> 16, one["labels"]["app"]) for one in identities] == [
        (2, "web"),
        (2, "cart"),
    ]
    assert (await east.get("/v1/nodes"))["items"] == []
    assert (await east.get("/v1/nodes?cluster=east"))["items"] == []
    assert (await east.ask("GET", "/v1/nodes?cluster=north")).slug == "not-found"


async def test_nodes_and_identities_as_they_were(pair: tuple[Served, Mesh]) -> None:
    east, _ = pair
    await east.ask("PUT", "/v1/nodes/n1", NODE)
    given = await east.ask("POST", "/v1/identities", {"labels": {"app": "old"}})
    at = (await east.get("/v1/tables"))["events_after"]
    await east.ask("DELETE", "/v1/nodes/n1")
    await east.ask("DELETE", f"/v1/identities/{given.json['number']}")
    for path, name in (("nodes", "name"), ("identities", "number")):
        assert (await east.get(f"/v1/{path}"))["items"] == []
        then = await east.get(f"/v1/{path}?as_of={at}")
        assert then["as_of"] == at
        (one,) = then["items"]
        assert await east.get(f"/v1/{path}/{one[name]}?as_of={at}") == one | {
            "as_of": at,
            "unknown": [],
        }
        assert (await east.ask("GET", f"/v1/{path}/{one[name]}")).slug == "not-found"
        theirs = await east.get(f"/v1/{path}?as_of={at}&cluster=west")
        assert len(theirs["items"]) == (1 if path == "nodes" else 2)
    missing = await east.ask("GET", f"/v1/nodes?as_of={at}&cluster=nobody")
    assert missing.slug == "not-found"


async def test_a_peer_of_which_nothing_was_read_has_no_empty_list() -> None:
    mesh = Mesh(("east", "west"), overrides=(*QUICK, "cluster.audiences=eu"))
    mesh.etcds["west"].set_up(up=False)
    async with serve_cluster("east", mesh=mesh) as east:
        for path in ("nodes", "identities"):
            assert (await east.ask("GET", f"/v1/{path}?cluster=west")).slug == "unavailable"
        shown = await east.get("/v1/clusters/west")
        assert (shown["state"], shown["nodes"], shown["announces"]) == (None, None, None)


async def test_ranges_that_collide_are_shown_with_both_clusters(pair: tuple[Served, Mesh]) -> None:
    east, mesh = pair
    assert (await east.get("/v1/clusters/east"))["conditions"] == []
    assert (await east.get("/v1/clusters/west"))["conditions_count"] == 0
    await east.ask("PUT", "/v1/nodes/n1", NODE)
    items = (await east.get("/v1/clusters"))["items"]
    for item in items:
        types = [(one["type"], one["clusters"]) for one in item["conditions"]]
        assert types == [
            ("node-ranges-overlap", ["east", "west"]),
            ("node-range-in-anothers", ["east", "west"]),
        ]
        assert item["conditions_count"] == 2
    metrics = (await east.ask("GET", "/metrics")).body.decode()
    assert "\nmeshd_range_conditions 2.0\n" in metrics
    projector = east.node.projector
    state, head = projector.state(WEST), projector.head(WEST)
    assert state is not None
    assert head is not None
    # Read anew it may say something else at the same place: what was passed over, or no more.
    without = excerpt(state)
    without.nodes, without.ranges_seq = {}, state.ranges_seq
    projector.adopt(WEST, head, without)
    (left,) = (await east.get("/v1/clusters/east"))["conditions"]
    assert left["type"] == "node-range-in-anothers"
    projector.adopt(WEST, head, state)
    assert (await east.get("/v1/clusters/east"))["conditions_count"] == 2
    # West sees the same.
    assert items[0]["conditions"][0]["ranges"] == ["10.1.1.0/24", "10.1.1.0/25"]
    await east.ask("DELETE", "/v1/nodes/n1")
    assert (await east.get("/v1/clusters/west"))["conditions"] == []
    assert mesh.etcds


async def test_the_cluster_says_how_it_is_and_keeps_it_over_a_restart() -> None:
    mesh = Mesh(("east",))
    said = {"state": "draining", "weight": 20, "announces": ["10.1.0.0/16"]}
    async with serve_cluster(mesh=mesh) as east:
        before = await east.get("/v1/cluster")
        assert (before["state"], before["weight"], before["announces"]) == ("active", 100, [])
        assert (before["name"], before["id"], before["origin"]["actor"]) == ("east", 1, "meshd")
        assert (await east.ask("PUT", "/v1/cluster", said, Meshd_Actor="ann")).json["events"] == 1
        found = await east.get("/v1/cluster")
        assert {name: found[name] for name in said} == said
        assert found["origin"]["actor"] == "ann"
        # What GET answers, PUT takes.
        assert (await east.ask("PUT", "/v1/cluster", found)).json["events"] == 0
        (shown,) = (await east.get("/v1/clusters"))["items"]
        assert {name: shown[name] for name in said} == said
    async with serve_cluster(mesh=mesh) as again:
        assert await again.get("/v1/cluster") == found
        assert (await again.ask("PUT", "/v1/cluster", {})).json["events"] == 1
        assert (await again.get("/v1/cluster"))["state"] == "active"


@pytest.mark.parametrize(
    ("body", "where", "what"),
    [
        ({"state": "asleep"}, "state", "is"),
        ({"weight": 1001}, "weight", "less than or equal to 1000"),
        ({"announces": ["10.0.0.0/8", "10.1.0.0/16"]}, "announces", "overlap"),
        ({"id": 7}, "id", "is 7, but the settings say 1"),
        ({"region": "eu"}, "region", "but the settings say ''"),
        ({"colour": "red"}, "colour", "unknown field"),
    ],
)
async def test_what_the_cluster_can_not_be_is_refused(
    east: Served, body: dict[str, object], where: str, what: str
) -> None:
    answer = await east.ask("PUT", "/v1/cluster", body)
    assert answer.slug == "invalid"
    (problem,) = answer.json["problems"]
    assert problem["where"] == where
    assert what in problem["what"]
