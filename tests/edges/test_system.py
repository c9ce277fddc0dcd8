"""The machine's own clock, dice and processes, and what systemd is told."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from meshd.edges.system import SystemChance, SystemClock, process
from meshd.edges.system.process import is_alive, is_gone, process_id, process_mark
from meshd.edges.system.systemd import notify, watchdog_interval_s


def test_this_process_is_alive_and_another_one_with_its_number_is_not() -> None:
    mark = process_mark()
    assert is_alive(process_id(), mark)
    assert not is_gone(process_id(), mark)
    scope = mark.rpartition(":")[0]
    assert is_gone(process_id(), f"{scope}:1")
    assert not is_alive(process_id(), f"{scope}:1")


def test_a_process_that_ended_is_gone() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        mark = process_mark(process.pid)
        assert is_alive(process.pid, mark)
        process.kill()
    assert is_gone(process.pid, mark)
    assert process_mark(process.pid) == ""


def test_of_another_machine_nothing_is_known() -> None:
    foreign = "another-boot-id:pid:[1]:77"
    assert not is_gone(process_id(), foreign)
    assert not is_alive(process_id(), foreign)
    assert not is_alive(process_id(), "")


def test_without_a_descriptor_nobody_is_known_to_be_gone_and_nothing_ends() -> None:
    pid, mark = process_id(), process_mark()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        known = is_gone(pid, mark), is_alive(pid, mark)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert known == (False, False)


def test_a_process_that_can_not_be_looked_at_is_not_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its start can't be read, and all else can."""
    pid, mark = process_id(), process_mark()
    for name in ("sys", "self"):
        (tmp_path / name).symlink_to(f"/proc/{name}")
    (tmp_path / f"{pid}/stat").mkdir(parents=True)
    monkeypatch.setattr(process, "PROC", tmp_path)
    assert not is_gone(pid, mark)


def test_systemd_hears_from_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(path))
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        notify("READY=1")
        assert systemd.recv(100) == b"READY=1"


def test_systemd_may_listen_in_the_abstract_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"meshd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(f"\0{name}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        notify("WATCHDOG=1")
        assert systemd.recv(100) == b"WATCHDOG=1"


def test_a_systemd_that_is_not_there_is_no_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    notify("READY=1")


@pytest.mark.parametrize(
    ("patience_us", "interval_s"), [("30000000", 15.0), ("", 0.0), ("soon", 0.0)]
)
def test_the_watchdog_is_told_twice_as_often_as_it_asks(
    patience_us: str, interval_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", patience_us)
    assert watchdog_interval_s() == interval_s


async def test_clock_and_chance_are_the_machines_own() -> None:
    clock, chance = SystemClock(), SystemChance()
    before = clock.monotonic_s()
    await clock.sleep(0)
    assert clock.monotonic_s() >= before
    assert clock.wall_ms() > 1_700_000_000_000
    assert 2.0 <= chance.uniform(2.0, 3.0) <= 3.0
    assert chance.uuid_hex() != chance.uuid_hex()


@pytest.mark.parametrize(("number", "ends"), [(signal.SIGQUIT, False), (signal.SIGABRT, True)])
def test_a_process_that_is_stuck_says_where(number: signal.Signals, ends: bool) -> None:
    stuck = (
        "from meshd.edges.system.stacks import tell_stacks\n"
        "def never(): print(flush=True); input()\n"
        "tell_stacks(); never()"
    )
    command = [sys.executable, "-c", stuck]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.send_signal(number)
        assert any("in never" in line for line in process.stderr)
        process.communicate(input="\n")
    assert process.returncode == (-signal.SIGABRT if ends else 0)


def test_a_process_that_does_not_end_in_time_is_ended_and_says_where_it_was() -> None:
    stuck = (
        "from meshd.edges.system.stacks import end_within\n"
        "def never(): input()\n"
        "end_within(0.05); never()"
    )
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", stuck]
    with subprocess.Popen(command, stdin=pipe, stderr=pipe, text=True) as process:
        assert process.stderr is not None
        said = process.stderr.read()
    assert process.returncode == 1
    assert "in never" in said
