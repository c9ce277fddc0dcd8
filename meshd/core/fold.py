"""What an event does to the state of its cluster.

For: the one meaning of every event type. Not for: whether a record continues the log (`position`)
or what the change does to the tables (`derive`). Invariants: folding an event twice equals folding
it once, but for the count of unknown types; an event that can't be folded raises CorruptError
before anything is changed; an unknown type changes nothing but its counter.

Rules:
- `*.set` replaces the whole value. `service.removed` takes the service's endpoints with it.
- An endpoint may come before its service: order between keys carries no meaning.
- `cluster.set` must name the cluster that the log belongs to (design, 6, rule 6).
- `peer.removed` takes along what was passed over of that peer's log.
- A record that a person said to pass over moves the state on and says nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from meshd.core.sources import move
from meshd.core.state import CARRIED_MAX, CAUSES_MAX, UNKNOWN_TYPES_MAX, ClusterState, Held, T
from meshd.model.cluster import ClusterInfo
from meshd.model.command import Outcome
from meshd.model.endpoint import Endpoint
from meshd.model.errors import CorruptError, RejectedError
from meshd.model.event import Event, EventType, Record
from meshd.model.identity import Identity, parse_identity
from meshd.model.ids import (
    ClusterName,
    EndpointKey,
    PolicyKey,
    Seq,
    ServiceKey,
    parse_cluster_name,
)
from meshd.model.listed import ListedPeer, Skip
from meshd.model.node import Node, parse_node_name
from meshd.model.operation import Operation, parse_operation_name
from meshd.model.policy import Policy
from meshd.model.schema import from_data
from meshd.model.service import Service
from meshd.model.snapshot import Kept


@dataclass(frozen=True, slots=True)
class ServiceChange:
    """A service's definition came, changed or went; with `removed` its endpoints went too."""

    key: ServiceKey
    removed: bool = False


@dataclass(frozen=True, slots=True)
class EndpointChange:
    """An endpoint came, changed or went."""

    key: EndpointKey


@dataclass(frozen=True, slots=True)
class InfoChange:
    """What the cluster says of itself changed."""


@dataclass(frozen=True, slots=True)
class NodeChange:
    """What the cluster says of a node came, changed or went."""

    name: str


@dataclass(frozen=True, slots=True)
class IdentityChange:
    """An identity came, changed or went."""

    number: int


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """A policy came, changed or went."""

    key: PolicyKey


@dataclass(frozen=True, slots=True)
class PeerChange:
    """How the log's own cluster follows a peer changed."""

    name: ClusterName


@dataclass(frozen=True, slots=True)
class SkipChange:
    """What it passes over of a peer's log changed."""

    name: ClusterName


@dataclass(frozen=True, slots=True)
class OperationChange:
    """How an operation of the log's own cluster stands."""

    name: str


Change = (
    ServiceChange
    | EndpointChange
    | InfoChange
    | NodeChange
    | IdentityChange
    | PolicyChange
    | PeerChange
    | SkipChange
    | OperationChange
)
Value = ClusterInfo | Service | Endpoint | Node | Identity | Policy | ListedPeer | Skip | Operation
Meaning = tuple[Change | None, Value | None]
"""What an event changes and to which value: None for a removal, twice None for an unknown type."""


def fold_record(state: ClusterState, record: Record, cluster: ClusterName) -> list[Change]:
    """Fold all events of a record; returns what changed, in order.

    Raises CorruptError naming the seq of the first event that can't be folded, and changes nothing
    then: a state stands where a record ends, so that a position says all of it.
    """
    meanings = [
        _read(event, Seq(record.first_seq + offset), cluster)
        for offset, event in enumerate(record.events)
    ]
    changes: list[Change] = []
    for offset, (event, meaning) in enumerate(zip(record.events, meanings, strict=True)):
        seq = Seq(record.first_seq + offset)
        changes.extend(_fold(state, event, meaning, _Stamp(seq, record.time_ms, event.actor)))
        if event.cause:
            _remember_cause(state, event.cause, seq)
    return changes


def pass_over(state: ClusterState, record: Record) -> None:
    """Move on behind a record without folding any of its events."""
    state.seq = state.ranges_seq = record.last_seq
    state.time_ms = max(state.time_ms, record.time_ms)


def fold_event(
    state: ClusterState, event: Event, seq: Seq, time_ms: int, cluster: ClusterName
) -> tuple[Change, ...]:
    """Fold one event; returns what changed. Raises CorruptError, and changes nothing then."""
    meaning = _read(event, seq, cluster)
    return _fold(state, event, meaning, _Stamp(seq, time_ms, event.actor))


