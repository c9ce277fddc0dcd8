"""How one endpoint becomes one backend.

For: building it, its place among the others, and the overlay of how its cluster is seen. Not for:
which endpoints belong to a service (`derive`, `tables`). Invariant: a backend is a function of its
own endpoint, the service's definition, its cluster's terms and how that cluster is seen, and of no
other backend.

How a cluster is seen is an overlay because it is what one cluster thinks of another, not what a log
says: digests are taken without it, so that the same vector gives the same digest anywhere.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from meshd.core.eligibility import reason_out
from meshd.core.liveness import Sight
from meshd.core.merge import Definition
from meshd.core.spill import shown_priority
from meshd.core.state import Held
from meshd.core.terms import Terms
from meshd.core.tiers import PLACE_STEP, RANK_STEP, place_of
from meshd.model.endpoint import Endpoint
from meshd.model.ids import ClusterName, LogId
from meshd.model.service import Port
from meshd.model.staleness import Staleness
from meshd.model.table import Backend, BackendKey, Reason, Standing


def backend_of(
    key: BackendKey, held: Held[Endpoint], definition: Definition, terms: Terms, log_id: LogId
) -> Backend:
    """Make a backend of an endpoint, without the overlay of how its cluster is seen."""
    endpoint = held.value
    region, zone = endpoint.region or terms.there[0], endpoint.zone or terms.there[1]
    place = place_of(terms.here, (region, zone)) if terms.by_place else 0
    listens = endpoint.ports or terms.ports
    ports = _matching(listens, definition)
    return Backend(
        cluster=key[0],
        name=key[1],
        address=endpoint.address,
        ports=ports or listens,
        priority=terms.rank * RANK_STEP + place * PLACE_STEP,
        endpoint_weight=endpoint.weight,
        weight=endpoint.weight * endpoint.turned_percent * terms.factor,
        region=region,
        zone=zone,
        node=endpoint.node,
        serving=endpoint.ready if endpoint.serving is None else endpoint.serving,
        reason=reason_out(endpoint, terms, has_port=bool(ports) or not definition.port_keys),
        origin=held.origin(log_id),
    )


def _matching(listens: tuple[Port, ...], definition: Definition) -> tuple[Port, ...]:
    """Those of an endpoint's ports that the service has, by name and protocol."""
    keys = definition.port_keys
    for port in listens:
        if (port.name, port.protocol) not in keys:
            break
    else:
        return listens
    return tuple(port for port in listens if (port.name, port.protocol) in keys)


class Overlay(NamedTuple):
    """How one cluster's backends of one service are seen. distance: 0 where it doesn't count."""

    standing: Standing
    distance: int


AS_SAID = Overlay(Standing.FRESH, 0)
"""Of a cluster in sight, and of the own one always."""


def overlay_of(sight: Sight | None, said: Staleness, terms: Terms) -> Overlay:
    """What a sight comes to for a service that says this of staleness; None: in sight."""
    if sight is None:
        return AS_SAID
    return Overlay(sight.standing(said), sight.distance if terms.by_place else 0)


def under(overlay: Overlay, backend: Backend) -> Backend:
    """The backend as its cluster is seen.

    A withdrawn cluster's endpoints are out for that reason alone: what it last said of them is old.
    """
    is_withdrawn = overlay.standing is Standing.WITHDRAWN
    reason = Reason.WITHDRAWN if is_withdrawn else backend.reason
    priority = shown_priority(backend.priority, *overlay)
    if priority == backend.priority and reason is backend.reason:
        return backend
    return replace(backend, priority=priority, reason=reason)


def place(backend: Backend) -> tuple[int, ClusterName, str]:
    """What backends are sorted by."""
    return backend.priority, backend.cluster, backend.name
