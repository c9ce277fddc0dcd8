"""Waits grow, keep apart, and end at a cap."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.core.backoff import delay_s

attempts = st.integers(0, 10**6)
chances = st.floats(0, 1)


@pytest.mark.parametrize(
    ("attempt", "chance", "expected_s"),
    [
        (0, 1.0, 0.2),
        (0, 0.0, 0.1),
        (0, 0.5, 0.15),
        (1, 1.0, 0.4),
        (5, 1.0, 6.4),
        (6, 1.0, 10.0),
        (6, 0.0, 5.0),
        (10**6, 1.0, 10.0),
    ],
)
def test_delays(attempt: int, chance: float, expected_s: float) -> None:
    assert delay_s(attempt, 0.2, 10.0, chance) == pytest.approx(expected_s)


@given(attempts, chances, st.floats(0.01, 60), st.floats(0.1, 3600))
def test_a_delay_is_never_nothing_and_never_above_the_cap(
    attempt: int, chance: float, first_s: float, cap_s: float
) -> None:
    assert min(first_s, cap_s) / 2 <= delay_s(attempt, first_s, cap_s, chance) <= cap_s


@given(attempts, chances)
def test_delays_never_shrink(attempt: int, chance: float) -> None:
    assert delay_s(attempt, 0.1, 5.0, chance) <= delay_s(attempt + 1, 0.1, 5.0, chance)
