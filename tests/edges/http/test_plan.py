"""Plans: what they say is what then happens, in every perspective, and they change nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any

import orjson
import pytest

from meshd.core.table_diff import diff_tables
from meshd.core.what_if import Effect, ServiceEffect
from meshd.edges.http.apply import decide_all
from meshd.edges.http.diffs import effect_item
from meshd.model.ids import ClusterName, LogId, Seq, ServiceKey, parse_vector
from meshd.model.table import GlobalService, Origin
from tests.edges.http.served import Answer, Served, serve_cluster
from tests.mesh import Mesh, Running, endpoint, service

YAML = "application/yaml"
NAMES = ("east", "west", "south")
Table = dict[ServiceKey, GlobalService]


@dataclass(slots=True)
class World:
    """East, which is asked, and the others."""

    east: Served
    west: Running
    south: Running

    async def plan(self, text: str = "", query: str = "") -> Answer:
        raw = text.encode() if text else None
        headers = {"Content_Type": YAML} if text else {}
        return await self.east.ask("POST", f"/v1/plan{query}", raw, **headers)

    async def planned(self, text: str = "", query: str = "") -> Any:
        answer = await self.plan(text, query)
        assert answer.status == 200, answer.body
        return answer.json

    def everything(self) -> tuple[object, ...]:
        """All that a plan could have changed here."""
        projector = self.east.node.projector
        return (
            projector.vector(),
            projector.log_vector(),
            projector.tables.digest,
            self.tables(),
        )

    def tables(self) -> dict[str, Table]:
        """Every cluster's table as east derives it, but for origins."""
        projector = self.east.node.projector
        origin = Origin(LogId(""), Seq(0), 0, "")
        found, keys = {}, projector.tables.keys()
        for name in NAMES:
            views = {key: projector.tables.view(key) for key in keys}
            seen = views if name == "east" else self._seen_by(ClusterName(name))
            found[name] = {
                key: replace(
                    view,
                    backends=tuple(replace(one, origin=origin) for one in view.backends),
                )
                for key, view in seen.items()
                if view is not None
            }
        return found

    def _seen_by(self, name: ClusterName) -> Table:
        node = self.east.node
        return dict(node.projector.tables_as(name, node.peers.vector_of(name)))


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """Give three clusters that know each other: web in all, cart in east and west, own in east."""
    mesh = Mesh(NAMES, overrides=("replication.heartbeat_every_s=0.1",))
    async with AsyncExitStack() as stack:
        east = await stack.enter_async_context(serve_cluster("east", mesh=mesh))
        west = await stack.enter_async_context(mesh.running("west"))
        south = await stack.enter_async_context(mesh.running("south"))
        for number, running in enumerate((east.meshd, west, south), 1):
            await running.submit(service(), endpoint("shop/web/a", f"10.{number}.0.1"))
        for running in (east.meshd, west):
            await running.submit(service("shop/cart"), endpoint("shop/cart/a"))
        await east.meshd.submit(
            service("shop/own", is_shared=False),
            endpoint("shop/own/a"),
            endpoint("shop/web/b", "10.1.0.2", ready=False),
        )
        await east.meshd.until_count("shop/web", 3)
        await east.meshd.until_count("shop/cart", 2)
        # What the others see is told by what their heartbeats say that they read.
        vector_of = east.node.peers.vector_of
        await east.meshd.until(
            lambda: all(set(NAMES) <= set(vector_of(ClusterName(name)) or ()) for name in NAMES[1:])
        )
        yield World(east, west, south)


