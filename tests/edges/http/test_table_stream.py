"""Streams of tables: a snapshot, what changes, resumption, resets, and bad input."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from meshd.edges.http.limits import Limits
from meshd.edges.http.table_messages import AT_ONCE_MAX, TableMessages
from meshd.model.command import RemoveEndpoint, RemoveService
from meshd.model.ids import ClusterName, EndpointKey, ServiceKey, format_vector
from meshd.model.place import TablePlace
from tests.edges.http.served import Served, Stream, serve_cluster
from tests.mesh import Mesh, endpoint, service

QUICK = ("replication.heartbeat_every_s=0.1",)
FOREIGN = "0" * 32
RUN = "0123456789abcdef"


@asynccontextmanager
async def following(east: Served, query: str = "", **headers: str) -> AsyncIterator[Stream]:
    """Follow its tables."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with east.client.get(
        "/v1/tables/stream" + query, headers=named, timeout=aiohttp.ClientTimeout(total=None)
    ) as response:
        assert response.status == 200, await response.read()
        assert response.content_type == "text/event-stream"
        yield Stream(response)


async def told(stream: Stream) -> tuple[str, Any]:
    """The next message."""
    found = await stream.event()
    assert found.event is not None
    return found.event.removeprefix("meshd."), found.json


async def snapshot(stream: Stream) -> list[Any]:
    """The services of a snapshot, read to its end."""
    kind, begun = await told(stream)
    assert kind == "snapshot.begin"
    services = []
    while (found := await told(stream))[0] != "snapshot.end":
        assert found[0] == "table"
        services.append(found[1])
    assert len(services) == begun["services"]
    return services


def plain(item: dict[str, Any]) -> dict[str, Any]:
    """A service as GET has it."""
    return {name: value for name, value in item.items() if name != "change"}


def place_now(east: Served) -> TablePlace:
    projector = east.node.projector
    vector = format_vector(projector.log_vector())
    return TablePlace(vector, projector.feed.run, projector.feed.number)


async def test_first_comes_all_there_is_then_each_service_that_changes(east: Served) -> None:
    await east.define("shop/web")
    await east.define("shop/cart", "10.0.0.2")
    async with following(east) as stream:
        listed = (await east.get("/v1/tables"))["services"]
        assert [plain(item) for item in await snapshot(stream)] == listed
        assert stream.last_id == str(place_now(east))
        await east.meshd.submit(endpoint("shop/web/b", "10.0.0.3"))
        kind, item = await told(stream)
        assert (kind, plain(item)) == ("table", await east.get("/v1/tables/shop/web"))
        assert item["change"] == east.node.projector.feed.number
        assert stream.last_id == str(place_now(east))
        await east.meshd.submit(RemoveService(ServiceKey("shop", "web")))
        change = east.node.projector.feed.number
        removed = {"namespace": "shop", "name": "web", "change": change}
        assert await told(stream) == ("table.removed", removed)


async def test_an_empty_table_is_a_snapshot_too(east: Served) -> None:
    async with following(east) as stream:
        assert await snapshot(stream) == []
        place = stream.last_id
    async with following(east, Last_Event_ID=place) as stream:
        await east.define()
        assert (await told(stream))[1]["name"] == "web"


async def test_what_one_record_changes_comes_together_with_one_place(east: Served) -> None:
    names = ("shop/a", "shop/b", "shop/c")
    async with following(east) as stream:
        await snapshot(stream)
        await east.meshd.submit(*map(service, names))
        frames = [await stream.event() for _ in names]
    assert [frame.json["name"] for frame in frames] == ["a", "b", "c"]
    assert [frame.id for frame in frames] == [None, None, str(place_now(east))]


async def test_a_delta_says_what_changed_and_what_it_changes(east: Served) -> None:
    await east.define()
    async with following(east, "?delta=true") as stream:
        (whole,) = await snapshot(stream)
        await east.meshd.submit(endpoint("shop/web/b", "10.0.0.3"))
        kind, delta = await told(stream)
        shown = await east.get("/v1/tables/shop/web")
        assert kind == "table.delta"
        assert (delta["before"], delta["change"]) == (whole["change"], whole["change"] + 1)
        assert [one["name"] for one in delta["upserts"]] == ["b"]
        assert delta["upserts"][0] in shown["backends"]
        assert (delta["tiers"], delta["digest"]) == (shown["tiers"], shown["digest"])
        assert (delta["definition"], delta["removals"]) == (None, [])
        await east.meshd.submit(service(labels={"team": "blue"}))
        kind, delta = await told(stream)
        assert delta["definition"]["labels"] == {"team": "blue"}
        assert (delta["tiers"], delta["upserts"]) == (None, [])
        await east.meshd.submit(RemoveEndpoint(EndpointKey.parse("shop/web/b")))
        assert (await told(stream))[1]["removals"] == [{"cluster": "east", "name": "b"}]
        await east.meshd.submit(RemoveService(ServiceKey("shop", "web")))
        assert (await told(stream))[0] == "table.removed"
        await east.define("shop/new")
        kind, delta = await told(stream)
        assert (kind, delta["before"], delta["definition"]["clusters"]) == (
            *("table.delta", 0),
            ["east"],
        )


