"""`/v1/operations`, `/v1/migrations`: drains, ramps and migrations, begun, watched and undone.

For: what a person asks of them. Not for: which stage comes when (`runtime.operator`). Invariants:
what nobody could take the load of isn't begun unless that is forced; a dry run says what would be
at every stage, and writes nothing.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict
from hashlib import blake2b
from typing import Final

from aiohttp import web

from meshd.core.capacity import concerned
from meshd.core.draft import Draft, OfState
from meshd.core.excerpt import excerpt, excerpts
from meshd.core.foreseen import Foreseen, Seen, foresee
from meshd.core.operations import held_until_ms, troubles_of, unseen
from meshd.core.past import time_text
from meshd.core.planned import conflicts_of, drain_of, migration_of, services_of
from meshd.core.state import Held
from meshd.edges.http.answers import (
    json_answer,
    own_log,
    own_state,
    submission,
    submit,
    write_answer,
)
from meshd.edges.http.limits import NODE
from meshd.edges.http.problems import CONFLICT, HttpProblem
from meshd.edges.http.requests import (
    check_query,
    idempotency_key,
    query_flag,
    read_object,
)
from meshd.edges.http.wire import Json, origin_fields, write_result
from meshd.model.command import (
    Move,
    MoveOperation,
    RemoveOperation,
    StartOperation,
    Submission,
)
from meshd.model.errors import NotFoundError, Problem, RejectedError
from meshd.model.ids import ClusterName
from meshd.model.operation import (
    REASON_CHARS_MAX,
    DrainPlan,
    Measured,
    MigrationPlan,
    Operation,
    OperationKind,
    Progress,
    Subject,
    parse_operation_name,
)
from meshd.model.peer import Phase
from meshd.model.schema import all_data, from_data
from meshd.runtime.node import Node

FORESEEN_MAX: Final = 50
"""Of so many services the stages are foreseen; a cluster may have thousands."""
LACKING_MAX: Final = 1000
"""So many services are named that too little would be left of: some 200 KB."""
NAME_BYTES: Final = 4
"""Of the digest of a key: enough to tell the operations of one cluster apart."""

_MOVES: Final = (Move.PAUSE, Move.RESUME, Move.ROLL_BACK)
"""What a person may ask of an operation; to advance is for whoever leads."""


def routes() -> list[web.AbstractRouteDef]:
    """The paths that are served here."""
    one = "/v1/operations/{operation}"
    return [
        web.get("/v1/operations", list_operations),
        web.post("/v1/operations", start_operation),
        web.post("/v1/migrations", start_migration),
        web.get(one, get_operation),
        web.delete(one, delete_operation),
        *(web.post(f"{one}/{move}", move_operation) for move in _MOVES),
        web.post(f"{one}/signal", tell_signal),
    ]


async def list_operations(request: web.Request) -> web.Response:
    """All operations, the one that changed last first."""
    check_query(request)
    node = request.app[NODE]
    held = reversed(own_state(node).operations.items())
    return json_answer({"items": [_item(node, name, one) for name, one in held]})


async def get_operation(request: web.Request) -> web.Response:
    """One operation."""
    check_query(request)
    node, name = request.app[NODE], operation_name(request)
    held = own_state(node).operations.get(name)
    if held is None:
        raise _unknown(name)
    return json_answer(_item(node, name, held))


async def start_operation(request: web.Request) -> web.Response:
    """Drain something, or undrain it."""
    data, name = await _body(request)
    plan, node = from_data(DrainPlan, data, ""), request.app[NODE]
    if plan.kind is OperationKind.MIGRATION:
        remedy = "POST a plan to /v1/migrations"
        raise RejectedError((Problem("kind", "a migration is started elsewhere", remedy),))
    operation = drain_of(plan, Draft(OfState(own_state(node))))
    return await _start(request, _named(request, name, operation), operation)


async def start_migration(request: web.Request) -> web.Response:
    """Move services from this cluster to another."""
    data, name = await _body(request)
    node = request.app[NODE]
    operation = migration_of(from_data(MigrationPlan, data, ""), node.projector.own)
    if not operation.is_forced:
        problems = _against(node, operation)
        if problems:
            raise RejectedError(tuple(problems))
    return await _start(request, _named(request, name, operation), operation)


async def move_operation(request: web.Request) -> web.Response:
    """Pause an operation, resume it, or roll it back."""
    check_query(request)
    node, name = request.app[NODE], operation_name(request)
    reason = await _reason(request)
    _known(node, name)
    move = MoveOperation(name, Move(request.path.rpartition("/")[2]), reason=reason)
    return write_answer(node, await submit(node, submission(request, [move])))


async def tell_signal(request: web.Request) -> web.Response:
    """Tell what somebody outside measured: the percent of requests that fail."""
    check_query(request)
    node, name = request.app[NODE], operation_name(request)
    measured = from_data(Measured, await read_object(request), "")
    _known(node, name)
    signal = await node.operator.signals.tell(name, measured.error_percent)
    return json_answer(
        {"error_percent": signal.error_percent, "time": time_text(signal.at_ms)}, status=202
    )


async def delete_operation(request: web.Request) -> web.Response:
    """Forget an operation that ended."""
    check_query(request)
    node, name = request.app[NODE], operation_name(request)
    _known(node, name)
    outcome = await submit(node, submission(request, [RemoveOperation(name)]))
    return write_answer(node, outcome)


def operation_name(request: web.Request) -> str:
    """The operation that the path names."""
    return parse_operation_name(request.match_info["operation"])


async def _body(request: web.Request) -> tuple[dict[str, object], str]:
    check_query(request, "dry_run")
    data = await read_object(request)
    name = data.pop("name", "")
    if not isinstance(name, str):
        raise RejectedError((Problem("name", "is not a text", "put it in quotes"),))
    return data, parse_operation_name(name) if name else ""


async def _reason(request: web.Request) -> str:
    if not request.body_exists:
        return ""
    data = await read_object(request)
    reason = data.pop("reason", "")
    if data or not isinstance(reason, str) or len(reason) > REASON_CHARS_MAX:
        what = f"is no reason: a text of at most {REASON_CHARS_MAX} characters"
        raise RejectedError((Problem("reason", what, 'send {"reason": "…"} or nothing'),))
    return reason


def _named(request: web.Request, name: str, operation: Operation) -> str:
    """What it is called, where nobody gave it a name: by the key of the request, so that repeating
    it names the same one, or else by the moment.
    """
    node, key = request.app[NODE], idempotency_key(request)
    if name:
        return name
    if key:
        digest = blake2b(key.encode(), digest_size=NAME_BYTES).hexdigest()
        return f"{operation.kind}-{digest}"
    moment = time.strftime("%Y%m%d-%H%M%S", time.gmtime(node.clock.wall_ms() / 1000))
    taken, known = f"{operation.kind}-{moment}", own_state(node).operations
    return next(
        name for name in (taken, *(f"{taken}-{n}" for n in range(2, 10_000))) if name not in known
    )


async def _start(request: web.Request, name: str, operation: Operation) -> web.Response:
    node, is_dry = request.app[NODE], query_flag(request, "dry_run")
    wanted = submission(request, [StartOperation(name, operation)])
    if wanted.cause in own_state(node).causes:
        # Begun by an earlier request, so what speaks against beginning it speaks against itself.
        begun: Json = {"name": name, "dry_run": False, "stages": [], "too_little": []}
        return json_answer(begun | await _write(node, wanted), status=201)
    stages = await _stages(node, name, operation)
    told: Json = {"name": name, "dry_run": is_dry, "stages": stages, "too_little": []}
    if operation.kind is not OperationKind.UNDRAIN:
        lacking = await node.operator.lacking(operation)
        if lacking and not operation.is_forced:
            many = f"{len(lacking)} services" if len(lacking) > 1 else "a service"
            what = f"{operation.kind}: {many} would be left with too little"
            raise HttpProblem(CONFLICT, what, lacking[:LACKING_MAX])
        told["too_little"] = [asdict(one) for one in lacking[:LACKING_MAX]]
    if is_dry:
        return json_answer(told)
    return json_answer(told | await _write(node, wanted), status=201)


async def _write(node: Node, wanted: Submission) -> Json:
    return write_result(await submit(node, wanted), *own_log(node))


async def _stages(node: Node, name: str, operation: Operation) -> list[Json]:
    """What every stage will do, as far as it is foreseen."""
    projector, state = node.projector, own_state(node)
    keys = concerned(state, frozenset(map(Subject.parse, operation.subjects)))
    told = [key for key in keys if state.services[key].value.is_global][:FORESEEN_MAX]
    states = excerpts(projector.states, told) | {projector.own: excerpt(state)}
    seen = Seen(projector.own, states, dict(projector.log_ids), dict(projector.sights))
    found = await asyncio.to_thread(lambda: list(foresee(seen, name, operation, told)))
    return [_foreseen_item(one) for one in found]


def _foreseen_item(foreseen: Foreseen) -> Json:
    return {
        "turned_percent": foreseen.turned_percent,
        "shares_ppm": {str(key): dict(shares) for key, shares in foreseen.shares.items()},
    }


def _against(node: Node, operation: Operation) -> list[Problem]:
    """What speaks against a migration now."""
    to, projector = ClusterName(operation.to), node.projector
    theirs = projector.state(to)
    destination = node.operator.destination_of(operation)
    if unseen(destination):
        wait = "wait until it is Ready: meshd get peers"
        return [Problem("to", unseen(destination), wait)]
    problems: list[Problem] = []
    for key in services_of(operation):
        definition = theirs.service(key) if theirs is not None else None
        problems += conflicts_of(key, to, definition, projector.tables.view(key))
    if problems and destination.phase is Phase.READY:
        return problems
    remedy = "mend that first, or force it"
    troubles = troubles_of(destination, operation.conditions)
    return [Problem("to", trouble, remedy) for trouble in troubles]


def _known(node: Node, name: str) -> None:
    if name not in own_state(node).operations:
        raise _unknown(name)


def _unknown(name: str) -> NotFoundError:
    return NotFoundError(f"there is no operation {name!r} here")


def _item(node: Node, name: str, held: Held[Operation]) -> Json:
    """An operation as it stands. waits_for: what this meshd, if it leads, waits for before the next
    stage. next_at: when that is due at the earliest.
    """
    operation = held.value
    due_ms = held_until_ms(operation) if operation.progress is Progress.RUNNING else 0
    return {
        "name": name,
        **all_data(operation),
        "turned_percent": {one: operation.turned_now(one) for one in operation.subjects},
        "next_at": time_text(due_ms) if due_ms else None,
        "waits_for": node.operator.waits.get(name),
        "origin": origin_fields(node.projector.own, held.origin(own_log(node)[1])),
    }
