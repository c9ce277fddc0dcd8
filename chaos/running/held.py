"""A history in which an entry may stand where it began, though it is known later what it says.

For: faults, which begin to work before it is known what they did, and headers of runs. Not for:
what is recorded otherwise. Invariants: entries go to the file in the order of their times; those
behind one that isn't known yet wait for it. A hundred thousand of them encoded and written at once
would keep everybody waiting whose answers this process measures: each is encoded as it comes, and
later ones write what waits bit by bit.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from pathlib import Path

from chaos import journal
from chaos.history import Entry

WAITING_BYTES_MAX = 1024**3
"""A fault is injected within two minutes. While one fills tables, nine subscribers are told tens of
thousands of events: 100 MB."""

AT_ONCE_BYTES = 2 * 1024**2
"""Some 10 ms on a busy machine."""


@dataclass(slots=True, eq=False)
class Place:
    """Where an entry will stand. line: None until it is known."""

    at_ns: int
    line: bytes | None = None

    @property
    def is_known(self) -> bool:
        """Whether it may be written."""
        return self.line is not None


class HeldWriter(journal.Writer):
    """Writes like its parent, behind places that are taken."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._waiting: deque[Place] = deque()
        self._waiting_bytes = 0

    def write(self, entry: Entry) -> None:
        """Append one entry, once all before it are known."""
        if not self._waiting:
            super().write(entry)
            return
        self._check_time(entry.KIND, entry.at_ns)
        line = journal.encode(entry)
        if self._waiting_bytes + len(line) > WAITING_BYTES_MAX:
            raise RuntimeError(
                f"{WAITING_BYTES_MAX} bytes wait for an entry that is never filled in"
            )
        self._waiting.append(Place(entry.at_ns, line))
        self._waiting_bytes += len(line)
        self._write_known(AT_ONCE_BYTES)

    def sync(self) -> None:
        """What is known is on the disk."""
        self._write_known(self._waiting_bytes)
        super().sync()

    def take(self, at_ns: int) -> Place:
        """Take the next place, for an entry of this time."""
        self._check_time("one not known yet", at_ns)
        place = Place(at_ns)
        self._waiting.append(place)
        return place

    def fill(self, place: Place, entry: Entry) -> None:
        """Say what stands at a place; what waited for it is written."""
        if entry.at_ns != place.at_ns:
            raise ValueError(f"an entry of {entry.at_ns} ns in the place of one of {place.at_ns}")
        place.line = journal.encode(entry)
        self._waiting_bytes += len(place.line)
        self._write_known(AT_ONCE_BYTES)

    def _write_known(self, bytes_max: int) -> None:
        """Write what isn't behind one that isn't known: one line, and more up to so much."""
        known: list[bytes] = []
        size = 0
        while size < bytes_max and self._waiting and (line := self._waiting[0].line) is not None:
            known.append(line)
            size += len(line)
            self._waiting.popleft()
        self._waiting_bytes -= size
        self._append(b"".join(known))
