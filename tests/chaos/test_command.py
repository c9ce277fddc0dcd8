"""`python -m chaos`, as a process: what it prints, and how it exits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from chaos import journal
from chaos.history import Completed, Entry, Outcome, RunStarted, StreamMessage
from chaos.validators.sentences import SENTENCES
from tests.chaos.doctoring import changed
from tests.chaos.stories import kill_one, numbered

ROOT = Path(__file__).resolve().parent.parent.parent
CLEAN = cache(kill_one)


def failing(entries: list[Entry]) -> list[Entry]:
    """A command failed for another cluster's sake, with words that want to be markup."""
    error = "<script>alert(1)</script>\x1b[31m"
    return changed(Completed, 0, {"op": 90}, outcome=Outcome.FAIL, status=503, error=error)(entries)


def chaos(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "chaos", *arguments],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def recorded(tmp_path: Path) -> Callable[[Sequence[Entry]], Path]:
    def write(entries: Sequence[Entry]) -> Path:
        path = tmp_path / "history.jsonl"
        journal.write(path, entries)
        return path

    return write


Recorded = Callable[[Sequence[Entry]], Path]


def test_invariants_are_listed() -> None:
    done = chaos("list", "--invariants")
    assert done.returncode == 0
    assert "I12  isolation           with faults only on some clusters" in done.stdout
    done = chaos("list", "--json")
    assert [one["invariant"] for one in json.loads(done.stdout)["invariants"]] == list(SENTENCES)


def test_a_history_that_holds(recorded: Recorded) -> None:
    done = chaos("validate", recorded(CLEAN()))
    assert (done.returncode, done.stderr) == (0, "")
    assert "+ I1   durable             holds       140 acknowledged commands\n" in done.stdout
    assert "? I10  contained           not judged\n" in done.stdout
    assert done.stdout.endswith("It holds; 17 of 18 invariants were judged.\n")


def test_a_history_that_does_not(recorded: Recorded) -> None:
    done = chaos("validate", recorded(failing(CLEAN())))
    assert done.returncode == 1
    assert "! I12  isolation           violated" in done.stdout
    assert "while only others had a fault [line " in done.stdout
    assert "Violated: I2, I12; " in done.stdout


def test_a_history_as_json(recorded: Recorded) -> None:
    done = chaos("validate", "--json", recorded(failing(CLEAN())))
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert found["holds"] is False
    verdict = next(one for one in found["invariants"] if one["invariant"] == "I12")
    assert (verdict["status"], verdict["violation_count"]) == ("violated", 1)
    assert verdict["violations"][0]["lines"]
    assert any(figure["bound"] for figure in verdict["figures"])


def test_what_must_be_judged_and_is_not_fails(recorded: Recorded) -> None:
    path = recorded(CLEAN())
    done = chaos("validate", "--need", "I10", path)
    assert done.returncode == 1
    assert "It proves nothing: I10 was to be judged, and nothing of it was recorded" in done.stdout
    assert chaos("validate", "--need", "I1", path).returncode == 0


def test_a_history_without_streams_proves_nothing(recorded: Recorded) -> None:
    kept = [one for one in CLEAN() if not isinstance(one, StreamMessage)]
    done = chaos("validate", recorded(numbered(kept)))
    assert done.returncode == 1
    assert "! a stream was read: 0 messages" in done.stdout
    assert "It proves nothing: a stream was read: 0 messages." in done.stdout


def test_a_cut_history_is_told(recorded: Recorded) -> None:
    path = recorded(CLEAN())
    path.write_bytes(path.read_bytes()[:-5])
    done = chaos("validate", path)
    assert done.returncode == 1
    assert "is cut after" in done.stdout
    assert "the run came to its end: it was cut off" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["validate", "nowhere.jsonl"], "'nowhere.jsonl' does not exist"),
        (["validate", "README.md"], "Error: README.md, line 1: no JSON"),
        (["validate", "--need", "I19", "README.md"], "line 1: no JSON"),
        (["invent"], "No such command"),
    ],
)
def test_wrong_input_is_told(arguments: list[str], says: str) -> None:
    done = chaos(*arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_an_invariant_that_is_none(recorded: Recorded) -> None:
    done = chaos("validate", "--need", "I19", recorded(CLEAN()))
    assert done.returncode == 2
    assert "--need: there is no invariant 'I19': there are I1 to I18" in done.stderr


def test_a_page_that_cannot_be_written(recorded: Recorded, tmp_path: Path) -> None:
    done = chaos("report", recorded(CLEAN()), "-o", tmp_path / "nowhere" / "page.html")
    assert done.returncode == 2
    assert "No such file or directory: name a file that can be written" in done.stderr


def test_a_report_tells_all_that_was_found(recorded: Recorded, tmp_path: Path) -> None:
    html, data, junit = (tmp_path / name for name in ("r.html", "r.json", "r.xml"))
    history = recorded(failing(CLEAN()))
    done = chaos("report", history, "-o", html, "--json", data, "--junit", junit)
    assert done.returncode == 1
    assert done.stdout.startswith("Violated: I2, I12; ")
    page = html.read_text()
    for invariant, (name, _) in SENTENCES.items():
        assert f'id="{invariant}"' in page
        assert f"{invariant} {name}" in page
    told = [page.index(f'id="{invariant}"') for invariant in ("I2", "I12", "I1", "I3")]
    assert told == sorted(told)  # What doesn't hold comes first.
    assert json.loads(data.read_text())["conclusion"] in done.stdout
    suite = ET.fromstring(junit.read_text())  # noqa: S314 just written here
    assert suite.attrib["failures"] == "2"
    assert [case.attrib["name"] for case in suite if case.find("skipped") is not None] == [
        "I10 contained"
    ]
    failed = [case.attrib["name"] for case in suite if case.find("failure") is not None]
    assert failed == ["I2 at most once", "I12 isolation"]


def test_a_page_needs_nothing_else_and_runs_nothing(recorded: Recorded, tmp_path: Path) -> None:
    html = tmp_path / "r.html"
    chaos("report", recorded(failing(CLEAN())), "-o", html)
    page = html.read_text()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "\x1b" not in page
    for outside in ("<script", "<link", "<img", "src=", "http:", "https:", "url(", "@import"):
        assert outside not in page


def test_a_run_of_nothing_has_a_page_as_well(recorded: Recorded, tmp_path: Path) -> None:
    start = replace(CLEAN()[0])
    assert isinstance(start, RunStarted)
    html = tmp_path / "r.html"
    done = chaos("report", recorded([start]), "-o", html)
    assert done.returncode == 1
    assert "It proves nothing" in done.stdout
    assert "Nothing of this was recorded." in html.read_text()
