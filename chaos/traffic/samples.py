"""What meshds use of the machine, as the kernel says it.

For: histories that judge I14. Not for: etcds and brokers, whose bounds aren't ours. Invariant: what
can't be known is negative, and a process that went while it was looked at has no sample.

Tasks and the number of connections that were tried are in no metric of meshd: they stay unknown.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from chaos.history import Sample
from chaos.mesh.shape import Meshd
from chaos.recorder import Recorder
from chaos.traffic.pacing import Gate, paced

PROC: Final = Path("/proc")
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
ESTABLISHED: Final = "01"
STATE, INODE = 3, 9
"""Columns of /proc/<pid>/net/tcp."""


async def run(meshds: Sequence[Meshd], recorder: Recorder, every_s: float, gate: Gate) -> None:
    """Look at all of them for ever."""
    async for _ in paced(every_s, gate):
        for meshd in meshds:
            found = sample(meshd, recorder)
            if found is not None:
                recorder.note(found)


def sample(meshd: Meshd, recorder: Recorder) -> Sample | None:
    """Look at one that runs on this machine."""
    pid = meshd.pid
    if pid is None:
        return None
    process = PROC / str(pid)
    try:
        resident = int((process / "statm").read_text().split()[1]) * PAGE_BYTES
        opened = [_target(one) for one in (process / "fd").iterdir()]
        sockets = _established(process)
    except (OSError, IndexError, ValueError):
        return None
    return Sample(
        at_ns=recorder.now_ns(),
        process=meshd.name,
        cluster=meshd.cluster,
        rss_bytes=resident,
        fds=len(opened),
        connections=sum(one in sockets for one in opened),
    )


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except FileNotFoundError:
        return ""


def _established(process: Path) -> set[str]:
    """All TCP connections of its network namespace, as descriptors show them."""
    found = set()
    for name in ("tcp", "tcp6"):
        path = process / "net" / name
        if path.exists():
            rows = (line.split() for line in path.read_text().splitlines()[1:])
            found |= {f"socket:[{row[INODE]}]" for row in rows if row[STATE] == ESTABLISHED}
    return found
