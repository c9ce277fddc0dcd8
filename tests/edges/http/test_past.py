"""Earlier states, what changed since, and who changed it, through REST."""

from __future__ import annotations

from typing import Any

import pytest

from meshd.model.command import RemoveEndpoint, RemoveService
from meshd.model.ids import EndpointKey, ServiceKey
from tests.edges.http.served import Served, serve_cluster
from tests.mesh import Mesh, endpoint, service

WEB = ServiceKey("shop", "web")


async def now(east: Served) -> str:
    text = (await east.get("/v1/tables"))["events_after"]
    assert isinstance(text, str)
    return text


async def test_every_read_of_a_state_tells_an_earlier_one(east: Served) -> None:
    await east.define()
    table, at = await east.get("/v1/tables"), await now(east)
    reads = (
        "/v1/services",
        "/v1/services/shop/web",
        "/v1/services/shop/web/endpoints",
        "/v1/services/shop/web/endpoints/a",
        "/v1/endpoints",
        "/v1/tables/shop/web",
    )
    before = {path: await east.get(path) for path in reads}
    await east.meshd.submit(RemoveService(WEB))
    assert (await east.get("/v1/tables"))["services"] == []
    then = await east.get(f"/v1/tables?as_of={at}")
    assert then == table | {"as_of": at}
    assert then["as_of"] == then["events_after"] == at
    for path in reads:
        assert await east.get(f"{path}?as_of={at}") == before[path] | {"as_of": at, "unknown": []}
    clusters = await east.get(f"/v1/clusters?as_of={at}")
    (item,) = clusters["items"]
    assert (item["name"], item["phase"], item["services"], item["endpoints"]) == (
        *("east", None),
        *(1, 1),
    )
    assert await east.get(f"/v1/clusters/east?as_of={at}") == item | {"as_of": at, "unknown": []}
    assert (await east.get(f"/v1/tables?namespace=other&as_of={at}"))["services"] == []
    assert (await east.ask("GET", f"/v1/clusters/no?as_of={at}")).slug == "not-found"
    assert (await east.ask("GET", f"/v1/tables/shop/no?as_of={at}")).slug == "not-found"


async def test_what_was_can_be_put_back(east: Served) -> None:
    await east.define()
    at, path = await now(east), "/v1/services/shop/web"
    was = await east.get(path)
    assert (await east.ask("PUT", path, {"global": False})).status == 200
    then = await east.get(f"{path}?as_of={at}")
    assert (await east.ask("PUT", path, then)).status == 200
    assert await east.get(path) == was | {"origin": (await east.get(path))["origin"]}


async def test_a_perspective_of_then(east: Served) -> None:
    await east.define()
    at = await now(east)
    own = await east.get(f"/v1/tables?as_of={at}&perspective=east")
    assert own["services"]
    answer = await east.ask("GET", f"/v1/tables?as_of={at}&perspective=west")
    assert answer.slug == "not-found"
    assert "nothing was known of a cluster 'west' here then" in answer.json["detail"]


@pytest.mark.parametrize("path", ["/v1/status", "/v1/peers", "/v1/events", "/v1/logs", "/livez"])
async def test_what_is_no_state_is_not_told_of_then(east: Served, path: str) -> None:
    answer = await east.ask("GET", f"{path}?as_of=0")
    assert answer.status == 200 if path == "/livez" else answer.slug == "bad-request"


async def test_moments_that_cannot_be_told(east: Served) -> None:
    await east.define()
    cluster, log_id, seq = (await now(east)).split(":")
    for text, slug, words in (
        ("yesterday", "bad-request", "is no time and no vector"),
        ("2026-01-31T12:05:00", "bad-request", "%2B"),
        (f"{cluster}:{log_id}:{int(seq) + 1}", "invalid", "is not reached yet"),
        (f"{cluster}:{'0' * 32}:1", "gone", "was re-created"),
        (f"{cluster}:{log_id}:1,south:{log_id}:1", "invalid", "no log of south is held"),
        ("9" * 15, "invalid", "is yet to come"),
        ("0", "gone", "had no record by 1970"),
    ):
        answer = await east.ask("GET", f"/v1/tables?as_of={text}")
        assert answer.slug == slug, answer.body
        assert words in str(answer.json)


