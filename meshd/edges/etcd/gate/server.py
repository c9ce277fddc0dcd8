"""The gate: the part of etcd's API that a follower uses, for peers, and nothing else of it.

For: serving peers from the own etcd, whatever that etcd would let them do. Not for: what may be
asked (`requests`), by whom (`readers`), nor anything that writes. Invariants: what reaches etcd has
come out of `requests`; answers are etcd's own, byte for byte, revisions and all; a reader is never
buffered for beyond the one message that it is taking.

etcd's roles would be enough, had they no holes (Decision 35).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import structlog
from google.protobuf.message import Message

from meshd.edges.etcd.connection import Connection
from meshd.edges.etcd.gate.limits import (
    REQUEST_S,
    WRITE_S,
    WRONG_LOGIN_S,
    WRONG_LOGINS_MAX,
)
from meshd.edges.etcd.gate.listening import OPTIONS, open_port
from meshd.edges.etcd.gate.readers import Reader, Readers
from meshd.edges.etcd.gate.refusal import (
    STALE_TOKEN,
    RefusedError,
    denied,
    failed,
    malformed,
    overloaded,
)
from meshd.edges.etcd.gate.requests import checked_range, checked_txn, checked_watch, parsed
from meshd.edges.etcd.pb import etcd_pb2 as pb
from meshd.edges.etcd.watch import WatchStream
from meshd.model.errors import FatalError, MeshdError
from meshd.model.keyspace import Keyspace
from meshd.settings import GateSettings
from meshd.telemetry import metrics

RANGE = "/etcdserverpb.KV/Range"
TXN = "/etcdserverpb.KV/Txn"
WATCH = "/etcdserverpb.Watch/Watch"
STATUS = "/etcdserverpb.Maintenance/Status"
AUTHENTICATE = "/etcdserverpb.Auth/Authenticate"
VERSION = "meshd-gate"
"""What the gate says instead of an etcd's version: that is for nobody to know who may only read."""

log = structlog.get_logger(__name__)


class Gate:
    """One gate. connection: to the own etcd, and the gate's own, so that what readers take doesn't
    hold up what meshd itself asks; it is closed with the gate. is_open: it listens.
    """

    def __init__(self, settings: GateSettings, keyspace: Keyspace, connection: Connection) -> None:
        self._settings = settings
        self._connection = connection
        self._readers = Readers(settings.readers, keyspace)
        self.is_open = asyncio.Event()
        self._wrong_logins = asyncio.Semaphore(WRONG_LOGINS_MAX)

    async def run(self) -> None:
        """Serve until cancelled; raises FatalError if the gate can't listen."""
        if self._settings.listen is None:
            raise FatalError("a gate needs gate.listen")
        await self._readers.renew()
        server = grpc.aio.server(options=OPTIONS)
        server.add_generic_rpc_handlers((_AllMethods(self),))
        open_port(server, self._settings.listen, self._settings.tls)
        await server.start()
        self.is_open.set()
        log.info("peers read through the gate", listen=str(self._settings.listen))
        try:
            await self._readers.keep()
        finally:
            await server.stop(None)
            await self._connection.close()

    async def answer(self, method: str, context: Any) -> None:
        """Answer one call, whatever it is."""
        # gRPC's internal error is that the caller is gone: there is nobody to tell.
        with suppress(grpc.aio.InternalError):
            async with _refusing(context):
                await self._serve(method, context)

    async def _serve(self, method: str, context: Any) -> None:
        if method == STATUS:
            # For anybody, as with an etcd before 3.5.28: it says that something answers here.
            await _write(context, pb.StatusResponse(version=VERSION))
        elif method == AUTHENTICATE:
            await self._log_in(context)
        elif method in {RANGE, TXN}:
            await self._read(method, context)
        elif method == WATCH:
            await self._watch(context)
        else:
            metrics.GATE_REFUSED.labels("").inc()
            raise denied("the gate serves only what a follower asks for")

    async def _log_in(self, context: Any) -> None:
        request = parsed(await _request(context), pb.AuthenticateRequest)
        try:
            token = self._readers.log_in(request.name, request.password)
        except RefusedError:
            metrics.GATE_REFUSED.labels("").inc()
            if self._wrong_logins.locked():
                raise overloaded("wrong passwords") from None
            async with self._wrong_logins:
                await asyncio.sleep(WRONG_LOGIN_S)
            raise
        await _write(context, pb.AuthenticateResponse(token=token))

    async def _read(self, method: str, context: Any) -> None:
        reader = self._who(context)
        raw = await _request(context)
        kind = pb.RangeResponse if method == RANGE else pb.TxnResponse
        check = checked_range if method == RANGE else checked_txn
        try:
            request = check(raw, reader.permit)
        except RefusedError:
            metrics.GATE_REFUSED.labels(reader.name).inc()
            raise
        async with reader.reading(), _refusing(context):
            answer = await self._connection.unary(method, request, kind)
            metrics.GATE_READS.labels(reader.name).inc()
            await self._give(context, answer, reader)

    async def _watch(self, context: Any) -> None:
        """Pass on one watch. Its refusals are messages of the stream, as etcd's are."""
        raw = await _request(context)
        try:
            reader = self._who(context)
        except RefusedError as error:
            await _write(context, _cancelled(str(error)))
            return
        try:
            request = checked_watch(raw, reader.permit)
        except RefusedError as error:
            metrics.GATE_REFUSED.labels(reader.name).inc()
            await _write(context, _cancelled(str(error)))
            return
        with reader.watching():
            # A refusal is given in the reader's place: one that takes not even that keeps it, and
            # so what is held for a reader stays within its places.
            async with _refusing(context):
                await self._pass_on(WatchStream(self._connection, request), context, reader)

    async def _pass_on(self, stream: WatchStream, context: Any, reader: Reader) -> None:
        try:
            async with reader.until_revoked():
                message = await stream.open()
                await self._give(context, message, reader)
                while not message.canceled:
                    message = await stream.read()
                    await self._give(context, message, reader)
        except TimeoutError:
            raise RefusedError(grpc.StatusCode.UNAUTHENTICATED, STALE_TOKEN) from None
        finally:
            stream.close()

    async def _give(self, context: Any, answer: Message, reader: Reader) -> None:
        """Send what etcd said, at the reader's pace and within its rates."""
        try:
            size_bytes = await _write(context, answer)
        except TooSlowError:
            metrics.GATE_CUT.labels(reader.name).inc()
            log.warning("a reader of the gate took nothing and is cut", reader=reader.name)
            raise
        pause_s = reader.pause_s(size_bytes, asyncio.get_running_loop().time())
        if pause_s:
            await asyncio.sleep(pause_s)

    def _who(self, context: Any) -> Reader:
        try:
            return self._readers.who(_token(context), _certificate_names(context))
        except RefusedError:
            metrics.GATE_REFUSED.labels("").inc()
            raise


