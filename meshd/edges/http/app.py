"""The HTTP application: its routes, what surrounds every request, and its server.

For: putting the parts of this edge together. Not for: any path's own work. Invariants: every
request is counted under its route, answered within a deadline, and sent within another; stopping
ends streams first, then waits for what is under way, for a while.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from meshd.edges.http import (
    apply,
    clusters,
    contracts,
    endpoints,
    events,
    explaining,
    identities,
    logs,
    nodes,
    operations,
    own_cluster,
    past,
    peers,
    plan,
    policies,
    probes,
    reaching,
    registrations,
    services,
    status,
    table_stream,
    tables,
    verifying,
    watching,
)
from meshd.edges.http.auth import SAFE_METHODS, guard
from meshd.edges.http.connections import CONNECTIONS, Connections, keep_closing, note
from meshd.edges.http.encoded import ENCODED, EncodedServices
from meshd.edges.http.limits import HEADER_BYTES_MAX, HEADERS_MAX, LIMITS, NODE, Limits
from meshd.edges.http.listening import bind, tls_context
from meshd.edges.http.outlets import SUBSCRIBERS, Subscribers
from meshd.edges.http.problems import (
    DEADLINE,
    OUTCOME_UNKNOWN,
    HttpProblem,
    answer_problems,
)
from meshd.edges.http.ranges import RANGES, Ranges
from meshd.edges.http.requests import is_stream
from meshd.edges.http.stream import EXISTING, FANOUT, make_fanout
from meshd.edges.http.table_messages import TABLE_MESSAGES, TableMessages
from meshd.runtime.existing import Existing
from meshd.runtime.node import Node
from meshd.settings import ApiSettings, HostPort, Settings, secret_text
from meshd.telemetry import metrics

log = structlog.get_logger(__name__)

PARTS: Final = (
    *(services, endpoints, registrations, nodes, identities, policies, own_cluster),
    *(probes, tables, table_stream, explaining, past, operations),
    *(clusters, peers, events, logs, apply, plan, reaching, verifying, status, watching, contracts),
)
ENDLESS: Final = {logs.get_archive, table_stream.stream_tables, watching.watch}
"""Answers that have no end, or none that is known."""
OTHER: Final = "other"
"""How a method or path is counted that anybody could have made up."""


def build_app(node: Node, api: ApiSettings, limits: Limits) -> web.Application:
    """The application, before it listens anywhere. Reads the token; raises FatalError."""
    token = secret_text(api.token_file, api.token)
    is_local = not token and api.tls.client_ca_file is None
    app = web.Application(
        middlewares=[
            note,
            deliver,
            answer_problems,
            guard(token, is_local=is_local),
            keep_deadline,
        ],
        client_max_size=api.body_bytes_max,
    )
    app[NODE] = node
    app[ENCODED] = EncodedServices()
    app[LIMITS] = limits
    app[CONNECTIONS] = Connections()
    app[RANGES] = Ranges(node.projector)
    app[plan.PLANNING] = asyncio.Lock()
    app[reaching.DRAWING] = asyncio.Lock()
    app[SUBSCRIBERS] = Subscribers(limits.subscribers_max, limits.per_client_max)
    app[FANOUT] = make_fanout(node, limits.feed_bytes)
    app[EXISTING] = Existing(node.projector)
    app[watching.CONDITION] = watching.Condition(node)
    app[TABLE_MESSAGES] = TableMessages(node.projector)
    app[contracts.CONTRACTS] = {name: contracts.contract_text(name) for name in contracts.NAMES}
    app.on_shutdown.append(_end_streams)
    app.on_response_prepare.append(_name_server)
    for part in PARTS:
        app.add_routes(part.routes())
    return app


async def _name_server(_: web.Request, response: web.StreamResponse) -> None:
    """Say less than aiohttp would: which versions run here is nobody's business."""
    response.headers[hdrs.SERVER] = "meshd"


async def _end_streams(app: web.Application) -> None:
    app[SUBSCRIBERS].stopping.set()


