"""One global service, kept up to date change by change.

For: a service's definitions, terms, backends, loads and digest as one perspective sees them. Not
for: which services there are, how clusters are seen, or deltas (`tables`). Invariant: once every
change of the states has been given to `update`, this equals what `derive` makes of the states from
scratch.

What it holds is without the overlay of how clusters are seen. Only the part of a service that a
change can reach is compared: one endpoint, one cluster's endpoints, or all of them when what they
have in common changed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from meshd.core.backend import Overlay, backend_of
from meshd.core.digest import Digest, digest_of_backend, digest_of_definition, minus, plus
from meshd.core.merge import Definition, resolve, taking_part
from meshd.core.spill import Load, Tier
from meshd.core.state import ClusterState, Held
from meshd.core.terms import Infos, Terms, terms_of
from meshd.model.cluster import ClusterInfo
from meshd.model.endpoint import Endpoint
from meshd.model.ids import ClusterName, LogId, ServiceKey
from meshd.model.service import Service
from meshd.model.table import Backend, BackendKey, TierShare

_NO_STATE = ClusterState()


@dataclass(frozen=True, slots=True)
class Sources:
    """What the clusters' logs say at the moment. A cluster that isn't there says nothing."""

    states: Mapping[ClusterName, ClusterState]
    log_ids: Mapping[ClusterName, LogId]

    def service(self, cluster: ClusterName, key: ServiceKey) -> Service | None:
        """A cluster's own definition of a service."""
        return self.states.get(cluster, _NO_STATE).service(key)

    def endpoints(self, cluster: ClusterName, key: ServiceKey) -> Mapping[str, Held[Endpoint]]:
        """A cluster's endpoints of a service, whether or not it defines it."""
        return self.states.get(cluster, _NO_STATE).endpoints_of(key)

    def infos(self, *clusters: ClusterName) -> Infos:
        """What some clusters say of themselves."""
        return {cluster: self._info(cluster) for cluster in clusters}

    def _info(self, cluster: ClusterName) -> ClusterInfo | None:
        held = self.states.get(cluster, _NO_STATE).info
        return None if held is None else held.value


@dataclass(slots=True)
class Touched:
    """What of one service may have changed in a cluster.

    names: these endpoints. defined: its definition. whole: all of its endpoints. described: what
    the cluster says of itself, or whether it is known at all.
    """

    names: set[str] = field(default_factory=set)
    defined: bool = False
    whole: bool = False
    described: bool = False


@dataclass(slots=True)
class Effect:
    """What an update did. backends: of each that changed, what it was and is; None if it was not
    there or is no more. Both are without the overlay.
    """

    redefined: bool = False
    backends: dict[BackendKey, tuple[Backend | None, Backend | None]] = field(default_factory=dict)


