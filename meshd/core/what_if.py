"""What events would do to the tables, and to who may talk to whom, without their being in any log.

For: which services they can touch, the state that they would make, and what is different then from
one cluster's perspective, piece by piece. Not for: deciding commands (`decide`) nor copying what is
served (`excerpt`). Invariants: pure; the state before is only read; what is left out of `touched`
is the same before and after in every perspective.

Another cluster's perspective needs no rule of its own: `derive` takes from this cluster only what
it offers, which is what the other one reads.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from meshd.core.derive import LogIds, States, derive
from meshd.core.excerpt import excerpt
from meshd.core.fold import fold_event
from meshd.core.liveness import Sights
from meshd.core.policies import Policies, policies_of
from meshd.core.selections import IdentityKey
from meshd.core.state import ClusterState
from meshd.core.table_diff import DiffKind, ServiceDiff, diff_tables
from meshd.model.event import Event, EventType
from meshd.model.ids import ClusterName, EndpointKey, Seq, ServiceKey
from meshd.model.table import GlobalService

PIECE_ENDPOINTS = 2000
"""How many endpoints are derived at a time: some 150 ms of work, after which it can be ended."""


@dataclass(frozen=True, slots=True)
class ServiceEffect:
    """What becomes of one service. eligible_before, eligible_after: how many of its backends are
    in; None where it isn't served. omitted: how many more backends differ than the diff names.
    """

    diff: ServiceDiff
    eligible_before: int | None
    eligible_after: int | None
    omitted: int = 0

    @property
    def is_emptied(self) -> bool:
        """Whether it would be served without any backend that is in."""
        return self.diff.kind is not DiffKind.REMOVED and self.eligible_after == 0

    def shortened(self, backends_max: int) -> ServiceEffect:
        """The same with so many backends by name, the others only counted."""
        named = self.diff.backends[:backends_max]
        omitted = self.omitted + len(self.diff.backends) - len(named)
        return replace(self, diff=replace(self.diff, backends=named), omitted=omitted)


@dataclass(frozen=True, slots=True)
class Effect:
    """What becomes of one cluster's table: the services that differ, sorted."""

    perspective: ClusterName
    services: tuple[ServiceEffect, ...]


@dataclass(frozen=True, slots=True)
class Mesh:
    """All states of one moment, before or after."""

    states: States
    log_ids: LogIds


def touched(events: Iterable[Event], state: ClusterState) -> frozenset[ServiceKey]:
    """The services that events of a cluster can change in any table. state: the cluster's own,
    before them.

    What isn't about one service may be about all that the cluster defines: its terms follow from
    what it says of itself. Whom it follows, its nodes,
    its identities and its policies change no table by themselves.
    """
    keys: set[ServiceKey] = set()
    for event in events:
        match event.type:
            case EventType.ENDPOINT_SET | EventType.ENDPOINT_REMOVED:
                keys.add(EndpointKey.parse(event.key).service)
            case EventType.SERVICE_SET | EventType.SERVICE_REMOVED:
                keys.add(ServiceKey.parse(event.key))
            case (
                EventType.PEER_SET
                | EventType.PEER_REMOVED
                | EventType.SKIP_SET
                | EventType.SKIP_REMOVED
                | EventType.NODE_SET
                | EventType.NODE_REMOVED
                | EventType.IDENTITY_SET
                | EventType.IDENTITY_REMOVED
                | EventType.OPERATION_SET
                | EventType.OPERATION_REMOVED
                | EventType.POLICY_SET
                | EventType.POLICY_REMOVED
            ):
                continue
            case _:
                keys.update(state.services)
    return frozenset(keys)


def folded(
    state: ClusterState, events: Iterable[Event], cluster: ClusterName, time_ms: int
) -> ClusterState:
    """A cluster's state as it would be after more events, which must be decided on this one."""
    after = excerpt(state)
    for event in events:
        fold_event(after, event, Seq(after.seq + 1), time_ms, cluster)
    return after


@dataclass(frozen=True, slots=True)
class ReachBeside:
    """All policies before and after, and the identities that are concerned: those that come, go or
    change, and those for which changed policies decide.
    """

    before: Policies
    after: Policies
    affected: frozenset[IdentityKey]


def changes_reach(events: Iterable[Event]) -> bool:
    """Whether events may change who may talk to whom."""
    return any(event.type.startswith(("cluster.", "identity.", "policy.")) for event in events)


def reach_beside(
    states: States, cluster: ClusterName, events: Iterable[Event], time_ms: int
) -> ReachBeside:
    """What becomes of policies with more events of a cluster. states: nobody else's."""
    before, state = policies_of(states), excerpt(states[cluster], ())
    later = {**states, cluster: state}
    after = policies_of(later)
    changes = [
        change
        for event in events
        for change in fold_event(state, event, Seq(state.seq + 1), time_ms, cluster)
    ]
    delta = after.apply(cluster, changes, later)
    affected = set(delta.identities)
    for policies in (before, after):
        for policy in filter(None, map(policies.policy, delta.policies)):
            affected |= policy.subjects.members
    return ReachBeside(before, after, frozenset(affected))


def pieces(keys: Iterable[ServiceKey], mesh: Mesh) -> Iterator[tuple[ServiceKey, ...]]:
    """The services in order, in pieces of about PIECE_ENDPOINTS each."""
    piece: list[ServiceKey] = []
    endpoints = 0
    for key in sorted(keys):
        piece.append(key)
        endpoints += sum(len(state.endpoints_of(key)) for state in mesh.states.values())
        if endpoints >= PIECE_ENDPOINTS:
            yield tuple(piece)
            piece, endpoints = [], 0
    if piece:
        yield tuple(piece)


def effects_on(
    keys: Collection[ServiceKey],
    perspective: ClusterName,
    before: Mesh,
    after: Mesh,
    sights: Sights,
) -> tuple[ServiceEffect, ...]:
    """What becomes of these services in one cluster's table; those that stay as they are left out.

    sights: as this cluster sees the others now.
    """
    old = derive(perspective, before.states, before.log_ids, sights, keys)
    new = derive(perspective, after.states, after.log_ids, sights, keys)
    return tuple(
        ServiceEffect(diff, _eligible(old, diff.key), _eligible(new, diff.key))
        for diff in diff_tables(old, new)
    )


def _eligible(table: Mapping[ServiceKey, GlobalService], key: ServiceKey) -> int | None:
    service = table.get(key)
    return None if service is None else len(service.eligible)
