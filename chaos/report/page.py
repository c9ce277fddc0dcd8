"""A judged history as one page that stands alone.

For: a person who wants to know whether the mesh held, and who looks at what happened next. Not for:
programs (`plain`, `junit`). Invariant: the page asks nothing of anybody: no script, no font, no
picture from elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

from chaos.evidence import Evidence
from chaos.history import Outcome, Request, StreamMessage, TableRead
from chaos.report.lanes import duration, time_text, timeline
from chaos.report.markup import Child, el, written
from chaos.report.plain import conclusion, duration_s
from chaos.validators.judging import Judgement, Sometimes
from chaos.validators.sentences import SENTENCES
from chaos.validators.verdict import Figure, Status, Verdict

STYLE = Path(__file__).with_name("style.css")
MARKS = {Status.HOLDS: "\N{CHECK MARK}", Status.VIOLATED: "\N{BALLOT X}", Status.NOT_JUDGED: "?"}
KINDS = {Status.HOLDS: "holds", Status.VIOLATED: "violated", Status.NOT_JUDGED: "open"}


def page(judgement: Judgement, evidence: Evidence, cut: str) -> str:
    """The whole page."""
    title = f"{evidence.run.scenario}, seed {evidence.run.seed}"
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", f"{_word(judgement)}: {title}"),
        el("style", STYLE.read_text()),
    )
    body = el(
        "body",
        _header(judgement, evidence, cut),
        el(
            "main", _ticked(judgement), timeline(evidence), _figures(judgement), _details(judgement)
        ),
        el("footer", _footer(evidence)),
    )
    return written(el("html", head, body, lang="en"))


def _word(judgement: Judgement) -> str:
    if judgement.violated:
        return "Violated"
    return "Proves nothing" if judgement.absent else "Holds"


def _said(judgement: Judgement) -> str:
    """The conclusion without the word that stands above it."""
    rest = conclusion(judgement).partition(": " if not judgement.holds else "; ")[2]
    return rest[:1].upper() + rest[1:]


def _header(judgement: Judgement, evidence: Evidence, cut: str) -> ET.Element:
    run = evidence.run
    kind = "holds" if judgement.holds else "violated" if judgement.violated else "open"
    return el(
        "header",
        el("p", "chaos run", class_="kicker"),
        el("h1", run.scenario, el("small", f"seed {run.seed}")),
        el("p", el("strong", _word(judgement)), _said(judgement), class_=f"verdict {kind}"),
        el("p", cut, class_="note") if cut else None,
        el("dl", *_facts(evidence)),
    )


def _facts(evidence: Evidence) -> Iterator[ET.Element]:
    counts = dict.fromkeys(Outcome, 0)
    for operation in evidence.operations:
        counts[operation.outcome] += 1
    bit = sum(fault.bit is not None for fault in evidence.faults)
    requests = evidence.all(Request)
    facts = {
        "clusters": ", ".join(evidence.run.clusters),
        "length": time_text(duration_s(evidence)),
        "faults": f"{len(evidence.faults)}, {bit} bit",
        "commands": ", ".join(f"{number} {outcome}" for outcome, number in counts.items()),
        "stream messages": str(len(evidence.all(StreamMessage))),
        "tables read": str(len(evidence.all(TableRead))),
    }
    if requests:
        answered = sum(bool(request.answered_by) for request in requests)
        facts["requests"] = f"{len(requests)}, {answered} answered"
    for term, value in facts.items():
        yield el("div", el("dt", term), el("dd", value))


def _ticked(judgement: Judgement) -> ET.Element:
    """All invariants at a glance."""
    items = [
        el(
            "li",
            el(
                "a",
                el("i", MARKS[one.status]),
                el("b", one.invariant),
                el("span", SENTENCES[one.invariant][0]),
                href=f"#{one.invariant}",
                title=one.status,
            ),
            class_=KINDS[one.status],
        )
        for one in judgement.verdicts
    ]
    return el(
        "section",
        el("h2", "Invariants"),
        el("ul", *items, class_="ticked"),
        el("ul", *map(_sometimes, judgement.sometimes), class_="sometimes"),
    )


def _sometimes(one: Sometimes) -> ET.Element:
    mark = MARKS[Status.HOLDS if one.happened else Status.VIOLATED]
    kind = "holds" if one.happened else "violated"
    return el("li", el("i", mark), f" {one.what}: {one.detail}", class_=kind)


def _figures(judgement: Judgement) -> ET.Element:
    """What was measured, against what it is held to."""
    rows = []
    for verdict in judgement.verdicts:
        figures = {figure.what: figure for figure in verdict.figures}
        for figure in verdict.figures:
            if figure.bound is not None:
                before = figures.get(figure.what.replace(", disturbed", ", quiet"))
                rows.append(_figure(verdict, figure, None if before is figure else before))
    if not rows:
        rows = [el("p", "Nothing was measured that has a bound.", class_="none")]
    says = "measured, against its bound; a ring is the quiet time, a dot the disturbed one"
    return el("section", el("h2", "Figures"), el("p", says, class_="says"), *rows, class_="figures")


def _figure(verdict: Verdict, figure: Figure, before: Figure | None) -> ET.Element:
    bound = figure.bound or 0.0
    most = 1.1 * max(figure.value, bound, before.value if before else 0.0, 1e-9)
    is_over = figure.value > bound
    said = f"{_value(figure, figure.value)} of {_value(figure, bound)}"
    if before is not None:
        said = f"{_value(figure, before.value)} \N{RIGHTWARDS ARROW} {said}"
    name = figure.what.removesuffix(", disturbed")
    marks: list[Child] = [el("i", class_="allowed", style=f"width:{100 * bound / most:.2f}%")]
    if before is not None:
        marks.append(el("i", class_="before", style=f"left:{100 * before.value / most:.2f}%"))
    marks.append(el("i", class_="value", style=f"left:{100 * figure.value / most:.2f}%"))
    return el(
        "div",
        el("b", name, el("small", verdict.invariant)),
        el("div", *marks, class_="track"),
        el("span", said),
        class_=f"figure{' over' if is_over else ''}",
    )


def _value(figure: Figure, value: float) -> str:
    match figure.unit:
        case "s":
            return duration(value)
        case "bytes":
            return f"{value / 2**20:.0f} MiB"
        case unit:
            return f"{value:g} {unit}".strip()


def _details(judgement: Judgement) -> ET.Element:
    """All verdicts; those that don't hold come first."""
    others = (one for one in judgement.verdicts if one.status is not Status.VIOLATED)
    ordered = (*judgement.violated, *others)
    return el("section", el("h2", "Verdicts"), *map(_verdict, ordered), class_="verdicts")


def _verdict(verdict: Verdict) -> ET.Element:
    name, sentence = SENTENCES[verdict.invariant]
    looked_at = f"{verdict.looked_at} {verdict.things}" if verdict.looked_at else ""
    violations = [
        el("li", one.reason, " ", el("small", f"line {', '.join(map(str, one.lines))}"))
        for one in verdict.violations
    ]
    if verdict.count > len(violations):
        violations.append(el("li", f"and {verdict.count - len(violations)} more"))
    missing = [el("li", what) for what in verdict.missing]
    return el(
        "article",
        el("h3", el("i", MARKS[verdict.status]), f"{verdict.invariant} {name}"),
        el("p", f"{verdict.status}", el("small", looked_at), class_="status"),
        el("p", sentence, class_="sentence"),
        el("ul", *violations, class_="violations") if violations else None,
        el("details", el("summary", f"{len(missing)} not judged"), el("ul", *missing))
        if missing
        else None,
        id=verdict.invariant,
        class_=KINDS[verdict.status],
    )


def _footer(evidence: Evidence) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in evidence.run.versions.items())
    return f"{len(evidence.entries)} entries; {versions}"
