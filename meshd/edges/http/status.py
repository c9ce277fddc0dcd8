"""What meshd says of itself: status, probes, metrics, and the description of this interface.

For: people, load balancers and Prometheus. Not for: the mesh's content. Invariants: readiness never
waits for a peer; liveness asks nothing but whether the event loop turns; neither the own etcd nor a
peer that is away delays any of them.
"""

from __future__ import annotations

import asyncio
from typing import Final

from aiohttp import hdrs, web
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from meshd import __version__
from meshd.edges.http.answers import json_answer
from meshd.edges.http.clusters import peer_items
from meshd.edges.http.limits import NODE
from meshd.edges.http.ranges import RANGES
from meshd.edges.http.requests import check_query
from meshd.edges.http.wire import Json, head_fields, vector_fields
from meshd.model.errors import DeniedError, MeshdError
from meshd.model.ids import format_vector
from meshd.runtime.node import Node
from meshd.runtime.ports import KvStatus
from meshd.telemetry import metrics

ETCD_STATUS_TIMEOUT_S: Final = 1.0
"""A status that waits longer is no help to somebody who looks for what is wrong."""


def routes() -> list[web.AbstractRouteDef]:
    """The paths that are served here."""
    return [
        web.get("/v1/status", get_status),
        web.get("/livez", get_livez),
        web.get("/readyz", get_readyz),
        web.get("/metrics", get_metrics),
    ]


async def get_status(request: web.Request) -> web.Response:
    """Everything at a glance."""
    check_query(request)
    node = request.app[NODE]
    etcd = await _etcd(node)
    projector = node.projector
    vector, head = projector.vector(), projector.local_head
    reasons = not_ready_because(node)
    return json_answer(
        {
            "cluster": node.descriptor.name,
            "id": node.descriptor.id,
            "version": __version__,
            "ready": not reasons,
            "reasons": reasons,
            "vector": vector_fields(vector),
            "vector_text": format_vector(vector),
            "events_after": format_vector(projector.log_vector()),
            "digest": digest_now(node),
            "local": head_fields(head.local) if head else None,
            "exports": _exports(node),
            "peers": peer_items(node),
            "etcd": etcd,
            "mqtt": _mqtt(node),
            "leader": leader_fields(node),
            "uptime_s": round(node.clock.monotonic_s() - node.started_s, 3),
        }
    )


def _exports(node: Node) -> list[Json]:
    """The export logs, by audience."""
    projector = node.projector
    return [
        {"audience": audience, "written": projector.is_written(audience)} | head_fields(head)
        for audience, head in sorted(projector.exports.items())
    ]


async def _etcd(node: Node) -> Json:
    """The own etcd, if it answers at once."""
    try:
        async with asyncio.timeout(ETCD_STATUS_TIMEOUT_S):
            status = await _told(node)
    except (TimeoutError, MeshdError) as error:
        reason = str(error) or f"no answer within {ETCD_STATUS_TIMEOUT_S:g} s"
        return {"reachable": False, "reason": reason, "version": None, "db_size_bytes": None}
    return {
        "reachable": True,
        "reason": "",
        "version": status.version if status else None,
        "db_size_bytes": status.db_size_bytes if status else None,
    }


async def _told(node: Node) -> KvStatus | None:
    """What the own etcd says of itself; None if it serves us and tells that to root alone."""
    try:
        return await node.kv.status()
    except DeniedError:
        await node.kv.range(node.keyspace.descriptor)
        return None


def digest_now(node: Node) -> str | None:
    """The digest of what is served; None while the own log is read on."""
    projector = node.projector
    is_known = projector.local_head is not None and projector.is_settled
    return projector.tables.digest if is_known else None


def leader_fields(node: Node) -> Json | None:
    """Who does the cluster's chores, as far as this meshd knows."""
    leadership = node.leadership
    holder = leadership.leader
    if holder is None:
        return None
    is_self = leadership.is_leader
    return {"self": is_self, "host": holder.host, "pid": holder.pid, "api": holder.api}


def _mqtt(node: Node) -> Json | None:
    """How publishing goes; None where no broker is set."""
    if node.publisher is None:
        return None
    condition = node.publisher.condition
    return {
        "phase": condition.phase,
        "broker": condition.broker,
        "reason": condition.reason,
        "published": None if condition.published is None else str(condition.published),
        "behind_events": condition.behind,
    }


def not_ready_because(node: Node) -> list[str]:
    """Why requests would get no useful answer; empty when they would."""
    if node.projector.local_head is None:
        return ["the own log has not been read to its end yet"]
    return []


async def get_livez(_: web.Request) -> web.Response:
    """The event loop turns, or this would not be answered."""
    return json_answer({"alive": True})


async def get_readyz(request: web.Request) -> web.Response:
    """Whether tables and writes are to be had here."""
    reasons = not_ready_because(request.app[NODE])
    return json_answer({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)


async def get_metrics(request: web.Request) -> web.Response:
    """Numbers for Prometheus."""
    check_query(request)
    metrics.TABLE_SERVICES.set(len(request.app[NODE].projector.tables.keys()))
    metrics.RANGE_CONDITIONS.set((await request.app[RANGES].found()).count)
    return web.Response(
        body=generate_latest(metrics.REGISTRY), headers={hdrs.CONTENT_TYPE: CONTENT_TYPE_LATEST}
    )
