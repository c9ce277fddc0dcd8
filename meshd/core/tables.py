"""The global tables of one perspective, kept up to date at the cost of what changed.

For: turning what `fold` reports into table deltas, views and digests. Not for: folding, liveness
timers (a standing comes in as a fact) or fan-out. Invariants: the table equals `derive` of the same
states and standings (I18); the old table with a delta applied equals the new table; a call reports
each service and each backend at most once, and nothing that didn't change.

Costs: one endpoint is O(1), however many there are; a definition is O(clusters that take part),
plus the backends that it reaches; a cluster or a standing is O(services + that cluster's
endpoints). Sorted views are made when they are read and kept until their service changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from typing import assert_never

from meshd.core.backend import place, under
from meshd.core.digest import DIGEST_ZERO, Digest, digest_hex, minus, plus
from meshd.core.fold import (
    Change,
    EndpointChange,
    IdentityChange,
    InfoChange,
    NodeChange,
    PeerChange,
    ServiceChange,
    SkipChange,
)
from meshd.core.merge import taking_part
from meshd.core.served import ServedService, Sources, Touched
from meshd.core.state import ClusterState
from meshd.model.ids import ClusterName, LogId, ServiceKey
from meshd.model.table import Backend, BackendKey, GlobalService, ServiceDelta, Standing, TableDelta

_key_order = attrgetter("namespace", "name")
"""ServiceKey's own order, without a Python call for every comparison."""


class Tables:
    """The table of one cluster. Every method that changes it returns the delta."""

    def __init__(self, perspective: ClusterName) -> None:
        """Start empty, with every cluster fresh."""
        self.perspective = perspective
        self._services: dict[ServiceKey, ServedService] = {}
        self._standings: dict[ClusterName, Standing] = {}
        self._views: dict[ServiceKey, GlobalService] = {}
        self._sorted_keys: tuple[ServiceKey, ...] | None = None
        self._digest: Digest = DIGEST_ZERO

    @property
    def digest(self) -> str:
        """The digest over the services that the perspective offers, standings left out."""
        return digest_hex(self._digest)

    def digest_of(self, key: ServiceKey) -> str | None:
        """The digest of one service, standings left out; None if it isn't served."""
        service = self._services.get(key)
        return None if service is None else digest_hex(service.digest)

    def keys(self) -> tuple[ServiceKey, ...]:
        """The services in the table, sorted."""
        if self._sorted_keys is None:
            self._sorted_keys = tuple(sorted(self._services, key=_key_order))
        return self._sorted_keys

    def view(self, key: ServiceKey) -> GlobalService | None:
        """One service, whole; None if it isn't served. The same object until it changes."""
        service = self._services.get(key)
        if service is None:
            return None
        view = self._views.get(key)
        if view is None:
            view = self._views[key] = self._view_of(service)
        return view

    def apply(
        self,
        cluster: ClusterName,
        changes: Iterable[Change],
        states: Mapping[ClusterName, ClusterState],
        log_ids: Mapping[ClusterName, LogId],
    ) -> TableDelta:
        """Take in what folding did to one cluster's state; `states` is as it is afterwards."""
        touched: dict[ServiceKey, Touched] = {}
        for change in changes:
            match change:
                case EndpointChange():
                    touched.setdefault(change.key.service, Touched()).names.add(change.key.name)
                case ServiceChange():
                    touched.setdefault(change.key, Touched()).whole |= change.removed
                case InfoChange() | PeerChange() | SkipChange():
                    pass  # No table depends on it.
                case NodeChange() | IdentityChange():
                    pass  # Data planes use them beside the tables.
                case _:
                    assert_never(change)
        return self._update(cluster, touched, Sources(states, log_ids))

    def replace(
        self,
        cluster: ClusterName,
        states: Mapping[ClusterName, ClusterState],
        log_ids: Mapping[ClusterName, LogId],
    ) -> TableDelta:
        """Compare with a cluster's state that is another as a whole, new, or no longer there."""
        old = [key for key, service in self._services.items() if cluster in service.clusters]
        state = states.get(cluster)
        new = () if state is None else state.services
        touched = {key: Touched(whole=True) for key in (*old, *new)}
        return self._update(cluster, touched, Sources(states, log_ids))

    def set_standing(self, cluster: ClusterName, standing: Standing) -> TableDelta:
        """Take in what a cluster's liveness does to its backends; the own cluster stays fresh."""
        if cluster == self.perspective or standing == self._standing(cluster):
            return ()
        self._standings[cluster] = standing
        deltas = []
        for key in sorted(self._services, key=_key_order):
            backends = self._services[key].backends_of(cluster)
            if backends:
                deltas.append(self._delta(key, upserts=backends))
        return tuple(deltas)

    def _update(
        self, cluster: ClusterName, touched: Mapping[ServiceKey, Touched], sources: Sources
    ) -> TableDelta:
        deltas = (
            self._update_service(key, cluster, touched[key], sources)
            for key in sorted(touched, key=_key_order)
        )
        return tuple(delta for delta in deltas if delta is not None)

    def _update_service(
        self, key: ServiceKey, cluster: ClusterName, touched: Touched, sources: Sources
    ) -> ServiceDelta | None:
        service = self._services.get(key)
        own = taking_part(sources.service(self.perspective, key), own=True)
        if service is None:
            return None if own is None else self._add(key, sources)
        if own is None:
            return self._drop(key)
        self._count(service, minus)
        effect = service.update(cluster, touched, sources)
        self._count(service, plus)
        if not effect.redefined and not effect.backends:
            return None
        removals = [name for name, backend in effect.backends.items() if backend is None]
        upserts = [backend for backend in effect.backends.values() if backend is not None]
        return self._delta(key, redefined=effect.redefined, upserts=upserts, removals=removals)

    def _add(self, key: ServiceKey, sources: Sources) -> ServiceDelta:
        service = self._services[key] = ServedService(key, self.perspective, sources)
        self._sorted_keys = None
        self._count(service, plus)
        return self._delta(key, redefined=True, upserts=service.backends())

    def _drop(self, key: ServiceKey) -> ServiceDelta:
        self._count(self._services.pop(key), minus)
        self._sorted_keys = None
        return self._delta(key, gone=True)

    def _count(self, service: ServedService, change: Callable[[Digest, Digest], Digest]) -> None:
        if service.is_offered:
            self._digest = change(self._digest, service.digest)

    def _delta(
        self,
        key: ServiceKey,
        *,
        gone: bool = False,
        redefined: bool = False,
        upserts: Iterable[Backend] = (),
        removals: Iterable[BackendKey] = (),
    ) -> ServiceDelta:
        """Say what changed, in one order everywhere; the service's view is made anew then."""
        self._views.pop(key, None)
        shown = sorted(map(self._shown, upserts), key=place)
        return ServiceDelta(key, gone, redefined, tuple(shown), tuple(sorted(removals)))

    def _view_of(self, service: ServedService) -> GlobalService:
        definition = service.definition
        return GlobalService(
            key=service.key,
            ports=definition.ports,
            affinity=definition.affinity,
            clusters=definition.clusters,
            conditions=definition.conditions,
            backends=tuple(sorted(map(self._shown, service.backends()), key=place)),
        )

    def _shown(self, backend: Backend) -> Backend:
        return under(self._standing(backend.cluster), backend)

    def _standing(self, cluster: ClusterName) -> Standing:
        return self._standings.get(cluster, Standing.FRESH)
