"""Applying in somebody's name: others' things are kept, and what an owner no longer has goes."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from meshd.model.command import Outcome, Submission
from meshd.model.errors import TransientError
from meshd.runtime.guards import Guards
from meshd.runtime.ports import Txn, TxnResult
from tests.edges.http.served import Answer, Served, serve_cluster
from tests.mesh import Mesh

SHOP = """
apiVersion: meshd.io/v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {global: true, ports: [{port: 80}]}
---
apiVersion: meshd.io/v1
kind: Endpoints
metadata: {name: web, namespace: shop}
spec: {endpoints: [{name: a, address: 10.0.0.1}]}
"""
CART = """
---
apiVersion: meshd.io/v1
kind: Service
metadata: {name: cart, namespace: shop}
---
apiVersion: meshd.io/v1
kind: Endpoint
metadata: {name: c, namespace: shop}
spec: {service: cart, address: 10.0.0.3}
---
apiVersion: meshd.io/v1
kind: Node
metadata: {name: n1}
spec: {addresses: [10.0.1.1]}
---
apiVersion: meshd.io/v1
kind: Identity
metadata: {name: cart}
spec: {labels: {app: cart}}
"""
OWNER = "meshd.io/owner"


def gone(answer: Answer) -> list[str]:
    assert answer.status == 200, answer.body
    names = [(one["kind"], one["namespace"], one["name"]) for one in answer.json["removed"]]
    return ["/".join(filter(None, name)) for name in names]


async def owner_of(east: Served, path: str) -> str | None:
    return (await east.get(path))["labels"].get(OWNER)  # type: ignore[no-any-return]


async def test_everything_applied_is_its_owners(east: Served) -> None:
    result = (await east.apply(SHOP + CART, "?owner=blue")).json
    assert [item["change"] for item in result["applied"]] == ["created"] * 6
    for path in (
        *("/v1/services/shop/web", "/v1/services/shop/web/endpoints/a"),
        *("/v1/services/shop/cart/endpoints/c", "/v1/nodes/n1"),
    ):
        assert await owner_of(east, path) == "blue"
    (identity,) = (await east.get("/v1/identities"))["items"]
    # Its labels are what it is, so its owner stands elsewhere.
    assert (identity["labels"], identity["source"]) == ({"app": "cart"}, "Owner/blue")
    assert (await east.apply(SHOP + CART, "?owner=blue")).json["events"] == 0
    # Without an owner, it stays whose it is.
    assert (await east.apply(SHOP + CART)).json["events"] == 0


async def test_what_has_no_owner_is_adopted_and_what_has_another_is_refused(east: Served) -> None:
    await east.apply(SHOP)
    assert (await east.apply(SHOP, "?owner=blue")).json["events"] == 2
    answer = await east.apply(SHOP, "?owner=green&dry_run=true")
    assert answer.slug == "invalid"
    assert [(one["where"], one["what"]) for one in answer.json["problems"]] == [
        ("line 2 Service shop/web", "service shop/web belongs to blue, not to green"),
        ("line 7 Endpoints shop/web", "endpoint shop/web/a belongs to blue, not to green"),
    ]
    assert "--take-over" in answer.json["problems"][0]["remedy"]
    taken = await east.apply(SHOP, "?owner=green&take_over=true")
    paths = [one["path"] for item in taken.json["applied"] for one in item["changes"]]
    assert paths == [f"labels.{OWNER}", f"endpoints.a.labels.{OWNER}"]
    assert await owner_of(east, "/v1/services/shop/web") == "green"


async def test_what_an_owner_no_longer_has_is_removed_and_nothing_else(east: Served) -> None:
    await east.apply(SHOP + CART, "?owner=blue")
    await east.apply(SHOP.replace("name: web", "name: free"))
    await east.apply(SHOP.replace("name: web", "name: other"), "?owner=green")
    await east.ask("PUT", "/v1/services/shop/web/endpoints/registered", {"address": "10.0.0.9"})
    dry = await east.apply(SHOP, "?owner=blue&prune=true&dry_run=true")
    acted = await east.apply(SHOP, "?owner=blue&prune=true")
    assert gone(dry) == gone(acted) == ["Service/shop/cart", "Node/n1", "Identity/65792"]
    # A service takes its endpoint along, in the same record.
    assert (acted.json["events"], dry.json["events"]) == (3, 3)
    records = east.node.projector.ring.after(east.meshd.name, acted.json["first_seq"] - 1)
    assert records is not None
    (record,) = records
    assert record.last_seq == acted.json["last_seq"]
    names = [item["name"] for item in (await east.get("/v1/services"))["items"]]
    assert names == ["free", "other", "web"]
    endpoints = [item["name"] for item in (await east.get("/v1/endpoints"))["items"]]
    assert endpoints == ["a", "a", "a", "registered"]
    assert gone(await east.apply(SHOP, "?owner=blue&prune=true")) == []


async def test_an_endpoint_alone_is_removed_from_a_service_that_stays(east: Served) -> None:
    await east.apply(SHOP + CART, "?owner=blue")
    fewer = CART.replace("name: c,", "name: d,")
    pruning = "?owner=blue&prune=true"
    assert gone(await east.apply(SHOP + fewer, pruning)) == ["Endpoint/shop/cart/c"]
    moved = (SHOP + fewer).replace("endpoints: [", "service: cart, endpoints: [")
    assert gone(await east.apply(moved, pruning)) == ["Endpoint/shop/web/a"]


async def test_a_service_stays_while_others_or_the_request_have_endpoints_of_it(
    east: Served,
) -> None:
    await east.apply(SHOP, "?owner=blue")
    web = SHOP.split("---")[1]
    answer = await east.apply(web, "?owner=blue&prune=true")
    assert "no longer among the documents, but endpoints of it are" in answer.json["detail"]
    foreign = web.replace("name: web", "name: g")
    foreign = foreign.replace("endpoints: [{name: a", "service: web, endpoints: [{name: g")
    assert (await east.apply(foreign, "?owner=green")).status == 200
    answer = await east.apply(CART, "?owner=blue&prune=true")
    assert "its endpoint g belongs to green" in answer.json["detail"]
    assert len((await east.get("/v1/services"))["items"]) == 1


@pytest.mark.parametrize("text", ["", "# nothing\n", "apiVersion: v1\nkind: Secret\n"])
async def test_an_empty_apply_removes_everything_only_if_that_is_said(
    east: Served, text: str
) -> None:
    await east.apply(SHOP + CART, "?owner=blue")
    answer = await east.apply(text, "?owner=blue&prune=true")
    assert answer.status in {400, 422}
    assert len((await east.get("/v1/services"))["items"]) == 2
    emptied = await east.apply(text, "?owner=blue&prune=true&allow_empty=true")
    assert gone(emptied) == [
        *("Service/shop/cart", "Service/shop/web", "Node/n1", "Identity/65792"),
    ]
    assert (await east.get("/v1/endpoints"))["items"] == []


@pytest.mark.parametrize(
    ("query", "what"),
    [
        ("?prune=true", "needs an owner"),
        ("?take_over=true", "needs an owner"),
        ("?owner=", "is not an owner's name"),
        ("?owner=a%20b", "is not an owner's name"),
        ("?owner=a&prune=yes", "is none of"),
        ("?expect_position=5", "is not a position"),
    ],
)
async def test_what_is_wrong_with_the_query_is_told(east: Served, query: str, what: str) -> None:
    answer = await east.apply(SHOP, query)
    assert answer.status in {400, 422}
    assert what in answer.json["detail"]
    assert (await east.get("/v1/services"))["items"] == []


async def test_a_label_that_says_another_owner_is_a_contradiction(east: Served) -> None:
    named = "name: web, namespace: shop"
    said = SHOP.replace(named, f"{named}, labels: {{{OWNER}: green}}", 1)
    answer = await east.apply(said, "?owner=blue")
    assert f"its label {OWNER} says green, but it is applied as blue's" in answer.json["detail"]
    assert (await east.apply(said)).status == 200
    assert await owner_of(east, "/v1/services/shop/web") == "green"


async def test_an_apply_may_be_meant_for_the_state_that_was_shown(east: Served) -> None:
    shown = (await east.apply(SHOP, "?dry_run=true")).json["decided_on"]
    await east.define("shop/elsewhere")
    moved = await east.apply(SHOP, f"?expect_position={shown}")
    assert (moved.status, moved.slug) == (409, "conflict")
    assert "nothing was done: look again" in moved.json["problems"][0]["remedy"]
    assert len((await east.get("/v1/services"))["items"]) == 1
    shown = (await east.apply(SHOP, "?dry_run=true")).json["decided_on"]
    done = await east.apply(SHOP, f"?expect_position={shown}", Idempotency_Key="k1")
    assert (done.status, done.json["decided_on"]) == (200, shown)
    # Sent again because its answer was lost, it is answered as done.
    again = await east.apply(SHOP, f"?expect_position={shown}", Idempotency_Key="k1")
    assert (again.status, again.json["repeated"]) == (200, True)


async def test_what_moves_between_deciding_and_writing_is_noticed(east: Served) -> None:
    shown = (await east.apply(SHOP, "?dry_run=true")).json["decided_on"]
    writer = east.node.writer
    submit = writer.submit

    async def late(submission: Submission, guards: Guards = ()) -> Outcome:
        writer.submit = submit  # type: ignore[method-assign]
        await east.define("shop/elsewhere")
        return await submit(submission, guards)

    writer.submit = late  # type: ignore[method-assign]
    moved = await east.apply(SHOP, f"?expect_position={shown}")
    assert (moved.status, moved.slug) == (409, "conflict")
    assert [item["name"] for item in (await east.get("/v1/services"))["items"]] == ["elsewhere"]


async def test_an_owners_label_fits_whatever_an_apply_is_cut_into(east: Served) -> None:
    """Portions are cut before it is known whose things are, so that they are the same each time."""
    owner = "o" * 63
    raw = _large(LARGE_COUNT)
    whole = await east.ask("POST", f"/v1/apply?owner={owner}", raw, Idempotency_Key="k1")
    assert (whole.status, whole.json["events"]) == (200, LARGE_COUNT)
    unowned = await east.ask("POST", "/v1/apply", raw, Idempotency_Key="k2")
    assert (unowned.status, unowned.json["events"]) == (200, 0)
    assert await owner_of(east, "/v1/nodes/n0") == owner


LARGE_COUNT = 2500


def _large(count: int) -> bytes:
    """Nodes, each a document of its own."""
    return orjson.dumps(
        [
            {
                "apiVersion": "meshd.io/v1",
                "kind": "Node",
                "metadata": {"name": f"n{number}"},
                "spec": {"addresses": [f"10.1.{number // 250}.{number % 250 + 1}"]},
            }
            for number in range(count)
        ]
    )


async def _apply(east: Served, raw: bytes, **headers: str) -> Answer:
    return await east.ask("POST", "/v1/apply?owner=blue&prune=true", raw, **headers)


async def test_more_than_a_record_holds_is_removed_in_portions_and_done_once() -> None:
    mesh = Mesh(("east",), overrides=("writer.submit_timeout_s=0.3",))
    async with serve_cluster(mesh=mesh) as east:
        made = (await _apply(east, _large(LARGE_COUNT))).json
        assert made["events"] == LARGE_COUNT
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
        changed = _large(1).replace(b"10.1.0.1", b"10.9.9.9")
        broken = await _apply(east, changed, Idempotency_Key="k1")
        assert broken.slug == "unavailable"
        east.meshd.kv.commit = commit  # type: ignore[method-assign]
        assert await _names(east) > 1
        result = (await _apply(east, changed, Idempotency_Key="k1")).json
        assert await _names(east) == 1
        assert 0 < len(result["removed"]) < LARGE_COUNT
        assert (await east.get("/v1/nodes/n0"))["addresses"] == ["10.9.9.9"]
        await _apply(east, _large(2))
        again = (await _apply(east, changed, Idempotency_Key="k1")).json
        assert (again["repeated"], again["removed"]) == (True, [])
        assert await _names(east) == 2


class _Failing:
    """Lets an own etcd take so many records of the local log, and no more until it is mended."""

    def __init__(self, east: Served) -> None:
        self._kv = east.meshd.kv
        self._commit = east.meshd.kv.commit
        self._left = 0

    def after(self, records: int) -> None:
        self._left = records
        self._kv.commit = self._try  # type: ignore[method-assign]

    def mended(self) -> None:
        self._kv.commit = self._commit  # type: ignore[method-assign]

    async def _try(self, txn: Txn) -> TxnResult:
        if b"/local/log/" in b"".join(getattr(put, "key", b"") for put in txn.success):
            self._left -= 1
            if self._left < 0:
                raise TransientError("the etcd went away")
        return await self._commit(txn)


@pytest.mark.parametrize(
    ("query", "count", "changed"),
    [
        pytest.param("", LARGE_COUNT, 1400, id="its first portion changes nothing"),
        pytest.param("&owner=blue&prune=true", 400, 300, id="it begins with what is removed"),
    ],
)
async def test_an_apply_that_was_begun_is_completed_though_the_log_moved_by_it(
    query: str, count: int, changed: int
) -> None:
    mesh = Mesh(("east",), overrides=("writer.submit_timeout_s=0.3",))
    async with serve_cluster(mesh=mesh) as east:
        assert (await _apply(east, _large(LARGE_COUNT))).status == 200
        shown = (await east.apply("", "?dry_run=true&allow_empty=true")).json["decided_on"]
        path = f"/v1/apply?expect_position={shown}{query}"
        nodes = orjson.loads(_large(LARGE_COUNT))[-count:]
        for node in nodes[-changed:]:
            node["spec"]["zone"] = "z"
        raw, failing = orjson.dumps(nodes), _Failing(east)
        failing.after(1)
        broken = await east.ask("POST", path, raw, Idempotency_Key="k1")
        assert (broken.slug, "were committed" in broken.json["detail"]) == ("unavailable", True)
        failing.mended()
        completed = await east.ask("POST", path, raw, Idempotency_Key="k1")
        assert completed.status == 200, completed.json
        zones = [one["zone"] for one in (await east.get("/v1/nodes"))["items"]]
        assert (len(zones), zones.count("z")) == (count, changed)


async def _names(east: Served) -> int:
    items: list[Any] = (await east.get("/v1/nodes"))["items"]
    return len(items)


async def test_a_key_that_looks_like_anothers_part_begins_nothing_of_it(east: Served) -> None:
    """Keys are the callers' own; whoever numbers them must not lose what `--diff` promises."""
    shown = (await east.apply(SHOP, "?dry_run=true")).json["decided_on"]
    said = {"addresses": ["10.1.0.1"]}
    assert (await east.ask("PUT", "/v1/nodes/n9", said, Idempotency_Key="k1-1")).status == 200
    moved = await east.apply(SHOP, f"?expect_position={shown}", Idempotency_Key="k1")
    assert (moved.status, moved.slug) == (409, "conflict")


