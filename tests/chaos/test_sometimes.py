"""A run in which nothing happened proves nothing, and what nobody recorded is not judged."""

from __future__ import annotations

from functools import cache

import pytest

from chaos.evidence import Evidence
from chaos.history import (
    Completed,
    FaultBit,
    FaultInjected,
    Invoked,
    Outcome,
    RawLog,
    RunEnded,
    RunStarted,
    Stalled,
    StreamMessage,
    TableRead,
)
from chaos.validators.judging import VALIDATORS, judge
from chaos.validators.verdict import VIOLATIONS_SHOWN_MAX, Findings, Status
from tests.chaos.doctoring import Doctor, Entries, changed, dropped
from tests.chaos.stories import kill_one, numbered

STORY = cache(kill_one)


def without(*kinds: type) -> Doctor:
    def doctor(entries: Entries) -> Entries:
        return numbered([entry for entry in entries if not isinstance(entry, kinds)])

    return doctor


def all_unknown(entries: Entries) -> Entries:
    found = (index for index, entry in enumerate(entries) if isinstance(entry, Completed))
    for number, _ in enumerate(list(found)):
        entries = changed(Completed, number, {}, outcome=Outcome.UNKNOWN)(entries)
    return entries


def stalled_from(ms: int) -> Doctor:
    """Whoever recorded stood still from then until the end."""

    def doctor(entries: Entries) -> Entries:
        end_ns = entries[-1].at_ns
        stall = Stalled(at_ns=end_ns, from_ns=end_ns - ms * 1_000_000)
        return numbered([*entries[:-1], stall, entries[-1]])

    return doctor


@pytest.mark.parametrize(
    ("doctor", "says"),
    [
        (without(RunEnded), "the run came to its end: it was cut off: it has no last entry"),
        (changed(RunEnded, 0, {}, error="an etcd didn't start"), "an etcd didn't start"),
        (dropped(Invoked, 5), "its record is sound: operation 6 was answered twice, or never"),
        (changed(Invoked, 5, {}, op=5), "its record is sound: operation 5 is there twice"),
        (changed(Completed, 5, {}, op=5), "its record is sound: operation 5 was answered twice"),
        (all_unknown, "a command succeeded: 0 of 141"),
        (without(FaultBit), "every fault bit: 0 of 1 did; not: kill"),
        (without(FaultBit, FaultInjected), "every fault bit: 0 of 0 did"),
        (without(StreamMessage), "a stream was read: 0 messages"),
        (without(TableRead), "a table was read: 0 tables"),
        (stalled_from(10_000), "whoever recorded kept pace: 1 times not, for "),
        (without(RawLog), "a log was read by etcdctl: 0 of 0 dumps"),
    ],
)
def test_a_run_that_proves_nothing_says_why(doctor: Doctor, says: str) -> None:
    judgement = judge(Evidence(doctor(STORY())))
    assert not judgement.holds
    assert any(says in reason for reason in judgement.absent), judgement.absent


@pytest.mark.parametrize("invariant", VALIDATORS)
def test_of_a_run_of_which_nothing_was_recorded_nothing_is_judged(invariant: str) -> None:
    start = STORY()[0]
    assert isinstance(start, RunStarted)
    assert VALIDATORS[invariant](Evidence([start])).status is Status.NOT_JUDGED


def test_what_must_be_judged_is_missed() -> None:
    start = STORY()[0]
    judgement = judge(Evidence([start]), needed=["I4"])
    assert "I4 was to be judged, and nothing of it was recorded" in judgement.absent


def test_only_the_first_violations_are_kept_and_all_are_counted() -> None:
    found = Findings("I1", "things")
    for _ in range(VIOLATIONS_SHOWN_MAX + 5):
        found.violate("again", STORY()[3])
    verdict = found.verdict()
    assert (len(verdict.violations), verdict.count) == (VIOLATIONS_SHOWN_MAX, 25)
    assert verdict.status is Status.VIOLATED
