"""Why a global service's endpoints are in or out, and why its tiers take what they take.

For: answers to people's questions, from the same states that the table is derived from. Not for:
deciding anything: every reason is the one that `derive` gave. Invariant: every endpoint of the
service that any known log holds is in the explanation exactly once, also where its cluster takes no
part and the table therefore has no backend of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from operator import attrgetter

from meshd.core.derive import LogIds, States, derive
from meshd.core.liveness import ALL_IN_SIGHT, Sights
from meshd.core.spill import share_of
from meshd.core.state import ClusterState, Held, T
from meshd.core.tiers import DEMOTION, PLACE_STEP, RANK_STEP
from meshd.model.cluster import Availability
from meshd.model.errors import NotFoundError
from meshd.model.ids import ClusterName, ServiceKey
from meshd.model.service import Affinity, Port, Service, Spill, SpillSplit
from meshd.model.table import PPM, Backend, GlobalService, Origin, Reason, TierShare

PERCENT_MAX = 100
_PERCENT = PPM / PERCENT_MAX
ROUNDING_PPM = 100
"""Shares are rounded; what is told is told to a tenth of a percent."""
_NO_STATE = ClusterState()
_OF_THE_ENDPOINT = {
    Reason.TERMINATING: "it is terminating",
    Reason.NOT_READY: "it is not ready",
    Reason.PROBE_FAILING: "the probes of {} find it failing",
    Reason.FLAPPING: "{} holds it out until it stays well, since it came back too often",
}
"""Reasons that need no more than the cluster's name to be told."""


@dataclass(frozen=True, slots=True)
class Made:
    """An event that made something so. what: its type and key, in words of the log."""

    what: str
    cluster: ClusterName
    origin: Origin


@dataclass(frozen=True, slots=True)
class ExplainedEndpoint:
    """One endpoint. tier: its number in the explanation's tiers, from 0; None where the table has
    no backend of it. share_ppm: of the service's traffic. reason: None if it is in. why: in a
    sentence. made: the events that it rests on, the one that decides first.
    """

    cluster: ClusterName
    name: str
    address: str
    tier: int | None
    share_ppm: int
    reason: Reason | None
    why: str
    made: tuple[Made, ...]


@dataclass(frozen=True, slots=True)
class ExplainedTier:
    """A tier, why its clusters are in it, and why it takes so much."""

    share: TierShare
    order: str
    why: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """All of one service. service: as it is served; None if it isn't. why: that in a sentence."""

    key: ServiceKey
    perspective: ClusterName
    service: GlobalService | None
    why: str
    tiers: tuple[ExplainedTier, ...]
    endpoints: tuple[ExplainedEndpoint, ...]


def explain(
    perspective: ClusterName,
    key: ServiceKey,
    states: States,
    log_ids: LogIds,
    sights: Sights = ALL_IN_SIGHT,
    unheard: Collection[ClusterName] = (),
) -> Explanation:
    """Explain a service as one cluster sees it; raises NotFoundError if nobody has heard of it.

    unheard: clusters that offer it to another audience than the one that the perspective reads;
    `states` is without their definitions.
    """
    if not any(key in state.services or key in state.endpoints for state in states.values()):
        raise NotFoundError(f"no cluster that is known here has a service {key} or endpoints of it")
    service = derive(perspective, states, log_ids, sights, (key,)).get(key)
    witness = _Witness(perspective, key, states, log_ids, sights, unheard)
    return Explanation(
        key=key,
        perspective=perspective,
        service=service,
        why=witness.about_service(service),
        tiers=tuple(witness.tiers(service)) if service is not None else (),
        endpoints=tuple(witness.endpoints(service)),
    )


