"""`/v1/policies`: what this cluster says of who may talk to whom, and what peers say.

For: reading both, and setting and removing the own ones. Not for: what comes of them (`reaching`).
Invariant: what GET answers, PUT takes.
"""

from __future__ import annotations

import asyncio

from aiohttp import web

from meshd.core.policies import Policies, policies_of
from meshd.edges.http.answers import json_answer, long_answer, submission, submit, write_answer
from meshd.edges.http.as_of import (
    AS_OF,
    asked_state_at,
    item_fields,
    moment_fields,
    moment_of,
    own_state_at,
)
from meshd.edges.http.limits import NODE
from meshd.edges.http.requests import check_query, has_labels, query_labels, read_object
from meshd.edges.http.services import named_value
from meshd.edges.http.wire import policy_item
from meshd.model.command import RemovePolicy, SetPolicy
from meshd.model.errors import NotFoundError
from meshd.model.ids import PolicyKey
from meshd.model.policy import Policy
from meshd.model.schema import from_data
from meshd.runtime.node import Node
from meshd.runtime.past import Moment


def routes() -> list[web.AbstractRouteDef]:
    """The paths that are served here."""
    one = "/v1/policies/{namespace}/{policy}"
    return [
        web.get("/v1/policies", list_policies),
        web.get(one, get_policy),
        web.put(one, put_policy),
        web.delete(one, delete_policy),
    ]


async def policies_at(node: Node, moment: Moment | None) -> Policies:
    """All policies in force then, or now; those of now change while they are read."""
    if moment is None:
        return node.projector.policies
    return await asyncio.to_thread(policies_of, moment.states)


async def list_policies(request: web.Request) -> web.Response:
    """All policies of one cluster, sorted by name."""
    check_query(request, "cluster", "namespace", "label", AS_OF)
    moment = await moment_of(request)
    cluster, log_id, state = asked_state_at(request, moment)
    labels, namespace = query_labels(request), request.query.get("namespace")
    policies = await policies_at(request.app[NODE], moment)
    found = [
        (key, held, list(policies.conditions((cluster, key))))
        for key, held in sorted(state.policies.items(), key=lambda item: item[0])
        if has_labels(held.value.labels, labels) and namespace in {None, key.namespace}
    ]
    fields = moment_fields(moment)
    return await long_answer(
        lambda: {"items": [policy_item(*one, cluster, log_id) for one in found]} | fields
    )


async def get_policy(request: web.Request) -> web.Response:
    """One own policy."""
    check_query(request, AS_OF)
    node, key = request.app[NODE], policy_key(request)
    moment = await moment_of(request)
    state, own, log_id = own_state_at(node, moment)
    policies = await policies_at(node, moment)
    held = state.policies.get(key)
    if held is None:
        raise NotFoundError(f"{own} has no policy {key}")
    conditions = list(policies.conditions((own, key)))
    return json_answer(policy_item(key, held, conditions, own, log_id) | item_fields(moment))


async def put_policy(request: web.Request) -> web.Response:
    """Add a policy, or replace what it says."""
    check_query(request)
    node, key = request.app[NODE], policy_key(request)
    data = named_value(await read_object(request), {"namespace": key.namespace, "name": key.name})
    data.pop("conditions", None)
    value = from_data(Policy, data, "")
    return write_answer(node, await submit(node, submission(request, [SetPolicy(key, value)])))


async def delete_policy(request: web.Request) -> web.Response:
    """Remove a policy."""
    check_query(request)
    node, key = request.app[NODE], policy_key(request)
    outcome = await submit(node, submission(request, [RemovePolicy(key)]))
    if not outcome.events:
        raise NotFoundError(f"{node.projector.own} has no policy {key}")
    return write_answer(node, outcome)


def policy_key(request: web.Request) -> PolicyKey:
    """The policy that the path names."""
    parts = request.match_info
    return PolicyKey.parse(f"{parts['namespace']}/{parts['policy']}")
