"""Event streams: order, resumption, resets, heartbeats and clients that stand still."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.typedefs import Handler

from meshd.edges.http.app import build_app, serve_app
from meshd.edges.http.limits import Limits
from meshd.edges.http.outlets import SUBSCRIBERS
from meshd.model.command import RemoveService
from meshd.model.errors import TransientError
from meshd.model.ids import ClusterName, ServiceKey, format_vector
from meshd.model.place import EventPlace, mark_of
from meshd.runtime.feed import Feed
from meshd.runtime.ports import RangeResult
from meshd.telemetry import metrics
from tests.edges.http.served import Frame, Served, api_settings, serve_cluster
from tests.mesh import Mesh, endpoint, service

QUICK = ("replication.heartbeat_every_s=0.1",)
WEST = ClusterName("west")
FOREIGN = "0" * 32


def subscribers() -> float:
    value = metrics.REGISTRY.get_sample_value("meshd_stream_subscribers")
    assert value is not None
    return value


async def until_subscribers(count: int) -> None:
    while subscribers() != count:  # noqa: ASYNC110 a metric tells nobody
        await asyncio.sleep(0.005)


def place_now(east: Served) -> EventPlace:
    projector = east.node.projector
    head = projector.head(projector.own)
    assert head is not None
    return EventPlace(projector.log_vector(), mark_of(head.hash))


async def test_from_now_tells_what_comes_and_not_what_was(east: Served) -> None:
    await east.define("shop/old")
    async with east.stream() as stream:
        assert stream.last_id == str(place_now(east))
        await east.define("shop/new")
        first, second = await stream.event(), await stream.event()
        assert (first.event, first.json["subject"]) == ("service.set", "shop/new")
        assert (second.event, second.json["subject"]) == ("endpoint.set", "shop/new/a")
        assert second.id == str(place_now(east))
        assert first.json == (await east.get("/v1/events?after=3"))["items"][0]


async def test_from_the_beginning_tells_everything(east: Served) -> None:
    await east.define()
    async with east.stream("?from=beginning") as stream:
        assert EventPlace.parse(stream.last_id).vector[east.meshd.name].seq == 0
        assert await stream.subjects(3) == ["east", "shop/web", "shop/web/a"]


@pytest.mark.parametrize("by_header", [True, False])
async def test_over_all_reconnections_every_event_comes_once(east: Served, by_header: bool) -> None:
    await east.meshd.submit(service(), *(endpoint(f"shop/web/e{n}") for n in range(5)))
    told: list[int] = []
    place = ""
    for turn in range(8):
        headers = {"Last_Event_ID": place} if by_header and place else {}
        query = f"?after={place}" if not by_header and place else "?from=beginning"
        async with east.stream(query, **headers) as stream:
            told.append((await stream.event()).json["meshdseq"])
            place = stream.last_id
        await east.meshd.submit(endpoint(f"shop/web/late{turn}"))
    assert told == list(range(1, 9))


async def test_a_stream_that_broke_before_its_first_event_loses_nothing(east: Served) -> None:
    async with east.stream() as stream:
        place = stream.last_id
    await east.define()
    async with east.stream(Last_Event_ID=place) as stream:
        assert await stream.subjects(2) == ["shop/web", "shop/web/a"]


async def test_the_header_goes_before_the_query(east: Served) -> None:
    await east.define()
    place = format_vector(east.node.projector.log_vector())
    earlier = place.rpartition(":")[0] + ":1"
    async with east.stream(f"?after={place}", Last_Event_ID=earlier) as stream:
        assert await stream.subjects(1) == ["shop/web"]


@pytest.mark.parametrize("text", ["nonsense", "east:1:1", f"east:{FOREIGN}:-1", "east"])
async def test_a_malformed_position_is_refused(east: Served, text: str) -> None:
    for query, headers in (("", {"Last-Event-ID": text}), (f"?after={text}", {})):
        answer = await east.ask(
            "GET", "/v1/events" + query, **({"Accept": "text/event-stream"} | headers)
        )
        assert (answer.status, answer.slug) == (400, "bad-request")


async def test_a_position_in_another_history_is_gone(east: Served) -> None:
    own = east.node.projector.log_ids[east.meshd.name]
    for text in (f"east:{FOREIGN}:1", f"east:{own}:2", f"mars:{FOREIGN}:1,east:{FOREIGN}:1"):
        answer = await east.ask("GET", f"/v1/events?after={text}", Accept="text/event-stream")
        assert (answer.status, answer.slug) == (410, "gone")
        assert "from=snapshot" in answer.json["problems"][0]["remedy"]


async def test_every_log_whose_place_is_gone_is_named() -> None:
    mesh = Mesh(("east", "west"), overrides=QUICK)
    async with serve_cluster("east", mesh=mesh) as east, mesh.running("west") as west:
        await west.submit(service("shop/web"))
        await east.meshd.until(lambda: _services(east) == ["shop/web"])
        text = f"east:{FOREIGN}:1,west:{FOREIGN}:1"
        answer = await east.ask("GET", f"/v1/events?after={text}", Accept="text/event-stream")
        assert (answer.status, answer.slug) == (410, "gone")
        assert [one["what"].split()[3] for one in answer.json["problems"]] == ["east", "west"]
        assert all(f"of {name} was replaced" in answer.json["detail"] for name in ("east", "west"))


@pytest.mark.parametrize("query", ["?from=yesterday", "?limit=5", "?kind=service.set"])
async def test_a_parameter_that_a_stream_has_not_is_refused(east: Served, query: str) -> None:
    answer = await east.ask("GET", "/v1/events" + query, Accept="text/event-stream")
    assert (answer.status, answer.slug) == (400, "bad-request")


@pytest.mark.parametrize("path", ["/v1/events", "/v1/tables/stream", "/v1/watch"])
async def test_the_head_of_a_stream_is_refused_since_it_would_never_end(
    east: Served, path: str
) -> None:
    answer = await east.ask("HEAD", path, Accept="text/event-stream")
    assert answer.status == 405


async def test_an_unknown_cluster_can_not_be_followed(east: Served) -> None:
    answer = await east.ask("GET", "/v1/events?cluster=mars", Accept="text/event-stream")
    assert (answer.status, answer.slug) == (404, "not-found")


async def test_all_clusters_are_followed_together_and_each_id_names_them_all() -> None:
    mesh = Mesh(("east", "west"), overrides=QUICK)
    async with serve_cluster("east", mesh=mesh) as east, mesh.running("west") as west:
        await east.meshd.until(lambda: WEST in east.node.projector.states)
        async with east.stream() as stream, east.stream("?cluster=west") as of_west:
            await west.submit(service("shop/west"))
            assert await stream.subjects(1) == ["shop/west"]
            await east.meshd.submit(service("shop/east"))
            assert await stream.subjects(1) == ["shop/east"]
            assert EventPlace.parse(stream.last_id).vector == east.node.projector.log_vector()
            place = stream.last_id

            await west.submit(service("shop/west2"))
            await east.meshd.submit(service("shop/east2"))
            assert await of_west.subjects(2) == ["shop/west", "shop/west2"]
            assert set(EventPlace.parse(of_west.last_id).vector) == {WEST}
        async with east.stream(Last_Event_ID=place) as stream:
            assert sorted(await stream.subjects(2)) == ["shop/east2", "shop/west2"]
        async with east.stream("?cluster=east", Last_Event_ID=place) as stream:
            assert await stream.subjects(1) == ["shop/east2"]
            assert set(EventPlace.parse(stream.last_id).vector) == {east.meshd.name}


async def test_a_cluster_that_joins_later_is_told_from_its_beginning() -> None:
    mesh = Mesh(("east", "west"), overrides=(*QUICK, "replication.backoff_max_s=0.3"))
    mesh.etcds["west"].set_up(up=False)
    async with serve_cluster("east", mesh=mesh) as east, east.stream() as stream:
        mesh.etcds["west"].set_up(up=True)
        async with mesh.running("west") as west:
            await west.submit(service())
            assert await stream.subjects(2) == ["west", "shop/web"]


async def test_a_log_that_was_replaced_is_a_reset_and_never_a_silent_jump() -> None:
    mesh = Mesh(("east", "west"), overrides=(*QUICK, "replication.backoff_max_s=0.3"))
    async with serve_cluster("east", mesh=mesh) as east:
        async with mesh.running("west") as west:
            await west.submit(service("shop/before"))
            await east.meshd.until(lambda: _services(east) == ["shop/before"])
        async with east.stream() as stream:
            place = stream.last_id
            mesh.etcds["west"].wipe()
            # Random ids are seeded by a cluster's place in the list: another place, another log.
            again = Mesh(("north", "east", "west"), overrides=QUICK)
            again.etcds["west"] = mesh.etcds["west"]
            async with again.running("west") as west:
                await west.submit(service("shop/after"))
                await east.meshd.until(lambda: _services(east) == ["shop/after"])
                reset = await stream.event()
                assert reset.event == "meshd.reset"
                assert reset.id is None
                assert reset.json["status"] == 410
                assert await stream.frame() is None
        answer = await east.ask(
            "GET", "/v1/events", Accept="text/event-stream", Last_Event_ID=place
        )
        assert (answer.status, answer.slug) == (410, "gone")


async def test_history_that_can_not_be_read_now_is_told_when_it_can(east: Served) -> None:
    await east.define()
    east.node.projector.ring.reset(east.meshd.name)
    east.meshd.kv.set_linked(linked=False)
    async with east.stream("?from=beginning") as stream:
        east.meshd.kv.set_linked(linked=True)
        assert await stream.subjects(3) == ["east", "shop/web", "shop/web/a"]


async def test_one_log_that_can_not_be_read_holds_up_no_other() -> None:
    mesh = Mesh(("east", "west"), overrides=QUICK)
    async with serve_cluster("east", mesh=mesh) as east, mesh.running("west") as west:
        await west.submit(service())
        await east.meshd.until(lambda: _services(east) == ["shop/web"])
        east.node.projector.ring.reset(WEST)
        read = east.meshd.kv.range

        async def range_but_not_of_west(key: bytes, end: bytes = b"", **more: Any) -> RangeResult:
            if b"/replica/west/" in key and b"/log/" in key:
                raise TransientError("not now")
            return await read(key, end, **more)

        east.meshd.kv.range = range_but_not_of_west  # type: ignore[method-assign]
        async with east.stream("?from=beginning") as stream:
            assert await stream.subjects(1) == ["east"]
            await east.define("shop/own")
            assert await stream.subjects(2) == ["shop/own", "shop/own/a"]
            east.meshd.kv.range = read  # type: ignore[method-assign]
            assert await stream.subjects(2) == ["west", "shop/web"]


async def test_history_that_may_not_be_read_ends_the_stream_for_another_try(
    east: Served,
) -> None:
    await east.define()
    east.node.projector.ring.reset(east.meshd.name)
    east.meshd.kv.is_denied = True
    async with east.stream("?from=beginning") as stream:
        ended = await stream.event()
        assert (ended.event, ended.id, ended.json["status"]) == ("meshd.error", None, 503)
        assert await stream.frame() is None
    east.meshd.kv.is_denied = False
    async with east.stream("?from=beginning") as stream:
        assert await stream.subjects(2) == ["east", "shop/web"]


async def test_an_error_that_nobody_expected_cuts_the_stream(
    east: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with east.stream() as stream:
        monkeypatch.setattr(Feed, "take", _fail)
        await east.define()
        with pytest.raises(aiohttp.ClientPayloadError):
            await stream.event()
    monkeypatch.undo()
    async with east.stream("?from=beginning") as stream:
        assert await stream.subjects(1) == ["east"]


def _services(served: Served) -> list[str]:
    state = served.node.projector.state(WEST)
    return [str(key) for key in state.services] if state else []


def _fail(*_: object) -> bytes:
    raise ValueError("a bug")


async def test_an_idle_stream_shows_life_and_still_tells() -> None:
    limits = Limits(heartbeat_every_s=0.01)
    async with serve_cluster(limits=limits) as east, east.stream() as stream:
        while stream.heartbeats < 3:
            found = await stream.frame()
            assert found == Frame(comments=1)
            stream.heartbeats += 1
        await east.define()
        assert await stream.subjects(2) == ["shop/web", "shop/web/a"]


async def test_streams_are_counted_bounded_and_their_places_given_back() -> None:
    async with serve_cluster(limits=Limits(subscribers_max=2)) as east:
        before = subscribers()
        async with east.stream(), east.stream():
            assert subscribers() == before + 2
            answer = await east.ask("GET", "/v1/events", Accept="text/event-stream")
            assert (answer.status, answer.slug) == (429, "overloaded")
            assert answer.headers["Retry-After"] == "5"
            assert (await east.ask("GET", "/v1/events")).status == 200
        # The clients went without a word; no heartbeat was due yet.
        await until_subscribers(int(before))
        async with east.stream():
            assert subscribers() == before + 1


async def test_stopping_ends_streams_at_once_and_cleanly() -> None:
    mesh = Mesh(("east",))
    async with mesh.running("east") as running:
        api = api_settings(drain_timeout_s=60.0)
        app = build_app(running.parts.node, api, Limits())
        async with aiohttp.ClientSession() as client:
            async with serve_app(app, api) as address:
                response = await client.get(
                    f"http://{address}/v1/events", headers={"Accept": "text/event-stream"}
                )
                assert (await response.content.readuntil(b"\n\n")).startswith(b"retry: ")
            assert await response.content.read() == b""
            assert app[SUBSCRIBERS].stopping.is_set()


LABELS = {f"label-{n}": "x" * 250 for n in range(60)}


async def test_a_subscriber_that_stands_still_is_cut_and_delays_nobody() -> None:
    async with serve_cluster(limits=Limits(send_timeout_s=0.2)) as east:
        before = int(subscribers())
        with socket.socket() as still:
            still.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            still.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(still, (east.address.host, east.address.port))
            await loop.sock_sendall(
                still,
                f"GET /v1/events HTTP/1.1\r\nHost: {east.address}\r\n"
                "Accept: text/event-stream\r\n\r\n".encode(),
            )
            await until_subscribers(before + 1)
            async with east.stream() as stream:
                told = 0
                while subscribers() > before + 1:
                    await east.meshd.submit(
                        *(endpoint(f"shop/web/e{told + n}", labels=LABELS) for n in range(6))
                    )
                    assert len(await stream.subjects(6)) == 6
                    told += 6
                await east.meshd.submit(RemoveService(ServiceKey("shop", "web")))
                assert await stream.subjects(1) == ["shop/web"]


async def test_a_client_that_takes_no_answer_is_cut() -> None:
    given_up = asyncio.Event()

    @web.middleware
    async def notice(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        given_up.set()
        return response

    async with Mesh(("east",)).running("east") as running:
        api = api_settings()
        limits = Limits(send_timeout_s=0.1, send_bytes_per_s_min=1 << 40)
        app = build_app(running.parts.node, api, limits)
        app.router.add_get("/large", _large)
        app.middlewares.insert(0, notice)
        async with serve_app(app, api) as address:
            reader, writer = await asyncio.open_connection(address.host, address.port, limit=1024)
            writer.write(f"GET /large HTTP/1.1\r\nHost: {address}\r\n\r\n".encode())
            await given_up.wait()
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await reader.readexactly(LARGE_BYTES)
            writer.close()


LARGE_BYTES = 64 * 1024 * 1024


async def _large(_: web.Request) -> web.Response:
    return web.Response(body=bytes(LARGE_BYTES))