class TooSlowError(RefusedError):
    """Somebody doesn't take what was sent."""


@asynccontextmanager
async def _refusing(context: Any) -> AsyncIterator[None]:
    """End the call with the reason why there is no answer. What is inside has given up by then."""
    try:
        yield
    except RefusedError as error:
        await context.abort(error.code, str(error))
    except MeshdError as error:
        log.debug("a reader of the gate got no answer", reason=str(error))
        refusal = failed(error)
        await context.abort(refusal.code, str(refusal))


class _AllMethods(grpc.GenericRpcHandler):  # type: ignore[misc] # grpc has no types
    """Takes every call of every method. On the wire a unary call is a stream of one message."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def service(self, handler_call_details: Any) -> grpc.RpcMethodHandler:
        method = handler_call_details.method

        async def answer(_: object, context: Any) -> None:
            await self._gate.answer(method, context)

        return grpc.stream_stream_rpc_method_handler(answer)


async def _request(context: Any) -> bytes:
    """Read the one request of a call."""
    try:
        async with asyncio.timeout(REQUEST_S):
            raw = await context.read()
    except TimeoutError:
        raise RefusedError(grpc.StatusCode.DEADLINE_EXCEEDED, "meshd: no request came") from None
    if raw is grpc.aio.EOF:
        raise malformed("there is no request")
    request: bytes = raw
    return request


async def _write(context: Any, message: Message) -> int:
    """Send a message once the last one is on its way; returns its bytes."""
    raw = message.SerializeToString()
    try:
        async with asyncio.timeout(WRITE_S):
            await context.write(raw)
    except TimeoutError:
        raise TooSlowError(grpc.StatusCode.ABORTED, "meshd: read too slowly") from None
    return len(raw)


def _cancelled(reason: str) -> pb.WatchResponse:
    return pb.WatchResponse(watch_id=-1, created=True, canceled=True, cancel_reason=reason)


def _token(context: Any) -> str | None:
    for key, value in context.invocation_metadata() or ():
        if key == "token":
            return str(value)
    return None


def _certificate_names(context: Any) -> list[str]:
    names = context.auth_context().get("x509_common_name", ())
    return [name.decode(errors="replace") for name in names]
