"""`make bench`: figures, each as a ratio to the bare client in the same run.

For: seeing where we stand; medians of interleaved rounds with their range. Not for: gates: nothing
fails on a figure. Usage: make bench ARGS='--rounds 5 --seconds 1 --json bench.json'.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
from collections.abc import Sequence
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
        ratios = [ours / other for ours, other in zip(row.ours, row.reference, strict=True)]
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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="per measurement and round")
    parser.add_argument(
        "--only",
        choices=["", "logs", "tables", "past", "policies", "streams", "rest", "costs"],
        default="",
        help="one part",
    )
    parser.add_argument("--tmpfs", action="store_true", help="keep the data in memory")
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    arguments = parser.parse_args()
    configure("warning", "console")
    keep_data_in(is_tmpfs=arguments.tmpfs)
    machine = describe()
    Console(width=TABLE_COLUMNS).print(str(machine), highlight=False)
    figures: Figures = {}
    rows: list[Row] = []
    if arguments.only in {"", "logs"}:
        figures = asyncio.run(measure(arguments.rounds, arguments.seconds))
        show(figures)
        rows += asyncio.run(measure_appends(arguments.rounds, arguments.seconds))
    if arguments.only in {"", "tables"}:
        rows += measure_tables(arguments.rounds)
    if arguments.only in {"", "past"}:
        rows += asyncio.run(measure_past())
    if arguments.only in {"", "policies"}:
        rows += measure_policies(arguments.rounds)
    if arguments.only in {"", "streams"}:
        rows += asyncio.run(measure_streams(arguments.rounds, arguments.seconds))
        rows += asyncio.run(measure_publishing(arguments.rounds))
    if arguments.only in {"", "rest"}:
        rows += asyncio.run(measure_rest(arguments.rounds, arguments.seconds))
    if arguments.only in {"", "costs"}:
        rows += asyncio.run(measure_etcd(arguments.rounds))
        rows += asyncio.run(measure_memory(arguments.rounds, Sizes()))
        rows += asyncio.run(measure_processor(arguments.rounds))
    if rows:
        show_rows(rows)
    if arguments.json:
        found = {"machine": asdict(machine), **figures, "tables": [asdict(row) for row in rows]}
        arguments.json.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2))


if __name__ == "__main__":
    main()
