"""How one endpoint becomes one backend.

For: building it, its place among the others, and the overlay of its cluster's standing. Not for:
which endpoints belong to a service (`derive`, `tables`). Invariant: a backend is a function of its
own endpoint, the service's definition and its cluster's standing, and of no other backend.

The standing is an overlay because it is what one cluster thinks of another, not what a log says:
digests are taken without it, so that the same vector gives the same digest anywhere.
"""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from meshd.core.eligibility import reason_out
from meshd.core.merge import Definition
from meshd.core.state import Held
from meshd.core.tiers import DEMOTION
from meshd.model.endpoint import Endpoint
from meshd.model.ids import ClusterName, LogId
from meshd.model.table import Backend, BackendKey, Origin, Reason, Standing


def backend_of(
    key: BackendKey, held: Held[Endpoint], definition: Definition, priority: int, log_id: LogId
) -> Backend:
    """Make a backend of an endpoint, without the overlay of its cluster's standing."""
    endpoint = held.value
    return Backend(
        cluster=key[0],
        name=key[1],
        address=endpoint.address,
        ports=endpoint.ports or definition.ports,
        priority=priority,
        weight=endpoint.weight,
        zone=endpoint.zone,
        node=endpoint.node,
        reason=reason_out(endpoint),
        origin=Origin(log_id, held.seq, held.time_ms, held.actor),
    )


def under(standing: Standing, backend: Backend) -> Backend:
    """The backend as its cluster's standing shows it.

    A withdrawn cluster's endpoints are out for that reason alone: what it last said of them is old.
    """
    match standing:
        case Standing.FRESH:
            return backend
        case Standing.DEMOTED:
            return replace(backend, priority=backend.priority + DEMOTION)
        case Standing.WITHDRAWN:
            return replace(backend, reason=Reason.WITHDRAWN)
        case _:
            assert_never(standing)


def place(backend: Backend) -> tuple[int, ClusterName, str]:
    """What backends are sorted by."""
    return backend.priority, backend.cluster, backend.name
