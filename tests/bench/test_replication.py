"""`make bench ARGS='--only replication'` at its smallest: every figure is there and is a number.

Each part starts meshds, which take seconds; the first has most of what the others are made of.
"""

from __future__ import annotations

import math

import pytest

from tests.bench.live import Ramps
from tests.bench.replication import PARTS, Wanted, measure_replication


def _latencies(rate: str) -> list[str]:
    return [
        f"{since} → {where}, p{share} at {rate}/s"
        for where in ("in the other's table", "told by its event stream")
        for since in ("acknowledged", "due")
        for share in (50, 99)
    ]


FIGURES = {
    "live": (
        "processor, each event by REST at 100/s: both meshds and their etcds",
        "acknowledged here → in the other cluster's table, p50 at 100/s",
        "sent here → in the other cluster's table, p50 at 100/s",
        *_latencies("1,000"),
        "processor, each event at 1,000/s: who follows and its etcd",
        *_latencies("10,000"),
        "highest live rate with p99 below 1 s and no growing lag",
    ),
    "history": (
        "catch-up from 600 events, records of 500",
        "catch-up from 600 events, records of 1",
    ),
    "first-copy": (
        "first copy of 200 endpoints to a served table",
        "cold start from a snapshot of 200 endpoints to a served table",
    ),
    "reconnect": (
        "10 events missed in 0 s without the link: back → all is there",
        "10 events missed in 0 s without the link: written again",
    ),
    "leader-kill": (
        "leader of three etcds killed: longest time without an acknowledgement",
        "leader of three etcds killed: acknowledged events that were lost",
        "leader of three etcds killed: acknowledged events that were done twice",
    ),
}


@pytest.mark.timeout(240)
@pytest.mark.kills_etcd
@pytest.mark.usefixtures("_all_benches")
async def test_replication_is_measured_against_a_mirror() -> None:
    # One test for all of them: they have their addresses from the bench, where nothing else runs.
    parts = PARTS
    wanted = Wanted(
        parts=parts,
        rounds=1,
        seconds=0.2,
        histories=(600,),
        endpoints=200,
        breaks=((0.0, 10),),
        rates_hz=(1000.0, 10_000.0),
        ramps=Ramps(rounds_max=1, step_s=0.1, steps_max=1),
        kill_after_s=0.1,
    )
    rows = await measure_replication(wanted)
    assert [row.name for row in rows] == [name for part in parts for name in FIGURES[part]]
    for row in rows:
        assert len(row.ours) == len(row.reference) == 1, row
        assert all(map(math.isfinite, row.ours + row.reference)), row
    counted = [row for row in rows if "acknowledged events that" in row.name]
    assert all(row.ours == [0] for row in counted)
