"""Who reads which of our export logs, by what the readers' heartbeats say.

For: how much of a log is still needed, and what another cluster sees of the mesh. Not for: reading
heartbeats (`runtime.follower`). Invariant: a reader that isn't known to be elsewhere may need all
of a log; what is guessed of another's view is named as unsure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from meshd.core.standpoint import as_seen_by
from meshd.core.state import ClusterState
from meshd.model.errors import RejectedError
from meshd.model.ids import ClusterName, Head, LogId, Seq, ServiceKey, Vector, parse_vector
from meshd.model.keyspace import DEFAULT_AUDIENCE

Exports = Mapping[str, Head]
"""Our export logs, by audience."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What one cluster sees of the mesh.

    audience: which of our logs it reads; None if it reads none. clusters: whose logs it reads, ours
    and its own among them. unsure: of whom it may read something else than we do.
    """

    audience: str | None
    clusters: frozenset[ClusterName]
    unsure: tuple[ClusterName, ...]


def vector_of(text: str | None) -> Vector | None:
    """The vector in a heartbeat; None if there is none that can be read."""
    try:
        return None if text is None else parse_vector(text)
    except RejectedError:
        return None


def needed_seq(
    vectors: Iterable[Vector | None], own: ClusterName, log_id: LogId, exports: Exports
) -> Seq | None:
    """Up to where all readers have one of our export logs; None if nobody reads it.

    A reader that wasn't heard yet may need all of it; so may one that tells of a log that isn't
    among ours. One that reads another of ours, or none, needs nothing.
    """
    others = {head.log_id for head in exports.values()} - {log_id}
    needed = []
    for vector in vectors:
        position = vector.get(own) if vector is not None else None
        if vector is None:
            needed.append(Seq(0))
        elif position is not None and position.log_id not in others:
            needed.append(position.seq if position.log_id == log_id else Seq(0))
    return min(needed, default=None)


def outlook_of(
    reader: ClusterName,
    vector: Vector | None,
    own: tuple[ClusterName, Exports],
    log_ids: Mapping[ClusterName, LogId],
) -> Outlook:
    """What a cluster sees. vector: its heartbeat's; None: it wasn't heard, so all is a guess.

    log_ids: what is read here. Of a third cluster it may read another audience's log than we do,
    which then says something else.
    """
    name, exports = own
    third = log_ids.keys() - {reader, name}
    if vector is None:
        everybody = frozenset({reader, name, *third})
        return Outlook(DEFAULT_AUDIENCE, everybody, tuple(sorted(everybody - {reader})))
    unsure = {
        cluster
        for cluster, position in vector.items()
        if cluster not in {reader, name} and log_ids.get(cluster) != position.log_id
    }
    audience: str | None = None
    position = vector.get(name)
    if position is not None:
        audience = audience_of(position.log_id, exports)
        if audience is None:
            audience = DEFAULT_AUDIENCE
            unsure.add(name)
    return Outlook(audience, frozenset({reader, *vector}), tuple(sorted(unsure)))


def audience_of(log_id: LogId, exports: Exports) -> str | None:
    """Whose export log this is; None if it is none of ours."""
    return next((name for name, head in exports.items() if head.log_id == log_id), None)


def states_in(
    outlook: Outlook, own: ClusterName, states: Mapping[ClusterName, ClusterState]
) -> dict[ClusterName, ClusterState]:
    """The states as a cluster of this outlook has them; ours without what it isn't offered."""
    seen = {
        name: state for name, state in states.items() if name in outlook.clusters and name != own
    }
    if outlook.audience is not None and own in states:
        seen[own] = as_seen_by(states[own], outlook.audience)
    return seen


def states_about(
    outlook: Outlook, own: ClusterName, states: Mapping[ClusterName, ClusterState], key: ServiceKey
) -> tuple[dict[ClusterName, ClusterState], frozenset[ClusterName]]:
    """The states for explaining one service to us, as a cluster of this outlook has it: with what
    we share with nobody, so that this can be said. And who offers it to another audience only.
    """
    seen = states_in(outlook, own, states)
    service = states[own].service(key) if own in seen else None
    if service is not None and not service.is_offered:
        seen[own] = states[own]
    is_unheard = service is not None and service.is_offered and own in seen
    is_unheard = is_unheard and seen[own].service(key) is None
    return seen, frozenset({own} if is_unheard else ())
