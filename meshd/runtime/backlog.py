"""What was folded of a peer's log and isn't in its durable copy yet.

For: keeping it in order and within a limit, and telling what a copy holds already. Not for: writing
it (`replica_store`). Invariants: beyond the limit everything is let go, to be read anew from the
peer; an item counts as written only by a copy of the same history.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from meshd.model.event import Record
from meshd.model.ids import Head
from meshd.model.snapshot import Manifest


@dataclass(frozen=True, slots=True)
class RecordItem:
    """A record, and its mod revision at the peer."""

    record: Record
    revision: int

    @property
    def size_bytes(self) -> int:
        """What it takes."""
        return len(self.record.raw)

    @property
    def is_first(self) -> bool:
        """Whether a generation may begin with it."""
        return self.record.first_seq == 1

    @property
    def end(self) -> Head | None:
        """Where a copy stands that ends with it."""
        return self.record.head

    def is_within(self, durable: Head) -> bool:
        """Whether a copy that reaches so far holds it."""
        return self.record.log_id == durable.log_id and self.record.last_seq <= durable.seq


@dataclass(frozen=True, slots=True)
class PartItem:
    """A part of the snapshot that a generation begins with; raw None: that was the last one."""

    manifest: Manifest
    number: int
    raw: bytes | None

    @property
    def size_bytes(self) -> int:
        """What it takes."""
        return len(self.raw or b"")

    @property
    def is_first(self) -> bool:
        """Whether a generation may begin with it."""
        return self.number == 0

    @property
    def end(self) -> Head | None:
        """Where a copy stands that ends with it; None in the middle of a snapshot."""
        return self.manifest.head if self.raw is None else None

    def is_within(self, durable: Head) -> bool:
        """Whether a copy that reaches so far holds it."""
        head = self.manifest.head
        return head.log_id == durable.log_id and head.seq <= durable.seq


Item = RecordItem | PartItem


@dataclass(slots=True)
class Backlog:
    """Items in order. folded: how far it would reach. last: the last record there, if there is one.
    is_cut: something was let go.
    """

    bytes_max: int
    folded: Head | None = None
    last: Record | None = None
    items: deque[Item] = field(default_factory=deque)
    size_bytes: int = 0
    is_cut: bool = False

    def add(self, item: Item) -> None:
        """Keep what was folded next, unless something before it was let go."""
        if isinstance(item, RecordItem):
            self.last = item.record
        if not self.is_cut:
            self.items.append(item)
            self.size_bytes += item.size_bytes
            if self.size_bytes > self.bytes_max:
                self.cut()

    def cut(self) -> None:
        """Let everything go."""
        self.items.clear()
        self.size_bytes, self.is_cut = 0, True

    def drop_first(self) -> None:
        """Forget what was written."""
        self.size_bytes -= self.items.popleft().size_bytes

    def passes(self, durable: Head) -> bool:
        """Whether a copy that reaches so far is of the same history: a log that was restored from a
        backup has the same id and the same seqs.
        """
        return durable == self.folded or any(item.end == durable for item in self.items)

    def forget_until(self, durable: Head) -> None:
        """Forget what a copy of the same history holds."""
        if durable == self.folded:
            self.is_cut = False
        while self.items and self.items[0].is_within(durable):
            self.drop_first()