class ServedService:
    """A service that its perspective serves.

    definition: what the clusters' definitions come to. terms: of each cluster that takes part.
    concerned: the clusters that take part, and those that the perspective's definition names.
    loads: totals by cluster and priority. tiered: those by tier; None once one came or went.
    digest: over the definition and all backends. tiers, overlays, and the digest `shown`: as
    `tables` last showed them. overlaid: of which sights and which terms the overlays are.
    """

    __slots__ = (
        *("_backends", "_definitions", "_perspective", "definition", "digest", "key"),
        *("concerned", "loads", "overlaid", "overlays", "shown", "terms"),
        *("tiered", "tiers"),
    )

    def __init__(self, key: ServiceKey, perspective: ClusterName, sources: Sources) -> None:
        """Load it; the perspective must define it as global."""
        self.key = key
        self._perspective = perspective
        self._backends: dict[ClusterName, dict[str, Backend]] = {}
        self._definitions: dict[ClusterName, Service] = {}
        self.loads: dict[tuple[ClusterName, int], Load] = {}
        self.tiered: tuple[Tier, ...] | None = None
        self.terms: dict[ClusterName, Terms] = {}
        for cluster in sources.states:
            service = self._definition_in(cluster, sources)
            if service is not None:
                self._definitions[cluster] = service
        self.definition: Definition = resolve(perspective, self._definitions, sources.states)
        self.digest: Digest = digest_of_definition(key, self.definition)
        self.concerned = self._concerned()
        self.tiers: tuple[TierShare, ...] = ()
        self.shown: Digest | None = None
        self.overlays: Mapping[ClusterName, Overlay] = {}
        self.overlaid: tuple[int, Mapping[ClusterName, Terms]] = (0, {})
        loaded = Effect(redefined=True)
        self._come_to_terms(self.definition.clusters, sources)
        for cluster in self.definition.clusters:
            self._refresh(cluster, None, sources, loaded)

    @property
    def own(self) -> Service:
        """The perspective's definition."""
        return self._definitions[self._perspective]

    @property
    def clusters(self) -> Collection[ClusterName]:
        """The clusters that take part."""
        return self._definitions.keys()

    def backends(self) -> Iterator[Backend]:
        """All backends, in no particular order."""
        for backends in self._backends.values():
            yield from backends.values()

    def backends_of(self, cluster: ClusterName) -> Collection[Backend]:
        """One cluster's backends, in no particular order."""
        return self._backends.get(cluster, _NO_BACKENDS).values()

    def update(self, cluster: ClusterName, touched: Touched, sources: Sources) -> Effect:
        """Take in what changed in one cluster; the perspective must still serve the service."""
        if not (touched.defined or touched.whole or touched.described):
            effect = Effect()
            self._refresh(cluster, touched.names, sources, effect)
            return effect
        before, former = self.definition, self.terms
        self._redefine(cluster, sources)
        effect = Effect(redefined=self.definition != before)
        self.terms = {}
        self._come_to_terms(self.definition.clusters, sources)
        is_anew = self.definition.port_keys != before.port_keys
        for member in {*before.clusters, *self.definition.clusters}:
            if is_anew or former.get(member) != self.terms.get(member):
                self._refresh(member, None, sources, effect)
            elif member == cluster:
                names = None if touched.whole else touched.names
                self._refresh(cluster, names, sources, effect)
        return effect

    def _definition_in(self, cluster: ClusterName, sources: Sources) -> Service | None:
        service = sources.service(cluster, self.key)
        return taking_part(service, own=cluster == self._perspective)

    def _redefine(self, cluster: ClusterName, sources: Sources) -> None:
        """Take in one cluster's definition, and whether the clusters that are named are known."""
        new = self._definition_in(cluster, sources)
        if new is None:
            self._definitions.pop(cluster, None)
        else:
            self._definitions[cluster] = new
        self.concerned = self._concerned()
        definition = resolve(self._perspective, self._definitions, sources.states)
        self.digest = minus(self.digest, digest_of_definition(self.key, self.definition))
        self.digest = plus(self.digest, digest_of_definition(self.key, definition))
        self.definition = definition

    def _concerned(self) -> frozenset[ClusterName]:
        return self.own.named_clusters().union(self._definitions)

    def _come_to_terms(self, clusters: Iterable[ClusterName], sources: Sources) -> None:
        for cluster in clusters:
            infos = sources.infos(self._perspective, cluster)
            self.terms[cluster] = terms_of(self._perspective, cluster, self._definitions, infos)

    def _refresh(
        self,
        cluster: ClusterName,
        names: Collection[str] | None,
        sources: Sources,
        effect: Effect,
    ) -> None:
        """Compare a cluster's named endpoints, or all of them, with the backends held."""
        backends = self._backends.setdefault(cluster, {})
        terms = self.terms.get(cluster)
        held = sources.endpoints(cluster, self.key) if terms is not None else _NO_ENDPOINTS
        for name in backends.keys() | held.keys() if names is None else names:
            endpoint = held.get(name)
            old = backends.get(name)
            new = None
            if endpoint is not None and terms is not None:
                log_id = sources.log_ids[cluster]
                new = backend_of((cluster, name), endpoint, self.definition, terms, log_id)
            if new != old:
                self._count(old, -1)
                self._count(new, 1)
                effect.backends[cluster, name] = old, new
                if new is None:
                    del backends[name]
                else:
                    backends[name] = new
        if not backends:
            del self._backends[cluster]

    def _count(self, backend: Backend | None, sign: int) -> None:
        if backend is None:
            return
        change = plus if sign > 0 else minus
        self.digest = change(self.digest, digest_of_backend(self.key, backend))
        group = backend.cluster, backend.priority
        load = self.loads.get(group)
        if load is None:
            load = self.loads[group] = Load()
            self.tiered = None
        load.count(backend, sign)
        if not load.backends:
            del self.loads[group]
            self.tiered = None


_NO_BACKENDS: Mapping[str, Backend] = {}
_NO_ENDPOINTS: Mapping[str, Held[Endpoint]] = {}