@pytest.mark.parametrize("by_header", [True, False])
@pytest.mark.parametrize("deltas", ["", "&delta=true"])
async def test_over_all_reconnections_nothing_is_missed_and_nothing_told_again(
    east: Served, by_header: bool, deltas: str
) -> None:
    async with following(east, f"?reset=end{deltas}") as stream:
        await snapshot(stream)
        place = stream.last_id
    for turn in range(5):
        name = f"turn{turn}"
        await east.define(f"shop/{name}")
        headers = {"Last_Event_ID": place} if by_header else {"Last_Event_ID": ""}
        query = f"?reset=end{deltas}" + ("" if by_header else f"&after={place}")
        async with following(east, query, **headers) as stream:
            assert (await told(stream))[1]["name"] == name
            place = stream.last_id


async def test_many_changes_of_one_service_are_one_value_to_who_comes_late(east: Served) -> None:
    await east.define()
    async with following(east) as stream:
        await snapshot(stream)
        place = stream.last_id
    for turn in range(20):
        await east.meshd.submit(endpoint("shop/web/a", f"10.0.1.{turn}"))
    async with following(east, Last_Event_ID=place) as stream:
        kind, item = await told(stream)
        assert (kind, item["backends"][0]["address"]) == ("table", "10.0.1.19")
        assert stream.last_id == str(place_now(east))


SELECTED = [
    ("namespace=shop", ["shop/cart", "shop/web"]),
    ("namespace=shop&namespace=else", ["else/web", "shop/cart", "shop/web"]),
    ("service=shop/web&service=else/web", ["else/web", "shop/web"]),
    ("label=team=blue", ["else/web", "shop/web"]),
    ("label=team", ["else/web", "shop/cart", "shop/web"]),
    ("label=team=blue&namespace=shop", ["shop/web"]),
    ("cluster=east", ["else/web", "shop/cart", "shop/web"]),
    ("namespace=nobody", []),
]


@pytest.mark.parametrize("deltas", ["", "&delta=true"])
@pytest.mark.parametrize(("query", "names"), SELECTED)
async def test_only_what_is_selected_is_told(
    east: Served, query: str, names: list[str], deltas: str
) -> None:
    keys = {"else/web": "blue", "shop/cart": "red", "shop/web": "blue"}
    for key, team in keys.items():
        await east.meshd.submit(service(key, labels={"team": team}))
    async with following(east, f"?{query}{deltas}") as stream:
        found = [f"{item['namespace']}/{item['name']}" for item in await snapshot(stream)]
        assert found == names
        for key in keys:
            await east.meshd.submit(endpoint(f"{key}/a"))
        for name in names:
            _, item = await told(stream)
            assert f"{item['namespace']}/{item['name']}" == name


@pytest.mark.parametrize("deltas", ["", "&delta=true"])
async def test_a_service_comes_and_goes_with_what_it_is_selected_by(
    east: Served, deltas: str
) -> None:
    await east.meshd.submit(service(labels={"team": "red"}))
    async with following(east, f"?label=team=blue{deltas}") as stream:
        assert await snapshot(stream) == []
        await east.meshd.submit(service(labels={"team": "blue"}))
        kind, item = await told(stream)
        assert (kind, plain(item)) == ("table", await east.get("/v1/tables/shop/web"))
        await east.meshd.submit(service(labels={"team": "red"}))
        assert (await told(stream))[0] == "table.removed"
        await east.meshd.submit(endpoint("shop/web/a"))
        await east.meshd.submit(service("shop/next", labels={"team": "blue"}))
        assert (await told(stream))[1]["name"] == "next"


async def test_a_cluster_that_joins_a_service_brings_it_among_the_selected_ones() -> None:
    mesh = Mesh(("east", "west"), overrides=QUICK)
    async with serve_cluster("east", mesh=mesh) as east, mesh.running("west") as west:
        await east.define()
        await east.meshd.until_ready("west")
        async with following(east, "?cluster=west") as stream:
            assert await snapshot(stream) == []
            await west.submit(service(), endpoint("shop/web/w", "10.0.0.9"))
            kind, item = await told(stream)
            assert (kind, item["clusters"]) == ("table", ["east", "west"])
            await west.submit(RemoveService(ServiceKey("shop", "web")))
            assert (await told(stream))[0] == "table.removed"


