"""Drains, ramps and migrations over real HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from meshd.edges.http import operations
from meshd.model.command import DescribeCluster, Move, MoveOperation
from meshd.model.ids import ServiceKey
from meshd.model.peer import Phase
from tests.edges.http.served import Served, serve_cluster
from tests.mesh import Mesh, endpoint, service

QUICK = ("replication.heartbeat_every_s=0.1",)
SERVICE = "service/shop/web"
DRAIN: dict[str, object] = {"kind": "drain", "subjects": ["cluster"], "name": "one"}
SLOW = DRAIN | {"over_s": 3600, "steps": 4}
"""The second stage comes after a quarter of an hour: by then every test is over."""
STEPS = [{"percent": 50, "hold_s": 3600}, {"percent": 100}]
PLAN: dict[str, object] = {
    "name": "one",
    "from": "east",
    "to": "west",
    "services": ["shop/web"],
    "steps": STEPS,
}


class Pair:
    """East, which is asked, and its peer west; both have the shop's web."""

    def __init__(self, east: Served, west: Served) -> None:
        self.east = east
        self.west = west

    async def start(self, **more: object) -> Any:
        """Begin a slow drain of east."""
        answer = await self.east.ask("POST", "/v1/operations", SLOW | more)
        assert answer.status == 201, answer.body
        return answer.json

    async def one(self) -> Any:
        return await self.east.get("/v1/operations/one")

    async def until(self, what: Callable[[Any], bool]) -> Any:
        """Look at the operation until it is as it should be."""
        async with asyncio.timeout(30):
            while True:
                found = await self.one()
                if what(found):
                    return found
                await asyncio.sleep(0.05)

    async def shares(self) -> dict[str, int]:
        """What the table says of the traffic of web, by cluster, in percent."""
        table = await self.east.get("/v1/tables/shop/web")
        tiers = {tier["priority"]: tier for tier in table["tiers"]}
        found: dict[str, float] = {}
        for one in table["backends"]:
            tier = tiers[one["priority"]]
            if one["eligible"] and tier["share_ppm"]:
                share = tier["share_ppm"] * one["weight"] / tier["weight"]
                found[one["cluster"]] = found.get(one["cluster"], 0) + share
        return {name: round(share / 10_000) for name, share in found.items()}


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    mesh = Mesh(("east", "west"), overrides=QUICK)
    async with AsyncExitStack() as stack:
        east = await stack.enter_async_context(serve_cluster("east", mesh=mesh))
        west = await stack.enter_async_context(serve_cluster("west", mesh=mesh))
        await east.meshd.submit(service(), endpoint("shop/web/a", node="n1"))
        await west.meshd.submit(service(), endpoint("shop/web/b", "10.0.0.2"))
        await east.meshd.until_ready("west")
        await east.meshd.until_count("shop/web", 2)
        yield Pair(east, west)


def said(problems: list[dict[str, str]]) -> list[str]:
    return [f"{one['where']}: {one['what']} ({one['remedy']})" for one in problems]


# --- what is begun --------------------------------------------------------------------------------


async def test_a_drain_is_begun_watched_and_undone(pair: Pair) -> None:
    east = pair.east
    begun = await pair.start()
    assert (begun["name"], begun["dry_run"], begun["events"]) == ("one", False, 2)
    levels = [75, 50, 25, 0]
    assert begun["stages"] == [
        {
            "turned_percent": level,
            "shares_ppm": {
                "shop/web": {"east": level * 10_000, "west": (100 - level) * 10_000}
                if level
                else {"west": 1_000_000}
            },
        }
        for level in levels
    ]
    assert await pair.shares() == {"east": 75, "west": 25}
    one = await pair.one()
    assert {name: one[name] for name in ("kind", "progress", "stage", "before", "by")} == {
        "kind": "drain",
        "progress": "running",
        "stage": 1,
        "before": {"cluster": 100},
        "by": "rest",
    }
    assert one["turned_percent"] == {"cluster": 75}
    assert [stage["hold_s"] for stage in one["stages"]] == [900.0] * 4
    assert one["next_at"]
    assert (await east.get("/v1/operations"))["items"] == [one]
    (cluster, _) = (await east.get("/v1/clusters"))["items"]
    assert (cluster["name"], cluster["turned_percent"]) == ("east", 75)

    back = await east.ask("POST", "/v1/operations/one/rollback", {"reason": "enough"})
    assert (back.status, back.json["events"]) == (200, 2)
    one = await pair.one()
    assert (one["progress"], one["reason"], one["next_at"]) == ("rolled-back", "enough", None)
    assert await pair.shares() == {"east": 100}
    assert (await east.ask("DELETE", "/v1/operations/one")).json["events"] == 1
    for method, path in (("GET", "one"), ("DELETE", "one"), ("POST", "one/pause")):
        assert (await east.ask(method, f"/v1/operations/{path}")).slug == "not-found"
    assert (await east.get("/v1/operations"))["items"] == []


