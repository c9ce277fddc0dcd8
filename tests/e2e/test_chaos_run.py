"""`python -m chaos run` as a person or CI runs it: real processes are broken, and judged."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner

from chaos import journal
from chaos.command import cli
from chaos.evidence import Evidence
from chaos.history import FaultBit, FaultHealed, FaultInjected, Process, RunEnded
from chaos.running.drivers import lacking

ROOT = Path(__file__).resolve().parent.parent.parent
RUN_TIMEOUT_S = 110
LIMIT = pytest.mark.timeout(RUN_TIMEOUT_S + 10)


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "chaos", *map(str, arguments)]


def chaos(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "200"} | environment,
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
        check=False,
    )


def drivers() -> list[object]:
    why = lacking("namespaces")
    mark = pytest.mark.skipif(bool(why), reason=why)
    return ["loopback", pytest.param("namespaces", marks=mark)]


@LIMIT
@pytest.mark.parametrize("driver", drivers())
def test_smoke_holds_and_leaves_a_history_and_reports(driver: str, tmp_path: Path) -> None:
    asked = tmp_path / "asked.json"
    done = chaos(
        *("run", "smoke", "--seed", "1", "--driver", driver, "--plain"),
        *("--folder", tmp_path / "run", "--json", asked),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "It holds; " in done.stdout
    assert "injecting kill-meshd of east" in done.stderr
    history = tmp_path / "run" / "history.jsonl"
    told = json.loads(asked.read_text())
    assert (told["status"], told["driver"], told["history"]) == (0, driver, str(history))
    assert told["reproduce"].startswith("python -m chaos run smoke --clusters 2 --seed 1")
    assert (tmp_path / "run" / "report.html").read_text().startswith("<!DOCTYPE html>")
    suite = ET.parse(tmp_path / "run" / "report.xml").getroot()  # noqa: S314 our own
    assert suite.get("failures") == "0"
    evidence = Evidence(journal.read(history).entries)
    assert [fault.injected.fault for fault in evidence.faults] == ["kill-meshd", "link-cut"]
    assert all(fault.bit and fault.healed for fault in evidence.faults)
    assert not (tmp_path / "run" / "mesh").exists()
    assert alive(evidence) == []
    the_same_history_doctored_does_not_hold(history, tmp_path / "doctored.jsonl")


def the_same_history_doctored_does_not_hold(history: Path, doctored: Path) -> None:
    """Judged again it holds; without the last proof it proves nothing."""
    assert chaos("validate", history).returncode == 0
    entries = list(journal.read(history).entries)
    proofs = [entry for entry in entries if isinstance(entry, FaultBit)]
    entries.remove(proofs[-1])
    journal.write(doctored, entries)
    done = chaos("validate", doctored)
    assert done.returncode == 1
    assert "It proves nothing: every fault bit: 1 of 2 did; not: link-cut" in done.stdout


@LIMIT
def test_a_run_that_is_interrupted_heals_and_is_none_that_passed(tmp_path: Path) -> None:
    number = signal.SIGINT
    folder = tmp_path / "run"
    asked = command("run", "smoke", "--driver", "loopback", "--plain", "--folder", folder)
    with subprocess.Popen(asked, cwd=ROOT, stderr=subprocess.PIPE, text=True) as run:
        assert run.stderr is not None
        for line in run.stderr:
            if " bit: " in line:
                run.send_signal(number)
                break
        rest = run.stderr.read()
        assert run.wait(RUN_TIMEOUT_S) == 2, rest
    assert f"{number.name}: healing what is broken" in rest
    evidence = Evidence(journal.read(folder / "history.jsonl").entries)
    assert len(evidence.all(FaultInjected)) == len(evidence.all(FaultHealed)) == 1
    assert [end.error for end in evidence.all(RunEnded)] == [f"interrupted by {number.name}"]
    assert alive(evidence) == []
    assert (folder / "report.html").exists()


def alive(evidence: Evidence) -> list[int]:
    """Processes of the mesh that are still there."""
    pids = {process.pid for process in evidence.all(Process)}
    assert pids
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_a_run_without_an_etcd_is_none_that_passed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    done = chaos("run", "smoke", "--driver", "loopback", "--folder", folder, PATH="/nonexistent")
    assert done.returncode == 2, done.stdout
    assert "Not run: there is no etcd" in done.stdout
    evidence = Evidence(journal.read(folder / "history.jsonl").entries)
    assert "there is no etcd" in evidence.all(RunEnded)[0].error


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run"], "give one of SCENARIO, --random and --all"),
        (["run", "smoke", "--random"], "give one of SCENARIO, --random and --all"),
        (["run", "smoke", "--folder", "chaos"], "there is something in it already"),
        (["run", "smoke", "--row", "3"], "--row: goes with --all"),
        (["run", "smokey"], "did you mean smoke"),
        (["run", "fault/kill"], "there is no scenario"),
        (["run", "smoke", "--clusters", "1"], "not in the range 2<=x<=10"),
        (["run", "--random", "--duration", "soon"], "write 90s, 10m or 1h30m"),
        (["run", "--random", "--duration", "0s"], "longer than nothing"),
        (["mutate", "--only", "nothing"], "there is no mutation 'nothing'"),
    ],
)
def test_wrong_input_is_told_before_anything_is_started(arguments: list[str], says: str) -> None:
    done = CliRunner().invoke(cli, arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert says in done.stderr


def test_what_there_is_is_listed() -> None:
    done = CliRunner().invoke(cli, ["list", "--scenarios", "--faults", "--json"])
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    scenarios = {one["scenario"] for one in found["scenarios"]}
    assert {"smoke", "isolation", "swizzle", "random"} < scenarios
    faults = {one["fault"] for one in found["faults"] if one["fault"] != "-"}
    assert {f"fault/{name}" for name in faults} < scenarios
    assert sorted({one["row"] for one in found["faults"]}) == list(range(1, 35))
    assert "kill-meshd" in CliRunner().invoke(cli, ["list", "--faults"]).stdout


def test_mutations_are_listed() -> None:
    done = CliRunner().invoke(cli, ["mutate", "--list"])
    assert (done.exit_code, done.stderr) == (0, "")
    assert "no-fence" in done.stdout