async def test_who_is_out_of_sight_is_told_with_every_service_of_theirs() -> None:
    mesh = Mesh(("east", "west"), overrides=QUICK)
    async with serve_cluster("east", mesh=mesh) as east:
        await east.define()
        async with mesh.running("west") as west:
            await west.submit(service(), endpoint("shop/web/w", "10.0.0.9"))
            await east.meshd.until_count("shop/web", 2)
            await east.meshd.until_ready("west")
            await east.meshd.until(lambda: not east.node.projector.feed.unfresh)
            stream = await _open(east)
            (whole,) = await snapshot(stream)
            assert whole["stale"] == []
            east.meshd.links["west"].set_linked(linked=False)
            kind, delta = await told(stream)
            assert (kind, delta["stale"], delta["upserts"]) == ("table.delta", ["west"], [])
            stream.response.close()


async def _open(east: Served) -> Stream:
    return Stream(await east.client.get("/v1/tables/stream?delta=true"))


# --- places ---------------------------------------------------------------------------------------


async def _ask(east: Served, query: str = "", **headers: str) -> Any:
    return await east.ask("GET", "/v1/tables/stream" + query, **headers)


@pytest.mark.parametrize(
    "text", ["nonsense", f"east:{FOREIGN}:1", f"@{RUN}", f"east:1:1@{RUN}.1", f"@{RUN}.1.zz"]
)
async def test_a_malformed_place_is_refused(east: Served, text: str) -> None:
    for query, headers in (("", {"Last_Event_ID": text}), (f"?after={text}&reset=snapshot", {})):
        answer = await _ask(east, query, **headers)
        assert (answer.status, answer.slug) == (400, "bad-request")


async def _gone_places(east: Served) -> dict[str, str]:
    """Places that can't be gone on from, by what is said of them."""
    here = place_now(east)
    own = f"east:{east.node.projector.log_ids[ClusterName('east')]}"
    return {
        "another cluster's": f"mars:{FOREIGN}:1@{RUN}.1",
        "was replaced by": f"east:{FOREIGN}:1@{RUN}.1",
        "before this one was started": f"{own}:1@{RUN}.1",
        "never was": f"{here.events_after}@{here.run}.{here.number + 1}",
    }


async def test_a_place_that_can_not_be_gone_on_from_is_gone_and_says_where_to_begin(
    east: Served,
) -> None:
    await east.define()
    for why, place in (await _gone_places(east)).items():
        answer = await _ask(east, Last_Event_ID=place)
        assert (answer.status, answer.slug) == (410, "gone")
        assert why in answer.json["detail"]
        assert "/v1/tables" in answer.json["problems"][0]["remedy"]


async def test_on_request_a_gone_place_is_a_reset_and_a_snapshot(east: Served) -> None:
    await east.define()
    for why, place in (await _gone_places(east)).items():
        async with following(east, "?reset=snapshot", Last_Event_ID=place) as stream:
            reset = await stream.event()
            assert (reset.event, reset.id, reset.json["status"]) == ("meshd.reset", None, 410)
            assert why in reset.json["detail"]
            (item,) = await snapshot(stream)
            assert item["name"] == "web"
            assert stream.last_id == str(place_now(east))


async def test_a_place_of_other_filters_is_refused(east: Served) -> None:
    async with following(east, "?namespace=shop") as stream:
        await snapshot(stream)
        place = stream.last_id
    for query in ("", "?namespace=else", "?namespace=shop&label=a=b"):
        answer = await _ask(east, query, Last_Event_ID=place)
        assert (answer.status, answer.slug) == (400, "bad-request")
        assert "selects other services" in answer.json["detail"]
    async with following(east, "?namespace=shop&delta=true", Last_Event_ID=place) as stream:
        await east.define()
        assert (await told(stream))[0] == "table.delta"


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("?colour=red", 400),
        ("?delta=yes", 400),
        ("?reset=always", 400),
        ("?namespace=No", 400),
        ("?namespace=a%00b", 400),
        ("?service=web", 400),
        ("?service=shop/*", 400),
        ("?label==x", 400),
        ("?label=" + "&label=".join("x" * 65), 400),
        ("?cluster=mars", 404),
        ("?perspective=west", 400),
    ],
)
async def test_a_filter_that_can_not_be_is_refused(east: Served, query: str, status: int) -> None:
    answer = await _ask(east, query)
    assert answer.status == status
    assert answer.json["detail"]