async def test_it_is_paused_and_resumed(pair: Pair) -> None:
    await pair.start()
    for move, events, progress in (
        ("pause", 1, "paused"),
        ("pause", 0, "paused"),
        ("resume", 1, "running"),
        ("resume", 0, "running"),
    ):
        answer = await pair.east.ask("POST", f"/v1/operations/one/{move}")
        assert answer.json["events"] == events
        assert (await pair.one())["progress"] == progress
    removed = await pair.east.ask("DELETE", "/v1/operations/one")
    assert said(removed.json["problems"]) == [
        "operation one: it is under way (roll it back, or wait until it is done)"
    ]


@pytest.mark.parametrize("subject", ["cluster", SERVICE, "endpoint/shop/web/a", "node/n1"])
async def test_everything_can_be_drained_at_once_and_brought_back(pair: Pair, subject: str) -> None:
    done = DRAIN | {"subjects": [subject]}
    assert (await pair.east.ask("POST", "/v1/operations", done)).status == 201
    assert (await pair.one())["progress"] == "done"
    assert await pair.shares() == {"west": 100}
    up = done | {"kind": "undrain", "name": "two", "to_percent": 60}
    assert (await pair.east.ask("POST", "/v1/operations", up)).status == 201
    # A tier that is turned down lets the rest overflow; an endpoint alone in its tier takes all.
    whole = {"east": 60, "west": 40} if subject in {"cluster", SERVICE} else {"east": 100}
    assert await pair.shares() == whole


async def test_what_is_dry_is_only_said(pair: Pair) -> None:
    before = (await pair.east.get("/v1/status"))["vector_text"]
    path = "/v1/operations?dry_run=true"
    answer = await pair.east.ask("POST", path, DRAIN)
    assert answer.status == 200
    assert answer.json == {
        "name": "one",
        "dry_run": True,
        "stages": [{"turned_percent": 0, "shares_ppm": {"shop/web": {"west": 1_000_000}}}],
        "too_little": [],
    }
    await pair.west.meshd.submit(endpoint("shop/web/b", "10.0.0.2", ready=False))
    await pair.east.meshd.until_count("shop/web", 1)
    assert (await pair.east.ask("POST", path, DRAIN)).slug == "conflict"
    forced = await pair.east.ask("POST", path, DRAIN | {"force": True})
    assert forced.json["stages"] == [{"turned_percent": 0, "shares_ppm": {"shop/web": {}}}]
    assert [one["where"] for one in forced.json["too_little"]] == ["service shop/web"]
    after = (await pair.east.get("/v1/status"))["vector_text"]
    assert before.partition(",")[0] == after.partition(",")[0]


async def test_services_without_endpoints_or_not_global_and_many_at_once(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "FORESEEN_MAX", 2)
    names = [f"shop/s{number}" for number in range(4)]
    for name in names:
        await pair.east.meshd.submit(service(name))
    await pair.east.meshd.submit(service("shop/own", is_global=False))
    subjects = [f"service/{name}" for name in (*names, "shop/own")]
    begun = await pair.start(subjects=subjects)
    assert [list(stage["shares_ppm"]) for stage in begun["stages"]] == [names[:2]] * 4
    assert (await pair.one())["turned_percent"] == dict.fromkeys(subjects, 75)