class _Witness:
    """Who says what of one service."""

    def __init__(
        self,
        perspective: ClusterName,
        key: ServiceKey,
        states: States,
        log_ids: LogIds,
        sights: Sights,
        unheard: Collection[ClusterName],
    ) -> None:
        self._perspective = perspective
        self._key = key
        self._states = states
        self._log_ids = log_ids
        self._sights = sights
        self._unheard = unheard

    def about_service(self, service: GlobalService | None) -> str:
        who = self._perspective
        if service is not None:
            return f"{who} marks it global, so it is served there"
        if self._definition(who) is None:
            return f"{who} does not define it, so it is not served there: define it there as global"
        return f"{who} does not mark it global, so it is not served there"

    # Tiers.

    def tiers(self, service: GlobalService) -> Iterator[ExplainedTier]:
        own = self._states[self._perspective].services[self._key].value
        is_spread = False
        for tier in service.tiers:
            why = _load(tier, service.spill, is_spread=is_spread)
            yield ExplainedTier(tier, _order(tier.priority, own), why)
            # All that overflows from the first that takes anything is spread over those behind.
            is_spread |= service.spill.split is SpillSplit.SPREAD and tier.share_ppm > 0

    # Endpoints.

    def endpoints(self, service: GlobalService | None) -> Iterator[ExplainedEndpoint]:
        backends = () if service is None else service.backends
        numbers: dict[int, tuple[int, TierShare]] = {}
        if service is not None:
            numbers = {tier.priority: (n, tier) for n, tier in enumerate(service.tiers)}
        for backend in backends:
            number, tier = numbers[backend.priority]
            is_in = backend.reason is None
            yield ExplainedEndpoint(
                cluster=backend.cluster,
                name=backend.name,
                address=backend.address,
                tier=number,
                share_ppm=round(share_of(backend, tier)) if is_in else 0,
                reason=backend.reason,
                why=self._why(backend, number),
                made=tuple(self._made(backend.cluster, backend.name, backend.reason)),
            )
        taking_part = () if service is None else service.clusters
        for cluster in sorted(self._states.keys() - set(taking_part)):
            yield from self._left_out(cluster, is_served=service is not None)

    def _left_out(self, cluster: ClusterName, *, is_served: bool) -> Iterator[ExplainedEndpoint]:
        """The endpoints of a cluster that takes no part, or of a service that isn't served."""
        theirs = self._definition(cluster)
        for name, held in sorted(self._states[cluster].endpoints_of(self._key).items()):
            reason, why = self._no_part(cluster, theirs, is_served=is_served)
            yield ExplainedEndpoint(
                cluster=cluster,
                name=name,
                address=held.value.address,
                tier=None,
                share_ppm=0,
                reason=reason,
                why=why,
                made=tuple(self._made(cluster, name, reason)),
            )

    def _no_part(
        self, cluster: ClusterName, theirs: Service | None, *, is_served: bool
    ) -> tuple[Reason, str]:
        """Why a cluster takes no part."""
        if cluster in self._unheard:
            what = f"{cluster} exports it to another audience than {self._perspective} reads"
            return Reason.NOT_EXPORTED, what
        if theirs is None:
            what = f"{cluster} defines no service {self._key}; the endpoint waits for it"
            return Reason.NO_SERVICE, what
        if not theirs.is_global:
            return Reason.NOT_GLOBAL, f"{cluster} does not mark it global"
        if is_served:
            return Reason.NOT_SHARED, f"{cluster} does not share it (`shared: false`)"
        return Reason.NO_SERVICE, f"it is not served in {self._perspective} at all"

    def _why(self, backend: Backend, tier: int) -> str:
        who, cluster = self._perspective, backend.cluster
        match backend.reason:
            case None:
                return f"takes traffic in tier {tier}"
            case Reason.WITHDRAWN:
                sight = self._sights.get(cluster)
                away_s = sight.unfresh_s if sight is not None else 0
                return f"{cluster} has been out of sight for {away_s:.0f} s, and is then withdrawn"
            case Reason.NOT_EXPORTED:
                return f"{cluster} exports it to others than {who} (`export.clusters`)"
            case Reason.DENIED_BY_IMPORT:
                return f"{who} takes none of it from {cluster} (`import`)"
            case Reason.MAINTENANCE:
                return f"{cluster} is in maintenance"
            case Reason.NO_MATCHING_PORT:
                return f"it listens on {_names(backend.ports)}, which the service does not have"
            case _ if backend.reason in _OF_THE_ENDPOINT:
                return _OF_THE_ENDPOINT[backend.reason].format(cluster)
            case _:
                return f"it is drained: {self._drained(backend)}"

    def _drained(self, backend: Backend) -> str:
        cluster = backend.cluster
        info = self._states[cluster].info
        if info is not None and info.value.state is Availability.DRAINING:
            return f"{cluster} is draining"
        if info is not None and not info.value.weight:
            return f"the weight of {cluster} is 0"
        if info is not None and not info.value.turned_percent:
            return f"all of {cluster} is turned away"
        theirs = self._definition(cluster)
        if theirs is not None and not theirs.weight:
            return f"the weight of the service in {cluster} is 0"
        if theirs is not None and not theirs.turned_percent:
            return f"the service is turned away in {cluster}"
        held = self._states[cluster].endpoints_of(self._key)[backend.name]
        return "its weight is 0" if not held.value.weight else "it is turned away"

    # Events.

    def _made(self, cluster: ClusterName, name: str, reason: Reason | None) -> Iterator[Made]:
        """The events that a verdict rests on, the deciding one first."""
        state = self._states[cluster]
        match reason:
            case Reason.NOT_EXPORTED if cluster in self._unheard:
                pass
            case Reason.NOT_GLOBAL | Reason.NOT_SHARED:
                yield self._said("service", cluster, state.services[self._key])
            case Reason.NOT_EXPORTED:
                yield from self._passed_over(cluster, self._perspective)
            case Reason.DENIED_BY_IMPORT:
                yield from self._passed_over(self._perspective, cluster)
            case Reason.MAINTENANCE | Reason.DRAINING:
                yield from self._turned_down(cluster)
            case Reason.NO_MATCHING_PORT:
                yield self._port_winner()
            case _:
                pass
        held = state.endpoints_of(self._key)[name]
        yield self._said("endpoint", cluster, held, f"{self._key}/{name}")

    def _passed_over(self, chooser: ClusterName, other: ClusterName) -> Iterator[Made]:
        """Why a selector in one cluster's definition leaves another out: what either said last."""
        definition = self._states[chooser].services[self._key]
        is_export = other == self._perspective
        selector = definition.value.export.clusters if is_export else definition.value.import_from
        made = [self._said("service", chooser, definition)]
        info = self._states[other].info
        if info is not None and (selector.regions or selector.labels):
            made.append(self._said("cluster", other, info))
        yield from sorted(made, key=attrgetter("origin.time_ms"), reverse=True)

    def _turned_down(self, cluster: ClusterName) -> Iterator[Made]:
        state = self._states[cluster]
        info, theirs = state.info, state.services.get(self._key)
        if info is not None and (
            info.value.state is not Availability.ACTIVE
            or not info.value.weight
            or not info.value.turned_percent
        ):
            yield self._said("cluster", cluster, info)
        elif theirs is not None and not (theirs.value.weight and theirs.value.turned_percent):
            yield self._said("service", cluster, theirs)

    def _port_winner(self) -> Made:
        """The oldest definition, whose ports are served (`merge`)."""
        taking_part = [
            (held.value.created_ms, name, held)
            for name, state in self._states.items()
            if (held := state.services.get(self._key)) is not None
            and (held.value.is_offered or name == self._perspective)
        ]
        _, name, held = min(taking_part, key=lambda one: one[:2])
        return self._said("service", name, held)

    def _said(self, kind: str, cluster: ClusterName, held: Held[T], key: str = "") -> Made:
        about = key or (cluster if kind == "cluster" else str(self._key))
        return Made(f"{kind}.set {about}", cluster, held.origin(self._log_ids[cluster]))

    def _definition(self, cluster: ClusterName) -> Service | None:
        return self._states.get(cluster, _NO_STATE).service(self._key)


