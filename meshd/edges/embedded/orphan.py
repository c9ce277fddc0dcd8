"""An etcd that an earlier meshd left behind.

For: knowing it again for certain, and ending it before a new one starts on the same data. Not for:
the etcd of a meshd that lives; its lock is in the way before this is asked. Invariant: no process
is ended that isn't the one in the pid file, running on our data directory.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from meshd.edges.embedded.config import EmbeddedConfig
from meshd.edges.embedded.launch import START_TIME_FIELD
from meshd.model.errors import FatalError


async def end_orphan(config: EmbeddedConfig) -> int | None:
    """End what an earlier run left behind; returns its process id, None if there was nothing."""
    pid = find_orphan(config)
    if pid is None:
        return None
    try:
        # From here on the number can't come to mean another process.
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    try:
        if find_orphan(config) != pid:
            return None
        await _end(handle, pid, config.grace_s)
    finally:
        os.close(handle)
    return pid


def find_orphan(config: EmbeddedConfig) -> int | None:
    """Return the process id of an etcd that runs on our data directory, if the pid file knows."""
    try:
        pid_text, start_time = config.pid_file.read_text(encoding="ascii").split()
        process = Path("/proc") / str(int(pid_text))
        stat = (process / "stat").read_text(errors="replace")
        command = (process / "cmdline").read_text(errors="replace").split("\0")
    except (OSError, ValueError):
        return None
    if stat.rpartition(")")[2].split()[START_TIME_FIELD] != start_time:
        return None
    return int(pid_text) if f"--data-dir={config.etcd_dir}" in command else None


async def _end(handle: int, pid: int, grace_s: float) -> None:
    gone = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(handle, gone.set)
    try:
        for sent in (signal.SIGTERM, signal.SIGKILL):
            signal.pidfd_send_signal(handle, sent)
            try:
                async with asyncio.timeout(grace_s):
                    await gone.wait()
            except TimeoutError:
                continue
            return
    except PermissionError as error:
        raise FatalError(f"an etcd of an earlier run, process {pid}, is not ours to end") from error
    except ProcessLookupError:
        return
    finally:
        loop.remove_reader(handle)
    raise FatalError(f"an etcd of an earlier run, process {pid}, does not end")
