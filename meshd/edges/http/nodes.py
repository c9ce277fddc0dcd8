"""`/v1/nodes`: what this cluster says of its nodes, and what peers say of theirs.

For: reading both, and setting and removing the own ones. Not for: whose ranges collide (`ranges`).
Invariant: what GET answers, PUT takes.
"""

from __future__ import annotations

from aiohttp import web

from meshd.edges.http.answers import (
    json_answer,
    long_answer,
    submission,
    submit,
    write_answer,
)
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
from meshd.edges.http.wire import node_item
from meshd.model.command import RemoveNode, SetNode
from meshd.model.errors import NotFoundError
from meshd.model.node import Node, parse_node_name
from meshd.model.schema import from_data


def routes() -> list[web.AbstractRouteDef]:
    """The paths that are served here."""
    one = "/v1/nodes/{node}"
    return [
        web.get("/v1/nodes", list_nodes),
        web.get(one, get_node),
        web.put(one, put_node),
        web.delete(one, delete_node),
    ]


async def list_nodes(request: web.Request) -> web.Response:
    """All nodes of one cluster, sorted by name."""
    check_query(request, "cluster", "label", AS_OF)
    moment = await moment_of(request)
    cluster, log_id, state = asked_state_at(request, moment)
    labels = query_labels(request)
    found = [
        (name, held)
        for name, held in sorted(state.nodes.items(), key=lambda item: item[0])
        if has_labels(held.value.labels, labels)
    ]
    fields = moment_fields(moment)
    return await long_answer(
        lambda: {"items": [node_item(name, held, cluster, log_id) for name, held in found]} | fields
    )


async def get_node(request: web.Request) -> web.Response:
    """One own node."""
    check_query(request, AS_OF)
    node, name = request.app[NODE], node_name(request)
    moment = await moment_of(request)
    state, own, log_id = own_state_at(node, moment)
    held = state.nodes.get(name)
    if held is None:
        raise NotFoundError(f"{own} has no node {name}")
    return json_answer(node_item(name, held, own, log_id) | item_fields(moment))


async def put_node(request: web.Request) -> web.Response:
    """Add a node, or replace what is said of it."""
    check_query(request)
    node, name = request.app[NODE], node_name(request)
    data = named_value(await read_object(request), {"name": name})
    value = from_data(Node, data, "")
    return write_answer(node, await submit(node, submission(request, [SetNode(name, value)])))


async def delete_node(request: web.Request) -> web.Response:
    """Remove a node."""
    check_query(request)
    node, name = request.app[NODE], node_name(request)
    outcome = await submit(node, submission(request, [RemoveNode(name)]))
    if not outcome.events:
        raise NotFoundError(f"{node.projector.own} has no node {name}")
    return write_answer(node, outcome)


def node_name(request: web.Request) -> str:
    """The node that the path names."""
    return parse_node_name(request.match_info["node"])
