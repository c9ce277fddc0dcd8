"""Services and endpoints, one by one, over real HTTP."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from meshd.model.endpoint import Endpoint
from meshd.model.service import Service
from tests.edges.http.served import Served

WEB = "/v1/services/shop/web"
ONE = WEB + "/endpoints/a"
EVERYBODY: dict[str, object] = {"clusters": [], "not_clusters": [], "regions": [], "labels": {}}


async def test_what_was_put_is_read_back_with_all_its_fields_and_its_origin(east: Served) -> None:
    body = {"global": True, "ports": [{"port": 80, "name": "http"}], "labels": {"team": "a"}}
    written = await east.ask("PUT", WEB, body, Meshd_Actor="ann")
    assert written.status == 200
    log_id = written.json["position"].split(":")[1]
    assert written.json == {
        "events": 1,
        "first_seq": 2,
        "last_seq": 2,
        "position": f"east:{log_id}:2",
        "repeated": False,
    }
    item = await east.get(WEB)
    created_ms, origin = item.pop("created_ms"), item.pop("origin")
    assert created_ms > 0
    assert item == {
        "namespace": "shop",
        "name": "web",
        "ports": [{"port": 80, "name": "http", "protocol": "TCP", "app_protocol": ""}],
        "global": True,
        "shared": None,
        "headless": False,
        "session_affinity": "none",
        "session_timeout_s": 10_800,
        "affinity": "none",
        "tiers": [],
        "spill": {"below_percent": 70, "amount": "proportional", "split": "next"},
        "staleness": {"policy": None, "stale_after_s": None, "withdraw_after_s": None},
        "weight": 100,
        "exposure": "internal",
        "export": {"audiences": ["mesh"], "clusters": EVERYBODY},
        "import": EVERYBODY,
        "probe": None,
        "labels": {"team": "a"},
        "selector": {},
        "source": "",
        "turned_percent": 100,
    }
    assert origin["time"].endswith("Z")
    del origin["time"]
    assert origin == {"cluster": "east", "log_id": log_id, "seq": 2, "actor": "ann"}


@pytest.mark.parametrize(
    ("kind", "path", "extra"),
    [
        (Service, WEB, {"namespace", "name", "origin"} | {"global", "shared", "import"}),
        (Endpoint, ONE, {"namespace", "service", "name", "origin"}),
    ],
)
async def test_no_field_of_a_value_is_forgotten(
    east: Served, kind: type[Service | Endpoint], path: str, extra: set[str]
) -> None:
    await east.define()
    declared = {field.name for field in fields(kind)} - {"is_global", "is_shared", "import_from"}
    assert set(await east.get(path)) == declared | extra


async def test_what_get_answers_put_takes(east: Served) -> None:
    await east.define()
    for path in (WEB, ONE):
        answer = await east.ask("PUT", path, await east.get(path))
        assert answer.status == 200
        assert answer.json["events"] == 0


async def test_a_put_that_changes_nothing_makes_no_event(east: Served) -> None:
    first = (await east.ask("PUT", WEB, {"global": True})).json
    again = (await east.ask("PUT", WEB, {"global": True})).json
    assert again == first | {"events": 0}


@pytest.mark.parametrize(
    ("path", "body", "where"),
    [
        (WEB, {"name": "other"}, "name"),
        (WEB, {"namespace": "other"}, "namespace"),
        (ONE, {"address": "10.0.0.1", "service": "other"}, "service"),
        (ONE, {"address": "10.0.0.1", "name": 5}, "name"),
    ],
)
async def test_a_name_in_the_body_must_be_the_paths(
    east: Served, path: str, body: dict[str, Any], where: str
) -> None:
    answer = await east.ask("PUT", path, body)
    assert (answer.status, answer.slug) == (422, "invalid")
    assert [problem["where"] for problem in answer.json["problems"]] == [where]
    assert (await east.ask("GET", path)).status == 404


async def test_all_problems_come_at_once_each_with_its_place(east: Served) -> None:
    body = {"ports": [{"port": 0}, {"port": 80, "name": "A"}], "affinity": "near", "colour": 1}
    answer = await east.ask("PUT", WEB, body)
    assert (answer.status, answer.slug) == (422, "invalid")
    places = {problem["where"] for problem in answer.json["problems"]}
    assert places == {"ports[0].port", "ports[1].name", "affinity", "colour"}


@pytest.mark.parametrize(
    "path",
    [
        "/v1/services/Shop/web",
        "/v1/services/shop/web_1",
        "/v1/services/a%2Fb/web",
        "/v1/services/shop/web/endpoints/A",
        "/v1/services/shop/web/endpoints/a%2Fb",
    ],
)
async def test_names_that_nothing_can_have_are_refused(east: Served, path: str) -> None:
    for method, body in (("GET", None), ("PUT", {"address": "10.0.0.1"}), ("DELETE", None)):
        answer = await east.ask(method, path, body)
        assert (answer.status, answer.slug) == (422, "invalid")


@pytest.mark.parametrize("path", [WEB, ONE, WEB + "/endpoints"])
async def test_what_is_not_there_is_not_found(east: Served, path: str) -> None:
    assert (await east.ask("GET", path)).slug == "not-found"


@pytest.mark.parametrize("path", [WEB, ONE])
async def test_delete_removes_once(east: Served, path: str) -> None:
    await east.define()
    assert (await east.ask("DELETE", path)).json["events"] == 1
    assert (await east.ask("GET", path)).slug == "not-found"
    assert (await east.ask("DELETE", path)).slug == "not-found"


async def test_a_delete_repeated_with_its_key_tells_what_it_did(east: Served) -> None:
    await east.define()
    first = await east.ask("DELETE", WEB, Idempotency_Key="k1")
    again = await east.ask("DELETE", WEB, Idempotency_Key="k1")
    assert (first.status, again.status) == (200, 200)
    assert again.json == first.json | {"repeated": True}


async def test_a_put_repeated_with_its_key_is_done_once(east: Served) -> None:
    first = await east.ask("PUT", WEB, {"global": True}, Idempotency_Key="k1")
    await east.ask("PUT", WEB, {"global": False})
    again = await east.ask("PUT", WEB, {"global": True}, Idempotency_Key="k1")
    assert again.json == first.json | {"repeated": True}
    assert (await east.get(WEB))["global"] is False


async def test_lists_are_sorted_and_filtered(east: Served) -> None:
    for key in ("shop/web", "shop/api", "blog/web"):
        await east.define(key)

    async def names(path: str) -> list[str]:
        items = (await east.get(path))["items"]
        return ["/".join((item["namespace"], item.get("service", item["name"]))) for item in items]

    assert await names("/v1/services") == ["blog/web", "shop/api", "shop/web"]
    assert await names("/v1/services?namespace=shop") == ["shop/api", "shop/web"]
    assert await names("/v1/services?namespace=none") == []
    assert await names("/v1/endpoints") == ["blog/web", "shop/api", "shop/web"]
    assert await names("/v1/endpoints?namespace=shop&service=web") == ["shop/web"]
    assert await names(WEB + "/endpoints") == ["shop/web"]


async def test_an_endpoint_that_came_before_its_service_is_listed(east: Served) -> None:
    await east.ask("PUT", ONE, {"address": "10.0.0.1"})
    assert [item["name"] for item in (await east.get(WEB + "/endpoints"))["items"]] == ["a"]


@pytest.mark.parametrize("header", ["Idempotency_Key", "Meshd_Actor"])
@pytest.mark.parametrize("value", ["é", "x" * 241, "a\tb"])
async def test_headers_that_go_into_the_log_are_checked(
    east: Served, header: str, value: str
) -> None:
    answer = await east.ask("PUT", WEB, {}, **{header: value})
    assert (answer.status, answer.slug) == (400, "bad-request")
    assert (await east.ask("GET", WEB)).status == 404


async def test_a_body_may_be_yaml(east: Served) -> None:
    answer = await east.ask("PUT", WEB, b"global: true\n", Content_Type="application/yaml")
    assert answer.status == 200
    assert (await east.get(WEB))["global"] is True
