"""`POST /v1/plan`: what a set of changes would do to the tables of every cluster.

For: deciding as an apply does, deriving before and after, and telling the difference. Not for: what
an apply is (`apply`) nor how tables differ (`core.what_if`). Invariants: nothing is written, and
what is served is only read; the answer is about one moment of the own cluster, and before and after
are about one moment of all others.

Deciding and copying are done in the event loop, in steps of milliseconds; deriving is done in a
thread, a piece of a perspective at a time, on copies that nobody else has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from aiohttp import web

from meshd.core.excerpt import excerpt, excerpts
from meshd.core.liveness import ALL_IN_SIGHT, Sights
from meshd.core.manifests import Manifests, read_manifests
from meshd.core.ownership import Owner
from meshd.core.readers import Outlook, states_in
from meshd.core.state import ClusterState
from meshd.core.what_if import (
    Effect,
    Mesh,
    ServiceEffect,
    effects_on,
    folded,
    pieces,
    touched,
)
from meshd.edges.http.answers import long_answer, own_log, own_state
from meshd.edges.http.apply import Decided, Wanted, decide_all, documents_of
from meshd.edges.http.diffs import effect_item, emptied_items
from meshd.edges.http.documents import read_text
from meshd.edges.http.limits import NODE
from meshd.edges.http.plan_reach import reach_effect
from meshd.edges.http.problems import BAD_REQUEST, HttpProblem
from meshd.edges.http.requests import actor, check_query, read_documents
from meshd.model.command import Command, RemoveEndpoint, RemovePolicy, RemoveService
from meshd.model.errors import NotFoundError, Problem, RejectedError
from meshd.model.event import Event
from meshd.model.ids import (
    ClusterName,
    EndpointKey,
    LogId,
    PolicyKey,
    Position,
    ServiceKey,
    Vector,
    format_vector,
)
from meshd.runtime.node import Node
from meshd.runtime.settled import settled

BACKENDS_LISTED_MAX: Final = 10_000
"""How many backends one answer names, of all perspectives together: about 10 MB. What a cluster
says of itself may reach every backend that it has, in every table; the others are counted."""
REMOVALS_MAX: Final = 1000
"""What fits into a request's line; to take away more, leave it out of a manifest of Endpoints."""

PLANNING: Final = web.AppKey("PLANNING", asyncio.Lock)
"""One plan at a time: each may hold the tables of a whole mesh twice."""


@dataclass(frozen=True, slots=True)
class _Decided:
    """What is asked for, on the own state of one moment. position: where the own export log stood
    then; None if it isn't known.
    """

    own: ClusterState
    position: Position | None
    decided: Decided
    time_ms: int

    @property
    def events(self) -> tuple[Event, ...]:
        """What it would write."""
        return self.decided.events


@dataclass(frozen=True, slots=True)
class _Around:
    """The mesh as it is planned in: all of one moment, but for the own cluster's part, which is
    that of the decision.
    """

    own: ClusterName
    vector: Vector
    unknown: tuple[ClusterName, ...]
    states: Mapping[ClusterName, ClusterState]
    log_ids: Mapping[ClusterName, LogId]
    sights: Sights
    outlooks: Mapping[ClusterName, Outlook]


def routes() -> list[web.AbstractRouteDef]:
    """The path that is served here."""
    return [web.post("/v1/plan", plan)]


async def plan(request: web.Request) -> web.Response:
    """Say what the documents of the body, and the removals, would change."""
    check_query(request, "perspective", "remove")
    node, who = request.app[NODE], actor(request)
    own_state(node)
    wanted = _perspectives(node, request.query.getall("perspective", []))
    names = request.query.getall("remove", [])
    removals = list(_removals(names))
    manifests = await _manifests(request, node, is_optional=bool(removals))
    with_removals = replace(manifests, commands=(*manifests.commands, *removals))
    async with request.app[PLANNING]:
        await settled(node.projector)
        decided = await _decide(node, with_removals, who)
        keys = touched(decided.events, decided.own)
        around = _around(node, decided, keys, wanted)
        own, states = node.projector.own, node.projector.states
        reach = await reach_effect(states, own, decided.own, decided.events, decided.time_ms)
        effects = await _effects(around, decided, keys)
    fields = {
        **documents_of(manifests, decided.decided),
        "cluster": node.projector.own,
        "vector_text": format_vector(around.vector),
        "events": len(decided.events),
        "unknown": around.unknown,
        "removed": names,
        "reach": reach,
    }
    return await long_answer(lambda: fields | _shown(effects))


def _shown(effects: Sequence[Effect]) -> dict[str, object]:
    return {
        "empty": [item for one in effects for item in emptied_items(one)],
        "perspectives": [effect_item(one) for one in effects],
    }


def _perspectives(node: Node, asked: Sequence[str]) -> list[ClusterName]:
    """Whose tables to look at: those that are asked for, or all that are known, the own first."""
    own, known = node.projector.own, node.projector.states
    for name in asked:
        if name not in known:
            raise NotFoundError(f"nothing is known of a cluster {name!r} here")
    return sorted(map(ClusterName, set(asked or known)), key=lambda name: (name != own, name))


