"""What a run leaves: its history, a page, JSON and JUnit, and the logs of processes where something
went wrong.

For: people and CI. Not for: judging. Invariant: a run that didn't hold keeps all that may say why.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import orjson

from chaos.report import junit, plain
from chaos.report.page import page
from chaos.running.runner import HOLDS, MESH, Ran
from chaos.scenarios.scenario import Scenario

PAGE = "report.html"
JSON = "report.json"
JUNIT = "report.xml"


def write(ran: Ran, *, json_file: Path | None, junit_file: Path | None) -> None:
    """Everything that is told of a run, beside its history; and where else it was asked for."""
    folder = ran.history.parent
    if ran.judgement is not None and ran.evidence is not None:
        html = page(ran.judgement, ran.evidence, ran.cut)
        (folder / PAGE).write_text(html)
    for file in (folder / JSON, json_file):
        if file is not None:
            file.write_bytes(orjson.dumps(data(ran), option=orjson.OPT_INDENT_2) + b"\n")
    for file in (folder / JUNIT, junit_file):
        if file is not None:
            file.write_bytes(_junit(ran))


def data(ran: Ran) -> dict[str, object]:
    """For programs."""
    judged: dict[str, object] = {}
    if ran.judgement is not None and ran.evidence is not None:
        judged = plain.judgement_data(ran.judgement, ran.evidence, ran.cut)
    return judged | {
        "scenario": ran.scenario.name,
        "seed": ran.scenario.seed,
        "status": ran.status,
        "error": ran.error,
        "skipped": ran.skipped,
        "driver": ran.driver,
        "toothless": ran.toothless,
        "took_s": round(ran.took_s, 1),
        "history": str(ran.history),
        "reproduce": reproduce(ran.scenario, ran.driver),
    }


def _junit(ran: Ran) -> bytes:
    if ran.judgement is not None and ran.evidence is not None:
        return junit.document(ran.judgement, ran.evidence)
    name = f"chaos {ran.scenario.name} seed {ran.scenario.seed}"
    suite = ET.Element("testsuite", name=name, tests="1", failures="0", errors="0", skipped="1")
    case = ET.SubElement(suite, "testcase", classname="chaos.run", name=ran.scenario.name)
    ET.SubElement(case, "skipped", message=junit.clean(ran.skipped or ran.error))
    raw: bytes = ET.tostring(suite, encoding="utf-8", xml_declaration=True)
    return raw + b"\n"


def tidy(ran: Ran, *, keep: bool) -> None:
    """Remove what processes kept, unless it may be of use: their logs stay where the run didn't
    hold, and all of it if it is to be kept.
    """
    mesh = ran.history.parent / MESH
    if keep or not mesh.exists():
        return
    if ran.status == HOLDS or ran.skipped:
        shutil.rmtree(mesh, ignore_errors=True)
        return
    for path in sorted(mesh.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.suffix != ".log":
            path.unlink(missing_ok=True)


def lines(ran: Ran) -> Iterator[str]:
    """What is printed when it is over."""
    if ran.skipped:
        yield f"Not run: {ran.skipped}"
        return
    if ran.judgement is not None and ran.evidence is not None:
        yield from plain.judgement_lines(ran.judgement, ran.evidence, ran.cut)
    yield from (f"! no proof that it had an effect: {one}" for one in ran.toothless)
    if ran.error:
        yield f"! the run failed, which says nothing of the mesh: {ran.error}"
    yield ""
    yield f"page       {ran.history.parent / PAGE}"
    yield f"history    {ran.history}"
    if (ran.history.parent / MESH).exists():
        yield f"logs       {ran.history.parent / MESH}"
    yield f"judge      python -m chaos validate {ran.history}"
    yield f"reproduce  {reproduce(ran.scenario, ran.driver)}"


def reproduce(scenario: Scenario, driver: str) -> str:
    """The command that runs the same again."""
    name = scenario.name if scenario.name != "random" else "--random"
    parts = ["python -m chaos run", name, f"--clusters {len(scenario.names)}"]
    parts.append(f"--seed {scenario.seed}")
    if scenario.duration_s:
        parts.append(f"--duration {scenario.duration_s:g}s")
    if scenario.is_ha:
        parts.append("--ha")
    if scenario.etcd_members > 1:
        parts.append(f"--etcd-members {scenario.etcd_members}")
    if scenario.has_brokers:
        parts.append("--brokers")
    if driver:
        parts.append(f"--driver {driver}")
    return " ".join(parts)
