"""What an operation will do to the own cluster's tables, stage by stage.

For: saying, before it begins and while it runs, which cluster takes how much of a service at each
stage. Not for: doing it (`operating`). Invariant: a stage is foreseen by the very rules that make
it, on a copy of the states; so what is foreseen comes true unless something else changes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from meshd.core.decide import decide
from meshd.core.derive import LogIds, States, derive
from meshd.core.draft import Draft, OfState
from meshd.core.fold import fold_event
from meshd.core.liveness import Sights
from meshd.core.spill import share_of
from meshd.core.state import ClusterState
from meshd.model.command import Move, MoveOperation, StartOperation, Submission
from meshd.model.ids import ClusterName, Seq, ServiceKey
from meshd.model.operation import Operation
from meshd.model.table import GlobalService


@dataclass(frozen=True, slots=True)
class Foreseen:
    """One stage. shares: by service, the part of its traffic by cluster in PPM."""

    turned_percent: int
    shares: Mapping[ServiceKey, Mapping[ClusterName, int]]


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known. states: copies; of the own cluster the whole one, which is changed."""

    own: ClusterName
    states: States
    log_ids: LogIds
    sights: Sights


def foresee(
    seen: Seen, name: str, operation: Operation, keys: Collection[ServiceKey]
) -> Iterator[Foreseen]:
    """The stages of an operation that has not begun. keys: the services to tell of. Raises
    RejectedError if it can't begin.
    """
    own, state = seen.own, seen.states[seen.own]
    for number, stage in enumerate(operation.stages):
        command = MoveOperation(name, Move.ADVANCE) if number else StartOperation(name, operation)
        _do(state, command, own)
        table = derive(own, seen.states, seen.log_ids, seen.sights, keys)
        yield Foreseen(
            stage.turned_percent, {key: shares_of(service) for key, service in table.items()}
        )


def _do(state: ClusterState, command: StartOperation | MoveOperation, own: ClusterName) -> None:
    draft = Draft(OfState(state))
    decision = decide(draft, Submission((command,), "foreseen"), state.time_ms)
    for event in decision.events:
        fold_event(state, event, Seq(state.seq + 1), state.time_ms, own)


def shares_of(service: GlobalService) -> dict[ClusterName, int]:
    """How much of a service's traffic each cluster takes, in PPM; of those that take any."""
    tiers = {tier.priority: tier for tier in service.tiers}
    found: dict[ClusterName, float] = {}
    for backend in service.eligible:
        tier = tiers[backend.priority]
        if tier.share_ppm:
            found[backend.cluster] = found.get(backend.cluster, 0.0) + share_of(backend, tier)
    return {cluster: round(share) for cluster, share in sorted(found.items())}
