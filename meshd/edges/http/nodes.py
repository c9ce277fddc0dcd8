"""`/v1/nodes`: what this cluster says of its nodes, and what peers say of theirs.

For: reading both, and setting and removing the own ones. Not for: whose ranges collide (`ranges`).
Invariant: what GET answers, PUT takes.
"""

from __future__ import annotations

from aiohttp import web

from meshd.edges.http.answers import submission, submit, write_answer
from meshd.edges.http.limits import NODE
from meshd.edges.http.requests import check_query, read_object
from meshd.edges.http.services import named_value
from meshd.edges.http.things import Kind, delete_one, get_one, list_labelled
from meshd.edges.http.wire import node_item
from meshd.model.command import RemoveNode, SetNode
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


def node_name(request: web.Request) -> str:
    """The node that the path names."""
    return parse_node_name(request.match_info["node"])


NODES = Kind(node_name, lambda state, name: state.nodes.get(name), node_item, "has no node")


async def list_nodes(request: web.Request) -> web.Response:
    """All nodes of one cluster, sorted by name."""
    return await list_labelled(request, NODES, lambda state: state.nodes)


async def get_node(request: web.Request) -> web.Response:
    """One own node."""
    return await get_one(request, NODES)


async def put_node(request: web.Request) -> web.Response:
    """Add a node, or replace what is said of it."""
    check_query(request)
    node, name = request.app[NODE], node_name(request)
    data = named_value(await read_object(request), {"name": name})
    value = from_data(Node, data, "")
    return write_answer(node, await submit(node, submission(request, [SetNode(name, value)])))


async def delete_node(request: web.Request) -> web.Response:
    """Remove a node."""
    return await delete_one(request, NODES, RemoveNode)
