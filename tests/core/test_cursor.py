"""Feeds and cursors: each message once, in order, within one limit; or a plain 'behind'."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.core.cursor import (
    ENTRY_BYTES,
    PAUSE_S_MAX,
    WAKE_S,
    Kept,
    Standing,
    Track,
    VectorText,
    beyond,
    pause_s,
)
from meshd.model.event import Event, Told
from meshd.model.ids import ClusterName, Position, Seq, format_vector
from meshd.model.place import EventPlace
from tests.logs import LOG_ID, OTHER_LOG_ID

EAST, WEST, MARS = ClusterName("east"), ClusterName("west"), ClusterName("mars")


def at(cluster: ClusterName, seq: int, log_id: str = LOG_ID) -> Position:
    return Position(cluster, LOG_ID if log_id == LOG_ID else OTHER_LOG_ID, Seq(seq))


def told(position: Position, mark: str = "") -> Told:
    return Told(position, 0, Event("service.set", "shop/web", {}, "ann"), mark)


def vector(*positions: Position) -> dict[ClusterName, Position]:
    return {position.cluster: position for position in positions}


def test_what_was_added_is_taken_from_the_mark_on_only() -> None:
    kept, track = Kept[int](10_000), Track[int]()
    assert track.standing(0) is Standing.UP_TO_DATE
    for number in range(5):
        kept.add(track, number, 0)
    assert track.standing(0) is Standing.UP_TO_DATE
    track.mark = 4
    assert track.standing(0) is Standing.NEWS
    assert track.take(0, 10_000) == [0, 1, 2, 3]
    assert track.take(1, 2 * ENTRY_BYTES) == [1, 2]
    assert track.take(3, 0) == [3]
    assert track.take(4, 10_000) == []
    assert track.standing(4) is Standing.UP_TO_DATE


def test_what_is_too_much_goes_oldest_first_whosever_it_is() -> None:
    kept, one, other = Kept[str](4 * ENTRY_BYTES), Track[str](), Track[str]()
    for track, item in ((one, "a"), (other, "b"), (one, "c"), (other, "d")):
        kept.add(track, item, 0)
    assert (one.start, other.start, kept.bytes) == (0, 0, 4 * ENTRY_BYTES)
    kept.grow(other, 1, 1)
    assert (one.start, other.start) == (1, 0)
    # The mark stays: whoever moves it sees that there is something that nobody was told.
    assert one.mark == 0
    assert one.standing(1) is Standing.UP_TO_DATE
    assert one.standing(0) is Standing.BEHIND
    # What is gone doesn't get larger.
    kept.grow(one, 0, 10_000)
    assert kept.bytes == 3 * ENTRY_BYTES + 1
    kept.add(other, "e", ENTRY_BYTES)
    assert (one.start, other.start) == (2, 1)
    assert kept.bytes == other.bytes == 3 * ENTRY_BYTES + 1
    kept.close(other)
    assert kept.bytes == one.bytes == 0
    kept.add(one, "f", 3 * ENTRY_BYTES)
    assert (one.start, one.end) == (2, 3)


def test_one_that_is_larger_than_everything_is_not_kept_and_whoever_wants_it_is_behind() -> None:
    kept, track = Kept[int](100), Track[int]()
    kept.add(track, 1, 0)
    assert (track.start, track.end, track.mark, kept.bytes) == (1, 1, 0, 0)
    assert track.standing(0) is Standing.BEHIND
    assert track.standing(1) is Standing.UP_TO_DATE


@given(
    sizes=st.lists(st.integers(0, 600), max_size=60),
    limit=st.integers(0, 5000),
    bites=st.lists(st.integers(0, 1500), min_size=1, max_size=5),
    rounds=st.integers(1, 7),
)
def test_a_subscriber_takes_all_in_order_or_is_behind(
    sizes: list[int], limit: int, bites: list[int], rounds: int
) -> None:
    kept, track = Kept[int](limit), Track[int]()
    index, taken = 0, list[int]()
    for number, size in enumerate(sizes):
        kept.add(track, number, size)
        assert kept.bytes == track.bytes <= limit
        if number % rounds == 0:
            track.mark = track.end
        if track.standing(index) is Standing.BEHIND:
            assert index < track.start
            index = track.start
            continue
        found = track.take(index, bites[number % len(bites)])
        assert bool(found) is (track.standing(index) is Standing.NEWS)
        assert found == list(range(index, index + len(found)))
        taken += found
        index += len(found)
    assert taken == sorted(set(taken))


def test_a_vector_goes_on_as_text() -> None:
    said = vector(at(WEST, 3), at(EAST, 7))
    text = VectorText(EventPlace(said))
    assert text.text == format_vector(said)
    further = format_vector(said | vector(at(EAST, 8)))
    assert text.advance(told(at(EAST, 8), "0a1b2c3d")) == text.text == f"{further}~0a1b2c3d"
    # What is told of others leaves the mark as it is.
    further = format_vector(said | vector(at(EAST, 8), at(WEST, 4)))
    assert text.advance(told(at(WEST, 4))) == f"{further}~0a1b2c3d"
    assert VectorText(EventPlace(said, "00000000")).text == f"{format_vector(said)}~00000000"
    assert VectorText(EventPlace({})).text == ""


@pytest.mark.parametrize(
    ("told", "head", "expected"),
    [
        ((at(EAST, 7),), (at(EAST, 7),), ()),
        ((at(EAST, 6),), (at(EAST, 7),), None),
        ((at(EAST, 8),), (at(EAST, 7),), None),
        ((at(EAST, 7, OTHER_LOG_ID),), (at(EAST, 7),), None),
        ((at(EAST, 7),), (at(EAST, 7), at(WEST, 0)), ()),
        ((at(EAST, 7),), (at(EAST, 7), at(WEST, 1)), None),
        ((at(EAST, 7), at(MARS, 3), at(WEST, 9)), (at(EAST, 7),), (at(MARS, 3), at(WEST, 9))),
        ((), (), ()),
    ],
)
def test_who_was_told_everything_is_known_and_what_is_not_held_here_is_kept(
    told: tuple[Position, ...], head: tuple[Position, ...], expected: tuple[Position, ...] | None
) -> None:
    assert beyond(vector(*told), vector(*head)) == expected


def test_rounds_take_no_more_than_half_of_the_time() -> None:
    assert pause_s(0) == 0
    assert pause_s(1000) == pytest.approx(1000 * WAKE_S)
    assert pause_s(1_000_000) == PAUSE_S_MAX
