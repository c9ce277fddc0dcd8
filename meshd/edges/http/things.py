"""Reading and removing the things of a cluster, whatever their kind.

For: what lists, single items and removals of services, endpoints, nodes and identities have in
common. Not for: setting them, which each kind does in its own way. Invariant: an earlier state is
answered in the same shape as the present one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from aiohttp import web

from meshd.core.state import ClusterState, Held
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
from meshd.edges.http.requests import check_query, has_labels, query_labels
from meshd.edges.http.wire import Json
from meshd.model.command import Command
from meshd.model.endpoint import Endpoint
from meshd.model.errors import NotFoundError
from meshd.model.identity import Identity
from meshd.model.ids import ClusterName, EndpointKey, LogId, ServiceKey
from meshd.model.node import Node
from meshd.model.service import Service
from meshd.runtime.past import Moment

K = TypeVar("K", ServiceKey, EndpointKey, str, int)
V = TypeVar("V", Service, Endpoint, Node, Identity)
NameOrNumber = TypeVar("NameOrNumber", str, int)
Labelled = TypeVar("Labelled", Node, Identity)


@dataclass(frozen=True, slots=True)
class Kind(Generic[K, V]):
    """A kind of things.

    key: which of them the path names. find: that one in a state. item: how it is shown. lacks: what
    is said of a cluster that hasn't got one, before its key.
    """

    key: Callable[[web.Request], K]
    find: Callable[[ClusterState, K], Held[V] | None]
    item: Callable[[K, Held[V], ClusterName, LogId], Json]
    lacks: str


async def get_one(request: web.Request, kind: Kind[K, V]) -> web.Response:
    """Answer with an own thing, of now or of an earlier moment."""
    check_query(request, AS_OF)
    node, key = request.app[NODE], kind.key(request)
    moment = await moment_of(request)
    state, own, log_id = own_state_at(node, moment)
    held = kind.find(state, key)
    if held is None:
        raise NotFoundError(f"{own} {kind.lacks} {key}")
    return json_answer(kind.item(key, held, own, log_id) | item_fields(moment))


async def delete_one(
    request: web.Request, kind: Kind[K, V], command: Callable[[K], Command]
) -> web.Response:
    """Remove an own thing."""
    check_query(request)
    node, key = request.app[NODE], kind.key(request)
    outcome = await submit(node, submission(request, [command(key)]))
    if not outcome.events:
        raise NotFoundError(f"{node.projector.own} {kind.lacks} {key}")
    return write_answer(node, outcome)


async def list_labelled(
    request: web.Request,
    kind: Kind[NameOrNumber, Labelled],
    all_of: Callable[[ClusterState], Mapping[NameOrNumber, Held[Labelled]]],
) -> web.Response:
    """Answer with the things of one cluster that have the labels which are asked for, sorted."""
    check_query(request, "cluster", "label", AS_OF)
    moment = await moment_of(request)
    cluster, log_id, state = asked_state_at(request, moment)
    labels = query_labels(request)
    found = [
        (key, held)
        for key, held in sorted(all_of(state).items(), key=lambda item: item[0])
        if has_labels(held.value.labels, labels)
    ]
    return await list_answer(kind, found, moment, (cluster, log_id))


async def list_answer(
    kind: Kind[K, V],
    found: Sequence[tuple[K, Held[V]]],
    moment: Moment | None,
    log: tuple[ClusterName, LogId],
) -> web.Response:
    """Answer with a list. log: whose they are, and of which log."""
    fields = moment_fields(moment)
    return await long_answer(
        lambda: {"items": [kind.item(key, held, *log) for key, held in found]} | fields
    )
