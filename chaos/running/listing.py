"""What can be broken, and what can be run, as `list` shows it.

For: `python -m chaos list`. Not for: running any of it. Invariant: what can't be run here is listed
with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from chaos.faults import catalogue
from chaos.faults.rows import ROWS
from chaos.running.drivers import powers_of
from chaos.scenarios.known import recipes


def faults() -> Iterator[Mapping[str, Any]]:
    """Every fault; a row that has none yet is there with its reason."""
    powers = powers_of("auto")
    for row in ROWS:
        found = catalogue.faults_of(row)
        for fault in found:
            yield {
                "row": row.number,
                "fault": fault.name,
                "summary": fault.summary,
                "behaviour": fault.behaviour,
                "needs": sorted(fault.needs),
                "programs": list(fault.programs),
                "invariants": list(row.invariants),
                "skipped": catalogue.possible(fault, powers),
            }
        if not found:
            yield {
                "row": row.number,
                "fault": "-",
                "summary": row.title,
                "behaviour": row.behaviour,
                "needs": [],
                "programs": [],
                "invariants": list(row.invariants),
                "skipped": catalogue.possible(row, powers),
            }


def scenarios() -> Iterator[Mapping[str, Any]]:
    """Every scenario."""
    for recipe in recipes(catalogue.faults()).values():
        yield {"scenario": recipe.name, "summary": recipe.summary}
