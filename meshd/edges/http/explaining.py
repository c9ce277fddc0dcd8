"""`/v1/tables/{namespace}/{service}/explain` and `/slots`: two more views of one global service.

For: why it is as it is, and the same as slots for consistent hashing. Not for: the table itself
(`tables`). Invariant: both say the same as the table of that moment.
"""

from __future__ import annotations

from dataclasses import asdict

from aiohttp import web

from meshd.core.explain import ExplainedEndpoint, ExplainedTier, Explanation, Made, explain
from meshd.core.readers import states_about
from meshd.core.slots import SLOTS_DEFAULT, SLOTS_SIZES, check_size, slots_of
from meshd.edges.http.answers import json_answer, long_answer, own_state
from meshd.edges.http.as_of import AS_OF, item_fields, moment_of
from meshd.edges.http.limits import NODE
from meshd.edges.http.requests import check_query, query_number, service_key
from meshd.edges.http.wire import Json, origin_fields, weight_number
from meshd.model.errors import NotFoundError
from meshd.model.ids import ClusterName, ServiceKey, Vector, format_vector
from meshd.model.table import Backend
from meshd.runtime.node import Node
from meshd.runtime.past import Moment
from meshd.runtime.settled import settled


def routes() -> list[web.AbstractRouteDef]:
    """The paths that are served here."""
    one = "/v1/tables/{namespace}/{service}"
    return [web.get(f"{one}/explain", get_explanation), web.get(f"{one}/slots", get_slots)]


async def get_explanation(request: web.Request) -> web.Response:
    """Why each endpoint is in or out, and why each tier takes what it takes."""
    check_query(request, "perspective", AS_OF)
    node, key = request.app[NODE], service_key(request)
    moment = await moment_of(request)
    if moment is None:
        await settled(node.projector)
    vector, found = node.projector.vector(), _explained(node, moment, request, key)
    return json_answer(
        item_fields(moment)
        | {
            "perspective": found.perspective,
            "vector_text": format_vector(moment.shared if moment else vector),
            "namespace": key.namespace,
            "name": key.name,
            "why": found.why,
            **_service_fields(found),
            "tiers": [_tier(tier) for tier in found.tiers],
            "endpoints": [_endpoint(endpoint) for endpoint in found.endpoints],
        }
    )


def _explained(
    node: Node, moment: Moment | None, request: web.Request, key: ServiceKey
) -> Explanation:
    name, vector = _perspective(request, node)
    if moment is None:
        return node.projector.explain_as(name, vector, key)
    if name not in moment.states:
        raise NotFoundError(f"nothing was known of a cluster {name!r} here then")
    own = node.projector.own
    if name == own:
        return explain(name, key, moment.states, moment.log_ids)
    outlook = node.projector.outlook_of(name, vector)
    states, unheard = states_about(outlook, own, moment.states, key)
    return explain(name, key, states, moment.log_ids, unheard=unheard)


async def get_slots(request: web.Request) -> web.Response:
    """The backends that take traffic, as slots of a table for consistent hashing."""
    check_query(request, "perspective", "size")
    node, key = request.app[NODE], service_key(request)
    size = check_size(query_number(request, "size", SLOTS_DEFAULT, 1, SLOTS_SIZES[-1]))
    await settled(node.projector)
    service = node.projector.view_as(*_perspective(request, node), key)
    if service is None:
        raise NotFoundError(f"there is no global service {key} there")
    vector = format_vector(node.projector.vector())

    def make() -> Json:
        backends, slots = slots_of(service, size)
        return {
            "vector_text": vector,
            "size": size,
            "backends": [_slotted(backend) for backend in backends],
            "slots": slots,
        }

    return await long_answer(make)


def _perspective(request: web.Request, node: Node) -> tuple[ClusterName, Vector | None]:
    """Which cluster, and how far it reads what, by its heartbeat."""
    own_state(node)
    name = ClusterName(request.query.get("perspective", node.projector.own))
    if name not in node.projector.states:
        raise NotFoundError(f"nothing is known of a cluster {name!r} here")
    return name, node.peers.vector_of(name)


def _service_fields(found: Explanation) -> Json:
    service = found.service
    return {
        "served": service is not None,
        "affinity": service.affinity if service else None,
        "clusters": service.clusters if service else [],
        "conditions": [asdict(one) for one in service.conditions] if service else [],
    }


def _tier(tier: ExplainedTier) -> Json:
    share = asdict(tier.share) | {"weight": weight_number(tier.share.weight)}
    return share | {"order": tier.order, "why": tier.why}


def _endpoint(endpoint: ExplainedEndpoint) -> Json:
    return {
        "cluster": endpoint.cluster,
        "name": endpoint.name,
        "address": endpoint.address,
        "eligible": endpoint.reason is None,
        "tier": endpoint.tier,
        "share_ppm": endpoint.share_ppm,
        "reason": endpoint.reason,
        "why": endpoint.why,
        "made": [_made(one) for one in endpoint.made],
    }


def _made(made: Made) -> Json:
    return {"what": made.what} | origin_fields(made.cluster, made.origin)


def _slotted(backend: Backend) -> Json:
    return {"cluster": backend.cluster, "name": backend.name, "address": backend.address}
