"""What a client may choose: filters, and where to begin: times, snapshots, resets."""

from __future__ import annotations

import asyncio

import pytest

from meshd.edges.http.limits import Limits
from meshd.model.command import RemoveEndpoint, RemoveService
from meshd.model.event import Event, EventType
from meshd.model.ids import EndpointKey, Head, ServiceKey, format_vector
from meshd.model.place import EventPlace
from meshd.runtime.shortening import cut, sum_up
from meshd.runtime.stored_log import LOCAL, open_log
from tests.edges.http.served import Served, Stream, serve_cluster
from tests.logs import LOG_ID, OTHER_LOG_ID, WEST, Log
from tests.mesh import endpoint, service
from tests.runtime.appending import SPACE
from tests.runtime.test_projector import logged, read

FOREIGN = "0" * 32
STREAM = "text/event-stream"
WESTERN = Event("service.set", "shop/west", {"global": True}, "ann")
GADGET = Event("gadget.set", "shop/odd", {"size": 1}, "ann")


async def fill(east: Served) -> None:
    """Eight events beside the cluster's own."""
    await east.meshd.submit(service("shop/web", labels={"color": "red"}))
    await east.meshd.submit(endpoint("shop/web/a", labels={"color": "red"}))
    await east.meshd.submit(service("bank/web"), endpoint("bank/web/a"))
    await east.meshd.submit(endpoint("shop/web/b"))
    await east.meshd.submit(RemoveEndpoint(EndpointKey.parse("shop/web/a")))
    await east.meshd.submit(RemoveService(ServiceKey.parse("bank/web")))
    await east.meshd.submit(service("shop/last", labels={"color": "red", "last": "1"}))


def told(items: list[dict[str, str]]) -> list[str]:
    return [f"{item['type'].removeprefix('io.meshd.')} {item['subject']}" for item in items]


async def events(stream: Stream, count: int) -> list[str]:
    return told([(await stream.event()).json for _ in range(count)])


CHOICES = {
    "type=service.set": ["service.set shop/web", "service.set bank/web", "service.set shop/last"],
    "type=io.meshd.service.removed&type=endpoint.removed": [
        "endpoint.removed shop/web/a",
        "service.removed bank/web",
    ],
    "namespace=bank": [
        "service.set bank/web",
        "endpoint.set bank/web/a",
        "service.removed bank/web",
    ],
    "service=shop/web&type=endpoint.set": ["endpoint.set shop/web/a", "endpoint.set shop/web/b"],
    "label=color=red": [
        "service.set shop/web",
        "endpoint.set shop/web/a",
        "endpoint.removed shop/web/a",
        "service.removed bank/web",
        "service.set shop/last",
    ],
    "label=color=red&label=last&namespace=shop": [
        "endpoint.removed shop/web/a",
        "service.set shop/last",
    ],
}


@pytest.mark.parametrize("query", CHOICES)
async def test_a_list_and_a_stream_of_what_was_and_of_what_comes_choose_alike(
    east: Served, query: str
) -> None:
    async with east.stream(f"?{query}") as of_now:
        await fill(east)
        expected = CHOICES[query]
        assert told((await east.get(f"/v1/events?{query}"))["items"]) == expected
        assert await events(of_now, len(expected)) == expected
        async with east.stream(f"?from=beginning&{query}") as of_all:
            assert await events(of_all, len(expected)) == expected
            place = of_all.last_id
        after = (await east.get("/v1/events"))["items"][-1]["meshdseq"]
        await fill(east)
        expected = told((await east.get(f"/v1/events?after={after}&{query}"))["items"])
        async with east.stream(f"?{query}", Last_Event_ID=place) as resumed:
            assert await events(resumed, len(expected)) == expected


WRONG = ("type=gadget.set", "type=", "namespace=Shop", "service=web", "label=%3Dx", "filter=x")


@pytest.mark.parametrize("query", WRONG)
async def test_a_filter_that_means_nothing_is_refused(east: Served, query: str) -> None:
    for accept in (STREAM, "application/json"):
        answer = await east.ask("GET", f"/v1/events?{query}", Accept=accept)
        assert (answer.status, answer.slug) == (400, "bad-request")
        problem = answer.json["problems"][0]
        assert problem["where"] == "?" + query.partition("=")[0]
        if query.startswith("type"):
            assert all(kind in problem["remedy"] for kind in EventType)


async def test_a_type_that_only_a_newer_meshd_knows_may_be_asked_for_where_it_is(
    east: Served,
) -> None:
    read(east.node.projector, WEST, Log(Head.genesis(LOG_ID)))
    async with east.stream() as stream:
        east.node.projector.fold(WEST, logged(GADGET).records[0])
        assert await events(stream, 1) == ["gadget.set shop/odd"]
    async with east.stream("?type=gadget.set&from=beginning") as stream:
        assert await events(stream, 1) == ["gadget.set shop/odd"]


