"""One watch: whole responses out of etcd's fragments.

For: opening the stream, putting fragments together, dropping what etcd repeats, and errors by
reaction. Not for: resuming; the reader knows its place and opens a new watch. Invariant: what is
delivered ends with a whole revision, and every revision is greater than all delivered before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, Self

import grpc

from meshd.edges.etcd.connection import Connection
from meshd.edges.etcd.endpoint import Endpoint, first_answer
from meshd.edges.etcd.errors import may_be_stale, translate, translate_cancel
from meshd.edges.etcd.pb import etcd_pb2 as pb
from meshd.edges.etcd.wire import watch_event
from meshd.model.errors import MeshdError, TransientError
from meshd.runtime.ports import WatchEvent, WatchResponse

_WATCH = "/etcdserverpb.Watch/Watch"


class Assembler:
    """Collects fragments into whole revisions. Pure: messages in, responses out."""

    def __init__(self, start_revision: int) -> None:
        self._delivered_revision = start_revision - 1
        self._open_revision: list[WatchEvent] = []

    def add(self, message: pb.WatchResponse) -> WatchResponse | None:
        """Take a message; return what is whole now, None if that is nothing.

        A response with more than one revision is passed on as its revisions become whole, so that
        memory holds one fragment and one revision, not 1000 revisions.
        """
        if not message.events and not message.fragment and not self._open_revision:
            return WatchResponse(message.header.revision, ())
        # etcd 3.4 repeats events now and then, and after a snapshot may go back in time.
        events = self._open_revision + [
            watch_event(event)
            for event in message.events
            if event.kv.mod_revision > self._delivered_revision
        ]
        self._open_revision = []
        if message.fragment and events:
            last_revision = events[-1].kv.mod_revision
            self._open_revision = [e for e in events if e.kv.mod_revision == last_revision]
            events = events[: -len(self._open_revision)]
        if not events:
            return None
        self._delivered_revision = events[-1].kv.mod_revision
        return WatchResponse(message.header.revision, tuple(events))


class WatchStream:
    """The messages of one stream, as etcd sends them."""

    def __init__(self, connection: Connection, request: pb.WatchCreateRequest) -> None:
        self._connection = connection
        self._request = request
        self._endpoint: Endpoint | None = None
        self._call: Any = None

    @property
    def is_open(self) -> bool:
        """Whether `open` was called."""
        return self._call is not None

    @property
    def name(self) -> str:
        """Who is at the other end, for messages."""
        return self._endpoint.name if self._endpoint else "etcd"

    async def open(self) -> pb.WatchResponse:
        """Ask for the watch; returns the first answer, which may be that it was cancelled."""
        timeout_s = self._connection.call_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                return await self._create(asyncio.get_running_loop().time() + timeout_s)
        except TimeoutError as error:
            raise TransientError(f"{self.name}: no watch within {timeout_s:g} s") from error

    async def read(self) -> pb.WatchResponse:
        """Wait for the next message; raises when the stream ends."""
        return await self._read(self._call.read())

    def close(self) -> None:
        """End the stream, and with it the watcher in etcd."""
        if self._call is not None:
            self._call.cancel()

    async def _create(self, deadline_s: float) -> pb.WatchResponse:
        self._endpoint = await self._connection.pick(deadline_s)
        token = await self._connection.token(self._endpoint, deadline_s)
        created = await self._ask(self._endpoint)
        if created.canceled and token is not None and may_be_stale(created.cancel_reason):
            self.close()
            await self._connection.token(self._endpoint, deadline_s, stale=token)
            created = await self._ask(self._endpoint)
        return created

    async def _ask(self, endpoint: Endpoint) -> pb.WatchResponse:
        request = pb.WatchRequest(create_request=self._request)
        stream = endpoint.stream(_WATCH, pb.WatchResponse)
        self._call = stream(metadata=self._connection.metadata())
        return await self._read(first_answer(self._call, request))

    async def _read(self, answer: Awaitable[Any]) -> pb.WatchResponse:
        try:
            message = await answer
        except grpc.aio.AioRpcError as error:
            if self._endpoint is not None:
                self._connection.demote(self._endpoint)
            raise translate(error, self.name, writes=False) from error
        except asyncio.CancelledError as error:
            self._connection.raise_if_closed(error)
            raise
        if message is grpc.aio.EOF:
            raise TransientError(f"{self.name}: the watch ended")
        result: pb.WatchResponse = message
        return result


class Watch:
    """An iterator over the responses of one stream."""

    def __init__(self, connection: Connection, request: pb.WatchCreateRequest) -> None:
        self._stream = WatchStream(connection, request)
        self._assembler = Assembler(request.start_revision)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> WatchResponse:
        if not self._stream.is_open:
            created = await self._stream.open()
            if created.canceled:
                raise self._cancelled(created)
            return WatchResponse(created.header.revision, (), is_created=True)
        while True:
            message = await self._stream.read()
            if message.canceled:
                raise self._cancelled(message)
            response = self._assembler.add(message)
            if response is not None:
                return response

    def close(self) -> None:
        """End the stream, and with it the watcher in etcd."""
        self._stream.close()

    def _cancelled(self, message: pb.WatchResponse) -> MeshdError:
        return translate_cancel(message.cancel_reason, message.compact_revision, self._stream.name)
