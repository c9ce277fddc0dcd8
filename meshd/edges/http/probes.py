"""`/v1/probes`: what the probes of the cluster's own endpoints come to.

For: looking. Not for: saying what is probed (a service's `probe`). Invariant: the result of an
endpoint is the log's, and so the same at every meshd of the cluster; what only the one knows that
probes is null at the others.
"""

from __future__ import annotations

from collections.abc import Iterator

from aiohttp import web

from meshd.core.past import time_text
from meshd.core.state import Held
from meshd.edges.http.answers import json_answer, own_state
from meshd.edges.http.limits import NODE
from meshd.edges.http.requests import check_query
from meshd.edges.http.wire import Json
from meshd.model.endpoint import Endpoint
from meshd.model.ids import EndpointKey
from meshd.model.probe import Probe
from meshd.runtime.node import Node
from meshd.runtime.prober import Watched


def routes() -> list[web.AbstractRouteDef]:
    """The paths that are served here."""
    return [web.get("/v1/probes", list_probes)]


async def list_probes(request: web.Request) -> web.Response:
    """The endpoints of services with a probe, by name."""
    check_query(request, "namespace", "service")
    node, query = request.app[NODE], request.query
    own_state(node)
    wanted = query.get("namespace"), query.get("service")
    return json_answer(
        {
            "prober": node.leadership.is_leader,
            "left_out": node.prober.left_out,
            "items": list(_items(node, *wanted)),
        }
    )


def _items(node: Node, namespace: str | None, service: str | None) -> Iterator[Json]:
    state, watched = own_state(node), node.prober.watched
    for key in sorted(state.services):
        probe = state.services[key].value.probe
        if (
            probe is None
            or namespace not in {None, key.namespace}
            or service not in {None, key.name}
        ):
            continue
        for name, held in sorted(state.endpoints_of(key).items(), key=lambda item: item[0]):
            endpoint_key = EndpointKey(key, name)
            yield _item(endpoint_key, held, probe, watched.get(endpoint_key))


def _item(key: EndpointKey, held: Held[Endpoint], probe: Probe, watched: Watched | None) -> Json:
    """One endpoint. since: of the event that has its result, which others may have changed since;
    exactly, where it is this meshd that probes and it changed while it did.
    """
    endpoint = held.value
    return {
        "namespace": key.service.namespace,
        "service": key.service.name,
        "name": key.name,
        "address": endpoint.address,
        "type": probe.type,
        "result": endpoint.probed,
        "port": watched.aim.port or None if watched else None,
        "since": time_text(watched.since_ms) if watched else None,
        "asked": watched.asked if watched else None,
        "failed": watched.failed if watched else None,
        "good_in_a_row": watched.health.good if watched else None,
        "bad_in_a_row": watched.health.bad if watched else None,
        "last_error": watched.error if watched else None,
        "held": watched.aim.held if watched else None,
        "why": watched.aim.why if watched else "",
    }
