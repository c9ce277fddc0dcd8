"""A history in which an entry may stand where it began, though it is known later what it says.

For: faults, which begin to work before it is known what they did, and headers of runs. Not for:
what is recorded otherwise. Invariant: entries go to the file in the order of their times; those
behind one that isn't known yet wait for it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from pathlib import Path

from chaos.history import Entry
from chaos.journal import Writer

WAITING_MAX = 200_000
"""A fault is injected within a minute, in which far less is recorded."""


@dataclass(slots=True)
class Place:
    """Where an entry will stand. entry: None until it is known."""

    at_ns: int
    entry: Entry | None = None


class HeldWriter(Writer):
    """Writes like its parent, behind places that are taken."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._waiting: deque[Place] = deque()

    def write(self, entry: Entry) -> None:
        """Append one entry, once all before it are known."""
        if not self._waiting:
            super().write(entry)
            return
        if len(self._waiting) >= WAITING_MAX:
            raise RuntimeError(f"{WAITING_MAX} entries wait for one that is never filled in")
        self._waiting.append(Place(entry.at_ns, entry))

    def take(self, at_ns: int) -> Place:
        """Take the next place, for an entry of this time."""
        place = Place(at_ns)
        self._waiting.append(place)
        return place

    def fill(self, place: Place, entry: Entry) -> None:
        """Say what stands at a place; what waited for it is written."""
        place.entry = entry
        self._write_known()

    def give_up(self, place: Place) -> None:
        """Leave a place empty."""
        self._waiting.remove(place)
        self._write_known()

    def _write_known(self) -> None:
        while self._waiting and self._waiting[0].entry is not None:
            super().write(self._waiting.popleft().entry)  # type: ignore[arg-type]