# --- far behind -----------------------------------------------------------------------------------


async def test_who_can_not_be_told_of_all_removals_begins_anew_or_is_told_so(
    east: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = east.node.projector.feed
    await east.define("shop/kept")
    async with following(east) as stream:
        await snapshot(stream)
        place = stream.last_id
    monkeypatch.setattr(feed.changes, "_gone_max", 0)
    await east.define("shop/gone")
    await east.meshd.submit(RemoveService(ServiceKey("shop", "gone")))
    answer = await _ask(east, Last_Event_ID=place)
    assert (answer.status, answer.slug) == (410, "gone")
    async with following(east, "?reset=snapshot", Last_Event_ID=place) as stream:
        assert (await told(stream))[0] == "reset"
        assert [item["name"] for item in await snapshot(stream)] == ["kept"]
        # And while it is connected, too.
        await east.meshd.submit(RemoveService(ServiceKey("shop", "kept")))
        assert (await told(stream))[0] == "reset"
        assert await snapshot(stream) == []
    async with following(east) as stream:
        await snapshot(stream)
        await east.define("shop/more")
        assert (await told(stream))[1]["name"] == "more"
        await east.meshd.submit(RemoveService(ServiceKey("shop", "more")))
        ended = await stream.event()
        assert (ended.event, ended.json["status"]) == ("meshd.reset", 410)
        assert await stream.frame() is None


async def test_who_selects_little_is_told_its_place_now_and_then(
    east: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshd.edges.http.table_telling.PLACE_EVERY", 3)
    async with following(east, "?namespace=quiet") as stream:
        assert await snapshot(stream) == []
        for turn in range(4):
            await east.define(f"shop/web{turn}")
        found = await stream.frame()
        assert found is not None
        assert (found.event, found.data) == (None, None)
        assert TablePlace.parse(stream.last_id).number >= 3


async def test_each_subscriber_is_told_what_it_asked_for_though_messages_are_shared(
    east: Served,
) -> None:
    async with following(east) as late:
        await snapshot(late)
        place = late.last_id
    await east.define("a/first")
    await east.define("a/between")
    async with (
        following(east) as values,
        following(east, "?delta=true") as deltas,
        following(east, "?namespace=else") as others,
    ):
        for stream in (values, deltas, others):
            await snapshot(stream)
        await east.meshd.submit(endpoint("a/first/b"), service("else/web"))
        found = [await told(stream) for stream in (values, values, deltas, deltas, others)]
        assert [(kind, item["name"]) for kind, item in found] == [
            *(("table", "first"), ("table", "web")),
            *(("table.delta", "first"), ("table.delta", "web")),
            ("table", "web"),
        ]
        number = east.node.projector.feed.number
        # Another one is as far now, and comes from further back.
        async with (
            following(east, Last_Event_ID=place) as one,
            following(east, Last_Event_ID=place) as other,
        ):
            for stream in (one, other):
                names = [(await told(stream))[1]["name"] for _ in range(3)]
                assert names == ["between", "first", "web"]
                assert TablePlace.parse(stream.last_id).number == number


async def test_large_services_and_many_of_them_come_in_pieces_and_whole(east: Served) -> None:
    names = [f"shop/s{number:03}" for number in range(300)]
    many = [endpoint(f"shop/large/e{number}") for number in range(AT_ONCE_MAX + 1)]
    await east.meshd.submit(service("shop/large"), *many)
    await east.meshd.submit(*map(service, names))
    async with following(east) as one, following(east) as other:
        listed = (await east.get("/v1/tables"))["services"]
        for stream in (one, other):
            found = await snapshot(stream)
            assert [plain(item) for item in found] == listed
            assert stream.last_id == str(place_now(east))


async def test_what_is_kept_encoded_is_bounded(east: Served) -> None:
    await east.define()
    projector = east.node.projector
    kept = TableMessages(projector, bytes_max=1)
    key = ServiceKey("shop", "web")
    first = await kept.value(key)
    assert first is not None
    assert await kept.value(key) is not first
    kept = TableMessages(projector)
    assert await kept.value(key) is await kept.value(key)
    assert await kept.value(ServiceKey("shop", "none")) is None


async def test_a_stream_of_tables_counts_among_the_streams() -> None:
    async with serve_cluster(limits=Limits(subscribers_max=1)) as east, following(east) as stream:
        await snapshot(stream)
        answer = await _ask(east)
        assert (answer.status, answer.slug) == (429, "overloaded")


async def test_nothing_is_told_before_the_own_log_is_read(east: Served) -> None:
    east.node.projector.local_head = None
    answer = await _ask(east)
    assert (answer.status, answer.slug) == (503, "unavailable")
