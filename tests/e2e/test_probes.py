"""Probes by real meshds of real servers that fall ill and recover, with a leader killed between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from aiohttp import web
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from meshd.edges.probe.grpc import CHECK
from tests.e2e.conftest import Daemon, NewEtcd, RunDaemon
from tests.e2e.test_daemon import put
from tests.e2e.test_ha import follows, leads

SETTINGS = ("health.probe_local=true",)
QUICK = {"interval_s": 1.0, "timeout_s": 0.5, "rise": 1, "fall": 2}


@dataclass(slots=True)
class Patient:
    """A server that is well or ill as it is told. asked: how often."""

    address: str
    is_well: bool = True
    asked: int = 0
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def start(self) -> None:
        raise NotImplementedError

    async def set_well(self, *, is_well: bool) -> None:
        self.is_well = is_well


class HttpPatient(Patient):
    async def start(self) -> None:
        async def answer(_: web.Request) -> web.Response:
            self.asked += 1
            return web.Response(status=200 if self.is_well else 503)

        app = web.Application()
        app.router.add_get("/healthz", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        self.stack.push_async_callback(runner.cleanup)
        host, _, port = self.address.rpartition(":")
        await web.TCPSite(runner, host, int(port)).start()


class GrpcPatient(Patient):
    async def start(self) -> None:
        async def check(_: StringValue, __: grpc.aio.ServicerContext) -> Int32Value:
            self.asked += 1
            return Int32Value(value=1 if self.is_well else 2)

        name, _, method = CHECK.strip("/").rpartition("/")
        handler = grpc.unary_unary_rpc_method_handler(
            check, StringValue.FromString, lambda message: message.SerializeToString()
        )
        server = grpc.aio.server()
        handlers = grpc.method_handlers_generic_handler(name, {method: handler})
        server.add_generic_rpc_handlers((handlers,))
        server.add_insecure_port(self.address)
        await server.start()
        self.stack.push_async_callback(server.stop, None)


class TcpPatient(Patient):
    """Ill, it takes no connections."""

    async def start(self) -> None:
        async def take(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.asked += 1
            writer.close()

        host, _, port = self.address.rpartition(":")
        server = await asyncio.start_server(take, host, int(port))

        async def stop() -> None:
            server.close()
            await server.wait_closed()

        self.stack.push_async_callback(stop)

    async def set_well(self, *, is_well: bool) -> None:
        if is_well:
            await self.start()
        else:
            await self.stack.aclose()
            self.stack = AsyncExitStack()


PATIENTS = {"http": HttpPatient, "grpc": GrpcPatient, "tcp": TcpPatient}


@asynccontextmanager
async def patient(kind: str, address: str) -> AsyncIterator[Patient]:
    one = PATIENTS[kind](address)
    await one.start()
    try:
        yield one
    finally:
        await one.stack.aclose()


def reason(expected: str | None) -> Callable[[Any], bool]:
    return lambda table: [one["reason"] for one in table.get("backends", [])] == [expected]


TABLE = "/v1/tables/shop/web"


async def define(daemon: Daemon, kind: str, address: str) -> None:
    host, _, port = address.rpartition(":")
    probe = {"type": kind, **QUICK} | ({"path": "/healthz"} if kind == "http" else {})
    body = {"global": True, "ports": [{"port": int(port)}], "probe": probe}
    assert await put(daemon, "/v1/services/shop/web", body) == 200
    path = "/v1/services/shop/web/endpoints/a"
    assert await put(daemon, path, {"address": host}) == 200


@pytest.mark.parametrize("kind", PATIENTS)
async def test_an_endpoint_falls_ill_its_leader_dies_and_it_recovers(
    kind: str,
    new_etcd: NewEtcd,
    run_daemon: RunDaemon,
    free_address: Callable[[], str],
) -> None:
    own, address = await new_etcd(), free_address()
    async with AsyncExitStack() as stack:
        start = stack.enter_async_context
        first = await start(run_daemon("east", 1, own.endpoints, None, *SETTINGS))
        second = await start(run_daemon("east", 1, own.endpoints, None, *SETTINGS))
        one = await start(patient(kind, address))
        await first.until("/v1/status", leads)
        await second.until("/v1/status", follows)
        await define(first, kind, address)
        await second.until("/v1/probes", lambda found: result(found) == "passing")
        assert (await second.get("/v1/probes"))["prober"] is False
        await one.set_well(is_well=False)
        for daemon in (first, second):
            await daemon.until(TABLE, reason("probe-failing"))
        explained = await first.get(f"{TABLE}/explain")
        assert "the probes of east find it failing" in explained["endpoints"][0]["why"]
        first.kill()
        await second.until("/v1/status", leads)
        # Its successor begins with what is known, and asks on.
        assert reason("probe-failing")(await second.get(TABLE))
        await second.until("/v1/probes", lambda found: found["items"][0]["asked"])
        await one.set_well(is_well=True)
        await second.until(TABLE, reason(None))
        assert one.asked > 0


def result(found: Any) -> str:
    return str(found["items"][0]["result"])


async def test_what_must_not_be_asked_is_held_and_says_why(
    new_etcd: NewEtcd, run_daemon: RunDaemon, free_address: Callable[[], str]
) -> None:
    etcd, address = await new_etcd(), free_address()
    async with run_daemon("east", 1, etcd.endpoints) as east, patient("tcp", address) as one:
        await define(east, "tcp", address)
        found = await east.until("/v1/probes", lambda found: found["items"][0]["held"])
        assert found["items"][0]["held"] == "address-not-reachable"
        assert "health.probe_local" in found["items"][0]["why"]
        assert (one.asked, result(found)) == (0, "unknown")
        assert reason(None)(await east.get(TABLE))
        body = {"probe": {"port": "admin"}}
        assert await put(east, "/v1/services/shop/web", body) == 422