def fold_kept(state: ClusterState, items: Sequence[Kept], cluster: ClusterName) -> None:
    """Fold a piece of a snapshot; raises CorruptError, and changes nothing then."""
    meanings = [_read(item.event, item.seq, cluster) for item in items]
    for item, meaning in zip(items, meanings, strict=True):
        _fold(state, item.event, meaning, _Stamp(item.seq, item.time_ms, item.event.actor))


def _read(event: Event, seq: Seq, cluster: ClusterName) -> Meaning:
    where = f"{cluster} seq {seq} {event.type} {event.key!r}"
    try:
        return _meaning_of(event, where, cluster)
    except RejectedError as error:
        raise CorruptError(where, str(error)) from error


def _meaning_of(event: Event, where: str, cluster: ClusterName) -> Meaning:
    kind = _KINDS.get(event.type)
    if kind is None:
        return None, None
    subject = kind.subject(event.key)
    if kind.read is None:
        return subject, None
    value = kind.read(event.data)
    if isinstance(value, ClusterInfo) and not event.key == cluster == value.name:
        raise CorruptError(where, f"the log of {cluster} speaks for {value.name}")
    return subject, value


@dataclass(frozen=True, slots=True)
class _Kind:
    """How a type of event is read. subject: its key, as what changes. read: its data, as the value
    that it sets; None: it removes.
    """

    subject: Callable[[str], Change]
    read: Callable[[object], Value] | None = None


def _sets(subject: Callable[[str], Change], value: type[T]) -> _Kind:
    return _Kind(subject, lambda data: from_data(value, data, "", "ignore"))


def _service(key: str) -> ServiceChange:
    return ServiceChange(ServiceKey.parse(key))


def _removed_service(key: str) -> ServiceChange:
    return ServiceChange(ServiceKey.parse(key), removed=True)


def _endpoint(key: str) -> EndpointChange:
    return EndpointChange(EndpointKey.parse(key))


def _node(key: str) -> NodeChange:
    return NodeChange(parse_node_name(key))


def _identity(key: str) -> IdentityChange:
    return IdentityChange(parse_identity(key))


def _policy(key: str) -> PolicyChange:
    return PolicyChange(PolicyKey.parse(key))


def _peer(key: str) -> PeerChange:
    return PeerChange(parse_cluster_name(key))


def _skip(key: str) -> SkipChange:
    return SkipChange(parse_cluster_name(key))


def _operation(key: str) -> OperationChange:
    return OperationChange(parse_operation_name(key))


_KINDS: Mapping[str, _Kind] = {
    EventType.CLUSTER_SET: _sets(lambda _: InfoChange(), ClusterInfo),
    EventType.SERVICE_SET: _sets(_service, Service),
    EventType.SERVICE_REMOVED: _Kind(_removed_service),
    EventType.ENDPOINT_SET: _sets(_endpoint, Endpoint),
    EventType.ENDPOINT_REMOVED: _Kind(_endpoint),
    EventType.NODE_SET: _sets(_node, Node),
    EventType.NODE_REMOVED: _Kind(_node),
    EventType.IDENTITY_SET: _sets(_identity, Identity),
    EventType.IDENTITY_REMOVED: _Kind(_identity),
    EventType.POLICY_SET: _sets(_policy, Policy),
    EventType.POLICY_REMOVED: _Kind(_policy),
    EventType.PEER_SET: _sets(_peer, ListedPeer),
    EventType.PEER_REMOVED: _Kind(_peer),
    EventType.SKIP_SET: _sets(_skip, Skip),
    EventType.SKIP_REMOVED: _Kind(_skip),
    EventType.OPERATION_SET: _sets(_operation, Operation),
    EventType.OPERATION_REMOVED: _Kind(_operation),
}
"""Every type of event that this version knows."""


@dataclass(frozen=True, slots=True)
class _Stamp:
    """The event that makes a value so."""

    seq: Seq
    time_ms: int
    actor: str

    def on(self, value: T) -> Held[T]:
        return Held(value, self.seq, self.time_ms, self.actor)


