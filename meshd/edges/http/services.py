"""`/v1/services`: this cluster's own definitions.

For: reading, setting and removing them one by one. Not for: global services (`tables`) or files of
many (`apply`). Invariant: what GET answers, PUT takes.
"""

from __future__ import annotations

from collections.abc import Iterator

from aiohttp import web

from meshd.edges.http.answers import submission, submit, write_answer
from meshd.edges.http.as_of import AS_OF, moment_of, own_state_at
from meshd.edges.http.limits import NODE
from meshd.edges.http.requests import check_query, read_object, service_key
from meshd.edges.http.things import Kind, delete_one, get_one, list_answer
from meshd.edges.http.wire import service_item
from meshd.model.command import RemoveService, SetService
from meshd.model.errors import Problem, RejectedError
from meshd.model.schema import from_data
from meshd.model.service import Service

READ_ONLY_FIELDS = ("origin", AS_OF, "unknown")
"""GET shows these, so a PUT of what was read has them; they say nothing that could be set."""


def routes() -> list[web.AbstractRouteDef]:
    """The paths that are served here."""
    one = "/v1/services/{namespace}/{service}"
    return [
        web.get("/v1/services", list_services),
        web.get(one, get_service),
        web.put(one, put_service),
        web.delete(one, delete_service),
    ]


SERVICES = Kind(
    service_key,
    lambda state, key: state.services.get(key),
    service_item,
    "does not define a service",
)


async def list_services(request: web.Request) -> web.Response:
    """All own definitions, sorted by name."""
    check_query(request, "namespace", AS_OF)
    node, namespace = request.app[NODE], request.query.get("namespace")
    moment = await moment_of(request)
    state, own, log_id = own_state_at(node, moment)
    services = state.services
    found = [(key, services[key]) for key in sorted(services) if namespace in {None, key.namespace}]
    return await list_answer(SERVICES, found, moment, (own, log_id))


async def get_service(request: web.Request) -> web.Response:
    """One own definition."""
    return await get_one(request, SERVICES)


async def put_service(request: web.Request) -> web.Response:
    """Define a service, or replace its definition."""
    check_query(request)
    node, key = request.app[NODE], service_key(request)
    data = named_value(await read_object(request), {"namespace": key.namespace, "name": key.name})
    service = from_data(Service, data, "")
    return write_answer(node, await submit(node, submission(request, [SetService(key, service)])))


async def delete_service(request: web.Request) -> web.Response:
    """Remove a service with its endpoints."""
    return await delete_one(request, SERVICES, RemoveService)


def named_value(data: dict[str, object], names: dict[str, str]) -> dict[str, object]:
    """The value in a body, without names that repeat the path; raises RejectedError for others."""
    problems = tuple(_misnamed(data, names))
    if problems:
        raise RejectedError(problems)
    left_out = (*names, *READ_ONLY_FIELDS)
    return {field: value for field, value in data.items() if field not in left_out}


def _misnamed(data: dict[str, object], names: dict[str, str]) -> Iterator[Problem]:
    for field, name in names.items():
        if data.get(field, name) != name:
            what = f"is {data[field]!r}, but the path says {name!r}"
            yield Problem(field, what, "leave it out, or correct one of them")
