"""The global tables, derived from scratch.

For: saying in the plainest way what the tables are; what the tests hold `tables` against, and how
one looks at another perspective, another time or a what-if. Not for: following changes (`tables`).
Invariant: pure; the same states give the same tables and digests, whatever the order of anything.

Rules:
- A service is in the table of a perspective if that cluster itself marks it global.
- Its backends are the endpoints of the clusters that take part in it (`merge`). Endpoints of any
  other cluster wait for its definition and are no backends.
- Endpoints that are out stay in the table with their reason (`eligibility`).
- A table's digest covers the services that the perspective offers to `mesh`: of the others those
  who read that log know nothing, and they must come to the same digest.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from meshd.core.backend import Overlay, backend_of, overlay_of, place, under
from meshd.core.digest import (
    DIGEST_ZERO,
    Digest,
    digest_hex,
    digest_of_backend,
    digest_of_definition,
    plus,
)
from meshd.core.liveness import ALL_IN_SIGHT, Sights
from meshd.core.merge import Definition, resolve, taking_part
from meshd.core.spill import Load, Part, Tier, in_tiers, shown_priority, tier_shares
from meshd.core.state import ClusterState
from meshd.core.terms import Infos, Terms, terms_of
from meshd.model.ids import ClusterName, LogId, ServiceKey
from meshd.model.keyspace import DEFAULT_AUDIENCE
from meshd.model.service import Service
from meshd.model.table import Backend, GlobalService, TierShare

States = Mapping[ClusterName, ClusterState]
LogIds = Mapping[ClusterName, LogId]


@dataclass(frozen=True, slots=True)
class _Derived:
    """One service before anybody looks at who is in sight."""

    own: Service
    definition: Definition
    terms: Mapping[ClusterName, Terms]
    backends: tuple[Backend, ...]


@dataclass(frozen=True, slots=True)
class DerivedTable:
    """A table with its digests. digest: over the services in it that are offered to the mesh."""

    services: Mapping[ServiceKey, GlobalService]
    digests: Mapping[ServiceKey, str]
    digest: str


def derive(
    perspective: ClusterName,
    states: States,
    log_ids: LogIds,
    sights: Sights = ALL_IN_SIGHT,
    keys: Collection[ServiceKey] | None = None,
) -> dict[ServiceKey, GlobalService]:
    """The table of one cluster, or of it these services."""
    found = _derived(perspective, states, log_ids, keys)
    return {key: _seen(key, derived, perspective, sights) for key, derived in found}


def derive_with_digests(
    perspective: ClusterName,
    states: States,
    log_ids: LogIds,
    keys: Collection[ServiceKey] | None = None,
) -> DerivedTable:
    """The same with all clusters in sight, and the digests of it, derived once for all."""
    services, digests, total = {}, {}, DIGEST_ZERO
    for key, derived in _derived(perspective, states, log_ids, keys):
        digest = _digest_of(key, derived)
        services[key] = _seen(key, derived, perspective, ALL_IN_SIGHT)
        digests[key] = digest_hex(digest)
        if derived.own.is_offered_to(DEFAULT_AUDIENCE):
            total = plus(total, digest)
    return DerivedTable(services, digests, digest_hex(total))


def digests_of_services(
    perspective: ClusterName, states: States, log_ids: LogIds
) -> dict[ServiceKey, str]:
    """The digest of each service in the table of one cluster."""
    found = _derived(perspective, states, log_ids)
    return {key: digest_hex(_digest_of(key, derived)) for key, derived in found}


def digest_of_table(
    perspective: ClusterName, states: States, log_ids: LogIds, audience: str = DEFAULT_AUDIENCE
) -> str:
    """The digest of what a cluster's table holds of the services that it offers to an audience."""
    total = DIGEST_ZERO
    for key, derived in _derived(perspective, states, log_ids):
        if derived.own.is_offered_to(audience):
            total = plus(total, _digest_of(key, derived))
    return digest_hex(total)


def _derived(
    perspective: ClusterName,
    states: States,
    log_ids: LogIds,
    keys: Collection[ServiceKey] | None = None,
) -> Iterator[tuple[ServiceKey, _Derived]]:
    """The services of a table by name, or of it these, each made when it is asked for."""
    own = states.get(perspective, ClusterState())
    infos = {
        name: None if state.info is None else state.info.value for name, state in states.items()
    }
    for key in sorted(own.services if keys is None else own.services.keys() & set(keys)):
        if own.services[key].value.is_global:
            yield key, _derive(key, perspective, states, log_ids, infos)


def _derive(
    key: ServiceKey, perspective: ClusterName, states: States, log_ids: LogIds, infos: Infos
) -> _Derived:
    definitions = {}
    for cluster, state in states.items():
        service = taking_part(state.service(key), own=cluster == perspective)
        if service is not None:
            definitions[cluster] = service
    definition = resolve(perspective, definitions, states.keys())
    terms = {
        cluster: terms_of(perspective, cluster, definitions, infos)
        for cluster in definition.clusters
    }
    backends = tuple(
        backend_of((cluster, name), held, definition, terms[cluster], log_ids[cluster])
        for cluster in definition.clusters
        for name, held in states[cluster].endpoints_of(key).items()
    )
    return _Derived(definitions[perspective], definition, terms, backends)


def _seen(
    key: ServiceKey, derived: _Derived, perspective: ClusterName, sights: Sights
) -> GlobalService:
    said = derived.own.staleness
    overlays = {
        cluster: overlay_of(None if cluster == perspective else sights.get(cluster), said, terms)
        for cluster, terms in derived.terms.items()
    }
    loads: dict[tuple[ClusterName, int], Load] = {}
    for backend in derived.backends:
        loads.setdefault((backend.cluster, backend.priority), Load()).count(backend, 1)
    tiers = tier_shares(tiers_of(loads, derived.terms, overlays), derived.definition.spill)
    shown = (under(overlays[backend.cluster], backend) for backend in derived.backends)
    return whole(key, derived.definition, tiers, shown)


def tiers_of(
    loads: Mapping[tuple[ClusterName, int], Load],
    terms: Mapping[ClusterName, Terms],
    overlays: Mapping[ClusterName, Overlay],
) -> tuple[Tier, ...]:
    """The tiers of a service, from its loads by cluster and priority as their clusters are seen."""
    return in_tiers(
        Part(
            cluster,
            shown_priority(priority, *overlays[cluster]),
            overlays[cluster].standing,
            terms[cluster].factor,
            terms[cluster].percent,
            load,
        )
        for (cluster, priority), load in loads.items()
    )


def whole(
    key: ServiceKey,
    definition: Definition,
    tiers: tuple[TierShare, ...],
    backends: Iterable[Backend],
) -> GlobalService:
    """The service of a definition, with its tiers and backends as they are shown."""
    return GlobalService(
        key=key,
        ports=definition.ports,
        headless=definition.headless,
        session_affinity=definition.session_affinity,
        session_timeout_s=definition.session_timeout_s,
        affinity=definition.affinity,
        spill=definition.spill,
        exposure=definition.exposure,
        labels=definition.labels,
        clusters=definition.clusters,
        conditions=definition.conditions,
        tiers=tiers,
        backends=tuple(sorted(backends, key=place)),
    )


def _digest_of(key: ServiceKey, derived: _Derived) -> Digest:
    total = digest_of_definition(key, derived.definition)
    for backend in derived.backends:
        total = plus(total, digest_of_backend(key, backend))
    return total
