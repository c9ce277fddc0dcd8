"""What the commands of an operation mean: which things are turned how far, and how it stands then.

For: the rules of `decide` for operations. Not for: when a stage is due and what speaks against it
(`operations`, `capacity`), which depends on time and on other clusters. Invariants: a stage's turns
and the word that it was reached are in one record, so neither is ever there without the other; a
move is made from the stage that whoever asked for it saw, or not at all, so it is made once.

Rules:
- A subject has one operation under way at a time.
- A drain never turns up, an undrain never down, a migration only down.
- Rolling back turns everything to where it was before. What ended is rolled back only while nothing
  else has turned its subjects since.
- An endpoint that comes to a node that is turned down is turned down with it. So the operation that
  says it is kept for as long as it is so.
- An endpoint and its node are turned by one number, so they have one operation under way together.
- It is done when its last stage was held for its time, which may be none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import assert_never

from meshd.core.draft import Draft
from meshd.core.turned import last_turns, nodes_in
from meshd.model.cluster import ClusterInfo
from meshd.model.command import (
    Move,
    MoveOperation,
    OperationCommand,
    RemoveOperation,
    StartOperation,
)
from meshd.model.endpoint import Endpoint
from meshd.model.errors import Problem, RejectedError
from meshd.model.event import EventType
from meshd.model.forms import TURNED_UP
from meshd.model.ids import EndpointKey, ServiceKey
from meshd.model.operation import (
    REASON_CHARS_MAX,
    Operation,
    OperationKind,
    Progress,
    Subject,
    SubjectKind,
)
from meshd.model.schema import to_data
from meshd.model.service import Service

UNDER_WAY_MAX = 256
"""More than people can watch; each is looked at every second."""
ENDED_MAX = 1000
"""How many that ended are kept to be looked at; the log has them all."""
HELD_MAX = 5000
"""How many more are kept since they turn nodes down: as many nodes as a large Kubernetes has."""


@dataclass(frozen=True, slots=True)
class Word:
    """An event that is to be made. data: None for a removal."""

    type: EventType
    key: str
    data: dict[str, object] | None


def operated(draft: Draft, command: OperationCommand, now_ms: int, actor: str) -> Iterator[Word]:
    """The events of a command; raises RejectedError before the first."""
    match command:
        case StartOperation(name, operation):
            yield from _started(draft, name, operation, now_ms, actor)
        case MoveOperation():
            yield from _moved(draft, command, now_ms)
        case RemoveOperation(name):
            known = draft.operations().get(name)
            if known is not None and known.is_under_way:
                raise _refused(name, "it is under way", "roll it back, or wait until it is done")
            node = next(iter(_nodes_held(draft.operations()).get(name, ())), "")
            if node:
                what = f"node {node} is turned down by it, and so are endpoints that come there"
                raise _refused(name, what, f"meshd undrain node {node} first")
            if known is not None:
                yield Word(EventType.OPERATION_REMOVED, name, None)
        case _:
            assert_never(command)


def _nodes_held(operations: Mapping[str, Operation]) -> dict[str, list[str]]:
    """The nodes that are turned down, by the operation that says so."""
    found: dict[str, list[str]] = {}
    for node, (name, turned) in last_turns(operations).items():
        if turned < TURNED_UP:
            found.setdefault(name, []).append(node)
    return found


# Starting.


def _started(draft: Draft, name: str, given: Operation, now_ms: int, actor: str) -> Iterator[Word]:
    known = draft.operations()
    problems = [*_obstacles(draft, name, given, known)]
    if problems:
        raise RejectedError(tuple(problems))
    operation = replace(
        given,
        before={subject: level_of(draft, subject) for subject in given.subjects},
        stage=0,
        progress=Progress.RUNNING,
        reason="",
        started_ms=now_ms,
        by=actor,
    )
    wrong = [*_wrong_way(operation)]
    if wrong:
        raise RejectedError(tuple(wrong))
    ended = [one for one, value in known.items() if not value.is_under_way]
    needed = _nodes_held(known)
    held = [one for one in ended if one in needed]
    spare = [one for one in ended if one not in needed]
    for old in (*_oldest(spare, ENDED_MAX), *_oldest(held, HELD_MAX)):
        yield Word(EventType.OPERATION_REMOVED, old, None)
    yield from _advanced(draft, name, operation, now_ms)


def _oldest(names: list[str], kept_max: int) -> list[str]:
    """Those that make room for another one."""
    return names[: max(0, len(names) - kept_max + 1)]


def _obstacles(
    draft: Draft, name: str, given: Operation, known: Mapping[str, Operation]
) -> Iterator[Problem]:
    under_way = {one: value for one, value in known.items() if value.is_under_way}
    if name in under_way:
        yield _problem(name, "it is under way already", "roll it back first, or take another name")
    elif not {*_nodes_held(known).get(name, ())} <= nodes_in(given):
        # The older one would be forgotten.
        yield _problem(name, "an older one of this name turns a node down", "take another name")
    elif len(under_way) >= UNDER_WAY_MAX:
        yield _problem(
            name, f"{UNDER_WAY_MAX} operations are under way", "wait until one has ended"
        )
    if draft.cluster() is None:
        yield _problem(name, "the cluster has not said its name yet", "try again in a moment")
    for subject in given.subjects:
        for other, value in under_way.items():
            if other != name and any(_overlap(draft, subject, one) for one in value.subjects):
                remedy = f"wait for {other} ({value.kind}), or roll it back"
                yield Problem("subjects", f"{subject} has an operation under way", remedy)
        if not _exists(draft, Subject.parse(subject)):
            remedy = "look at what there is: meshd get services, meshd get endpoints"
            yield Problem("subjects", f"this cluster has no {subject}", remedy)


def _overlap(draft: Draft, text: str, other: str) -> bool:
    """Whether two subjects are turned by the same number: they are the same thing, or an endpoint
    and its node.
    """
    subjects = {one.kind: one for one in (Subject.parse(text), Subject.parse(other))}
    node, endpoint = subjects.get(SubjectKind.NODE), subjects.get(SubjectKind.ENDPOINT)
    if node is not None and endpoint is not None:
        found = draft.endpoint(EndpointKey.parse(endpoint.key))
        return found is not None and found.node == node.key
    return text == other


def _wrong_way(operation: Operation) -> Iterator[Problem]:
    levels = [stage.turned_percent for stage in operation.stages]
    goes_up = operation.kind is OperationKind.UNDRAIN
    if levels != sorted(levels, reverse=not goes_up):
        way = "up" if goes_up else "down"
        yield Problem("stages", f"{operation.kind} only goes {way}", "put the stages in that order")
        return
    for subject, before in operation.before.items():
        if before > levels[0] if goes_up else before < levels[0]:
            what = f"{subject} is turned to {before} %, so {levels[0]} % is the wrong way"
            remedy = "begin with a stage behind that, or use the other one of drain and undrain"
            yield Problem("stages", what, remedy)


def _exists(draft: Draft, subject: Subject) -> bool:
    match subject.kind:
        case SubjectKind.CLUSTER:
            return True
        case SubjectKind.SERVICE:
            return draft.service(ServiceKey.parse(subject.key)) is not None
        case SubjectKind.ENDPOINT:
            return draft.endpoint(EndpointKey.parse(subject.key)) is not None
        case SubjectKind.NODE:
            return next(_on_node(draft, subject.key), None) is not None
        case _:
            assert_never(subject.kind)


def level_of(draft: Draft, text: str) -> int:
    """How far something is turned up now; a subject as `Subject` writes it."""
    subject = Subject.parse(text)
    match subject.kind:
        case SubjectKind.CLUSTER:
            value: ClusterInfo | Service | Endpoint | None = draft.cluster()
        case SubjectKind.SERVICE:
            value = draft.service(ServiceKey.parse(subject.key))
        case SubjectKind.ENDPOINT:
            value = draft.endpoint(EndpointKey.parse(subject.key))
        case SubjectKind.NODE:
            return draft.nodes_turned().get(subject.key, TURNED_UP)
        case _:
            assert_never(subject.kind)
    return TURNED_UP if value is None else value.turned_percent


# Moving on.


def _moved(draft: Draft, command: MoveOperation, now_ms: int) -> Iterator[Word]:
    name, known = command.name, draft.operations().get(command.name)
    if known is None:
        raise _refused(name, "there is no such operation", "look at them: meshd operation list")
    if command.from_stage not in {None, known.stage}:
        # Somebody else made this move already.
        return
    is_running = known.progress is Progress.RUNNING
    match command.move:
        case Move.ADVANCE:
            if is_running:
                yield from _advanced(draft, name, known, now_ms)
        case Move.PAUSE | Move.RESUME:
            if not known.is_under_way:
                raise _refused(name, f"it is {known.progress}", "start another one")
            if is_running == (command.move is Move.PAUSE):
                progress = Progress.PAUSED if is_running else Progress.RUNNING
                yield _stands(name, known, progress, now_ms, command.reason)
        case Move.ROLL_BACK:
            yield from _rolled_back(draft, command, known, now_ms)
        case _:
            assert_never(command.move)


def _advanced(draft: Draft, name: str, operation: Operation, now_ms: int) -> Iterator[Word]:
    """Reach the next stage; once the last one was held for its time, the operation is done."""
    stage = operation.next_stage
    if stage is None:
        yield _stands(name, operation, Progress.DONE, now_ms)
        return
    for subject in operation.subjects:
        yield from _turns(draft, subject, stage.turned_percent)
    reached = replace(operation, stage=operation.stage + 1)
    is_over = reached.next_stage is None and not stage.hold_s
    yield _stands(name, reached, Progress.DONE if is_over else Progress.RUNNING, now_ms)


def _rolled_back(
    draft: Draft, command: MoveOperation, known: Operation, now_ms: int
) -> Iterator[Word]:
    if known.progress is Progress.ROLLED_BACK:
        return
    if not known.is_under_way:
        there = [one for one in known.subjects if _exists(draft, Subject.parse(one))]
        moved = [one for one in there if level_of(draft, one) != known.turned_now(one)]
        if moved:
            what = f"it is {known.progress}, and {moved[0]} was turned by something else since"
            raise _refused(command.name, what, "start an operation the other way")
    for subject in known.subjects:
        yield from _turns(draft, subject, known.before.get(subject, TURNED_UP))
    yield _stands(command.name, known, Progress.ROLLED_BACK, now_ms, command.reason)


def _stands(
    name: str, operation: Operation, progress: Progress, now_ms: int, reason: str = ""
) -> Word:
    value = replace(operation, progress=progress, reason=reason[:REASON_CHARS_MAX], since_ms=now_ms)
    return Word(EventType.OPERATION_SET, name, to_data(value))


def _turns(draft: Draft, text: str, percent: int) -> Iterator[Word]:
    """Turn one thing; nothing where it is there already, or is gone."""
    subject = Subject.parse(text)
    match subject.kind:
        case SubjectKind.CLUSTER:
            info = draft.cluster()
            if info is not None and info.turned_percent != percent:
                turned = replace(info, turned_percent=percent)
                yield Word(EventType.CLUSTER_SET, info.name, to_data(turned))
        case SubjectKind.SERVICE:
            service = draft.service(ServiceKey.parse(subject.key))
            if service is not None and service.turned_percent != percent:
                data = to_data(replace(service, turned_percent=percent))
                yield Word(EventType.SERVICE_SET, subject.key, data)
        case SubjectKind.ENDPOINT:
            yield from _turned_endpoint(draft, EndpointKey.parse(subject.key), percent)
        case SubjectKind.NODE:
            for key in list(_on_node(draft, subject.key)):
                yield from _turned_endpoint(draft, key, percent)
        case _:
            assert_never(subject.kind)


def _turned_endpoint(draft: Draft, key: EndpointKey, percent: int) -> Iterator[Word]:
    endpoint = draft.endpoint(key)
    if endpoint is not None and endpoint.turned_percent != percent:
        data = to_data(replace(endpoint, turned_percent=percent))
        yield Word(EventType.ENDPOINT_SET, str(key), data)


def _on_node(draft: Draft, node: str) -> Iterator[EndpointKey]:
    """The endpoints that the cluster has on a node, in order."""
    for key, _ in sorted(draft.services(), key=lambda item: item[0]):
        names = [name for name, endpoint in draft.endpoints_of(key) if endpoint.node == node]
        for name in sorted(names):
            yield EndpointKey(key, name)


def _problem(name: str, what: str, remedy: str) -> Problem:
    return Problem(f"operation {name}", what, remedy)


def _refused(name: str, what: str, remedy: str) -> RejectedError:
    return RejectedError((_problem(name, what, remedy),))
