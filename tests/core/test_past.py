"""Which earlier state is asked for, and from where it is told."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.core.audit import Audit
from meshd.core.past import (
    TIME_MS_MAX,
    Search,
    base_seq,
    beginning,
    oldest,
    parse_as_of,
    parse_time,
    time_text,
)
from meshd.model.archive import Entry
from meshd.model.errors import RejectedError
from meshd.model.ids import GENESIS_HASH, Head, Position, Seq
from meshd.model.snapshot import NO_MARK, Manifest, Mark
from tests.logs import LOG_ID, WEST, log_of

AT = Position(WEST, LOG_ID, Seq(7))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("1790000000123", 1_790_000_000_123),
        ("1970-01-01T00:00:01Z", 1000),
        ("1970-01-01t01:00:00.250+01:00", 250),
        ("1970-01-02 00:00:00Z", 86_400_000),
        (str(AT), {WEST: AT}),
    ],
)
def test_a_time_or_a_vector_is_read(text: str, expected: object) -> None:
    assert parse_as_of(text, "as_of") == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is no time and no vector"),
        ("yesterday", "is no time and no vector"),
        ("-15m", "is no time and no vector"),
        (f"{AT},{AT}", "is no time and no vector"),
        ("9" * 16, "is no time and no vector"),
        ("2026-02-31T00:00:00Z", "is not RFC 3339"),
        ("2026-01-31T12:05:00", "is not RFC 3339"),
        ("2026-01-31T12:05:00 01:00", "is not RFC 3339"),
        ("1969-12-31T23:59:59Z", "is not RFC 3339"),
    ],
)
def test_what_is_neither_is_refused(text: str, reason: str) -> None:
    with pytest.raises(RejectedError) as caught:
        parse_as_of(text, "?as_of")
    (problem,) = caught.value.problems
    assert problem.where == "?as_of"
    assert reason in problem.what
    assert "2026-01-31T12:05:00Z" in problem.remedy


@given(st.integers(0, TIME_MS_MAX))
def test_a_time_that_is_told_is_read_as_the_same(time_ms: int) -> None:
    assert parse_as_of(time_text(time_ms), "as_of") == time_ms


def test_a_time_beyond_all_years_is_told_as_the_last() -> None:
    assert time_text(1 << 60) == "9999-12-31T23:59:59.999Z"


@given(st.lists(st.integers(1, 9), max_size=30), st.data())
def test_a_search_finds_the_last_of_which_it_holds(sizes: list[int], data: st.DataObject) -> None:
    log = log_of(*sizes)
    cut = data.draw(st.integers(0, len(sizes)))
    trim_seq = log.records[cut - 1].last_seq if cut else 0
    kept = log.records[cut:]
    count = data.draw(st.integers(0, len(kept)))
    expected = kept[count - 1].last_seq if count else trim_seq
    search, looks = Search(trim_seq, log.head.seq), 0
    while search.probe is not None:
        assert trim_seq < search.probe <= log.head.seq
        (record,) = (one for one in kept if one.first_seq <= search.probe <= one.last_seq)
        search.take(record, holds=record.last_seq <= expected)
        looks += 1
    assert search.low == expected
    assert looks <= max(1, log.head.seq - trim_seq).bit_length()


def test_a_record_is_folded_up_to_a_seq_and_judged_as_a_whole() -> None:
    log = log_of(2, 3)
    first, second = log.records
    assert beginning(second, 5) is second
    part = beginning(second, 4)
    assert (part.last_seq, part.hash, part.raw) == (4, second.hash, second.raw)
    audit = Audit(WEST, LOG_ID, through_seq=4)
    for record in (first, second):
        audit.take(Entry(record, 1, "here"))
    assert (audit.state.seq, audit.end("here")) == (4, second.head)


def mark(seq: int) -> Mark:
    return Mark(Seq(seq), GENESIS_HASH, seq * 1000, seq * 10)


def manifest(seq: int, trim: int, *kept: int) -> Manifest:
    return Manifest(
        head=Head(LOG_ID, Seq(seq), GENESIS_HASH),
        time_ms=seq * 1000,
        log_bytes=seq * 10,
        items=1,
        parts=(),
        trim=mark(trim) if trim else NO_MARK,
        marks=tuple(mark(one) for one in kept if one > trim),
        kept=tuple(map(Seq, kept)),
    )


def test_a_log_is_told_from_where_it_begins() -> None:
    assert oldest(None) == NO_MARK
    assert oldest(manifest(50, 0, 20)) == NO_MARK
    assert oldest(manifest(50, 20, 20, 30)) == mark(20)
    # A log that was restored, or a copy that began with a snapshot.
    assert oldest(manifest(50, 50)) == mark(50)
    # An older meshd had cut it where no snapshot is.
    assert oldest(manifest(50, 20, 30, 40)) == mark(30)
    assert oldest(manifest(50, 20)) == mark(50)


@pytest.mark.parametrize(
    ("seq", "expected"),
    [(0, 0), (19, 0), (20, 20), (29, 20), (30, 30), (49, 30), (50, 50), (99, 50)],
)
def test_the_nearest_snapshot_at_or_before_a_place(seq: int, expected: int) -> None:
    assert base_seq(manifest(50, 0, 20, 30), seq) == expected
    assert base_seq(None, seq) == 0


def test_nothing_is_told_from_a_snapshot_behind_it() -> None:
    assert base_seq(replace(manifest(50, 20, 30), kept=()), 49) == 0


def test_a_time_alone_is_read_and_a_vector_is_none() -> None:
    assert parse_time("1700000000000", "?since") == 1_700_000_000_000
    assert parse_time("1970-01-01T00:00:01Z", "?since") == 1000
    for text in ("", f"east:{'a' * 32}:1", "1970-01-01T00:00:01"):
        with pytest.raises(RejectedError):
            parse_time(text, "?since")
