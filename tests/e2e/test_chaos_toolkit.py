"""Experiments as somebody runs them who knows Chaos Toolkit: the real tool, on a real demo."""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from chaos.toolkit import expectations
from chaos.toolkit.demo import Demo as OurHands
from chaos.toolkit.demo import DemoError
from tests.e2e.demos import SAID_WITHIN_S, Demo, living, until

pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENTS = sorted((ROOT / "chaos/experiments").glob("*.yaml"))
TOOL = (sys.executable, "-m", "chaostoolkit", "--no-version-check", "--no-log-file")

Json = dict[str, Any]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """A demo that is left alone."""
    home = tmp_path_factory.mktemp("demo")
    running = Demo(home, "--no-story", "--plain")
    try:
        ended = running.process.poll
        assert until(lambda: "until Ctrl-C" in running.out or ended() is not None, SAID_WITHIN_S)
        assert ended() is None, running.err
        yield running
        running.process.send_signal(signal.SIGINT)
        assert running.end() == 0, running.out
        assert "2/2 Everything ends" in running.out
    finally:
        for pid in living(home):
            os.kill(pid, signal.SIGKILL)


def urls(demo: Demo) -> dict[str, str]:
    found = dict(re.findall(r"(\w+): (http://\S+), its manifest", demo.out))
    assert set(found) == {"east", "west", "south"}
    return found


def played(experiment: Path, journal: Path, meshds: Mapping[str, str]) -> tuple[int, Json]:
    """Run an experiment; returns the exit status and what Chaos Toolkit noted of it."""
    listed = ",".join(f"{name}={url}" for name, url in meshds.items())
    ran = subprocess.run(
        [*TOOL, "run", "--journal-path", str(journal), str(experiment)],
        cwd=ROOT,
        env=os.environ | {"MESHD_CHAOS_MESHDS": listed},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert journal.exists(), ran.stderr
    return ran.returncode, json.loads(journal.read_text())


def outcomes(runs: list[Json]) -> dict[str, str]:
    return {run["activity"]["name"]: run["status"] for run in runs}


@pytest.mark.kills_etcd
def test_an_experiment_passes_on_the_demo(demo: Demo, tmp_path: Path) -> None:
    kill = ROOT / "chaos/experiments/kill-a-peer.yaml"
    status, journal = played(kill, tmp_path / "journal.json", urls(demo))
    assert (status, journal["status"], journal["deviated"]) == (0, "completed", False)
    for when in ("before", "after"):
        assert journal["steady_states"][when]["steady_state_met"] is True
        assert len(journal["steady_states"][when]["probes"]) == 7
    assert set(outcomes(journal["run"]).values()) == {"succeeded"}
    assert len(journal["run"]) == 8
    seen = {run["activity"]["name"]: run["output"] for run in journal["run"]}
    assert seen["the witness notices that the victim is silent"] == "Stale"
    assert outcomes(journal["rollbacks"]) == {
        "start the victim's meshds, if they don't run": "succeeded"
    }
    # It was killed, and the demo has it back: started once, though two steps ask for it.
    assert demo.out.count("started west-meshd again") == 1


def test_a_demo_is_found_where_it_is_the_only_one(demo: Demo) -> None:
    """Another test's may run beside it; then both are named."""
    ours = {name: url.removeprefix("http://") for name, url in urls(demo).items()}
    try:
        said = ",".join(f"{name}=http://{address}" for name, address in OurHands.only_one().items())
    except DemoError as several:
        said = str(several)
        assert said.startswith("several demos run on this machine; say which: MESHD_CHAOS_MESHDS=")
    assert all(f"{name}=http://{address}" in said for name, address in ours.items())


@pytest.mark.kills_etcd
def test_an_experiment_deviates_whose_victim_does_not_come_back(demo: Demo, tmp_path: Path) -> None:
    tree = yaml.safe_load((ROOT / "chaos/experiments/kill-a-peer.yaml").read_text())
    assert tree["method"].pop()["provider"]["func"] == "start_meshd"
    for probe in tree["steady-state-hypothesis"]["probes"]:
        if "within_s" in probe["provider"].get("arguments", {}):
            probe["provider"]["arguments"]["within_s"] = 3
    file = tmp_path / "leave-it-dead.yaml"
    file.write_text(yaml.safe_dump(tree))
    status, journal = played(file, tmp_path / "journal.json", urls(demo))
    assert (status, journal["deviated"]) == (1, True)
    after = journal["steady_states"]["after"]
    assert after["steady_state_met"] is False
    assert outcomes(after["probes"]) == {"every meshd is ready": "failed"}
    # The rollbacks brought it back nevertheless.
    assert outcomes(journal["rollbacks"]) == {
        "start the victim's meshds, if they don't run": "succeeded"
    }
    hands = OurHands({name: url.removeprefix("http://") for name, url in urls(demo).items()})
    assert hands.meshd("west") is not None


def test_nothing_is_broken_where_nothing_is_in_order(tmp_path: Path, free_address: Any) -> None:
    tree = yaml.safe_load((ROOT / "chaos/experiments/kill-a-peer.yaml").read_text())
    for probe in tree["steady-state-hypothesis"]["probes"]:
        if "within_s" in probe["provider"].get("arguments", {}):
            probe["provider"]["arguments"]["within_s"] = 0
    file = tmp_path / "nobody-there.yaml"
    file.write_text(yaml.safe_dump(tree))
    nobody = {name: f"http://{free_address()}" for name in ("east", "west", "south")}
    status, journal = played(file, tmp_path / "journal.json", nobody)
    assert (status, journal["status"]) == (1, "failed")
    assert journal["run"] == []


def test_all_experiments_are_valid_and_another_one_is_not() -> None:
    check = importlib.import_module("chaoslib.experiment").ensure_experiment_is_valid
    assert len(EXPERIMENTS) == 5
    for file in EXPERIMENTS:
        check(yaml.safe_load(file.read_text()))
    wrong = yaml.safe_load(EXPERIMENTS[0].read_text())
    wrong["rollbacks"][0]["provider"]["func"] = "heal_lnik"
    with pytest.raises(Exception, match="heal_lnik"):
        check(wrong)


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: file.stem)
def test_an_experiment_can_fail_and_undoes_what_it_does(file: Path) -> None:
    tree = yaml.safe_load(file.read_text())
    assert tree["runtime"]["rollbacks"]["strategy"] == "always"
    hypothesis = tree["steady-state-hypothesis"]["probes"]
    assert {probe["provider"]["func"] for probe in hypothesis} == {"expect", "expectations_met"}
    assert hypothesis[-1]["provider"]["func"] == "expectations_met"
    done = [one["provider"] for one in tree["method"] if one["type"] == "action"]
    undone = [one["provider"] for one in tree["rollbacks"]]
    mends = {"kill": "start", "freeze": "thaw", "cut": "heal"}
    for one in done:
        verb, _, what = one["func"].partition("_")
        if verb in mends:
            mending = {**one, "func": f"{mends[verb]}_{what}"}
            assert mending in done
            assert mending in undone


