"""`/v1/registrations`: endpoints that are there while somebody renews them.

For: registering, renewing, deregistering, and looking. Not for: how they end (`runtime.expiry`).
Invariant: renewing makes no event; who renews what is gone is told so, and registers it anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from aiohttp import web

from meshd.core.past import time_text
from meshd.edges.http.answers import json_answer, own_state, write_answer
from meshd.edges.http.limits import NODE
from meshd.edges.http.requests import (
    actor,
    check_query,
    endpoint_key,
    idempotency_key,
    read_object,
)
from meshd.edges.http.wire import Json
from meshd.model.errors import NotFoundError, Problem, RejectedError
from meshd.model.ids import EndpointKey
from meshd.model.registration import Registering, Renewing
from meshd.model.schema import from_data
from meshd.runtime.registrations import Live, Wish

LEFT_MAX: Final = 1000
"""Of so many it is asked how long they have left: each is a call to the etcd."""


def routes() -> list[web.AbstractRouteDef]:
    """The paths that are served here."""
    one = "/v1/registrations/{namespace}/{service}/{endpoint}"
    return [
        web.get("/v1/registrations", list_registrations),
        web.post("/v1/registrations/renew", renew_registrations),
        web.get(one, get_registration),
        web.put(one, put_registration),
        web.delete(one, delete_registration),
        web.post(one + "/renew", renew_registration),
    ]


async def list_registrations(request: web.Request) -> web.Response:
    """All registrations of the cluster, by name; with what they have left, if they are few."""
    check_query(request, "namespace", "service")
    node, query = request.app[NODE], request.query
    own_state(node)
    found = {
        key: live
        for key, live in sorted(node.registrations.live.items(), key=lambda item: item[0])
        if query.get("namespace") in {None, key.service.namespace}
        and query.get("service") in {None, key.service.name}
    }
    asked = [live.lease for live in found.values()] if len(found) <= LEFT_MAX else []
    left_s = await node.registrations.left_s(asked)
    return json_answer({"items": [_item(key, live, left_s) for key, live in found.items()]})


async def get_registration(request: web.Request) -> web.Response:
    """One registration."""
    check_query(request)
    node, key = request.app[NODE], endpoint_key(request)
    own_state(node)
    live = node.registrations.live.get(key)
    if live is None:
        raise NotFoundError(f"there is no registration {key}")
    return json_answer(_item(key, live, await node.registrations.left_s([live.lease])))


def _item(key: EndpointKey, live: Live, left_s: Mapping[int, float]) -> Json:
    return {
        "namespace": key.service.namespace,
        "service": key.service.name,
        "name": key.name,
        "ttl_s": live.value.ttl_s,
        "left_s": left_s.get(live.lease),
        "holder": live.value.holder,
        "actor": live.value.actor,
        "since": time_text(live.value.since_ms),
    }


async def put_registration(request: web.Request) -> web.Response:
    """Register an endpoint, or keep it registered with another value or time to live."""
    check_query(request)
    node, key = request.app[NODE], endpoint_key(request)
    said = from_data(Registering, await read_object(request), "")
    own_state(node)
    wish = Wish(key, said.holder, actor(request), idempotency_key(request))
    return write_answer(node, await node.registrations.register(wish, said))


async def delete_registration(request: web.Request) -> web.Response:
    """Remove a registration with its endpoint."""
    check_query(request, "holder")
    node, key = request.app[NODE], endpoint_key(request)
    own_state(node)
    holder = request.query.get("holder", "")
    wish = Wish(key, holder, actor(request), idempotency_key(request))
    return write_answer(node, await node.registrations.deregister(wish))


async def renew_registration(request: web.Request) -> web.Response:
    """Renew one registration."""
    check_query(request, "holder")
    node, key = request.app[NODE], endpoint_key(request)
    own_state(node)
    done = await node.registrations.renew([key], request.query.get("holder"))
    if done.gone:
        raise NotFoundError(f"there is no registration {key} any more: register it anew")
    return json_answer({"renewed": 1, "gone": []})


async def renew_registrations(request: web.Request) -> web.Response:
    """Renew several, whoever of them is still there."""
    check_query(request)
    node = request.app[NODE]
    said = from_data(Renewing, await read_object(request), "")
    own_state(node)
    done = await node.registrations.renew(_keys(said.names), said.holder)
    return json_answer({"renewed": done.renewed, "gone": [str(key) for key in done.gone]})


def _keys(names: tuple[str, ...]) -> list[EndpointKey]:
    found: list[EndpointKey] = []
    problems: list[Problem] = []
    for number, name in enumerate(names):
        try:
            found.append(EndpointKey.parse(name))
        except RejectedError as error:
            place = f"names[{number}]"
            problems += [Problem(place, one.what, one.remedy) for one in error.problems]
    if problems:
        raise RejectedError(tuple(problems))
    return found
