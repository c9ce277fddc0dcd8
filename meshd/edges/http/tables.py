"""`/v1/tables`: the global services, from a cluster's perspective.

For: whole tables and single services. Not for: following changes (`stream`). Invariant: services,
vector and digest of one answer belong together, since they are taken without waiting in between.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from meshd.core.derive import derive_with_digests
from meshd.core.telling import table_service
from meshd.edges.http.answers import json_answer, long_answer, own_state
from meshd.edges.http.as_of import AS_OF, item_fields, moment_fields, moment_of, table_at
from meshd.edges.http.encoded import ENCODED, answer_with
from meshd.edges.http.limits import NODE
from meshd.edges.http.requests import check_query, service_key
from meshd.model.errors import NotFoundError
from meshd.model.ids import ClusterName, ServiceKey, format_vector
from meshd.model.table import GlobalService
from meshd.runtime.node import Node
from meshd.runtime.past import Moment
from meshd.runtime.settled import settled


@dataclass(frozen=True, slots=True)
class _Seen:
    """One perspective's table, as it is now or was at a moment. unsure: of whom it may see
    something else.
    """

    perspective: ClusterName
    unsure: tuple[ClusterName, ...]
    services: tuple[GlobalService, ...]
    digest_of: Callable[[ServiceKey], str | None]
    digest: str


def routes() -> list[web.AbstractRouteDef]:
    """The paths that are served here."""
    return [
        web.get("/v1/tables", get_table),
        web.get("/v1/tables/{namespace}/{service}", get_table_service),
    ]


async def get_table(request: web.Request) -> web.Response:
    """All global services."""
    check_query(request, "perspective", "namespace", AS_OF)
    node, namespace = request.app[NODE], request.query.get("namespace")
    moment = await moment_of(request)
    if moment is None:
        await settled(node.projector)
    seen = await _seen(node, request.query.get("perspective"), moment)
    unfresh = _unfresh(node, moment)
    projector = node.projector
    fields = {
        "perspective": seen.perspective,
        "vector_text": format_vector(moment.shared if moment else projector.vector()),
        "events_after": format_vector(moment.at if moment else projector.log_vector()),
        "digest": seen.digest,
        "stale": sorted(unfresh),
        "unsure": list(seen.unsure),
        **moment_fields(moment),
    }
    chosen = [
        (service, seen.digest_of(service.key) or "")
        for service in seen.services
        if namespace in {None, service.key.namespace}
    ]
    return await long_answer(
        lambda: fields | {"services": [table_service(*service, unfresh) for service in chosen]}
    )


async def get_table_service(request: web.Request) -> web.Response:
    """One global service."""
    check_query(request, "perspective", AS_OF)
    node, key = request.app[NODE], service_key(request)
    moment = await moment_of(request)
    seen = await _seen(node, request.query.get("perspective"), moment, only=key)
    if not seen.services:
        raise NotFoundError(f"there is no global service {key} in {seen.perspective}")
    view, digest = seen.services[0], seen.digest_of(key) or ""
    if moment is None and seen.perspective == node.projector.own:
        return answer_with(request, request.app[ENCODED].of(view, digest, node.peers.unfresh()))
    shown = table_service(view, digest, _unfresh(node, moment))
    return json_answer(shown | item_fields(moment))


def _unfresh(node: Node, moment: Moment | None) -> frozenset[ClusterName]:
    """Who is out of sight now; who was, no log tells."""
    return node.peers.unfresh() if moment is None else frozenset()


async def _seen(
    node: Node, perspective: str | None, moment: Moment | None, only: ServiceKey | None = None
) -> _Seen:
    own_state(node)
    if moment is not None:
        then = await table_at(node, moment, perspective)
        found = tuple(then.services[key] for key in sorted(then.services) if only in {None, key})
        return _Seen(then.perspective, then.unsure, found, then.digests.get, then.digest)
    projector = node.projector
    name = ClusterName(projector.own if perspective is None else perspective)
    if name == projector.own:
        tables = projector.tables
        keys = tables.keys() if only is None else (only,)
        views = (tables.view(key) for key in keys)
        services = tuple(view for view in views if view is not None)
        return _Seen(name, (), services, tables.digest_of, tables.digest)
    if name not in projector.states:
        raise NotFoundError(f"nothing is known of a cluster {name!r} here")
    outlook = projector.outlook_of(name, node.peers.vector_of(name))
    chosen = None if only is None else (only,)
    table = derive_with_digests(name, projector.states_as(outlook), projector.log_ids, chosen)
    services = tuple(table.services.values())
    return _Seen(name, outlook.unsure, services, table.digests.get, table.digest)
