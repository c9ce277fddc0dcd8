"""A large apply as a row of submissions.

For: cutting commands into portions that one record holds. Not for: deciding or committing them
(`apply`). Invariant: the portions depend on the commands alone, never on the state, so the portions
of a repeated request are the same and their idempotency keys fit.

Rules:
- A portion is at most half of what a submission may be: the other half is for what a command makes
  of the state, such as taking away an EndpointSlice's old endpoints.
- A ReplaceEndpoints that is larger by itself is preceded by SetEndpoints, which add before it takes
  away; what is left for it to do is small.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from meshd.model.codec import event_bytes
from meshd.model.command import (
    AllocateIdentity,
    Command,
    DescribeCluster,
    RemoveEndpoint,
    RemoveIdentity,
    RemoveNode,
    RemovePolicy,
    RemoveService,
    ReplaceEndpoints,
    SetEndpoint,
    SetIdentity,
    SetNode,
    SetPolicy,
    SetService,
)
from meshd.model.event import SUBMISSION_BYTES_MAX, SUBMISSION_EVENTS_MAX, Event, EventType
from meshd.model.ids import EndpointKey
from meshd.model.schema import to_data

PORTION_EVENTS_MAX = SUBMISSION_EVENTS_MAX // 2
PORTION_BYTES_MAX = SUBMISSION_BYTES_MAX // 2
LOGS_PER_EVENT = 2
"""An event may have to be in the local and in the export log."""
PORTION_MARK = "§"
REMOVAL_MARK = "¬"
"""They stand in the idempotency keys of portions, and of what is removed beyond them. No header may
hold them, so that no caller's key can be taken for one of these."""
CAUSE_NUMBER_CHARS = 8
"""What the number of a portion adds to an idempotency key, at most, with its mark."""
NUMBER_LONGEST = "9" * 8
INFO_BYTES = 33 * 1024
"""What the settings may have said of a cluster, at most: mainly its labels."""

Cost = tuple[int, int]
"""Events and bytes."""


def portions(
    commands: Sequence[Command], actor: str, cause: str
) -> list[tuple[tuple[Command, ...], str]]:
    """Cut commands into portions, each with its idempotency key ('' if there is none)."""
    cut: list[list[Command]] = [[]]
    events = size_bytes = 0
    for command in _unfold(commands, actor, cause):
        more_events, more_bytes = _cost(command, actor, cause)
        is_full = (
            events + more_events > PORTION_EVENTS_MAX or size_bytes + more_bytes > PORTION_BYTES_MAX
        )
        if is_full and cut[-1]:
            cut.append([])
            events = size_bytes = 0
        cut[-1].append(command)
        events += more_events
        size_bytes += more_bytes
    if len(cut) == 1 or not cause:
        return [(tuple(portion), cause) for portion in cut]
    return [
        (tuple(portion), f"{cause}{PORTION_MARK}{number}") for number, portion in enumerate(cut, 1)
    ]


def _unfold(commands: Iterable[Command], actor: str, cause: str) -> Iterator[Command]:
    """The commands, with large ones preceded by their parts."""
    for command in commands:
        if isinstance(command, ReplaceEndpoints):
            events, size_bytes = _full_cost(command, actor, cause)
            if events > PORTION_EVENTS_MAX or size_bytes > PORTION_BYTES_MAX:
                for name, endpoint in command.endpoints.items():
                    whole = replace(endpoint, source=command.source)
                    yield SetEndpoint(EndpointKey(command.service, name), whole)
        yield command


def _cost(command: Command, actor: str, cause: str) -> Cost:
    """What a command adds to its portion, whatever the state; nothing if it was unfolded."""
    match command:
        case SetService(key, service):
            return _cost_of(EventType.SERVICE_SET, str(key), to_data(service), actor, cause)
        case SetEndpoint(key, endpoint):
            return _cost_of(EventType.ENDPOINT_SET, str(key), to_data(endpoint), actor, cause)
        case SetNode(name, node):
            return _cost_of(EventType.NODE_SET, name, to_data(node), actor, cause)
        case SetIdentity(number, identity):
            return _cost_of(EventType.IDENTITY_SET, str(number), to_data(identity), actor, cause)
        case SetPolicy(policy_key, policy):
            return _cost_of(EventType.POLICY_SET, str(policy_key), to_data(policy), actor, cause)
        case AllocateIdentity():
            value: dict[str, object] = {"labels": command.labels, "source": command.source}
            value["audiences"] = command.audiences
            return _cost_of(EventType.IDENTITY_SET, NUMBER_LONGEST, value, actor, cause)
        case DescribeCluster():
            told: dict[str, object] = {"announces": command.announces}
            events, size_bytes = _cost_of(EventType.CLUSTER_SET, "", told, actor, cause)
            return events, size_bytes + LOGS_PER_EVENT * INFO_BYTES
        case ReplaceEndpoints():
            events, size_bytes = _full_cost(command, actor, cause)
            is_unfolded = events > PORTION_EVENTS_MAX or size_bytes > PORTION_BYTES_MAX
            return (0, 0) if is_unfolded else (events, size_bytes)
        case (
            RemoveService(key)
            | RemoveEndpoint(key)
            | RemoveNode(key)
            | RemoveIdentity(key)
            | RemovePolicy(key)
        ):
            return _cost_of(EventType.IDENTITY_REMOVED, str(key), None, actor, cause)
        case _:
            raise AssertionError("no manifest speaks of peers, nor introduces a cluster")


def _full_cost(command: ReplaceEndpoints, actor: str, cause: str) -> Cost:
    costs = [
        _cost(
            SetEndpoint(
                EndpointKey(command.service, name), replace(endpoint, source=command.source)
            ),
            actor,
            cause,
        )
        for name, endpoint in command.endpoints.items()
    ]
    return sum(events for events, _ in costs), sum(size_bytes for _, size_bytes in costs)


def _cost_of(
    kind: EventType, key: str, data: dict[str, object] | None, actor: str, cause: str
) -> Cost:
    event = Event(kind, key, data, actor, cause)
    return 1, LOGS_PER_EVENT * (event_bytes(event) + CAUSE_NUMBER_CHARS)