def _removals(names: Sequence[str]) -> Iterator[Command]:
    if len(names) > REMOVALS_MAX:
        what = f"{len(names)} removals at once; at most {REMOVALS_MAX}"
        raise RejectedError((Problem("?remove", what, "plan them one part after the other"),))
    problems = []
    for name in names:
        kind, _, key = name.partition("/")
        try:
            match kind:
                case "service":
                    yield RemoveService(ServiceKey.parse(key))
                case "endpoint":
                    yield RemoveEndpoint(EndpointKey.parse(key))
                case "policy":
                    yield RemovePolicy(PolicyKey.parse(key))
                case _:
                    remedy = "write service/NAMESPACE/NAME, endpoint/NAMESPACE/SERVICE/NAME or"
                    remedy += " policy/NAMESPACE/NAME"
                    problems.append(Problem("?remove", f"{name!r} names nothing", remedy))
        except RejectedError as error:
            problems.extend(error.problems)
    if problems:
        raise RejectedError(tuple(problems))


async def _manifests(request: web.Request, node: Node, *, is_optional: bool) -> Manifests:
    if not request.body_exists:
        if is_optional:
            return Manifests((), (), ())
        what = "there is nothing to plan"
        remedy = "send manifests, name what to ?remove, or both"
        raise HttpProblem(BAD_REQUEST, f"{what}: {remedy}", (Problem("", what, remedy),))
    documents = await read_documents(request)
    return await asyncio.to_thread(read_manifests, documents, node.projector.own, read_text)


async def _decide(node: Node, manifests: Manifests, who: str) -> _Decided:
    """Decide on a copy, so that what others write meanwhile doesn't come in between."""
    own, position = excerpt(own_state(node)), node.projector.vector().get(node.projector.own)
    missing = [problem for command in manifests.commands for problem in _missing(own, command)]
    if missing:
        raise RejectedError(tuple(missing))
    now_ms = max(node.clock.wall_ms(), own.time_ms)
    wanted = Wanted(
        is_dry=True,
        owner=Owner(),
        is_pruning=False,
        allows_empty=True,
        expected=None,
        who=who,
        cause="",
    )
    decided_on = Position(*own_log(node), own.seq)
    decided = await decide_all(own, decided_on, manifests, wanted, now_ms)
    return _Decided(own, position, decided, now_ms)


def _missing(own: ClusterState, command: Command) -> Iterator[Problem]:
    """A removal of what isn't there is a typing error rather than a plan without effect."""
    remedy = "remove what `meshd get services` and `meshd get endpoints` show"
    match command:
        case RemoveService(service) if service not in own.services:
            if service not in own.endpoints:
                yield Problem("?remove", f"this cluster has no service {service}", remedy)
        case RemoveEndpoint(key) if own.endpoint(key) is None:
            yield Problem("?remove", f"this cluster has no endpoint {key}", remedy)
        case RemovePolicy(policy) if policy not in own.policies:
            remedy = "remove what `meshd policy list` shows"
            yield Problem("?remove", f"this cluster has no policy {policy}", remedy)
        case _:
            return


def _around(
    node: Node,
    decided: _Decided,
    keys: Collection[ServiceKey],
    perspectives: Sequence[ClusterName],
) -> _Around:
    """Copy what a plan is derived from. It takes no step that waits, so the vector is that of the
    states.
    """
    own, projector = node.projector.own, node.projector
    vector = projector.vector()
    vector.pop(own, None)
    if decided.position is not None:
        vector[own] = decided.position
    # What else was written meanwhile is none of the plan's.
    states = excerpts(projector.states, keys) | {own: excerpt(decided.own, keys)}
    outlooks = {
        name: projector.outlook_of(name, node.peers.vector_of(name)) for name in perspectives
    }
    unknown = tuple(sorted(set(node.peers.names()) - projector.states.keys()))
    sights = dict(projector.sights)
    return _Around(own, vector, unknown, states, dict(projector.log_ids), sights, outlooks)


async def _effects(
    around: _Around, decided: _Decided, keys: Collection[ServiceKey]
) -> list[Effect]:
    own, states = around.own, around.states
    changed = await asyncio.to_thread(folded, states[own], decided.events, own, decided.time_ms)
    before, after = (Mesh(held, around.log_ids) for held in (states, {**states, own: changed}))
    cut = list(pieces(keys, after))
    found = []
    left = BACKENDS_LISTED_MAX
    for name, outlook in around.outlooks.items():
        seen = around.sights if name == own else ALL_IN_SIGHT
        meshes = before, after
        if name != own:
            # What it isn't told it doesn't see, before as after.
            told = [states_in(outlook, own, mesh.states) for mesh in meshes]
            meshes = Mesh(told[0], around.log_ids), Mesh(told[1], around.log_ids)
        services: list[ServiceEffect] = []
        for piece in cut:
            more = await asyncio.to_thread(effects_on, piece, name, *meshes, seen)
            for service in more:
                services.append(service.shortened(left))
                left -= len(services[-1].diff.backends)
        found.append(Effect(name, tuple(services)))
    return found