async def test_an_apply_in_the_middle_turns_nothing(pair: Pair) -> None:
    await pair.start(subjects=["cluster"])
    await pair.start(subjects=[SERVICE], name="two")
    await pair.start(subjects=["node/n1"], name="three")
    text = (
        "apiVersion: meshd.io/v1\nkind: Cluster\nmetadata: {name: east}\nspec: {weight: 90}\n---\n"
        "apiVersion: meshd.io/v1\nkind: Service\nmetadata: {namespace: shop, name: web}\n"
        "spec: {ports: [{port: 80, name: http}], global: true, affinity: local, weight: 80}\n---\n"
        "apiVersion: meshd.io/v1\nkind: Endpoint\nmetadata: {namespace: shop, name: a}\n"
        "spec: {service: web, address: 10.0.0.9, node: n1}\n---\n"
        "apiVersion: meshd.io/v1\nkind: Endpoint\nmetadata: {namespace: shop, name: c}\n"
        "spec: {service: web, address: 10.0.0.3, node: n1}\n"
    )
    before = (await pair.east.get("/v1/operations"))["items"]
    applied = await pair.east.apply(text)
    assert applied.status == 200, applied.body
    assert applied.json["events"] == 4
    assert (await pair.east.get("/v1/operations"))["items"] == before
    assert (await pair.east.get("/v1/services/shop/web"))["turned_percent"] == 75
    endpoints = (await pair.east.get("/v1/services/shop/web/endpoints"))["items"]
    assert {one["name"]: one["turned_percent"] for one in endpoints} == {"a": 75, "c": 75}
    assert (await pair.east.apply(text)).json["events"] == 0


async def test_a_repeated_request_begins_nothing_again(pair: Pair) -> None:
    nameless = {name: value for name, value in SLOW.items() if name != "name"}
    first = await pair.east.ask("POST", "/v1/operations", nameless, Idempotency_Key="k1")
    # What speaks against it meanwhile is itself, and that west has nothing any more.
    await pair.west.meshd.submit(endpoint("shop/web/b", "10.0.0.2", ready=False))
    await pair.east.meshd.until_count("shop/web", 1)
    again = await pair.east.ask("POST", "/v1/operations", nameless, Idempotency_Key="k1")
    assert (again.status, again.json["repeated"], again.json["events"]) == (201, True, 2)
    assert again.json["name"] == first.json["name"]
    assert again.json["last_seq"] == first.json["last_seq"]
    assert (again.json["stages"], again.json["dry_run"]) == ([], False)
    (one,) = (await pair.east.get("/v1/operations"))["items"]
    assert one["name"] == first.json["name"]
    other = await pair.east.ask("POST", "/v1/operations", nameless, Idempotency_Key="k2")
    assert other.slug == "invalid"


async def test_without_a_key_it_is_called_by_the_moment(pair: Pair) -> None:
    body = {"kind": "undrain", "subjects": ["cluster"]}
    names = [(await pair.east.ask("POST", "/v1/operations", body)).json["name"] for _ in range(3)]
    assert all(name.startswith("undrain-20") for name in names)
    assert len(set(names)) == 3
    assert len((await pair.east.get("/v1/operations"))["items"]) == 3


# --- what isn't -----------------------------------------------------------------------------------


async def test_what_nobody_else_could_take_is_named_and_forced_all_the_same(pair: Pair) -> None:
    for name in ("shop/alone", "shop/also"):
        await pair.east.define(name)
    answer = await pair.east.ask("POST", "/v1/operations", DRAIN)
    assert (answer.status, answer.slug) == (409, "conflict")
    assert answer.json["detail"] == "drain: 2 services would be left with too little"
    remedy = "bring up or mend endpoints of it elsewhere, lower the floor, or force it"
    assert said(answer.json["problems"]) == [
        f"service {name}: nobody else could take its traffic ({remedy})"
        for name in ("shop/alone", "shop/also")
    ]
    assert (await pair.east.get("/v1/operations"))["items"] == []
    forced = await pair.east.ask("POST", "/v1/operations", DRAIN | {"force": True})
    assert forced.status == 201
    assert len(forced.json["too_little"]) == 2


async def test_the_floor_is_what_must_be_left(pair: Pair) -> None:
    floor = DRAIN | {"floor_percent": 51}
    answer = await pair.east.ask("POST", "/v1/operations", floor)
    assert answer.json["detail"] == "drain: a service would be left with too little"
    (problem,) = answer.json["problems"]
    assert problem["what"] == "50 % of what is healthy would be left; the floor is 51 %"
    ok = await pair.east.ask("POST", "/v1/operations", DRAIN | {"floor_percent": 50})
    assert ok.status == 201


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"kind": "migration"}, "kind: a migration is started elsewhere (POST a plan to"),
        ({"kind": "stop"}, "kind: "),
        ({"name": "One"}, "operation: 'One' is not an operation's name (use a DNS label"),
        ({"name": 1}, "name: is not a text (put it in quotes)"),
        ({"subjects": []}, "subjects: "),
        ({"subjects": ["moon"]}, "subjects: 'moon' is nothing that can be turned"),
        ({"subjects": ["service/shop/x"]}, "subjects: this cluster has no service/shop/x (look"),
        ({"subjects": ["node/n7"]}, "subjects: this cluster has no node/n7 (look"),
        ({"steps": 0}, "steps: "),
        ({"over_s": -1.0}, "over_s: "),
        ({"to_percent": 101}, "to_percent: "),
        ({"colour": "red"}, "colour: unknown field"),
        ({"kind": "undrain", "to_percent": 20}, "stages: cluster is turned to 100 %, so 20 %"),
    ],
)
async def test_a_bad_drain_is_refused(pair: Pair, body: dict[str, object], expected: str) -> None:
    answer = await pair.east.ask("POST", "/v1/operations", DRAIN | body)
    assert answer.slug == "invalid"
    assert said(answer.json["problems"])[0].startswith(expected)
    assert (await pair.east.get("/v1/operations"))["items"] == []


