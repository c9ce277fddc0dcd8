"""`/v1/endpoints` and those below a service: this cluster's own endpoints.

For: reading, setting and removing them one by one. Not for: the backends that they become
(`tables`). Invariant: what GET answers, PUT takes.
"""

from __future__ import annotations

from collections.abc import Iterator

from aiohttp import web

from meshd.core.state import ClusterState, Held
from meshd.edges.http.answers import (
    json_answer,
    long_answer,
    submission,
    submit,
    write_answer,
)
from meshd.edges.http.as_of import (
    AS_OF,
    item_fields,
    moment_fields,
    moment_of,
    own_state_at,
)
from meshd.edges.http.limits import NODE
from meshd.edges.http.requests import check_query, endpoint_key, read_object, service_key
from meshd.edges.http.services import named_value
from meshd.edges.http.wire import endpoint_item
from meshd.model.command import RemoveEndpoint, SetEndpoint
from meshd.model.endpoint import Endpoint
from meshd.model.errors import NotFoundError
from meshd.model.ids import EndpointKey, ServiceKey
from meshd.model.schema import from_data
from meshd.runtime.node import Node
from meshd.runtime.past import Moment

Item = tuple[EndpointKey, Held[Endpoint]]


def routes() -> list[web.AbstractRouteDef]:
    """The paths that are served here."""
    of_service = "/v1/services/{namespace}/{service}/endpoints"
    one = of_service + "/{endpoint}"
    return [
        web.get("/v1/endpoints", list_endpoints),
        web.get(of_service, list_endpoints_of_service),
        web.get(one, get_endpoint),
        web.put(one, put_endpoint),
        web.delete(one, delete_endpoint),
    ]


async def list_endpoints(request: web.Request) -> web.Response:
    """All own endpoints, sorted by name."""
    check_query(request, "namespace", "service", AS_OF)
    node, query = request.app[NODE], request.query
    moment = await moment_of(request)
    state, _, _ = own_state_at(node, moment)
    keys = sorted(
        key
        for key in state.endpoints
        if query.get("namespace") in {None, key.namespace}
        and query.get("service") in {None, key.name}
    )
    return await _answer(node, moment, [item for key in keys for item in _items(state, key)])


async def list_endpoints_of_service(request: web.Request) -> web.Response:
    """A service's own endpoints."""
    check_query(request, AS_OF)
    node, key = request.app[NODE], service_key(request)
    moment = await moment_of(request)
    state, own, _ = own_state_at(node, moment)
    if key not in state.services and key not in state.endpoints:
        raise NotFoundError(f"{own} does not define a service {key}")
    return await _answer(node, moment, list(_items(state, key)))


def _items(state: ClusterState, key: ServiceKey) -> Iterator[Item]:
    for name, held in sorted(state.endpoints_of(key).items(), key=lambda item: item[0]):
        yield EndpointKey(key, name), held


async def _answer(node: Node, moment: Moment | None, items: list[Item]) -> web.Response:
    _, own, log_id = own_state_at(node, moment)
    fields = moment_fields(moment)
    return await long_answer(
        lambda: {"items": [endpoint_item(key, held, own, log_id) for key, held in items]} | fields
    )


async def get_endpoint(request: web.Request) -> web.Response:
    """One own endpoint."""
    check_query(request, AS_OF)
    node, key = request.app[NODE], endpoint_key(request)
    moment = await moment_of(request)
    state, own, log_id = own_state_at(node, moment)
    held = state.endpoints_of(key.service).get(key.name)
    if held is None:
        raise _missing(node, key)
    return json_answer(endpoint_item(key, held, own, log_id) | item_fields(moment))


async def put_endpoint(request: web.Request) -> web.Response:
    """Add an endpoint, or replace its value."""
    check_query(request)
    node, key = request.app[NODE], endpoint_key(request)
    names = {"namespace": key.service.namespace, "service": key.service.name, "name": key.name}
    data = named_value(await read_object(request), names)
    endpoint = from_data(Endpoint, data, "")
    return write_answer(node, await submit(node, submission(request, [SetEndpoint(key, endpoint)])))


async def delete_endpoint(request: web.Request) -> web.Response:
    """Remove an endpoint."""
    check_query(request)
    node, key = request.app[NODE], endpoint_key(request)
    outcome = await submit(node, submission(request, [RemoveEndpoint(key)]))
    if not outcome.events:
        raise _missing(node, key)
    return write_answer(node, outcome)


def _missing(node: Node, key: EndpointKey) -> NotFoundError:
    return NotFoundError(f"{node.projector.own} has no endpoint {key}")
