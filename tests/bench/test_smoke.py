"""Each part of `make bench` runs, in a size that measures nothing, and every figure is a number."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from tests.bench.appends import measure_appends
from tests.bench.etcd_costs import KINDS, measure_etcd
from tests.bench.memory_costs import Sizes, measure_memory
from tests.bench.processor_costs import SIDES, measure_processor
from tests.bench.rest import measure_rest
from tests.bench.tables import Row


def check(rows: Sequence[Row], rounds: int, *, may_be_none: Sequence[str] = ()) -> None:
    """may_be_none: what is in the names of rows that are too small to be seen in such a size."""
    assert len({row.name for row in rows}) == len(rows)
    for row in rows:
        assert len(row.ours) == len(row.reference) == rounds, row
        assert all(math.isfinite(value) for value in (*row.ours, *row.reference)), row
        if not any(word in row.name for word in may_be_none):
            assert all(value > 0 for value in (*row.ours, *row.reference)), row


async def test_appends() -> None:
    rows = await measure_appends(2, 0.02, callers=(1, 4))
    check(rows, 2)
    assert len(rows) == 2 * 4


async def test_rest() -> None:
    rows = await measure_rest(1, 0.05, backends=(1, 20))
    check(rows, 1, may_be_none=("processor",))
    assert len(rows) == 2 * 2 * 5


@pytest.mark.usefixtures("_all_benches")
async def test_bytes_of_etcd() -> None:
    rows = await measure_etcd(1, events=100, kinds=KINDS[2:3])
    check(rows, 1)
    assert len(rows) == 2 * 3


@pytest.mark.usefixtures("_all_benches")
async def test_memory() -> None:
    sizes = Sizes(endpoints=(0, 10), services=(), peers=(), waiting=(0, 1))
    rows = await measure_memory(1, sizes)
    check(rows, 1, may_be_none=("memory",))
    assert [row.reference[0] > 100 for row in rows] == [True] * 2


@pytest.mark.usefixtures("_all_benches")
async def test_processor() -> None:
    rows = await measure_processor(1, bulk=1_000, single=0)
    check(rows, 1, may_be_none=("etcd", "reader", "writer"))
    assert len(rows) == len(SIDES)
    assert rows[0].ours[0] > 0
