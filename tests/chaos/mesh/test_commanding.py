"""Commands are run one by one, only where that is allowed, and all that they did is undone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from chaos.mesh.attached import commanding_of, undo_path
from chaos.mesh.commanding import CommandError, NotUndoneError, RefusedError
from chaos.mesh.mesh_file import Target, Verb
from chaos.mesh.undoing import UndoFileError, UndoList

ROOT = Path(__file__).resolve().parents[3]
COMMAND = [sys.executable, "-m", "chaos.mesh"]
EAST, WEST = Target.of_server("east/meshd-1"), Target.of_server("west/meshd-1")
LINK = Target("east", peer="west")


@dataclass(frozen=True, slots=True)
class Yard:
    """A mesh file whose servers are processes that sleep; east is not allowed."""

    file: Path
    pids: dict[str, int]

    def state(self, cluster: str) -> str:
        stat = Path(f"/proc/{self.pids[cluster]}/stat").read_text()
        return stat.rpartition(")")[2].split()[0]

    def wait(self, cluster: str, state: str) -> None:
        """A signal takes a moment; the test's own time limit is the limit."""
        until(lambda: self.state(cluster) == state)

    def change(self, **commands: dict[str, str]) -> None:
        tree = yaml.safe_load(self.file.read_text())
        for part, more in commands.items():
            tree["commands"][part] |= more
        self.file.write_text(yaml.safe_dump(tree))

    @property
    def told(self) -> list[str]:
        """What the link's commands have done."""
        path = self.file.with_name("told")
        return path.read_text().split() if path.exists() else []


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    sleepers = {name: subprocess.Popen(["sleep", "600"]) for name in ("east", "west")}
    pids = {name: sleeper.pid for name, sleeper in sleepers.items()}
    tell = f"sh -c 'echo $0 >> {tmp_path}/told'"
    tree: dict[str, Any] = {
        "clusters": [
            {
                "name": name,
                "id": number,
                "meshds": [
                    {
                        "name": "meshd-1",
                        "url": "http://127.0.0.1:1",
                        "values": {"pid": str(pids[name])},
                    }
                ],
            }
            for number, name in enumerate(pids, start=1)
        ],
        "allowed": {"servers": ["west/meshd-1"], "links": [["west", "east"]]},
        "commands": {
            "meshd": {"freeze": "kill -STOP {pid}", "thaw": "kill -CONT {pid}"},
            "link": {"cut": f"{tell} cut", "heal": f"{tell} heal"},
        },
    }
    file = tmp_path / "mesh.yaml"
    file.write_text(yaml.safe_dump(tree))
    yield Yard(file, pids)
    for sleeper in sleepers.values():
        sleeper.kill()
        sleeper.wait()


def quiet(_: str) -> None:
    """Tell nobody."""


def until(condition: Any) -> None:
    """The test's own time limit is the limit."""
    while not condition():
        time.sleep(0.02)


def test_what_is_done_is_on_the_list_until_it_is_undone(yard: Yard) -> None:
    commanding = commanding_of(yard.file, quiet)
    commanding.do(Verb.FREEZE, WEST)
    yard.wait("west", "T")
    assert [one.what for one in UndoList.read(undo_path(yard.file))] == ["thaw west/meshd-1"]
    commanding.do(Verb.THAW, WEST)
    yard.wait("west", "S")
    assert not undo_path(yard.file).exists()


def test_whoever_is_not_allowed_is_refused(yard: Yard) -> None:
    commanding = commanding_of(yard.file, quiet)
    with pytest.raises(RefusedError, match=r"east/meshd-1 may not be touched: .*allowed\.servers"):
        commanding.do(Verb.FREEZE, EAST)
    with pytest.raises(RefusedError, match=r"west > north may not be touched: .*allowed\.links"):
        commanding.do(Verb.CUT, Target("west", peer="north"))
    with pytest.raises(RefusedError, match="has no command to kill west/meshd-1"):
        commanding.do(Verb.KILL, WEST)
    assert yard.state("east") == "S"
    assert not undo_path(yard.file).exists()
    assert yard.told == []


def test_a_dry_run_says_every_command_and_runs_none(yard: Yard) -> None:
    said: list[str] = []
    commanding = commanding_of(yard.file, said.append, dry_run=True)
    commanding.do(Verb.FREEZE, WEST)
    commanding.do(Verb.CUT, LINK)
    commanding.close()
    assert said[0] == f"would freeze west/meshd-1: kill -STOP {yard.pids['west']}"
    assert said[1].startswith("would cut east > west: sh -c ")
    assert (yard.state("west"), yard.told) == ("S", [])
    with pytest.raises(RefusedError):
        commanding.do(Verb.FREEZE, EAST)


def test_all_is_undone_in_reverse_though_one_thing_cannot_be(yard: Yard) -> None:
    yard.change(meshd={"kill": "true", "start": "sh -c 'echo no such host >&2; exit 7'"})
    said: list[str] = []
    commanding = commanding_of(yard.file, said.append)
    for verb, target in ((Verb.FREEZE, WEST), (Verb.KILL, WEST), (Verb.CUT, LINK)):
        commanding.do(verb, target)
    with pytest.raises(NotUndoneError, match="1 things are left undone") as caught:
        commanding.close()
    assert "start west/meshd-1: `sh -c 'echo no such host" in str(caught.value)
    assert "ended with status 7: no such host" in str(caught.value)
    undone = [line.partition(":")[2].partition(":")[0] for line in said if "undoing" in line]
    assert undone == [" heal east > west", " start west/meshd-1", " thaw west/meshd-1"]
    yard.wait("west", "S")
    assert yard.told == ["cut", "heal"]
    assert [one.what for one in UndoList.read(undo_path(yard.file))] == ["start west/meshd-1"]
    with pytest.raises(CommandError, match="the run is over"):
        commanding.do(Verb.FREEZE, WEST)


