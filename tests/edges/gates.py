"""Gates under test: real ones, in front of a real etcd, and calls that no client of ours makes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from meshd.edges.embedded import EmbeddedEtcd
from meshd.edges.etcd import EtcdTarget
from meshd.edges.etcd.connection import Connection
from meshd.edges.etcd.gate import ANSWER_BYTES_MAX, Gate
from meshd.model.keyspace import Keyspace
from meshd.settings import GateReader, GateSettings, HostPort, ServerTls

PASSWORDS = {"west": "w", "south": "s"}
AUDIENCES = {"west": "mesh", "south": "eu"}


def gate_settings(address: str, folder: Path, tls: ServerTls | None = None) -> GateSettings:
    """Two readers of two audiences, with their passwords in files."""
    readers = []
    for name, password in PASSWORDS.items():
        file = folder / name
        file.write_text(f"{password}\n")
        readers.append(GateReader(name=name, audience=AUDIENCES[name], password_file=file))
    return GateSettings(
        listen=HostPort.parse(address), tls=tls or ServerTls(), readers=tuple(readers)
    )


@asynccontextmanager
async def gate_before(
    etcd: EmbeddedEtcd, settings: GateSettings, **own: str
) -> AsyncIterator[Gate]:
    """Run a gate as long as the context lasts. own: how it logs in at the etcd."""
    target = EtcdTarget(
        endpoints=(etcd.config.client_address,),
        receive_bytes_max=ANSWER_BYTES_MAX,
        username=own.get("username", ""),
        password=own.get("password", ""),
    )
    gate = Gate(settings, Keyspace(), Connection(target))
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(gate.run())
        await gate.is_open.wait()
        try:
            yield gate
        finally:
            running.cancel()


Raw = Callable[..., Any]


@asynccontextmanager
async def raw_calls(address: str) -> AsyncIterator[Raw]:
    """Send any bytes to any method: `await call('KV/Put', raw, token)` gives bytes or raises."""
    async with grpc.aio.insecure_channel(address) as channel:

        async def call(method: str, raw: bytes, token: str = "") -> bytes:
            asked = channel.unary_unary(f"/etcdserverpb.{method}")
            metadata = (("token", token),) if token else ()
            answer: bytes = await asked(raw, metadata=metadata, timeout=10)
            return answer

        yield call


async def status_of(call: Awaitable[object]) -> grpc.StatusCode:
    """How a call ended."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return grpc.StatusCode.OK


async def token_of(address: str, user: str) -> str:
    """Log in, and keep the token."""
    target = EtcdTarget(endpoints=(address,), username=user, password=PASSWORDS[user])
    connection = Connection(target)
    try:
        deadline_s = asyncio.get_running_loop().time() + 5
        token = await connection.token(await connection.pick(deadline_s), deadline_s)
        assert token
        return token
    finally:
        await connection.close()