def _fold(state: ClusterState, event: Event, meaning: Meaning, stamp: _Stamp) -> tuple[Change, ...]:
    state.seq = stamp.seq
    state.time_ms = max(state.time_ms, stamp.time_ms)
    match meaning:
        case InfoChange(), ClusterInfo() as info:
            state.info = stamp.on(info)
            state.ranges_seq = stamp.seq
        case ServiceChange(key), Service() as service:
            state.services[key] = stamp.on(service)
        case ServiceChange(key), None:
            state.services.pop(key, None)
            state.endpoints.pop(key, None)
            state.sources.pop(key, None)
        case EndpointChange(key), Endpoint() as endpoint:
            _put_endpoint(state, key, stamp.on(endpoint))
        case EndpointChange(key), None:
            _drop_endpoint(state, key)
        case NodeChange(name), value:
            _fold_node(state, name, value if isinstance(value, Node) else None, stamp)
        case IdentityChange(number), value:
            _fold_identity(state, number, value if isinstance(value, Identity) else None, stamp)
        case PolicyChange(key), value:
            _fold_policy(state, key, value if isinstance(value, Policy) else None, stamp)
        case (PeerChange() | SkipChange() | OperationChange()) as change, value:
            _fold_of_own(state, change, value, stamp)
        case _:
            _carry(state, Kept(stamp.seq, stamp.time_ms, event))
            return ()
    changed, _ = meaning
    return (changed,) if changed is not None else ()


def _fold_node(state: ClusterState, name: str, node: Node | None, stamp: _Stamp) -> None:
    state.ranges_seq = stamp.seq
    if node is None:
        state.nodes.pop(name, None)
    else:
        state.nodes[name] = stamp.on(node)


def _fold_policy(state: ClusterState, key: PolicyKey, policy: Policy | None, stamp: _Stamp) -> None:
    if policy is None:
        state.policies.pop(key, None)
    else:
        state.policies[key] = stamp.on(policy)


def _fold_identity(
    state: ClusterState, number: int, identity: Identity | None, stamp: _Stamp
) -> None:
    before = state.identities.pop(number, None)
    if state.numbering is not None and before is not None:
        state.numbering.free(number, before.value.labels)
    if identity is not None:
        state.identities[number] = stamp.on(identity)
        if state.numbering is not None:
            state.numbering.take(number, identity.labels)


def _fold_of_own(
    state: ClusterState,
    change: PeerChange | SkipChange | OperationChange,
    value: Value | None,
    stamp: _Stamp,
) -> None:
    """What the log says to its own cluster alone."""
    if isinstance(change, OperationChange):
        state.turned = None
        state.operations.pop(change.name, None)
        if isinstance(value, Operation):
            state.operations[change.name] = stamp.on(value)
    elif isinstance(value, ListedPeer):
        state.peers[change.name] = stamp.on(value)
    elif isinstance(value, Skip):
        state.skips[change.name] = stamp.on(value)
    else:
        state.skips.pop(change.name, None)
        if isinstance(change, PeerChange):
            state.peers.pop(change.name, None)


def _put_endpoint(state: ClusterState, key: EndpointKey, held: Held[Endpoint]) -> None:
    endpoints = state.endpoints.setdefault(key.service, {})
    _note_source(state, key, endpoints.get(key.name), held)
    endpoints[key.name] = held


def _drop_endpoint(state: ClusterState, key: EndpointKey) -> None:
    endpoints = state.endpoints.get(key.service)
    if endpoints is not None:
        _note_source(state, key, endpoints.pop(key.name, None), None)
        if not endpoints:
            del state.endpoints[key.service]
            state.sources.pop(key.service, None)


def _note_source(
    state: ClusterState,
    key: EndpointKey,
    before: Held[Endpoint] | None,
    after: Held[Endpoint] | None,
) -> None:
    sources = state.sources.get(key.service)
    if sources is not None:
        was = None if before is None else before.value.source
        move(sources, key.name, was, None if after is None else after.value.source)


def _carry(state: ClusterState, kept: Kept) -> None:
    """Count by type and keep the last by key, but don't let a peer grow either without end."""
    kind = kept.event.type
    is_counted = kind in state.unknown or len(state.unknown) < UNKNOWN_TYPES_MAX
    state.unknown[kind if is_counted else "…"] += 1
    name = (kind, kept.event.key)
    if name in state.carried or len(state.carried) < CARRIED_MAX:
        state.carried[name] = kept
    else:
        state.is_whole = False


def _remember_cause(state: ClusterState, cause: str, seq: Seq) -> None:
    """An idempotency key stands for the contiguous run of events that carry it."""
    known = state.causes.get(cause)
    if known is None:
        state.causes[cause] = Outcome(seq, seq, 1)
    elif seq == known.last_seq + 1:
        state.causes[cause] = Outcome(known.first_seq, seq, known.events + 1)
    if len(state.causes) > CAUSES_MAX:
        del state.causes[next(iter(state.causes))]
