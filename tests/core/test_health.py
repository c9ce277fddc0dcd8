"""What answers to probes come to: thresholds, flaps and holds, for every row of answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.core.health import HOLD_S, RETURNS_MAX, RETURNS_WINDOW_S, Health, answered
from meshd.model.probe import ProbeResult

UNKNOWN, PASSING = ProbeResult.UNKNOWN, ProbeResult.PASSING
FAILING, FLAPPING = ProbeResult.FAILING, ProbeResult.FLAPPING
IN = {UNKNOWN, PASSING}
INTERVAL_S = 10.0


def after(answers: str, rise: int = 2, fall: int = 3, first: ProbeResult = UNKNOWN) -> ProbeResult:
    """What a row of + and - comes to, one each ten seconds."""
    health = Health(first)
    for number, answer in enumerate(answers):
        health = answered(health, rise, fall, number * INTERVAL_S, is_good=answer == "+")
    return health.result


FLAP = "---++"
"""Out and, but for the last time, back."""


@pytest.mark.parametrize(
    ("answers", "result"),
    [
        ("", UNKNOWN),
        ("+", UNKNOWN),
        ("--", UNKNOWN),
        ("++", PASSING),
        ("---", FAILING),
        ("++--", PASSING),
        ("++--+--", PASSING),
        ("++---", FAILING),
        ("++---+", FAILING),
        ("++---+-+", FAILING),
        ("++---++", PASSING),
        (FLAP * 2, PASSING),
        (FLAP * 3, FLAPPING),
        (FLAP * 3 + "---", FAILING),
        # It has been good since the first of the two that would have brought it back.
        (FLAP * 3 + "++++", FLAPPING),
        (FLAP * 3 + "+++++", PASSING),
        (FLAP * 3 + "+++-+++++", FLAPPING),
        (FLAP * 3 + "+++-+++++++", PASSING),
        # Forgiven: it may come and go as often as before.
        (FLAP * 3 + "+++++" + FLAP * 2, PASSING),
        (FLAP * 3 + "+++++" + FLAP * 3, FLAPPING),
        (FLAP * 3 + "--" + FLAP, FLAPPING),
        # Slowly is not flapping.
        ((FLAP + "+" * int(RETURNS_WINDOW_S / INTERVAL_S)) * 5, PASSING),
    ],
)
def test_a_row_of_answers(answers: str, result: ProbeResult) -> None:
    assert after(answers) == result


@pytest.mark.parametrize("first", list(ProbeResult))
def test_whoever_takes_over_goes_on_from_what_was_recorded(first: ProbeResult) -> None:
    assert after("", first=first) == first
    assert after("+", first=first) == first
    assert after("---", first=first) == FAILING
    assert after("++", first=first) == (FLAPPING if first is FLAPPING else PASSING)


ANSWERS = st.lists(st.tuples(st.booleans(), st.floats(0.1, 120)), max_size=200)
IN_A_ROW = st.integers(1, 5)


@given(ANSWERS, IN_A_ROW, IN_A_ROW)
def test_nothing_changes_but_by_as_many_answers_as_it_takes(
    answers: list[tuple[bool, float]], rise: int, fall: int
) -> None:
    health, now_s = Health(), 0.0
    row: list[bool] = []
    returned_s: list[float] = []
    for is_good, passed_s in answers:
        now_s += passed_s
        row.append(is_good)
        before, health = health, answered(health, rise, fall, now_s, is_good=is_good)
        if health.result is before.result:
            continue
        if health.result is FAILING:
            assert row[-fall:] == [False] * fall
        else:
            assert row[-rise:] == [True] * rise
        if before.result is FLAPPING and health.result is PASSING:
            returned_s.clear()
        elif before.result is FAILING and health.result is PASSING:
            # It was let in again, and so often at most within the window.
            returned_s = [at for at in returned_s if now_s - at < RETURNS_WINDOW_S] + [now_s]
            assert len(returned_s) < RETURNS_MAX
        assert health.result is not UNKNOWN


@given(ANSWERS, IN_A_ROW, IN_A_ROW)
def test_what_stays_well_comes_in_and_what_stays_ill_goes_out(
    answers: list[tuple[bool, float]], rise: int, fall: int
) -> None:
    health, now_s = Health(), 0.0
    for is_good, passed_s in answers:
        now_s += passed_s
        health = answered(health, rise, fall, now_s, is_good=is_good)
    well = ill = health
    for number in range(int(HOLD_S) + rise + 1):
        well = answered(well, rise, fall, now_s + number + 1, is_good=True)
    for number in range(fall):
        ill = answered(ill, rise, fall, now_s + number + 1, is_good=False)
    assert well.result in IN - {UNKNOWN}
    assert ill.result is FAILING
