"""Streams as WebSockets: messages, refusals, ends and limits are those of server-sent events."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import WSMsgType
from pydantic import SecretStr

from meshd.edges.http.app import build_app, serve_app
from meshd.edges.http.limits import Limits
from meshd.model.command import RemoveService
from meshd.model.ids import ServiceKey
from meshd.model.place import EventPlace
from tests.edges.http.served import Served, api_settings, serve_cluster
from tests.edges.http.test_stream import LABELS, subscribers, until_subscribers
from tests.edges.http.test_stream_choices import WESTERN
from tests.logs import OTHER_LOG_ID, WEST
from tests.mesh import Mesh, endpoint
from tests.runtime.test_projector import logged, read

Socket = aiohttp.ClientWebSocketResponse


async def message(ws: Socket) -> Any:
    """The next message."""
    found = await ws.receive(timeout=20)
    assert found.type is WSMsgType.TEXT, found
    return orjson.loads(found.data)


async def test_the_messages_are_those_of_server_sent_events(east: Served) -> None:
    await east.define()
    query = "?from=beginning"
    async with east.client.ws_connect("/v1/events" + query) as ws, east.stream(query) as stream:
        start = await message(ws)
        assert start == {"id": stream.last_id, "event": None, "data": None}
        for _ in range(3):
            told, frame = await message(ws), await stream.event()
            assert told == {"id": frame.id, "event": frame.event, "data": frame.json}
        await east.define("shop/new")
        told, frame = await message(ws), await stream.event()
        assert told == {"id": frame.id, "event": frame.event, "data": frame.json}
        place = told["id"]
    async with east.client.ws_connect(f"/v1/events?after={place}&type=endpoint.set") as ws:
        assert (await message(ws))["id"] == place
        assert (await message(ws))["data"]["subject"] == "shop/new/a"


async def test_what_is_refused_is_refused_before_the_upgrade(east: Served) -> None:
    for query, status in (
        ("from=x", 400),
        ("cluster=mars", 404),
        (f"after=east:{'0' * 32}:1", 410),
    ):
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await east.client.ws_connect("/v1/events?" + query)
        assert caught.value.status == status
    answer = await east.ask("GET", "/v1/events", Upgrade="websocket", Connection="Upgrade")
    assert (answer.status, answer.slug) == (400, "bad-request")


async def test_a_reset_ends_it_with_a_message_and_a_code(east: Served) -> None:
    read(east.node.projector, WEST, logged(WESTERN))
    async with east.client.ws_connect("/v1/events") as ws:
        await message(ws)
        read(east.node.projector, WEST, logged(WESTERN, log_id=OTHER_LOG_ID))
        reset = await message(ws)
        assert (reset["event"], reset["id"], reset["data"]["status"]) == ("meshd.reset", None, 410)
        assert (await ws.receive(timeout=20)).type is WSMsgType.CLOSE
        assert ws.close_code == 4410


async def test_history_that_may_not_be_read_ends_it_for_another_try(east: Served) -> None:
    await east.define()
    east.node.projector.ring.reset(east.meshd.name)
    east.meshd.kv.is_denied = True
    async with east.client.ws_connect("/v1/events?from=beginning") as ws:
        await message(ws)
        assert (await message(ws))["event"] == "meshd.error"
        assert (await ws.receive(timeout=20)).type is WSMsgType.CLOSE
        assert ws.close_code == 4503


async def test_a_client_that_says_something_is_told_that_nobody_listens(east: Served) -> None:
    before = subscribers()
    async with east.client.ws_connect("/v1/events") as ws:
        await message(ws)
        await ws.send_str("hello")
        closed = await ws.receive(timeout=20)
        assert (closed.type, ws.close_code) == (WSMsgType.CLOSE, 1003)
    async with east.client.ws_connect("/v1/events") as ws:
        await message(ws)
    await until_subscribers(int(before))


async def test_stopping_says_goodbye() -> None:
    async with Mesh(("east",)).running("east") as running:
        api = api_settings(drain_timeout_s=60.0)
        app = build_app(running.parts.node, api, Limits())
        async with aiohttp.ClientSession() as client:
            async with serve_app(app, api) as address:
                ws = await client.ws_connect(f"http://{address}/v1/events")
                await message(ws)
                closing = asyncio.ensure_future(ws.receive(timeout=20))  # noqa: TID251
            assert (await closing).type is WSMsgType.CLOSE
            assert ws.close_code == 1001


async def test_pings_show_life_and_the_other_side_answers_them() -> None:
    async with (
        serve_cluster(limits=Limits(heartbeat_every_s=0.01)) as east,
        east.client.ws_connect("/v1/events", autoping=False) as ws,
    ):
        await message(ws)
        for _ in range(3):
            found = await ws.receive(timeout=20)
            assert found.type is WSMsgType.PING
            await ws.pong(found.data)
        await east.define()
        while (found := await ws.receive(timeout=20)).type is WSMsgType.PING:
            continue
        assert orjson.loads(found.data)["event"] == "service.set"


@pytest.mark.parametrize("origin", ["https://evil.example", "null"])
async def test_pages_of_other_sites_may_not_listen(east: Served, origin: str) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await east.client.ws_connect("/v1/events", origin=origin)
    assert caught.value.status == 403
    async with east.client.ws_connect("/v1/events", origin=f"http://{east.address}") as ws:
        await message(ws)


async def test_with_a_token_the_origin_says_nothing_and_the_token_everything() -> None:
    origin = "https://console.example"
    async with serve_cluster(api={"token": SecretStr("secret")}) as east:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await east.client.ws_connect("/v1/events", origin=origin)
        assert caught.value.status == 401
        headers = {"Authorization": "Bearer secret"}
        async with east.client.ws_connect("/v1/events", origin=origin, headers=headers) as ws:
            await message(ws)


async def test_one_that_stands_still_is_cut_and_delays_nobody() -> None:
    async with serve_cluster(limits=Limits(send_timeout_s=0.2)) as east:
        before = int(subscribers())
        with socket.socket() as still:
            still.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            still.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(still, (east.address.host, east.address.port))
            await loop.sock_sendall(
                still,
                f"GET /v1/events HTTP/1.1\r\nHost: {east.address}\r\nUpgrade: websocket\r\n"
                "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n".encode(),
            )
            await until_subscribers(before + 1)
            async with east.client.ws_connect("/v1/events") as ws:
                await message(ws)
                count = 0
                while subscribers() > before + 1:
                    await east.meshd.submit(
                        *(endpoint(f"shop/web/e{count + n}", labels=LABELS) for n in range(6))
                    )
                    for _ in range(6):
                        await message(ws)
                    count += 6
                await east.meshd.submit(RemoveService(ServiceKey("shop", "web")))
                told = await message(ws)
                assert EventPlace.parse(told["id"]).vector == east.node.projector.log_vector()
