"""What is seen of a run goes to its history in the order in which it was seen.

For: drivers, traffic and whoever injects faults. Not for: judging. Invariants: all times are of one
monotonic clock, and an entry is noted in the same turn of the event loop in which its time is
taken, so that times never go back; numbers of operations are given once.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from chaos.history import Change, Entry, Process
from chaos.journal import Writer
from chaos.mesh.shape import Server


@dataclass(slots=True)
class Recorder:
    """Writes down a run. running: the processes that run, by name."""

    writer: Writer
    running: dict[str, int] = field(default_factory=dict)
    _ops: int = 0

    @staticmethod
    def now_ns() -> int:
        """The time, as entries have it."""
        return time.monotonic_ns()

    def note(self, entry: Entry) -> None:
        """Write an entry whose time was just taken."""
        self.writer.write(entry)

    def next_op(self) -> int:
        """A number for an operation."""
        self._ops += 1
        return self._ops

    def process_changed(self, server: Server, change: Change, status: int) -> None:
        """Note that a process was started or has ended; drivers call it."""
        if change is Change.STARTED:
            pid = self.running[server.name] = server.pid or 0
        else:
            pid = self.running.pop(server.name, 0)
        self.note(
            Process(
                at_ns=self.now_ns(),
                process=server.name,
                cluster=server.cluster,
                pid=pid,
                change=change,
                status=status,
            )
        )
