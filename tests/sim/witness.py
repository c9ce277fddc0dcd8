"""Who sees every change of one etcd as it is made, and remembers its logs whole.

For: what must hold at every step, and what the logs were before they were cut. Not for: what a
meshd knows. Invariants: nothing here is told by a meshd; what is folded is folded from the first
record on; who wrote is known from the loop, not from what was written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from meshd.core.fold import fold_record
from meshd.core.position import Verdict, classify
from meshd.core.snapshot import finish_loading, load_part
from meshd.core.state import ClusterState
from meshd.edges.memory import MemoryEtcd
from meshd.model.codec import Cursor, decode_cursor, decode_heartbeat, decode_record
from meshd.model.event import Event, Record
from meshd.model.ids import ClusterName, Head
from meshd.model.keyspace import Keyspace, LogKeys
from meshd.model.snapshot import NO_MARK, Manifest, decode_manifest, decode_part, hash_part
from meshd.runtime.ports import KeyValue, WatchEvent
from tests.sim.loop import PROCESS
from tests.sim.tally import Tally

KEYS = Keyspace()
LOGS = (KEYS.local, KEYS.export())


@dataclass(slots=True)
class History:
    """One log from its first record on, whatever was cut off since.

    runs: the seqs of every cause. values: what exists, by kind and key.
    """

    cluster: ClusterName
    records: list[Record] = field(default_factory=list)
    state: ClusterState = field(default_factory=ClusterState)
    runs: dict[str, list[int]] = field(default_factory=dict)
    values: dict[tuple[str, str], object] = field(default_factory=dict)

    def add(self, record: Record, tally: Tally) -> None:
        """Take the next record; raises BrokenError."""
        at = self.records[-1].head if self.records else Head.genesis(record.log_id)
        is_next = classify(at, record) is Verdict.NEXT
        tally.hold("I3", is_next, f"{self.cluster} {record.last_seq} does not follow {at.seq}")
        is_later = not self.records or record.time_ms >= self.records[-1].time_ms
        tally.hold("I3", is_later, f"the time of {self.cluster} {record.last_seq} goes back")
        for seq, event in enumerate(record.events, record.first_seq):
            if event.cause:
                self.runs.setdefault(event.cause, []).append(seq)
            tally.hold("I9", self._changes(event), f"{event} changes nothing: it was decided late")
        fold_record(self.state, record, self.cluster)
        self.records.append(record)

    def _changes(self, event: Event) -> bool:
        kind, _, verb = event.type.partition(".")
        place = (kind, event.key)
        if verb == "set":
            was, self.values[place] = self.values.get(place), event.data
            return was != event.data
        was = self.values.pop(place, None)
        below = [
            other for other in self.values
            if kind == "service" and other[0] == "endpoint" and other[1].startswith(f"{event.key}/")
        ]  # fmt: skip
        for other in below:
            del self.values[other]
        return was is not None or bool(below)

    def until(self, seq: int) -> ClusterState:
        """What the log came to at a seq."""
        if seq == self.state.seq:
            return self.state
        state = ClusterState()
        for record in self.records:
            if record.last_seq <= seq:
                fold_record(state, record, self.cluster)
        return state


class Witness:
    """Beside one etcd. leader: the process that put the leader key, 0 for nobody. beat: the last.
    leaders: how often another one came.
    """

    def __init__(self, cluster: str, tally: Tally) -> None:
        self.cluster = ClusterName(cluster)
        self.leader = 0
        self.leaders = 0
        self.beat = 0
        self.logs = {keys.root: History(self.cluster) for keys in LOGS}
        self._tally = tally

    @property
    def local(self) -> History:
        """The local log."""
        return self.logs[KEYS.local.root]

    @property
    def export(self) -> History:
        """The export log."""
        return self.logs[KEYS.export().root]

    def copy(self) -> Witness:
        """Return one that knows as much: what a backup of the etcd stands for."""
        other = Witness(self.cluster, self._tally)
        other.leader, other.leaders, other.beat = self.leader, self.leaders, self.beat
        for root, history in self.logs.items():
            for record in history.records:
                other.logs[root].add(record, Tally())
        return other

    def see(self, etcd: MemoryEtcd, events: Sequence[WatchEvent]) -> None:
        """Take the changes of one revision; raises BrokenError."""
        for event in events:
            key = event.kv.key
            log = next((keys for keys in LOGS if key.startswith(keys.root)), None)
            if log is not None:
                self._see_log(etcd, log, event)
            elif key == KEYS.leader:
                self._see_leader(event)
            elif key.startswith(KEYS.replicas):
                self._hold_leads(key)
        for peer in {_peer_of(e.kv.key) for e in events if e.kv.key.startswith(KEYS.replicas)}:
            self.check_replica(etcd, peer)

    def _hold_leads(self, key: bytes) -> None:
        process = PROCESS.get()
        reason = f"{key!r} was written by {process} while {self.leader} leads"
        self._tally.hold("I9", process == self.leader, reason)

    def _see_leader(self, event: WatchEvent) -> None:
        self.leader = 0 if event.is_delete else PROCESS.get()
        self.leaders += not event.is_delete

    def _see_log(self, etcd: MemoryEtcd, keys: LogKeys, event: WatchEvent) -> None:
        kv = event.kv
        seq = keys.seq_of(kv.key)
        if seq is not None and event.is_delete:
            manifest = manifest_in(etcd, keys)
            trim_seq = manifest.trim.seq if manifest else 0
            self._tally.hold("I4", seq <= trim_seq, f"{kv.key!r} is cut; trim point {trim_seq}")
            self._hold_leads(kv.key)
            self._tally.saw("log cut")
        elif seq is not None:
            self._tally.hold("I4", kv.version == 1, f"{kv.key!r} was written {kv.version} times")
            self.logs[keys.root].add(record_of(kv.value), self._tally)
        elif kv.key == keys.heartbeat:
            beat = decode_heartbeat(kv.value, "heartbeat").beat
            self._tally.hold("I9", beat > self.beat, f"beat {beat} after {self.beat}")
            self._hold_leads(kv.key)
            self.beat = beat
        elif kv.key.startswith(keys.snapshots):
            self._hold_leads(kv.key)
            if kv.key == keys.manifest and not event.is_delete:
                self._check_snapshot(etcd, keys, decode_manifest(kv.value, "manifest"))

    def _check_snapshot(self, etcd: MemoryEtcd, keys: LogKeys, manifest: Manifest) -> None:
        """A snapshot that counts is what the log folds into, and the one before it is kept (I6)."""
        hold, history = self._tally.hold, self.logs[keys.root]
        is_kept = manifest.trim.seq <= manifest.previous_seq
        hold("I4", is_kept, f"{keys.root!r} is cut beyond the snapshot before its newest")
        heads = {record.head for record in history.records}
        hold("I6", manifest.head in heads, f"no record ends at the snapshot {manifest.head}")
        found = state_of(etcd, keys, manifest, self.cluster)
        expected = history.until(manifest.head.seq)
        hold("I6", found == expected, f"the snapshot at {manifest.head.seq} is another state")
        self._tally.saw("snapshot written")
        for seq in manifest.kept:
            raw = value_in(etcd, keys.kept_manifest(seq))
            hold("I6", raw is not None, f"the kept snapshot at {seq} has no manifest")
            kept = decode_manifest(raw or b"", "a kept manifest")
            hold("I6", kept.head in heads and kept.head.seq == seq, f"{seq} is no record's end")
            is_it = state_of(etcd, keys, kept, self.cluster) == history.until(seq)
            hold("I6", is_it, f"the kept snapshot at {seq} is another state")
            self._tally.saw("kept snapshot")
        begins = manifest.kept[:1] or (manifest.head.seq,)
        is_told = not manifest.trim.seq or keys != KEYS.local or begins[0] == manifest.trim.seq
        hold("I6", is_told, f"cut at {manifest.trim.seq}, where no snapshot is kept")

    def check_replica(self, etcd: MemoryEtcd, peer: ClusterName) -> None:
        """The durable cursor stands exactly behind a whole copy, at every moment (I5)."""
        cursor = cursor_in(etcd, peer)
        if cursor is None or cursor.head.seq == 0:
            return
        keys = KEYS.replica(peer, cursor.place)
        manifest = manifest_in(etcd, keys)
        trim = NO_MARK
        if manifest is not None and manifest.head.log_id == cursor.head.log_id:
            trim = manifest.trim
            parts = [kv.value for kv in parts_in(etcd, keys, manifest)]
            is_whole = [hash_part(raw) for raw in parts] == list(manifest.parts)
            self._tally.hold("I5", is_whole, f"the replica of {peer} lacks a part")
        at = Head(cursor.head.log_id, trim.seq, trim.hash)
        for kv in raw_log(etcd, keys):
            record = record_of(kv.value)
            if record.last_seq > trim.seq:
                is_next = classify(at, record) is Verdict.NEXT
                reason = f"the replica of {peer} has a hole or a fork after {at.seq}"
                self._tally.hold("I5", is_next, reason)
                at = record.head
        self._tally.hold("I5", at == cursor.head, f"cursor {cursor.head.seq}, copy {at.seq}")


class WitnessedEtcd(MemoryEtcd):
    """An etcd with a witness. broken: what it found, in case nobody passes it on."""

    witness: Witness
    broken: AssertionError | None = None

    def _publish(self, revision_before: int) -> None:
        if self.revision != revision_before:
            ((_, events),) = self.history(self.revision, revisions_max=1)
            try:
                self.witness.see(self, events)
            except AssertionError as error:
                self.broken = self.broken or error
                raise
        super()._publish(revision_before)


# Reading an etcd raw, as an independent client.


@lru_cache(maxsize=1024)
def record_of(raw: bytes) -> Record:
    """The record of these bytes, which the copies of a log have in common."""
    return decode_record(raw, "a record")


def _peer_of(key: bytes) -> ClusterName:
    return ClusterName(key.removeprefix(KEYS.replicas).partition(b"/")[0].decode())


def value_in(etcd: MemoryEtcd, key: bytes) -> bytes | None:
    """The value of one key."""
    found = etcd.range(key, b"", limit=0, revision=0).kvs
    return found[0].value if found else None


def manifest_in(etcd: MemoryEtcd, keys: LogKeys) -> Manifest | None:
    """The manifest of a log, if it has one."""
    raw = value_in(etcd, keys.manifest)
    return decode_manifest(raw, "manifest") if raw is not None else None


def cursor_in(etcd: MemoryEtcd, peer: ClusterName) -> Cursor | None:
    """How far a replica has come."""
    raw = value_in(etcd, KEYS.replica(peer).cursor)
    return decode_cursor(raw, "cursor") if raw is not None else None


def raw_log(etcd: MemoryEtcd, keys: LogKeys) -> tuple[KeyValue, ...]:
    """The records of a log, with their revisions."""
    return etcd.range(keys.log, keys.log_end, limit=0, revision=0).kvs


def parts_in(etcd: MemoryEtcd, keys: LogKeys, manifest: Manifest) -> tuple[KeyValue, ...]:
    """The parts of a log's snapshot."""
    start, end = keys.parts(manifest.head.seq), keys.kept_manifest(manifest.head.seq)
    return etcd.range(start, end, limit=0, revision=0).kvs


def state_of(
    etcd: MemoryEtcd, keys: LogKeys, manifest: Manifest, cluster: ClusterName
) -> ClusterState:
    """What a snapshot holds."""
    state = ClusterState()
    for kv in parts_in(etcd, keys, manifest):
        load_part(state, decode_part(kv.value, "part"), cluster, manifest)
    finish_loading(state, manifest)
    return state
