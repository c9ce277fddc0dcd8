"""The shop: which services there are, and what each cluster has of them.

For: the one description that manifests, HTTP servers and expectations are made from. Not for:
running anything. Invariants: pure; what is expected of requests is worked out here from the
description alone, never from a table of meshd, or the demo would hold meshd against itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from meshd.model.forms import WEIGHT_DEFAULT
from meshd.model.service import SPILL_BELOW_PERCENT_DEFAULT, Affinity

NAMESPACE = "shop"
CLUSTERS = ("east", "west", "south")


class Dialect(StrEnum):
    """How an offer is written in its cluster's manifest: the mesh doesn't care."""

    MESHD = "meshd"
    KUBERNETES = "kubernetes"
    CILIUM = "cilium"


@dataclass(frozen=True, slots=True)
class Spot:
    """One endpoint. host: the last part of its address."""

    name: str
    host: int
    weight: int = WEIGHT_DEFAULT
    ready: bool = True

    @property
    def takes_traffic(self) -> bool:
        """Whether it may be asked at all."""
        return self.ready and self.weight > 0


@dataclass(frozen=True, slots=True)
class Offer:
    """What one cluster has of one service."""

    cluster: str
    service: str
    spots: tuple[Spot, ...]
    affinity: Affinity = Affinity.NONE
    is_global: bool = True
    is_shared: bool = True
    dialect: Dialect = Dialect.MESHD


@dataclass(frozen=True, slots=True)
class Trouble:
    """What has happened to clusters. empty: without backends. demoted: out of the others' sight."""

    empty: frozenset[str] = frozenset()
    demoted: frozenset[str] = frozenset()


CALM = Trouble()

HEALTHY_FROM = SPILL_BELOW_PERCENT_DEFAULT / 100
"""The healthy share of a tier from which it keeps all that reaches it."""

EAST_ONLY = "ledger"
"""Global but not shared: when east's backends go, it has none left anywhere."""
LOCAL_ONLY = "email"
"""Not global: it is in nobody's table."""


class _Hosts:
    """Numbers a cluster's endpoints from .11 on."""

    def __init__(self) -> None:
        self._next: dict[str, int] = defaultdict(lambda: 11)

    def spots(self, cluster: str, service: str, weights: Iterable[int]) -> tuple[Spot, ...]:
        spots = []
        for number, weight in enumerate(weights, start=1):
            spots.append(Spot(f"{service}-{number}", self._next[cluster], weight))
            self._next[cluster] += 1
        return tuple(spots)


_ONE, _TWO = (WEIGHT_DEFAULT,), (WEIGHT_DEFAULT, WEIGHT_DEFAULT)
_PLAN: Mapping[str, tuple[Affinity, Mapping[str, tuple[int, ...]]]] = {
    # Everywhere alike: shares follow the number of backends.
    "web": (Affinity.NONE, {"east": _TWO, "west": _TWO, "south": _ONE}),
    # Everywhere alike: shares follow the weights.
    "catalog": (Affinity.NONE, {"east": _ONE, "west": (400,), "south": (50, 50)}),
    "cart": (Affinity.LOCAL, {"east": _TWO, "west": _TWO, "south": _ONE}),
    # The others first, as for work that should not burden the own cluster.
    "search": (Affinity.REMOTE, {"east": _ONE, "west": _ONE, "south": _ONE}),
    # South has the service but no backend of its own.
    "checkout": (Affinity.LOCAL, {"east": _ONE, "west": _ONE, "south": ()}),
    # Only west has backends: what its death must not take from the others.
    "recommend": (Affinity.NONE, {"east": (), "west": _TWO, "south": ()}),
    "currency": (Affinity.LOCAL, {"east": _ONE, "west": _ONE, "south": _ONE}),
    # One of east's backends is drained (weight 0); south doesn't take part.
    "shipping": (Affinity.NONE, {"east": (WEIGHT_DEFAULT, 0), "west": _ONE}),
    "ads": (Affinity.LOCAL, {"west": _ONE, "south": _TWO}),
    EAST_ONLY: (Affinity.NONE, {"east": _ONE}),
    LOCAL_ONLY: (Affinity.NONE, {"south": _ONE}),
}
_KUBERNETES = {("web", "east"), ("web", "west"), ("checkout", "east"), ("currency", "south")}
_CILIUM = {("ads", "west"), ("ads", "south")}
_NOT_SHARED = {("currency", "south"), (EAST_ONLY, "east")}
_NOT_READY = {("ads", "south", "ads-2")}