async def test_two_operations_of_one_thing_are_refused(pair: Pair) -> None:
    await pair.start(subjects=[SERVICE])
    for path, body in (
        ("operations", DRAIN | {"name": "two", "subjects": [SERVICE]}),
        ("migrations", PLAN | {"name": "two"}),
    ):
        answer = await pair.east.ask("POST", f"/v1/{path}", body)
        assert answer.slug == "invalid"
        (problem,) = said(answer.json["problems"])
        assert problem == (
            f"subjects: {SERVICE} has an operation under way"
            " (wait for one (drain), or roll it back)"
        )
    again = await pair.east.ask("POST", "/v1/operations", SLOW)
    assert said(again.json["problems"])[0].startswith("operation one: it is under way already")


@pytest.mark.parametrize("body", [{"reason": 1}, {"reason": "x" * 1025}, {"why": "so"}])
async def test_what_is_no_reason(pair: Pair, body: dict[str, object]) -> None:
    await pair.start()
    answer = await pair.east.ask("POST", "/v1/operations/one/pause", body)
    assert answer.slug == "invalid"
    assert answer.json["problems"][0]["where"] == "reason"
    assert (await pair.one())["progress"] == "running"


# --- migrations -----------------------------------------------------------------------------------


async def test_a_migration_is_begun_and_rolled_back(pair: Pair) -> None:
    answer = await pair.east.ask("POST", "/v1/migrations", PLAN)
    assert answer.status == 201, answer.body
    assert [one["turned_percent"] for one in answer.json["stages"]] == [50, 0]
    one = await pair.one()
    assert (one["kind"], one["to"], one["on_trouble"]) == ("migration", "west", "rollback")
    assert await pair.shares() == {"east": 50, "west": 50}
    assert (await pair.east.ask("POST", "/v1/operations/one/rollback")).status == 200
    assert await pair.shares() == {"east": 100}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"from": "west", "to": "east"}, "from: is west, but this is east (start it at a meshd of"),
        ({"to": "east"}, "to: is where the services are moved from (name another cluster)"),
        ({"to": "north"}, "to: north is not followed here: what it can take isn't known (mend"),
        ({"services": ["web"]}, "services[0]: "),
        ({"services": ["shop/x"]}, "service shop/x: is not a global service of this cluster"),
        ({"steps": []}, "steps: "),
        ({"steps": [{"percent": 50}, {"percent": 40}]}, "steps: each must move more than the one"),
        ({"steps": [{"moved": 50}]}, "steps[0].moved: unknown field"),
        ({"conditions": {"healthy": 5}}, "conditions.healthy: unknown field"),
        ({"frm": "east"}, "frm: unknown field"),
        ({"name": "-"}, "operation: '-' is not an operation's name"),
    ],
)
async def test_a_bad_plan_is_refused(pair: Pair, body: dict[str, object], expected: str) -> None:
    answer = await pair.east.ask("POST", "/v1/migrations", PLAN | body)
    assert answer.slug == "invalid"
    assert any(one.startswith(expected) for one in said(answer.json["problems"])), answer.body
    assert (await pair.east.get("/v1/operations"))["items"] == []


async def refused(pair: Pair, **more: object) -> list[str]:
    """What is said against a migration, which is nevertheless begun where it is forced."""
    answer = await pair.east.ask("POST", "/v1/migrations", PLAN | more)
    assert answer.slug == "invalid"
    forced = {"force": True, "floor_percent": 0, "steps": [{"percent": 100}]}
    begun = await pair.east.ask("POST", "/v1/migrations", PLAN | forced | more)
    assert begun.status == 201, begun.body
    return said(answer.json["problems"])


