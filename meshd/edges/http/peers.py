"""`/v1/peers/…`: listing peers in the local log, and passing over what nobody can fold.

For: what a person decides for the whole cluster. Not for: how peers are (`clusters`), nor what is
said to this one meshd only (there too). Invariants: a peer of this meshd's own settings can't be
changed from afar; a person passes over the record that they saw, or none.
"""

from __future__ import annotations

from aiohttp import web

from meshd.core.skipping import skip_of
from meshd.edges.http.answers import own_state, submission, submit, write_answer
from meshd.edges.http.limits import NODE
from meshd.edges.http.problems import BAD_REQUEST, CONFLICT, HttpProblem
from meshd.edges.http.requests import (
    check_query,
    cluster_name,
    idempotency_key,
    read_object,
)
from meshd.edges.http.services import named_value
from meshd.model.command import Command, RemovePeer, SetPeer
from meshd.model.errors import NotFoundError, Problem, RejectedError
from meshd.model.ids import ClusterName, parse_cluster_name
from meshd.model.listed import ListedPeer
from meshd.model.schema import from_data
from meshd.runtime.node import Node


def routes() -> list[web.AbstractRouteDef]:
    """The paths that are served here."""
    return [
        web.put("/v1/peers/{cluster}", put_peer),
        web.delete("/v1/peers/{cluster}", delete_peer),
        web.post("/v1/peers/{cluster}/skip", skip_record),
    ]


async def put_peer(request: web.Request) -> web.Response:
    """List a peer, or replace what is listed of it."""
    check_query(request)
    node, name = request.app[NODE], parse_cluster_name(cluster_name(request))
    data = named_value(await read_object(request), {"name": name})
    peer = from_data(ListedPeer, data, "")
    _keep_off_settings(node, name)
    node.peers.listing.check(name, peer)
    return write_answer(node, await submit(node, submission(request, [SetPeer(name, peer)])))


async def delete_peer(request: web.Request) -> web.Response:
    """Take a peer off the list: its backends are withdrawn at once."""
    check_query(request)
    node, name = request.app[NODE], parse_cluster_name(cluster_name(request))
    _keep_off_settings(node, name)
    outcome = await submit(node, submission(request, [RemovePeer(name)]))
    if not outcome.events:
        raise NotFoundError(f"{node.projector.own} lists no peer {name}")
    return write_answer(node, outcome)


async def skip_record(request: web.Request) -> web.Response:
    """Pass over the record at which a peer is Quarantined."""
    check_query(request)
    node, name = request.app[NODE], cluster_name(request)
    seq = _seq(await read_object(request)) if request.can_read_body else None
    commands: list[Command] = []
    if idempotency_key(request) not in own_state(node).causes:
        state = node.peers.state(name)
        if state is None:
            raise NotFoundError(f"{node.projector.own} follows no peer {name}")
        try:
            commands.append(skip_of(name, state, seq))
        except RejectedError as error:
            raise HttpProblem(CONFLICT, str(error), error.problems) from None
    return write_answer(node, await submit(node, submission(request, commands)))


def _seq(data: dict[str, object]) -> int | None:
    seq = data.get("seq")
    is_seq = isinstance(seq, int) and not isinstance(seq, bool) and seq > 0
    if set(data) - {"seq"} or not (seq is None or is_seq):
        what = "must be an object with no member but seq, a number from 1"
        raise HttpProblem(BAD_REQUEST, f"the body {what}", (Problem("seq", what),))
    return seq if isinstance(seq, int) else None


def _keep_off_settings(node: Node, name: ClusterName) -> None:
    if node.peers.listing.is_in_settings(name):
        remedy = "change the settings file and reload meshd (SIGHUP)"
        what = f"peer {name} is listed in the settings of this meshd"
        raise HttpProblem(CONFLICT, f"{what}: {remedy}", (Problem("name", what, remedy),))
