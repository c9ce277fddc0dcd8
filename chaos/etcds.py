"""Real etcds, of one member or several, that can be killed, frozen, wiped and restored.

For: clusters under test, on loopback. Not for: meshd's embedded etcd. Invariant: a member is always
started with the same flags, as an operator's unit file does.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

WHY_CHARS_MAX = 500
"""Of what a program says when it fails: the end, where the reason is."""
START_TIMEOUT_S = 120.0
"""An etcd is there in a second; as many as a mesh has, on a busy machine, have taken thirty."""
KeyValue = tuple[bytes, int]
"""A value and its mod revision."""
Started = Callable[[asyncio.subprocess.Process], None]
"""Who wants to know of every process that is started."""


def tell_nobody(process: asyncio.subprocess.Process) -> None:
    """Say nothing of a process that was started."""
    del process


@dataclass(slots=True)
class Member:
    """One etcd process. client, peer: its addresses. within: the command that runs it, as
    `nsenter --net=…`. is_ended_by_us: whether it was told to end since it was started.
    """

    name: str
    client: str
    peer: str
    folder: Path
    process: asyncio.subprocess.Process | None = None
    within: Sequence[str] = ()
    started: Started = tell_nobody
    is_frozen: bool = False
    is_ended_by_us: bool = False

    @property
    def data_dir(self) -> Path:
        """What it keeps."""
        return self.folder / self.name

    @property
    def is_running(self) -> bool:
        """Whether there is a process, be it frozen."""
        return self.process is not None and self.process.returncode is None

    def send(self, number: int) -> None:
        """Kill, stop or continue it."""
        if self.process is not None and self.process.returncode is None:
            self.is_frozen = number == signal.SIGSTOP
            self.is_ended_by_us = self.is_ended_by_us or number in {signal.SIGKILL, signal.SIGTERM}
            self.process.send_signal(number)

    async def kill(self) -> None:
        """As a power cut does. A frozen process is killed as well as any other."""
        self.send(signal.SIGKILL)
        if self.process is not None:
            await self.process.wait()
            self.process = None


@dataclass(slots=True)
class Etcd:
    """A cluster's etcd. flags: more of them for every member."""

    members: Sequence[Member]
    flags: Sequence[str] = ()
    backups: int = field(default=0)

    @property
    def endpoints(self) -> str:
        """Where clients find it."""
        return ",".join(member.client for member in self.members)

    async def start(self) -> None:
        """Start the members that don't run, and wait until all of them answer."""
        for member in self.members:
            if not member.is_running:
                await self._start(member)
        await self._until_healthy(self.members)

    async def start_member(self, member: Member) -> None:
        """Start one of them, and wait until it answers, if there are enough for a quorum."""
        if not member.is_running:
            await self._start(member)
        able = sum(one.is_running and not one.is_frozen for one in self.members)
        if able > len(self.members) // 2:
            await self._until_healthy([member])

    async def _until_healthy(self, members: Sequence[Member]) -> None:
        endpoints = ",".join(member.client for member in members)
        async with asyncio.timeout(START_TIMEOUT_S):
            while not await self._is_healthy(endpoints):
                if gone := [one for one in members if not one.is_running]:
                    raise RuntimeError(f"etcd ended: see {gone[0].folder / gone[0].name}.log")
                await asyncio.sleep(0.05)

    async def _is_healthy(self, endpoints: str) -> bool:
        try:
            await self.ctl("endpoint", "health", endpoints=endpoints)
        except RuntimeError:
            return False
        return True

    async def _start(self, member: Member) -> None:
        member.is_frozen = member.is_ended_by_us = False
        cluster = ",".join(f"{other.name}=http://{other.peer}" for other in self.members)
        with (member.folder / f"{member.name}.log").open("ab") as log:
            member.process = await asyncio.create_subprocess_exec(
                *(
                    *member.within,
                    "etcd",
                    "--name",
                    member.name,
                    "--data-dir",
                    str(member.data_dir),
                ),
                *("--listen-client-urls", f"http://{member.client}"),
                *("--advertise-client-urls", f"http://{member.client}"),
                *("--listen-peer-urls", f"http://{member.peer}"),
                *("--initial-advertise-peer-urls", f"http://{member.peer}"),
                *("--initial-cluster", cluster, "--unsafe-no-fsync", *self.flags),
                stdout=log,
                stderr=log,
            )
        member.started(member.process)

    async def stop(self) -> None:
        """Kill all members."""
        for member in self.members:
            await member.kill()

    async def wipe(self) -> None:
        """Kill it and remove all that it kept; it is started again with the same flags."""
        await self.stop()
        for member in self.members:
            shutil.rmtree(member.data_dir, ignore_errors=True)

    async def backup(self) -> Path:
        """Save etcd's own snapshot."""
        self.backups += 1
        path = self.members[0].folder / f"backup-{self.backups}.db"
        await self.ctl("snapshot", "save", str(path), endpoints=self.members[0].client)
        return path

    async def restore(self, backup: Path) -> None:
        """Kill it, and put every member back as etcd's own tool does."""
        await self.wipe()
        tool = _restoring_tool()
        cluster = ",".join(f"{other.name}=http://{other.peer}" for other in self.members)
        for member in self.members:
            await said_by(
                *(tool, "snapshot", "restore", str(backup), "--data-dir", str(member.data_dir)),
                *("--name", member.name, "--initial-cluster", cluster),
                *("--initial-advertise-peer-urls", f"http://{member.peer}"),
            )

    async def ctl(self, *arguments: str, given: bytes = b"", endpoints: str = "") -> bytes:
        """Run etcdctl; raises RuntimeError with what it says if it fails."""
        program = ("etcdctl", "--endpoints", endpoints or self.endpoints)
        return await said_by(*program, *arguments, given=given)

    async def put(self, key: str, value: bytes) -> None:
        """Write a key, as somebody with etcdctl could, which takes no empty value."""
        await self.ctl("put", key, given=value)

    async def dump(self, prefix: str = "/meshd/v1/") -> Mapping[str, KeyValue]:
        """All keys, as etcdctl prints them."""
        said = await self.ctl("get", "--prefix", prefix, "-w", "json")
        decode = base64.b64decode
        return {
            decode(kv["key"]).decode(): (decode(kv.get("value", "")), kv["mod_revision"])
            for kv in json.loads(said).get("kvs", [])
        }

    async def compact(self) -> None:
        """Forget all history."""
        said = await self.ctl("get", "nothing", "-w", "json")
        await self.ctl("compact", str(json.loads(said)["header"]["revision"]))


async def said_by(*command: str, given: bytes = b"") -> bytes:
    """What a program says; raises RuntimeError if it fails."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env=os.environ | {"ETCDCTL_API": "3"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, problem = await process.communicate(given)
    if process.returncode != 0:
        why = problem.decode(errors="replace").strip()[-WHY_CHARS_MAX:]
        raise RuntimeError(f"{' '.join(command)} failed: {why}")
    return said


def _restoring_tool() -> str:
    """Since 3.5 that is etcdutl. One that belongs to another etcd on PATH is none."""
    found = shutil.which("etcd")
    beside = Path(found).resolve().parent / "etcdutl" if found else Path("etcdutl")
    return str(beside) if beside.exists() else "etcdctl"
