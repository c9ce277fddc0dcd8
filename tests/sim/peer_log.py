"""A peer's etcd as its readers see it: one log, every change to it, and what may befall it.

For: ring 1. Not for: semantics of etcd that no reader of one log can see. Invariants: revisions
rise within one history; `is_sound` says whether a reader from the start would find nothing wrong;
`truth` is what all records of the present history come to.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random

from meshd.core.retention import Keep, RetentionRules, trim_point
from meshd.core.snapshot import kept_of, manifest_of, parts_of
from meshd.core.state import ClusterState
from meshd.model.codec import Descriptor, encode_record
from meshd.model.event import Event, Record
from meshd.model.ids import ClusterName, Head, LogId
from meshd.model.replica import Fetched, Watched
from meshd.model.snapshot import Manifest, Mark, encode_part, hash_part
from tests.sim.sayings import DESCRIPTORS, GREED, IDS, OPENING, POISONS, POOL, Saying, copied, tell

Change = tuple[int, Watched]
"""What one revision did to the log's keys."""
KEEP_ANY = Keep(events=10**9, size_bytes=10**12, age_s=10**9)
RETENTION = tuple(
    RetentionRules(1, Keep(events, KEEP_ANY.size_bytes, KEEP_ANY.age_s), KEEP_ANY)
    for events in (0, 3, 8)
)
PARTS_MAX = 3
EVENTS = (1, 1, 1, 3)
"""How many events a record has, as often as they are here."""
FLOOD_RECORDS = (6, 10)
"""More than two windows of a reader hold."""
SUMS = (1, 1, 3)
"""How often in a row a log is summed up."""
CUTS = 0.7
"""How often a log is cut when it was summed up, if it may be."""
BEATS_BEHIND = 0.2
"""How often a heartbeat tells of an older head."""


@dataclass(slots=True)
class History:
    """What is in the etcd: copied for a backup, put back by a restore.

    beat_head: where the log ended when its heart beat last. records: those that weren't cut off.
    stored: by the seq in the key. parts: by the seq of their snapshot.
    """

    head: Head
    beat_head: Head
    revision: int
    truth: ClusterState = field(default_factory=ClusterState)
    records: list[Record] = field(default_factory=list)
    stored: dict[int, Fetched] = field(default_factory=dict)
    manifest: Manifest | None = None
    parts: dict[int, list[bytes]] = field(default_factory=dict)
    log_bytes: int = 0
    is_sound: bool = True

    def copy(self) -> History:
        """The same, to go on by itself."""
        return replace(
            self,
            truth=copied(self.truth),
            records=list(self.records),
            stored=dict(self.stored),
            parts={seq: list(parts) for seq, parts in self.parts.items()},
        )


