"""How the clusters' definitions of one service become one definition.

For: who takes part, and which ports, affinity and conditions come out. Not for: endpoints
(`backend`) nor who holds the definitions (`derive`, `tables`). Invariant: the result depends on the
definitions alone, never on the order in which they came.

Rules:
- A cluster gets a service that it marks global itself; it offers its endpoints while it shares it.
- The oldest definition's ports are served (the lower cluster name breaks a tie), as MCS-API says.
  Each definition with other ports loses with a condition. The order of ports carries no meaning.
- Affinity is nobody else's business: it is the perspective's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter

from meshd.model.ids import ClusterName
from meshd.model.service import Affinity, Port, Service
from meshd.model.table import Condition, ConditionType


@dataclass(frozen=True, slots=True)
class Definition:
    """What the definitions of one service come to. The fields are those of `GlobalService`."""

    ports: tuple[Port, ...]
    affinity: Affinity
    clusters: tuple[ClusterName, ...]
    conditions: tuple[Condition, ...]


def taking_part(service: Service | None, *, own: bool) -> Service | None:
    """The definition if it takes part in the global service, seen from its own cluster or not."""
    if service is None:
        return None
    return service if (service.is_global if own else service.is_offered) else None


def resolve(perspective: ClusterName, definitions: Mapping[ClusterName, Service]) -> Definition:
    """Make one definition of those that take part; the perspective's own must be among them."""
    oldest = min(definitions, key=lambda cluster: (definitions[cluster].created_ms, cluster))
    ports = definitions[oldest].ports
    clusters = tuple(sorted(definitions))
    return Definition(
        ports=ports,
        affinity=definitions[perspective].affinity,
        clusters=clusters,
        conditions=tuple(
            _ports_conflict(cluster, definitions[cluster].ports, oldest, ports)
            for cluster in clusters
            if ports_by_name(definitions[cluster].ports) != ports_by_name(ports)
        ),
    )


def ports_by_name(ports: tuple[Port, ...]) -> list[Port]:
    """The ports in the one order that equal sets of them share."""
    return sorted(ports, key=attrgetter("name"))


def _ports_conflict(
    loser: ClusterName, lost: tuple[Port, ...], winner: ClusterName, served: tuple[Port, ...]
) -> Condition:
    message = (
        f"{loser} defines {_in_words(lost)}; {_in_words(served)} is served, since the definition"
        f" of {winner} is older: give both definitions the same ports, or one service another name"
    )
    return Condition(ConditionType.PORTS_CONFLICT, loser, message)


def _in_words(ports: tuple[Port, ...]) -> str:
    words = []
    for port in ports_by_name(ports):
        name = f"{port.name}=" if port.name else ""
        suffix = f" ({port.app_protocol})" if port.app_protocol else ""
        words.append(f"{name}{port.port}/{port.protocol}{suffix}")
    return ", ".join(words) or "no port"