FILES = {
    "nothing": """
apiVersion: v1
kind: Secret
metadata: {name: api}
""",
    "an endpoint goes out": """
apiVersion: meshd.io/v1
kind: Endpoint
metadata: {name: a, namespace: shop}
spec: {service: web, address: 10.1.0.1, ready: false}
""",
    "a service is redefined": """
apiVersion: meshd.io/v1
kind: Service
metadata: {name: web, namespace: shop, labels: {team: a}}
spec: {global: true, affinity: remote, ports: [{port: 81, name: http}, {port: 82, name: more}]}
""",
    "a service is no longer shared": """
apiVersion: meshd.io/v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {global: true, shared: false, affinity: local, ports: [{port: 80, name: http}]}
""",
    "a service is no longer global, another is shared, a third is new": """
apiVersion: meshd.io/v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {ports: [{port: 80, name: http}]}
---
apiVersion: meshd.io/v1
kind: Service
metadata: {name: own, namespace: shop}
spec: {global: true, ports: [{port: 80, name: http}]}
---
apiVersion: meshd.io/v1
kind: Endpoints
metadata: {name: new, namespace: shop}
spec: {endpoints: [{address: 10.9.0.1}, {address: 10.9.0.2, weight: 0}]}
---
apiVersion: meshd.io/v1
kind: Service
metadata: {name: new, namespace: shop}
spec: {global: true}
""",
}


@pytest.mark.parametrize("text", FILES.values(), ids=FILES.keys())
async def test_a_plan_says_what_applying_then_does(world: World, text: str) -> None:
    before, tables = world.everything(), world.tables()
    planned = await world.planned(text)
    assert world.everything() == before, "a plan changed something"
    applied = await world.east.apply(text)
    assert applied.status == 200
    assert planned["events"] == applied.json["events"]
    assert planned["applied"] == applied.json["applied"]
    assert planned["ignored"] == applied.json["ignored"]
    after = world.tables()
    assert [one["perspective"] for one in planned["perspectives"]] == ["east", "south", "west"]
    for one in planned["perspectives"]:
        name = one["perspective"]
        assert one == _effect(name, tables[name], after[name])


def _effect(name: str, before: Table, after: Table) -> Any:
    """The difference that is really there, as it would be planned."""

    def eligible(table: Table, key: ServiceKey) -> int | None:
        return len(table[key].eligible) if key in table else None

    services = tuple(
        ServiceEffect(diff, eligible(before, diff.key), eligible(after, diff.key))
        for diff in diff_tables(before, after)
    )
    return orjson.loads(orjson.dumps(effect_item(Effect(ClusterName(name), services))))


async def test_removals_beside_a_file(world: World) -> None:
    before = world.everything()
    query = "?remove=service/shop/own&remove=endpoint/shop/web/a"
    planned = await world.planned(FILES["a service is redefined"], query)
    assert planned["removed"] == ["service/shop/own", "endpoint/shop/web/a"]
    assert planned["events"] == 3
    own = planned["perspectives"][0]["services"]
    assert [(it["name"], it["change"]) for it in own] == [("own", "removed"), ("web", "changed")]
    gone = {it["name"] for it in own[1]["backends"] if it["change"] == "removed"}
    assert gone == {"a"}
    alone = await world.planned(query="?remove=endpoint/shop/cart/a&perspective=west")
    (west,) = alone["perspectives"]
    assert west["perspective"] == "west"
    assert [
        (it["name"], it["eligible_before"], it["eligible_after"]) for it in west["services"]
    ] == [("cart", 2, 1)]
    assert world.everything() == before


async def test_services_that_would_be_empty_are_named_first(world: World) -> None:
    planned = await world.planned(query="?remove=endpoint/shop/own/a")
    assert planned["empty"] == [
        {"perspective": "east", "namespace": "shop", "name": "own", "eligible_before": 1}
    ]
    fine = await world.planned(query="?remove=endpoint/shop/web/a")
    assert fine["empty"] == []
    assert fine["perspectives"][0]["services"], "this changes something"


@pytest.mark.parametrize(
    ("query", "slug", "what"),
    [
        ("", "bad-request", "nothing to plan"),
        ("?remove=service/shop/nothing", "invalid", "no service shop/nothing"),
        ("?remove=endpoint/shop/web/nothing", "invalid", "no endpoint shop/web/nothing"),
        ("?remove=node/n1", "invalid", "names nothing"),
        ("?remove=service/No", "invalid", "not a service name"),
        ("?remove=service/shop/web&perspective=mars", "not-found", "'mars'"),
        ("?prune=true", "bad-request", "unknown"),
        ("?" + "&".join(["remove=service/shop/web"] * 1001), "invalid", "at most 1000"),
    ],
)
async def test_what_can_not_be_planned(world: World, query: str, slug: str, what: str) -> None:
    answer = await world.plan(query=query)
    assert answer.slug == slug
    assert what in answer.json["detail"]


