"""The client follows tables and the condition of a real server, over connections that break."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any

import orjson
import pytest
from aiohttp import web

from meshd.client import (
    Client,
    ClientError,
    FollowedTables,
    MeshSeen,
    PeerGone,
    PeerSeen,
    ServiceChanged,
    ServiceTold,
    SnapshotBegun,
    SnapshotEnded,
    StatusSeen,
    TableMessage,
    TableMirror,
    TablesReset,
    Target,
)
from meshd.client.sse import StreamEvent
from meshd.client.table_stream import message_of
from meshd.client.watching import condition_of
from meshd.edges.http.app import build_app, serve_app
from meshd.edges.http.limits import Limits
from meshd.runtime.node import Node
from meshd.settings import HostPort
from tests.edges.http.served import Served, api_settings, serve_cluster
from tests.mesh import Mesh, endpoint, service

NOWHERE = Target(url="http://127.0.0.1:1")


@pytest.fixture
async def east() -> AsyncIterator[Served]:
    async with serve_cluster() as served:
        yield served


@asynccontextmanager
async def client_of(east: Served) -> AsyncIterator[Client]:
    async with Client(Target(url=f"http://{east.address}")) as client:
        yield client


Restart = Callable[[Awaitable[object]], Awaitable[None]]


@asynccontextmanager
async def served_again(node: Node) -> AsyncIterator[tuple[Client, Restart]]:
    """Serve, and give a client; and a way to stop serving, do something, and serve there again."""
    async with AsyncExitStack() as outer:
        server = AsyncExitStack()
        outer.push_async_callback(server.aclose)

        async def serve(address: HostPort) -> HostPort:
            api = api_settings(listen=address)
            app = build_app(node, api, Limits())
            return await server.enter_async_context(serve_app(app, api))

        address = await serve(HostPort("127.0.0.1", 0))

        async def restart(meanwhile: Awaitable[object]) -> None:
            await server.aclose()
            await meanwhile
            await serve(address)

        client = await outer.enter_async_context(Client(Target(url=f"http://{address}")))
        yield client, restart


async def until(
    messages: AsyncIterator[TableMessage],
    mirror: TableMirror,
    what: Callable[[], bool],
) -> list[type]:
    """Let the mirror follow until something is so; returns what came."""
    came: list[type] = []
    while not what():
        message = await anext(messages)
        mirror.take(message)
        came.append(type(message))
    return came


def addresses(mirror: TableMirror) -> list[str]:
    found = mirror.service("shop", "web")
    return [one["address"] for one in found["backends"]] if found else []


async def test_a_mirror_lives_through_a_server_that_comes_back() -> None:
    mesh = Mesh(("east",))
    async with mesh.running("east") as meshd:
        node, mirror = meshd.parts.node, TableMirror()
        await meshd.submit(service(), endpoint("shop/web/a", "10.0.0.1"))
        async with served_again(node) as (client, restart):
            followed = FollowedTables(deltas=True)
            async with aclosing(client.follow_tables(followed)) as messages:
                came = await until(messages, mirror, lambda: mirror.is_whole)
                assert came == [SnapshotBegun, ServiceTold, SnapshotEnded]
                await restart(meshd.submit(endpoint("shop/web/b", "10.0.0.2")))
                expected = ["10.0.0.1", "10.0.0.2"]
                came = await until(messages, mirror, lambda: addresses(mirror) == expected)
                assert came == [ServiceChanged]
                assert mirror.services() == (await client.tables())["services"]


async def test_another_process_goes_on_from_a_mirrors_place(east: Served) -> None:
    await east.define()
    mirror = TableMirror()
    async with client_of(east) as client:
        async with aclosing(client.follow_tables(FollowedTables())) as messages:
            await until(messages, mirror, lambda: mirror.is_whole)
        await east.meshd.submit(endpoint("shop/web/b", "10.0.0.2"))
        followed = FollowedTables(after=mirror.place)
        async with aclosing(client.follow_tables(followed)) as messages:
            came = await until(messages, mirror, lambda: len(addresses(mirror)) == 2)
            assert came == [ServiceTold]
        run = mirror.place.rpartition("@")[2].partition(".")[0]
        gone = mirror.place.replace(run, "0" * len(run))
        followed = FollowedTables(after=gone, namespaces=())
        async with aclosing(client.follow_tables(followed)) as messages:
            first = await anext(messages)
            assert isinstance(first, TablesReset)
            assert "before this one was started" in first.detail
            assert isinstance(await anext(messages), SnapshotBegun)


async def test_filters_go_along(east: Served) -> None:
    await east.define("shop/web")
    await east.meshd.submit(service("else/web", labels={"team": "blue"}))
    mirror = TableMirror()
    followed = FollowedTables(
        namespaces=["else", "shop"],
        services=["else/web", "shop/web"],
        labels=["team=blue"],
        clusters=["east"],
    )
    async with (
        client_of(east) as client,
        aclosing(client.follow_tables(followed)) as messages,
    ):
        await until(messages, mirror, lambda: mirror.is_whole)
        assert [one["namespace"] for one in mirror.services()] == ["else"]


async def test_a_refusal_is_told_at_once(east: Served) -> None:
    async with client_of(east) as client:
        for followed in (FollowedTables(services=["web"]), FollowedTables(after="nonsense")):
            async with aclosing(client.follow_tables(followed)) as messages:
                with pytest.raises(ClientError) as caught:
                    await anext(messages)
            assert caught.value.status == 400
        async with aclosing(client.watch(every_s=99)) as conditions:
            with pytest.raises(ClientError) as caught:
                await anext(conditions)
        assert caught.value.status == 400


async def test_a_service_with_more_bytes_than_an_event_may_have_is_told(east: Served) -> None:
    many = [endpoint(f"shop/large/e{number}", zone="z" * 60) for number in range(3000)]
    await east.meshd.submit(service("shop/large"))
    for start in range(0, len(many), 500):
        await east.meshd.submit(*many[start : start + 500])
    mirror = TableMirror()
    async with (
        client_of(east) as client,
        aclosing(client.follow_tables(FollowedTables())) as messages,
    ):
        await until(messages, mirror, lambda: mirror.is_whole)
        assert len(orjson.dumps(mirror.services())) > 1024 * 1024
        assert mirror.services() == (await client.tables())["services"]


async def test_the_condition_begins_with_all_of_it_after_every_cut() -> None:
    mesh = Mesh(("east", "west"))
    async with (
        mesh.running("east") as meshd,
        served_again(meshd.parts.node) as (client, restart),
        aclosing(client.watch()) as conditions,
    ):
        assert isinstance(await anext(conditions), MeshSeen)
        await restart(meshd.submit(service("shop/meanwhile")))
        while not isinstance(found := await anext(conditions), MeshSeen):
            pass
        assert [peer["name"] for peer in found.peers] == ["west"]
        await meshd.submit(service())
        while not isinstance(await anext(conditions), StatusSeen):
            pass


def test_messages_of_the_future_are_passed_over() -> None:
    event = StreamEvent("", "meshd.table.other", "{}")
    assert message_of(event) is None
    assert condition_of(event) is None
    assert condition_of(StreamEvent("", "meshd.peer", '{"name": "w"}')) == PeerSeen({"name": "w"})  # type: ignore[typeddict-item]
    assert condition_of(StreamEvent("", "meshd.peer.removed", '{"name": "w"}')) == PeerGone("w")


@pytest.mark.parametrize("frame", [b"event: meshd.snapshot.end\ndata: {}\n\n", b"data: x\n\n"])
async def test_a_message_that_can_not_be_read_is_an_error(frame: bytes) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(frame.replace(b"snapshot.end", _other(request)))
        return response

    def _other(request: web.Request) -> bytes:
        return b"mesh" if request.path.endswith("watch") else b"snapshot.end"

    runner = web.ServerRunner(web.Server(answer), shutdown_timeout=0.1)  # type: ignore[arg-type]
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        async with Client(Target(url=f"http://{host}:{port}")) as client:
            streams: list[Any] = [client.follow_tables(FollowedTables()), client.watch()]
            for stream in streams:
                async with aclosing(stream):
                    with pytest.raises(ClientError, match="can't be read"):
                        await anext(stream)
    finally:
        await runner.cleanup()
