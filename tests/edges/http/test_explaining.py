"""Why a service is as it is, and its slots, by HTTP."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.edges.http.served import Served, serve_cluster
from tests.mesh import Mesh, endpoint, service

EXPLAIN, SLOTS = "/v1/tables/shop/web/explain", "/v1/tables/shop/web/slots"


async def test_every_endpoint_is_explained_with_the_event_that_made_it_so(east: Served) -> None:
    await east.meshd.submit(
        service(), endpoint("shop/web/a"), endpoint("shop/web/b", "10.0.0.2", ready=False)
    )
    found = await east.get(EXPLAIN)
    assert (found["perspective"], found["served"]) == ("east", True)
    in_it, out = found["endpoints"]
    assert (in_it["name"], in_it["eligible"], in_it["tier"]) == ("a", True, 0)
    assert in_it["share_ppm"] == 1_000_000
    assert (out["reason"], out["why"]) == ("not-ready", "it is not ready")
    (made,) = out["made"]
    events = (await east.get(f"/v1/events?after={made['seq'] - 1}&limit=1"))["items"]
    assert made["what"] == "endpoint.set shop/web/b"
    assert (events[0]["subject"], events[0]["meshdseq"]) == ("shop/web/b", made["seq"])
    assert (events[0]["meshdactor"], events[0]["time"]) == (made["actor"], made["time"])
    (tier,) = found["tiers"]
    table = await east.get("/v1/tables/shop/web")
    assert {name: tier[name] for name in table["tiers"][0]} == table["tiers"][0]
    assert tier["why"].startswith("100 % reach it; 50 % healthy, below 70 %")


async def test_what_is_not_served_is_explained_too(east: Served) -> None:
    await east.meshd.submit(service(is_global=False), endpoint("shop/web/a"))
    found = await east.get(EXPLAIN)
    assert (found["served"], found["tiers"], found["affinity"]) == (False, [], None)
    assert [one["reason"] for one in found["endpoints"]] == ["not-global"]


async def test_another_clusters_view_is_explained() -> None:
    mesh = Mesh(("east", "west"), overrides=("replication.heartbeat_every_s=0.1",))
    async with (
        serve_cluster("east", mesh=mesh) as east,
        serve_cluster("west", mesh=mesh) as west,
    ):
        for served in (east, west):
            await served.define()
        await east.meshd.until_count("shop/web", 2)
        found = await east.get(f"{EXPLAIN}?perspective=west")
        orders = {tier["clusters"][0]: tier["order"] for tier in found["tiers"]}
        assert orders == {"west": "the own cluster first (affinity local)", "east": "elsewhere"}
        backends = (await east.get(f"{SLOTS}?perspective=west"))["backends"]
        assert [one["cluster"] for one in backends] == ["west"]


async def test_slots_are_shared_among_those_that_take_traffic(east: Served) -> None:
    await east.meshd.submit(
        service(),
        endpoint("shop/web/a"),
        endpoint("shop/web/b", "10.0.0.2"),
        endpoint("shop/web/c", "10.0.0.3", ready=False),
    )
    found = await east.get(f"{SLOTS}?size=251")
    assert [one["name"] for one in found["backends"]] == ["a", "b"]
    assert sorted(Counter(found["slots"]).values()) == [125, 126]
    assert found["size"] == len(found["slots"]) == 251
    assert (await east.get(SLOTS))["size"] == 1021


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        (EXPLAIN, 404, "no cluster that is known here has a service shop/web"),
        (f"{EXPLAIN}?perspective=nobody", 404, "nothing is known of a cluster 'nobody'"),
        ("/v1/tables/shop/A/explain", 422, "is not a service name"),
        (SLOTS, 404, "there is no global service shop/web there"),
        (f"{SLOTS}?size=1000", 422, "1000 is no size of a table"),
        (f"{SLOTS}?size=x", 400, "is not a number"),
    ],
)
async def test_what_cannot_be_answered_is_refused_in_words(
    east: Served, path: str, status: int, words: str
) -> None:
    answer = await east.ask("GET", path)
    assert answer.status == status
    assert words in answer.json["detail"]