async def test_another_clusters_changes_are_for_that_cluster(world: World) -> None:
    text = FILES["an endpoint goes out"].replace("name: a,", "name: a, cluster: west,")
    answer = await world.plan(text)
    assert answer.slug == "invalid"
    (problem,) = answer.json["problems"]
    assert "in west" in problem["remedy"]


async def test_a_wrong_document_plans_nothing(world: World) -> None:
    answer = await world.plan(FILES["nothing"] + "---\nkind: 5\n")
    assert answer.slug == "invalid"
    assert answer.json["problems"][0]["where"].startswith("line")


async def test_backends_beyond_what_is_listed_are_counted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshd.edges.http.plan.BACKENDS_LISTED_MAX", 3)
    planned = await world.planned(query="?remove=service/shop/web")
    listed = [
        (len(service["backends"]), service["backends_omitted"])
        for one in planned["perspectives"]
        for service in one["services"]
    ]
    # East loses all four, the others its two.
    assert listed == [(3, 1), (0, 2), (0, 2)]


async def test_a_peer_that_is_not_known_yet_is_named() -> None:
    mesh = Mesh(("east", "west"))
    mesh.etcds["west"].set_up(up=False)
    async with serve_cluster("east", mesh=mesh) as east:
        await east.define()
        answer = await east.ask("POST", "/v1/plan?remove=endpoint/shop/web/a")
        assert answer.json["unknown"] == ["west"]
        assert [one["perspective"] for one in answer.json["perspectives"]] == ["east"]


async def test_a_plan_is_of_one_moment_whatever_is_written_meanwhile(world: World) -> None:
    """It is large enough to be decided in several portions, between which others may write."""
    endpoints = ", ".join(
        f"{{name: n{number}, address: 10.8.{number // 200}.{number % 200 + 1}}}"
        for number in range(3000)
    )
    text = (
        "apiVersion: meshd.io/v1\nkind: Endpoints\n"
        f"metadata: {{name: web, namespace: shop}}\nspec: {{endpoints: [{endpoints}]}}\n"
    )
    expected = (await world.planned(text))["events"]
    written = 0
    async with asyncio.TaskGroup() as tasks:
        planning = tasks.create_task(world.planned(text))
        while not planning.done():
            # What the plan says nothing of.
            await world.east.meshd.submit(endpoint("shop/own/a", f"10.7.0.{written % 200 + 1}"))
            written += 1
    planned = planning.result()
    assert planned["events"] == expected
    assert written > 1, "nothing was written meanwhile"
    changed = {it["name"] for it in planned["perspectives"][0]["services"]}
    assert changed == {"web"}, "what others wrote is none of the plan's"


async def test_a_plan_names_the_places_of_the_peers_that_it_was_made_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a peer wrote while a plan was decided is in its tables, and so in its vector."""

    async def while_west_writes(*args: Any) -> Any:
        decided = await decide_all(*args)
        await world.west.submit(endpoint("shop/web/late", "10.2.0.9"))
        await world.east.meshd.submit(endpoint("shop/web/mine", "10.1.0.9"))
        await world.east.meshd.until_count("shop/web", 5)
        return decided

    before = world.east.node.projector.vector()
    monkeypatch.setattr("meshd.edges.http.plan.decide_all", while_west_writes)
    planned = await world.planned(query="?remove=endpoint/shop/web/a&perspective=east")
    ((web,),) = [one["services"] for one in planned["perspectives"]]
    assert (web["eligible_before"], web["eligible_after"]) == (4, 3), "with west's late one"
    after = world.east.node.projector.vector()
    east, west = ClusterName("east"), ClusterName("west")
    assert (before[east], before[west]) != (after[east], after[west])
    # Its own place is that of the decision.
    assert parse_vector(planned["vector_text"]) == {**after, east: before[east]}
