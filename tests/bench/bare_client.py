"""A bare client of etcd: what no layer in Python can beat at writing and following a log.

For: the reference of processor time, in a process of its own as meshd is: grpc.aio with the
generated messages and nothing else. Not for: anything but this: it decides, checks and folds
nothing.

`python -m tests.bench.bare_client ADDRESS` is asked one of:
`{write: [[key, bytes], ...], times, at_once}`: so many transactions of such puts;
`{follow: prefix, to: ADDRESS, records}`: copy what is below a prefix to another etcd, each record
by a put, until there are so many; it answers when the watch stands;
`null`: answer when all is copied.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, Final

import grpc

from meshd.edges.etcd.pb import etcd_pb2 as pb
from meshd.model.keyspace import prefix_end
from tests.bench.children import answer_all
from tests.bench.shapes import put_call, puts_request, txn_call

UNLIMITED: Final = (("grpc.max_receive_message_length", -1),)
"""A watch response may hold a thousand records."""


class Client:
    """What it is asked for."""

    def __init__(self, channel: grpc.aio.Channel, tasks: asyncio.TaskGroup) -> None:
        self._channel, self._tasks = channel, tasks
        self._following: asyncio.Task[None] | None = None

    async def answer(self, asked: dict[str, Any] | None) -> object:
        """Do it."""
        if asked is None:
            assert self._following is not None
            await self._following
        elif "write" in asked:
            await self._write(asked["write"], asked["times"], asked["at_once"])
        else:
            stands = asyncio.Event()
            work = self._follow(asked["follow"].encode(), asked["to"], asked["records"], stands)
            self._following = self._tasks.create_task(work)
            await stands.wait()
        return None

    async def _write(self, shape: list[tuple[str, int]], times: int, at_once: int) -> None:
        txn, numbers = txn_call(self._channel), count(1)
        puts = [(key.encode(), bytes(size)) for key, size in shape]

        async def caller() -> None:
            while (number := next(numbers)) <= times:
                seq = b"%020d" % number
                await txn(puts_request([(key.replace(b"SEQ", seq), value) for key, value in puts]))

        async with asyncio.TaskGroup() as tasks:
            for _ in range(at_once):
                tasks.create_task(caller())

    async def _follow(self, prefix: bytes, to: str, records: int, stands: asyncio.Event) -> None:
        watch = self._channel.stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=pb.WatchRequest.SerializeToString,
            response_deserializer=pb.WatchResponse.FromString,
        )()
        create = pb.WatchCreateRequest(key=prefix, range_end=prefix_end(prefix))
        await watch.write(pb.WatchRequest(create_request=create))
        await watch.read()
        stands.set()
        async with _channel(to) as target:
            put = put_call(target)
            while records > 0:
                response = await watch.read()
                for event in response.events:
                    await put(pb.PutRequest(key=event.kv.key, value=event.kv.value))
                records -= len(response.events)
        watch.cancel()


@asynccontextmanager
async def _channel(address: str) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(f"ipv4:{address}", options=UNLIMITED) as channel:
        yield channel


async def serve(address: str) -> None:
    """Answer until standard input ends."""
    async with _channel(address) as channel, asyncio.TaskGroup() as tasks:
        await answer_all(Client(channel, tasks).answer)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
