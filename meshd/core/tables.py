"""The global tables of one perspective, kept up to date at the cost of what changed.

For: turning what `fold` reports into table deltas, views and digests. Not for: folding, timers (how
clusters are seen comes in as facts) or fan-out. Invariants: the table equals `derive` of the same
states and sights (I18); the old table with a delta applied equals the new table; a call reports
each service and each backend at most once, and nothing that didn't change.

Costs: one endpoint is O(clusters of its service), however many endpoints there are; a definition is
that too, plus the backends that it reaches; what a cluster says of itself, or a standing, is
O(that cluster's services and endpoints), and of the own cluster everything. Sorted views are made
when they are read and kept until their service changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from operator import attrgetter
from typing import assert_never

from meshd.core.backend import Overlay, overlay_of, place, under
from meshd.core.derive import tiers_of, whole
from meshd.core.digest import DIGEST_ZERO, Digest, digest_hex, minus, plus
from meshd.core.fold import (
    Change,
    EndpointChange,
    IdentityChange,
    InfoChange,
    NodeChange,
    OperationChange,
    PeerChange,
    PolicyChange,
    ServiceChange,
    SkipChange,
)
from meshd.core.liveness import Sight
from meshd.core.merge import Definition, taking_part
from meshd.core.served import Effect, ServedService, Sources, Touched
from meshd.core.spill import Tier, tier_shares
from meshd.core.state import ClusterState
from meshd.model.ids import ClusterName, LogId, ServiceKey
from meshd.model.keyspace import DEFAULT_AUDIENCE
from meshd.model.service import Service
from meshd.model.staleness import Staleness
from meshd.model.table import (
    Backend,
    BackendKey,
    GlobalService,
    ServiceDelta,
    Standing,
    TableDelta,
)

_Change = Callable[[Digest, Digest], Digest]
"""`plus` or `minus`."""

_key_order = attrgetter("namespace", "name")
"""ServiceKey's own order, without a Python call for every comparison."""


