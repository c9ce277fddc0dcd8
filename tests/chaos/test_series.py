"""What is drawn over time leaves out nothing that stands out."""

from __future__ import annotations

from functools import cache

import pytest

from chaos.evidence import NS_PER_S, Evidence
from chaos.history import Bounds, Entry, PeerSeen, RunEnded, RunStarted, StatusRead
from chaos.report import series
from chaos.report.lanes import duration, time_text
from chaos.report.series import Clock, Point, Span
from tests.chaos.stories import kill_one

STORY = cache(kill_one)


def test_of_many_points_the_worst_are_kept() -> None:
    points = [Point(number / 100_000, 0.001) for number in range(100_000)]
    points[777] = Point(points[777].place, 9.0)
    kept = series.worst(points)
    assert len(kept) <= series.POINTS_MAX
    assert points[777] in kept
    assert list(kept) == sorted(kept, key=lambda point: point.place)
    assert series.worst(points[:50]) == tuple(points[:50])


def run_of(*looks: tuple[int, str]) -> Evidence:
    entries: list[Entry] = [
        RunStarted(at_ns=0, seed=1, scenario="s", versions={}, clusters=("a",), bounds=Bounds())
    ]
    for at_s, phase in looks:
        peers = (PeerSeen("b", phase, 1, 0.0),)
        fields = {"process": "m", "cluster": "a", "ready": True, "vector": ""}
        entries.append(StatusRead(at_ns=at_s * NS_PER_S, peers=peers, **fields))  # type: ignore[arg-type]
    return Evidence([*entries, RunEnded(at_ns=100 * NS_PER_S)])


def test_phases_are_stretches_and_what_nobody_saw_is_left_open() -> None:
    evidence = run_of((0, "Ready"), (1, "Ready"), (2, "Stale"), (3, "Stale"), (60, "Ready"))
    found = series.phases(evidence, Clock(0, 100 * NS_PER_S))
    assert found["m", "b"] == (
        Span(0.0, 0.02, "Ready"),
        Span(0.02, 0.04, "Stale"),
        Span(0.6, 0.61, "Ready"),
    )


def test_lags_versions_and_appends_of_a_story() -> None:
    evidence = Evidence(STORY())
    clock = series.clock_of(evidence)
    lags = series.lags(evidence, clock)
    # c was dead, so that it was told late of what the others did; nobody else was.
    assert max(lags["a", "c"].values()) > 2
    assert max(lags["a", "b"].values()) < 0.1
    assert len(series.versions(evidence, clock)["c"]) < len(series.versions(evidence, clock)["a"])
    appends = series.appends(evidence, clock)
    assert [len(appends[name].unknown) for name in "abc"] == [0, 0, 1]
    assert all(0 <= point.place <= 1 for one in appends.values() for point in one.took)


@pytest.mark.parametrize(
    ("time_s", "says"),
    [(0.0000005, "0 µs"), (0.012, "12 ms"), (2.5, "2.5 s"), (0.9996, "1000 ms")],
)
def test_durations(time_s: float, says: str) -> None:
    assert duration(time_s) == says


@pytest.mark.parametrize(("time_s", "says"), [(0, "0 s"), (59.96, "60 s"), (61.2, "1:01")])
def test_moments(time_s: float, says: str) -> None:
    assert time_text(time_s) == says