async def test_what_is_removed_beside_an_apply_fits_whatever_its_key_is(east: Served) -> None:
    assert (await _apply(east, _large(LARGE_COUNT))).json["events"] == LARGE_COUNT
    key = "k" * 240
    result = await _apply(east, _large(1), Idempotency_Key=key)
    assert (result.status, await _names(east)) == (200, 1), result.json


@pytest.mark.parametrize("query", ["", "?owner=blue&prune=true"])
async def test_a_repeated_apply_leaves_alone_what_it_found_unchanged(
    east: Served, query: str
) -> None:
    """A portion that changed nothing left no key; that a later one did says that it was done."""
    raw = _large(LARGE_COUNT)
    assert (await east.ask("POST", f"/v1/apply{query}", raw)).status == 200
    nodes = orjson.loads(raw)
    nodes[-1]["spec"]["zone"] = "z"
    changed = orjson.dumps(nodes)
    done = await east.ask("POST", f"/v1/apply{query}", changed, Idempotency_Key="k1")
    assert (done.status, done.json["events"]) == (200, 1)
    elsewhere = {"addresses": ["10.9.9.9"], "labels": {OWNER: "blue"} if query else {}}
    assert (await east.ask("PUT", "/v1/nodes/n0", elsewhere)).status == 200
    again = await east.ask("POST", f"/v1/apply{query}", changed, Idempotency_Key="k1")
    assert (again.json["repeated"], again.json["events"]) == (True, 1)
    assert (await east.get("/v1/nodes/n0"))["addresses"] == ["10.9.9.9"]
