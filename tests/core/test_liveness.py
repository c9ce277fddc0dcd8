"""What losing sight of a cluster does to its backends: nothing before its time, then by rule."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.core.liveness import StalenessRules, standing_of
from meshd.model.staleness import StalenessPolicy
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
