"""Which etcd program there is, and whether it may be used.

For: finding it and judging its version. Not for: installing one (`scripts/ensure_etcd.sh`).
Invariant: a program that was not asked for its version is never started on data.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from pathlib import Path

import structlog

from meshd.model.errors import FatalError

Version = tuple[int, int, int]

OLDEST: Version = (3, 4, 0)
UNSAFE_FIRST: Version = (3, 5, 0)
UNSAFE_LAST: Version = (3, 5, 2)
VERSION_TIMEOUT_S = 20.0

log = structlog.get_logger(__name__)

_VERSION = re.compile(r"^etcd Version: (\d+)\.(\d+)\.(\d+)", re.MULTILINE)


async def find(binary: Path | None, *, allow_unsafe: bool) -> Path:
    """Return the program to run, or raise FatalError saying what to do."""
    name = str(binary or "etcd")
    found = shutil.which(name)
    if found is None:
        where = "" if binary else " on PATH"
        raise FatalError(
            f"there is no program {name}{where}; install etcd 3.4 or newer "
            "(`scripts/ensure_etcd.sh` does), or name one in etcd.embedded.binary"
        )
    version = await ask_version(Path(found))
    judge(found, version, allow_unsafe=allow_unsafe)
    return Path(found)


async def ask_version(program: Path) -> Version:
    """Run `etcd --version`."""
    try:
        process = await asyncio.create_subprocess_exec(
            program,
            "--version",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    except OSError as error:
        raise FatalError(f"can't run {program}: {error.strerror}") from error
    try:
        async with asyncio.timeout(VERSION_TIMEOUT_S):
            output, _ = await process.communicate()
    except TimeoutError as error:
        raise FatalError(f"`{program} --version` says nothing; is it an etcd?") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    match = _VERSION.search(output.decode(errors="replace"))
    if match is None:
        raise FatalError(f"`{program} --version` doesn't answer as an etcd does")
    return int(match[1]), int(match[2]), int(match[3])


def is_unsafe(version: Version) -> bool:
    """Tell whether this etcd can lose acknowledged writes in a crash."""
    return UNSAFE_FIRST <= version <= UNSAFE_LAST


def judge(program: str, version: Version, *, allow_unsafe: bool) -> None:
    """Raise FatalError for a version that meshd does not run."""
    text = ".".join(str(number) for number in version)
    if version < OLDEST:
        raise FatalError(f"{program} is etcd {text}; meshd needs 3.4.0 or newer")
    if not is_unsafe(version):
        return
    if not allow_unsafe:
        raise FatalError(
            f"{program} is etcd {text}, and 3.5.0 to 3.5.2 can lose acknowledged writes in a "
            "crash; use another version, or accept that with etcd.embedded.allow_unsafe_version"
        )
    log.warning("this etcd can lose acknowledged writes in a crash", program=program, version=text)
