"""What has been done to somebody's mesh and isn't undone yet.

For: a list on disk, so that it outlives whoever did it. Not for: running anything (`commanding`).
Invariant: before anything is done, how to undo it is in the file; it is taken out only once it is
undone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from chaos.mesh.shape import NotPossibleError

ENTRIES_MAX = 10_000
"""More than targets times verbs of any mesh; a longer file is none of ours."""


class UndoFileError(NotPossibleError):
    """The list can't be used as it is."""


@dataclass(frozen=True, slots=True)
class Undo:
    """One command that undoes something. what: in words. argv: the command. timeout_s: for it."""

    what: str
    argv: tuple[str, ...]
    timeout_s: float


class UndoList:
    """The list. It is in the order in which things were done; they are undone in reverse."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries: dict[str, Undo] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Undo]:
        """From the last to the first."""
        return iter(tuple(reversed(self._entries.values())))

    def note(self, undo: Undo) -> None:
        """Something is about to be done; this undoes it."""
        # What is done a second time is undone where it stands last.
        self._entries.pop(undo.what, None)
        self._entries[undo.what] = undo
        self._save()

    def forget(self, what: str) -> None:
        """It is undone."""
        if self._entries.pop(what, None) is not None:
            self._save()

    def _save(self) -> None:
        if not self._entries:
            self.path.unlink(missing_ok=True)
            return
        fresh = self.path.with_name(f"{self.path.name}.new")
        with fresh.open("w", encoding="utf-8") as out:
            json.dump([asdict(one) for one in self._entries.values()], out, indent=1)
            out.flush()
            os.fsync(out.fileno())
        fresh.replace(self.path)

    @classmethod
    def read(cls, path: Path) -> UndoList:
        """What an earlier run left; raises UndoFileError if that can't be understood."""
        left = cls(path)
        try:
            rows = json.loads(path.read_text(encoding="utf-8"))
            for row in rows[:ENTRIES_MAX]:
                undo = Undo(str(row["what"]), tuple(map(str, row["argv"])), float(row["timeout_s"]))
                left._entries[undo.what] = undo
        except FileNotFoundError:
            return left
        except (OSError, ValueError, TypeError, LookupError) as error:
            remedy = "look into it, undo by hand what it lists, and remove it"
            raise UndoFileError(
                f"{path} is no list of things to undo ({error}); {remedy}"
            ) from None
        return left
