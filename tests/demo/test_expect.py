"""What is expected of requests: each expectation can fail."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from meshd.demo.caller import Answer, Kind
from meshd.demo.catalog import (
    CALM,
    CLUSTERS,
    EAST_ONLY,
    LOCAL_ONLY,
    Trouble,
    expected_shares,
    services_for,
    without_any,
)
from meshd.demo.expect import never_from, no_failures, only_from, reported_as_none, shares
from meshd.demo.tally import Tally

EAST_EMPTY = Trouble(empty=frozenset({"east"}))
WEST_DEMOTED = Trouble(demoted=frozenset({"west"}))


def tally_of(caller: str, service: str, answers: Mapping[str, int]) -> Tally:
    tally = Tally()
    for cluster, number in answers.items():
        for _ in range(number):
            tally.count(caller, Answer(service, Kind.ANSWERED, cluster, f"{service}-1"))
    return tally


def as_expected(caller: str, number: int = 60) -> Tally:
    tally = Tally()
    for service in services_for(caller):
        for cluster, share in expected_shares(caller, service).items():
            for _ in range(round(number * share)):
                tally.count(caller, Answer(service, Kind.ANSWERED, cluster, "x"))
    return tally


@pytest.mark.parametrize(
    ("caller", "service", "trouble", "expected"),
    [
        ("east", "web", CALM, {"east": 0.4, "west": 0.4, "south": 0.2}),
        ("east", "catalog", CALM, {"east": 1 / 6, "west": 4 / 6, "south": 1 / 6}),
        ("east", "cart", CALM, {"east": 1.0}),
        ("east", "search", CALM, {"west": 0.5, "south": 0.5}),
        ("south", "checkout", CALM, {"east": 0.5, "west": 0.5}),
        ("west", "currency", EAST_EMPTY, {"west": 1.0}),
        ("east", "currency", EAST_EMPTY, {"west": 1.0}),
        ("east", "cart", EAST_EMPTY, {"west": 2 / 3, "south": 1 / 3}),
        ("west", "ads", CALM, {"west": 1.0}),
        # Half of its backends are ready: five sevenths stay, and the rest overflows.
        ("south", "ads", CALM, {"south": 5 / 7, "west": 2 / 7}),
        ("south", "search", EAST_EMPTY, {"west": 5 / 7, "south": 2 / 7}),
        ("east", EAST_ONLY, CALM, {"east": 1.0}),
        ("east", EAST_ONLY, EAST_EMPTY, {}),
        ("east", "recommend", WEST_DEMOTED, {"west": 1.0}),
        ("east", "web", WEST_DEMOTED, {"east": 2 / 3, "south": 1 / 3}),
        ("west", "web", WEST_DEMOTED, {"east": 0.4, "west": 0.4, "south": 0.2}),
    ],
)
def test_shares_follow_from_the_shop(
    caller: str, service: str, trouble: Trouble, expected: dict[str, float]
) -> None:
    assert expected_shares(caller, service, trouble) == pytest.approx(expected)


def test_only_the_ledger_is_lost_with_east() -> None:
    assert without_any("east", EAST_EMPTY) == [EAST_ONLY]
    assert not any(without_any(name, CALM) for name in CLUSTERS)
    assert all(LOCAL_ONLY not in services_for(name) for name in CLUSTERS)


def test_right_shares_are_found_right() -> None:
    findings = list(shares(as_expected("east"), ["east"], CALM))
    assert [finding.ok for finding in findings] == [True]


@pytest.mark.parametrize(
    ("service", "answers", "word"),
    [
        ("cart", {"east": 59, "west": 1}, "cart: west answered 1 of 60, expected 0%"),
        ("web", {"east": 60}, "web: "),
        ("web", {}, "web: nobody answered"),
        ("catalog", {"east": 20, "west": 20, "south": 20}, "catalog: "),
    ],
)
def test_wrong_shares_are_found_wrong(service: str, answers: dict[str, int], word: str) -> None:
    tally = as_expected("east")
    tally.answered[("east", service)] = tally_of("east", service, answers).answered.get(
        ("east", service), type(tally.sent)()
    )
    (finding,) = shares(tally, ["east"], CALM)
    assert not finding.ok
    assert word in finding.detail


def test_a_failed_request_is_found() -> None:
    tally = as_expected("east")
    assert no_failures(tally, CLUSTERS, CALM, "request").ok
    tally.count("east", Answer("web", Kind.FAILED, retries=2, problem="boom"))
    finding = no_failures(tally, CLUSTERS, CALM, "request")
    assert not finding.ok
    assert "boom" in finding.detail


def test_no_request_at_all_is_no_success() -> None:
    assert not no_failures(Tally(), CLUSTERS, CALM, "request").ok


def test_no_backend_is_right_only_where_there_is_none() -> None:
    tally = as_expected("east")
    tally.count("east", Answer(EAST_ONLY, Kind.NO_BACKEND))
    assert no_failures(tally, CLUSTERS, EAST_EMPTY, "request").ok
    assert not no_failures(tally, CLUSTERS, CALM, "request").ok


def test_a_service_without_backend_must_be_known_to_have_none() -> None:
    tally = Tally()
    assert not reported_as_none(tally, "east", EAST_ONLY).ok
    tally.count("east", Answer(EAST_ONLY, Kind.NO_BACKEND))
    assert reported_as_none(tally, "east", EAST_ONLY).ok
    tally.count("east", Answer(EAST_ONLY, Kind.FAILED, retries=1))
    assert not reported_as_none(tally, "east", EAST_ONLY).ok


def test_who_answered_alone_or_not_at_all() -> None:
    mixed = tally_of("east", "cart", {"east": 2, "west": 1})
    alone = tally_of("east", "cart", {"east": 2})
    route = ("east", "cart")
    assert only_from(alone, route, "east").ok
    assert not only_from(mixed, route, "east").ok
    assert not only_from(Tally(), route, "east").ok
    assert never_from(alone, route, "west").ok
    assert not never_from(mixed, route, "west").ok
    assert not never_from(Tally(), route, "west").ok


def test_a_retried_request_counts_once() -> None:
    tally = Tally()
    tally.count("east", Answer("web", Kind.ANSWERED, "west", "web-1", retries=3))
    assert tally.sent[("east", "web")] == tally.retried[("east", "web")] == 1
    assert not tally.failed
