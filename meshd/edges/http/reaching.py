"""`/v1/policy/check` and `/v1/policy/matrix`: who may talk to whom.

For: one connection with its reasons, and everybody's reach in pages. Not for: the policies
themselves (`policies`). Invariant: one answer is about one moment.

A check of now is made on what is kept up to date, in a step that doesn't wait. Whatever looks at
more is made in a thread, on a copy, one at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from aiohttp import web

from meshd.core.judge import Grant, Inside, Party, Side
from meshd.core.parties import Questions, Wanted, identities_in, parse_party
from meshd.core.policies import Policies, PolicyInForce, policies_of
from meshd.core.port_sets import ports_shown
from meshd.core.reach import Cell, IdentityClass, Ports, Reach, classes_of
from meshd.edges.http.answers import json_answer, long_answer, own_state
from meshd.edges.http.as_of import AS_OF, item_fields, moment_fields, moment_of
from meshd.edges.http.limits import NODE
from meshd.edges.http.policies import policies_at
from meshd.edges.http.requests import bad_query, check_query, query_choice, query_number
from meshd.edges.http.wire import Json, origin_fields
from meshd.model.ids import ClusterName, LogId
from meshd.model.service import Transport
from meshd.model.table import Standing
from meshd.runtime.node import Node

PARTY_CHARS_MAX: Final = 1024
CELLS_DEFAULT: Final = 1000
CELLS_MAX: Final = 10_000
"""About 4 MB."""
PAIRS_MAX: Final = 200_000
"""Pairs of classes that one page looks at: about a second."""
IDENTITIES_SHOWN_MAX: Final = 20
"""How many numbers are told of a class; the others are counted."""

DRAWING: Final = web.AppKey("DRAWING", asyncio.Lock)
"""One matrix at a time: each keeps a core busy."""

LogIds = Mapping[ClusterName, LogId]


def routes() -> list[web.AbstractRouteDef]:
    """The paths that are served here."""
    return [
        web.get("/v1/policy/check", get_check),
        web.get("/v1/policy/matrix", get_matrix),
    ]


async def get_check(request: web.Request) -> web.Response:
    """Whether one may talk to another, by which rule, from which event."""
    check_query(request, "from", "to", "protocol", AS_OF)
    node = request.app[NODE]
    source, destination = _party(request, "from"), _party(request, "to")
    protocol = Transport(query_choice(request, "protocol", Transport.TCP, list(Transport)))
    moment = await moment_of(request)
    own_state(node)
    policies = await policies_at(node, moment)
    states = node.projector.states if moment is None else moment.states
    log_ids = node.projector.log_ids if moment is None else moment.log_ids
    found = Questions(policies, states, node.projector.own).ask(source, destination, protocol)
    sides = found.judgement.sides
    return json_answer(
        item_fields(moment)
        | {
            "verdict": found.judgement.verdict,
            "from": [_party_item(party) for party in found.sources],
            "to": [_party_item(party) for party in found.destinations],
            "protocol": found.port.protocol,
            "port": found.port.number,
            "sides": [_side(side, log_ids) for side in sides],
            "notes": found.notes,
            "stale": _stale(node, sides) if moment is None else [],
        }
    )


def _party(request: web.Request, name: str) -> Wanted:
    text = request.query.get(name, "")
    if not text or len(text) > PARTY_CHARS_MAX:
        what = "is needed" if not text else f"has more than {PARTY_CHARS_MAX} characters"
        raise bad_query(name, what)
    return parse_party(text, f"?{name}")


def _stale(node: Node, sides: Sequence[Side]) -> list[ClusterName]:
    """Whose policies may be others by now, since their clusters are out of sight."""
    clusters = sorted({side.cluster for side in sides} - {node.projector.own})
    return [name for name in clusters if node.projector.standing(name) is not Standing.FRESH]


def _party_item(party: Party) -> Json:
    if isinstance(party, Inside):
        known: Json = {"cluster": party.cluster, "number": party.number}
        return known | {"labels": dict(party.labels), "address": None, "name": None}
    nobody: Json = {"cluster": None, "number": None, "labels": {}}
    return nobody | {"address": party.address or None, "name": party.name or None}


def _side(side: Side, log_ids: LogIds) -> Json:
    return {
        "direction": side.direction,
        "cluster": side.cluster,
        "verdict": side.verdict,
        "why": side.why,
        "policies": [_policy(policy, log_ids) for policy in side.policies],
        "rule": _rule(side.grant, log_ids) if side.grant is not None else None,
    }


def _policy(policy: PolicyInForce, log_ids: LogIds) -> Json:
    origin = policy.held.origin(log_ids[policy.cluster])
    return {
        "namespace": policy.key.namespace,
        "name": policy.key.name,
        "origin": origin_fields(policy.cluster, origin),
    }


def _rule(grant: Grant, log_ids: LogIds) -> Json:
    return _policy(grant.policy, log_ids) | {
        "direction": grant.direction,
        "index": grant.index,
        "conditions": grant.conditions,
    }


async def get_matrix(request: web.Request) -> web.Response:
    """Who may talk to whom, by classes of identities that no policy can tell apart."""
    filters = ("from_namespace", "from_cluster", "to_namespace", "to_cluster")
    check_query(request, *filters, "limit", "after", AS_OF)
    node = request.app[NODE]
    limit = query_number(request, "limit", CELLS_DEFAULT, 1, CELLS_MAX)
    after = query_number(request, "after", 0, 0, 1 << 31)
    ends = [request.query.get(name, "") for name in filters]
    asked = await moment_of(request)
    own_state(node)
    moment = asked or node.past.now()
    fields = moment_fields(asked)
    if asked is None:
        fields["unknown"] = moment.unknown

    def make() -> Json:
        policies = policies_of(moment.states)
        sources = classes_of(policies, identities_in(policies, *ends[:2]))
        destinations = classes_of(policies, identities_in(policies, *ends[2:]))
        cells, seen = _page(policies, sources[after:], destinations, limit)
        return fields | {
            "sources": len(sources),
            "destinations": len(destinations),
            "items": [_cell(cell, policies) for cell in cells],
            "next": after + seen if after + seen < len(sources) else None,
        }

    async with request.app[DRAWING]:
        return await long_answer(make)


def _page(
    policies: Policies,
    sources: Sequence[IdentityClass],
    destinations: Sequence[IdentityClass],
    limit: int,
) -> tuple[list[Cell], int]:
    """The rows of some sources, whole ones, and how many these are: at least one."""
    reach, cells = Reach(policies), list[Cell]()
    for number, source in enumerate(sources):
        row = [Cell(source, one, reach.ports(source, one)) for one in destinations]
        found = [cell for cell in row if cell.ports.maybe]
        is_full = len(cells) + len(found) > limit or number * len(destinations) > PAIRS_MAX
        if number and is_full:
            return cells, number
        cells += found
    return cells, len(sources)


def _cell(cell: Cell, policies: Policies) -> Json:
    return {
        "from": _class(cell.source, policies),
        "to": _class(cell.destination, policies),
        **ports_fields(cell.ports),
    }


def ports_fields(ports: Ports) -> Json:
    """Which ports, and which of them only others can judge."""
    sure = ports_shown(ports.sure)
    return {
        "ports": sure,
        "conditional": [] if ports.sure == ports.maybe else ports_shown(ports.maybe),
    }


def _class(one: IdentityClass, policies: Policies) -> Json:
    return {
        "cluster": one.cluster,
        "numbers": [number for _, number in one.identities[:IDENTITIES_SHOWN_MAX]],
        "count": len(one.identities),
        "labels": dict(policies.identities()[one.identities[0]]),
    }
