"""The demo as a process, for tests of it and on it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

COMMAND = [sys.executable, "-m", "meshd", "demo"]
END_WITHIN_S = 40.0
SAID_WITHIN_S = 60.0


def environment(home: Path) -> dict[str, str]:
    return os.environ | {"TMPDIR": str(home)}


def living(home: Path) -> list[int]:
    """Processes that were started with this folder, children of children included."""
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal():
            continue
        try:
            environ = (process / "environ").read_bytes()
            is_zombie = not (process / "cmdline").read_bytes()
        except OSError:
            continue
        if f"TMPDIR={home}".encode() in environ.split(b"\0") and not is_zombie:
            found.append(int(process.name))
    return found


def until(condition: Callable[[], bool], within_s: float) -> bool:
    end_s = time.monotonic() + within_s
    while time.monotonic() < end_s:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


class Demo:
    """A demo that runs; its output goes to files, so that it never waits for a reader."""

    def __init__(self, home: Path, *options: str) -> None:
        self.home = home
        self._out, self._err = home / "out", home / "err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [*COMMAND, *options], stdout=out, stderr=err, env=environment(home)
            )

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def wait_for(self, words: str) -> None:
        assert until(lambda: words in self.err or self.process.poll() is not None, SAID_WITHIN_S), (
            self.err
        )
        assert words in self.err, self.err

    def end(self) -> int:
        return self.process.wait(END_WITHIN_S)
