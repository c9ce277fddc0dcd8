"""Answers in JSON, and the state that they are made of.

For: what every handler ends with. Not for: the shapes (`wire`) nor errors (`problems`). Invariants:
nothing is answered from a state that isn't read to its end yet, since 'unknown' is never 'empty'
(design, I15); a long list is made outside the event loop, from values that never change.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import orjson
from aiohttp import web

from meshd.core.state import ClusterState
from meshd.edges.http.requests import actor, idempotency_key
from meshd.edges.http.wire import write_result
from meshd.model.command import Command, Outcome, Submission
from meshd.model.errors import NotFoundError, TransientError
from meshd.model.ids import ClusterName, LogId
from meshd.runtime.node import Node

JSON_TYPE = "application/json"


def json_answer(data: object, status: int = 200) -> web.Response:
    """Answer with a small JSON value."""
    return web.Response(status=status, body=orjson.dumps(data), content_type=JSON_TYPE)


async def long_answer(make: Callable[[], object]) -> web.Response:
    """Answer with a value that takes long to make; `make` may read nothing that changes."""
    body = await asyncio.to_thread(lambda: orjson.dumps(make()))
    return web.Response(body=body, content_type=JSON_TYPE)


def own_state(node: Node) -> ClusterState:
    """The own state; raises TransientError before the own log has been read to its end."""
    state = node.projector.state(node.projector.own)
    if state is None or node.projector.local_head is None:
        raise TransientError("the own log has not been read to its end yet")
    return state


def asked_state(node: Node, request: web.Request) -> tuple[ClusterName, LogId, ClusterState]:
    """The cluster that `?cluster=` names, or the own one: whose, of which log, and its state.

    Raises NotFoundError for a cluster that nobody here knows, and TransientError for one of which
    nothing was read yet.
    """
    name = ClusterName(request.query.get("cluster", node.projector.own))
    if name == node.projector.own:
        state = own_state(node)
        return *own_log(node), state
    peers_state = node.projector.state(name)
    if peers_state is not None:
        return name, node.projector.log_ids[name], peers_state
    if node.peers.condition(name) is None:
        raise NotFoundError(f"there is no cluster {name!r} here")
    raise TransientError(f"nothing has been read of {name} yet")


def own_log(node: Node) -> tuple[ClusterName, LogId]:
    """Whose log it is, and which, once `own_state` is there."""
    own = node.projector.own
    return own, node.projector.log_ids[own]


def submission(request: web.Request, commands: Sequence[Command]) -> Submission:
    """What a request asks for."""
    return Submission(tuple(commands), actor(request), idempotency_key(request))


async def submit(node: Node, wanted: Submission) -> Outcome:
    """Have it committed; raises as `Writer.submit` does."""
    own_state(node)
    return await node.writer.submit(wanted)


def write_answer(node: Node, outcome: Outcome) -> web.Response:
    """Answer a write."""
    return json_answer(write_result(outcome, *own_log(node)))
