"""What became of all rows: a table for a terminal, one page, JSON and JUnit.

For: `python -m chaos run --all`. Not for: a single run's report. Invariant: what was skipped says
why, and counts nowhere as passed.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from rich.table import Table

from chaos.report.junit import clean
from chaos.report.lanes import time_text
from chaos.report.markup import el, written
from chaos.report.page import STYLE
from chaos.running.outputs import PAGE
from chaos.running.rows import RowRan, Status, status_of
from chaos.running.runner import BROKEN, FAILS, HOLDS

MARKS = {
    Status.PASSED: "\N{CHECK MARK}",
    Status.VIOLATED: "\N{BALLOT X}",
    Status.PROVES_NOTHING: "?",
    Status.FAILED: "!",
    Status.SKIPPED: "-",
}
KINDS = {
    Status.PASSED: "holds",
    Status.VIOLATED: "violated",
    Status.PROVES_NOTHING: "open",
    Status.FAILED: "violated",
    Status.SKIPPED: "open",
}
COLOURS = {
    Status.PASSED: "green",
    Status.VIOLATED: "bold red",
    Status.PROVES_NOTHING: "yellow",
    Status.FAILED: "red",
    Status.SKIPPED: "dim",
}


def conclusion(rows: Sequence[RowRan]) -> str:
    """All of it in a line."""
    counts = Counter(one.status for one in rows)
    parts = [f"{counts[status]} {status}" for status in Status if counts[status]]
    faults = sum(len(one.faults) for one in rows)
    left_out = sum(len(one.skipped) for one in rows)
    return f"{len(rows)} rows: {', '.join(parts)}; {faults} faults were run, {left_out} skipped"


def status_of_all(rows: Sequence[RowRan]) -> int:
    """The exit status: nothing but skipped rows prove nothing."""
    found = {one.status for one in rows}
    if found & {Status.VIOLATED, Status.PROVES_NOTHING} or Status.PASSED not in found:
        return FAILS
    return BROKEN if Status.FAILED in found else HOLDS


def table(rows: Sequence[RowRan]) -> Table:
    """For a terminal."""
    made = Table(box=None, padding=(0, 1), pad_edge=False)
    for name in ("row", "", "title", "faults", "time", "why"):
        made.add_column(name, overflow="fold")
    for one in rows:
        made.add_row(
            str(one.row.number),
            MARKS[one.status],
            one.row.title,
            ", ".join(one.faults),
            time_text(one.took_s) if one.runs else "",
            "; ".join(filter(None, (one.told, *_left_out(one)))),
            style=COLOURS[one.status],
        )
    return made


def _left_out(one: RowRan) -> list[str]:
    """Of a row that was run, what of it wasn't."""
    if one.status is Status.SKIPPED:
        return []
    return [f"{name} {why}" for name, why in one.skipped.items()]


def page(rows: Sequence[RowRan], folder: Path, title: str) -> str:
    """One page with all rows, each leading to the reports of its runs."""
    counts = Counter(one.status for one in rows)
    tiles = [el("div", el("dt", status), el("dd", str(counts[status]))) for status in Status]
    columns = ("row", "", "what goes wrong", "what is right", "faults", "time")
    body = el(
        "body",
        el(
            "header",
            el("p", "chaos", class_="kicker"),
            el("h1", title),
            el("p", conclusion(rows), class_="note"),
            el("dl", *tiles),
        ),
        el(
            "main",
            el(
                "section",
                el("h2", "Rows"),
                el(
                    "div",
                    el(
                        "table",
                        el("thead", el("tr", *(el("th", name) for name in columns))),
                        el("tbody", *(_row(one, folder) for one in rows)),
                    ),
                    class_="wide",
                ),
            ),
        ),
    )
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", title),
        el("style", STYLE.read_text() + TABLE_STYLE),
    )
    return written(el("html", head, body, lang="en"))


TABLE_STYLE = """
.wide { overflow-x: auto; }
.wide table { border-collapse: collapse; width: 100%; }
.wide td, .wide th { text-align: left; vertical-align: top; padding: .45rem .6rem; }
.wide tr + tr td { border-top: 1px solid color-mix(in srgb, currentColor 15%, transparent); }
.wide small { display: block; opacity: .75; }
"""


def _row(one: RowRan, folder: Path) -> ET.Element:
    links = [_link(ran.history.parent, folder, status_of(ran)) for ran in one.runs]
    why = [el("small", text) for text in (one.told, *_left_out(one)) if text]
    return el(
        "tr",
        el("td", str(one.row.number)),
        el("td", f"{MARKS[one.status]} {one.status}"),
        el("td", one.row.title, *why),
        el("td", one.row.behaviour),
        el("td", ", ".join(one.faults), *links),
        el("td", time_text(one.took_s) if one.runs else ""),
        class_=KINDS[one.status],
    )


def _link(run_folder: Path, folder: Path, status: Status) -> ET.Element:
    page_file = run_folder / PAGE
    if not page_file.exists():
        return el("small", f"{run_folder.name}: no report")
    where = os.path.relpath(page_file, folder)
    return el("small", el("a", f"{run_folder.name}: {status}", href=where))


def data(rows: Sequence[RowRan]) -> dict[str, object]:
    """For programs."""
    return {
        "conclusion": conclusion(rows),
        "status": status_of_all(rows),
        "rows": [
            {
                "row": one.row.number,
                "title": one.row.title,
                "status": one.status,
                "told": one.told,
                "faults": one.faults,
                "skipped": one.skipped,
                "took_s": round(one.took_s, 1),
                "histories": [str(ran.history) for ran in one.runs],
            }
            for one in rows
        ],
    }


def junit(rows: Sequence[RowRan]) -> bytes:
    """A case for each row; what was skipped of a row that was run is told in its output."""
    cases = []
    for one in rows:
        name = f"{one.row.number:02} {one.row.title}"
        took = f"{one.took_s:.3f}"
        case = ET.Element("testcase", classname="chaos.rows", name=clean(name), time=took)
        match one.status:
            case Status.VIOLATED | Status.PROVES_NOTHING:
                ET.SubElement(case, "failure", message=clean(one.told))
            case Status.FAILED:
                ET.SubElement(case, "error", message=clean(one.told))
            case Status.SKIPPED:
                ET.SubElement(case, "skipped", message=clean(one.told))
            case Status.PASSED:
                ET.SubElement(case, "system-out").text = clean("\n".join(_left_out(one)))
        cases.append(case)
    counts = {
        kind: str(sum(case.find(tag) is not None for case in cases))
        for kind, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped"))
    }
    suite = ET.Element("testsuite", {"name": "chaos rows", "tests": str(len(cases))} | counts)
    suite.extend(cases)
    ET.indent(suite)
    raw: bytes = ET.tostring(suite, encoding="utf-8", xml_declaration=True)
    return raw + b"\n"
