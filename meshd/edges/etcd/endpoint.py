"""One address of an etcd and the gRPC channel to it.

For: making the channel, its TLS, and finding out whether somebody answers. Not for: choosing among
endpoints (`connection`). Invariant: certificate files are read when a connection is made, never
kept for the next one.

A channel per endpoint, not one channel for all: with TLS gRPC expects one name for all addresses of
a channel, so that the certificate of each member could not be checked against its own name.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc

from meshd.edges.etcd.errors import details_of, is_etcds_refusal, not_connected
from meshd.edges.etcd.pb import etcd_pb2 as pb
from meshd.edges.etcd.target import EtcdTarget, TlsFiles
from meshd.model.errors import DeniedError, TransientError

KEEPALIVE_TIME_MS = 10_000
"""Below 5 s etcd closes the connection with 'too many pings'. Not without a call under way, for
the same reason: an idle connection is found dead by its next call's deadline."""
KEEPALIVE_TIMEOUT_MS = 3_000
RECONNECT_BACKOFF_MS_MIN = 100
RECONNECT_BACKOFF_MS_MAX = 2_000
PIPELINED = 256
"""Requests on their way at once: some KiB each way, of a stream's window of 64."""

_STATUS = "/etcdserverpb.Maintenance/Status"

UnaryCall = Callable[..., Awaitable[Any]]


async def first_answer(call: Any, request: object) -> Any:
    """Send one request on a stream and return the first answer."""
    # If the stream ended before it began, reading tells why.
    with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        await call.write(request)
    return await call.read()


class Endpoint:
    """A channel that is made when first needed, and made anew when certificates changed."""

    def __init__(self, address: str, target: EtcdTarget) -> None:
        self.address = address
        self.name = f"etcd {address}"
        self._target = target
        self._channel: grpc.aio.Channel | None = None
        self._files: tuple[bytes | None, ...] = ()
        self._calls: dict[str, UnaryCall] = {}

    @property
    def is_ready(self) -> bool:
        """Whether a connection stands, so that a call will be sent at once."""
        return (
            self._channel is not None
            and self._channel.get_state() is grpc.ChannelConnectivity.READY
        )

    async def connect(self, timeout_s: float) -> None:
        """Get a connection to something that answers like an etcd, or raise why there is none."""
        await self._renew_channel()
        try:
            # Asking for the status rather than waiting for a state: it tells why it failed.
            await self.unary(_STATUS, pb.StatusResponse)(pb.StatusRequest(), timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            if is_etcds_refusal(error):
                return
            why = f"{self.name} can't be reached or is no etcd: {details_of(error)}"
            raise not_connected(why) from error

    def unary(self, method: str, response: type[Any]) -> UnaryCall:
        """Return a unary method of the channel. `connect` came first."""
        call = self._calls.get(method)
        if call is None:
            call = self._calls[method] = self._connected().unary_unary(
                method,
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=response.FromString,
            )
        return call

    def stream(self, method: str, response: type[Any]) -> Any:
        """Return a streaming method of the channel. `connect` came first."""
        return self._connected().stream_stream(
            method,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=response.FromString,
        )

    def unary_on_stream(self, method: str, response: type[Any]) -> UnaryCall:
        """Return a streaming method as if it were a unary one: one request, one answer."""

        async def ask(request: object, **options: object) -> object:
            call = self.stream(method, response)(**options)
            try:
                answer: object = await first_answer(call, request)
            finally:
                call.cancel()
            if answer is grpc.aio.EOF:
                raise TransientError(f"{self.name}: {method} ended without an answer")
            return answer

        return ask

    def many_on_stream(self, method: str, response: type[Any]) -> UnaryCall:
        """Return a streaming method that answers each request with one answer, for many at once."""

        async def ask(requests: Sequence[object], **options: object) -> list[object]:
            call = self.stream(method, response)(**options)
            answers: list[object] = []
            try:
                for first in range(0, len(requests), PIPELINED):
                    portion = requests[first : first + PIPELINED]
                    answers.append(await first_answer(call, portion[0]))
                    # Both ways have room for a portion, so that nobody waits for the other.
                    for request in portion[1:]:
                        await call.write(request)
                    answers += [await call.read() for _ in portion[1:]]
            finally:
                call.cancel()
            if grpc.aio.EOF in answers:
                raise TransientError(f"{self.name}: {method} ended without an answer")
            return answers

        return ask

    async def close(self) -> None:
        """Close the channel; calls under way are cancelled."""
        channel, self._channel = self._channel, None
        self._calls = {}
        if channel is not None:
            await channel.close()

    def _connected(self) -> grpc.aio.Channel:
        if self._channel is None:
            raise RuntimeError(f"{self.name}: used before connect()")
        return self._channel

    async def _renew_channel(self) -> None:
        files: tuple[bytes | None, ...] = ()
        if self._target.tls is not None:
            files = await asyncio.to_thread(_read, self._target.tls)
        if self._channel is not None and files == self._files:
            return
        old, self._channel, self._calls = self._channel, self._make_channel(files), {}
        self._files = files
        if old is not None:
            await old.close()

    def _make_channel(self, files: tuple[bytes | None, ...]) -> grpc.aio.Channel:
        tls = self._target.tls
        options: list[tuple[str, int | str]] = [
            ("grpc.keepalive_time_ms", KEEPALIVE_TIME_MS),
            ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
            ("grpc.keepalive_permit_without_calls", 0),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.initial_reconnect_backoff_ms", RECONNECT_BACKOFF_MS_MIN),
            ("grpc.min_reconnect_backoff_ms", int(self._target.connect_timeout_s * 1000)),
            ("grpc.max_reconnect_backoff_ms", RECONNECT_BACKOFF_MS_MAX),
            ("grpc.max_receive_message_length", self._target.receive_bytes_max),
            # A proxy for web pages is none for etcd.
            ("grpc.enable_http_proxy", 0),
            # Else another client of this process shares our connection and its back-off.
            ("grpc.use_local_subchannel_pool", 1),
            # gRPC's own retries would repeat writes.
            ("grpc.enable_retries", 0),
        ]
        if tls is None:
            return grpc.aio.insecure_channel(_uri(self.address), options)
        if tls.server_name:
            options.append(("grpc.ssl_target_name_override", tls.server_name))
        ca, cert, key = files
        credentials = grpc.ssl_channel_credentials(ca, key, cert)
        return grpc.aio.secure_channel(_uri(self.address), credentials, options)


def _uri(address: str) -> str:
    host = address.rpartition(":")[0].strip("[]")
    try:
        return f"ipv{ipaddress.ip_address(host).version}:{address}"
    except ValueError:
        return f"dns:///{address}"


def _read(tls: TlsFiles) -> tuple[bytes | None, ...]:
    return _read_file(tls.ca_file), _read_file(tls.cert_file), _read_file(tls.key_file)


def _read_file(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise DeniedError(f"can't read the TLS file {path}: {error.strerror}") from error
