"""`?as_of=` on what reads states: which moment is asked for, and what an answer says of it.

For: every path that can tell an earlier state. Not for: telling it (`runtime.past`). Invariant: an
answer of an earlier state names the exact vector that it is of, and which clusters it knows nothing
of.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from meshd.core.derive import derive_with_digests
from meshd.core.past import AsOf, parse_as_of
from meshd.core.readers import states_in
from meshd.core.state import ClusterState
from meshd.edges.http.answers import asked_state, own_state
from meshd.edges.http.limits import NODE
from meshd.edges.http.problems import BAD_REQUEST, HttpProblem
from meshd.edges.http.wire import Json
from meshd.model.errors import NotFoundError, RejectedError
from meshd.model.ids import ClusterName, LogId, ServiceKey, format_vector
from meshd.model.table import GlobalService
from meshd.runtime.node import Node
from meshd.runtime.past import Moment

AS_OF: Final = "as_of"


async def moment_of(request: web.Request, name: str = AS_OF) -> Moment | None:
    """The moment that the query asks for; None for now. Raises as `Past.at` does."""
    text = request.query.get(name)
    if text is None:
        return None
    own_state(request.app[NODE])
    return await request.app[NODE].past.at(_as_of(text, name))


def _as_of(text: str, name: str) -> AsOf:
    try:
        return parse_as_of(text, f"?{name}")
    except RejectedError as error:
        raise HttpProblem(BAD_REQUEST, str(error), error.problems) from None


def moment_fields(moment: Moment | None) -> Json:
    """What a list says of the moment that it is of; nulls for now."""
    if moment is None:
        return {AS_OF: None, "unknown": []}
    return {AS_OF: format_vector(moment.at), "unknown": moment.unknown}


def item_fields(moment: Moment | None) -> Json:
    """What one thing says of the moment that it is of; nothing for now."""
    return {} if moment is None else moment_fields(moment)


def own_state_at(node: Node, moment: Moment | None) -> tuple[ClusterState, ClusterName, LogId]:
    """The own state then, or now; whose it is, and of which log."""
    own = node.projector.own
    if moment is not None:
        return moment.states[own], own, moment.log_ids[own]
    state = own_state(node)
    return state, own, node.projector.log_ids[own]


def asked_state_at(
    request: web.Request, moment: Moment | None
) -> tuple[ClusterName, LogId, ClusterState]:
    """The cluster that `?cluster=` names, or the own one, then or now: as `asked_state`."""
    node = request.app[NODE]
    if moment is None:
        return asked_state(node, request)
    name = ClusterName(request.query.get("cluster", node.projector.own))
    if name not in moment.states:
        raise NotFoundError(f"nothing was known of a cluster {name!r} here then")
    return name, moment.log_ids[name], moment.states[name]


@dataclass(frozen=True, slots=True)
class PastTable:
    """One perspective's table at a moment, all clusters taken as fresh. unsure: of whom it may have
    seen something else; which logs it read then is taken to be as it is now.
    """

    perspective: ClusterName
    unsure: tuple[ClusterName, ...]
    services: Mapping[ServiceKey, GlobalService]
    digests: Mapping[ServiceKey, str]
    digest: str


async def table_at(node: Node, moment: Moment, perspective: str | None) -> PastTable:
    """Derive a table; in a thread, since it takes seconds of a hundred thousand endpoints.

    Raises NotFoundError for a perspective of which nothing was known.
    """
    name = ClusterName(node.projector.own if perspective is None else perspective)
    if name not in moment.states:
        raise NotFoundError(f"nothing was known of a cluster {name!r} here then")
    states, log_ids, unsure = moment.states, moment.log_ids, tuple[ClusterName, ...]()
    if name != node.projector.own:
        outlook = node.projector.outlook_of(name, node.peers.vector_of(name))
        states, unsure = states_in(outlook, node.projector.own, states), outlook.unsure

    table = await asyncio.to_thread(derive_with_digests, name, states, log_ids)
    return PastTable(name, unsure, table.services, table.digests, table.digest)
