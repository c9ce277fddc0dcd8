"""`etcdctl make-mirror`: the peer that everybody has, replicating the same events as single keys.

For: the reference of what replication costs. Not for: judging it: it keeps no order that anybody
checks, and derives nothing. Each event is a key of its own, whose value is the event's JSON. It is
started again when it ends, as a service manager would; then it begins from the first key.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final

import grpc
import orjson

from chaos.mesh.servers import dying_with_us
from meshd.edges.etcd import EtcdKv
from meshd.edges.etcd.pb import etcd_pb2 as pb
from meshd.model.event import Event
from meshd.model.keyspace import prefix_end
from meshd.runtime.ports import Put, Txn
from tests.bench.alongside import alongside
from tests.bench.daemons import cpu_s_of
from tests.bench.mock_peers import PUTS_PER_TXN, portions

PREFIX: Final = b"/events/"
PROBE: Final = PREFIX + b"probe"
RESTART_PAUSE_S: Final = 0.1
"""What systemd waits before it starts a service again."""
LOOK_EVERY_S: Final = 0.02
TIMEOUT_S: Final = 600.0
CALLERS: Final = 64
"""Puts at a time where only what comes of them is measured."""


def mirrored_key(number: int) -> bytes:
    """Of one event."""
    return PREFIX + b"%012d" % number


def number_of(key: bytes) -> int | None:
    """Whose key it is; None for one that asks whether the mirror follows."""
    return None if key == PROBE else int(key.removeprefix(PREFIX))


def event_json(event: Event) -> bytes:
    """What an event is as the value of a key."""
    return orjson.dumps(
        {"type": event.type, "key": event.key, "data": event.data, "actor": event.actor}
    )


@dataclass(slots=True)
class Mirror:
    """The process. starts: how often it had to be started."""

    command: tuple[str, ...]
    log: Path
    process: asyncio.subprocess.Process | None = None
    starts: int = 0
    _started: asyncio.Event = field(default_factory=asyncio.Event)

    def cpu_s(self) -> float:
        """The processor time of the process that runs now."""
        assert self.process is not None
        return cpu_s_of(self.process.pid)

    async def run(self) -> None:
        """Keep it running, until cancelled."""
        with self.log.open("ab") as log:
            while True:
                self.process = await asyncio.create_subprocess_exec(
                    *self.command, env=os.environ | {"ETCDCTL_API": "3"}, stdout=log, stderr=log
                )
                self.starts += 1
                self._started.set()
                try:
                    await self.process.wait()
                finally:
                    await self._end()
                await asyncio.sleep(RESTART_PAUSE_S)

    async def started(self) -> None:
        """Wait until it runs for the first time."""
        await self._started.wait()

    async def _end(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


@asynccontextmanager
async def mirror(folder: Path, source: str, target: str) -> AsyncIterator[Mirror]:
    """Mirror what is below PREFIX, from one etcd to another, as long as the context lasts."""
    command = (
        *dying_with_us(),
        *("etcdctl", "--endpoints", source, "make-mirror", "--prefix", PREFIX.decode(), target),
    )
    made = Mirror(command, folder / "mirror.log")
    async with alongside(made.run()):
        await made.started()
        yield made


async def fill(kv: EtcdKv, events: Iterable[Event], first: int = 0) -> int:
    """Write events as keys, as many at once as etcd takes; returns the number after the last."""
    number = first
    for portion in portions(events, PUTS_PER_TXN):
        puts = tuple(
            Put(mirrored_key(place), event_json(event))
            for place, event in enumerate(portion, number)
        )
        await kv.commit(Txn(success=puts))
        number += len(portion)
    return number


async def fill_singly(channel: grpc.aio.Channel, events: Iterable[Event], first: int) -> int:
    """Write events as keys, each by a put of its own; returns the number after the last."""
    puts, numbers = BarePuts(channel), count(first)
    left = iter(events)

    async def put() -> None:
        for event in left:
            await puts.put(mirrored_key(next(numbers)), event_json(event))

    async with asyncio.TaskGroup() as tasks:
        for _ in range(CALLERS):
            tasks.create_task(put())
    return next(numbers)


async def until_there(kv: EtcdKv, keys: int) -> None:
    """Wait until an etcd has so many of them."""
    async with asyncio.timeout(TIMEOUT_S):
        while await _count(kv) < keys:  # noqa: ASYNC110 it is asked
            await asyncio.sleep(LOOK_EVERY_S)


async def _count(kv: EtcdKv) -> int:
    return (await kv.range(PREFIX, prefix_end(PREFIX), limit=1)).count


async def until_following(source: EtcdKv, target: EtcdKv) -> None:
    """Wait until what is put at one side comes out at the other: the mirror is past its start."""
    value = str(time.time_ns()).encode()
    async with asyncio.timeout(TIMEOUT_S):
        await source.commit(Txn(success=(Put(PROBE, value),)))
        while not await _has(target, PROBE, value):  # noqa: ASYNC110 it is asked
            await asyncio.sleep(LOOK_EVERY_S)


async def _has(kv: EtcdKv, key: bytes, value: bytes) -> bool:
    return any(one.value == value for one in (await kv.range(key)).kvs)


# --- bare clients ---------------------------------------------------------------------------------


class BarePuts:
    """Puts by grpc.aio and nothing else."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._put = channel.unary_unary(
            "/etcdserverpb.KV/Put",
            request_serializer=pb.PutRequest.SerializeToString,
            response_deserializer=pb.PutResponse.FromString,
        )

    async def put(self, key: bytes, value: bytes, timeout_s: float | None = None) -> None:
        """Write one key."""
        await self._put(pb.PutRequest(key=key, value=value), timeout=timeout_s)


@asynccontextmanager
async def seen_keys(
    channel: grpc.aio.Channel, prefix: bytes, see: Callable[[bytes], None]
) -> AsyncIterator[None]:
    """Have a bare watch tell of every key below a prefix that is written from now on."""
    watch: Any = channel.stream_stream(
        "/etcdserverpb.Watch/Watch",
        request_serializer=pb.WatchRequest.SerializeToString,
        response_deserializer=pb.WatchResponse.FromString,
    )()
    create = pb.WatchCreateRequest(key=prefix, range_end=prefix_end(prefix))
    await watch.write(pb.WatchRequest(create_request=create))
    await watch.read()

    async def read() -> None:
        while (response := await watch.read()) is not grpc.aio.EOF:
            for event in response.events:
                see(event.kv.key)

    try:
        async with alongside(read()):
            yield
    finally:
        watch.cancel()
