"""`make bench-compare` on a repository of two commits, whose benches tell made-up figures."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import orjson
import pytest

from tests.bench.comparison import Comparison, compared, figures_of

ROOT = Path(__file__).resolve().parents[2]
END_WITHIN_S = 60.0

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")

BENCH = """
import json, os, sys, time
from pathlib import Path
import meshd

with open(os.environ["RUNS"], "a") as runs:
    print(meshd.NAME, os.environ["TMPDIR"], file=runs)
{then}
row = {{"name": "row", "unit": "µs", "ours": [{value}], "reference": [10.0], "reference_name": "x"}}
more = {{**row, "name": "row that {value} has"}}
found = {{"machine": {{"cpu": "x"}}, "raced": {{"meshd": [{value}], "raw": [2.0]}}}}
found["tables"] = [row, more]
Path(sys.argv[sys.argv.index("--json") + 1]).write_text(json.dumps(found))
"""


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=bench", "-c", "user.email=bench@example.org")
    done = subprocess.run(
        ["git", "-C", folder, *identity, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def commit(folder: Path, name: str, value: float, then: str = "") -> str:
    for package in ("meshd", "tests", "tests/bench"):
        (folder / package).mkdir(parents=True, exist_ok=True)
        (folder / package / "__init__.py").touch()
    (folder / "meshd/__init__.py").write_text(f"NAME = {name!r}\n")
    (folder / "tests/bench/__main__.py").write_text(BENCH.format(value=value, then=then))
    git(folder, "add", ".")
    git(folder, "commit", "-m", f"The one called {name}")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-b", "main")
    commit(folder, "old", 1.0)
    commit(folder, "new", 3.0)
    return folder


def environment(folder: Path) -> Mapping[str, str]:
    data = folder.parent / "data"
    data.mkdir(exist_ok=True)
    return {**os.environ, "TMPDIR": str(data), "RUNS": str(folder.parent / "runs")}


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    module = (sys.executable, "-m", "tests.bench.compare", "--repository", folder)
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [*module, *arguments],
        cwd=ROOT,
        env=environment(folder),
        stdout=pipe,
        stderr=pipe,
        text=True,
    )


def nothing_is_left(folder: Path) -> bool:
    worktrees = git(folder, "worktree", "list").splitlines()
    return len(worktrees) == 1 and list((folder.parent / "data").iterdir()) == []


@needs_git
def test_rounds_alternate_and_each_commit_runs_its_own_code(repository: Path) -> None:
    (repository / "meshd/__init__.py").write_text("NAME = 'what lies around'\n")
    file = repository.parent / "found.json"
    with start(repository, "HEAD~1", "--rounds", "3", "--json", str(file)) as process:
        said, errors = process.communicate(timeout=END_WITHIN_S)
    assert process.returncode == 0, errors
    runs = [line.split() for line in (repository.parent / "runs").read_text().splitlines()]
    assert [name for name, _ in runs] == ["old", "new", "new", "old", "old", "new"]
    assert all(place.startswith(str(repository.parent / "data")) for _, place in runs)
    assert "1 files have changes that are in no commit" in errors
    found = orjson.loads(file.read_bytes())
    assert [(row["name"], row["ratio"], row["is_overlapping"]) for row in found["rows"]] == [
        ("raced: meshd", 3.0, False),
        ("row", 3.0, False),
    ]
    assert found["machine"]["cores"] > 0
    assert "The one called old" in said
    assert "only base has: row that 1.0 has" in said
    assert "only head has: row that 3.0 has" in said
    assert nothing_is_left(repository)


@needs_git
@pytest.mark.parametrize(
    ("then", "arguments", "told"),
    [
        ("sys.exit('no such part')", ("HEAD~1",), "status 1. It said last:\n  no such part"),
        ("sys.exit(0)", ("HEAD~1",), "ended with status 0"),
        ("", ("nowhere",), "base: 'nowhere' is no commit of this repository"),
        ("", ("HEAD", "--help-me"), "head: '--help-me' is no commit"),
        ("", ("HEAD", "--rounds", "0"), "--rounds: at least 1"),
    ],
)
def test_what_goes_wrong_is_told(
    repository: Path, then: str, arguments: tuple[str, ...], told: str
) -> None:
    commit(repository, "broken", 5.0, then)
    given = ("--", *arguments) if "--help-me" in arguments else arguments
    with start(repository, *given) as process:
        _, errors = process.communicate(timeout=END_WITHIN_S)
    assert process.returncode not in {0, None}
    assert told in errors
    assert nothing_is_left(repository)


@needs_git
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_nothing(repository: Path, number: signal.Signals) -> None:
    pid_file = repository.parent / "pid"
    then = f"Path({str(pid_file)!r}).write_text(str(os.getpid()) + '\\n'); time.sleep(600)"
    commit(repository, "endless", 5.0, then)
    with start(repository, "HEAD", "HEAD") as process:
        until_s = time.monotonic() + END_WITHIN_S
        while not pid_file.is_file() or not pid_file.read_text().endswith("\n"):
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < until_s
            time.sleep(0.02)
        process.send_signal(number)
        _, errors = process.communicate(timeout=END_WITHIN_S)
    assert "interrupted; nothing is left behind" in errors
    assert not Path(f"/proc/{pid_file.read_text().strip()}").exists()
    assert nothing_is_left(repository)


def of(*values: float) -> list[dict[str, object]]:
    rows = [{"name": "row", "unit": "s", "ours": [one], "reference": [one * 2]} for one in values]
    return [{"tables": [row]} for row in rows]


@pytest.mark.parametrize(
    ("base", "head", "ratio", "is_overlapping"),
    [
        ((1.0, 2.0, 3.0), (3.0, 4.0, 5.0), 2.0, True),
        ((1.0, 2.0, 2.9), (3.0, 4.0, 5.0), 2.0, False),
        ((4.0, 4.0, 4.0), (1.0, 1.0, 9.0), 0.25, True),
        ((0.0,), (1.0,), None, False),
    ],
)
def test_ranges_overlap_if_they_share_a_value(
    base: tuple[float, ...], head: tuple[float, ...], ratio: float | None, *, is_overlapping: bool
) -> None:
    found: Comparison = compared(
        "base", "head", [figures_of(one) for one in of(*base)], [figures_of(o) for o in of(*head)]
    )
    (row,) = found.rows
    assert (row.ratio, row.is_overlapping, row.reference_ratio) == (ratio, is_overlapping, ratio)
    assert (row.base.least, row.base.most) == (min(base), max(base))
