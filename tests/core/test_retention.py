"""When a log is summed up, and up to where it may be cut."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.core.retention import (
    Keep,
    RetentionRules,
    is_snapshot_due,
    kept_snapshots,
    trim_point,
)
from meshd.model.ids import GENESIS_HASH, Head, Seq
from meshd.model.snapshot import NO_MARK, Manifest, Mark
from tests.logs import LOG_ID

FOREVER = Keep(10**9, 10**12, 10**9)
DAY_MS = 86_400_000


def mark(seq: int) -> Mark:
    """A place; each event takes 10 bytes and comes a second after the one before."""
    return Mark(Seq(seq), GENESIS_HASH, seq * 1000, seq * 10)


def manifest(seq: int, *marks: int, trim: int = 0, items: int = 0) -> Manifest:
    return Manifest(
        head=Head(LOG_ID, Seq(seq), GENESIS_HASH),
        time_ms=seq * 1000,
        log_bytes=seq * 10,
        items=items,
        parts=(),
        trim=mark(trim) if trim else NO_MARK,
        previous_seq=Seq(max(marks, default=0)),
        marks=tuple(map(mark, marks)),
    )


def rules(keep: Keep = FOREVER, cap: Keep = FOREVER) -> RetentionRules:
    return RetentionRules(100, keep, cap)


@pytest.mark.parametrize(
    ("last", "head_seq", "is_due"),
    [
        (None, 99, False),
        (None, 100, True),
        (manifest(50), 149, False),
        (manifest(50), 150, True),
        # A large state isn't written out again for a few events.
        (manifest(50, items=1000), 549, False),
        (manifest(50, items=1000), 550, True),
    ],
)
def test_a_snapshot_is_due_when_enough_has_come(
    last: Manifest | None, head_seq: int, is_due: bool
) -> None:
    assert is_snapshot_due(last, head_seq, rules()) is is_due


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        (FOREVER, None),
        (Keep(500, 10**12, 10**9), 400),
        (Keep(10**9, 7000, 10**9), 300),
        (Keep(10**9, 10**12, 795), 200),
        (Keep(500, 7000, 795), 400),
        (Keep(1, 10**12, 10**9), 400),
    ],
)
def test_any_limit_that_is_passed_lets_records_go(keep: Keep, expected: int | None) -> None:
    """The snapshot before the newest stands at 400; beyond it nothing goes."""
    last = manifest(950, 100, 200, 300, 400)
    found = trim_point(last, mark(1000), rules(keep), 1_000_000, None)
    assert (found.seq if found else None) == expected


def test_what_a_peer_needs_stays_until_the_cap() -> None:
    last = manifest(950, 100, 200, 300, 400)
    keep = Keep(500, 10**12, 10**9)
    for needed_seq, expected in ((400, 400), (399, 300), (99, None), (0, None)):
        found = trim_point(last, mark(1000), rules(keep), 0, Seq(needed_seq))
        assert (found.seq if found else None) == expected
    capped = rules(keep, Keep(750, 10**12, 10**9))
    found = trim_point(last, mark(1000), capped, 0, Seq(0))
    assert found == mark(200)


def test_what_was_cut_is_not_cut_again() -> None:
    keep = rules(Keep(500, 10**12, 10**9))
    assert trim_point(manifest(950, 400, trim=400), mark(1000), keep, 0, None) is None
    assert trim_point(manifest(950), mark(1000), keep, 0, None) is None


@given(
    st.lists(st.integers(1, 500), unique=True, max_size=8).map(sorted),
    st.integers(0, 500),
    st.integers(1, 600),
    st.none() | st.integers(0, 600),
)
def test_a_cut_never_goes_too_far(
    marks: list[int], trim: int, keep_events: int, needed: int | None
) -> None:
    last = manifest(600, *(seq for seq in marks if seq > trim), trim=trim)
    keep = rules(Keep(keep_events, 10**12, 10**9))
    found = trim_point(last, mark(700), keep, 0, None if needed is None else Seq(needed))
    if found is not None:
        assert found in last.marks
        assert trim < found.seq <= last.previous_seq < last.head.seq
        assert 700 - found.seq >= keep_events
        assert needed is None or found.seq <= needed


def test_a_log_of_which_snapshots_are_kept_is_cut_at_one_of_them() -> None:
    keep = Keep(500, 10**12, 10**9)
    last = manifest(950, 100, 200, 300, 400)
    for kept, expected in (((200, 400), 400), ((300,), 300), ((), None)):
        with_kept = replace(last, kept=tuple(map(Seq, kept)))
        looked_back = replace(rules(keep), snapshots_kept=4)
        found = trim_point(with_kept, mark(1000), looked_back, 0, None)
        assert (found.seq if found else None) == expected
        # Who only reads on may begin anywhere.
        found = trim_point(with_kept, mark(1000), rules(keep), 0, None)
        assert found == mark(400)


def kept_of(last: Manifest | None, head_seq: int, limit: int) -> Manifest:
    """The manifest of the next snapshot."""
    kept = kept_snapshots(last, head_seq, limit)
    made = manifest(head_seq, *kept, trim=last.trim.seq if last else 0)
    return replace(made, kept=kept, previous_seq=last.head.seq if last else Seq(0))


def test_there_is_nothing_to_keep_before_the_first_nor_where_nobody_looks_back() -> None:
    assert kept_snapshots(None, 100, 8) == ()
    assert kept_snapshots(manifest(50), 100, 2) == ()
    assert kept_snapshots(manifest(50), 100, 3) == (50,)
    assert kept_snapshots(manifest(50), 50, 3) == ()


def test_the_one_whose_neighbours_lie_closest_goes_the_oldest_of_equals() -> None:
    last = replace(manifest(400), kept=(Seq(100), Seq(200), Seq(300)))
    assert kept_snapshots(last, 500, 4) == (200, 300, 400)
    cut = replace(last, trim=mark(100))
    assert kept_snapshots(cut, 500, 4) == (100, 300, 400)
    uneven = replace(manifest(400), kept=(Seq(250), Seq(290), Seq(300)))
    assert kept_snapshots(uneven, 500, 4) == (250, 300, 400)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=120), st.integers(3, 12))
def test_kept_snapshots_lie_evenly_however_unevenly_they_came(gaps: list[int], limit: int) -> None:
    last: Manifest | None = None
    head_seq = 0
    for gap in gaps:
        head_seq += gap
        last = kept_of(last, head_seq, limit)
        assert len(last.kept) < limit
        assert last.kept[-1:] == ((last.previous_seq,) if last.previous_seq else ())
        places = [0, *last.kept]
        spans = [after - first for first, after in itertools.pairwise(places)]
        # The closest pair of neighbours is at most twice the mean of what lies between.
        assert max(spans, default=0) <= max(*gaps, 2 * places[-1] / (limit - 2))


@given(
    st.lists(st.integers(1, 60), min_size=3, max_size=80), st.integers(3, 8), st.integers(20, 400)
)
def test_what_is_retained_always_begins_with_a_kept_snapshot(
    gaps: list[int], limit: int, keep_events: int
) -> None:
    looked_back = replace(rules(Keep(keep_events, 10**12, 10**9)), snapshots_kept=limit)
    last: Manifest | None = None
    head_seq = 0
    for gap in gaps:
        head_seq += gap
        last = kept_of(last, head_seq, limit)
        at = trim_point(last, mark(head_seq), looked_back, 0, None)
        if at is not None:
            kept = tuple(seq for seq in last.kept if seq >= at.seq)
            last = replace(last, trim=at, kept=kept)
        if last.trim.seq:
            assert last.kept[0] == last.trim.seq
