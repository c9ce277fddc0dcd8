"""`make bench`: figures, each as a ratio to the bare client in the same run.

For: seeing where we stand; medians of interleaved rounds with their range. Not for: gates: nothing
fails on a figure. Usage: make bench ARGS='--rounds 5 --seconds 1 --json bench.json'.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import orjson
from rich.console import Console
from rich.table import Table

from meshd.telemetry.log import configure
from tests.bench.appends import measure_appends
from tests.bench.as_of_cost import measure_past
from tests.bench.etcd_costs import measure_etcd
from tests.bench.machine import describe, keep_data_in
from tests.bench.measures import (
    append_bulk,
    append_bulk_at_once,
    append_many,
    append_one,
    to_the_other_table,
)
from tests.bench.memory_costs import Sizes, measure_memory
from tests.bench.policies import measure_policies
from tests.bench.processor_costs import measure_processor
from tests.bench.publishing import measure_publishing
from tests.bench.replication import add_arguments, measure_replication, wanted_by
from tests.bench.rest import measure_rest
from tests.bench.rig import rig
from tests.bench.streams import measure_streams
from tests.bench.tables import Row, measure_tables

ROWS = (
    ("append, one caller, p50", "µs", append_one, "less"),
    ("append, 64 callers of single commands", "events/s", append_many, "more"),
    ("append in bulk, 500 events a call", "events/s", append_bulk, "more"),
    ("append in bulk, 4 callers of 500 events", "events/s", append_bulk_at_once, "more"),
    ("sent here → in the other cluster's table, p50", "µs", to_the_other_table, "less"),
)
TABLE_COLUMNS = 140
Figures = dict[str, dict[str, list[float]]]


async def measure(rounds: int, seconds: float) -> Figures:
    """Run all measurements in turn, `rounds` times."""
    figures: Figures = {name: {} for name, *_ in ROWS}
    with tempfile.TemporaryDirectory(prefix="meshd-bench-") as folder:
        async with rig(Path(folder)) as made:
            for number in range(rounds):
                Console(stderr=True).print(f"round {number + 1} of {rounds}")
                for name, _, work, _ in ROWS:
                    for key, value in (await work(made, seconds)).items():
                        figures[name].setdefault(key, []).append(value)
    return figures


def show(figures: Figures) -> None:
    """Print a table for people."""
    table = Table(title="logs, against the bare client")
    for column in ("what", "meshd", "raw", "ratio", "ratio min..max", "better"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for name, unit, _, better in ROWS:
        ours, raw = figures[name]["meshd"], figures[name]["raw"]
        ratios = [a / b for a, b in zip(ours, raw, strict=True)]
        table.add_row(
            name,
            f"{statistics.median(ours):,.0f} {unit}",
            f"{statistics.median(raw):,.0f} {unit}",
            f"{statistics.median(ratios):.2f}",
            f"{min(ratios):.2f}..{max(ratios):.2f}",
            better,
        )
    after = statistics.median(figures[ROWS[-1][0]]["meshd after ack"])
    console = Console()
    console.print(table)
    console.print(f"acknowledged here → in the other cluster's table: {after:,.0f} µs (p50)")
    console.print(
        "raw: bare grpc.aio calls on the same etcd, in turn: the transaction of the same shape; as"
        " many single puts; transactions of 128 puts; a watch"
    )


def show_rows(rows: Sequence[Row]) -> None:
    """Print what the tables cost."""
    table = Table(title="against a reference in the same run")
    for column in ("what", "meshd", "reference", "", "ratio", "ratio min..max"):
        table.add_column(column, justify="left" if column in {"what", ""} else "right")
    for row in rows:
        both = zip(row.ours, row.reference, strict=True)
        # What doesn't happen, such as records that are read again, has no ratio.
        ratios = [ours / other if other else math.nan for ours, other in both]
        table.add_row(
            row.name,
            f"{statistics.median(row.ours):,.1f} {row.unit}",
            f"{statistics.median(row.reference):,.1f} {row.unit}",
            row.reference_name,
            f"{statistics.median(ratios):.2f}",
            f"{min(ratios):.2f}..{max(ratios):.2f}",
        )
    # Where nobody looks at a terminal it would be folded to 80 columns.
    Console(width=max(TABLE_COLUMNS, Console().width)).print(table)


def _streams(given: argparse.Namespace) -> list[Row]:
    return [
        *asyncio.run(measure_streams(given.rounds, given.seconds)),
        *asyncio.run(measure_publishing(given.rounds)),
    ]


def _costs(given: argparse.Namespace) -> list[Row]:
    return [
        *asyncio.run(measure_etcd(given.rounds)),
        *asyncio.run(measure_memory(given.rounds, Sizes())),
        *asyncio.run(measure_processor(given.rounds)),
    ]


PARTS: Mapping[str, Callable[[argparse.Namespace], list[Row]]] = {
    "logs": lambda given: asyncio.run(measure_appends(given.rounds, given.seconds)),
    "tables": lambda given: measure_tables(given.rounds),
    "past": lambda _: asyncio.run(measure_past()),
    "policies": lambda given: measure_policies(given.rounds),
    "streams": _streams,
    "replication": lambda given: asyncio.run(measure_replication(wanted_by(given))),
    "rest": lambda given: asyncio.run(measure_rest(given.rounds, given.seconds)),
    "costs": _costs,
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="per measurement and round")
    parser.add_argument("--only", choices=["", *PARTS], default="", help="one part")
    parser.add_argument("--tmpfs", action="store_true", help="keep the data in memory")
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    add_arguments(parser)
    given = parser.parse_args()
    configure("warning", "console")
    keep_data_in(is_tmpfs=given.tmpfs)
    machine = describe()
    Console(width=TABLE_COLUMNS).print(str(machine), highlight=False)
    wanted = [given.only] if given.only else list(PARTS)
    figures: Figures = {}
    if "logs" in wanted:
        figures = asyncio.run(measure(given.rounds, given.seconds))
        show(figures)
    rows = [row for name in wanted for row in PARTS[name](given)]
    show_rows(rows)
    if given.json:
        found = {"machine": asdict(machine), **figures, "tables": [asdict(row) for row in rows]}
        given.json.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2))


if __name__ == "__main__":
    main()