class PeerLog:
    """One cluster's etcd.

    changes: by revision, since the history began or was forgotten by a restore. compacted: changes
    up to here can't be watched any more. restarts: of the etcd, each of which ends all watches.
    replaced: how often another history took the place of this one. written: all records that ever
    were. summed_up: what the snapshot at a head must come to.
    """

    def __init__(
        self, name: ClusterName, chance: Random, summed_up: dict[Head, ClusterState]
    ) -> None:
        self.name = name
        self.summed_up = summed_up
        self.chance = chance
        self.descriptor: Descriptor = DESCRIPTORS[name]
        self.changes: list[Change] = []
        self.compacted = self.restarts = self.replaced = 0
        self.beat = self.time_ms = 1
        self.is_frozen, self.has_quorum = False, True
        self.is_tampered = self.ever_unsound = self.ever_strange = False
        self.written: set[bytes] = set()
        self.now = self._new_history(Head.genesis(self._log_id()))
        self._open()
        self.backups = [self.now.copy()]

    @property
    def head(self) -> Head:
        return self.now.head

    @property
    def is_own_self(self) -> bool:
        """Whether the etcd behind the address says that it is this cluster."""
        return self.descriptor is DESCRIPTORS[self.name]

    def _new_history(self, head: Head) -> History:
        return History(head, head, self.chance.randint(1, 5))

    def _log_id(self) -> LogId:
        return LogId(f"{self.chance.getrandbits(128):032x}")

    # What it does by itself.

    def _open(self) -> None:
        self._write(OPENING[self.name])

    def append(self, times: int = 1) -> None:
        """Append a record of one to three events; now and then two of them in one transaction."""
        for _ in range(times):
            number = int(self.chance.random() * 64)
            events = EVENTS[number % len(EVENTS)]
            self._write(self._said(events), *(() if number else (self._said(1),)))

    def _said(self, events: int) -> tuple[Saying, ...]:
        pool, chance = POOL[self.name], self.chance
        return tuple(pool[int(chance.random() * len(pool))] for _ in range(events))

    def _write(self, *groups: tuple[Saying, ...]) -> None:
        records = []
        for said in groups:
            record = self._encode([saying.event for saying in said])
            tell(self.now.truth, said, record)
            records.append(record)
        self._put(records)

    def _encode(self, events: Sequence[Event]) -> Record:
        now = self.now
        self.time_ms += 7
        record = encode_record(now.head, self.time_ms, events)
        now.head = record.head
        now.records.append(record)
        now.log_bytes += len(record.raw)
        self.written.add(record.raw)
        return record

    def _put(self, records: Sequence[Record]) -> None:
        """Write records and the head in one transaction."""
        now = self.now
        now.revision += 1
        fetched = tuple(Fetched(one.last_seq, now.revision, one.raw) for one in records)
        for item in fetched:
            now.stored[item.key_seq] = item
        self.changes.append((now.revision, Watched(fetched, now.head, None)))

    def live(self) -> None:
        """Write a heartbeat; it was put together a moment ago, when the head may have been that of
        the beat before.
        """
        now = self.now
        self.beat += 1
        now.revision += 1
        is_behind = now.beat_head.log_id == now.head.log_id and self.chance.random() < BEATS_BEHIND
        head, now.beat_head = now.beat_head if is_behind else now.head, now.head
        self.changes.append((now.revision, Watched((), head, self.beat)))

    def shorten(self) -> None:
        """Sum the log up and perhaps cut it, as `runtime.shortening` does: once, or several times
        while it goes on.
        """
        for _ in range(self.chance.choice(SUMS)):
            before = self.now.manifest
            if not self.now.is_sound:
                # It is read back to be summed up, and can't be.
                return
            if before is not None and before.head.seq == self.now.head.seq:
                self.append()
            self._sum_up(before)
            if self.chance.random() < CUTS:
                self._cut()

    def _sum_up(self, before: Manifest | None) -> None:
        now = self.now
        parts = _parts(now.truth, self.chance.randint(1, PARTS_MAX))
        hashes = [hash_part(raw) for raw in parts]
        now.manifest = manifest_of(now.truth, now.head, now.log_bytes, hashes, before)
        self.summed_up[now.head] = copied(now.truth)
        kept = (now.manifest.previous_seq,)
        now.parts = {seq: raw for seq, raw in now.parts.items() if seq in kept}
        now.parts[now.head.seq] = parts
        # Manifest and parts lie outside of what a reader watches.
        now.revision += 1

    def _cut(self) -> None:
        now, chance = self.now, self.chance
        rules = RETENTION[int(chance.random() * len(RETENTION))]
        end = Mark(now.head.seq, now.head.hash, self.time_ms, now.log_bytes)
        manifest = now.manifest
        mark = trim_point(manifest, end, rules, self.time_ms, None) if manifest else None
        if manifest is None or mark is None:
            return
        marks = tuple(other for other in manifest.marks if other.seq > mark.seq)
        now.manifest = replace(manifest, trim=mark, marks=marks)
        now.records = [record for record in now.records if record.first_seq > mark.seq]
        now.stored = {seq: item for seq, item in now.stored.items() if seq > mark.seq}
        now.revision += 1

    # What befalls it.

    def befall(self, fault: str) -> None:
        """Let one of FAULTS happen."""
        FAULTS[fault](self)
        self.ever_unsound = self.ever_unsound or not self.now.is_sound
        self.ever_strange = self.ever_strange or not self.is_own_self

    def _begin_history(self, history: History, *, compacted: int = 0) -> None:
        self.now = history
        self.changes, self.compacted = [], compacted
        self.restarts += 1
        self.replaced += 1
        self.is_tampered = True

    def wipe(self) -> None:
        """Begin a log of another id; revisions begin anew, as etcd's do."""
        self._begin_history(self._new_history(Head.genesis(self._log_id())))
        self._open()

    def _recreate_longer(self) -> None:
        """Wipe it and write more than there was before anybody looks."""
        length = len(self.now.stored)
        self.wipe()
        self.append(length)

    def _restore(self) -> None:
        """Go back to a copy, mostly the last one, with the same log id and revisions."""
        backup = self.backups[-1 - int(self.chance.random() ** 2 * len(self.backups))]
        self._begin_history(backup.copy(), compacted=backup.revision)

    def _found_again(self) -> None:
        """Found a new log where a copy ends, with its hash, as `runtime.founding` does."""
        old = self.chance.choice(self.backups)
        if not old.is_sound:
            return
        head = replace(old.head, log_id=self._log_id())
        self._begin_history(self._new_history(head))
        self.now.truth = copied(old.truth)
        self._sum_up(None)
        manifest = self.now.manifest
        if manifest is not None:
            self.now.manifest = replace(manifest, trim=manifest.mark)

    def _restart(self) -> None:
        self.restarts += 1

    def _corrupt(self) -> None:
        """Overwrite a record with bytes that are none, or with one of another past."""
        now = self.now
        if now.stored:
            seq = self.chance.choice(list(now.stored))
            other = encode_record(now.head, 1, (POISONS[self.name][0],)).raw
            now.revision += 1
            item = Fetched(seq, now.revision, self.chance.choice((b"\xc1", other)))
            now.stored[seq] = item
            self.changes.append((now.revision, Watched((item,), None, None)))
            self._spoil()

    def _spoil(self) -> None:
        self.now.is_sound, self.is_tampered = False, True

    def _corrupt_part(self) -> None:
        """Overwrite a part of its snapshot, or lose it."""
        now = self.now
        if now.manifest is not None and now.parts.get(now.manifest.head.seq):
            parts = now.parts[now.manifest.head.seq]
            parts[0] = self.chance.choice((b"\xc1", encode_part(()), parts[-1] + b" "))
            self._spoil()

    def _lose_parts(self) -> None:
        """Lose the parts of its snapshot, though the manifest names them."""
        if self.now.parts:
            self.now.parts = {}
            self._spoil()

    def _swap_manifest(self) -> None:
        """Put the manifest of another log in the place of its own."""
        now = self.now
        if now.manifest is not None:
            head = replace(now.manifest.head, log_id=self._log_id())
            now.manifest = replace(now.manifest, head=head)
            self._spoil()

    def _poison(self) -> None:
        """Append a record that decodes and that no reader may take."""
        self._put([self._encode([self.chance.choice(POISONS[self.name])])])
        self._spoil()

    def _grow(self) -> None:
        """Say more than a reader lets it say."""
        self._put([self._encode(GREED)])
        self._spoil()

    def _claim(self) -> None:
        """Say that it has the id of another cluster; who does so has given up its own."""
        self.ever_strange = True
        number = self.chance.choice([IDS[name] for name in IDS if name != self.name])
        event = Event("cluster.set", self.name, {"name": self.name, "id": number}, "eve")
        self._put([self._encode([event])])
        self._spoil()

    def _compact(self) -> None:
        """Forget history; the keys stay."""
        self.compacted = self.now.revision

    def _flood(self) -> None:
        self.append(self.chance.randint(*FLOOD_RECORDS))

    def _become_strange(self) -> None:
        """Be another cluster, or one with an id that isn't its own; or be itself again."""
        own = DESCRIPTORS[self.name]
        strange = (
            replace(own, name=ClusterName("nowhere")),
            replace(own, id=self.chance.choice([d.id for d in DESCRIPTORS.values() if d != own])),
            replace(own, protocol_min=9, protocol_max=9),
        )
        self.descriptor = self.chance.choice(strange) if self.is_own_self else own

    def _freeze(self) -> None:
        """Let the heart stand still while the log goes on; or beat again."""
        self.is_frozen = not self.is_frozen

    def _lose_quorum(self) -> None:
        """Its etcd answers nobody, and its watches are silent; or it has come back."""
        self.has_quorum = not self.has_quorum

    def come_back(self) -> None:
        """Be itself and there, with a heart that beats; whatever the log may be."""
        self.descriptor, self.is_frozen, self.has_quorum = DESCRIPTORS[self.name], False, True

    def heal(self) -> None:
        """Have a log that can be read."""
        if not self.now.is_sound:
            self.wipe()

    # What is seen of it.

    def changes_from(self, revision: int) -> list[Change]:
        """What a watch from a revision has to tell by now."""
        return self.changes[bisect_left(self.changes, (revision,)) :]

    def records(self) -> list[tuple[Record, int]]:
        """All records that weren't cut off, with their mod revisions."""
        now = self.now
        return [(record, now.stored[record.last_seq].revision) for record in now.records]

    @property
    def trim_seq(self) -> int:
        """Up to where the log was cut."""
        manifest = self.now.manifest
        return manifest.trim.seq if manifest else 0


