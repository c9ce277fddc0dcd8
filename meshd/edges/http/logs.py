"""`/v1/logs`: the logs in the own etcd, how far they reach, and each as an archive.

For: looking after them, and giving a peer back what it lost. Not for: events one by one (`events`).
Invariants: nothing is written; an archive that breaks off has no footer, so nobody takes it for
whole.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Final

from aiohttp import hdrs, web

from meshd.edges.http.answers import json_answer
from meshd.edges.http.limits import LIMITS, NODE
from meshd.edges.http.problems import BAD_REQUEST, HttpProblem
from meshd.edges.http.requests import check_query
from meshd.edges.http.wire import Json
from meshd.model.archive import LogName
from meshd.model.errors import MeshdError, NotFoundError, RejectedError
from meshd.model.ids import ClusterName
from meshd.runtime.archiving import archived, audit_of
from meshd.runtime.stored_log import StoredLog, open_log, own_logs

ARCHIVE_TYPE: Final = "application/vnd.meshd.log"


def routes() -> list[web.AbstractRouteDef]:
    """The paths that are served here."""
    return [web.get("/v1/logs", list_logs), web.get("/v1/logs/archive", get_archive)]


async def list_logs(request: web.Request) -> web.Response:
    """All logs in the own etcd: the local one, the export logs, the replicas of the peers'."""
    check_query(request)
    node = request.app[NODE]
    names = own_logs(node.projector.exports)
    names += [LogName("replica", peer.name) for peer in node.peers]
    items = []
    for name in names:
        try:
            items.append(_item(await open_log(node.kv, node.keyspace, name)))
        except NotFoundError:
            continue
    return json_answer({"items": items})


def _item(stored: StoredLog) -> Json:
    snapshot = stored.snapshot
    return {
        "log": str(stored.origin.log),
        "log_id": stored.origin.log_id,
        "first_seq": stored.first_seq,
        "last_seq": stored.head.seq,
        "snapshot_seq": snapshot.head.seq if snapshot else None,
        "snapshot_items": snapshot.items if snapshot else None,
        "snapshot_parts": len(snapshot.parts) if snapshot else None,
    }


async def get_archive(request: web.Request) -> web.StreamResponse:
    """One log as an archive, as far as it goes now."""
    check_query(request, "log")
    node = request.app[NODE]
    name = _log_name(request)
    skip = node.peers.skip_of(ClusterName(name.owner))
    stored = await open_log(node.kv, node.keyspace, name, skip)
    response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: ARCHIVE_TYPE})
    async with aclosing(archived(stored, audit_of(stored))) as pieces:
        # What can't be begun is a problem; what breaks off later is a file without its footer.
        first = await anext(pieces)
        await response.prepare(request)
        await _send(request, response, first)
        try:
            async for piece in pieces:
                await _send(request, response, piece)
        except (MeshdError, TimeoutError) as error:
            if request.transport is not None:
                request.transport.abort()
            raise ConnectionResetError(str(error)) from error
    await response.write_eof()
    return response


async def _send(request: web.Request, response: web.StreamResponse, piece: bytes) -> None:
    if piece:
        async with asyncio.timeout(request.app[LIMITS].send_timeout_s):
            await response.write(piece)


def _log_name(request: web.Request) -> LogName:
    try:
        return LogName.parse(request.query.get("log", ""))
    except RejectedError as error:
        raise HttpProblem(BAD_REQUEST, "which log?", error.problems) from None
