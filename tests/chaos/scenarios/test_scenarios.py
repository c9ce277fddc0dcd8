"""What scenarios are made: the same from the same seed, nobody done two things at once."""

from __future__ import annotations

from typing import ClassVar

import pytest

from chaos.faults import catalogue
from chaos.scenarios.drawn import HOLD_MAX_S
from chaos.scenarios.known import recipe, recipes
from chaos.scenarios.scenario import Healing, Scenario, ScenarioError, Wish, agreed, settings_of

FAULTS = catalogue.faults()
NAMES = list(recipes(FAULTS))


def made(name: str, wish: Wish) -> Scenario:
    return recipe(name, FAULTS).make(wish, FAULTS)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_makes_the_same(name: str) -> None:
    wish = Wish(seed=7)
    assert made(name, wish) == made(name, wish)


@pytest.mark.parametrize("name", NAMES)
def test_nobody_is_done_two_things_at_once_and_somebody_is_left(name: str) -> None:
    scenario = made(name, Wish(seed=3, clusters=5))
    for window in scenario.windows:
        victims = [victim for hit in window.hits for victim in hit.victims]
        assert len(set(victims)) == len(victims)
        assert set(victims) <= set(scenario.names)
        assert all(hit.victims for hit in window.hits)
        # Whoever is done something to may be unable to tell what became of the others.
        assert name == "swizzle" or len(victims) < len(scenario.names)


@pytest.mark.parametrize("name", NAMES)
def test_it_begins_quietly_and_breaks_something(name: str) -> None:
    scenario = made(name, Wish(seed=3))
    assert scenario.windows[0].is_quiet
    assert scenario.faults
    assert settings_of(scenario, FAULTS) is not None


def test_isolation_breaks_one_then_two_then_all_but_one_in_every_way() -> None:
    scenario = made("isolation", Wish(clusters=5))
    many = [len(window.hits[0].victims) for window in scenario.windows[1:]]
    kinds = len(scenario.faults)
    assert many == [1] * kinds + [2] * kinds + [4] * kinds
    # Everybody is left alone at least once while most others are broken.
    spared = {
        name
        for window in scenario.windows[1:]
        for name in scenario.names
        if name not in window.hits[0].victims and len(window.hits[0].victims) == 4
    }
    assert len(spared) == min(kinds, 5)
    assert scenario.needed == ("I12",)


def test_random_is_as_long_as_wished_and_quiet_at_times() -> None:
    windows = [
        window
        for seed in range(20)
        for window in made("random", Wish(seed=seed, duration_s=600)).windows[1:]
    ]
    assert {len(window.hits) for window in windows} == {0, 1, 2}
    assert 0.15 < sum(window.is_quiet for window in windows) / len(windows) < 0.35
    assert {window.healing for window in windows if window.hits} == set(Healing)
    rows = {FAULTS[hit.fault].number for window in windows for hit in window.hits}
    here = [one for one in FAULTS.values() if not one.needs & NOT_HERE]
    assert rows == {one.number for one in here if one.hold_s <= HOLD_MAX_S}
    for seed in range(20):
        assert 600 <= made("random", Wish(seed=seed, duration_s=600)).length_s < 700


NOT_HERE = frozenset({"ha", "members", "broker"})


def test_a_seed_draws_another_run() -> None:
    assert made("random", Wish(seed=1)).windows != made("random", Wish(seed=2)).windows


@pytest.mark.parametrize(
    ("name", "wish", "says"),
    [
        ("isolatoin", Wish(), "did you mean isolation"),
        ("nothing-like-it", Wish(), "list --scenarios"),
        ("isolation", Wish(clusters=2), "from 3 on"),
        ("smoke", Wish(clusters=1), "2 to 10"),
        ("smoke", Wish(clusters=11), "2 to 10"),
    ],
)
def test_what_cannot_be_made_is_told(name: str, wish: Wish, says: str) -> None:
    with pytest.raises(ScenarioError, match=says):
        made(name, wish)


class Patient:
    name = "patient"
    settings: ClassVar = {"x.wait_s": 5, "x.mode": "a"}


class Hasty:
    name = "hasty"
    settings: ClassVar = {"x.wait_s": 2, "x.mode": "a"}


class Other:
    name = "other"
    settings: ClassVar = {"x.mode": "b"}


def test_of_two_times_the_shorter_is_set_and_of_two_words_neither() -> None:
    faults = {one.name: one for one in (Patient, Hasty, Other)}
    expected = {"x.wait_s": 2, "x.mode": "a"}
    assert agreed(["patient", "hasty"], faults) == expected  # type: ignore[arg-type]
    assert agreed(["hasty", "patient"], faults) == expected  # type: ignore[arg-type]
    with pytest.raises(ScenarioError, match=r"other needs x\.mode=b, and hasty x\.mode=a"):
        agreed(["hasty", "other"], faults)  # type: ignore[arg-type]


def test_no_window_of_random_faults_begins_once_the_time_is_up() -> None:
    """Windows take longer than they say: as long as their faults need to show and to be healed."""
    scenario = made("random", Wish(duration_s=600))
    passed_s = [100.0]
    begun = []
    for number, window in scenario.due(lambda: sum(passed_s)):
        begun.append((number, window))
        passed_s.append(2 * window.length_s)
    assert sum(passed_s[:-1]) < 700 <= sum(passed_s)
    assert begun == list(enumerate(scenario.windows, 1))[: len(begun)]
    assert len(begun) < len(scenario.windows)


def test_all_windows_of_others_are_run_however_long_they_take() -> None:
    scenario = made("isolation", Wish(clusters=5))
    times = iter(range(10**6))
    assert len(list(scenario.due(lambda: 1000.0 * next(times)))) == len(scenario.windows)
