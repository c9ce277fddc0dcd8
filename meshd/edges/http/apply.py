"""`POST /v1/apply`: many definitions at once, from files.

For: validating all documents, then committing them. Not for: what documents mean
(`core.manifests`). Invariant: one wrong document changes nothing; everything is decided on a draft
before the first portion is committed.

An apply that one record can't hold is committed in portions, one after the other. Should the own
etcd fail in between, the answer says how far it came, and the same request completes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from aiohttp import web

from meshd.core.decide import decide
from meshd.core.draft import Draft, OfState
from meshd.core.manifests import Manifests, read_manifests
from meshd.core.state import ClusterState
from meshd.edges.http.answers import json_answer, own_log, own_state
from meshd.edges.http.limits import NODE
from meshd.edges.http.portions import portions
from meshd.edges.http.requests import (
    actor,
    check_query,
    idempotency_key,
    query_choice,
    read_documents,
)
from meshd.edges.http.wire import Json, write_result
from meshd.model.command import (
    Command,
    Outcome,
    RemoveEndpoint,
    ReplaceEndpoints,
    SetEndpoint,
    SetService,
    Submission,
)
from meshd.model.endpoint import Endpoint
from meshd.model.errors import MeshdError
from meshd.model.event import Event
from meshd.model.ids import EndpointKey
from meshd.model.service import Service
from meshd.runtime.node import Node

Seen = Service | Endpoint | Mapping[str, Endpoint] | None


@dataclass(frozen=True, slots=True)
class Decided:
    """An apply, decided: the submissions in order, what each command changes, and the events that
    this makes in the local log.
    """

    submissions: tuple[Submission, ...]
    changes: tuple[str, ...]
    events: tuple[Event, ...]


def routes() -> list[web.AbstractRouteDef]:
    """The path that is served here."""
    return [web.post("/v1/apply", apply)]


async def apply(request: web.Request) -> web.Response:
    """Take all documents of the body, or none."""
    check_query(request, "dry_run")
    is_dry = query_choice(request, "dry_run", "false", ("false", "true")) == "true"
    node = request.app[NODE]
    who, cause = actor(request), idempotency_key(request)
    documents = await read_documents(request)
    manifests = await asyncio.to_thread(read_manifests, documents, node.projector.own)
    state = own_state(node)
    now_ms = max(node.clock.wall_ms(), state.time_ms)
    plan = await decide_all(state, manifests.commands, who, cause, now_ms)
    if is_dry:
        result: Json = {
            "events": len(plan.events),
            "first_seq": None,
            "last_seq": None,
            "position": None,
            "repeated": False,
        }
    else:
        outcome = await _commit(node, plan.submissions)
        result = write_result(outcome, *own_log(node))
    return json_answer({"dry_run": is_dry} | result | documents_of(manifests, plan.changes))


def documents_of(manifests: Manifests, changes: Sequence[str]) -> Json:
    """The documents, and what the command of each changes."""
    return {
        "applied": [
            asdict(accepted) | {"change": change}
            for accepted, change in zip(manifests.accepted, changes, strict=True)
        ],
        "ignored": [asdict(ignored) for ignored in manifests.ignored],
    }


async def decide_all(
    state: ClusterState, commands: Sequence[Command], who: str, cause: str, now_ms: int
) -> Decided:
    """Decide everything on a draft; raises RejectedError if any of it can't be."""
    draft = Draft(OfState(state))
    before = [_seen(draft, command) for command in commands]
    cut = portions(commands, who, cause)
    is_repeated = cut[-1][1] in state.causes
    submissions: list[Submission] = []
    events: list[Event] = []
    for portion, portion_cause in cut:
        ahead = [] if is_repeated else [(gone, "") for gone in _removals_ahead(draft, portion, who)]
        for part, part_cause in (*ahead, (portion, portion_cause)):
            submissions.append(Submission(part, who, part_cause))
            # A portion that an earlier request committed under this key makes no event.
            events.extend(decide(draft, submissions[-1], now_ms).events)
            # Each portion takes milliseconds; the logs must be followed meanwhile.
            await asyncio.sleep(0)
    after = [_seen(draft, command) for command in commands]
    changes = tuple(map(_change, before, after))
    return Decided(tuple(submissions), changes, tuple(events))


def _removals_ahead(
    draft: Draft, portion: Sequence[Command], who: str
) -> list[tuple[Command, ...]]:
    """What a portion would take away beyond what fits beside its own commands.

    These depend on the state, so they have no idempotency key: doing them again is harmless.
    """
    gone = [
        RemoveEndpoint(EndpointKey(command.service, name))
        for command in portion
        if isinstance(command, ReplaceEndpoints)
        for name, endpoint in draft.endpoints_of(command.service)
        if endpoint.source == command.source and name not in command.endpoints
    ]
    return [removals for removals, _ in portions(gone, who, "")[:-1]]


def _seen(draft: Draft, command: Command) -> Seen:
    """What the command is about, as it is now."""
    match command:
        case SetService(key):
            return draft.service(key)
        case SetEndpoint(key):
            return draft.endpoint(key)
        case ReplaceEndpoints(service, source):
            found = draft.endpoints_of(service)
            return {name: endpoint for name, endpoint in found if endpoint.source == source}
        case _:
            return None


def _change(before: Seen, after: Seen) -> str:
    if before == after:
        return "unchanged"
    return "updated" if before else "created"


async def _commit(node: Node, submissions: Sequence[Submission]) -> Outcome:
    """Commit portion after portion; what all of them together did."""
    outcomes: list[Outcome] = []
    for number, wanted in enumerate(submissions):
        try:
            outcomes.append(await node.writer.submit(wanted))
        except MeshdError as error:
            if number:
                error.add_note(
                    f"{number} of {len(submissions)} portions were committed, through seq"
                    f" {outcomes[-1].last_seq}; send the same request again to complete it"
                )
            raise
    with_events = [outcome for outcome in outcomes if outcome.events] or outcomes[-1:]
    return Outcome(
        first_seq=with_events[0].first_seq,
        last_seq=with_events[-1].last_seq,
        events=sum(outcome.events for outcome in outcomes),
        repeated=all(outcome.repeated for outcome in outcomes),
    )