FAULTS: dict[str, Callable[[PeerLog], None]] = {
    "wipe": PeerLog.wipe,
    "recreate longer": PeerLog._recreate_longer,
    "restore": PeerLog._restore,
    "found again": PeerLog._found_again,
    "restart": PeerLog._restart,
    "compact": PeerLog._compact,
    "flood": PeerLog._flood,
    "corrupt": PeerLog._corrupt,
    "corrupt part": PeerLog._corrupt_part,
    "lose parts": PeerLog._lose_parts,
    "swap manifest": PeerLog._swap_manifest,
    "poison": PeerLog._poison,
    "grow": PeerLog._grow,
    "claim": PeerLog._claim,
    "stranger": PeerLog._become_strange,
    "freeze": PeerLog._freeze,
    "no quorum": PeerLog._lose_quorum,
}
"""What befalls a peer, by name; the last three are undone when they strike again."""
FROM_BACKUPS = frozenset({"restore", "found again"})
"""Those that need backups, which are made for them alone."""


def _parts(truth: ClusterState, pieces: int) -> list[bytes]:
    """A small state fills only one part by itself."""
    if pieces == 1:
        return list(parts_of(truth))
    kept = list(kept_of(truth))
    size = -(-len(kept) // pieces)
    return [encode_part(kept[at : at + size]) for at in range(0, len(kept), size)]
