"""Processes: their end, and that of what they leave behind."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from meshd.demo import children
from meshd.demo.children import Children, find_marked
from meshd.demo.waiting import NotInTimeError, until

SLEEPS = ["-c", "import time; print('up', flush=True); time.sleep(60)"]
IGNORES = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('deaf', flush=True); time.sleep(60)"
)
LEAVES = (
    "import subprocess, sys, time;"
    f"subprocess.Popen([sys.executable, '-c', {IGNORES!r}], start_new_session=True);"
    "time.sleep(60)"
)


async def until_said(child: children.Child, word: str) -> None:
    async def missing() -> str:
        return "" if word in child.last_words() else f"it said {child.last_words()}"

    await until(word, missing, 10)


async def test_leaving_ends_everybody(tmp_path: Path) -> None:
    async with Children(tmp_path) as group:
        child = group.add("sleeper", SLEEPS)
        await child.start()
        await until_said(child, "up")
        assert [one.pid for one in group.left()] == [child.pid]
    assert child.exit_status == -signal.SIGTERM
    assert group.left() == group.remains == ()


async def test_what_a_killed_child_leaves_is_found_and_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "SWEEP_S", 0.2)
    async with Children(tmp_path) as group:
        child = group.add("parent", ["-c", LEAVES])
        await child.start()
        await until_said(child, "deaf")
        child.send(signal.SIGKILL)
        await child.wait()
        (orphan,) = group.left()
    assert [one.pid for one in group.remains] == [orphan.pid]
    assert await _gone(group)


async def _gone(group: Children) -> bool:
    for _ in range(100):
        if not group.left():
            return True
        await asyncio.sleep(0.05)
    return False


async def test_a_child_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    async with Children(tmp_path) as group:
        child = group.add("deaf", ["-c", IGNORES])
        await child.start()
        await until_said(child, "deaf")
        await child.end(grace_s=0.2)
        assert child.exit_status == -signal.SIGKILL
        assert child.pid is None


async def test_settings_of_another_meshd_do_not_reach_the_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESHD_CLUSTER__NAME", "north")
    async with Children(tmp_path) as group:
        child = group.add("env", ["-c", "import os; print([k for k in os.environ if 'MESH' in k])"])
        await child.start()
        assert await child.wait() == 0
        assert child.last_words() == [f"['{children.MARK}']"]


def test_another_mark_finds_nobody() -> None:
    assert find_marked("nobody has this mark") == ()


async def test_a_wait_in_vain_says_what_was_missing() -> None:
    async def missing() -> str:
        return "the moon is not full"

    with pytest.raises(NotInTimeError, match=r"a werewolf not within 0\.1 s: the moon is not full"):
        await until("a werewolf", missing, 0.1)
