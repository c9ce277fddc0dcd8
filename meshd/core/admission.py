"""What no submission may be, whatever the state is.

For: names that nothing can have, texts that no record holds, and how much fits into one commit. Not
for: what a command means on a state (`decide`). Invariant: all problems are told at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

from meshd.core.export import Exports
from meshd.model.command import (
    AllocateIdentity,
    Command,
    DescribeCluster,
    DropRegistered,
    IntroduceCluster,
    MoveOperation,
    RecordProbe,
    RegisterEndpoint,
    RemoveEndpoint,
    RemoveIdentity,
    RemoveNode,
    RemoveOperation,
    RemovePeer,
    RemovePolicy,
    RemoveService,
    RemoveSkip,
    ReplaceEndpoints,
    SetCluster,
    SetEndpoint,
    SetIdentity,
    SetNode,
    SetPeer,
    SetPolicy,
    SetService,
    SkipRecord,
    StartOperation,
    Submission,
)
from meshd.model.errors import Problem, RejectedError
from meshd.model.event import (
    ACTOR_CHARS_MAX,
    CAUSE_CHARS_MAX,
    EVENT_BYTES_MAX,
    SUBMISSION_BYTES_MAX,
    SUBMISSION_EVENTS_MAX,
    SUBMISSION_EXPORT_BYTES_MAX,
    SUBMISSION_EXPORTS_MAX,
    Event,
)
from meshd.model.identity import parse_identity
from meshd.model.ids import EndpointKey, PolicyKey, ServiceKey, parse_cluster_name
from meshd.model.node import parse_node_name
from meshd.model.operation import parse_operation_name


def check_texts(submission: Submission) -> Iterator[Problem]:
    """The actor and the idempotency key."""
    if not 0 < len(submission.actor) <= ACTOR_CHARS_MAX:
        yield Problem("actor", f"must have 1 to {ACTOR_CHARS_MAX} characters", "shorten it")
    if len(submission.cause) > CAUSE_CHARS_MAX:
        yield Problem("idempotency key", f"over {CAUSE_CHARS_MAX} characters", "shorten it")
    for where, text in (("actor", submission.actor), ("idempotency key", submission.cause)):
        if not text.isprintable():
            # Among them lone surrogates, which no record could hold.
            yield Problem(where, "holds characters that can't be printed", "leave them out")


def check_names(submission: Submission) -> Iterator[Problem]:
    """What the commands are about."""
    for command in submission.commands:
        try:
            _check_name(command)
        except RejectedError as error:
            yield from error.problems


def _check_name(command: Command) -> None:
    """Raise RejectedError for a name that nothing can have."""
    match command:
        case SetService(key) | RemoveService(key) | ReplaceEndpoints(key):
            ServiceKey.parse(str(key))
            for name in command.endpoints if isinstance(command, ReplaceEndpoints) else ():
                EndpointKey.parse(f"{key}/{name}")
        case (
            SetEndpoint(endpoint_key)
            | RemoveEndpoint(endpoint_key)
            | RegisterEndpoint(endpoint_key)
            | DropRegistered(endpoint_key)
            | RecordProbe(endpoint_key)
        ):
            EndpointKey.parse(str(endpoint_key))
        case SetNode(node_name) | RemoveNode(node_name):
            parse_node_name(node_name)
        case SetIdentity(number) | RemoveIdentity(number):
            parse_identity(str(number))
        case SetPolicy(policy_key) | RemovePolicy(policy_key):
            PolicyKey.parse(str(policy_key))
        case SetPeer(name) | RemovePeer(name) | SkipRecord(name) | RemoveSkip(name):
            parse_cluster_name(name)
        case StartOperation() | MoveOperation() | RemoveOperation():
            parse_operation_name(command.name)
        case SetCluster() | IntroduceCluster() | DescribeCluster() | AllocateIdentity():
            pass
        case _:
            assert_never(command)


def check_events(events: tuple[Event, ...], sizes: list[int]) -> Iterator[Problem]:
    """How much goes into the local log. sizes: of each event, in bytes."""
    for event, event_size_bytes in zip(events, sizes, strict=True):
        if event_size_bytes > EVENT_BYTES_MAX:
            yield Problem(
                f"{event.type} {event.key}",
                f"{event_size_bytes} bytes; at most {EVENT_BYTES_MAX}",
                "use fewer or shorter labels and ports",
            )
    size_bytes = sum(sizes)
    if len(events) > SUBMISSION_EVENTS_MAX or size_bytes > SUBMISSION_BYTES_MAX:
        yield Problem(
            "",
            f"{len(events)} changes of {size_bytes} bytes at once; at most {SUBMISSION_EVENTS_MAX} "
            f"changes of {SUBMISSION_BYTES_MAX} bytes",
            "split it into several requests",
        )


def check_exports(exports: Exports, size_bytes: int) -> Iterator[Problem]:
    """All audiences' logs are written in one request, so the limits hold for the sum of them."""
    count = sum(map(len, exports.values()))
    if count > SUBMISSION_EXPORTS_MAX or size_bytes > SUBMISSION_EXPORT_BYTES_MAX:
        logs = f" in {len(exports)} audiences" if len(exports) > 1 else ""
        yield Problem(
            "",
            f"it would tell peers {count} changes of {size_bytes} bytes{logs} at once; at most "
            f"{SUBMISSION_EXPORTS_MAX} changes of {SUBMISSION_EXPORT_BYTES_MAX} bytes",
            "share the service while it has fewer endpoints, then add the others",
        )
