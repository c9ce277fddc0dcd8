"""The last steps before etcd: run as a program of its own, in the process that becomes etcd.

For: tying etcd's life to meshd's, and saying who it is before anybody can lose sight of it. Not
for: importing; it knows nothing of meshd, so that it starts in milliseconds. Invariant: from the
moment that etcd runs, the pid file names it.

Neither is done between fork and exec in meshd itself, whose threads make that unsafe, nor with
`setpriv`, which not every machine has and which can't see that meshd died a moment too early.

    python -I -S launch.py PARENT_PID PID_FILE PROGRAM ARGUMENT...
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1
START_TIME_FIELD = 19
"""In /proc/PID/stat, counted behind the program's name, which may itself contain spaces."""


def main(parent_pid: int, pid_file: Path, command: list[str]) -> None:
    """Become `command`, to be ended when the parent dies."""
    # SIGTERM, not SIGKILL: an orphan has time to close its files, and the next start waits for it.
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent_pid:
        # It died before the line above: nobody would ever end us.
        sys.exit(1)
    stat = Path("/proc/self/stat").read_text(encoding="ascii", errors="replace")
    start_time = stat.rpartition(")")[2].split()[START_TIME_FIELD]
    fresh = pid_file.with_suffix(".new")
    fresh.write_text(f"{os.getpid()} {start_time}\n", encoding="ascii")
    fresh.replace(pid_file)
    os.execv(command[0], command)  # noqa: S606 — that is the point


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
