"""Events and records: what a log holds.

For: the values. Not for: their bytes (`codec`) nor their meaning (`core.fold`).
Invariant: an event is state-carried: a `*.set` holds the whole new value, so folding it twice is
harmless; removal is an event too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from meshd.model.ids import Head, LogId, Position, RecordHash, Seq

EVENTS_PER_RECORD_MAX = 4096
"""Enough to make a group commit's cost that of its bytes, few enough to fold without a pause."""
RECORD_BYTES_MAX = 512 * 1024
"""Two logs are written in one etcd request, which holds at most 1.5 MiB."""
EVENT_BYTES_MAX = 64 * 1024
SUBMISSION_EVENTS_MAX = EVENTS_PER_RECORD_MAX // 2
SUBMISSION_BYTES_MAX = 224 * 1024
"""A submission's local events. A commit takes submissions until it has half a record, so that one
more of this size always fits, with what surrounds the events.
"""
SUBMISSION_EXPORTS_MAX = 2 * EVENTS_PER_RECORD_MAX
SUBMISSION_EXPORT_BYTES_MAX = 640 * 1024
"""A submission's exported events: sharing a service tells all its endpoints at once. They may need
several export records; with half a record and the local events they fit one etcd request.
"""
ACTOR_CHARS_MAX = 256
CAUSE_CHARS_MAX = 256


class EventType(StrEnum):
    """The types that this version folds. Readers carry and count the types they don't know."""

    CLUSTER_SET = "cluster.set"
    SERVICE_SET = "service.set"
    SERVICE_REMOVED = "service.removed"
    ENDPOINT_SET = "endpoint.set"
    ENDPOINT_REMOVED = "endpoint.removed"
    NODE_SET = "node.set"
    NODE_REMOVED = "node.removed"
    IDENTITY_SET = "identity.set"
    IDENTITY_REMOVED = "identity.removed"
    POLICY_SET = "policy.set"
    POLICY_REMOVED = "policy.removed"
    PEER_SET = "peer.set"
    PEER_REMOVED = "peer.removed"
    SKIP_SET = "skip.set"
    SKIP_REMOVED = "skip.removed"
    OPERATION_SET = "operation.set"
    OPERATION_REMOVED = "operation.removed"


@dataclass(frozen=True, slots=True)
class Event:
    """One state change.

    type: a text rather than an EventType, since newer writers know more types. key: what it is
    about. data: the new value as plain data; None for a removal. actor: who did it. cause: the
    caller's idempotency key, '' if there was none; it never leaves the cluster.
    """

    type: str
    key: str
    data: Mapping[str, object] | None
    actor: str
    cause: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """Events committed together, as one etcd key, chained by hash to the record before.

    time_ms: wall clock, for people; it never goes back within a log. raw: the bytes exactly as
    written. hash: BLAKE2b-128 over `raw`. last_seq: the seq in the record's key. head: the log's
    once this record is its last. Both are looked at many times on the way of each record.
    """

    log_id: LogId
    first_seq: Seq
    time_ms: int
    prev_hash: RecordHash
    events: tuple[Event, ...]
    raw: bytes
    hash: RecordHash
    last_seq: Seq = field(init=False, repr=False, compare=False)
    head: Head = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Say where it ends."""
        last_seq = Seq(self.first_seq + len(self.events) - 1)
        object.__setattr__(self, "last_seq", last_seq)
        object.__setattr__(self, "head", Head(self.log_id, last_seq, self.hash))


@dataclass(frozen=True, slots=True)
class Told:
    """One event with its place and time, as it is told to people and programs. mark: of its record
    (`place.mark_of`) if it is of the own log.
    """

    position: Position
    time_ms: int
    event: Event
    mark: str = field(default="", compare=False)
