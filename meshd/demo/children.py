"""The processes that the demo starts, and their end.

For: starting, killing and ending them, and knowing that none is left. Not for: what they do.
Invariants: every child, and every child of a child, carries the demo's mark in its environment, so
what is left behind can be found whatever became of its parent; when `Children` has been left, no
process with the mark lives.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from meshd.edges.embedded import launch

MARK = "DEMO_OF_MESHD"
GRACE_S = 20.0
"""Between SIGTERM and SIGKILL: longer than meshd takes to drain and to stop its etcd."""
SWEEP_S = 5.0
POLL_S = 0.05
LAST_LINES = 12


@dataclass(frozen=True, slots=True)
class Remains:
    """What was still there at the end and had to be killed."""

    pid: int
    command: str


class Child:
    """One process, which can be started again after its end."""

    def __init__(self, name: str, arguments: Sequence[str], folder: Path, mark: str) -> None:
        self.name = name
        self.log_file = folder / f"{name}.log"
        self._pid_file = folder / f"{name}.pid"
        self._arguments = arguments
        self._mark = mark
        self._process: asyncio.subprocess.Process | None = None
        self.is_meant_to_run = False

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    @property
    def exit_status(self) -> int | None:
        """How it ended; None while it runs and before it was started."""
        return self._process.returncode if self._process is not None else None

    async def start(self) -> None:
        """Start it. It is told to end when the demo dies, even if that is by SIGKILL."""
        self.is_meant_to_run = True
        output = os.open(self.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(Path(launch.__file__))),
                *(str(os.getpid()), str(self._pid_file), sys.executable, *self._arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=_environment(self._mark),
                # Ctrl-C is for the demo, which ends everything in its order.
                start_new_session=True,
            )
        finally:
            os.close(output)

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def wait(self) -> int | None:
        """Wait for its end."""
        return await self._process.wait() if self._process is not None else None

    async def end(self, grace_s: float = GRACE_S) -> None:
        """Ask it to end, and kill it when it doesn't."""
        self.is_meant_to_run = False
        self.send(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace_s):
                await self.wait()
        except TimeoutError:
            self.send(signal.SIGKILL)
            await self.wait()

    def last_words(self) -> list[str]:
        """The end of its log."""
        try:
            lines = self.log_file.read_text(errors="replace").splitlines()
        except OSError:
            return ["it left no log"]
        return lines[-LAST_LINES:] or ["it wrote nothing"]


class Children:
    """All processes of one demo; leave it to end them."""

    def __init__(self, folder: Path) -> None:
        self.remains: tuple[Remains, ...] = ()
        self._folder = folder
        self._mark = uuid.uuid4().hex
        self._children: dict[str, Child] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.end()

    def __iter__(self) -> Iterator[Child]:
        return iter(tuple(self._children.values()))

    def add(self, name: str, arguments: Sequence[str]) -> Child:
        """Prepare a child: Python with these arguments."""
        child = self._children[name] = Child(name, arguments, self._folder, self._mark)
        return child

    async def end(self) -> None:
        """End all children at once and kill what they leave. Safe to call more than once."""
        async with asyncio.TaskGroup() as tasks:
            for child in self._children.values():
                tasks.create_task(child.end(), name=f"end {child.name}")
        self.remains += await self._sweep()

    async def _sweep(self) -> tuple[Remains, ...]:
        """Children of children that were killed: an etcd ends by itself, but takes a moment."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + SWEEP_S
        left = await asyncio.to_thread(find_marked, self._mark)
        for remains in left:
            _send(remains.pid, signal.SIGTERM)
        while left and loop.time() < until_s:
            await asyncio.sleep(POLL_S)
            left = await asyncio.to_thread(find_marked, self._mark)
        for remains in left:
            _send(remains.pid, signal.SIGKILL)
        return left

    def left(self) -> tuple[Remains, ...]:
        """Every process of this demo that lives now."""
        return find_marked(self._mark)


def find_marked(mark: str) -> tuple[Remains, ...]:
    """Every living process whose environment carries this mark."""
    sought = f"{MARK}={mark}".encode()
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal():
            continue
        try:
            if sought not in (process / "environ").read_bytes().split(b"\0"):
                continue
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            # It ended while we looked, or is somebody else's and so none of ours.
            continue
        if command:
            found.append(Remains(int(process.name), command.strip()))
    return tuple(found)


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _environment(mark: str) -> Mapping[str, str]:
    """Ours, without what a person has set for another meshd."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("MESHD_")}
    return own | {MARK: mark, "PYTHONUNBUFFERED": "1"}
