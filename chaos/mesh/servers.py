"""The processes of a mesh: each is started, killed, frozen and watched in the same way.

For: drivers that run a mesh themselves. Not for: which processes there are (`clusters`).
Invariants: every start and every end is told once, whoever caused it; nothing outlives the harness,
not even where that is killed.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from chaos.brokers import Broker
from chaos.etcds import Etcd, Member
from chaos.history import Change
from chaos.mesh.shape import Kind, Server

START_TIMEOUT_S = 120.0
"""A meshd of this size is ready in two seconds; several at once, on two cores that others use as
well, have taken more than thirty.
"""
STOP_TIMEOUT_S = 20.0
"""Twice what a meshd allows itself for ending."""
LOOK_TIMEOUT_S = 2.0
POLL_S = 0.05
LOG_TAIL_CHARACTERS = 2000

Listener = Callable[[Server, Change, int], None]
"""Told of a server, what became of its process, and the exit status or the signal with a minus. At
a start and at an end `server.pid` is the process meant.
"""


def tell_nobody(server: Server, change: Change, status: int) -> None:
    """Say nothing of what became of a process."""
    del server, change, status


def dying_with_us() -> tuple[str, ...]:
    """Return what runs a command that is killed when this process is gone, however it goes. Where
    there is no setpriv, it isn't.
    """
    return ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()


class Watch:
    """Sees every process of a mesh begin and end, and tells who listens."""

    def __init__(self, listener: Listener | None = None) -> None:
        self._listener = listener or tell_nobody
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_over = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Watch]:
        """Watch as long as the context lasts. What a listener raised is raised at its end."""
        try:
            yield self
        finally:
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)
            for task in tasks:
                if not task.cancelled() and (error := task.exception()) is not None:
                    raise error

    def end(self) -> None:
        """Tell nothing from now on: the mesh is left."""
        self._is_over = True

    def follow(
        self, server: Watched, process: asyncio.subprocess.Process, is_ours: Callable[[], bool]
    ) -> None:
        """Tell of a process that was started, and of its end. is_ours: whether it was killed."""
        ended = asyncio.Event()
        server.ended = ended
        # It has an owner: this watch, which is left when all of its tasks are done.
        task = asyncio.get_running_loop().create_task(self._until(server, process, is_ours, ended))
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        self._tell(server, process.pid, Change.STARTED, 0)

    def _forget(self, task: asyncio.Task[None]) -> None:
        """Keep no task but those that failed, for the end."""
        if task.cancelled() or task.exception() is None:
            self._tasks.discard(task)

    async def _until(
        self,
        server: Watched,
        process: asyncio.subprocess.Process,
        is_ours: Callable[[], bool],
        ended: asyncio.Event,
    ) -> None:
        try:
            status = await process.wait()
            change = Change.KILLED if is_ours() else Change.ENDED
            self._tell(server, process.pid, change, status)
        finally:
            ended.set()

    def _tell(self, server: Watched, pid: int, change: Change, status: int) -> None:
        if self._is_over:
            return
        server.told_pid = pid
        try:
            self._listener(server, change, status)
        finally:
            server.told_pid = None


@dataclass(slots=True, kw_only=True, eq=False)
class Watched(ABC):
    """What all servers share. last: its process, also after its end. ended: that its end was told.
    told_pid: of the process that is told of.
    """

    name: str
    cluster: str
    address: str
    kind: Kind = Kind.MESHD
    watch: Watch
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    last: asyncio.subprocess.Process | None = None
    told_pid: int | None = None
    is_ended_by_us: bool = False

    @property
    def pid(self) -> int | None:
        """None while it doesn't run; to a listener, of the process that it is told of."""
        if self.told_pid is not None:
            return self.told_pid
        return self.last.pid if self.last is not None and self.is_running else None

    @property
    def is_running(self) -> bool:
        """Whether there is a process, be it frozen."""
        return self.last is not None and self.last.returncode is None

    def send(self, number: int) -> None:
        """Signal it, if it runs."""
        if self.last is not None and self.last.returncode is None:
            self.is_ended_by_us = self.is_ended_by_us or number in {signal.SIGKILL, signal.SIGTERM}
            self.last.send_signal(number)

    @abstractmethod
    async def start(self) -> None:
        """Start it if it doesn't run, and wait until it answers."""

    async def kill(self) -> None:
        """End it as a power cut does, and wait until that was told."""
        if self.is_running:
            self.send(signal.SIGKILL)
            await self.ended.wait()

    async def stop(self) -> None:
        """Ask it to end, and wait until it did; kill it if it doesn't."""
        if self.is_running:
            self.send(signal.SIGCONT)
            self.send(signal.SIGTERM)
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await self.ended.wait()
            await self.kill()

    async def freeze(self) -> None:
        """Let it do nothing; returns when it does nothing."""
        self.send(signal.SIGSTOP)
        async with asyncio.timeout(STOP_TIMEOUT_S):
            while self.pid is not None and not _is_frozen(self.pid):  # noqa: ASYNC110 the kernel's
                await asyncio.sleep(0)

    async def thaw(self) -> None:
        """Let it go on."""
        self.send(signal.SIGCONT)

    def _started(self, process: asyncio.subprocess.Process) -> None:
        self.last = process
        self.is_ended_by_us = False
        self.watch.follow(self, process, self._is_ended_by_us)

    def _is_ended_by_us(self) -> bool:
        return self.is_ended_by_us


