"""`/v1/endpoints` and those below a service: this cluster's own endpoints.

For: reading, setting and removing them one by one. Not for: the backends that they become
(`tables`). Invariant: what GET answers, PUT takes.
"""

from __future__ import annotations

from collections.abc import Iterator

from aiohttp import web

from meshd.core.state import ClusterState, Held
from meshd.edges.http.answers import submission, submit, write_answer
from meshd.edges.http.as_of import AS_OF, moment_of, own_state_at
from meshd.edges.http.limits import NODE
from meshd.edges.http.requests import check_query, endpoint_key, read_object, service_key
from meshd.edges.http.services import named_value
from meshd.edges.http.things import Kind, delete_one, get_one, list_answer
from meshd.edges.http.wire import endpoint_item
from meshd.model.command import RemoveEndpoint, SetEndpoint
from meshd.model.endpoint import Endpoint
from meshd.model.errors import NotFoundError
from meshd.model.ids import EndpointKey, ServiceKey
from meshd.model.schema import from_data

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


ENDPOINTS = Kind(
    endpoint_key,
    lambda state, key: state.endpoints_of(key.service).get(key.name),
    endpoint_item,
    "has no endpoint",
)


async def list_endpoints(request: web.Request) -> web.Response:
    """All own endpoints, sorted by name."""
    check_query(request, "namespace", "service", AS_OF)
    node, query = request.app[NODE], request.query
    moment = await moment_of(request)
    state, own, log_id = own_state_at(node, moment)
    keys = sorted(
        key
        for key in state.endpoints
        if query.get("namespace") in {None, key.namespace}
        and query.get("service") in {None, key.name}
    )
    found = [item for key in keys for item in _items(state, key)]
    return await list_answer(ENDPOINTS, found, moment, (own, log_id))


async def list_endpoints_of_service(request: web.Request) -> web.Response:
    """A service's own endpoints."""
    check_query(request, AS_OF)
    node, key = request.app[NODE], service_key(request)
    moment = await moment_of(request)
    state, own, log_id = own_state_at(node, moment)
    if key not in state.services and key not in state.endpoints:
        raise NotFoundError(f"{own} does not define a service {key}")
    return await list_answer(ENDPOINTS, list(_items(state, key)), moment, (own, log_id))


def _items(state: ClusterState, key: ServiceKey) -> Iterator[Item]:
    for name, held in sorted(state.endpoints_of(key).items(), key=lambda item: item[0]):
        yield EndpointKey(key, name), held


async def get_endpoint(request: web.Request) -> web.Response:
    """One own endpoint."""
    return await get_one(request, ENDPOINTS)


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
    return await delete_one(request, ENDPOINTS, RemoveEndpoint)
