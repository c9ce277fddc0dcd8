"""Where clusters' addresses collide: announced ranges, and the ranges of nodes' pods.

For: conditions that people are shown, of the states of all clusters. Not for: refusing anything:
what collides now may become right, and each cluster says only its own. Invariants: pure, and the
same in every cluster that has the same states; what is found grows with the ranges and not with
their pairs, however many lie in one another.

Rules:
- Announced ranges of two clusters collide if one lies in the other.
- Ranges of two nodes collide in the same way, of one cluster's as of two clusters'.
- A node's range collides with what another cluster announces; if it lies in what its own cluster
  announces, those two collide and this isn't said for every node as well.
- A node's range lies in what its cluster announces, if that announces anything.

Two ranges never cross. So, sorted, a range comes behind all that hold it, and those are the ones
that are still open when it comes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from meshd.core.state import ClusterState
from meshd.model.forms import network_of
from meshd.model.ids import ClusterName

SHOWN_MAX = 100
"""More than anybody mends at a time; how many there are is told beside them."""

ADDRESS_BITS = {4: 32, 6: 128}
"""By the version of the Internet Protocol."""


class RangeCondition(StrEnum):
    """What is wrong about two ranges, the worst first."""

    ANNOUNCED_OVERLAP = "announced-ranges-overlap"
    NODES_OVERLAP = "node-ranges-overlap"
    NODE_IN_ANOTHERS = "node-range-in-anothers"
    NODE_OUTSIDE = "node-range-outside-announced"


@dataclass(frozen=True, slots=True)
class RangeProblem:
    """One of them. clusters: whose, sorted; one if it is that cluster's own affair. ranges: those
    that collide, the wider one first. message: what is wrong and what to do.
    """

    type: RangeCondition
    clusters: tuple[ClusterName, ...]
    ranges: tuple[str, ...]
    message: str


@dataclass(frozen=True, slots=True)
class Overlaps:
    """All that was found. shown: the worst of it. counts: how many there are, by cluster."""

    count: int = 0
    shown: tuple[RangeProblem, ...] = ()
    counts: Mapping[ClusterName, int] = field(default_factory=dict)

    def of(self, cluster: ClusterName) -> tuple[RangeProblem, ...]:
        """What of the shown concerns a cluster."""
        return tuple(problem for problem in self.shown if cluster in problem.clusters)


@dataclass(frozen=True, slots=True)
class Claim:
    """A range that a cluster says is its own. node: whose pods' it is; '' if it is announced."""

    version: int
    first: int
    prefix_bits: int
    cluster: ClusterName
    node: str
    text: str

    @property
    def order(self) -> tuple[int, int, int, bool, ClusterName, str]:
        """What is announced comes before a node's range that is the same."""
        is_node = bool(self.node)
        return self.version, self.first, self.prefix_bits, is_node, self.cluster, self.node

    def holds(self, other: Claim) -> bool:
        """Whether another one, which comes behind it in the order, lies in this one."""
        free_bits = ADDRESS_BITS[self.version] - self.prefix_bits
        return self.version == other.version and self.first >> free_bits == other.first >> free_bits

    def __str__(self) -> str:
        what = f"of node {self.node} of {self.cluster}" if self.node else f"of {self.cluster}"
        return f"{self.text} {what}"


def ranges_in(state: ClusterState) -> tuple[tuple[str, str], ...]:
    """All ranges that a cluster speaks of, each behind its node's name, or behind '' if it is
    announced. Cheap: what costs time is reading them, which can be done when the state moves on.
    """
    announced = state.info.value.announces if state.info else ()
    of_nodes = ((name, text) for name, held in state.nodes.items() for text in held.value.pod_cidrs)
    return (*(("", text) for text in announced), *of_nodes)


def claims_of(cluster: ClusterName, ranges: Iterable[tuple[str, str]]) -> list[Claim]:
    """A cluster's ranges, read."""
    return [_claim(cluster, node, text) for node, text in ranges]


def _claim(cluster: ClusterName, node: str, text: str) -> Claim:
    network = network_of(text)
    first = int(network.network_address)
    return Claim(network.version, first, network.prefixlen, cluster, node, text)


def overlaps(claims: Iterable[Claim]) -> Overlaps:
    """What collides among the ranges of all clusters."""
    ordered = sorted(claims, key=lambda claim: claim.order)
    announcing = frozenset(claim.cluster for claim in ordered if not claim.node)
    sweep = _Sweep(announcing)
    for claim in ordered:
        sweep.take(claim)
    kept = [problem for kind in RangeCondition for problem in sweep.kept[kind]]
    return Overlaps(sweep.count, tuple(kept[:SHOWN_MAX]), dict(sorted(sweep.counts.items())))


