"""How the clusters' definitions of one service become one definition.

For: who takes part, what comes out of differing definitions, and the conditions that say so. Not
for: what a cluster's endpoints are worth (`terms`) nor who holds the definitions (`derive`,
`tables`). Invariant: the result depends on the definitions and the names of the known clusters
alone, never on the order in which they came.

Rules:
- A cluster gets a service that it marks global itself; it offers its endpoints while it shares it.
- Ports, type (headless or not) and session affinity are those of the oldest definition (the lower
  cluster name breaks a tie), as MCS-API says. Who says otherwise loses, with a condition. The order
  of ports carries no meaning.
- Affinity, tiers, spill, exposure, labels and imports are nobody else's business: they are the
  perspective's own.
- A cluster that the perspective's definition names and that nobody knows is a condition: it may
  come, or be a slip of the pen.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from meshd.model.ids import ClusterName
from meshd.model.service import (
    Affinity,
    Exposure,
    Port,
    Service,
    SessionAffinity,
    Spill,
    Transport,
)
from meshd.model.table import Condition, ConditionType

PortKey = tuple[str, Transport]
"""What joins a service's ports to its endpoints'."""


@dataclass(frozen=True, slots=True)
class Definition:
    """What the definitions of one service come to. The fields are those of `GlobalService`.

    port_keys: of `ports`, in one set.
    """

    ports: tuple[Port, ...]
    headless: bool
    session_affinity: SessionAffinity
    session_timeout_s: int
    affinity: Affinity
    spill: Spill
    exposure: Exposure
    labels: Mapping[str, str]
    clusters: tuple[ClusterName, ...]
    conditions: tuple[Condition, ...]
    port_keys: frozenset[PortKey] = field(compare=False)


def taking_part(service: Service | None, *, own: bool) -> Service | None:
    """The definition if it takes part in the global service, seen from its own cluster or not."""
    if service is None:
        return None
    return service if (service.is_global if own else service.is_offered) else None


def resolve(
    perspective: ClusterName,
    definitions: Mapping[ClusterName, Service],
    known: Collection[ClusterName],
) -> Definition:
    """Make one definition of those that take part; the perspective's own must be among them.

    known: all clusters of the mesh.
    """
    oldest = min(definitions, key=lambda cluster: (definitions[cluster].created_ms, cluster))
    winner, own = definitions[oldest], definitions[perspective]
    clusters = tuple(sorted(definitions))
    conflicts = tuple(
        condition
        for cluster in clusters
        for condition in _conflicts(cluster, definitions[cluster], oldest, winner)
    )
    return Definition(
        ports=winner.ports,
        headless=winner.headless,
        session_affinity=winner.session_affinity,
        session_timeout_s=winner.session_timeout_s,
        affinity=own.affinity,
        spill=own.spill,
        exposure=own.exposure,
        labels=own.labels,
        clusters=clusters,
        conditions=(*conflicts, *_unknown(perspective, own, known)),
        port_keys=frozenset((port.name, port.protocol) for port in winner.ports),
    )


def ports_by_name(ports: tuple[Port, ...]) -> Sequence[Port]:
    """The ports in the one order that equal sets of them share."""
    return sorted(ports, key=attrgetter("name")) if len(ports) > 1 else ports


def _conflicts(
    loser: ClusterName, lost: Service, oldest: ClusterName, winner: Service
) -> Iterator[Condition]:
    """In what a definition differs from the one that counts."""
    if lost is winner:
        return
    for kind, in_words in _IN_WORDS.items():
        said, served = in_words(lost), in_words(winner)
        if said != served:
            message = (
                f"{loser} defines {said}; {served} is served, since the definition of {oldest} is"
                " older: make both definitions alike, or give one service another name"
            )
            yield Condition(kind, loser, message)


def _unknown(
    perspective: ClusterName, own: Service, known: Collection[ClusterName]
) -> Iterator[Condition]:
    names = own.named_clusters()
    if names and not names.issubset(known):
        missing = ", ".join(sorted(names.difference(known)))
        message = (
            f"the definition of {perspective} names {missing}, and no such cluster is known here:"
            " correct the name, or follow that cluster"
        )
        yield Condition(ConditionType.UNKNOWN_CLUSTER, perspective, message)


def _ports_in_words(service: Service) -> str:
    words = []
    for port in ports_by_name(service.ports):
        name = f"{port.name}=" if port.name else ""
        suffix = f" ({port.app_protocol})" if port.app_protocol else ""
        words.append(f"{name}{port.port}/{port.protocol}{suffix}")
    return ", ".join(words) or "no port"


def _type_in_words(service: Service) -> str:
    return "a headless service" if service.headless else "a service that is not headless"


def _session_in_words(service: Service) -> str:
    if service.session_affinity is SessionAffinity.NONE:
        return "no session affinity"
    return f"session affinity {service.session_affinity} of {service.session_timeout_s} s"


_IN_WORDS: Mapping[ConditionType, Callable[[Service], str]] = {
    ConditionType.PORTS_CONFLICT: _ports_in_words,
    ConditionType.TYPE_CONFLICT: _type_in_words,
    ConditionType.SESSION_AFFINITY_CONFLICT: _session_in_words,
}
"""What definitions can differ in. What reads alike is alike."""