class Tables:
    """The table of one cluster. Every method that changes it returns the delta."""

    def __init__(self, perspective: ClusterName) -> None:
        """Start empty, with every cluster in sight."""
        self.perspective = perspective
        self._services: dict[ServiceKey, ServedService] = {}
        self._concerning: dict[ClusterName, set[ServiceKey]] = {}
        self._sights: dict[ClusterName, Sight] = {}
        self._looks = 1
        self._said: Counter[Staleness] = Counter()
        self._views: dict[ServiceKey, GlobalService] = {}
        self._sorted_keys: tuple[ServiceKey, ...] | None = None
        self._digests: dict[str, Digest] = {}

    @property
    def digest(self) -> str:
        """The digest over the services that the perspective offers to the mesh, without sights."""
        return self.digest_for(DEFAULT_AUDIENCE)

    def digest_for(self, audience: str) -> str:
        """The digest over the services that the perspective offers to an audience."""
        return digest_hex(self._digests.get(audience, DIGEST_ZERO))

    def digest_of(self, key: ServiceKey) -> str | None:
        """The digest of one service, without sights; None if it isn't served."""
        service = self._services.get(key)
        return None if service is None else digest_hex(service.digest)

    def definition_of(self, key: ServiceKey) -> Definition | None:
        """What the clusters' definitions of a service come to; None if it isn't served."""
        service = self._services.get(key)
        return None if service is None else service.definition

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
                    service = touched.setdefault(change.key, Touched())
                    service.defined = True
                    service.whole |= change.removed
                case InfoChange():
                    for key in self._keys_concerning(cluster):
                        touched.setdefault(key, Touched()).described = True
                case PeerChange() | SkipChange() | OperationChange():
                    pass  # No table depends on it.
                case NodeChange() | IdentityChange() | PolicyChange():
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
        state = states.get(cluster)
        new = () if state is None else state.services
        touched = {
            key: Touched(whole=True, described=True)
            for key in (*self._keys_concerning(cluster), *new)
        }
        return self._update(cluster, touched, Sources(states, log_ids))

    def set_sight(self, cluster: ClusterName, sight: Sight | None) -> TableDelta:
        """Take in how a cluster is seen now, None to forget it; the own one is always in sight."""
        if cluster == self.perspective:
            return ()
        before = self._sights.pop(cluster, None)
        if sight is not None:
            self._sights[cluster] = sight
        changed = {said for said in self._said if _looks(before, said) != _looks(sight, said)}
        if changed:
            self._looks += 1
        keys = sorted(self._keys_concerning(cluster), key=_key_order) if changed else ()
        deltas = (
            self._delta(service, Effect())
            for service in map(self._services.__getitem__, keys)
            if service.own.staleness in changed and cluster in service.clusters
        )
        return tuple(delta for delta in deltas if delta is not None)

    def _keys_concerning(self, cluster: ClusterName) -> Collection[ServiceKey]:
        """The services that depend on a cluster: on the own one all do."""
        if cluster == self.perspective:
            return self._services.keys()
        return self._concerning.get(cluster, ())

    def _index(
        self, key: ServiceKey, before: frozenset[ClusterName], now: frozenset[ClusterName]
    ) -> None:
        """Note which clusters a service depends on now."""
        for cluster in before - now:
            keys = self._concerning[cluster]
            keys.discard(key)
            if not keys:
                del self._concerning[cluster]
        for cluster in now - before:
            self._concerning.setdefault(cluster, set()).add(key)

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
        former, digest, concerned = service.own, service.digest, service.concerned
        effect = service.update(cluster, touched, sources)
        if service.own is former:
            self._add_up(former, minus(service.digest, digest), plus)
        else:
            self._count(former, digest, minus)
            self._count(service.own, service.digest, plus)
        if service.concerned is not concerned:
            self._index(key, concerned, service.concerned)
        return self._delta(service, effect)

    def _add(self, key: ServiceKey, sources: Sources) -> ServiceDelta | None:
        service = self._services[key] = ServedService(key, self.perspective, sources)
        self._sorted_keys = None
        self._index(key, frozenset(), service.concerned)
        self._count(service.own, service.digest, plus)
        loaded = {(one.cluster, one.name): (None, one) for one in service.backends()}
        return self._delta(service, Effect(redefined=True, backends={**loaded}))

    def _drop(self, key: ServiceKey) -> ServiceDelta:
        service = self._services.pop(key)
        self._count(service.own, service.digest, minus)
        self._index(key, service.concerned, frozenset())
        self._sorted_keys = None
        self._views.pop(key, None)
        return ServiceDelta(key, gone=True, redefined=False, tiers=None, upserts=(), removals=())

    def _count(self, own: Service, digest: Digest, change: _Change) -> None:
        """Add a service up with the others, or take it out."""
        self._said[own.staleness] += 1 if change is plus else -1
        if not self._said[own.staleness]:
            del self._said[own.staleness]
        self._add_up(own, digest, change)

    def _add_up(self, own: Service, digest: Digest, change: _Change) -> None:
        """Let what became of a service's digest be seen in those of whom it is offered to."""
        if digest != DIGEST_ZERO and own.is_offered:
            for audience in own.export.audiences:
                before = self._digests.get(audience, DIGEST_ZERO)
                self._digests[audience] = change(before, digest)

    def _delta(self, service: ServedService, effect: Effect) -> ServiceDelta | None:
        """Say what is shown otherwise, in one order everywhere; its view is made anew then."""
        upserts, removals = self._show(service, effect)
        tiers = tier_shares(self._tiers(service), service.definition.spill)
        is_shared_anew = tiers != service.tiers
        service.tiers = tiers
        is_same = service.digest == service.shown
        service.shown = service.digest
        if is_same and not (effect.redefined or upserts or removals or is_shared_anew):
            return None
        self._views.pop(service.key, None)
        return ServiceDelta(
            key=service.key,
            gone=False,
            redefined=effect.redefined,
            tiers=tiers if is_shared_anew else None,
            upserts=tuple(sorted(upserts, key=place)),
            removals=tuple(sorted(removals)),
            digest=digest_hex(service.digest),
        )

    def _show(
        self, service: ServedService, effect: Effect
    ) -> tuple[list[Backend], list[BackendKey]]:
        """The backends that are shown otherwise than before, and those that are no more.

        A backend changes by itself or by how its cluster is seen, and one may hide the other.
        """
        former, changed = service.overlays, dict(effect.backends)
        overlays = self._overlay(service)
        for cluster, overlay in overlays.items() if overlays is not former else ():
            if former.get(cluster, overlay) != overlay:
                for one in service.backends_of(cluster):
                    changed.setdefault((cluster, one.name), (one, one))
        upserts, removals = [], []
        for key, (old, new) in changed.items():
            if new is None:
                removals.append(key)
                continue
            shown = under(overlays[key[0]], new)
            if old is None or under(former[key[0]], old) != shown:
                upserts.append(shown)
        return upserts, removals

    def _overlay(self, service: ServedService) -> Mapping[ClusterName, Overlay]:
        """How its clusters are seen. Most changes are of a backend, and leave that as it is."""
        looks, terms = service.overlaid
        # Terms are replaced as a whole whenever a definition changes, that of staleness too.
        if looks != self._looks or terms is not service.terms:
            service.overlaid = (self._looks, service.terms)
            said = service.own.staleness
            service.overlays = {
                cluster: overlay_of(self._sights.get(cluster), said, of_it)
                for cluster, of_it in service.terms.items()
            }
            service.tiered = None
        return service.overlays

    def _tiers(self, service: ServedService) -> tuple[Tier, ...]:
        """Its loads in tiers. Most changes are of what is in a load, and leave that as it is."""
        if service.tiered is None:
            service.tiered = tiers_of(service.loads, service.terms, service.overlays)
        return service.tiered

    def _view_of(self, service: ServedService) -> GlobalService:
        overlays = service.overlays
        shown = (under(overlays[backend.cluster], backend) for backend in service.backends())
        return whole(service.key, service.definition, service.tiers, shown)


def _looks(sight: Sight | None, said: Staleness) -> tuple[Standing, int]:
    """All that a sight may come to for services that say this of staleness."""
    return (Standing.FRESH, 0) if sight is None else (sight.standing(said), sight.distance)
