"""Policies over real HTTP: the own ones and peers', checks, the matrix, the past, and plans."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

import pytest

from meshd.edges.http import plan_reach, reaching
from meshd.model.command import AllocateIdentity, SetPolicy, SetService
from meshd.model.ids import PolicyKey, ServiceKey
from meshd.model.policy import LabelSelector, Policy, Rule, RulePeer, RulePort
from meshd.model.service import Port, Service
from tests.edges.http.served import Served, serve_cluster
from tests.mesh import Mesh

QUICK = ("replication.heartbeat_every_s=0.1",)
YAML = "application/yaml"
SHOP = "meshd.io/namespace"
WEB = {"labels": {"app": "web"}}
POLICY = {
    "subjects": {"labels": {"app": "db"}},
    "ingress": [{"peers": [{"labels": WEB}], "ports": [{"port": 5432}]}],
}


def labels(app: str, namespace: str = "shop") -> dict[str, str]:
    return {"app": app, SHOP: namespace}


@pytest.fixture
async def east() -> AsyncIterator[Served]:
    """Give an east with web, db and cart in shop, and a west whose db lets in web alone."""
    mesh = Mesh(("east", "west"), overrides=(*QUICK, "cluster.audiences=eu"))
    async with serve_cluster("east", mesh=mesh) as east, mesh.running("west") as west:
        db = LabelSelector(labels={"app": "db"})
        web = RulePeer(labels=LabelSelector(labels={"app": "web"}))
        policy = Policy(subjects=db, ingress=(Rule(peers=(web,), ports=(RulePort(port=5432),)),))
        await west.submit(
            AllocateIdentity(labels("db")),
            SetService(ServiceKey("shop", "db"), Service(ports=(Port(5432),))),
            SetPolicy(PolicyKey("shop", "db"), policy),
            SetPolicy(PolicyKey("shop", "secret"), Policy(audiences=("eu",))),
        )
        for app in ("web", "db", "cart"):
            await east.ask("POST", "/v1/identities", {"labels": labels(app)})
        await east.meshd.until_ready("west")
        yield east


async def check(east: Served, source: str, destination: str, **more: str) -> Any:
    query = urlencode({"from": source, "to": destination, **more})
    return await east.get(f"/v1/policy/check?{query}")


async def test_a_policy_is_set_read_and_removed(east: Served) -> None:
    path = "/v1/policies/shop/web.v1"
    assert (await east.ask("PUT", path, POLICY)).json["events"] == 1
    found = await east.get(path)
    assert (found["name"], found["directions"], found["conditions"]) == ("web.v1", ["ingress"], [])
    assert found["ingress"][0]["ports"] == [
        {"protocol": "TCP", "port": 5432, "end_port": None, "name": ""}
    ]
    # What GET answers, PUT takes.
    assert (await east.ask("PUT", path, found)).json["events"] == 0
    assert (await east.ask("DELETE", path)).json["events"] == 1
    for method in ("GET", "DELETE"):
        assert (await east.ask(method, path)).slug == "not-found"


@pytest.mark.parametrize(
    ("name", "body", "where"),
    [
        ("Web", POLICY, "policy"),
        ("web", POLICY | {"name": "other"}, "name"),
        ("web", {"ingress": [{"peers": [{}]}]}, "ingress[0].peers[0]"),
        ("web", {"audiences": ["nowhere"]}, "policy shop/web audiences"),
        ("web", {"colour": "red"}, "colour"),
    ],
)
async def test_what_is_no_policy_is_refused(
    east: Served, name: str, body: dict[str, object], where: str
) -> None:
    answer = await east.ask("PUT", f"/v1/policies/shop/{name}", body)
    assert answer.slug == "invalid"
    assert [problem["where"] for problem in answer.json["problems"]] == [where]


async def test_a_policy_that_selects_nothing_is_taken_and_says_so(east: Served) -> None:
    nobody = {"subjects": {"labels": {"app": "new"}}, "labels": {"team": "a"}}
    assert (await east.ask("PUT", "/v1/policies/shop/new", nobody)).status == 200
    await east.ask("PUT", "/v1/policies/card/all", {})
    (item,) = (await east.get("/v1/policies?namespace=shop"))["items"]
    assert [one["type"] for one in item["conditions"]] == ["SelectsNothing"]
    assert [one["name"] for one in (await east.get("/v1/policies?label=team"))["items"]] == ["new"]
    await east.ask("POST", "/v1/identities", {"labels": labels("new")})
    assert (await east.get("/v1/policies/shop/new"))["conditions"] == []
    (theirs,) = (await east.get("/v1/policies?cluster=west"))["items"]
    assert (theirs["name"], theirs["audiences"], theirs["conditions"]) == ("db", ["mesh"], [])


async def test_a_check_says_by_which_rule_and_from_which_event(east: Served) -> None:
    found = await check(east, "shop/web@east", "shop/db@west:5432")
    assert found["verdict"] == "allowed"
    assert [side["direction"] for side in found["sides"]] == ["egress", "ingress"]
    rule = found["sides"][1]["rule"]
    assert (rule["name"], rule["direction"], rule["index"]) == ("db", "ingress", 0)
    assert (rule["origin"]["cluster"], rule["origin"]["seq"]) == ("west", 3)
    assert (await check(east, "shop/cart", "shop/db@west:5432"))["verdict"] == "denied"
    assert (await check(east, "shop/cart", "shop/db@west:5432"))["stale"] == []
    assert (await check(east, "192.0.2.1", "shop/db@west:5432"))["verdict"] == "denied"
    there = await check(east, "shop/db@west", "example.org:443")
    assert (there["verdict"], there["to"][0]["name"]) == ("allowed", "example.org")
    assert there["sides"][0]["policies"] == []
    nowhere = await check(east, "shop/web", "shop/app=db@south:5432")
    assert nowhere["verdict"] == "unknown"
    await east.ask("PUT", "/v1/policies/shop/out", {"directions": ["egress"]})
    assert (await check(east, "shop/web", "shop/app=db@south:5432"))["verdict"] == "denied"


@pytest.mark.parametrize(
    ("query", "slug"),
    [
        ("", "bad-request"),
        ("?from=shop/web", "bad-request"),
        ("?from=shop/web&to=" + "x" * 1025, "bad-request"),
        ("?from=shop/web&to=shop/db:1&protocol=ICMP", "bad-request"),
        ("?from=shop/web&to=shop/db", "invalid"),
        ("?from=shop/nobody&to=shop/db:1", "invalid"),
    ],
)
async def test_what_is_no_question_is_refused(east: Served, query: str, slug: str) -> None:
    assert (await east.ask("GET", f"/v1/policy/check{query}")).slug == slug


async def test_as_it_was(east: Served) -> None:
    await east.ask("PUT", "/v1/policies/shop/deny", {})
    at = (await east.get("/v1/tables"))["events_after"]
    await east.ask("DELETE", "/v1/policies/shop/deny")
    assert (await check(east, "shop/web", "shop/db:80"))["verdict"] == "allowed"
    then = await check(east, "shop/web", "shop/db:80", as_of=at)
    assert (then["verdict"], then["as_of"]) == ("denied", at)
    (item,) = (await east.get(f"/v1/policies?as_of={at}"))["items"]
    assert await east.get(f"/v1/policies/shop/deny?as_of={at}") == item | {
        "as_of": at,
        "unknown": [],
    }
    matrix = await east.get(f"/v1/policy/matrix?as_of={at}&to_cluster=east")
    assert (matrix["as_of"], matrix["items"]) == (at, [])
    history = await east.get("/v1/history/policy/shop/deny")
    assert [one["type"] for one in history["items"]] == [
        "io.meshd.policy.removed",
        "io.meshd.policy.set",
    ]


async def names(east: Served) -> dict[int, str]:
    """What each identity is called."""
    return {
        item["number"]: f"{item['labels']['app']}@{cluster}"
        for cluster in ("east", "west")
        for item in (await east.get(f"/v1/identities?cluster={cluster}"))["items"]
    }


def cells(items: Any, named: dict[int, str], field: str = "ports") -> dict[tuple[str, str], Any]:
    """What is told of each pair of identities, though those that are alike are told together."""
    return {
        (named[source], named[destination]): one[field]
        for one in items
        for source in one["from"]["numbers"]
        for destination in one["to"]["numbers"]
    }


async def test_the_matrix_in_pages(east: Served) -> None:
    await east.ask("PUT", "/v1/policies/shop/db", POLICY)
    named = await names(east)
    whole = await east.get("/v1/policy/matrix")
    found = cells(whole["items"], named)
    assert (whole["sources"], whole["destinations"], whole["next"]) == (4, 4, None)
    assert found["web@east", "db@west"] == found["web@east", "db@east"] == ["TCP/5432"]
    assert ("cart@east", "db@east") not in found
    assert found["db@east", "cart@east"] == ["all"]
    paged: dict[tuple[str, str], list[str]] = {}
    after: int | None = 0
    while after is not None:
        page = await east.get(f"/v1/policy/matrix?limit=1&after={after}")
        paged |= cells(page["items"], named)
        after = page["next"]
    assert paged == found
    some = await east.get("/v1/policy/matrix?from_cluster=west&to_namespace=shop")
    of_db = {key: ports for key, ports in found.items() if key[0] == "db@west"}
    assert cells(some["items"], named) == of_db
    nothing = await east.get("/v1/policy/matrix?from_namespace=card")
    assert (nothing["items"], nothing["next"]) == ([], None)


async def test_what_a_policy_would_change_is_planned(
    east: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: shop, name: db}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 5432}]}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {namespace: shop, name: new}
spec: {template: {metadata: {labels: {app: new}}}}
"""

    async def plan(query: str = "", body: str = "") -> Any:
        headers = {"Content_Type": YAML} if body else {}
        answer = await east.ask("POST", f"/v1/plan{query}", body.encode() or None, **headers)
        assert answer.status == 200, answer.body
        return answer.json

    before = await east.get("/v1/policy/matrix")
    reach = (await plan(body=text))["reach"]
    assert await east.get("/v1/policy/matrix") == before
    # And so it comes.
    was = cells(before["items"], await names(east))
    await east.apply(text)
    named = await names(east)
    now = cells((await east.get("/v1/policy/matrix"))["items"], named)
    old, new = (cells(reach["changes"], named, field) for field in ("old", "new"))
    assert {key: one["ports"] for key, one in old.items() if one["ports"]} == {
        key: ports for key, ports in was.items() if now.get(key) != ports
    }
    assert {key: one["ports"] for key, one in new.items() if one["ports"]} == {
        key: ports for key, ports in now.items() if was.get(key) != ports
    }
    assert new["web@east", "db@east"]["ports"] == ["TCP/5432"]
    assert ("web@east", "cart@east") not in new
    assert (reach["count"], reach["complete"]) == (len(reach["changes"]), True)
    undone = (await plan("?remove=policy/shop/db"))["reach"]
    assert {tuple(one["old"]["ports"]) for one in undone["changes"]} == {(), ("TCP/5432",)}
    assert (await east.ask("POST", "/v1/plan?remove=policy/shop/no")).slug == "invalid"
    assert (await plan("", SERVICE))["reach"] == {
        "changes": [],
        "count": 0,
        "complete": True,
    }
    monkeypatch.setattr(plan_reach, "PAIRS_MAX", 5)
    monkeypatch.setattr(plan_reach, "CHANGES_SHOWN_MAX", 1)
    cut = (await plan("?remove=policy/shop/db"))["reach"]
    assert (len(cut["changes"]), cut["complete"]) == (1, False)
    monkeypatch.setattr(reaching, "PAIRS_MAX", 0)
    assert (await east.get("/v1/policy/matrix"))["next"] == 1


SERVICE = """
apiVersion: meshd.io/v1
kind: Service
metadata: {namespace: shop, name: db}
spec: {ports: [{port: 1}]}
"""
