"""Places in a stream of tables, as text and back."""

from __future__ import annotations

import pytest

from meshd.model.errors import RejectedError
from meshd.model.place import TablePlace

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
