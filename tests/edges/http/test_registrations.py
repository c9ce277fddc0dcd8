"""Registrations and probes over real HTTP: what is answered, and what is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from meshd.edges.http import registrations
from tests.edges.http.served import Served, serve_cluster

ONE = "/v1/registrations/shop/web/vm"
SAID: dict[str, Any] = {"endpoint": {"address": "10.0.0.7"}, "ttl_s": 60, "holder": "host-1"}


@pytest.fixture
async def east() -> AsyncIterator[Served]:
    async with serve_cluster() as served:
        yield served


async def test_an_endpoint_is_registered_renewed_and_removed(east: Served) -> None:
    assert (await east.ask("PUT", ONE, SAID)).json["events"] == 1
    found = await east.get("/v1/services/shop/web/endpoints/vm")
    assert (found["address"], found["source"]) == ("10.0.0.7", "meshd.io/registration")
    before = found["origin"]["seq"]
    renewed = await east.ask("POST", f"{ONE}/renew?holder=host-1")
    assert renewed.json == {"renewed": 1, "gone": []}
    several = {"names": ["shop/web/vm", "shop/web/other", "shop/web/vm"], "holder": "host-1"}
    renewed = await east.ask("POST", "/v1/registrations/renew", several)
    assert renewed.json == {"renewed": 1, "gone": ["shop/web/other"]}
    # None of this was an event.
    assert (await east.ask("PUT", ONE, SAID)).json["last_seq"] == before
    assert (await east.ask("DELETE", f"{ONE}?holder=host-1")).json["events"] == 1
    for method, path in (("DELETE", ONE), ("POST", f"{ONE}/renew"), ("GET", ONE)):
        assert (await east.ask(method, path)).slug == "not-found"


@pytest.mark.parametrize(
    ("method", "path", "body", "slug", "word"),
    [
        ("PUT", ONE, SAID | {"holder": "host-2"}, "conflict", "registered by host-1"),
        ("DELETE", f"{ONE}?holder=host-2", None, "conflict", "registered by host-1"),
        ("POST", f"{ONE}/renew?holder=host-2", None, "not-found", "register it anew"),
        ("PUT", ONE, SAID | {"ttl_s": 1}, "invalid", "ttl_s"),
        ("PUT", ONE, {"endpoint": {"address": "x"}}, "invalid", "endpoint.address"),
        ("PUT", ONE, SAID | {"ttl": 5}, "invalid", "unknown field"),
        ("POST", "/v1/registrations/renew", {"names": ["x", "a/b/c"]}, "invalid", "names[0]"),
        ("PUT", "/v1/services/shop/web/endpoints/vm", {"address": "10.0.0.8"}, "invalid", "TTL"),
        ("DELETE", "/v1/services/shop/web/endpoints/vm", None, "invalid", "deregister"),
    ],
)
async def test_what_is_refused_changes_nothing(
    east: Served, method: str, path: str, body: object, slug: str, word: str
) -> None:
    await east.ask("PUT", ONE, SAID)
    before = await east.get("/v1/services/shop/web/endpoints/vm")
    answer = await east.ask(method, path, body)
    assert answer.slug == slug
    assert word.replace("TTL", "time to live") in answer.body.decode()
    assert await east.get("/v1/services/shop/web/endpoints/vm") == before


async def test_a_list_says_what_is_left_unless_it_is_long(
    east: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        await east.ask("PUT", f"/v1/registrations/shop/{name}/vm", SAID)
    await east.meshd.until(lambda: len(east.node.registrations.live) == 3)
    monkeypatch.setattr(registrations, "LEFT_MAX", 2)
    items = (await east.get("/v1/registrations"))["items"]
    assert [(item["service"], item["left_s"]) for item in items] == [
        ("a", None),
        ("b", None),
        ("c", None),
    ]
    (item,) = (await east.get("/v1/registrations?namespace=shop&service=b"))["items"]
    assert 50 < item["left_s"] <= 60
    assert (item["ttl_s"], item["holder"], item["actor"]) == (60, "host-1", "rest")


async def test_probes_are_shown_with_what_is_held(east: Served) -> None:
    web = {"ports": [{"port": 80}], "probe": {"type": "tcp", "interval_s": 60}}
    await east.ask("PUT", "/v1/services/shop/web", web)
    await east.ask("PUT", "/v1/services/shop/plain", {})
    for service in ("web", "plain"):
        path = f"/v1/services/shop/{service}/endpoints/a"
        await east.ask("PUT", path, {"address": "127.0.0.1", "probed": "failing"})
    await east.meshd.until(lambda: bool(east.node.prober.watched))
    found = await east.get("/v1/probes?namespace=shop")
    assert found["prober"] is True
    (item,) = found["items"]
    assert (item["service"], item["type"], item["result"]) == ("web", "tcp", "unknown")
    assert (item["held"], item["asked"]) == ("address-not-reachable", 0)
    assert (await east.get("/v1/probes?service=plain"))["items"] == []
    assert (await east.get("/v1/probes?namespace=else"))["items"] == []
