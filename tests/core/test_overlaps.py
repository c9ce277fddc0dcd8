"""Where address ranges collide: each rule, and the sweep against looking at every pair."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_network
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.core.overlaps import (
    SHOWN_MAX,
    Claim,
    Overlaps,
    RangeCondition,
    claims_of,
    overlaps,
    ranges_in,
)
from meshd.core.state import ClusterState, Held
from meshd.model.cluster import ClusterInfo
from meshd.model.ids import ClusterName, Seq
from meshd.model.node import Node

EAST, WEST, SOUTH = ClusterName("east"), ClusterName("west"), ClusterName("south")
ANNOUNCED, NODES, INSIDE, OUTSIDE = RangeCondition


def state(*announces: str, **nodes: tuple[str, ...]) -> ClusterState:
    info = ClusterInfo(name="any", id=1, announces=announces)
    found = ClusterState(info=Held(info, Seq(1), 0, "ann"))
    for name, ranges in nodes.items():
        node = Node(addresses=("192.0.2.1",), pod_cidrs=ranges)
        found.nodes[name] = Held(node, Seq(2), 0, "ann")
    return found


def found(**states: ClusterState) -> Overlaps:
    claims: list[Claim] = []
    for name, one in states.items():
        claims += claims_of(ClusterName(name), ranges_in(one))
    return overlaps(claims)


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ({}, []),
        ({"east": ClusterState()}, []),
        ({"east": state("10.1.0.0/16"), "west": state("10.2.0.0/16")}, []),
        (
            {"east": state("10.0.0.0/8"), "west": state("10.2.0.0/16")},
            [(ANNOUNCED, ("east", "west"), ("10.0.0.0/8", "10.2.0.0/16"))],
        ),
        (
            {"east": state("10.2.0.0/16"), "west": state("10.2.0.0/16")},
            [(ANNOUNCED, ("east", "west"), ("10.2.0.0/16", "10.2.0.0/16"))],
        ),
        # The same bits in the other family are another range.
        ({"east": state("::/8"), "west": state("0.0.0.0/8")}, []),
        (
            {"east": state("fd00::/8"), "west": state("fd00:1::/32")},
            [(ANNOUNCED, ("east", "west"), None)],
        ),
        # Nodes of one cluster, and of two.
        ({"east": state(a=("10.1.1.0/24",), b=("10.1.2.0/24",))}, []),
        (
            {"east": state(a=("10.1.1.0/24",), b=("10.1.1.0/25",))},
            [(NODES, ("east",), ("10.1.1.0/24", "10.1.1.0/25"))],
        ),
        (
            {"east": state(a=("10.1.1.0/24",)), "west": state(a=("10.1.1.0/24",))},
            [(NODES, ("east", "west"), ("10.1.1.0/24", "10.1.1.0/24"))],
        ),
        # A node in what another cluster announces, and around it.
        (
            {"east": state("10.1.0.0/16"), "west": state(a=("10.1.1.0/24",))},
            [(INSIDE, ("east", "west"), ("10.1.0.0/16", "10.1.1.0/24"))],
        ),
        (
            {"east": state("10.1.1.0/24"), "west": state(a=("10.1.0.0/16",))},
            [(INSIDE, ("east", "west"), ("10.1.0.0/16", "10.1.1.0/24"))],
        ),
        # A node where it should be, also if the ranges are the same; and where it should not.
        ({"east": state("10.1.0.0/16", a=("10.1.0.0/16",))}, []),
        ({"east": state("10.1.0.0/16", a=("10.1.1.0/24",))}, []),
        (
            {"east": state("10.1.0.0/16", a=("10.2.1.0/24",))},
            [(OUTSIDE, ("east",), ("10.2.1.0/24",))],
        ),
        (
            {"east": state("10.1.1.0/24", a=("10.1.0.0/16",))},
            [(OUTSIDE, ("east",), ("10.1.0.0/16",))],
        ),
        # Two clusters announce too much: that is told once, and not for every node in there.
        (
            {
                "east": state("10.0.0.0/8", a=("10.1.1.0/24",)),
                "west": state("10.1.0.0/16", b=("10.1.2.0/24",), c=("10.1.3.0/24",)),
            },
            [(ANNOUNCED, ("east", "west"), ("10.0.0.0/8", "10.1.0.0/16"))],
        ),
    ],
)
def test_what_collides_is_told_with_whose_it_is(
    states: dict[str, ClusterState],
    expected: list[tuple[RangeCondition, tuple[str, ...], tuple[str, ...] | None]],
) -> None:
    seen = found(**states)
    assert seen.count == len(seen.shown) == len(expected)
    for problem, (kind, clusters, ranges) in zip(seen.shown, expected, strict=True):
        assert (problem.type, problem.clusters) == (kind, clusters)
        assert ranges is None or problem.ranges == ranges
        for cluster in clusters:
            assert seen.of(ClusterName(cluster)) == (problem,)
            assert seen.counts[ClusterName(cluster)] == 1


def test_a_message_names_both_and_says_what_to_do() -> None:
    seen = found(
        east=state("10.1.0.0/16", a=("10.1.1.0/24",)),
        west=state("10.1.0.0/16", b=("10.1.1.0/25",), c=("10.9.0.0/24",)),
    )
    announced, nodes, outside = seen.shown
    assert announced.message == (
        "10.1.0.0/16 of west is also 10.1.0.0/16 of east; have one of them announce another range"
        " (PUT /v1/cluster)"
    )
    assert nodes.message.startswith(
        "10.1.1.0/25 of node b of west lies in 10.1.1.0/24 of node a of east; give one"
    )
    assert "does not lie in what the cluster announces; announce it" in outside.message
    stray = found(east=state("10.1.0.0/16"), west=state(a=("10.1.1.0/24",)))
    assert stray.shown[0].message.endswith("; move the node, or have the cluster announce less")


# Few and short ranges, so that they lie in one another.
networks = st.builds(
    lambda number, bits: str(ip_network((number << 29 & -1 << (32 - bits), bits))),
    st.integers(0, 7),
    st.integers(0, 4),
)
names = st.sampled_from((EAST, WEST, SOUTH))


def _claims(items: list[tuple[ClusterName, str, str]]) -> list[Claim]:
    """Claims of which each is there once; what one cluster announces does not overlap."""
    claims: dict[tuple[ClusterName, str, str], Claim] = {}
    for cluster, node, text in items:
        network = ip_network(text)
        own = [ip_network(one.text) for one in claims.values() if one.cluster == cluster]
        same = [one for one in claims.values() if (one.cluster, one.node) == (cluster, node)]
        if own and any(ip_network(one.text).overlaps(network) for one in same):
            continue
        first = int(network.network_address)
        claim = Claim(network.version, first, network.prefixlen, cluster, node, text)
        claims[cluster, node, text] = claim
    return list(claims.values())


def _is_covered(claim: Claim, claims: list[Claim]) -> bool:
    inner = ip_network(claim.text)
    return any(
        inner.subnet_of(ip_network(one.text))  # type: ignore[arg-type]
        for one in claims
        if one.cluster == claim.cluster and not one.node
    )


def _by_pairs(claims: list[Claim]) -> tuple[Counter[RangeCondition], Counter[ClusterName]]:
    """The rules, looking at every pair."""
    kinds: Counter[RangeCondition] = Counter()
    clusters: Counter[ClusterName] = Counter()

    def note(kind: RangeCondition, *whose: ClusterName) -> None:
        kinds[kind] += 1
        clusters.update(set(whose))

    for one, other in combinations(claims, 2):
        if not ip_network(one.text).overlaps(ip_network(other.text)):
            continue
        is_own = one.cluster == other.cluster
        if one.node and other.node:
            note(NODES, one.cluster, other.cluster)
        elif not one.node and not other.node:
            note(ANNOUNCED, one.cluster, other.cluster)
        elif not is_own and not _is_covered(one if one.node else other, claims):
            note(INSIDE, one.cluster, other.cluster)
    announcing = {claim.cluster for claim in claims if not claim.node}
    for claim in claims:
        if claim.node and claim.cluster in announcing and not _is_covered(claim, claims):
            note(OUTSIDE, claim.cluster)
    return kinds, clusters


@given(st.lists(st.tuples(names, st.sampled_from(("", "a", "b")), networks), max_size=25))
def test_the_sweep_finds_what_looking_at_every_pair_finds(
    items: list[tuple[ClusterName, str, str]],
) -> None:
    claims = _claims(items)
    kinds, clusters = _by_pairs(claims)
    seen = overlaps(claims)
    assert seen.count == kinds.total()
    assert seen.counts == clusters
    assert overlaps(reversed(claims)) == seen
    shown = Counter(problem.type for problem in seen.shown)
    if seen.count <= SHOWN_MAX:
        assert shown == kinds


def test_one_range_may_collide_with_more_than_is_shown() -> None:
    strays = {f"n{number}": ("10.1.0.0/16",) for number in range(SHOWN_MAX + 50)}
    seen = found(east=state(**strays), west=state("10.1.1.0/24"))
    assert seen.counts[WEST] == SHOWN_MAX + 50
    assert len(seen.shown) == SHOWN_MAX


def test_what_is_shown_is_bounded_and_the_count_is_not() -> None:
    same = {f"n{number}": ("10.1.1.0/24",) for number in range(2000)}
    seen = found(east=state("10.1.0.0/16", **same), west=state("10.1.0.0/16"))
    assert seen.count == 2000 * 1999 // 2 + 1
    assert len(seen.shown) == SHOWN_MAX
    # The worst comes first.
    assert seen.shown[0].type is ANNOUNCED
    assert seen.counts == {"east": seen.count, "west": 1}