@web.middleware
async def deliver(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Count the request, and see to it that a client which stands still doesn't hold its answer."""
    response = await handler(request)
    resource = request.match_info.route.resource
    metrics.HTTP_REQUESTS.labels(
        request.method if request.method in hdrs.METH_ALL else OTHER,
        resource.canonical if resource is not None else OTHER,
        str(response.status),
    ).inc()
    if isinstance(response, web.Response):
        limits = request.app[LIMITS]
        size_bytes = len(response.body) if isinstance(response.body, bytes) else 0
        try:
            async with asyncio.timeout(
                limits.send_timeout_s + size_bytes / limits.send_bytes_per_s_min
            ):
                await response.prepare(request)
                await response.write_eof()
        except TimeoutError:
            log.info("client takes no answer", remote=request.remote, path=request.path)
            if request.transport is not None:
                request.transport.abort()
    return response


@web.middleware
async def keep_deadline(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer within bounds, whatever hangs. Streams and archives have none, and bound each
    send instead.
    """
    limits = request.app[LIMITS]
    is_read = request.method in SAFE_METHODS
    asked = request.match_info.handler
    is_endless = asked in ENDLESS or (asked is events.get_events and is_stream(request))
    if is_endless:
        return await handler(request)
    seconds = limits.read_deadline_s if is_read else limits.write_deadline_s
    try:
        async with asyncio.timeout(seconds):
            return await handler(request)
    except TimeoutError:
        kind = DEADLINE if is_read or asked is plan.plan else OUTCOME_UNKNOWN
        raise HttpProblem(kind, f"there was no answer within {seconds:g} s") from None


@asynccontextmanager
async def serve(node: Node, settings: Settings) -> AsyncIterator[HostPort]:
    """Serve as long as the context lasts; gives where. Raises FatalError if it can't listen."""
    streams = settings.streams
    limits = Limits(
        subscribers_max=streams.subscribers_max,
        per_client_max=streams.per_client_max,
        feed_bytes=streams.feed_bytes,
    )
    async with serve_app(build_app(node, settings.api, limits), settings.api) as address:
        yield address


@asynccontextmanager
async def serve_app(app: web.Application, api: ApiSettings) -> AsyncIterator[HostPort]:
    """Serve an application that was built already."""
    runner = web.AppRunner(
        app,
        # A client that goes ends what was done for it, and frees its place among the subscribers.
        handler_cancellation=True,
        access_log=None,
        logger=_wire_log(),
        max_line_size=HEADER_BYTES_MAX,
        max_field_size=HEADER_BYTES_MAX,
        max_headers=HEADERS_MAX,
        shutdown_timeout=api.drain_timeout_s,
    )
    await runner.setup()
    server = runner.server
    assert server is not None  # noqa: S101 it is there once the runner is set up
    try:
        address = await _listen(runner, api)
        async with asyncio.TaskGroup() as tasks:
            beside = (
                tasks.create_task(app[FANOUT].run(), name="fan-out"),
                tasks.create_task(keep_closing(app, server), name="close idle connections"),
            )
            try:
                yield address
            finally:
                for task in beside:
                    task.cancel()
    finally:
        await runner.cleanup()


async def _listen(runner: web.AppRunner, api: ApiSettings) -> HostPort:
    context = tls_context(api.tls)
    opened = bind(api.listen)
    await web.SockSite(runner, opened, ssl_context=context).start()
    host, port, *_ = opened.getsockname()
    address = HostPort(host, port)
    log.info("REST listens", address=str(address), tls=context is not None)
    return address


class _ToDebug(logging.Handler):
    """aiohttp logs what clients do wrong on the wire as errors; to us that is a detail."""

    def emit(self, record: logging.LogRecord) -> None:
        log.debug("http", detail=record.getMessage())


def _wire_log() -> logging.Logger:
    logger = logging.getLogger(f"{__name__}.wire")
    logger.propagate = False
    logger.handlers = [_ToDebug()]
    return logger
