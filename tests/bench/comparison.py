"""Two commits' figures side by side: what moved, and whether by more than the rounds differ.

For: the values and the table of `make bench-compare`. Not for: running anything. Invariants: pure;
reads what any commit's `make bench --json` wrote, also one that knew other rows.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from rich.console import Console
from rich.table import Table

COLUMNS: Final = 150


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of one run: its median, and that of its reference; None where it has none."""

    unit: str
    value: float
    reference: float | None


Figures = Mapping[str, Figure]


@dataclass(frozen=True, slots=True)
class Spread:
    """What the runs of one commit came to."""

    median: float
    least: float
    most: float
    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Of at least one run."""
        return cls(statistics.median(values), min(values), max(values), tuple(values))


@dataclass(frozen=True, slots=True)
class Change:
    """One row of both. ratio: head's median to base's. is_overlapping: whether some run of one lies
    among those of the other, so that the rows may be the same. reference_ratio: how far the
    reference moved, which neither commit is to blame for; None if there is none.
    """

    name: str
    unit: str
    base: Spread
    head: Spread
    ratio: float | None
    is_overlapping: bool
    reference_ratio: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """All rows; only_base and only_head: names of those that one commit alone has."""

    base: str
    head: str
    rounds: int
    rows: tuple[Change, ...]
    only_base: tuple[str, ...]
    only_head: tuple[str, ...]


def figures_of(data: Mapping[str, Any]) -> Figures:
    """Read what `make bench --json` wrote: rows with a reference, and figures by key."""
    return dict(_read(data))


def _read(data: Mapping[str, Any]) -> Iterator[tuple[str, Figure]]:
    for name, found in data.items():
        if isinstance(found, list):
            for row in found:
                reference = statistics.median(row["reference"]) if row["reference"] else None
                value = statistics.median(row["ours"])
                yield row["name"], Figure(row["unit"], value, reference)
        elif isinstance(found, dict) and all(isinstance(one, list) for one in found.values()):
            yield from _by_key(name, found)


def _by_key(name: str, found: Mapping[str, list[float]]) -> Iterator[tuple[str, Figure]]:
    """Figures that share the bare client's as their reference."""
    raw = found.get("raw")
    reference = statistics.median(raw) if raw else None
    for key, values in found.items():
        if not key.startswith("raw"):
            yield f"{name}: {key}", Figure("", statistics.median(values), reference)


def compared(
    base_name: str, head_name: str, base: Sequence[Figures], head: Sequence[Figures]
) -> Comparison:
    """Lay the runs of both side by side, in head's order."""
    base_names, head_names = _names(base), _names(head)
    rows = tuple(_change(name, base, head) for name in head_names if name in base_names)
    return Comparison(
        base_name,
        head_name,
        len(base),
        rows,
        tuple(name for name in base_names if name not in head_names),
        tuple(name for name in head_names if name not in base_names),
    )


def _names(runs: Sequence[Figures]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for run in runs for name in run))


def _change(name: str, base: Sequence[Figures], head: Sequence[Figures]) -> Change:
    before = [run[name] for run in base if name in run]
    after = [run[name] for run in head if name in run]
    one, other = (Spread.of([figure.value for figure in runs]) for runs in (before, after))
    return Change(
        name,
        after[0].unit,
        one,
        other,
        other.median / one.median if one.median else None,
        one.least <= other.most and other.least <= one.most,
        _reference_ratio(before, after),
    )


def _reference_ratio(before: Sequence[Figure], after: Sequence[Figure]) -> float | None:
    one = [figure.reference for figure in before if figure.reference is not None]
    other = [figure.reference for figure in after if figure.reference is not None]
    if not one or not other or not statistics.median(one):
        return None
    return statistics.median(other) / statistics.median(one)


def show(found: Comparison, machine: str) -> None:
    """Print a table for people."""
    console = Console(width=max(COLUMNS, Console().width), highlight=False)
    console.print(machine)
    console.print(f"{found.base}\n{found.head}\n{found.rounds} runs of each, in turn")
    table = Table()
    columns = ("what", "base", "min..max", "head", "min..max", "head/base", "ranges", "reference")
    for column in columns:
        table.add_column(column, justify="left" if column in {"what", "ranges"} else "right")
    for row in found.rows:
        table.add_row(
            row.name,
            f"{_number(row.base.median)} {row.unit}",
            f"{_number(row.base.least)}..{_number(row.base.most)}",
            f"{_number(row.head.median)} {row.unit}",
            f"{_number(row.head.least)}..{_number(row.head.most)}",
            _ratio(row.ratio),
            _ranges(row, found.rounds),
            _ratio(row.reference_ratio),
        )
    console.print(table)
    console.print("reference: how far the reference itself moved from base's runs to head's")
    for side, names in (("base", found.only_base), ("head", found.only_head)):
        for name in names:
            console.print(f"only {side} has: {name}", markup=False)


def _ranges(row: Change, rounds: int) -> str:
    if rounds == 1:
        return "one run"
    return "overlap" if row.is_overlapping else "apart"


def _number(value: float) -> str:
    """Three digits that say something, and no more than the runs can tell."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.3g}"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
