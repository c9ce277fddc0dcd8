"""`POST /v1/apply`: many definitions at once, from files.

For: validating all documents, then committing them. Not for: what documents mean
(`core.manifests`), whose they are (`core.ownership`) nor what they change (`core.differences`).
Invariant: one wrong document changes nothing; everything is decided on a draft before the first
portion is committed.

An apply that one record can't hold is committed in portions, one after the other. Should the own
etcd fail in between, the answer says how far it came, and the same request completes it.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from aiohttp import web

from meshd.core.decide import decide
from meshd.core.differences import FieldChange, differences, seen
from meshd.core.draft import Draft, OfState
from meshd.core.excerpt import excerpt
from meshd.core.manifests import Manifests, read_manifests
from meshd.core.ownership import OWNER_PATTERN, Owner, Removal, owned, pruned
from meshd.core.state import ClusterState
from meshd.edges.http.answers import json_answer, own_log, own_state
from meshd.edges.http.documents import read_text
from meshd.edges.http.limits import NODE
from meshd.edges.http.portions import REMOVAL_MARK, portions
from meshd.edges.http.requests import (
    actor,
    bad_query,
    check_query,
    idempotency_key,
    query_flag,
    read_documents,
)
from meshd.edges.http.wire import Json, write_result
from meshd.model.command import Command, Outcome, RemoveEndpoint, ReplaceEndpoints, Submission
from meshd.model.errors import MeshdError, MovedError, Problem, RejectedError
from meshd.model.event import Event
from meshd.model.ids import EndpointKey, Position
from meshd.runtime.node import Node

CHANGES_SHOWN_MAX = 200
"""Fields that are told of one document: more than anybody reads, and an answer of bounded size."""

Portion = tuple[tuple[Command, ...], str]
"""Commands of one record, and their idempotency key; '' if there is none."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """How documents are to be applied. expected: the place of the log that was decided on."""

    is_dry: bool
    owner: Owner
    is_pruning: bool
    allows_empty: bool
    expected: Position | None
    who: str
    cause: str


@dataclass(frozen=True, slots=True)
class _Change:
    """What becomes of one document's things."""

    word: str
    fields: tuple[FieldChange, ...]


@dataclass(frozen=True, slots=True)
class Decided:
    """An apply, decided: the submissions in order, what each document changes, what is removed
    beside them, the events that this makes in the local log, and on which place of it.
    """

    submissions: tuple[Submission, ...]
    changes: tuple[_Change, ...]
    removals: tuple[Removal, ...]
    events: tuple[Event, ...]
    decided_on: Position


def routes() -> list[web.AbstractRouteDef]:
    """The path that is served here."""
    return [web.post("/v1/apply", apply)]


async def apply(request: web.Request) -> web.Response:
    """Take all documents of the body, or none."""
    wanted = _wanted(request)
    node = request.app[NODE]
    documents = await read_documents(request, may_be_empty=wanted.allows_empty)
    manifests = await asyncio.to_thread(read_manifests, documents, node.projector.own, read_text)
    # A copy, since what others write meanwhile would else show as what this request changes.
    state = excerpt(own_state(node), with_causes=True)
    at = Position(*own_log(node), state.seq)
    now_ms = max(node.clock.wall_ms(), state.time_ms)
    plan = await decide_all(state, at, manifests, wanted, now_ms)
    if wanted.is_dry:
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
    told = {"dry_run": wanted.is_dry, "decided_on": str(plan.decided_on)}
    return json_answer(told | result | documents_of(manifests, plan))


def _wanted(request: web.Request) -> Wanted:
    check_query(
        request,
        *("dry_run", "owner", "take_over", "prune", "allow_empty", "expect_position"),
    )
    owner, is_pruning = request.query.get("owner", ""), query_flag(request, "prune")
    takes_over = query_flag(request, "take_over")
    if "owner" in request.query and not re.match(OWNER_PATTERN, owner):
        what = f"{owner!r} is not an owner's name (A-Z, a-z, 0-9, '.', '_', '-'; at most 63)"
        raise bad_query("owner", what)
    for name, is_given in (("prune", is_pruning), ("take_over", takes_over)):
        if is_given and not owner:
            raise bad_query(name, "needs an owner, whose things it is about: ?owner=NAME")
    expected = request.query.get("expect_position")
    return Wanted(
        is_dry=query_flag(request, "dry_run"),
        owner=Owner(owner, takes_over),
        is_pruning=is_pruning,
        allows_empty=query_flag(request, "allow_empty"),
        expected=None if expected is None else Position.parse(expected),
        who=actor(request),
        cause=idempotency_key(request),
    )


def documents_of(manifests: Manifests, plan: Decided) -> Json:
    """The documents, and what the command of each changes; commands without one come behind."""
    return {
        "applied": [
            asdict(accepted)
            | {
                "change": change.word,
                "changes": [asdict(one) for one in change.fields[:CHANGES_SHOWN_MAX]],
                "changes_count": len(change.fields),
            }
            for accepted, change in zip(manifests.accepted, plan.changes, strict=False)
        ],
        "removed": [
            {"kind": one.kind, "namespace": one.namespace, "name": one.name}
            for one in plan.removals
        ],
        "ignored": [asdict(ignored) for ignored in manifests.ignored],
    }