# --- where to begin -------------------------------------------------------------------------------


async def test_a_snapshot_is_everything_that_exists_and_then_every_change(east: Served) -> None:
    await fill(east)
    async with east.stream("?from=snapshot") as stream:
        assert stream.first.event == "meshd.snapshot.begin"
        assert stream.first.json == {"clusters": ["east"]}
        kept = ["cluster.set east", "service.set shop/web", "endpoint.set shop/web/b"]
        assert await events(stream, 4) == [*kept, "service.set shop/last"]
        # Until its end there is no place to go on from.
        assert stream.last_id == ""
        end = await stream.event()
        at = format_vector(east.node.projector.log_vector())
        assert (end.event, end.json) == ("meshd.snapshot.end", {"items": 4, "vector": at})
        assert end.id == stream.last_id
        assert end.id.partition("~")[0] == at
        await east.define("shop/new")
        assert await events(stream, 2) == ["service.set shop/new", "endpoint.set shop/new/a"]
    async with east.stream("?from=snapshot", Last_Event_ID=at) as stream:
        assert stream.first.data is None
        assert await events(stream, 1) == ["service.set shop/new"]


async def test_the_items_of_a_snapshot_are_the_events_of_the_log(east: Served) -> None:
    await fill(east)
    listed = {item["id"]: item for item in (await east.get("/v1/events"))["items"]}
    async with east.stream("?from=snapshot&type=service.set&namespace=shop") as stream:
        for _ in range(2):
            item = (await stream.event()).json
            assert listed[item["id"]] == item
        assert (await stream.event()).json["items"] == 2


async def test_a_snapshot_of_many_things_comes_in_pieces(east: Served) -> None:
    for turn in range(3):
        await east.meshd.submit(*(endpoint(f"shop/web/e{turn}-{n}") for n in range(300)))
    async with east.stream("?from=snapshot") as stream:
        assert len(set(await events(stream, 901))) == 901
        assert (await stream.event()).json["items"] == 901


async def test_who_takes_a_snapshot_too_slowly_is_cut() -> None:
    limits = Limits(send_timeout_s=0, send_bytes_per_s_min=1 << 60)
    async with serve_cluster(limits=limits) as east:
        await east.meshd.submit(*(endpoint(f"shop/web/e{n}") for n in range(300)))
        async with asyncio.timeout(20), east.stream("?from=snapshot") as stream:
            while (found := await stream.frame()) is not None:
                assert found.event != "meshd.snapshot.end"


async def test_a_time_is_where_the_events_of_then_and_later_begin(east: Served) -> None:
    clock = east.node.clock
    await east.define("shop/old")
    before_ms = clock.wall_ms()
    while clock.wall_ms() == before_ms:  # noqa: ASYNC110 a clock tells nobody
        await asyncio.sleep(0)
    await east.define("shop/new")
    items = (await east.get("/v1/events"))["items"]
    for since in (items[3]["time"], str(before_ms + 1)):
        async with east.stream(f"?since={since}") as stream:
            assert await events(stream, 2) == ["service.set shop/new", "endpoint.set shop/new/a"]
    async with east.stream(f"?since={items[0]['time']}") as stream:
        assert await events(stream, 1) == ["cluster.set east"]
    async with east.stream("?since=2999-01-01T00:00:00Z&cluster=east") as stream:
        await east.define("shop/newest")
        assert await events(stream, 1) == ["service.set shop/newest"]


@pytest.mark.parametrize("query", ["since=yesterday", "since=", "since=2026-01-01T00:00:00"])
async def test_a_time_that_is_none_is_refused(east: Served, query: str) -> None:
    answer = await east.ask("GET", f"/v1/events?{query}", Accept=STREAM)
    assert (answer.status, answer.slug) == (400, "bad-request")
    assert answer.json["problems"][0]["where"] == "?since"


async def shorten(east: Served) -> None:
    """Have a snapshot stand in the log twice, and cut it at the first."""
    for _ in range(2):
        await fill(east)
        log = await open_log(east.meshd.kv, SPACE, LOCAL)
        await sum_up(east.meshd.kv, log, lambda: ())
    log = await open_log(east.meshd.kv, SPACE, LOCAL)
    assert log.snapshot is not None
    await cut(east.meshd.kv, log, log.snapshot.marks[0], lambda: ())
    east.node.projector.ring.reset(east.meshd.name)


