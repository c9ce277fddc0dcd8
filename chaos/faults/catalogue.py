"""The catalogue: what can go wrong, row by row, and which faults do it.

For: choosing faults, and saying what is right, what covers it, and what can't be done here. Not
for: the faults themselves. Invariants: rows are numbered without gaps; every fault has one row; a
row that can't be run says why, and is never counted as one that held.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from functools import cache
from importlib import import_module
from typing import Final

from chaos.faults.fault import Fault
from chaos.faults.rows import ROWS, Row
from chaos.mesh.shape import Power

MODULES: Final = (
    *("processes", "storage", "replaced", "identity", "clocks", "network", "trust"),
    *("revocation", "poison", "versions", "resources", "consumers", "floods", "leaders", "replies"),
    *("boot", "stalls"),
)
"""Below this package; each has its faults in `FAULTS`."""


@cache
def faults() -> Mapping[str, type[Fault]]:
    """All faults by name, in the order of their rows."""
    found: list[type[Fault]] = []
    for module in MODULES:
        found += import_module(f"chaos.faults.{module}").FAULTS
    by_name = {fault.name: fault for fault in sorted(found, key=lambda fault: fault.number)}
    if len(by_name) < len(found):
        raise ValueError("two faults of the catalogue have one name")
    return by_name


def faults_of(row: Row) -> tuple[type[Fault], ...]:
    """The faults of a row."""
    return tuple(fault for fault in faults().values() if fault.number == row.number)


def named(name: str) -> type[Fault]:
    """The fault of a name; raises KeyError with all that there are."""
    try:
        return faults()[name]
    except KeyError:
        known = ", ".join(faults())
        raise KeyError(f"there is no fault {name!r}; there are {known}") from None


def possible(
    what: type[Fault] | Row, powers: Collection[Power], programs: Collection[str] | None = None
) -> str:
    """Empty if it can be done with these powers and programs, or else why it can't. programs: None
    for those on PATH. A row can be done if one of its faults can.
    """
    if isinstance(what, Row):
        if what.waits_for:
            return f"skipped: needs {what.waits_for}"
        reasons = [possible(fault, powers, programs) for fault in faults_of(what)]
        return "" if "" in reasons else min(reasons, default="skipped: needs a fault", key=len)
    lacking = [f"power `{power}`" for power in sorted(what.needs - set(powers))]
    lacking += [f"`{one}` on PATH" for one in what.programs if not _is_there(one, programs)]
    return f"skipped: needs {', '.join(lacking)}" if lacking else ""


def _is_there(program: str, programs: Collection[str] | None) -> bool:
    return shutil.which(program) is not None if programs is None else program in programs


def row(number: int) -> Row:
    """The row of a number; raises KeyError with what there is."""
    if not 1 <= number <= len(ROWS):
        raise KeyError(f"there is no row {number}; there are 1 to {len(ROWS)}")
    return ROWS[number - 1]
