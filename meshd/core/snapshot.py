"""A state as a snapshot's parts, and parts as a state.

For: what a snapshot keeps of a log. Not for: the bytes (`model.snapshot`), when to make one
(`retention`) or where it lies (`runtime.shortening`). Invariants: loading a snapshot gives the
state that it was made of; the same state at the same place makes the same parts everywhere.

Rules:
- Kept is the last event of everything that exists, in the order of the log; what was removed is not
  there. Events of unknown types are kept too, the last of each type and key, removals included:
  a newer reader folds them to what the log itself would have told it.
- A state that couldn't carry all its unknown events makes no snapshot, since that would lose them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter
from typing import TypeVar

from meshd.core.fold import fold_kept
from meshd.core.state import CARRIED_MAX, ClusterState, Held
from meshd.model.cluster import ClusterInfo
from meshd.model.codec import event_bytes
from meshd.model.endpoint import Endpoint
from meshd.model.errors import CorruptError
from meshd.model.event import Event, EventType
from meshd.model.identity import Identity
from meshd.model.ids import ClusterName, EndpointKey, Head, RecordHash, Seq
from meshd.model.listed import ListedPeer, Skip
from meshd.model.node import Node
from meshd.model.operation import Operation
from meshd.model.policy import Policy
from meshd.model.schema import to_data
from meshd.model.service import Service
from meshd.model.snapshot import (
    MARKS_MAX,
    NO_MARK,
    PART_BYTES,
    Kept,
    Manifest,
    Mark,
    Part,
    encode_part,
)

KEPT_BYTES = 24
"""What a kept event takes beside itself: its seq, its time and two array heads."""
CAUSE_BYTES = 40
"""What an idempotency key takes beside its text: two seqs, a count and two heads."""

Item = TypeVar("Item")


def obstacle(state: ClusterState) -> str:
    """Why there can be no snapshot of a state; '' if there can."""
    if state.is_whole:
        return ""
    return (
        f"it holds more than {CARRIED_MAX} values of types that this meshd doesn't know,"
        f" {', '.join(sorted(state.unknown)[:3])} among them; upgrade it"
    )


def parts_of(state: ClusterState) -> Iterator[bytes]:
    """The parts of a state's snapshot, each made when it is asked for; the state must stand still.

    A hundred thousand endpoints are about 80 parts, and each takes milliseconds.
    """
    for kept in _grouped(kept_of(state), lambda item: event_bytes(item.event) + KEPT_BYTES):
        yield encode_part(kept)
    for causes in _grouped(state.causes.items(), lambda item: len(item[0].encode()) + CAUSE_BYTES):
        yield encode_part((), causes)


def manifest_of(
    state: ClusterState,
    at: Head,
    log_bytes: int,
    parts: Sequence[RecordHash],
    before: Manifest | None,
    kept: tuple[Seq, ...] = (),
) -> Manifest:
    """The manifest of a snapshot of a state that stands at `at`.

    log_bytes: of all records up to there. parts: their hashes. before: the log's last snapshot.
    kept: the snapshots before it that stay (`core.retention`); then it is cut at none but those.
    """
    marks = _marks(before) if before else ()
    return Manifest(
        head=at,
        time_ms=state.time_ms,
        log_bytes=log_bytes,
        items=sum(1 for _ in _held(state)) + len(state.carried),
        parts=tuple(parts),
        trim=before.trim if before else NO_MARK,
        previous_seq=before.head.seq if before else Seq(0),
        marks=tuple(mark for mark in marks if mark.seq in kept) if kept else _thinned(marks),
        kept=kept,
    )


def _marks(before: Manifest) -> tuple[Mark, ...]:
    """The places of the earlier snapshots that still lie within the log."""
    return tuple(mark for mark in (*before.marks, before.mark) if mark.seq > before.trim.seq)


def _thinned(marks: tuple[Mark, ...]) -> tuple[Mark, ...]:
    """Every other of them when there are too many; the last one always."""
    return marks if len(marks) <= MARKS_MAX else marks[(len(marks) - 1) % 2 :: 2]


def _grouped(items: Iterable[Item], size_of: Callable[[Item], int]) -> Iterator[list[Item]]:
    group: list[Item] = []
    size_bytes = 0
    for item in items:
        item_bytes = size_of(item)
        if group and size_bytes + item_bytes > PART_BYTES:
            yield group
            group, size_bytes = [], 0
        group.append(item)
        size_bytes += item_bytes
    if group:
        yield group


_Held = (
    Held[Service]
    | Held[Endpoint]
    | Held[ClusterInfo]
    | Held[Node]
    | Held[Identity]
    | Held[Policy]
    | Held[ListedPeer]
    | Held[Skip]
    | Held[Operation]
)


def kept_of(state: ClusterState) -> Iterator[Kept]:
    """The events that still say how something is, in the order of the log. The state may change as
    soon as this returned: the events are made of what it held.
    """
    found: list[tuple[int, tuple[EventType, str, _Held] | Kept]] = [
        (item[2].seq, item) for item in _held(state)
    ]
    found.extend((kept.seq, kept) for kept in state.carried.values())
    return _events_of(found)


def _events_of(found: list[tuple[int, tuple[EventType, str, _Held] | Kept]]) -> Iterator[Kept]:
    found.sort(key=itemgetter(0))
    for _, item in found:
        if isinstance(item, Kept):
            yield item
        else:
            kind, key, held = item
            event = Event(str(kind), key, to_data(held.value), held.actor)
            yield Kept(held.seq, held.time_ms, event)


def _held(state: ClusterState) -> Iterator[tuple[EventType, str, _Held]]:
    """All values of known types, in no particular order."""
    if state.info is not None:
        yield EventType.CLUSTER_SET, state.info.value.name, state.info
    for key, service in state.services.items():
        yield EventType.SERVICE_SET, str(key), service
    for key, endpoints in state.endpoints.items():
        for name, endpoint in endpoints.items():
            yield EventType.ENDPOINT_SET, str(EndpointKey(key, name)), endpoint
    for node_name, node in state.nodes.items():
        yield EventType.NODE_SET, node_name, node
    for number, identity in state.identities.items():
        yield EventType.IDENTITY_SET, str(number), identity
    for policy_key, policy in state.policies.items():
        yield EventType.POLICY_SET, str(policy_key), policy
    yield from _held_of_own(state)


def _held_of_own(state: ClusterState) -> Iterator[tuple[EventType, str, _Held]]:
    """What the log says to its own cluster alone."""
    for cluster, peer in state.peers.items():
        yield EventType.PEER_SET, cluster, peer
    for cluster, skip in state.skips.items():
        yield EventType.SKIP_SET, cluster, skip
    for operation_name, operation in state.operations.items():
        yield EventType.OPERATION_SET, operation_name, operation


def load_part(state: ClusterState, part: Part, cluster: ClusterName, manifest: Manifest) -> None:
    """Fold a part into a state; raises CorruptError, and changes nothing then."""
    for item in part.kept:
        if item.seq > manifest.head.seq:
            where = f"{cluster} snapshot at {manifest.head.seq}"
            raise CorruptError(where, f"keeps an event of seq {item.seq}")
    fold_kept(state, part.kept, cluster)
    state.causes.update(part.causes)


def finish_loading(state: ClusterState, manifest: Manifest) -> None:
    """All parts are in: the state stands where the snapshot does."""
    state.seq, state.time_ms = manifest.head.seq, manifest.time_ms
    # What was removed before is not in it, so the seq of the last that is doesn't say when it came
    # to this.
    state.ranges_seq = manifest.head.seq
