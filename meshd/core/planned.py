"""Plans of drains, ramps and migrations, read as the operations that they mean.

For: the rules of a plan itself. Not for: whether anybody can take over (`operations`, `capacity`),
nor running it. Invariant: whoever moves p percent turns the source down to 100 - p.
"""

from __future__ import annotations

from collections.abc import Iterator

from meshd.core.draft import Draft
from meshd.core.operating import level_of
from meshd.core.operations import ramp
from meshd.core.state import ClusterState
from meshd.model.errors import Problem, RejectedError
from meshd.model.forms import TURNED_UP
from meshd.model.ids import ClusterName, ServiceKey
from meshd.model.operation import (
    DrainPlan,
    MigrationPlan,
    Operation,
    OperationKind,
    Stage,
    Subject,
    SubjectKind,
)
from meshd.model.service import Service
from meshd.model.table import GlobalService


def migration_of(plan: MigrationPlan, own: ClusterName) -> Operation:
    """The operation that a plan means in the cluster that it moves services from; raises
    RejectedError with all that is contradictory in it.
    """
    problems = [*_problems(plan, own)]
    if problems:
        raise RejectedError(tuple(problems))
    return Operation(
        kind=OperationKind.MIGRATION,
        subjects=tuple(str(Subject(SubjectKind.SERVICE, name)) for name in plan.services),
        stages=tuple(
            Stage(turned_percent=100 - step.moved_percent, hold_s=step.hold_s)
            for step in plan.steps
        ),
        to=plan.to,
        floor_percent=plan.floor_percent,
        conditions=plan.conditions,
        on_trouble=plan.on_trouble,
        is_forced=plan.is_forced,
    )


def drain_of(plan: DrainPlan, draft: Draft) -> Operation:
    """The operation that a drain or an undrain means: even steps, from where the furthest of its
    subjects is.
    """
    is_down = plan.kind is OperationKind.DRAIN
    default = 0 if is_down else TURNED_UP
    to = plan.to_percent if plan.to_percent is not None else default
    levels = [level_of(draft, subject) for subject in plan.subjects]
    level = max(levels) if is_down else min(levels)
    return Operation(
        kind=plan.kind,
        subjects=plan.subjects,
        stages=ramp(level, to, plan.over_s, plan.steps),
        floor_percent=plan.floor_percent,
        on_trouble=plan.on_trouble,
        is_forced=plan.is_forced,
    )


def services_of(operation: Operation) -> tuple[ServiceKey, ...]:
    """The services that an operation names."""
    subjects = map(Subject.parse, operation.subjects)
    return tuple(ServiceKey.parse(one.key) for one in subjects if one.kind is SubjectKind.SERVICE)


def _problems(plan: MigrationPlan, own: ClusterName) -> Iterator[Problem]:
    if plan.from_cluster != own:
        what = f"is {plan.from_cluster}, but this is {own}"
        yield Problem("from", what, f"start it at a meshd of {plan.from_cluster}, which does it")
    if plan.to == plan.from_cluster:
        yield Problem("to", "is where the services are moved from", "name another cluster")
    moved = [step.moved_percent for step in plan.steps]
    if moved != sorted(set(moved)):
        yield Problem("steps", "each must move more than the one before", "put them in order")
    for number, name in enumerate(plan.services):
        try:
            ServiceKey.parse(name)
        except RejectedError as error:
            yield Problem(f"services[{number}]", error.problems[0].what, error.problems[0].remedy)


def turned_up(state: ClusterState, key: ServiceKey) -> int:
    """How far a cluster has turned a service up, itself and by that."""
    service, info = state.service(key), state.info
    theirs = service.turned_percent if service is not None else TURNED_UP
    return theirs * (info.value.turned_percent if info is not None else TURNED_UP) // TURNED_UP


def conflicts_of(
    key: ServiceKey, to: ClusterName, theirs: Service | None, view: GlobalService | None
) -> Iterator[Problem]:
    """What speaks against moving a service to a cluster, in the definitions. theirs: what the
    destination says of it. view: the service here; None if it isn't global here.
    """
    where = f"service {key}"
    if view is None:
        remedy = "mark it global here, or it is nobody else's"
        yield Problem(where, "is not a global service of this cluster", remedy)
    elif theirs is None or to not in view.clusters:
        remedy = f"define it in {to}, global and shared"
        yield Problem(where, f"{to} doesn't have it for this cluster", remedy)
