"""The demo as a person runs it: real etcds, real meshds, real requests, real signals."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.demos import COMMAND, END_WITHIN_S, SAID_WITHIN_S, Demo, environment, living, until

pytestmark = pytest.mark.timeout(180)

STEPS = ["start", "steady", "east", "west-dies", "west-returns", "end"]
CLUSTERS = {"east", "west", "south"}

Json = dict[str, Any]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A folder for the demo's temporary files; whoever still runs with it afterwards is killed."""
    yield tmp_path
    for pid in living(tmp_path):
        os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Demo, Json, float]:
    """One whole unattended run, which most tests look at."""
    home = tmp_path_factory.mktemp("demo")
    began_s = time.monotonic()
    demo = Demo(home, "--check", "--json", "--dir", str(home / "kept"))
    try:
        demo.process.wait(150)
    finally:
        left = living(home)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
    assert left == [], demo.err
    return demo, json.loads(demo.out), time.monotonic() - began_s


Checked = tuple[Demo, Json, float]


def step_of(report: Json, name: str) -> Json:
    return next(step for step in report["steps"] if step["name"] == name)


def route(report: Json, step: str, label: str, caller: str, service: str) -> Json:
    found: Json = step_of(report, step)["requests"][label]["by_caller"][caller][service]
    return found


def who(answers: Json) -> set[str]:
    return {name.partition("/")[0] for name in answers["answered"]}


@pytest.mark.kills_etcd
def test_it_ends_well_and_within_two_minutes(checked: Checked) -> None:
    demo, report, seconds = checked
    assert demo.process.returncode == 0, demo.err
    assert report["ok"] is True
    assert report["problem"] is None
    assert seconds < 120


@pytest.mark.kills_etcd
@pytest.mark.parametrize("name", STEPS)
def test_every_step_is_played_and_meets_its_expectations(checked: Checked, name: str) -> None:
    step = step_of(checked[1], name)
    assert step["expectations"]
    assert [one for one in step["expectations"] if not one["ok"]] == []
    assert step["ok"] is True
    assert step["seconds"] > 0


@pytest.mark.kills_etcd
def test_the_steps_are_in_order_and_all_but_the_calm_ones_say_when_they_converged(
    checked: Checked,
) -> None:
    steps = checked[1]["steps"]
    assert [step["name"] for step in steps] == STEPS
    converging = {step["name"] for step in steps if step["seconds_until_converged"] is not None}
    assert converging == {"start", "east", "west-dies", "west-returns"}


@pytest.mark.kills_etcd
def test_the_clusters_agree_at_the_end(checked: Checked) -> None:
    report = checked[1]
    assert set(report["clusters"]) == CLUSTERS
    assert len({cluster["vector_text"] for cluster in report["clusters"].values()}) == 1
    for name, cluster in report["clusters"].items():
        assert cluster["peers"] == dict.fromkeys(CLUSTERS - {name}, "Ready")
        assert set(cluster["vector"]) == CLUSTERS
    for perspective, digests in report["digests_by_perspective"].items():
        assert set(digests) == CLUSTERS
        assert set(digests.values()) == {report["clusters"][perspective]["digest"]}


@pytest.mark.kills_etcd
def test_affinity_and_weights_decide_who_answers(checked: Checked) -> None:
    report = checked[1]

    def asked(caller: str, service: str) -> Json:
        return route(report, "steady", "all clusters", caller, service)

    assert who(asked("east", "cart")) == {"east"}
    assert who(asked("west", "search")) == {"east", "south"}
    assert who(asked("south", "web")) == CLUSTERS
    assert "shipping/shipping-2" not in str(asked("east", "shipping")["answered"])
    assert all(asked("east", name)["sent"] == 60 for name in ("web", "catalog", "ledger"))


@pytest.mark.kills_etcd
def test_without_its_backends_east_is_served_by_others_or_told_that_there_is_none(
    checked: Checked,
) -> None:
    report = checked[1]
    for caller in CLUSTERS:
        for service, answers in step_of(report, "east")["requests"]["all clusters"]["by_caller"][
            caller
        ].items():
            if service == "ledger":
                assert answers["no_backend"] == answers["sent"] == 60
                assert answers["failed"] == 0
            else:
                assert "east" not in who(answers)
                assert sum(answers["answered"].values()) == answers["sent"] == 60


@pytest.mark.kills_etcd
def test_a_dead_control_plane_takes_no_backend_away(checked: Checked) -> None:
    report = checked[1]
    at_once = route(report, "west-dies", "right after the kill", "south", "recommend")
    assert who(at_once) == {"west"}
    demoted = "east and south, west demoted"
    assert who(route(report, "west-dies", demoted, "east", "recommend")) == {"west"}
    assert who(route(report, "west-dies", demoted, "east", "web")) == {"east", "south"}
    alone = route(report, "west-dies", "west, by its last good table", "west", "web")
    assert who(alone) == CLUSTERS
    timings = step_of(report, "west-dies")["timings_s"]
    assert 1 < timings["west Stale"] < timings["west demoted"] < 15


