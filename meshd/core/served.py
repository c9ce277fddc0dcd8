"""One global service, kept up to date change by change.

For: a service's definitions, backends and digest as one perspective sees them. Not for: which
services there are, standings, or deltas (`tables`). Invariant: once every change of the states has
been given to `update`, this equals what `derive` makes of the states from scratch.

What it holds is without standings. Only the part of a service that a change can reach is compared:
one endpoint, one cluster's endpoints, or all of them when what they have in common changed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

from meshd.core.backend import backend_of
from meshd.core.digest import Digest, digest_of_backend, digest_of_definition, minus, plus
from meshd.core.merge import Definition, resolve, taking_part
from meshd.core.state import ClusterState, Held
from meshd.core.tiers import tier
from meshd.model.endpoint import Endpoint
from meshd.model.ids import ClusterName, LogId, ServiceKey
from meshd.model.service import Service
from meshd.model.table import Backend, BackendKey

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


@dataclass(slots=True)
class Touched:
    """Which of a cluster's endpoints of one service may have changed: those named, or all."""

    names: set[str] = field(default_factory=set)
    whole: bool = False


@dataclass(slots=True)
class Effect:
    """What an update did. backends: the new value of each that changed, None if it went."""

    redefined: bool
    backends: dict[BackendKey, Backend | None] = field(default_factory=dict)


class ServedService:
    """A service that its perspective serves.

    definition: what the clusters' definitions come to. digest: over it and all backends.
    """

    __slots__ = ("_backends", "_definitions", "_perspective", "definition", "digest", "key")

    def __init__(self, key: ServiceKey, perspective: ClusterName, sources: Sources) -> None:
        """Load it; the perspective must define it as global."""
        self.key = key
        self._perspective = perspective
        self._backends: dict[ClusterName, dict[str, Backend]] = {}
        self._definitions: dict[ClusterName, Service] = {}
        for cluster in sources.states:
            service = self._definition_in(cluster, sources)
            if service is not None:
                self._definitions[cluster] = service
        self.definition: Definition = resolve(perspective, self._definitions)
        self.digest: Digest = digest_of_definition(key, self.definition)
        loaded = Effect(redefined=True)
        for cluster in self.definition.clusters:
            self._refresh(cluster, None, sources, loaded)

    def is_offered_to(self, audience: str) -> bool:
        """Whether those who read the perspective's log of an audience know of this service."""
        return self._definitions[self._perspective].is_offered_to(audience)

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
        before = self.definition
        came_or_went = self._redefine(cluster, sources)
        after = self.definition
        effect = Effect(redefined=after != before)
        if (after.ports, after.affinity) != (before.ports, before.affinity):
            for member in {*before.clusters, *after.clusters}:
                self._refresh(member, None, sources, effect)
        elif came_or_went or touched.whole:
            self._refresh(cluster, None, sources, effect)
        else:
            self._refresh(cluster, touched.names, sources, effect)
        return effect

    def _definition_in(self, cluster: ClusterName, sources: Sources) -> Service | None:
        service = sources.service(cluster, self.key)
        return taking_part(service, own=cluster == self._perspective)

    def _redefine(self, cluster: ClusterName, sources: Sources) -> bool:
        """Take in one cluster's definition; says whether the cluster joined or left."""
        old = self._definitions.get(cluster)
        new = self._definition_in(cluster, sources)
        if new == old:
            return False
        if new is None:
            del self._definitions[cluster]
        else:
            self._definitions[cluster] = new
        definition = resolve(self._perspective, self._definitions)
        self.digest = minus(self.digest, digest_of_definition(self.key, self.definition))
        self.digest = plus(self.digest, digest_of_definition(self.key, definition))
        self.definition = definition
        return old is None or new is None

    def _refresh(
        self,
        cluster: ClusterName,
        names: Collection[str] | None,
        sources: Sources,
        effect: Effect,
    ) -> None:
        """Compare a cluster's named endpoints, or all of them, with the backends held."""
        backends = self._backends.setdefault(cluster, {})
        takes_part = cluster in self._definitions
        held = sources.endpoints(cluster, self.key) if takes_part else {}
        priority = tier(self.definition.affinity, own=cluster == self._perspective)
        for name in backends.keys() | held.keys() if names is None else names:
            endpoint = held.get(name)
            old = backends.get(name)
            new = None
            if endpoint is not None:
                log_id = sources.log_ids[cluster]
                new = backend_of((cluster, name), endpoint, self.definition, priority, log_id)
            if new != old:
                self._count(old, minus)
                self._count(new, plus)
                effect.backends[cluster, name] = new
                if new is None:
                    del backends[name]
                else:
                    backends[name] = new
        if not backends:
            del self._backends[cluster]

    def _count(self, backend: Backend | None, change: Callable[[Digest, Digest], Digest]) -> None:
        if backend is not None:
            self.digest = change(self.digest, digest_of_backend(self.key, backend))


_NO_BACKENDS: Mapping[str, Backend] = {}
