"""What a process may use, made short while it runs, and given back.

For: faults of descriptors, memory and disk. Not for: network and clock. Invariants: what was
limited is as it was once it is undone; control groups are removed, and disks vanish with the last
process on them.
"""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from chaos.mesh.shape import NotPossibleError

Undo = Callable[[], None]
GROUPS = Path("/sys/fs/cgroup")
MOUNT_TIMEOUT_S = 10.0
COMMAND_TIMEOUT_S = 60.0
CHUNK_BYTES = 64 * 1024


def limit_descriptors(pid: int, count: int) -> Undo:
    """Let a process have so many descriptors and no more; those that it has it keeps."""
    return _limit(pid, resource.RLIMIT_NOFILE, count)


def limit_addresses(pid: int, more_bytes: int) -> Undo:
    """Let a process map so much more memory than it has, and be refused what is beyond."""
    mapped_pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    return _limit(pid, resource.RLIMIT_AS, mapped_pages * os.sysconf("SC_PAGE_SIZE") + more_bytes)


def limit_files(pid: int, size_bytes: int) -> Undo:
    """Let a process write no file beyond that size, as where the disk is full."""
    return _limit(pid, resource.RLIMIT_FSIZE, size_bytes)


def _limit(pid: int, which: int, value: int) -> Undo:
    # Only what is soft: whoever isn't root could not give back what is hard.
    soft, hard = resource.prlimit(pid, which)
    wanted = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.prlimit(pid, which, (wanted, hard))

    def undo() -> None:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, which, (soft, hard))

    return undo


@dataclass(frozen=True, slots=True)
class _Files:
    """Where a control group of either version keeps what is asked of it."""

    parent: Path
    limit: str
    swap: str


def _files() -> _Files:
    first = GROUPS / "memory"
    if first.is_dir():
        files = _Files(first, "memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
    else:
        files = _Files(GROUPS, "memory.max", "memory.swap.max")
    if not os.access(files.parent, os.W_OK):
        raise NotPossibleError(f"{files.parent}: no control group can be made there: be root")
    return files


def has_memory_groups() -> bool:
    """Whether control groups of memory can be made."""
    try:
        files = _files()
    except NotPossibleError:
        return False
    # Of the second version, memory has to have been handed down.
    controllers = files.parent / "cgroup.controllers"
    return not controllers.exists() or "memory" in controllers.read_text().split()


def limit_memory(pid: int, limit_bytes: int) -> Undo:
    """Let a process have so much memory in a control group, and be killed by the kernel if it needs
    more. Raises NotPossibleError where there are no control groups of memory.
    """
    files = _files()
    group = files.parent / f"chaos-{os.getpid()}-{pid}"
    group.mkdir()
    try:
        (group / files.limit).write_text(str(limit_bytes))
        # What may be swapped isn't short of memory. Kernels without swap have no such file.
        with suppress(OSError):
            (group / files.swap).write_text("0" if files.swap.endswith("max") else str(limit_bytes))
        was = _group_of(pid, files.parent)
        (group / "cgroup.procs").write_text(str(pid))
    except OSError as error:
        group.rmdir()
        raise NotPossibleError(
            f"{error.filename}: {error.strerror}: memory can't be limited here; use "
            "limit_addresses, or run as root where control groups have memory"
        ) from None

    def undo() -> None:
        for one in (group / "cgroup.procs").read_text().split():
            with suppress(ProcessLookupError):
                (was / "cgroup.procs").write_text(one)
        group.rmdir()

    return undo


def _group_of(pid: int, parent: Path) -> Path:
    """Return the group that a process is in."""
    wanted = "memory" if parent.name == "memory" else ""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if wanted in controllers.split(","):
            return parent / path.lstrip("/")
    return parent


@dataclass(slots=True)
class SmallDisk:
    """A small disk in the place of a folder, for processes that are run within. Others see the
    folder as it was, and nothing of what is written.
    """

    folder: Path
    size_bytes: int
    _view: int

    @property
    def within(self) -> tuple[str, ...]:
        """Return what runs a command where the disk is."""
        return ("nsenter", f"--mount=/proc/{os.getpid()}/fd/{self._view}", "--wd=.", "--")

    @property
    def _filler(self) -> str:
        return str(self.folder / "filler")

    async def fill(self) -> None:
        """Leave no space on it."""
        await self._run("sh", "-c", 'cat /dev/zero >"$0" 2>/dev/null; test -s "$0"', self._filler)

    async def free(self) -> None:
        """Give the space back."""
        await self._run("rm", "-f", self._filler)

    async def free_bytes(self) -> int:
        """Return how much space is left."""
        said = await self._run("stat", "-f", "-c", "%a %S", str(self.folder))
        blocks, size_bytes = said.split()
        return int(blocks) * int(size_bytes)

    async def _run(self, *command: str) -> str:
        process = await asyncio.create_subprocess_exec(
            *self.within, *command, stdout=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(COMMAND_TIMEOUT_S):
            said, _ = await process.communicate()
        if process.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: ended with {process.returncode}")
        return said.decode()


def _whole(folder: Path) -> Path:
    """A working directory lies on the old view of the disks, and so does what it leads to."""
    return folder.absolute()


_MOUNT = """
mkdir -p "$1.disk" && mount -t tmpfs -o "size=$2" chaos "$1.disk" && cp -a "$1/." "$1.disk/" \
&& mount --move "$1.disk" "$1" && rmdir "$1.disk" && echo there && exec cat
"""


@asynccontextmanager
async def small_disk(folder: Path, size_bytes: int) -> AsyncIterator[SmallDisk]:
    """Make a disk of that size with what is in a folder, which has to fit. It is there as long as
    the context lasts or a process is on it.
    """
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        raise NotPossibleError("there is no unshare or nsenter: install util-linux")
    folder = _whole(folder)
    holder = await asyncio.create_subprocess_exec(
        *("unshare", "--mount", "--propagation", "private", "sh", "-c", _MOUNT, "sh"),
        *(str(folder), str(size_bytes)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None  # noqa: S101 for mypy: it is a pipe
        async with asyncio.timeout(MOUNT_TIMEOUT_S):
            said = await holder.stdout.readline()
        if said.strip() != b"there":
            _, complained = await holder.communicate()
            what = complained.decode(errors="replace").strip()
            raise NotPossibleError(f"{folder}: no disk can be mounted ({what}): be root")
        view = os.open(f"/proc/{holder.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        if holder.returncode is None:
            holder.kill()
            await holder.wait()
    try:
        yield SmallDisk(folder, size_bytes, view)
    finally:
        os.close(view)
