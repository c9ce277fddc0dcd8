"""Commands: what somebody may ask of a cluster.

For: the requests, before anybody decided. Not for: whether they are allowed (`core.decide`).
Invariant: every command is about the cluster it is given to: of another one it may say only how
this cluster follows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from meshd.model.cluster import Availability, ClusterInfo
from meshd.model.endpoint import Endpoint
from meshd.model.forms import WEIGHT_DEFAULT
from meshd.model.identity import Identity
from meshd.model.ids import ClusterName, EndpointKey, LogId, PolicyKey, Seq, ServiceKey
from meshd.model.listed import ListedPeer, SkippedRecord
from meshd.model.node import Node
from meshd.model.operation import Operation
from meshd.model.policy import Policy
from meshd.model.probe import ProbeResult
from meshd.model.service import Service


@dataclass(frozen=True, slots=True)
class SetCluster:
    """Say what this cluster is, all of it."""

    info: ClusterInfo


@dataclass(frozen=True, slots=True)
class IntroduceCluster:
    """Say what the settings have of this cluster. What is said while it runs (`DescribeCluster`)
    stays as it is, whatever `info` has there.
    """

    info: ClusterInfo


@dataclass(frozen=True, slots=True)
class DescribeCluster:
    """Say how this cluster is now: what a person changes while it runs."""

    state: Availability = Availability.ACTIVE
    weight: int = WEIGHT_DEFAULT
    announces: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SetService:
    """Define a service, or replace its definition."""

    key: ServiceKey
    service: Service


@dataclass(frozen=True, slots=True)
class RemoveService:
    """Remove a service together with its endpoints."""

    key: ServiceKey


@dataclass(frozen=True, slots=True)
class SetEndpoint:
    """Add an endpoint, or replace its value."""

    key: EndpointKey
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class RemoveEndpoint:
    """Remove an endpoint."""

    key: EndpointKey


@dataclass(frozen=True, slots=True)
class ReplaceEndpoints:
    """Make these all the endpoints that `source` gives to a service, as an EndpointSlice does."""

    service: ServiceKey
    source: str
    endpoints: Mapping[str, Endpoint]


@dataclass(frozen=True, slots=True)
class RegisterEndpoint:
    """Add or replace an endpoint that is there while its registration lives."""

    key: EndpointKey
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class DropRegistered:
    """Remove an endpoint whose registration is over; one that is none of a registration stays."""

    key: EndpointKey


@dataclass(frozen=True, slots=True)
class RecordProbe:
    """Note what probes of an endpoint came to. address: where it was asked. mark: by which probe of
    its service; of unknown by none.
    """

    key: EndpointKey
    address: str
    result: ProbeResult
    mark: str = ""


@dataclass(frozen=True, slots=True)
class SetNode:
    """Add a node, or replace what is said of it."""

    name: str
    node: Node


@dataclass(frozen=True, slots=True)
class RemoveNode:
    """Remove a node."""

    name: str


@dataclass(frozen=True, slots=True)
class AllocateIdentity:
    """Give a set of labels its number. The same labels have the same number.

    audiences, source: None leaves them as they are, or at their defaults.
    """

    labels: Mapping[str, str]
    audiences: tuple[str, ...] | None = None
    source: str | None = None


@dataclass(frozen=True, slots=True)
class SetIdentity:
    """Give a set of labels just this number, as it had elsewhere or before."""

    number: int
    identity: Identity


@dataclass(frozen=True, slots=True)
class RemoveIdentity:
    """Take an identity's number back: another set of labels may get it."""

    number: int


@dataclass(frozen=True, slots=True)
class SetPolicy:
    """Add a policy, or replace what it says."""

    key: PolicyKey
    policy: Policy


@dataclass(frozen=True, slots=True)
class RemovePolicy:
    """Remove a policy."""

    key: PolicyKey


@dataclass(frozen=True, slots=True)
class SetPeer:
    """Follow a peer, or follow it otherwise."""

    name: ClusterName
    peer: ListedPeer


@dataclass(frozen=True, slots=True)
class RemovePeer:
    """Follow a peer no more; what is passed over of its log is forgotten with it."""

    name: ClusterName


@dataclass(frozen=True, slots=True)
class SkipRecord:
    """Pass over one more record of a peer's log."""

    peer: ClusterName
    log_id: LogId
    record: SkippedRecord


@dataclass(frozen=True, slots=True)
class RemoveSkip:
    """Forget what is passed over of a log that is no longer a peer's."""

    peer: ClusterName
    log_id: LogId


@dataclass(frozen=True, slots=True)
class StartOperation:
    """Begin an operation, and reach its first stage."""

    name: str
    operation: Operation


class Move(StrEnum):
    """What an operation under way can be asked for. advance: reach the next stage."""

    ADVANCE = "advance"
    PAUSE = "pause"
    RESUME = "resume"
    ROLL_BACK = "rollback"


@dataclass(frozen=True, slots=True)
class MoveOperation:
    """Move an operation. from_stage: how many stages it had reached when this was decided on; None:
    however many. reason: why, for whoever looks at it later.
    """

    name: str
    move: Move
    from_stage: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RemoveOperation:
    """Forget an operation that ended."""

    name: str


OperationCommand = StartOperation | MoveOperation | RemoveOperation
PeerCommand = SetPeer | RemovePeer | SkipRecord | RemoveSkip
ClusterCommand = SetCluster | IntroduceCluster | DescribeCluster
NodeCommand = SetNode | RemoveNode
HealthCommand = RegisterEndpoint | DropRegistered | RecordProbe
IdentityCommand = AllocateIdentity | SetIdentity | RemoveIdentity
PolicyCommand = SetPolicy | RemovePolicy
Command = (
    ClusterCommand
    | SetService
    | RemoveService
    | SetEndpoint
    | RemoveEndpoint
    | ReplaceEndpoints
    | HealthCommand
    | NodeCommand
    | IdentityCommand
    | PolicyCommand
    | PeerCommand
    | OperationCommand
)


@dataclass(frozen=True, slots=True)
class Submission:
    """Commands that are decided together and committed in one record, or not at all.

    actor: who asks. cause: the caller's idempotency key, '' for none. expect_seq: the last seq of
    the log that the caller decided on; None: whatever it is.
    """

    commands: tuple[Command, ...]
    actor: str
    cause: str = ""
    expect_seq: Seq | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a submission. first_seq..last_seq: its events in the local log; both are the
    log's current seq when it changed nothing. repeated: an earlier submission with the same
    idempotency key had done it.
    """

    first_seq: Seq
    last_seq: Seq
    events: int
    repeated: bool = False