class _Open:
    """The ranges that hold what comes now, counted so that nobody has to look at each.

    announced, nodes: how many by cluster. strays: nodes' ranges that don't lie in what their own
    cluster announces.
    """

    def __init__(self) -> None:
        self.stack: list[tuple[Claim, bool]] = []
        self.announced: Counter[ClusterName] = Counter()
        self.nodes: Counter[ClusterName] = Counter()
        self.strays: Counter[ClusterName] = Counter()

    def close_before(self, claim: Claim) -> None:
        while self.stack and not self.stack[-1][0].holds(claim):
            gone, is_stray = self.stack.pop()
            self._count(gone, -1, is_stray=is_stray)

    def push(self, claim: Claim, *, is_stray: bool) -> None:
        self.stack.append((claim, is_stray))
        self._count(claim, 1, is_stray=is_stray)

    def _count(self, claim: Claim, change: int, *, is_stray: bool) -> None:
        counters = [self.nodes if claim.node else self.announced]
        if is_stray:
            counters.append(self.strays)
        for counter in counters:
            counter[claim.cluster] += change
            if not counter[claim.cluster]:
                # Of the clusters here only those that are open are gone through.
                del counter[claim.cluster]


class _Sweep:
    """Goes through the ranges in order, and counts all that collides while it keeps some of it."""

    def __init__(self, announcing: frozenset[ClusterName]) -> None:
        self.count = 0
        self.counts: Counter[ClusterName] = Counter()
        self.kept: dict[RangeCondition, list[RangeProblem]] = {kind: [] for kind in RangeCondition}
        self._announcing = announcing
        self._open = _Open()

    def take(self, claim: Claim) -> None:
        self._open.close_before(claim)
        is_stray = bool(claim.node) and not self._open.announced[claim.cluster]
        if is_stray and claim.cluster in self._announcing:
            self._note(RangeCondition.NODE_OUTSIDE, claim, {claim.cluster: 1})
        for kind, by_cluster in self._hits(claim, is_stray=is_stray):
            self._note(kind, claim, by_cluster)
        self._open.push(claim, is_stray=is_stray)

    def _hits(
        self, claim: Claim, *, is_stray: bool
    ) -> Iterator[tuple[RangeCondition, Mapping[ClusterName, int]]]:
        """How many of each cluster's open ranges collide with this one."""
        open_ = self._open
        if claim.node:
            yield RangeCondition.NODES_OVERLAP, open_.nodes
            if is_stray:
                yield RangeCondition.NODE_IN_ANOTHERS, open_.announced
        else:
            others = {name: n for name, n in open_.announced.items() if name != claim.cluster}
            yield RangeCondition.ANNOUNCED_OVERLAP, others
            strays = {name: n for name, n in open_.strays.items() if name != claim.cluster}
            yield RangeCondition.NODE_IN_ANOTHERS, strays

    def _note(
        self, kind: RangeCondition, claim: Claim, by_cluster: Mapping[ClusterName, int]
    ) -> None:
        hits = sum(by_cluster.values())
        self.count += hits
        if hits:
            self.counts[claim.cluster] += hits
        for cluster, number in by_cluster.items():
            if cluster != claim.cluster:
                self.counts[cluster] += number
        kept = self.kept[kind]
        if hits and len(kept) < SHOWN_MAX:
            kept += self._shown(kind, claim)[: SHOWN_MAX - len(kept)]

    def _shown(self, kind: RangeCondition, claim: Claim) -> list[RangeProblem]:
        if kind is RangeCondition.NODE_OUTSIDE:
            return [RangeProblem(kind, (claim.cluster,), (claim.text,), _outside(claim))]
        found = []
        for other, is_stray in self._open.stack:
            if _collides(kind, other, claim, is_stray=is_stray):
                clusters = tuple(sorted({other.cluster, claim.cluster}))
                ranges = (other.text, claim.text)
                found.append(RangeProblem(kind, clusters, ranges, _message(kind, other, claim)))
                if len(found) == SHOWN_MAX:
                    break
        return found


def _collides(kind: RangeCondition, other: Claim, claim: Claim, *, is_stray: bool) -> bool:
    """Whether an open range is one of those that were counted."""
    if kind is RangeCondition.NODES_OVERLAP:
        return bool(other.node)
    if other.cluster == claim.cluster:
        return False
    if kind is RangeCondition.ANNOUNCED_OVERLAP:
        return not other.node
    return not other.node if claim.node else is_stray


def _message(kind: RangeCondition, wide: Claim, narrow: Claim) -> str:
    both = f"{narrow} lies in {wide}" if narrow.text != wide.text else f"{narrow} is also {wide}"
    if kind is RangeCondition.ANNOUNCED_OVERLAP:
        return f"{both}; have one of them announce another range (PUT /v1/cluster)"
    if kind is RangeCondition.NODES_OVERLAP:
        return f"{both}; give one of the nodes another range, or remove it if it is gone"
    return f"{both}; move the node, or have the cluster announce less"


def _outside(claim: Claim) -> str:
    return (
        f"{claim} does not lie in what the cluster announces; announce it (PUT /v1/cluster), or"
        " give the node another range"
    )