async def test_a_difference_names_what_changed_and_who_did_it(east: Served) -> None:
    await east.define()
    await east.define("shop/gone")
    at = await now(east)
    assert (await east.get(f"/v1/tables/diff?from={at}"))["services"] == []
    await east.meshd.submit(
        endpoint("shop/web/a", weight=7), RemoveService(ServiceKey("shop", "gone"))
    )
    await east.meshd.submit(service("other/new"))
    diff = await east.get(f"/v1/tables/diff?from={at}")
    assert (diff["from"], diff["to"]) == (at, await now(east))
    assert diff["digest_from"] != diff["digest_to"] == (await east.get("/v1/tables"))["digest"]
    changes = {(one["namespace"], one["name"]): one for one in diff["services"]}
    assert {key: one["change"] for key, one in changes.items()} == {
        ("other", "new"): "added",
        ("shop", "gone"): "removed",
        ("shop", "web"): "changed",
    }
    web = changes["shop", "web"]
    (backend,) = web["backends"]
    assert web["fields"] == [{"path": "tiers[0].weight", "old": 100, "new": 7}]
    assert backend["fields"] == [
        {"path": "endpoint_weight", "old": 100, "new": 7},
        {"path": "weight", "old": 100, "new": 7},
    ]
    assert backend["origin"]["actor"] == "test"
    assert backend["origin"]["seq"] > backend["before"]["seq"]
    port = {"port": 80, "name": "http", "protocol": "TCP", "app_protocol": ""}
    assert {"path": "ports", "old": None, "new": [port]} in changes["other", "new"]["fields"]
    assert (await east.get(f"/v1/tables/diff?from={at}&namespace=other"))["services"] == [
        changes["other", "new"]
    ]
    back = await east.get(f"/v1/tables/diff?from={diff['to']}&to={at}")
    assert [one["change"] for one in back["services"]] == ["removed", "added", "changed"]
    missing = await east.ask("GET", "/v1/tables/diff")
    assert missing.slug == "bad-request"
    assert "from" in missing.json["detail"]


async def test_a_history_page_by_page(east: Served) -> None:
    await east.define()
    for weight in (5, 6):
        await east.meshd.submit(endpoint("shop/web/a", weight=weight))
    await east.meshd.submit(RemoveEndpoint(EndpointKey(WEB, "a")))
    page = await east.get("/v1/history/endpoint/shop/web/a")
    assert (page["kind"], page["name"], page["next"]) == ("endpoint", "shop/web/a", None)
    kinds = ["io.meshd.endpoint.removed", *3 * ["io.meshd.endpoint.set"]]
    assert [item["type"] for item in page["items"]] == kinds
    assert page["items"][1]["changes"] == [{"path": "weight", "old": 5, "new": 6}]
    assert page["items"][0]["data"] is None
    assert page["items"][1]["data"]["weight"] == 6
    found: list[Any] = []
    query = ""
    while True:
        part = await east.get(f"/v1/history/endpoint/shop/web/a?limit=2{query}")
        found += part["items"]
        if part["next"] is None:
            break
        query = f"&before={part['next']}"
    assert found == page["items"]
    both = await east.get("/v1/history/service/shop/web?endpoints=true&cluster=east")
    assert len(both["items"]) == 5


@pytest.mark.parametrize(
    ("path", "slug"),
    [
        ("/v1/history/moon/full", "invalid"),
        ("/v1/history/service/web", "invalid"),
        ("/v1/history/node/n1?endpoints=true", "invalid"),
        ("/v1/history/node/n1?endpoints=perhaps", "bad-request"),
        ("/v1/history/node/n1?limit=0", "bad-request"),
        ("/v1/history/node/n1?before=now", "bad-request"),
        ("/v1/history/node/n1?as_of=0", "bad-request"),
        ("/v1/history/node/n1?cluster=no", "not-found"),
        ("/v1/history/node", "not-found"),
    ],
)
async def test_histories_that_cannot_be_told(east: Served, path: str, slug: str) -> None:
    assert (await east.ask("GET", path)).slug == slug


async def test_whoever_was_not_known_then_is_named() -> None:
    mesh = Mesh(("east", "west"), overrides=("replication.heartbeat_every_s=0.1",))
    mesh.etcds["west"].set_up(up=False)
    async with serve_cluster("east", mesh=mesh) as east:
        await east.define()
        at = await now(east)
        then = await east.get(f"/v1/tables?as_of={at}")
        assert then["unknown"] == ["west"]
        west = next(
            one
            for one in (await east.get(f"/v1/clusters?as_of={at}"))["items"]
            if one["name"] == "west"
        )
        assert (west["seq"], west["services"], west["self"]) == (None, None, False)
        diff = await east.get(f"/v1/tables/diff?from={at}")
        assert (diff["unknown_from"], diff["unknown_to"]) == (["west"], ["west"])
        assert (await east.get("/v1/history/node/n1"))["unknown"] == ["west"]
