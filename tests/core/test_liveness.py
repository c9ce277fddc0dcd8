"""What losing sight of a cluster does to its backends: nothing before its time, then by rule."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.core.liveness import StalenessRules, distance_of, standing_of
from meshd.model.staleness import Staleness, StalenessPolicy
from meshd.model.table import Standing

KEEP, DEMOTE, WITHDRAW = StalenessPolicy
ORDER = (Standing.FRESH, Standing.DEMOTED, Standing.WITHDRAWN)


def rules(policy: StalenessPolicy) -> StalenessRules:
    return StalenessRules(policy, stale_after_s=30, withdraw_after_s=600)


@pytest.mark.parametrize(
    ("policy", "unfresh_s", "standing"),
    [
        (KEEP, 0, Standing.FRESH),
        (KEEP, 10**9, Standing.FRESH),
        (DEMOTE, 0, Standing.FRESH),
        (DEMOTE, 29.9, Standing.FRESH),
        (DEMOTE, 30, Standing.DEMOTED),
        (DEMOTE, 10**9, Standing.DEMOTED),
        (WITHDRAW, 29.9, Standing.FRESH),
        (WITHDRAW, 30, Standing.DEMOTED),
        (WITHDRAW, 599.9, Standing.DEMOTED),
        (WITHDRAW, 600, Standing.WITHDRAWN),
    ],
)
def test_standings(policy: StalenessPolicy, unfresh_s: float, standing: Standing) -> None:
    assert standing_of(rules(policy), unfresh_s) is standing


def test_withdrawal_before_demotion_is_taken_at_its_word() -> None:
    early = StalenessRules(WITHDRAW, stale_after_s=30, withdraw_after_s=5)
    assert standing_of(early, 5) is Standing.WITHDRAWN


@given(st.sampled_from(StalenessPolicy), st.floats(0, 1e6), st.floats(0, 1e6))
def test_longer_out_of_sight_is_never_better(
    policy: StalenessPolicy, one_s: float, more_s: float
) -> None:
    before, after = standing_of(rules(policy), one_s), standing_of(rules(policy), one_s + more_s)
    assert ORDER.index(before) <= ORDER.index(after)


@pytest.mark.parametrize(
    ("round_trip_s", "step"), [(0.0, 0), (0.009, 0), (0.010, 1), (0.099, 1), (0.1, 2), (9.0, 2)]
)
def test_distances_come_in_few_steps(round_trip_s: float, step: int) -> None:
    assert distance_of(round_trip_s) == step


def test_who_says_part_of_a_policy_leaves_the_rest_to_the_peer() -> None:
    said = Staleness(policy=StalenessPolicy.WITHDRAW, withdraw_after_s=40.0)
    assert rules(DEMOTE).with_said(said) == StalenessRules(WITHDRAW, 30, 40.0)
    assert rules(DEMOTE).with_said(Staleness(stale_after_s=5.0)).stale_after_s == 5.0
    assert rules(DEMOTE).with_said(Staleness()) == rules(DEMOTE)
