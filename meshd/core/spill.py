"""How a service's traffic is divided among its tiers.

For: shares, from totals of each tier's backends. Not for: which backend is in which tier (`tiers`)
nor whether it is in at all (`eligibility`). Invariants: the shares add up to exactly PPM as long as
any backend is in; a tier whose health rises never gets less; no share depends on any order.

Rules:
- Traffic reaches the first tier whole. Each tier keeps a part of what reaches it, and the rest
  overflows to the tiers behind.
- Health: of what could serve in the tier (weighed: ready and not ready; what is out for any other
  reason, or turned down to nothing, isn't counted on), the ready share. At or above
  `spill.below_percent` it keeps everything; below, in proportion (`amount: all`: nothing). So the
  first of thirty pods takes a small share.
- Weight: a tier whose clusters are all turned down (`weight` below 100) keeps no more than the
  one that is turned up the most; within the tier the weights divide the rest.
- `percent` of a tier caps what it keeps.
- What no tier keeps goes to all that keep something, in proportion: no request is left without a
  backend while there is one. If nobody would keep anything, `amount: all` counts as proportional.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from meshd.core.tiers import DEMOTION
from meshd.model.ids import ClusterName
from meshd.model.service import Spill, SpillAmount, SpillSplit
from meshd.model.table import FACTOR_UNIT, PPM, Backend, Reason, Standing, TierShare


@dataclass(slots=True)
class Load:
    """Totals of backends that stand alike: one cluster's of one priority.

    expected, healthy: by endpoint weight, of all that could serve and of what is in.
    """

    backends: int = 0
    eligible: int = 0
    expected: int = 0
    healthy: int = 0
    weight: int = 0

    def count(self, backend: Backend, sign: int) -> None:
        """Take a backend in (1) or out (-1)."""
        self.backends += sign
        if backend.reason is None:
            self.eligible += sign
            self.expected += sign * backend.endpoint_weight
            self.healthy += sign * backend.endpoint_weight
            self.weight += sign * backend.weight
        elif backend.reason is Reason.NOT_READY and backend.weight:
            self.expected += sign * backend.endpoint_weight


@dataclass(frozen=True, slots=True)
class Part:
    """A load and how it is seen. priority: as it is shown. factor: its cluster's and service's
    weight and how far both are turned up, multiplied. percent: the most that its tier takes.
    """

    cluster: ClusterName
    priority: int
    standing: Standing
    factor: int
    percent: int
    load: Load


@dataclass(frozen=True, slots=True)
class Tier:
    """The parts of one priority. percent: the most that it takes, the most of its parts'."""

    priority: int
    percent: int
    clusters: tuple[ClusterName, ...]
    parts: tuple[Part, ...]


def in_tiers(parts: Iterable[Part]) -> tuple[Tier, ...]:
    """The parts by priority. It holds until a load comes or goes or is seen otherwise: what is in a
    load is looked up whenever shares are asked for.
    """
    found: dict[int, list[Part]] = {}
    for part in parts:
        found.setdefault(part.priority, []).append(part)
    return tuple(
        Tier(
            priority,
            max(part.percent for part in alike),
            tuple(sorted({part.cluster for part in alike})),
            tuple(alike),
        )
        for priority, alike in sorted(found.items())
    )


class _Total(NamedTuple):
    """What a tier's parts come to; of what is withdrawn only `backends` counts. factor: of the
    part that is turned up the most.
    """

    tier: Tier
    backends: int
    eligible: int
    expected: int
    healthy: int
    weight: int
    factor: int

    @property
    def health(self) -> float:
        return self.healthy / self.expected if self.expected else 0.0

    @property
    def turned(self) -> float:
        return min(1.0, self.factor / FACTOR_UNIT)

    def keeps(self, spill: Spill, amount: SpillAmount) -> float:
        """The part of what reaches it that it keeps."""
        below = spill.below_percent / 100
        if not self.eligible:
            return 0.0
        kept = 1.0
        if self.health < below:
            kept = self.health / below if amount is SpillAmount.PROPORTIONAL else 0.0
        return kept * self.turned * self.tier.percent / 100


