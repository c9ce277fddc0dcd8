"""Files that are there whole or not at all.

For: archives, backups and whatever else must survive a crash. Not for: reading. Invariant: under
its own name a file is complete and on the disk.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def whole_file(target: Path) -> Iterator[IO[bytes]]:
    """Write a file beside its place, and put it there once it is whole; raises OSError."""
    number, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    part = Path(name)
    try:
        with os.fdopen(number, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
        _sync(target.parent)
    finally:
        part.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """The new name must be on the disk too."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def shelf(folder: Path) -> Callable[[str], AbstractContextManager[IO[bytes]]]:
    """Open files by their names in a folder, which is made if it isn't there."""

    def opened(name: str) -> AbstractContextManager[IO[bytes]]:
        folder.mkdir(parents=True, exist_ok=True)
        return whole_file(folder / name)

    return opened
