"""Who this process is, and whether another one on this machine still lives.

For: holding the leader key in a way that a restart after a kill is recognised at once. Not for:
starting or ending processes. Invariant: a process is only ever called gone if it ran under the same
kernel and in the same process namespace as this one.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

PROC = Path("/proc")
START_TIME_FIELD = 22
"""Of /proc/<pid>/stat, counted from 1 as proc(5) does."""


def host_name() -> str:
    """The machine's name, for people."""
    return socket.gethostname()


def process_id() -> int:
    """This process's number."""
    return os.getpid()


def process_mark(pid: int | None = None) -> str:
    """What tells a process from every other, on any machine: kernel, namespace and start time.

    '' if there is no such process; raises OSError if that can't be looked at.
    """
    start = _start_time(os.getpid() if pid is None else pid)
    return f"{_boot_id()}:{_namespace()}:{start}" if start else ""


def is_gone(pid: int, mark: str) -> bool:
    """Whether the process that had this mark can be known to be gone. What can't be looked at, as
    when we have no descriptor left to do so, isn't known.
    """
    try:
        scope = f"{_boot_id()}:{_namespace()}:"
        return mark.startswith(scope) and process_mark(pid) != mark
    except OSError:
        return False


def is_alive(pid: int, mark: str) -> bool:
    """Whether the process that had this mark is known to be running."""
    try:
        return mark != "" and process_mark(pid) == mark
    except OSError:
        return False


def _start_time(pid: int) -> str:
    try:
        stat = (PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    # The command's name comes second, in parentheses, and may itself hold spaces.
    state, *fields = stat.rpartition(")")[2].split()
    return "" if state in {"Z", "X"} else fields[START_TIME_FIELD - 4]


def _boot_id() -> str:
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def _namespace() -> str:
    return str((PROC / "self/ns/pid").readlink())
