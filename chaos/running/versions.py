"""What takes part in a run, and in which version.

For: the header of a history, so that a run can be repeated. Not for: deciding anything. Invariant:
what can't be found out is left out.
"""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

LIMIT_S = 10.0
ASKED: Mapping[str, tuple[str, ...]] = {
    "commit": ("git", "rev-parse", "--short", "HEAD"),
    "etcd": ("etcd", "--version"),
    "mosquitto": ("mosquitto", "-h"),
}
"""Each says it in its first line."""


async def versions() -> dict[str, str]:
    """By name."""
    found = {"python": platform.python_version(), "kernel": platform.release()}
    with suppress(PackageNotFoundError):
        found["meshd"] = version("meshd")
    for name, command in ASKED.items():
        with suppress(OSError, TimeoutError):
            said = await _first_line(command)
            if said:
                found[name] = said
    return found


async def _first_line(command: tuple[str, ...]) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    async with asyncio.timeout(LIMIT_S):
        said, _ = await process.communicate()
    line = said.decode(errors="replace").partition("\n")[0].strip()
    # `etcd Version: 3.5.30` and `mosquitto version 2.0.21`: the number alone.
    return line.rpartition("ersion")[2].strip(": ") if "ersion" in line else line
