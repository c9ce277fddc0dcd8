"""What of a cluster's state an audience may know.

For: which export logs a cluster writes, what is left out of everything that is exported, and the
state as an audience has it. Not for: the events that bring it there (`export`), nor who reads which
log (`readers`). Invariants: `as_seen_by` is what the audience's export log folds into; no value in
it names an audience, since already a name may say something (design, I17).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TypeVar

from meshd.core.state import ClusterState, Held
from meshd.model.cluster import ClusterInfo
from meshd.model.command import IntroduceCluster, SetCluster, Submission
from meshd.model.errors import Problem, RejectedError
from meshd.model.identity import Identity
from meshd.model.ids import ServiceKey
from meshd.model.keyspace import DEFAULT_AUDIENCE
from meshd.model.node import Node
from meshd.model.policy import Policy
from meshd.model.service import Service

EXPORT_LOGS_MAX = 64
"""Each is named in the local head, which holds 64 KiB, and beats in one transaction with all
others, which holds 128 operations.
"""
NOBODY_NAMED = (DEFAULT_AUDIENCE,)
"""What `audiences` of everything exported says: its default, which `to_data` leaves out."""


def written(info: ClusterInfo | None) -> frozenset[str]:
    """The audiences whose export logs a cluster writes."""
    return frozenset((DEFAULT_AUDIENCE, *(info.audiences if info is not None else ())))


def check_export_logs(exports: Collection[str], submission: Submission) -> None:
    """Raise RejectedError if a submission would begin more export logs than there may be.

    exports: the audiences that have one; a log stays where nothing is written to it any more.
    """
    logs = set(exports)
    for command in submission.commands:
        if isinstance(command, SetCluster | IntroduceCluster):
            logs |= written(command.info)
    if len(logs) > EXPORT_LOGS_MAX and logs > set(exports):
        raise RejectedError(
            (
                Problem(
                    "cluster.audiences",
                    f"with those that were written once there would be {len(logs)} export logs;"
                    f" at most {EXPORT_LOGS_MAX}",
                    "use a name again that was an audience before",
                ),
            )
        )


def unknown_audience(where: str, audience: str) -> Problem:
    """Why nothing can be offered to an audience that isn't written."""
    return Problem(
        f"{where} audiences",
        f"this cluster has no audience {audience!r}",
        f"add it to cluster.audiences in the settings of its meshds, or take it out of {where}",
    )


def told_info(info: ClusterInfo) -> ClusterInfo:
    """What a cluster says of itself, as others are told it."""
    return replace(info, audiences=()) if info.audiences else info


def told_service(service: Service) -> Service:
    """A service's definition, as others are told it."""
    service = replace(service, probe=None) if service.probe is not None else service
    if service.export.audiences == NOBODY_NAMED:
        return service
    return replace(service, export=replace(service.export, audiences=NOBODY_NAMED))


K = TypeVar("K")
V = TypeVar("V", Node, Identity, Policy)


def told_thing(value: V) -> V:
    """A node, an identity or a policy, as others are told it."""
    return value if value.audiences == NOBODY_NAMED else replace(value, audiences=NOBODY_NAMED)


def unwritten(state: ClusterState) -> dict[str, list[ServiceKey]]:
    """The services that name audiences which aren't written, by audience. They are offered to
    fewer than they say; where the audience is written again, to it as well.
    """
    audiences = written(state.info.value if state.info is not None else None)
    named: dict[str, list[ServiceKey]] = {}
    for key, held in state.services.items():
        for audience in held.value.export.audiences:
            if audience not in audiences:
                named.setdefault(audience, []).append(key)
    return named


def as_told_to(state: ClusterState, audience: str) -> ClusterState:
    """The local state of a cluster that offers to an audience what its export log says, and
    nothing to anybody else: the other way round, where nothing but that log is left.
    """
    info = state.info
    audiences = () if audience == DEFAULT_AUDIENCE else (audience,)
    return replace(
        state,
        info=replace(info, value=replace(info.value, audiences=audiences)) if info else None,
        services={
            key: replace(
                held,
                value=replace(held.value, export=replace(held.value.export, audiences=(audience,))),
            )
            for key, held in state.services.items()
        },
        nodes=_for_audience(state.nodes, audience),
        identities=_for_audience(state.identities, audience),
        policies=_for_audience(state.policies, audience),
    )


def _for_audience(things: Mapping[K, Held[V]], audience: str) -> dict[K, Held[V]]:
    return {
        key: replace(held, value=replace(held.value, audiences=(audience,)))
        for key, held in things.items()
    }


def _seen(things: Mapping[K, Held[V]], audience: str) -> dict[K, Held[V]]:
    return {
        key: replace(held, value=told_thing(held.value))
        for key, held in things.items()
        if audience in held.value.audiences
    }


def as_seen_by(state: ClusterState, audience: str) -> ClusterState:
    """The part of a local state that an audience has. Seqs and times are those of the local log.

    Endpoints of services that the audience doesn't have are in it, and are nobody's backends.
    """
    info = state.info
    is_written = audience in written(info.value if info is not None else None)
    services = {
        key: replace(held, value=told_service(held.value))
        for key, held in state.services.items()
        if is_written and held.value.is_offered_to(audience)
    }
    return ClusterState(
        seq=state.seq,
        time_ms=state.time_ms,
        info=replace(info, value=told_info(info.value)) if info is not None else None,
        services=services,
        endpoints=state.endpoints,
        nodes=_seen(state.nodes, audience) if is_written else {},
        identities=_seen(state.identities, audience) if is_written else {},
        policies=_seen(state.policies, audience) if is_written else {},
    )