@pytest.fixture
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expectations, "_unmet", [])


@pytest.mark.usefixtures("_fresh")
@pytest.mark.parametrize(
    ("probe", "of", "to_be", "said"),
    [
        ("is_ready", {"cluster": "east"}, True, r"is_ready\(cluster=east\) is False after 0 s"),
        ("lag_events", {"cluster": "east", "peer": "west"}, {"at_least": 0}, "is -1"),
        ("is_redy", {"cluster": "east"}, True, "there is no probe is_redy"),
        ("is_ready", {"clustre": "east"}, True, "its arguments go into `of`"),
        ("is_ready", {"cluster": "mars"}, True, "there is no cluster 'mars'"),
    ],
)
def test_what_does_not_come_true_is_an_error_and_is_remembered(
    free_address: Any, probe: str, of: Json, to_be: Any, said: str
) -> None:
    configuration = {"meshds": f"east=http://{free_address()}"}
    assert expectations.expectations_met()
    with pytest.raises(Exception, match=said):
        expectations.expect(probe, of, to_be, configuration=configuration)
    with pytest.raises(expectations.ExpectationError, match=said):
        expectations.expectations_met()


@pytest.mark.usefixtures("_fresh")
def test_what_comes_true_is_told(free_address: Any) -> None:
    nobody = {"meshds": f"east=http://{free_address()}"}
    of = {"cluster": "east", "peer": "west"}
    assert expectations.expect("peer_phase", of, "unknown", configuration=nobody) == "unknown"
    assert expectations.expect("lag_events", of, {"at_most": 0}, configuration=nobody) == -1
    assert expectations.expect("peer_phase", of, {"other_than": "Ready"}, configuration=nobody)
    assert expectations.expectations_met()
