"""A peer's etcd as its readers see it: one log, every change to it, and what may befall it.

For: ring 1. Not for: semantics of etcd that no reader of one log can see. Invariants: revisions
rise within one history; `is_sound` says whether a reader from the start would find nothing wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from meshd.model.codec import PROTOCOL_MAX, PROTOCOL_MIN, Descriptor, encode_record
from meshd.model.event import Event, Record
from meshd.model.ids import ClusterName, Head, LogId
from meshd.model.replica import Fetched, Watched

NAME = ClusterName("west")
MINE = Descriptor(NAME, 7, PROTOCOL_MIN, PROTOCOL_MAX, 0)
POISON = "poison"
"""The actor of events that a record may hold and no fold takes."""


@dataclass(frozen=True, slots=True)
class Backup:
    """A copy of the log at some time. is_sound: as the log was then."""

    head: Head
    records: tuple[Record, ...]
    stored: dict[int, Fetched]
    revision: int
    is_sound: bool


@dataclass(slots=True)
class PeerLog:
    """stored: by the seq in the key. changes: by revision, since the history began or was forgotten
    by a restore. compacted: changes up to here can't be watched any more. restarts: of the etcd,
    each of which ends all watches.
    """

    chance: Random
    descriptor: Descriptor = MINE
    head: Head = field(default_factory=lambda: Head.genesis(LogId("0" * 32)))
    records: list[Record] = field(default_factory=list)
    stored: dict[int, Fetched] = field(default_factory=dict)
    changes: list[tuple[int, Watched]] = field(default_factory=list)
    revision: int = 1
    compacted: int = 0
    restarts: int = 0
    beat: int = 1
    is_sound: bool = True
    written: set[bytes] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.wipe()

    def wipe(self) -> None:
        """Begin a log of another id; revisions begin anew, as etcd's do."""
        self.head = Head.genesis(LogId(f"{self.chance.getrandbits(128):032x}"))
        self.records, self.stored, self.changes = [], {}, []
        self.compacted, self.is_sound = 0, True
        self.restarts += 1
        self.revision = self.chance.randint(1, 5)

    def recreate_longer(self) -> None:
        """Wipe it and write more than there was before anybody looks."""
        length = len(self.records)
        self.wipe()
        for _ in range(length + 1):
            self.append()

    def backup(self) -> Backup:
        """Copy what is there."""
        return Backup(
            self.head, tuple(self.records), dict(self.stored), self.revision, self.is_sound
        )

    def restore(self, backup: Backup) -> None:
        """Go back to a copy, with the same log id and revisions."""
        self.head, self.records = backup.head, list(backup.records)
        self.stored, self.revision = dict(backup.stored), backup.revision
        self.is_sound = backup.is_sound
        self.changes, self.compacted = [], self.revision
        self.restarts += 1

    def append(self) -> None:
        """Append a record of one to three events."""
        self._append("ann")

    def append_poison(self) -> None:
        """Append a record that decodes and can't be folded."""
        self._append(POISON)
        self.is_sound = False

    def _append(self, actor: str) -> None:
        number = self.chance.getrandbits(32)
        events = [
            Event("service.set", "shop/web", {"n": number + n}, actor, "")
            for n in range(1 + number % 3)
        ]
        record = encode_record(self.head, number, events)
        self.head = record.head
        self.records.append(record)
        self.written.add(record.raw)
        self._put(record.last_seq, record.raw, self.head)

    def _put(self, seq: int, raw: bytes, head: Head | None) -> None:
        self.revision += 1
        self.stored[seq] = Fetched(seq, self.revision, raw)
        self.changes.append((self.revision, Watched((self.stored[seq],), head, None)))

    def live(self) -> None:
        """Write a heartbeat."""
        self.beat += 1
        self.revision += 1
        self.changes.append((self.revision, Watched((), self.head, self.beat)))

    def corrupt(self) -> None:
        """Overwrite a record with bytes that are none, or with one of another past."""
        if self.stored:
            seq = self.chance.choice(list(self.stored))
            event = Event("service.set", "shop/web", {}, "eve", "")
            self._put(
                seq,
                self.chance.choice((b"\xc1", encode_record(self.head, 1, (event,)).raw)),
                None,
            )
            self.is_sound = False

    def compact(self) -> None:
        """Forget history; the keys stay."""
        self.compacted = self.revision
