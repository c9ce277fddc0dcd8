"""What the figures were measured on, and where the data lie.

For: the first line of every output. Not for: judging it. Invariant: what can't be told is said to
be unknown, and never left out.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TMPFS: Final = Path("/dev/shm")
ON_DISK: Final = Path("/var/tmp")
"""Where the usual place for temporary files is in memory: this one outlives a restart."""
UNKNOWN: Final = "unknown"
_OCTAL: Final = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Machine:
    """cores: that this process may use. memory_bytes: of the machine. filesystem: of the data."""

    cpu: str
    cores: int
    memory_bytes: int
    kernel: str
    filesystem: str
    folder: str
    etcd: str
    python: str

    def __str__(self) -> str:
        return (
            f"{self.cores} cores of {self.cpu}, {self.memory_bytes / 2**30:.0f} GiB, {self.kernel},"
            f" data in {self.folder} ({self.filesystem}), etcd {self.etcd}, Python {self.python}"
        )


def keep_data_in(*, is_tmpfs: bool) -> Path:
    """Choose where temporary files are made from now on, in this process and in its children."""
    folder = Path(tempfile.gettempdir())
    if is_tmpfs:
        if not os.access(TMPFS, os.W_OK):
            raise SystemExit(f"{TMPFS} is not there to write to; leave --tmpfs out")
        folder = TMPFS
    elif "TMPDIR" not in os.environ and _filesystem(folder).startswith("tmpfs"):
        folder = ON_DISK
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder)
    return folder


def describe() -> Machine:
    """Look at the machine, and at the place of temporary files."""
    folder = Path(tempfile.gettempdir())
    return Machine(
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        kernel=f"{platform.system()} {platform.release()}",
        filesystem=_filesystem(folder),
        folder=str(folder),
        etcd=_etcd(),
        python=platform.python_version(),
    )


def _cpu() -> str:
    """ARM's kernels don't tell a name."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    found = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.machine() or UNKNOWN


def _etcd() -> str:
    program = shutil.which("etcd")
    if program is None:
        return UNKNOWN
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return said.stdout.partition("\n")[0].rpartition(" ")[2] or UNKNOWN


def _filesystem(folder: Path) -> str:
    """Tell the type and the device of the mount that holds a folder: the deepest, the last of those
    one upon the other.
    """
    place, found, depth = folder.resolve(), UNKNOWN, -1
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        left, _, right = line.partition(" - ")
        mount = Path(_OCTAL.sub(lambda code: chr(int(code[1], 8)), left.split()[4]))
        if place.is_relative_to(mount) and len(mount.parts) >= depth:
            kind, device = right.split()[:2]
            found, depth = f"{kind} on {device}", len(mount.parts)
    return found
