"""What a meshd takes for the time of day, by libfaketime.

For: meshds, which are started with it. Not for: etcd, whose Go asks the kernel past every library,
nor the machine's own clock, which nobody sets. Invariant: only the time of day is faked; what is
monotonic stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from chaos.mesh.shape import NotPossibleError

PLACES = (
    "/usr/lib/*/faketime/libfaketime.so.1",
    "/usr/lib/faketime/libfaketime.so.1",
    "/usr/lib64/faketime/libfaketime.so.1",
    "/usr/local/lib/faketime/libfaketime.so.1",
)


def library() -> Path | None:
    """Return where libfaketime is; None if it isn't there."""
    for place in PLACES:
        for found in sorted(Path("/").glob(place.removeprefix("/"))):
            return found
    return None


@dataclass(frozen=True, slots=True)
class Clock:
    """A clock that can be set while a process runs. file: what says how wrong it is."""

    file: Path

    def environment(self) -> Mapping[str, str]:
        """Return what a process is started with, to go by it."""
        found = library()
        if found is None:
            raise NotPossibleError(
                "there is no libfaketime: install Debian's faketime, or run scripts/ensure_chaos.sh"
            )
        return {
            "LD_PRELOAD": str(found),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def jump(self, ahead_s: float) -> None:
        """Be ahead by so much, or behind if it is negative, from now on."""
        self._say(f"{ahead_s:+.3f}")

    def drift(self, factor: float, ahead_s: float = 0.0) -> None:
        """Go so many times as fast, from a process's start on."""
        self._say(f"{ahead_s:+.3f} x{factor:g}")

    def _say(self, text: str) -> None:
        """Write it whole or not at all: it is read at every look at the clock."""
        fresh = self.file.with_suffix(".new")
        fresh.write_text(f"{text}\n")
        fresh.replace(self.file)
