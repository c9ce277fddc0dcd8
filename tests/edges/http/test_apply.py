"""Many definitions at once: all or none, large ones in portions, repeated without effect."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from meshd.model.command import RemoveEndpoint
from meshd.model.errors import TransientError
from meshd.model.ids import ServiceKey
from meshd.runtime.ports import Txn, TxnResult
from tests.core.watched import Watched
from tests.edges.http.served import Answer, Served, serve_cluster
from tests.mesh import Mesh, endpoint

SHOP = """
apiVersion: meshd.io/v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {global: true, ports: [{port: 80}]}
---
apiVersion: meshd.io/v1
kind: Endpoints
metadata: {name: web, namespace: shop}
spec: {endpoints: [{name: a, address: 10.0.0.1}, {name: b, address: 10.0.0.2}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: web, namespace: shop}
"""
BROKEN = """
---
apiVersion: meshd.io/v1
kind: Service
metadata: {name: api, namespace: shop}
spec: {ports: [{port: 0}], colour: red}
"""


async def test_all_documents_become_one_record(east: Served) -> None:
    answer = await east.apply(SHOP, Meshd_Actor="ann")
    assert answer.status == 200
    result = answer.json
    assert (result["dry_run"], result["repeated"]) == (False, False)
    assert (result["events"], result["first_seq"], result["last_seq"]) == (3, 2, 4)
    assert result["position"].endswith(":4")
    assert _told(result) == [
        _applied("line 2", "Service", "created"),
        _applied("line 7", "Endpoints", "created"),
    ]
    assert result["removed"] == []
    (ignored,) = result["ignored"]
    assert (ignored["where"], ignored["kind"]) == ("line 12", "ConfigMap")
    assert ignored["reason"]
    head = east.node.projector.local_head
    assert head is not None
    records = east.node.projector.ring.after(east.meshd.name, 1)
    assert records is not None
    (record,) = records
    assert [event.actor for event in record.events] == ["ann"] * 3


def _told(result: dict[str, Any]) -> list[dict[str, str]]:
    """What became of each document, but for its fields."""
    fields = {"changes", "changes_count"}
    return [
        {name: value for name, value in item.items() if name not in fields}
        for item in result["applied"]
    ]


def _applied(where: str, kind: str, change: str) -> dict[str, str]:
    return {
        "where": where,
        "kind": kind,
        "namespace": "shop",
        "name": "web",
        "note": "",
        "change": change,
    }


async def test_the_same_again_changes_nothing_and_a_change_is_told_by_document(
    east: Served,
) -> None:
    await east.apply(SHOP)
    again = (await east.apply(SHOP)).json
    assert again["events"] == 0
    assert _changes(again) == ["unchanged", "unchanged"]
    smaller = SHOP.replace(", {name: b, address: 10.0.0.2}", "")
    changed = (await east.apply(smaller)).json
    assert _changes(changed) == ["unchanged", "updated"]
    assert changed["events"] == 1
    names = [item["name"] for item in (await east.get("/v1/endpoints"))["items"]]
    assert names == ["a"]


def _changes(result: dict[str, Any]) -> list[str]:
    return [item["change"] for item in result["applied"]]


async def test_what_changes_is_told_field_by_field(east: Served) -> None:
    def fields(answer: Answer) -> list[list[tuple[str, Any, Any]]]:
        applied = answer.json["applied"]
        assert all(item["changes_count"] == len(item["changes"]) for item in applied)
        return [
            [(one["path"], one["old"], one["new"]) for one in item["changes"]] for item in applied
        ]

    assert fields(await east.apply(SHOP, "?dry_run=true")) == [
        [("ports", None, [{"port": 80}]), ("global", None, True)],
        [
            ("endpoints.a", None, {"address": "10.0.0.1", "source": "Endpoints/shop/web"}),
            ("endpoints.b", None, {"address": "10.0.0.2", "source": "Endpoints/shop/web"}),
        ],
    ]
    await east.apply(SHOP)
    assert fields(await east.apply(SHOP)) == [[], []]
    changed = SHOP.replace("global: true", "global: true, spill: {below_percent: 50}")
    changed = changed.replace("{name: b, address: 10.0.0.2}", "{name: c, address: 10.0.0.2}")
    changed = changed.replace("address: 10.0.0.1", "address: 10.0.0.1, weight: 7")
    assert fields(await east.apply(changed)) == [
        [("spill.below_percent", 70, 50)],
        [
            ("endpoints.a.weight", 100, 7),
            ("endpoints.b", {"address": "10.0.0.2", "source": "Endpoints/shop/web"}, None),
            ("endpoints.c", None, {"address": "10.0.0.2", "source": "Endpoints/shop/web"}),
        ],
    ]


async def test_a_dry_run_says_what_would_change_and_changes_nothing(east: Served) -> None:
    result = (await east.apply(SHOP, "?dry_run=true")).json
    assert (result["dry_run"], result["events"]) == (True, 3)
    assert (result["first_seq"], result["last_seq"], result["position"]) == (None, None, None)
    assert _changes(result) == ["created", "created"]
    assert (await east.get("/v1/services"))["items"] == []
    assert east.node.projector.head(east.meshd.name).seq == 1  # type: ignore[union-attr]


async def test_an_apply_looks_for_its_sources_endpoints_among_no_others(east: Served) -> None:
    """Once all are looked through, to know each source's; then never again."""
    await east.apply(SHOP)
    state, web = east.node.projector.states[east.meshd.name], ServiceKey("shop", "web")
    watched = Watched(state.endpoints[web])
    state.endpoints[web] = watched
    for number in range(1, 4):
        other = SHOP.replace("10.0.0.2", f"10.0.1.{number}")
        result = (await east.apply(other, "?dry_run=true&owner=blue")).json
        assert _changes(result) == ["updated", "updated"]
    assert watched.passes <= 1


async def test_one_wrong_document_changes_nothing_and_all_problems_are_told(east: Served) -> None:
    for query in ("", "?dry_run=true"):
        answer = await east.apply(SHOP + BROKEN, query)
        assert (answer.status, answer.slug) == (422, "invalid")
        assert len(answer.json["problems"]) == 2
        assert all("line 17" in problem["where"] for problem in answer.json["problems"])
    assert (await east.get("/v1/services"))["items"] == []


@pytest.mark.parametrize("query", ["?dry_run=yes", "?dry_run=", "?dryrun=true"])
async def test_a_dry_run_is_never_misunderstood(east: Served, query: str) -> None:
    assert (await east.apply(SHOP, query)).slug == "bad-request"
    assert (await east.get("/v1/services"))["items"] == []


async def test_json_is_taken_as_one_document_or_a_list(east: Served) -> None:
    document = {"apiVersion": "meshd.io/v1", "kind": "Service", "metadata": {"name": "a"}}
    one = await east.ask("POST", "/v1/apply", document)
    assert one.json["applied"][0]["change"] == "created"
    two = await east.ask("POST", "/v1/apply", [document, document | {"metadata": {"name": "b"}}])
    assert _changes(two.json) == ["unchanged", "created"]


async def test_a_single_endpoint_is_told_by_what_became_of_it(east: Served) -> None:
    text = """
apiVersion: meshd.io/v1
kind: Endpoint
metadata: {name: a, namespace: shop}
spec: {service: web, address: 10.0.0.1}
"""
    changes = []
    for version in (text, text, text.replace("10.0.0.1", "10.0.0.2")):
        changes += _changes((await east.apply(version)).json)
    assert changes == ["created", "unchanged", "updated"]


async def test_an_apply_repeated_with_its_key_is_done_once(east: Served) -> None:
    first = await east.apply(SHOP, Idempotency_Key="k1")
    await east.ask("DELETE", "/v1/services/shop/web")
    again = await east.apply(SHOP, Idempotency_Key="k1")
    assert again.json["repeated"] is True
    assert again.json["events"] == first.json["events"]
    assert (await east.get("/v1/services"))["items"] == []


LARGE_COUNT = 2500


def _large(count: int = LARGE_COUNT) -> bytes:
    """More endpoints in one document than one submission may have."""
    endpoints = [
        {"name": f"e{n}", "address": f"10.1.{n // 250}.{n % 250 + 1}"} for n in range(count)
    ]
    service = {
        "apiVersion": "meshd.io/v1",
        "kind": "Service",
        "metadata": {"name": "big"},
        "spec": {"global": True},
    }
    one = {
        "apiVersion": "meshd.io/v1",
        "kind": "Endpoints",
        "metadata": {"name": "big"},
        "spec": {"endpoints": endpoints},
    }
    return orjson.dumps([service, one])


async def _apply_large(east: Served, **headers: str) -> Answer:
    return await east.ask("POST", "/v1/apply", _large(), **headers)


async def test_a_large_apply_is_committed_in_portions(east: Served) -> None:
    result = (await _apply_large(east, Idempotency_Key="k1")).json
    assert result["events"] == LARGE_COUNT + 1
    assert (result["first_seq"], result["last_seq"]) == (2, LARGE_COUNT + 2)
    assert _changes(result) == ["created", "created"]
    assert len((await east.get("/v1/endpoints"))["items"]) == LARGE_COUNT
    again = (await _apply_large(east, Idempotency_Key="k1")).json
    assert (again["repeated"], again["events"]) == (True, LARGE_COUNT + 1)
    assert _changes(again) == ["unchanged", "unchanged"]
    assert (await _apply_large(east)).json["events"] == 0


@pytest.mark.parametrize("mark", ["#", "§", "¬"])
async def test_no_callers_key_is_taken_for_that_of_a_portion(east: Served, mark: str) -> None:
    await _apply_large(east, Idempotency_Key="k1")
    answer = await east.apply(SHOP, Idempotency_Key=f"k1{mark}1")
    if mark == "#":
        assert (answer.json["repeated"], answer.json["events"]) == (False, 3)
    else:
        assert answer.status == 400
        assert "printable ASCII" in answer.json["detail"]


async def test_what_others_write_meanwhile_is_none_of_its_changes(east: Served) -> None:
    """It is decided in portions, between which others write what it speaks of as well."""
    await _apply_large(east)
    written = 0
    async with asyncio.TaskGroup() as tasks:
        dry = tasks.create_task(east.ask("POST", "/v1/apply?dry_run=true", _large()))
        while not dry.done():
            more = endpoint("default/big/more", source="Endpoints/default/big")
            await east.meshd.submit(RemoveEndpoint(more.key) if written % 2 else more)
            written += 1
    assert written > 1, "nothing was written meanwhile"
    result = dry.result().json
    assert (result["events"] == 0) == (_changes(result)[1] == "unchanged")


async def test_what_a_large_apply_no_longer_has_is_taken_away_in_portions(east: Served) -> None:
    await _apply_large(east)
    small = _large(1)
    result = (await east.ask("POST", "/v1/apply", small, Idempotency_Key="k2")).json
    assert result["events"] == LARGE_COUNT - 1
    assert _changes(result) == ["unchanged", "updated"]
    assert [item["name"] for item in (await east.get("/v1/endpoints"))["items"]] == ["e0"]
    await _apply_large(east)
    again = (await east.ask("POST", "/v1/apply", small, Idempotency_Key="k2")).json
    assert again["repeated"] is True
    assert len((await east.get("/v1/endpoints"))["items"]) == LARGE_COUNT


async def test_an_apply_that_stops_half_way_says_so_and_is_completed_by_the_same_request() -> None:
    mesh = Mesh(("east",), overrides=("writer.submit_timeout_s=0.3",))
    async with serve_cluster(mesh=mesh) as east:
        commit = east.meshd.kv.commit
        writes = 0

        async def commit_once(txn: Txn) -> TxnResult:
            nonlocal writes
            if b"/local/log/" in b"".join(getattr(put, "key", b"") for put in txn.success):
                writes += 1
                if writes > 1:
                    raise TransientError("the etcd went away")
            return await commit(txn)

        east.meshd.kv.commit = commit_once  # type: ignore[method-assign]
        answer = await _apply_large(east, Idempotency_Key="k1")
        assert (answer.status, answer.slug) == (503, "unavailable")
        assert "; 1 of 5 portions were committed, through seq " in answer.json["detail"]
        assert 0 < len((await east.get("/v1/endpoints"))["items"]) < LARGE_COUNT
        east.meshd.kv.commit = commit  # type: ignore[method-assign]
        completed = (await _apply_large(east, Idempotency_Key="k1")).json
        assert completed["repeated"] is False
        assert completed["events"] == LARGE_COUNT + 1
        assert len((await east.get("/v1/endpoints"))["items"]) == LARGE_COUNT
        history = await east.node.history.read(east.meshd.name, 0, 2 * LARGE_COUNT)
        assert len({told.event.key for told in history}) == len(history) == LARGE_COUNT + 2


async def test_the_boutique_of_kubernetes_is_taken_and_taken_again(east: Served) -> None:
    file = Path(__file__).parents[4] / "shared/data/boutique/kubernetes-manifests.yaml"
    if not file.exists():
        pytest.skip(f"{file} is not here")
    first = (await east.apply(file.read_text())).json
    services = [item for item in first["applied"] if item["kind"] == "Service"]
    assert len(services) == 12
    identities = [item for item in first["applied"] if item["kind"] == "Deployment"]
    assert len(identities) == 12
    assert all("read as an identity" in item["note"] for item in identities)
    assert {item["kind"] for item in first["ignored"]} == {"ServiceAccount"}
    assert (await east.apply(file.read_text())).json["events"] == 0
