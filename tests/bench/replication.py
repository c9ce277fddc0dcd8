"""What replication costs, against `etcdctl make-mirror` of the same events in the same run.

For: choosing what is measured, and how much of it. Not for: measuring (`catching_up`, `live`,
`reconnecting`, `leader_kill`). Usage: make bench ARGS='--only replication'; `docs/benchmarks.md`
says what each figure is.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.bench.catching_up import measure_first_copy, measure_history
from tests.bench.leader_kill import AFTER_S, measure_leader_kill
from tests.bench.live import RATES_HZ, Ramps, measure_live
from tests.bench.reconnecting import measure_reconnect
from tests.bench.streams import Figures
from tests.bench.tables import Row

PARTS: Final = ("live", "history", "first-copy", "reconnect", "leader-kill")
HISTORIES: Final = (10_000, 100_000)
ENDPOINTS: Final = 100_000
ENDPOINTS_LONG: Final = 1_000_000
BREAKS: Final = ((1.0, 0), (1.0, 1_000))
BREAKS_LONG: Final = ((1.0, 100_000), (60.0, 0), (60.0, 1_000), (60.0, 100_000))
KILL_ROUNDS_MAX: Final = 3
RAMPS: Final = Ramps()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is measured. histories: events to catch up with. endpoints: of a first copy. breaks:
    seconds without the link, and events missed. seconds: of each load. rates_hz: at which latencies
    are measured. ramps: how the highest rate is searched for. kill_after_s: for how long writes go
    on once the leader is dead.
    """

    parts: Sequence[str] = PARTS
    rounds: int = 5
    seconds: float = 1.0
    histories: Sequence[int] = HISTORIES
    endpoints: int = ENDPOINTS
    breaks: Sequence[tuple[float, int]] = BREAKS
    rates_hz: Sequence[float] = RATES_HZ
    ramps: Ramps = RAMPS
    kill_after_s: float = AFTER_S


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take them from the command line, too."""
    group = parser.add_argument_group("replication")
    group.add_argument(
        "--part", choices=PARTS, action="append", help="one of its parts; repeatable"
    )
    group.add_argument(
        "--events", type=int, action="append", help="a history to catch up with; may be repeated"
    )
    group.add_argument("--endpoints", type=int, help="of a first copy and a cold start")
    group.add_argument(
        "--long",
        action="store_true",
        help="also: the link down for 60 s, 100,000 events missed; a million endpoints",
    )


def wanted_by(given: argparse.Namespace) -> Wanted:
    """What the command line asks for."""
    return Wanted(
        parts=given.part or PARTS,
        rounds=given.rounds,
        seconds=given.seconds,
        histories=given.events or HISTORIES,
        endpoints=given.endpoints or (ENDPOINTS_LONG if given.long else ENDPOINTS),
        breaks=(*BREAKS, *BREAKS_LONG) if given.long else BREAKS,
    )


async def measure_replication(wanted: Wanted) -> list[Row]:
    """All parts that are wanted, one after the other."""
    figures = Figures()
    with tempfile.TemporaryDirectory(prefix="meshd-bench-") as name:
        folder = Path(name)
        if "live" in wanted.parts:
            await measure_live(
                folder, figures, wanted.rounds, wanted.seconds, wanted.ramps, wanted.rates_hz
            )
        if "history" in wanted.parts:
            for events in wanted.histories:
                await measure_history(folder, figures, events, wanted.rounds)
        if "first-copy" in wanted.parts:
            await measure_first_copy(folder, figures, wanted.endpoints, wanted.rounds)
        if "reconnect" in wanted.parts:
            await measure_reconnect(folder, figures, wanted.breaks, wanted.rounds)
        if "leader-kill" in wanted.parts:
            rounds = min(wanted.rounds, KILL_ROUNDS_MAX)
            await measure_leader_kill(folder, figures, rounds, wanted.kill_after_s)
    return list(figures.rows.values())
