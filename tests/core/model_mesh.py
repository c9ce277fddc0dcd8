"""A mesh in a few words, and what one cluster's table makes of it.

For: cases that are read as documentation. A mesh is written as clusters with their services and
endpoints: `up(3)` are three that are ready, `down(2)` two that are not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from meshd.core.derive import derive, digest_of_table
from meshd.core.liveness import Sight, StalenessRules
from meshd.core.state import ClusterState, Held
from meshd.core.tables import Tables
from meshd.model.cluster import ClusterInfo
from meshd.model.endpoint import Endpoint
from meshd.model.ids import ClusterName, LogId, Seq, ServiceKey
from meshd.model.service import (
    Affinity,
    Port,
    Service,
    Tier,
)
from meshd.model.staleness import StalenessPolicy
from meshd.model.table import PPM, GlobalService

WEB = ServiceKey("shop", "web")
HTTP = Port(80, "http")
GLOBAL = Service(is_global=True, ports=(HTTP,))
LOCAL = replace(GLOBAL, affinity=Affinity.LOCAL)
RULES = StalenessRules(StalenessPolicy.DEMOTE, stale_after_s=30, withdraw_after_s=300)

Endpoints = tuple[Endpoint, ...]


def up(number: int = 1, *, zone: str = "", region: str = "", weight: int = 100) -> Endpoints:
    """Endpoints that are ready."""
    return (Endpoint(address="10.0.0.1", zone=zone, region=region, weight=weight),) * number


def down(number: int = 1) -> Endpoints:
    """Endpoints that are not ready."""
    return tuple(replace(one, ready=False) for one in up(number))


@dataclass(frozen=True)
class Cluster:
    """What one cluster's log says. info: fields of what it says of itself."""

    service: Service | None = GLOBAL
    endpoints: Endpoints = ()
    info: Mapping[str, object] = field(default_factory=dict)

    def state(self, name: ClusterName, number: int) -> ClusterState:
        state = ClusterState()
        info = ClusterInfo(name=name, id=number, **self.info)  # type: ignore[arg-type]
        state.info = Held(info, Seq(1), 0, "ann")
        if self.service is not None:
            state.services[WEB] = Held(self.service, Seq(2), 0, "ann")
        if self.endpoints:
            state.endpoints[WEB] = {
                f"{name}-{place}": Held(endpoint, Seq(2 + place), 0, "ann")
                for place, endpoint in enumerate(self.endpoints, 1)
            }
        return state


Mesh = Mapping[str, Cluster]


@dataclass(frozen=True, kw_only=True)
class Case:
    """sees: percent of the traffic by cluster, from the first cluster of the mesh (or `seen_from`);
    None: it isn't served there. out: reasons by endpoint. conditions: by cluster. unseen_s: which
    clusters are out of sight, for how long. far: which are far away, by step.
    """

    says: str
    mesh: Mesh
    sees: Mapping[str, float] | None
    seen_from: str = ""
    out: Mapping[str, str] = field(default_factory=dict)
    conditions: tuple[tuple[str, str], ...] = ()
    unseen_s: Mapping[str, float] = field(default_factory=dict)
    far: Mapping[str, int] = field(default_factory=dict)


def states_of(mesh: Mesh) -> dict[ClusterName, ClusterState]:
    """What the clusters' logs fold into."""
    return {
        ClusterName(name): cluster.state(ClusterName(name), number)
        for number, (name, cluster) in enumerate(mesh.items(), 1)
    }


def table_of(case: Case) -> GlobalService | None:
    """The service in the table, which must be the same from scratch and kept up to date."""
    own = ClusterName(case.seen_from or next(iter(case.mesh)))
    states = states_of(case.mesh)
    log_ids = {name: LogId("a" * 32) for name in states}
    sights = {
        name: Sight(RULES, case.unseen_s.get(name, 0.0), case.far.get(name, 0)) for name in states
    }
    service = derive(own, states, log_ids, sights).get(WEB)
    tables = Tables(own)
    for name, sight in sights.items():
        tables.set_sight(name, sight)
        known = {other: states[other] for other in names_up_to(name, states)}
        tables.replace(name, known, log_ids)
    assert tables.view(WEB) == service
    assert tables.digest == digest_of_table(own, states, log_ids)
    return service


def names_up_to(name: ClusterName, states: Mapping[ClusterName, ClusterState]) -> list[ClusterName]:
    """The clusters that are known once this one is: they come one after the other."""
    names = list(states)
    return names[: names.index(name) + 1]


def percent_by_cluster(service: GlobalService) -> dict[str, float]:
    """How much of the traffic each cluster gets, to a tenth of a percent."""
    shares = {tier.priority: (tier.share_ppm, tier.weight) for tier in service.tiers}
    assert sum(share for share, _ in shares.values()) in {0, PPM}
    found: dict[str, float] = {}
    for backend in service.eligible:
        share, weight = shares[backend.priority]
        found[backend.cluster] = found.get(backend.cluster, 0) + share * backend.weight / weight
    return {name: round(ppm / (PPM / 100), 1) for name, ppm in found.items() if round(ppm)}


def check(case: Case) -> None:
    service = table_of(case)
    if service is None or case.sees is None:
        assert (None if service is None else percent_by_cluster(service)) == case.sees
        return
    assert percent_by_cluster(service) == case.sees
    reasons = {one.name: str(one.reason) for one in service.backends if one.reason is not None}
    assert reasons == case.out
    assert tuple((one.type, one.cluster) for one in service.conditions) == case.conditions


def tiers(*groups: str, affinity: Affinity = Affinity.NONE) -> Service:
    """An explicit order: each group is one tier, clusters separated by blanks."""
    return replace(
        GLOBAL,
        affinity=affinity,
        tiers=tuple(Tier(clusters=tuple(group.split())) for group in groups),
    )
