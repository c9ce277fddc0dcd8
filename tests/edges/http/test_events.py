"""Pages of history."""

from __future__ import annotations

from typing import Any

import msgpack
import orjson
import pytest

from meshd.core.telling import event_bytes
from meshd.model.event import Event, Told
from meshd.model.ids import ClusterName, LogId, Position, Seq
from tests.edges.http.served import Served, serve_cluster
from tests.mesh import Mesh, endpoint, service


async def test_an_event_is_a_cloud_event(east: Served) -> None:
    await east.ask("PUT", "/v1/services/shop/web", {"global": True}, Meshd_Actor="ann")
    event = (await east.get("/v1/events?after=1"))["items"][0]
    log_id = east.node.projector.log_ids[east.meshd.name]
    assert event.pop("time").endswith("Z")
    assert event.pop("data")["global"] is True
    assert event == {
        "specversion": "1.0",
        "id": f"east:{log_id}:2",
        "source": "meshd://east",
        "type": "io.meshd.service.set",
        "subject": "shop/web",
        "datacontenttype": "application/json",
        "meshdcluster": "east",
        "meshdseq": 2,
        "meshdactor": "ann",
    }


async def test_an_idempotency_key_stays_with_its_caller(east: Served) -> None:
    await east.ask("PUT", "/v1/services/shop/web", {}, Idempotency_Key="my-secret-key")
    assert "my-secret-key" not in str(await east.get("/v1/events"))


async def test_pages_hold_every_event_once_in_order(east: Served) -> None:
    await east.meshd.submit(service(), *(endpoint(f"shop/web/e{n}") for n in range(10)))
    seqs: list[int] = []
    after: int | None = 0
    while after is not None:
        page = await east.get(f"/v1/events?after={after}&limit=5")
        assert len(page["items"]) <= 5
        seqs += [item["meshdseq"] for item in page["items"]]
        after = page["next"]
    assert seqs == list(range(1, 13))


async def test_types_choose(east: Served) -> None:
    for key in ("shop/web", "shop/api"):
        await east.define(key)
    await east.ask("DELETE", "/v1/services/shop/web")

    async def subjects(query: str) -> list[Any]:
        return [item["subject"] for item in (await east.get("/v1/events?" + query))["items"]]

    assert await subjects("type=service.removed") == ["shop/web"]
    assert await subjects("type=io.meshd.service.set") == ["shop/web", "shop/api"]
    assert await subjects("type=service.set&type=service.removed&limit=2") == [
        "shop/web",
        "shop/api",
    ]
    assert await subjects("type=skip.set") == []


async def test_a_page_that_looked_far_enough_says_where_to_go_on(
    east: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshd.edges.http.events.SCAN_MAX", 1)
    monkeypatch.setattr("meshd.edges.http.events.LIMIT_MAX", 2)
    await east.define()
    await east.define("shop/api")
    page = await east.get("/v1/events?type=service.set&limit=1&after=2")
    assert page == {"items": [], "next": 4} or page["items"][0]["subject"] == "shop/api"
    page = await east.get("/v1/events?type=skip.set")
    assert page == {"items": [], "next": 2}


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "limit=x", "after=-1", "after=1.5", "after=east:1"]
)
async def test_wrong_numbers_are_refused(east: Served, query: str) -> None:
    answer = await east.ask("GET", "/v1/events?" + query)
    assert (answer.status, answer.slug) == (400, "bad-request")
    assert answer.json["problems"][0]["where"] == "?" + query.partition("=")[0]


@pytest.mark.parametrize("query", ["from=beginning", "since=0", "reset=snapshot"])
async def test_who_forgot_to_ask_for_a_stream_is_told_how(east: Served, query: str) -> None:
    answer = await east.ask("GET", f"/v1/events?{query}")
    assert (answer.status, answer.slug) == (400, "bad-request")
    assert "Accept: text/event-stream" in answer.json["detail"]


async def test_an_unknown_cluster_has_no_history(east: Served) -> None:
    assert (await east.ask("GET", "/v1/events?cluster=mars")).slug == "not-found"


async def test_history_goes_beyond_what_is_in_memory(east: Served) -> None:
    await east.define()
    before = await east.get("/v1/events")
    east.node.projector.ring.reset(east.meshd.name)
    assert await east.get("/v1/events") == before


async def test_a_peers_history_is_that_of_its_export_log() -> None:
    mesh = Mesh(("east", "west"), overrides=("replication.heartbeat_every_s=0.1",))
    async with serve_cluster("east", mesh=mesh) as east, mesh.running("west") as west:
        await west.submit(service(), endpoint("shop/web/a"), service("shop/own", is_global=False))
        await east.meshd.until(lambda: _kept_seq(east) == 3)
        items = (await east.get("/v1/events?cluster=west"))["items"]
        assert [item["subject"] for item in items] == ["west", "shop/web", "shop/web/a"]
        assert {item["source"] for item in items} == {"meshd://west"}


def _kept_seq(served: Served) -> int:
    """How far the copy of west's log has come."""
    return next(iter(served.node.peers)).store.durable_seq


class Strange:
    def __str__(self) -> str:
        return "strange"


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        ({"a": b"\x00\xff"}, {"a": "AP8="}),
        ({"a": {b"\x01": [1, (2, None)]}}, {"a": {"AQ==": [1, [2, None]]}}),
        ({"a": Strange(), "b": 1.5}, {"a": "strange", "b": 1.5}),
        ({"a": msgpack.Timestamp(1)}, {"a": str(msgpack.Timestamp(1))}),
        ({"a": float("nan")}, {"a": None}),
        (None, None),
    ],
)
def test_whatever_an_unknown_event_holds_comes_out_as_json(data: Any, shown: Any) -> None:
    position = Position(ClusterName("west"), LogId("0" * 32), Seq(5))
    told = Told(position, 1 << 62, Event("of.the.future", "key", data, "ann"))
    event = orjson.loads(event_bytes(told))
    assert event["data"] == shown
    assert event["type"] == "io.meshd.of.the.future"
    assert event["time"] == "9999-12-31T23:59:59.999Z"


def test_data_that_is_nested_without_end_is_cut() -> None:
    data: dict[str, Any] = {}
    for _ in range(500):
        data = {"a": data}
    position = Position(ClusterName("west"), LogId("0" * 32), Seq(5))
    assert "…" in event_bytes(Told(position, 1, Event("x", "key", data, "ann"))).decode()