def _is_frozen(pid: int) -> bool:
    """Whether it was stopped by a signal, which it is some time after that was sent."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    # Behind the name, which may hold anything.
    return stat.rpartition(")")[2].split()[0] == "T"


@dataclass(slots=True, kw_only=True, eq=False)
class MeshdServer(Watched):
    """One meshd. settings: as `--set` takes them, all of them. folder: where its log is."""

    kind: Kind = Kind.MESHD
    settings: Sequence[str]
    folder: Path
    within: Sequence[str] = ()

    @property
    def log(self) -> Path:
        """What it said."""
        return self.folder / f"{self.name.rpartition('/')[2]}.log"

    async def start(self) -> None:
        """Start it if it doesn't run, or was just killed, and wait until it is ready."""
        await self.start_with()

    async def start_with(
        self, settings: Sequence[str] = (), environment: Mapping[str, str] | None = None
    ) -> None:
        """Start it with more settings, which count more than its own, or more in its environment.
        One that runs stays as it is.
        """
        if self.is_running and self.is_ended_by_us:
            # Whoever killed it didn't wait until it was gone.
            await self.ended.wait()
        if not self.is_running:
            await self._spawn((*self.settings, *settings), environment or {})
        await self.until_ready()

    async def _spawn(self, settings: Sequence[str], environment: Mapping[str, str]) -> None:
        with self.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(*self.within, sys.executable, "-m", "meshd", "run"),
                *(part for one in settings for part in ("--set", one)),
                env={**os.environ, **environment},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._started(process)

    async def until_ready(self) -> None:
        """Wait until it says that it is ready; raises RuntimeError if that isn't in time."""
        try:
            async with asyncio.timeout(START_TIMEOUT_S), aiohttp.ClientSession() as http:
                while not await self._is_ready(http):
                    if not self.is_running:
                        raise RuntimeError(f"{self.name} ended: {self._tail()}")
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            await self._tell_stacks()
            raise RuntimeError(
                f"{self.name} was not ready within {START_TIMEOUT_S:g} s: {self._tail()}"
            ) from None

    async def _tell_stacks(self) -> None:
        """Have it write where it stands, so that whoever reads its log sees why."""
        size_bytes = self.log.stat().st_size
        self.send(signal.SIGQUIT)
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_TIMEOUT_S):
                while self.log.stat().st_size == size_bytes:  # noqa: ASYNC110 another's file
                    await asyncio.sleep(POLL_S)

    async def _is_ready(self, http: aiohttp.ClientSession) -> bool:
        timeout = aiohttp.ClientTimeout(total=LOOK_TIMEOUT_S)
        try:
            async with http.get(f"http://{self.address}/readyz", timeout=timeout) as response:
                answer = await response.json()
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return False
        return bool(answer.get("ready"))

    def _tail(self) -> str:
        said = self.log.read_text(errors="replace")
        return f"see {self.log}\n{said[-LOG_TAIL_CHARACTERS:]}"


@dataclass(slots=True, kw_only=True, eq=False)
class MemberServer(Watched):
    """One member of an etcd, which is the same process whether it is ended here or by `Etcd`."""

    kind: Kind = Kind.ETCD
    etcd: Etcd
    member: Member

    def __post_init__(self) -> None:
        self.member.started = self._started

    async def start(self) -> None:
        """Start it if it doesn't run, and wait until it answers, if there is a quorum."""
        await self.etcd.start_member(self.member)

    def send(self, number: int) -> None:
        """Signal it, if it runs."""
        self.member.send(number)

    def _is_ended_by_us(self) -> bool:
        return self.member.is_ended_by_us


@dataclass(slots=True, kw_only=True, eq=False)
class BrokerServer(Watched):
    """A broker, which is the same process whether it is ended here or by `Broker`."""

    kind: Kind = Kind.BROKER
    broker: Broker

    def __post_init__(self) -> None:
        self.broker.started = self._started

    async def start(self) -> None:
        """Start it if it doesn't run, and wait until it takes connections."""
        if not self.is_running:
            await self.broker.start()

    def send(self, number: int) -> None:
        """Signal it, if it runs."""
        self.broker.send(number)

    def _is_ended_by_us(self) -> bool:
        return self.broker.is_ended_by_us
