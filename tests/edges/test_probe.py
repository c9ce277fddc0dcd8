"""Probes against real servers that are well, ill, slow, strange or not there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import grpc
import pytest
from aiohttp import web
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from meshd.edges.probe import look
from meshd.edges.probe.grpc import CHECK
from meshd.model.probe import Probe, ProbeType

HERE = "127.0.0.1"


def probe(kind: ProbeType, **fields: object) -> Probe:
    return Probe(type=kind, **({"timeout_s": 2.0} | fields))  # type: ignore[arg-type]


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(serve: Serve) -> AsyncIterator[int]:
    writers: list[asyncio.StreamWriter] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await serve(reader, writer)

    server = await asyncio.start_server(take, HERE, 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
        for writer in writers:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take the connection and say nothing."""
    del writer
    with suppress(OSError):
        await reader.read()


async def odd(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say something that is no HTTP."""
    writer.write(b"\x00\xff this is no page\r\n\r\n")
    writer.close()


@pytest.mark.parametrize("kind", list(ProbeType))
async def test_nobody_there_is_told_so(kind: ProbeType, free_port: int) -> None:
    told = await look(HERE, free_port, probe(kind))
    assert ("UNAVAILABLE" if kind is ProbeType.GRPC else "refused") in told


@pytest.mark.parametrize(
    ("kind", "found"), [(ProbeType.TCP, ""), (ProbeType.HTTP, "0.3 s"), (ProbeType.GRPC, "")]
)
async def test_a_silent_server_holds_nobody_longer_than_its_time(
    kind: ProbeType, found: str
) -> None:
    async with listening(silent) as port:
        async with asyncio.timeout(3):
            told = await look(HERE, port, probe(kind, timeout_s=0.3))
    assert found in told
    assert bool(told) == (kind is not ProbeType.TCP)


@pytest.mark.parametrize("kind", [ProbeType.HTTP, ProbeType.GRPC])
async def test_a_strange_answer_is_a_bad_one(kind: ProbeType) -> None:
    async with listening(odd) as port:
        assert await look(HERE, port, probe(kind))


@asynccontextmanager
async def pages() -> AsyncIterator[int]:
    """Answer /<status> with that status, /host with 200 to whom it is meant for."""

    async def answer(request: web.Request) -> web.Response:
        if request.path == "/host":
            return web.Response(status=200 if request.host == "shop.example" else 421)
        headers = {"Location": "/200"} if request.path == "/302" else {}
        return web.Response(status=int(request.path[1:]), text="x" * 100_000, headers=headers)

    app = web.Application()
    app.router.add_get("/{any}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, HERE, 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"path": "/200"}, ""),
        ({"path": "/204"}, ""),
        ({"path": "/500"}, "status 500, not 200 to 399"),
        ({"path": "/404"}, "status 404"),
        # A redirect isn't followed.
        ({"path": "/302"}, ""),
        ({"path": "/302", "status_max": 299}, "status 302"),
        ({"path": "/500", "status_min": 500, "status_max": 500}, ""),
        ({"path": "/host"}, "status 421"),
        ({"path": "/host", "host": "shop.example"}, ""),
    ],
)
async def test_a_page_is_judged_by_its_status(fields: dict[str, object], found: str) -> None:
    async with pages() as port:
        told = await look(HERE, port, probe(ProbeType.HTTP, **fields))
    assert told.startswith(found)
    assert bool(told) == bool(found)


@asynccontextmanager
async def health_server(statuses: dict[str, int]) -> AsyncIterator[int]:
    """Serve grpc.health.v1 as any gRPC server does."""

    async def check(asked: StringValue, context: grpc.aio.ServicerContext) -> Int32Value:
        if asked.value not in statuses:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return Int32Value(value=statuses[asked.value])

    name, _, method = CHECK.strip("/").rpartition("/")
    handler = grpc.unary_unary_rpc_method_handler(
        check,
        request_deserializer=StringValue.FromString,
        response_serializer=lambda message: message.SerializeToString(),
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(name, {method: handler}),)
    )
    port = server.add_insecure_port(f"{HERE}:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


@pytest.mark.parametrize(
    ("service", "found"),
    [
        ("", ""),
        ("shop.Cart", "NOT_SERVING"),
        ("shop.Gone", "NOT_FOUND: no such service"),
        ("shop.Odd", "status 9"),
        ("shop.Unset", "UNKNOWN"),
    ],
)
async def test_a_grpc_server_is_asked_for_its_health(service: str, found: str) -> None:
    statuses = {"": 1, "shop.Cart": 2, "shop.Odd": 9, "shop.Unset": 0}
    async with health_server(statuses) as port:
        assert await look(HERE, port, probe(ProbeType.GRPC, service=service)) == found


def test_the_messages_are_those_of_grpc_health_v1() -> None:
    """By their published field numbers: HealthCheckRequest.service = 1, .Response.status = 1."""
    assert StringValue(value="a").SerializeToString() == b"\x0a\x01a"
    assert Int32Value.FromString(b"\x08\x01").value == 1
