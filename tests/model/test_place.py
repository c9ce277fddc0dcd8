"""Places in a stream of tables, as text and back."""

from __future__ import annotations

import pytest

from meshd.model.errors import RejectedError
from meshd.model.ids import RecordHash, parse_vector
from meshd.model.place import EventPlace, TablePlace, mark_of

LOG_ID, RUN, MARK = "a" * 32, "0123456789abcdef", "b" * 16
EAST, WEST = f"east:{LOG_ID}:7", f"west:{LOG_ID}:0"


@pytest.mark.parametrize(
    ("place", "text"),
    [
        (TablePlace(EAST, RUN, 12), f"{EAST}@{RUN}.12"),
        (TablePlace(f"{EAST},{WEST}", RUN, 0, MARK), f"{EAST},{WEST}@{RUN}.0.{MARK}"),
        (TablePlace("", RUN, 1), f"@{RUN}.1"),
    ],
)
def test_a_place_is_the_same_after_it_was_text(place: TablePlace, text: str) -> None:
    assert str(place) == text
    assert TablePlace.parse(text) == place


def test_equal_places_are_equal_strings() -> None:
    assert str(TablePlace.parse(f"{WEST},{EAST}@{RUN}.1")) == f"{EAST},{WEST}@{RUN}.1"


@pytest.mark.parametrize(
    "text",
    [
        *("", "@", EAST, f"{EAST}@", f"{EAST}@{RUN}", f"{EAST}@{RUN}.", f"{EAST}@{RUN}.-1"),
        *(f"{EAST}@{RUN[1:]}.1", f"{EAST}@{RUN}.1.", f"{EAST}@{RUN}.1.x", f"{EAST}@{RUN}.1\n"),
        *(f"{EAST}@{RUN}.{'9' * 16}", f"east@{RUN}.1", f"{EAST},{EAST}@{RUN}.1", f"{RUN}.1"),
    ],
)
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(RejectedError):
        TablePlace.parse(text)


@pytest.mark.parametrize(
    ("place", "text"),
    [
        (EventPlace(parse_vector(f"{EAST},{WEST}"), "0a1b2c3d"), f"{EAST},{WEST}~0a1b2c3d"),
        (EventPlace(parse_vector(EAST)), EAST),
        (EventPlace({}), ""),
    ],
)
def test_a_place_among_events_is_the_same_after_it_was_text(place: EventPlace, text: str) -> None:
    assert str(place) == text
    assert EventPlace.parse(text) == place


@pytest.mark.parametrize(
    "text",
    [f"{EAST}~", f"{EAST}~0a1b2c3", f"{EAST}~0A1B2C3D", f"{EAST}~0a1b2c3d~", "east~0a1b2c3d"],
)
def test_what_is_no_place_among_events_is_refused(text: str) -> None:
    with pytest.raises(RejectedError):
        EventPlace.parse(text)


def test_a_mark_is_of_the_record() -> None:
    assert mark_of(RecordHash(bytes.fromhex("0a1b2c3d") + bytes(12))) == "0a1b2c3d"