def _dialect(service: str, cluster: str) -> Dialect:
    if (service, cluster) in _KUBERNETES:
        return Dialect.KUBERNETES
    return Dialect.CILIUM if (service, cluster) in _CILIUM else Dialect.MESHD


def _build() -> tuple[Offer, ...]:
    hosts = _Hosts()
    return tuple(
        Offer(
            cluster=cluster,
            service=service,
            spots=tuple(
                Spot(
                    spot.name,
                    spot.host,
                    spot.weight,
                    ready=(service, cluster, spot.name) not in _NOT_READY,
                )
                for spot in hosts.spots(cluster, service, weights)
            ),
            affinity=affinity,
            is_global=service != LOCAL_ONLY,
            is_shared=(service, cluster) not in _NOT_SHARED,
            dialect=_dialect(service, cluster),
        )
        for service, (affinity, clusters) in _PLAN.items()
        for cluster, weights in clusters.items()
    )


SHOP: tuple[Offer, ...] = _build()
SERVICES: tuple[str, ...] = tuple(_PLAN)


def offers_of(cluster: str) -> tuple[Offer, ...]:
    """What one cluster has."""
    return tuple(offer for offer in SHOP if offer.cluster == cluster)


def services_for(cluster: str) -> tuple[str, ...]:
    """What clients in this cluster can ask for: the services that it marks global itself."""
    return tuple(offer.service for offer in offers_of(cluster) if offer.is_global)


def expected_shares(caller: str, service: str, trouble: Trouble = CALM) -> dict[str, float]:
    """Which share of a caller's requests each cluster must answer; empty if nobody can."""
    tiers: dict[int, dict[str, tuple[int, int]]] = defaultdict(dict)
    affinity = next(o.affinity for o in offers_of(caller) if o.service == service)
    for offer in SHOP:
        own = offer.cluster == caller
        whole = sum(spot.weight for spot in offer.spots)
        offered = offer.is_global and (own or offer.is_shared)
        if offer.service != service or not offered or not whole:
            continue
        ready = sum(spot.weight for spot in offer.spots if spot.takes_traffic)
        demoted = not own and offer.cluster in trouble.demoted
        tier = _tier(affinity, own=own) + (10 if demoted else 0)
        tiers[tier][offer.cluster] = (0 if offer.cluster in trouble.empty else ready, whole)
    shares: dict[str, float] = {}
    left = 1.0
    for number in sorted(tiers):
        weights = {cluster: ready for cluster, (ready, _) in tiers[number].items() if ready}
        health = sum(weights.values()) / sum(whole for _, whole in tiers[number].values())
        kept = left * min(1.0, health / HEALTHY_FROM)
        left -= kept
        for cluster, ready in weights.items():
            shares[cluster] = kept * ready / sum(weights.values())
    total = sum(shares.values())
    # What nobody keeps comes back to those that keep something.
    return {cluster: share / total for cluster, share in shares.items() if share}


def _tier(affinity: Affinity, *, own: bool) -> int:
    if affinity is Affinity.NONE:
        return 0
    return 0 if own is (affinity is Affinity.LOCAL) else 1


def without_any(caller: str, trouble: Trouble) -> Collection[str]:
    """The services that clients in this cluster know but nobody can answer now."""
    return [name for name in services_for(caller) if not expected_shares(caller, name, trouble)]