def test_a_command_that_fails_is_undone_too(yard: Yard) -> None:
    yard.change(link={"cut": "false"})
    commanding = commanding_of(yard.file, quiet)
    with pytest.raises(CommandError, match="`false` ended with status 1: it said nothing"):
        commanding.do(Verb.CUT, LINK)
    commanding.close()
    assert yard.told == ["heal"]


def test_a_command_that_hangs_is_ended_with_all_that_it_started(yard: Yard) -> None:
    tree = yaml.safe_load(yard.file.read_text())
    tree["command_timeout_s"] = 0.3
    yard.file.write_text(yaml.safe_dump(tree))
    mark = f"600.{os.getpid()}"
    yard.change(meshd={"kill": f"sh -c 'sleep {mark}; true'", "start": "/no/such/program"})
    commanding = commanding_of(yard.file, quiet)
    with pytest.raises(CommandError, match=r"was ended: it took more than 0\.3 s"):
        commanding.do(Verb.KILL, WEST)
    assert not _sleeping(mark)
    with pytest.raises(CommandError, match="can't be run: No such file or directory"):
        commanding.do(Verb.START, WEST)


def _sleeping(mark: str) -> bool:
    words = [b"sleep", mark.encode(), b""]
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if process.read_bytes().split(b"\0") == words:
                return True
        except OSError:
            continue
    return False


# --- as a process, which signals reach ------------------------------------------------------------


def command(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_has_it_undone(yard: Yard, number: signal.Signals) -> None:
    running = command("do", str(yard.file), "freeze", "west/meshd-1", "--for", "600")
    until(lambda: yard.state("west") == "T" or running.poll() is not None)
    running.send_signal(number)
    said = running.communicate(timeout=30)[0]
    assert running.returncode == 128 + number, said
    assert f"undoing: thaw west/meshd-1: kill -CONT {yard.pids['west']}" in said
    yard.wait("west", "S")
    assert not undo_path(yard.file).exists()


def test_impatience_does_not_break_off_the_undoing(yard: Yard) -> None:
    yard.change(link={"heal": f"sh -c 'sleep 1; echo heal >> {yard.file.with_name('told')}'"})
    running = command("do", str(yard.file), "cut", "east", "west", "--for", "600")
    until(lambda: yard.told == ["cut"] or running.poll() is not None)
    running.send_signal(signal.SIGINT)
    lines = []
    with running:
        for line in running.stdout or ():
            lines.append(line)
            if line.startswith("undoing"):
                running.send_signal(signal.SIGINT)
                running.send_signal(signal.SIGTERM)
    assert running.returncode == 128 + signal.SIGINT, lines
    assert yard.told == ["cut", "heal"]
    assert any("SIGTERM: what was broken is being undone" in line for line in lines)


def test_what_a_killed_run_left_has_to_be_undone_first(yard: Yard) -> None:
    running = command("do", str(yard.file), "freeze", "west/meshd-1", "--for", "600")
    until(lambda: yard.state("west") == "T" or running.poll() is not None)
    running.kill()
    running.communicate()
    yard.wait("west", "T")
    with pytest.raises(UndoFileError, match=r"undo \(thaw west/meshd-1\); run `python"):
        commanding_of(yard.file, quiet)
    refused = command("do", str(yard.file), "cut", "east", "west")
    assert "something to undo" in refused.communicate()[0]
    assert refused.returncode == 2
    undoing = command("undo", str(undo_path(yard.file)))
    assert "undoing: thaw west/meshd-1" in undoing.communicate()[0]
    assert undoing.returncode == 0
    yard.wait("west", "S")
    commanding_of(yard.file, quiet)


def test_the_command_says_what_it_would_do(yard: Yard) -> None:
    checked = command("check", str(yard.file))
    said = checked.communicate()[0]
    assert checked.returncode == 0, said
    assert "powers: cut, freeze" in said
    assert f"would freeze west/meshd-1: kill -STOP {yard.pids['west']}" in said
    assert "east/meshd-1" not in said
    dry = command("do", str(yard.file), "freeze", "west/meshd-1", "--dry-run")
    assert dry.communicate()[0].count("would ") == 2
    refused = command("do", str(yard.file), "freeze", "east/meshd-1")
    assert "Error: east/meshd-1 may not be touched" in refused.communicate()[0]
    assert (dry.returncode, refused.returncode) == (0, 2)
    assert (yard.state("west"), yard.state("east")) == ("S", "S")


def test_a_list_that_is_none_is_not_taken_for_one(yard: Yard) -> None:
    undo_path(yard.file).write_text("{}x")
    with pytest.raises(UndoFileError, match="is no list of things to undo"):
        commanding_of(yard.file, quiet)


@pytest.mark.parametrize(
    ("name", "cluster", "said"),
    [
        ("kill-mehsd", "west", "there is no fault 'kill-mehsd'; there are kill-meshd,"),
        ("freeze-meshd", "north", "there is no cluster north; there are east, west"),
        ("history-compacted", "west", "skipped: needs power `etcd`"),
    ],
)
def test_a_fault_that_cannot_be_is_refused(yard: Yard, name: str, cluster: str, said: str) -> None:
    refused = command("fault", str(yard.file), name, cluster)
    told = refused.communicate()[0]
    assert (refused.returncode, said in told) == (2, True), told
    assert not undo_path(yard.file).exists()