async def test_a_cluster_without_the_service_can_not_take_it(pair: Pair) -> None:
    await pair.east.define("shop/own")
    (problem,) = await refused(pair, services=["shop/own"])
    assert problem == (
        "service shop/own: west doesn't have it for this cluster"
        " (define it in west, global and shared)"
    )


async def test_a_cluster_that_turns_it_away_itself_can_not_take_it(pair: Pair) -> None:
    """Two that hand the same service to each other would leave it to nobody."""
    theirs = PLAN | {"from": "west", "to": "east", "name": "theirs"}
    assert (await pair.west.ask("POST", "/v1/migrations", theirs)).status == 201
    await pair.east.meshd.until(lambda: theirs_turned(pair) == 50)
    (problem,) = await refused(pair)
    assert problem == (
        "to: west turns shop/web away itself: it is turned to 50 % there"
        " (mend that first, or force it)"
    )


async def test_a_cluster_that_is_drained_can_not_take_it(pair: Pair) -> None:
    drain = DRAIN | {"to_percent": 40}
    assert (await pair.west.ask("POST", "/v1/operations", drain)).status == 201
    await pair.east.meshd.until(lambda: theirs_turned(pair) == 40)
    assert "it is turned to 40 % there" in (await refused(pair))[0]


async def test_a_cluster_whose_endpoints_are_out_can_not_take_it(pair: Pair) -> None:
    await pair.west.meshd.submit(DescribeCluster(weight=0))
    await pair.east.meshd.until_count("shop/web", 1)
    assert await refused(pair) == [
        "to: west has no endpoint of shop/web that takes traffic (mend that first, or force it)"
    ]


async def test_a_cluster_out_of_sight_can_not_take_it(pair: Pair) -> None:
    pair.east.meshd.links["west"].set_linked(linked=False)
    await pair.east.meshd.until(lambda: pair.east.meshd.phase("west") is Phase.CONNECTING)
    assert await refused(pair) == [
        "to: west is Connecting here (wait until it is Ready: meshd get peers)"
    ]
    await pair.east.ask("POST", "/v1/operations/one/rollback")
    await pair.east.meshd.until(lambda: pair.east.meshd.phase("west") is Phase.STALE)
    assert (await refused(pair, name="two"))[0].startswith(
        "to: west is Stale here: what it can take isn't known (mend that first"
    )


async def test_an_error_rate_is_told_and_rolls_it_back(pair: Pair) -> None:
    plan = PLAN | {"conditions": {"error_percent_max": 1}}
    assert (await pair.east.ask("POST", "/v1/migrations", plan)).status == 201
    await pair.until(lambda one: one["waits_for"] is not None)
    path = "/v1/operations/one/signal"
    for body, where in (
        ({"error_percent": 101}, "error_percent"),
        ({"error_percent": "1"}, "error_percent"),
        ({}, "error_percent"),
        ({"error_percent": 1.0, "at": 5}, "at"),
    ):
        answer = await pair.east.ask("POST", path, body)
        assert answer.slug == "invalid"
        assert answer.json["problems"][0]["where"] == where
    told = await pair.east.ask("POST", path, {"error_percent": 0.5})
    assert (told.status, told.json["error_percent"]) == (202, 0.5)
    await pair.until(lambda one: one["waits_for"] is None)
    assert (await pair.one())["progress"] == "running"
    assert (await pair.east.ask("POST", path, {"error_percent": 2})).status == 202
    one = await pair.until(lambda one: one["progress"] == "rolled-back")
    assert one["reason"] == "2 % of requests fail, as was told; at most 1 % may"
    trail = (await pair.east.get("/v1/history/operation/one"))["items"]
    assert [item["actor"] for item in trail] == ["operation one of rest", "rest"]
    for name in ("none", "two"):
        answer = await pair.east.ask("POST", f"/v1/operations/{name}/signal", {"error_percent": 1})
        assert answer.slug == "not-found"


async def test_a_move_that_comes_too_late_is_none(pair: Pair) -> None:
    await pair.start()
    late = MoveOperation("one", Move.ADVANCE, from_stage=0)
    assert (await pair.east.meshd.submit(late)).events == 0


def theirs_turned(pair: Pair) -> int:
    """How far west has turned web up, as east has read it."""
    state = pair.east.node.projector.states["west"]  # type: ignore[index]
    found = state.service(ServiceKey.parse("shop/web"))
    assert found is not None
    assert state.info is not None
    return found.turned_percent * state.info.value.turned_percent // 100
