"""What errors say: where, what and what to do, short, whatever they are about."""

from __future__ import annotations

import pytest

from meshd.model.errors import (
    SHOWN_CHARS_MAX,
    CompactedError,
    CorruptError,
    OverloadedError,
    Problem,
    RejectedError,
    shown,
)


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (Problem("ports[0].port", "is missing", "add it"), "ports[0].port: is missing (add it)"),
        (Problem("ports", "is missing"), "ports: is missing"),
        (Problem("", "is missing"), "is missing"),
    ],
)
def test_a_problem_in_words(problem: Problem, text: str) -> None:
    assert str(problem) == text


def test_a_rejection_tells_all_its_problems() -> None:
    error = RejectedError((Problem("a", "is bad"), Problem("b", "is worse")))
    assert str(error) == "a: is bad; b: is worse"


def test_errors_carry_what_one_needs_to_react() -> None:
    assert CompactedError(7).compact_revision == 7
    assert OverloadedError("the queue", 1.5).retry_after_s == 1.5
    assert str(OverloadedError("the queue", 1.5)) == "the queue is full; try again in 1.5 s"
    assert str(CorruptError("key", "bad")) == "key: bad"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("short", "'short'"),
        ("x" * 1000, "'" + "x" * (SHOWN_CHARS_MAX - 1) + "…"),
        (10**10_000, "something unprintable of type int"),
        (nested(100_000), "something unprintable of type list"),
    ],
    ids=["short", "long", "longer than Python writes numbers", "deeper than Python follows"],
)
def test_any_value_can_be_shown(value: object, text: str) -> None:
    assert shown(value) == text