def _order(priority: int, own: Service) -> str:
    """Why backends are at this priority (`tiers`)."""
    demoted, base = divmod(priority, DEMOTION)
    rank, nearness = divmod(base, RANK_STEP)
    first_tier = 1 if own.affinity is Affinity.LOCAL else 0
    unnamed = first_tier + len(own.tiers)
    if rank < first_tier:
        words = "the own cluster first (affinity local)"
    elif rank < unnamed:
        words = f"tier {rank - first_tier + 1} of the definition"
    elif rank > unnamed:
        words = "the own cluster last (affinity remote)"
    elif own.affinity is Affinity.NONE and not own.tiers:
        words = "all clusters alike (affinity none)"
    else:
        place, distance = divmod(nearness, PLACE_STEP)
        words = ("the own cluster or zone", "in the own region", "elsewhere")[place]
        words += f", {'far' if distance == 1 else 'very far'}" if distance else ""
    return f"out of sight, so behind all others; {words}" if demoted else words


def _load(tier: TierShare, spill: Spill, *, is_spread: bool) -> str:
    """Why a tier takes what it takes (`spill`)."""
    if not tier.eligible:
        return f"none of its {tier.backends} backends is in, so it takes nothing"
    if is_spread:
        words = [f"{_percent(tier.reach_ppm)} are spread over it and the others by weight"]
    else:
        words = [f"{_percent(tier.reach_ppm)} reach it", _health(tier, spill)]
        if tier.turned_ppm < PPM:
            words.append(f"its clusters are turned down to {_percent(tier.turned_ppm)}")
    if tier.percent < PERCENT_MAX:
        words.append(f"it may take {tier.percent} % at most")
    if not is_spread and tier.share_ppm > _kept_ppm(tier, spill) + ROUNDING_PPM:
        words.append("what nobody keeps comes back")
    words.append(f"takes {_percent(tier.share_ppm)}")
    return "; ".join(words)


def _health(tier: TierShare, spill: Spill) -> str:
    healthy, below = f"{_percent(tier.healthy_ppm)} healthy", spill.below_percent
    if tier.healthy_ppm < below * _PERCENT:
        return f"{healthy}, below {below} %: the rest overflows ({spill.amount})"
    return f"{healthy}, which is enough (from {below} %)"


def _kept_ppm(tier: TierShare, spill: Spill) -> float:
    """What a tier would keep by itself."""
    below_ppm = spill.below_percent * _PERCENT
    kept = tier.reach_ppm * tier.turned_ppm / PPM * tier.percent / PERCENT_MAX
    return kept * tier.healthy_ppm / below_ppm if tier.healthy_ppm < below_ppm else kept


def _percent(ppm: int) -> str:
    return f"{ppm / _PERCENT:.1f} %".replace(".0 %", " %")


def _names(ports: tuple[Port, ...]) -> str:
    return ", ".join(f"{port.name or port.port}/{port.protocol}" for port in ports) or "no port"
