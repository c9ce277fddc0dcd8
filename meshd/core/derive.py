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

from collections.abc import Mapping

from meshd.core.backend import backend_of, place, under
from meshd.core.digest import (
    DIGEST_ZERO,
    Digest,
    digest_hex,
    digest_of_backend,
    digest_of_definition,
    plus,
)
from meshd.core.merge import Definition, resolve, taking_part
from meshd.core.state import ClusterState
from meshd.core.tiers import tier
from meshd.model.ids import ClusterName, LogId, ServiceKey
from meshd.model.keyspace import DEFAULT_AUDIENCE
from meshd.model.service import Service
from meshd.model.table import Backend, GlobalService, Standing

States = Mapping[ClusterName, ClusterState]
LogIds = Mapping[ClusterName, LogId]
Standings = Mapping[ClusterName, Standing]

ALL_FRESH: Standings = {}


def derive(
    perspective: ClusterName, states: States, log_ids: LogIds, standings: Standings = ALL_FRESH
) -> dict[ServiceKey, GlobalService]:
    """The table of one cluster. A cluster without a standing is fresh; the own one always is."""
    table = {}
    for key in _served_keys(perspective, states):
        definition = resolve(perspective, _definitions(key, perspective, states))
        backends = [
            under(_standing_of(backend.cluster, perspective, standings), backend)
            for backend in _backends(key, definition, perspective, states, log_ids)
        ]
        table[key] = GlobalService(
            key=key,
            ports=definition.ports,
            affinity=definition.affinity,
            clusters=definition.clusters,
            conditions=definition.conditions,
            backends=tuple(sorted(backends, key=place)),
        )
    return table


def digests_of_services(
    perspective: ClusterName, states: States, log_ids: LogIds
) -> dict[ServiceKey, str]:
    """The digest of each service in the table of one cluster."""
    return {
        key: digest_hex(_digest_of_service(key, perspective, states, log_ids))
        for key in _served_keys(perspective, states)
    }


def digest_of_table(perspective: ClusterName, states: States, log_ids: LogIds) -> str:
    """The digest of what a cluster's table holds of the services that this cluster offers."""
    total = DIGEST_ZERO
    for key in _served_keys(perspective, states):
        if states[perspective].services[key].value.is_offered_to(DEFAULT_AUDIENCE):
            total = plus(total, _digest_of_service(key, perspective, states, log_ids))
    return digest_hex(total)


def _served_keys(perspective: ClusterName, states: States) -> list[ServiceKey]:
    own = states.get(perspective, ClusterState())
    return sorted(key for key, held in own.services.items() if held.value.is_global)


def _definitions(
    key: ServiceKey, perspective: ClusterName, states: States
) -> dict[ClusterName, Service]:
    definitions = {}
    for cluster, state in states.items():
        service = taking_part(state.service(key), own=cluster == perspective)
        if service is not None:
            definitions[cluster] = service
    return definitions


def _backends(
    key: ServiceKey,
    definition: Definition,
    perspective: ClusterName,
    states: States,
    log_ids: LogIds,
) -> list[Backend]:
    return [
        backend_of(
            (cluster, name),
            held,
            definition,
            tier(definition.affinity, own=cluster == perspective),
            log_ids[cluster],
        )
        for cluster in definition.clusters
        for name, held in states[cluster].endpoints_of(key).items()
    ]


def _standing_of(cluster: ClusterName, perspective: ClusterName, standings: Standings) -> Standing:
    return Standing.FRESH if cluster == perspective else standings.get(cluster, Standing.FRESH)


def _digest_of_service(
    key: ServiceKey, perspective: ClusterName, states: States, log_ids: LogIds
) -> Digest:
    definition = resolve(perspective, _definitions(key, perspective, states))
    total = digest_of_definition(key, definition)
    for backend in _backends(key, definition, perspective, states, log_ids):
        total = plus(total, digest_of_backend(key, backend))
    return total