def _total(tier: Tier) -> _Total:
    # Each change of a backend comes by here: plain numbers take a third of the time of adding up
    # in an object.
    backends = eligible = expected = healthy = weight = factor = 0
    for part in tier.parts:
        load = part.load
        backends += load.backends
        if part.standing is Standing.WITHDRAWN:
            continue
        eligible += load.eligible
        expected += load.expected
        healthy += load.healthy
        weight += load.weight
        if load.eligible and part.factor > factor:
            factor = part.factor
    return _Total(tier, backends, eligible, expected, healthy, weight, factor)


def shown_priority(priority: int, standing: Standing, distance: int) -> int:
    """A priority as its cluster's liveness shows it."""
    return priority + distance + (DEMOTION if standing is Standing.DEMOTED else 0)


def share_of(backend: Backend, tier: TierShare) -> float:
    """How much of a service's traffic a backend takes that is in, in PPM. tier: its own."""
    return tier.share_ppm * backend.weight / tier.weight


def tier_shares(tiers: Iterable[Tier], spill: Spill) -> tuple[TierShare, ...]:
    """The tiers of a service, by priority, with their shares."""
    totals = [_total(tier) for tier in tiers]
    reached, kept = _flow(totals, spill)
    shares = _in_ppm(kept)
    return tuple(
        TierShare(
            priority=total.tier.priority,
            clusters=total.tier.clusters,
            backends=total.backends,
            eligible=total.eligible,
            weight=total.weight,
            healthy_ppm=round(total.health * PPM),
            turned_ppm=round(total.turned * PPM),
            percent=total.tier.percent,
            reach_ppm=round(reach * PPM),
            share_ppm=share,
        )
        for total, reach, share in zip(totals, reached, shares, strict=True)
    )


def _flow(totals: Sequence[_Total], spill: Spill) -> tuple[list[float], list[float]]:
    """What reaches each tier, and what it keeps of it."""
    keeps = [total.keeps(spill, spill.amount) for total in totals]
    if not any(keeps):
        keeps = [total.keeps(spill, SpillAmount.PROPORTIONAL) for total in totals]
    reached: list[float] = []
    kept: list[float] = []
    left = 1.0
    for number, keep in enumerate(keeps):
        reached.append(left)
        kept.append(left * keep)
        left -= kept[-1]
        if keep and spill.split is SpillSplit.SPREAD:
            rest = _spread(totals[number + 1 :], left)
            return reached + [left] * len(rest), kept + rest
    return reached, kept


def _spread(totals: Sequence[_Total], left: float) -> list[float]:
    """What is left, over all tiers in proportion to their weight; over demoted ones only if there
    is nothing else. What is too much for one's percent goes to the others.
    """
    fresh = any(total.weight for total in totals if total.tier.priority < DEMOTION)
    weights = {
        number: total.weight
        for number, total in enumerate(totals)
        if total.weight and (total.tier.priority < DEMOTION or not fresh)
    }
    caps = [left * total.tier.percent / 100 for total in totals]
    shares = [0.0] * len(totals)
    while weights:
        whole = sum(weights.values())
        full = [one for one, weight in weights.items() if left * weight > caps[one] * whole]
        if not full:
            for number, weight in weights.items():
                shares[number] = left * weight / whole
            return shares
        for number in full:
            shares[number] = caps[number]
            left -= caps[number]
            del weights[number]
    return shares


def _in_ppm(kept: Sequence[float]) -> list[int]:
    """Shares of the whole, rounded so that they add up to it."""
    whole = sum(kept)
    if not whole:
        return [0] * len(kept)
    bounds = [round(so_far / whole * PPM) for so_far in accumulate(kept)]
    return [bound - before for before, bound in zip([0, *bounds], bounds, strict=False)]
