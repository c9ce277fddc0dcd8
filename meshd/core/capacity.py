"""Who could take the load of what is turned away.

For: what a service has left if something of the own cluster takes no traffic any more. Not for:
turning it (`operating`) nor when (`operations`). Invariant: pure; only endpoints that are in now
are counted on, and of clusters whose links are fresh only.

Measured by endpoint weight, since that says how much an endpoint can bear; how far things are
turned up says how much they shall.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from meshd.core.state import ClusterState
from meshd.core.tiers import DEMOTION
from meshd.model.errors import Problem
from meshd.model.ids import ClusterName, EndpointKey, ServiceKey
from meshd.model.operation import Subject, SubjectKind
from meshd.model.table import Backend, GlobalService


def concerned(state: ClusterState, subjects: Collection[Subject]) -> list[ServiceKey]:
    """The services of a cluster of which something is turned, sorted."""
    if Subject(SubjectKind.CLUSTER) in subjects:
        return sorted(state.services)
    found: set[ServiceKey] = set()
    nodes: set[str] = set()
    for subject in subjects:
        match subject.kind:
            case SubjectKind.SERVICE:
                found.add(ServiceKey.parse(subject.key))
            case SubjectKind.ENDPOINT:
                found.add(EndpointKey.parse(subject.key).service)
            case _:
                nodes.add(subject.key)
    for key, endpoints in state.endpoints.items():
        if nodes and any(held.value.node in nodes for held in endpoints.values()):
            found.add(key)
    return sorted(found & state.services.keys())


@dataclass(frozen=True, slots=True)
class Capacity:
    """Of one service. now: of all that is healthy. left: of what stays and takes traffic."""

    service: ServiceKey
    now: int
    left: int

    @property
    def left_percent(self) -> float:
        """How much of what is healthy is left; 100 where nothing is healthy anyway."""
        return 100 * self.left / self.now if self.now else 100.0


def capacity(service: GlobalService, own: ClusterName, subjects: Collection[Subject]) -> Capacity:
    """What a service has, and what it has left without these things of the own cluster."""
    now = left = 0
    for backend in service.backends:
        if backend.reason is None and backend.priority < DEMOTION:
            now += backend.endpoint_weight
            if backend.cluster != own or not leaving(service.key, backend, subjects):
                left += backend.endpoint_weight
    return Capacity(service.key, now, left)


def leaving(service: ServiceKey, backend: Backend, subjects: Collection[Subject]) -> bool:
    """Whether one of the things is this backend of the own cluster, or has it in it."""
    names = (
        Subject(SubjectKind.CLUSTER),
        Subject(SubjectKind.SERVICE, str(service)),
        Subject(SubjectKind.ENDPOINT, str(EndpointKey(service, backend.name))),
        Subject(SubjectKind.NODE, backend.node),
    )
    return any(name in subjects for name in names)


def too_little(
    services: Iterable[GlobalService],
    own: ClusterName,
    subjects: Collection[Subject],
    floor_percent: int,
) -> Iterator[Problem]:
    """The services that would be left with too little, or with nothing at all."""
    for service in services:
        found = capacity(service, own, subjects)
        if found.left == found.now:
            continue
        if not found.left:
            what = "nobody else could take its traffic"
        elif found.left_percent < floor_percent:
            what = (
                f"{found.left_percent:.0f} % of what is healthy would be left;"
                f" the floor is {floor_percent} %"
            )
        else:
            continue
        remedy = "bring up or mend endpoints of it elsewhere, lower the floor, or force it"
        yield Problem(f"service {service.key}", what, remedy)