async def decide_all(
    state: ClusterState, decided_on: Position, manifests: Manifests, wanted: Wanted, now_ms: int
) -> Decided:
    """Decide everything on a draft; raises RejectedError if any of it can't be."""
    draft = Draft(OfState(state))
    commands = owned(manifests.commands, _places(manifests), wanted.owner, state)
    # Cut as they came, since whose they are already depends on the state. A label for each event
    # fits into the half that a portion leaves free.
    cut = [
        (owned(portion, [""] * len(portion), wanted.owner, state), cause)
        for portion, cause in portions(manifests.commands, wanted.who, wanted.cause)
    ]
    cut = _left_to_do(cut, state)
    is_repeated = cut[-1][1] in state.causes
    is_begun = _is_begun(cut, wanted.cause, state)
    removal_causes = _removal_causes(wanted.cause, state)
    removals: tuple[Removal, ...] = ()
    if wanted.is_pruning and not is_repeated:
        _check_not_empty(commands, wanted)
        removals = pruned(state, commands, wanted.owner.name)
    if wanted.expected is not None and not is_begun:
        _check_expected(wanted.expected, decided_on)
    before = [seen(draft, command) for command in commands]
    submissions: list[Submission] = []
    events: list[Event] = []
    for portion, cause in _with_removals(cut, removals, wanted, removal_causes):
        ahead = [] if cause in state.causes else _removals_ahead(draft, portion, wanted)
        for part, part_cause in (*zip(ahead, removal_causes, strict=False), (portion, cause)):
            # What was shown is what the first of them is decided on, or nothing is done at all.
            is_first = not submissions and not is_begun
            expect = wanted.expected.seq if wanted.expected and is_first else None
            submissions.append(Submission(part, wanted.who, part_cause, expect))
            # A portion that an earlier request committed under this key makes no event.
            events.extend(decide(draft, submissions[-1], now_ms).events)
            # Each portion takes milliseconds; the logs must be followed meanwhile.
            await asyncio.sleep(0)
    after = [seen(draft, command) for command in commands]
    changes = tuple(
        _Change(_word(old, new), tuple(differences(old, new)))
        for old, new in zip(before, after, strict=True)
    )
    return Decided(tuple(submissions), changes, removals, tuple(events), decided_on)


def _places(manifests: Manifests) -> list[str]:
    names = ("/".join(filter(None, (one.namespace, one.name))) for one in manifests.accepted)
    pairs = zip(manifests.accepted, names, strict=True)
    places = [f"{one.where} {one.kind} {name}" for one, name in pairs]
    return places + [""] * (len(manifests.commands) - len(places))


def _check_not_empty(commands: Sequence[Command], wanted: Wanted) -> None:
    if not commands and not wanted.allows_empty:
        what = f"there is nothing in it, so everything of {wanted.owner.name} would be removed"
        remedy = "say so if it is meant: --allow-empty, ?allow_empty=true"
        raise RejectedError((Problem("", what, remedy),))


def _check_expected(expected: Position, decided_on: Position) -> None:
    if expected != decided_on:
        what = f"the log is at {decided_on}, and no longer at {expected}, which was decided on"
        remedy = "nothing was done: look again (a dry run), then repeat"
        raise MovedError((Problem("expect_position", what, remedy),))


def _left_to_do(cut: Sequence[Portion], state: ClusterState) -> list[Portion]:
    """The portions without those that an earlier request with the same idempotency key found
    unchanged: they have no key, but one that came after them has. What others wrote since stays.
    """
    known = [number for number, (_, cause) in enumerate(cut) if cause in state.causes]
    done = max(known, default=0)
    return [one for number, one in enumerate(cut) if number >= done or number in known]


def _is_begun(cut: Sequence[Portion], cause: str, state: ClusterState) -> bool:
    """Whether an earlier request with the same idempotency key did a part of this one: the log has
    moved by that. A part that changed nothing left no key behind.
    """
    causes = (*(portion_cause for _, portion_cause in cut), _removal_cause(cause, 1))
    return bool(cause) and any(one in state.causes for one in causes)


def _removal_causes(cause: str, state: ClusterState) -> Iterator[str]:
    """Idempotency keys for what is removed beyond the portions, none of which was used before: what
    is removed depends on the state, so a repeated request may have other things to remove.
    """
    keys = (_removal_cause(cause, number) if cause else "" for number in itertools.count(1))
    return (key for key in keys if not key or key not in state.causes)


def _removal_cause(cause: str, number: int) -> str:
    return f"{cause}{REMOVAL_MARK}{number}"


def _with_removals(
    cut: list[Portion], removals: Sequence[Removal], wanted: Wanted, causes: Iterator[str]
) -> list[Portion]:
    """The portions, with what is removed beside them: in the same record if one holds it all.

    Else it comes before the last portion, whose idempotency key then says that all was done. If
    that portion changes nothing there is no such key, and a repeated request looks again at what
    its owner has.
    """
    gone = [removal.command for removal in removals]
    if not gone:
        return cut
    if len(cut) == 1:
        (commands, cause), together = cut[0], portions([*cut[0][0], *gone], wanted.who, cut[0][1])
        if len(together) == 1:
            return [((*commands, *gone), cause)]
    parts = [(part, next(causes)) for part, _ in portions(gone, wanted.who, wanted.cause)]
    return [*cut[:-1], *parts, cut[-1]]


def _removals_ahead(
    draft: Draft, portion: Sequence[Command], wanted: Wanted
) -> list[tuple[Command, ...]]:
    """What a portion would take away beyond what fits beside its own commands."""
    gone = [
        RemoveEndpoint(EndpointKey(command.service, name))
        for command in portion
        if isinstance(command, ReplaceEndpoints)
        for name in draft.endpoints_from(command.service, command.source)
        if name not in command.endpoints
    ]
    return [removals for removals, _ in portions(gone, wanted.who, wanted.cause)[:-1]]


def _word(before: object, after: object) -> str:
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