async def test_what_was_cut_off_is_gone_and_says_what_to_do(east: Served) -> None:
    place = format_vector(east.node.projector.log_vector())
    began_ms = east.node.clock.wall_ms() - 60_000
    await shorten(east)
    answer = await east.ask("GET", f"/v1/events?since={began_ms}", Accept=STREAM)
    assert (answer.status, answer.slug) == (410, "gone")
    async with east.stream(Last_Event_ID=place) as stream:
        reset = await stream.event()
        assert (reset.event, reset.json["status"]) == ("meshd.reset", 410)
        assert "from=snapshot" in reset.json["problems"][0]["remedy"]
        assert await stream.frame() is None
    # Everything that there still is may be asked for.
    async with east.stream("?from=beginning") as stream:
        assert await events(stream, 1) == ["endpoint.set shop/web/a"]


@pytest.mark.parametrize("how", ["cut off", "since", "another log"])
async def test_on_request_a_reset_goes_on_with_a_snapshot(east: Served, how: str) -> None:
    place = format_vector(east.node.projector.log_vector())
    query = "?reset=snapshot"
    if how == "since":
        query += f"&since={east.node.clock.wall_ms() - 60_000}"
    elif how == "another log":
        query += f"&after=east:{FOREIGN}:1"
    else:
        query += f"&after={place}"
    await shorten(east)
    async with east.stream(query) as stream:
        reset = stream.first if stream.first.event else await stream.event()
        assert (reset.event, reset.id, reset.json["status"]) == ("meshd.reset", None, 410)
        assert (await stream.event()).event == "meshd.snapshot.begin"
        while (found := await stream.event()).event != "meshd.snapshot.end":
            assert found.id is None
        assert EventPlace.parse(stream.last_id).vector == east.node.projector.log_vector()
        await east.define("shop/new")
        assert await events(stream, 1) == ["service.set shop/new"]


async def test_a_log_that_is_replaced_under_a_stream_resets_it_with_a_snapshot(
    east: Served,
) -> None:
    projector = east.node.projector
    read(projector, WEST, logged(WESTERN))
    async with east.stream("?reset=snapshot") as stream, east.stream("?cluster=east") as other:
        place = stream.last_id
        read(projector, WEST, logged(WESTERN, log_id=OTHER_LOG_ID))
        found = [(await stream.event()).event for _ in range(5)]
        assert found == [
            *("meshd.reset", "meshd.snapshot.begin", "cluster.set", "service.set"),
            "meshd.snapshot.end",
        ]
        await east.define("shop/new")
        assert await events(stream, 1) == ["service.set shop/new"]
        # Who follows the other log only hears nothing of it.
        assert await events(other, 1) == ["service.set shop/new"]
    async with east.stream("?reset=snapshot", Last_Event_ID=place) as stream:
        assert stream.first.event == "meshd.reset"


@pytest.mark.parametrize(
    "query",
    [
        "after=",
        f"after=mars:{FOREIGN}:1",
        f"cluster=east&after=mars:{FOREIGN}:1",
        "after=east&from=now",
        "since=1&from=now",
        "reset=never",
        "from=",
    ],
)
async def test_a_start_that_is_none_is_refused_and_never_taken_for_the_beginning(
    east: Served, query: str
) -> None:
    answer = await east.ask("GET", f"/v1/events?{query}", Accept=STREAM)
    assert (answer.status, answer.slug) == (400, "bad-request")


async def test_an_id_of_another_set_of_clusters_is_refused(east: Served) -> None:
    read(east.node.projector, WEST, logged(WESTERN))
    async with east.stream("?cluster=west") as stream:
        place = stream.last_id
    answer = await east.ask("GET", "/v1/events", Accept=STREAM, Last_Event_ID=place)
    assert (answer.status, answer.slug) == (400, "bad-request")
    assert "another stream" in answer.json["detail"]


# --- limits ---------------------------------------------------------------------------------------


async def test_one_client_takes_no_more_than_its_share() -> None:
    async with serve_cluster(limits=Limits(per_client_max=2)) as east:
        async with east.stream(), east.stream():
            answer = await east.ask("GET", "/v1/events", Accept=STREAM)
            assert (answer.status, answer.slug) == (429, "overloaded")
            assert answer.headers["Retry-After"] == "5"
            assert "127.0.0.1 (streams.per_client_max)" in answer.json["detail"]
        # The places of those who went are given back.
        await until_admitted(east)


async def until_admitted(east: Served) -> None:
    """A client that goes is noticed a little later."""
    async with asyncio.timeout(20):
        while True:
            async with east.client.get("/v1/events", headers={"Accept": STREAM}) as answer:
                if answer.status == 200:
                    return