@pytest.mark.kills_etcd
def test_no_customer_ever_sees_a_failure(checked: Checked) -> None:
    for step in checked[1]["steps"]:
        for tally in (*step["requests"].values(), step["meanwhile"]):
            assert tally["failed"] == 0, tally["problems"]
    sent = sum(step["meanwhile"]["sent"] for step in checked[1]["steps"])
    assert sent > 100


@pytest.mark.kills_etcd
def test_what_a_person_asked_to_keep_is_kept(checked: Checked) -> None:
    kept = checked[0].home / "kept"
    for cluster in CLUSTERS:
        assert (kept / cluster / "meshd.yaml").is_file()
        assert "kind: EndpointSlice" in (kept / cluster / "shop.yaml").read_text()
        assert (kept / cluster / "etcd" / "etcd").is_dir()
        assert "meshd runs" in (kept / f"{cluster}-meshd.log").read_text()


@pytest.mark.parametrize(
    ("words", "number"),
    [
        ("opening 32 HTTP servers", signal.SIGINT),
        ("meshd serves", signal.SIGTERM),
        ("Customers everywhere", signal.SIGINT),
        pytest.param("killed etcd", signal.SIGINT, marks=pytest.mark.kills_etcd),
        pytest.param("started meshd again", signal.SIGTERM, marks=pytest.mark.kills_etcd),
    ],
)
def test_a_signal_ends_it_cleanly_at_any_moment(
    home: Path, words: str, number: signal.Signals
) -> None:
    demo = Demo(home, "--check", "--json")
    demo.wait_for(words)
    demo.process.send_signal(number)
    assert demo.end() == 128 + number, demo.err
    assert living(home) == []
    report = json.loads(demo.out)
    assert report["ok"] is False
    assert report["problem"] == f"ended by {number.name}"
    assert [one for one in report["steps"][-1]["expectations"] if not one["ok"]] == []
    assert "Traceback" not in demo.err
    assert sorted(path.name for path in home.iterdir()) == ["err", "out"]


def test_even_its_own_kill_leaves_nothing(home: Path) -> None:
    demo = Demo(home, "--check")
    assert until(lambda: "every cluster sees" in demo.out, SAID_WITHIN_S), demo.err
    assert len(living(home)) == 10  # the demo, and three times meshd, etcd and shop
    demo.process.kill()
    demo.process.wait()
    assert until(lambda: not living(home), END_WITHIN_S), living(home)


def test_without_etcd_it_says_what_to_do(home: Path) -> None:
    nowhere = environment(home) | {"PATH": str(home)}
    ran = subprocess.run(
        [*COMMAND, "--check", "--json"], env=nowhere, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 1
    assert "make demo" in ran.stderr
    assert "make demo" in json.loads(ran.stdout)["problem"]
    assert "Traceback" not in ran.stderr


def test_an_etcd_that_does_not_start_is_shown_with_its_last_words(home: Path) -> None:
    fake = home / "bin" / "etcd"
    fake.parent.mkdir()
    fake.write_text(
        "#!/bin/sh\n"
        'if [ "$1" = --version ]; then echo "etcd Version: 3.5.16"; exit 0; fi\n'
        'echo "fatal: the disk is made of cheese"; exit 3\n'
    )
    fake.chmod(0o755)
    ran = subprocess.run(
        [*COMMAND, "--check", "--json"],
        env=environment(home) | {"PATH": f"{fake.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=END_WITHIN_S,
    )
    assert ran.returncode == 1
    report = json.loads(ran.stdout)
    assert report["steps"][0]["ok"] is False
    assert "ended by itself" in str(report["steps"][0]["expectations"])
    assert "the disk is made of cheese" in str(report["logs"])
    assert "the disk is made of cheese" in ran.stderr
    assert living(home) == []


def read_until(terminal: int, words: str, within_s: float) -> str:
    """What a terminal shows, until it has shown some words or is closed."""
    shown = b""
    end_s = time.monotonic() + within_s
    while time.monotonic() < end_s and words.encode() not in shown:
        if not select.select([terminal], [], [], 0.2)[0]:
            continue
        try:
            chunk = os.read(terminal, 65536)
        except OSError:
            break
        if not chunk:
            break
        shown += chunk
    return shown.decode(errors="replace")


def test_the_live_view_plays_the_story_and_gives_the_terminal_back(home: Path) -> None:
    ours, theirs = pty.openpty()
    settings = {"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}
    process = subprocess.Popen(
        [*COMMAND, "--pace", "0.1"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment(home) | settings,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        shown = read_until(ours, "2/6 Customers everywhere", SAID_WITHIN_S)
        assert "2/6 Customers everywhere" in shown
        assert "\x1b[?1049h" in shown
        process.send_signal(signal.SIGINT)
        rest = read_until(ours, "\x00never", END_WITHIN_S)
        assert process.wait(END_WITHIN_S) == 0, rest
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert "\x1b[?1049l" in rest
    assert "Traceback" not in shown + rest
    last_page = rest.rpartition("\x1b[?1049l")[2]
    assert "Everything ends" in last_page
    assert living(home) == []
