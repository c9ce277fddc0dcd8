"""Each part of `make bench` runs, in a size that measures nothing, and every figure is a number."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tests.bench.appends import measure_appends
from tests.bench.rest import measure_rest
from tests.bench.tables import Row

ROUNDS = 2


def check(rows: Sequence[Row], rounds: int, *, may_be_none: Sequence[str] = ()) -> None:
    """may_be_none: rows of processor time, which has ticks of 10 ms, or of what doesn't grow."""
    assert len({row.name for row in rows}) == len(rows)
    for row in rows:
        assert len(row.ours) == len(row.reference) == rounds, row
        assert all(math.isfinite(value) for value in (*row.ours, *row.reference)), row
        if not any(word in row.name for word in may_be_none):
            assert all(value > 0 for value in (*row.ours, *row.reference)), row


async def test_appends() -> None:
    rows = await measure_appends(ROUNDS, 0.02, callers=(1, 4))
    check(rows, ROUNDS)
    assert len(rows) == 2 * 4


async def test_rest() -> None:
    rows = await measure_rest(ROUNDS, 0.05, backends=(1, 20))
    check(rows, ROUNDS, may_be_none=("processor",))
    assert len(rows) == 2 * 2 * 5
