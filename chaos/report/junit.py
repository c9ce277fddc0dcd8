"""A judgement as JUnit XML.

For: CI that shows tests. Not for: people. Invariant: what wasn't judged is skipped, not passed.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

from chaos.evidence import Evidence
from chaos.report.plain import duration_s
from chaos.validators.judging import Judgement
from chaos.validators.sentences import SENTENCES
from chaos.validators.verdict import Status, Verdict

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What may not be in XML 1.0, not even escaped."""


def document(judgement: Judgement, evidence: Evidence) -> bytes:
    """One suite: a case for each invariant, and one for each thing that must have happened."""
    cases = [_case(one) for one in judgement.verdicts]
    for one in judgement.sometimes:
        case = ET.Element("testcase", classname="chaos.sometimes", name=clean(one.what))
        if not one.happened:
            _tell(case, "failure", one.detail, [one.detail])
        cases.append(case)
    for verdict, case in zip(judgement.verdicts, cases, strict=False):
        if verdict.invariant in judgement.needed and verdict.status is Status.NOT_JUDGED:
            case.clear()
            case.attrib |= _names(verdict)
            _tell(case, "failure", "needed, and not judged", verdict.missing)
    suite = ET.Element(
        "testsuite",
        name=clean(f"chaos {evidence.run.scenario} seed {evidence.run.seed}"),
        tests=str(len(cases)),
        failures=str(sum(case.find("failure") is not None for case in cases)),
        skipped=str(sum(case.find("skipped") is not None for case in cases)),
        time=f"{duration_s(evidence):.3f}",
    )
    suite.extend(cases)
    ET.indent(suite)
    raw: bytes = ET.tostring(suite, encoding="utf-8", xml_declaration=True)
    return raw + b"\n"


def _case(verdict: Verdict) -> ET.Element:
    case = ET.Element("testcase", _names(verdict))
    match verdict.status:
        case Status.VIOLATED:
            reasons = [str(one) for one in verdict.violations]
            _tell(case, "failure", verdict.violations[0].reason, reasons)
        case Status.NOT_JUDGED:
            _tell(case, "skipped", "; ".join(verdict.missing) or "nothing was recorded of it", [])
        case Status.HOLDS:
            pass
    return case


def _names(verdict: Verdict) -> dict[str, str]:
    name, _ = SENTENCES[verdict.invariant]
    return {"classname": "chaos.invariants", "name": f"{verdict.invariant} {name}"}


def _tell(case: ET.Element, kind: str, message: str, lines: list[str] | tuple[str, ...]) -> None:
    told = ET.SubElement(case, kind, message=clean(message))
    if lines:
        told.text = clean("\n".join(lines))


def clean(text: str) -> str:
    """A text without what XML can't have."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
