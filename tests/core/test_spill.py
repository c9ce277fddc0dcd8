"""Sharing traffic among tiers: what holds whatever the numbers are."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from meshd.core.spill import Load, Part, in_tiers, shown_priority, tier_shares
from meshd.core.tiers import DEMOTION
from meshd.model.ids import ClusterName
from meshd.model.service import Spill, SpillAmount, SpillSplit
from meshd.model.table import FACTOR_UNIT, PPM, Standing

STEP_PPM = 2
"""Shares are rounded to whole parts per million, each by its two bounds."""


@st.composite
def loads(draw: st.DrawFn) -> Load:
    """Endpoints of weight 100, some of them ready."""
    ready, unready = draw(st.integers(0, 30)), draw(st.integers(0, 30))
    return Load(
        backends=ready + unready + draw(st.integers(0, 3)),
        eligible=ready,
        expected=(ready + unready) * 100,
        healthy=ready * 100,
        weight=0,
    )


@st.composite
def parts(draw: st.DrawFn) -> Part:
    factor = draw(st.sampled_from([1, 2500, FACTOR_UNIT, 3 * FACTOR_UNIT]))
    load = draw(loads())
    load.weight = load.healthy * factor
    standing = draw(st.sampled_from(Standing))
    return Part(
        cluster=ClusterName(draw(st.sampled_from("abc"))),
        priority=shown_priority(draw(st.sampled_from([0, 10, 16])), standing, 0),
        standing=standing,
        factor=factor,
        percent=draw(st.sampled_from([1, 50, 100])),
        load=load,
    )


spills = st.builds(
    Spill,
    below_percent=st.integers(0, 100),
    amount=st.sampled_from(SpillAmount),
    split=st.sampled_from(SpillSplit),
)


@given(st.lists(parts(), max_size=6), spills)
def test_all_of_the_traffic_goes_somewhere_while_anything_is_in(
    some: list[Part], spill: Spill
) -> None:
    tiers = tier_shares(in_tiers(some), spill)
    is_any_in = any(part.load.eligible and part.standing is not Standing.WITHDRAWN for part in some)
    assert sum(tier.share_ppm for tier in tiers) == (PPM if is_any_in else 0)
    assert all(tier.share_ppm >= 0 for tier in tiers)
    assert all(tier.share_ppm == 0 for tier in tiers if not tier.eligible)
    assert [tier.priority for tier in tiers] == sorted({part.priority for part in some})


@given(st.lists(parts(), max_size=4), spills)
def test_the_order_in_which_parts_come_means_nothing(some: list[Part], spill: Spill) -> None:
    shares = {tier_shares(in_tiers(order), spill) for order in permutations(some)}
    assert len(shares) == 1


@given(st.lists(parts(), min_size=1, max_size=5), spills, st.data())
def test_a_tier_that_recovers_never_gets_less(
    some: list[Part], spill: Spill, data: st.DataObject
) -> None:
    """One more of what is not ready becomes ready."""
    number = data.draw(st.integers(0, len(some) - 1))
    part = some[number]
    old = part.load
    if old.healthy == old.expected or part.standing is Standing.WITHDRAWN:
        return
    new = replace(
        old,
        eligible=old.eligible + 1,
        healthy=old.healthy + 100,
        weight=old.weight + 100 * part.factor,
    )
    after = [replace(part, load=new) if one is part else one for one in some]
    before_ppm, after_ppm = (
        next(
            tier.share_ppm
            for tier in tier_shares(in_tiers(them), spill)
            if tier.priority == part.priority
        )
        for them in (some, after)
    )
    assert after_ppm >= before_ppm - STEP_PPM


@given(st.lists(parts(), max_size=5), spills)
def test_what_is_demoted_takes_nothing_while_a_healthy_tier_is_whole(
    some: list[Part], spill: Spill
) -> None:
    whole = Part(ClusterName("z"), 0, Standing.FRESH, FACTOR_UNIT, 100, Load(1, 1, 100, 100, 100))
    fresh = [one for one in some if one.priority >= DEMOTION]
    tiers = tier_shares(in_tiers([whole, *fresh]), spill)
    assert [tier.share_ppm for tier in tiers][:1] == [PPM]
