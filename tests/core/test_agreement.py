"""Who agrees, who is behind, and what isn't known: no rosier than it is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from meshd.core.agreement import (
    MEMORY_MAX,
    Comparison,
    Here,
    Lag,
    Memory,
    Verdict,
    Word,
    doubt_about,
    heads_of,
    here_as_read_by,
    lacking,
    own_standpoint,
    standpoint,
    unheard,
    vector_in,
)
from meshd.model.ids import ClusterName, LogId, Position, Seq, Vector, format_vector
from meshd.model.peer import Phase

EAST, WEST, SOUTH = map(ClusterName, ("east", "west", "south"))
LOGS = {EAST: LogId("e" * 32), WEST: LogId("5" * 32), SOUTH: LogId("a" * 32)}
OTHER = LogId("f" * 32)
NOW_MS = 100_000


def at(**seqs: int) -> Vector:
    """Places in the usual logs."""
    return {
        ClusterName(name): Position(ClusterName(name), LOGS[ClusterName(name)], Seq(seq))
        for name, seq in seqs.items()
    }


VECTOR = at(east=5, west=7, south=3)
PLACES = {position.log_id: position.seq for position in VECTOR.values()}
HERE = Here(EAST, VECTOR, "d0", PLACES, PLACES, NOW_MS)
WORD = Word(WEST, VECTOR, "d1", 0.5, "")


def said(vector: Vector | None, **changes: object) -> Word:
    return replace(WORD, vector=vector, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("word", "derived", "verdict", "reason"),
    [
        (WORD, "d1", Verdict.AGREES, ""),
        (WORD, "d2", Verdict.DIFFERS, "at the same vector"),
        (WORD, None, Verdict.UNKNOWN, "was not derived here in time"),
        # It reads fewer logs, which is its own affair.
        (said(at(west=7, east=5)), "d1", Verdict.AGREES, ""),
        (said(at(west=7)), "d2", Verdict.DIFFERS, "at the same vector"),
        (said(at(east=4, west=7, south=3)), "d2", Verdict.BEHIND, ""),
        (said(at(east=5, west=8, south=3)), "d2", Verdict.AHEAD, ""),
        (said(at(east=4, west=8, south=3)), "d2", Verdict.BEHIND, ""),
        (said(None), None, Verdict.UNKNOWN, "can't be read"),
        (
            said({**VECTOR, EAST: Position(EAST, OTHER, Seq(5))}),
            None,
            Verdict.UNKNOWN,
            "a log of east that isn't known here",
        ),
        # It may not hold any more, whatever it said; but what differs differs.
        (replace(WORD, doubt="why"), "d1", Verdict.UNKNOWN, "why"),
        (said(at(east=4), doubt="why"), "d1", Verdict.UNKNOWN, "why"),
        (replace(WORD, doubt="why"), "d2", Verdict.DIFFERS, "at the same vector"),
    ],
)
def test_verdicts(word: Word, derived: str | None, verdict: Verdict, reason: str) -> None:
    found = standpoint(word, HERE, derived, {})
    assert found.verdict is verdict
    assert (reason in found.reason) if reason else not found.reason
    assert (found.cluster, found.digest, found.age_s) == (WEST, word.digest, word.age_s)


@pytest.mark.parametrize(
    ("age_s", "phase", "doubt"),
    [
        (0.5, Phase.READY, ""),
        (9.9, Phase.SYNCING, ""),
        (9.9, Phase.CONNECTING, ""),
        (10.0, Phase.STALE, "not advanced for 10 s"),
        (None, Phase.SYNCING, "not seen to advance yet"),
        (0.5, Phase.QUARANTINED, "it is Quarantined here: why"),
        (0.5, Phase.PAUSED, "it is Paused here: why"),
        (0.5, Phase.REFUSED, "it is Refused here: why"),
        (0.5, Phase.FORKED, "it is Forked here: why"),
    ],
)
def test_when_a_word_may_not_hold_any_more(age_s: float | None, phase: Phase, doubt: str) -> None:
    found = doubt_about(age_s, 10.0, phase, "why")
    assert (doubt in found) if doubt else not found


def test_what_is_passed_over_is_named_where_digests_differ() -> None:
    found = standpoint(WORD, HERE, "d2", {}, ("south seq 2",))
    assert "this cluster passed over south seq 2" in found.reason
    assert "this cluster" not in standpoint(WORD, HERE, "d2", {}).reason


def test_what_is_derived_is_said_with_its_place() -> None:
    word = said(at(east=4, west=7))
    found = standpoint(word, HERE, "d3", {})
    assert (found.here_text, found.digest_here) == (format_vector(at(east=5, west=7)), "d3")
    none = standpoint(word, HERE, None, {})
    assert (none.here_text, none.digest_here) == (None, None)


AHEAD = replace(HERE, heads=heads_of(PLACES, at(west=9, south=3).values(), at(east=5).values()))


@pytest.mark.parametrize(
    ("word", "lags"),
    [
        (WORD, []),
        (said(at(east=3, west=7, south=3)), [Lag(EAST, 2, 10.0)]),
        # Its own log it need not read.
        (said(at(east=5, west=6, south=3)), []),
        # The time of what it lacks isn't known; then another host's clock is ahead.
        (said(at(east=5, south=2)), [Lag(SOUTH, 1, None)]),
        (said(at(east=1, south=3)), [Lag(EAST, 4, 0.0)]),
        (said(at(east=9, west=7, south=3)), []),
        (
            said({**VECTOR, SOUTH: Position(SOUTH, OTHER, Seq(900))}),
            [Lag(SOUTH, None, None)],
        ),
        (said(None), []),
    ],
)
def test_how_far_a_cluster_is_behind(word: Word, lags: list[Lag]) -> None:
    times = {(LOGS[EAST], Seq(4)): NOW_MS - 10_000, (LOGS[EAST], Seq(2)): NOW_MS + 5_000}
    assert list(standpoint(word, HERE, None, times).lags) == lags


def test_this_cluster_agrees_with_itself_unless_it_is_behind() -> None:
    found = own_standpoint(AHEAD)
    assert (found.lags, found.verdict) == ((Lag(WEST, 2, None),), Verdict.BEHIND)
    found = own_standpoint(HERE)
    assert (found.lags, found.verdict) == ((), Verdict.AGREES)
    assert (found.digest, found.digest_here) == ("d0", "d0")


def test_who_said_nothing_is_unknown() -> None:
    found = unheard(WEST, "why")
    assert (found.verdict, found.reason, found.vector, found.lags) == (
        Verdict.UNKNOWN,
        "why",
        None,
        (),
    )


def test_what_a_cluster_lacks_that_is_here() -> None:
    word = said(at(east=3, west=2, south=3))
    assert lacking(word, HERE) == [Position(EAST, LOGS[EAST], Seq(4))]
    assert lacking(said({EAST: Position(EAST, OTHER, Seq(1))}), HERE) == []
    assert lacking(said(None), HERE) == []


def test_where_this_cluster_stands_in_the_logs_of_another() -> None:
    assert here_as_read_by(said(at(east=1, west=9)), HERE) == at(east=5, west=7)
    assert here_as_read_by(said({EAST: Position(EAST, OTHER, Seq(1))}), HERE) is None
    assert here_as_read_by(said(None), HERE) is None


@pytest.mark.parametrize(
    ("text", "vector"), [("", {}), (format_vector(VECTOR), VECTOR), ("east", None), ("a:b:c", None)]
)
def test_the_vector_in_a_heartbeat(text: str, vector: Vector | None) -> None:
    assert vector_in(text) == vector


# Memory.


def test_what_was_said_and_what_is_derived_meet_later() -> None:
    memory = Memory()
    assert memory.derive("v1", "d1") is None
    assert memory.hear("v2", "d2") is None
    assert memory.hear("v1", "d1") == Comparison("v1", agrees=True)
    assert memory.derive("v2", "d3") == Comparison("v2", agrees=False)


def test_memory_is_bounded_and_keeps_the_latest() -> None:
    memory = Memory()
    for number in range(MEMORY_MAX):
        memory.hear(f"v{number}", "d")
        memory.derive(f"w{number}", "d")
    memory.hear("v0", "d")
    memory.hear("more", "d")
    memory.derive("more", "d")
    assert len(memory.said) == len(memory.derived) == MEMORY_MAX
    # What was heard again is kept for as long as if it were new.
    assert "v0" in memory.said
    assert "v1" not in memory.said
    assert "w0" not in memory.derived
