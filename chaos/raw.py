"""What lies in an etcd, read and judged as a stranger would: from `protocols/` alone.

For: holding logs, replicas and tables against what the keys themselves say. Not for: speed.
Invariants named after design.md's section 9; each function raises BrokenError with the sentence.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgpack

Keys = Mapping[str, tuple[bytes, int]]
"""Key -> (value, mod revision), as `etcds.Etcd.dump` gives them."""
SERVICE_REMOVED = "service.removed"
RECORD_TYPES = (int, bytes, int, int, bytes, list)
RECORD_FIELDS = len(RECORD_TYPES)
EVENT_FIELDS = 5


class BrokenError(AssertionError):
    """An invariant doesn't hold."""

    def __init__(self, invariant: str, reason: str) -> None:
        super().__init__(f"{invariant}: {reason}")
        self.invariant = invariant
        self.reason = reason


def hold(invariant: str, *, holds: bool, reason: str) -> None:
    """Raise if it doesn't."""
    if not holds:
        raise BrokenError(invariant, reason)


def digest(raw: bytes) -> bytes:
    """BLAKE2b-128."""
    return hashlib.blake2b(raw, digest_size=16).digest()


State = dict[str, dict[str, Any]]
"""By noun and key."""


@dataclass(slots=True)
class Log:
    """One log as it lies there. first_seq: of the oldest record. records: bytes and revision by
    last seq; times: their times. events: with their seqs. state: over snapshot and records.
    snapshot: its seq and state, seq 0 if there is none. trim_seq: up to where records may be gone.
    made: by idempotency key the ranges of seqs that were made for it.
    """

    head: dict[str, Any]
    first_seq: int = 1
    records: dict[int, bytes] = field(default_factory=dict)
    revisions: dict[int, int] = field(default_factory=dict)
    times: list[int] = field(default_factory=list)
    events: list[tuple[int, list[Any]]] = field(default_factory=list)
    state: State = field(default_factory=dict)
    snapshot: tuple[int, State] = (0, {})
    trim_seq: int = 0
    made: dict[str, set[tuple[int, int]]] = field(default_factory=dict)

    @property
    def last_seq(self) -> int:
        """How far it could be read."""
        return self.events[-1][0] if self.events else self.first_seq - 1

    def event(self, seq: int) -> list[Any] | None:
        """The event of a seq, if its record is there."""
        index = seq - self.first_seq
        return self.events[index][1] if 0 <= index < len(self.events) else None

    def causes(self) -> list[str]:
        """The idempotency keys of its events, in order."""
        return [event[4] for _, event in self.events if event[4]]


def read_log(keys: Keys, root: str, head: dict[str, Any] | None = None) -> Log:
    """Read a log from its snapshot or its beginning to its head, checking I3 and I6.

    root: like `/meshd/v1/local/`. head: where there is no key `head`, as with replicas.
    """
    log, broken = read_as_far_as_it_holds(keys, root, head)
    if broken is not None:
        raise broken
    return log


def read_as_far_as_it_holds(
    keys: Keys, root: str, head: dict[str, Any] | None = None
) -> tuple[Log, BrokenError | None]:
    """The same, up to what is broken in it."""
    log = Log({"log_id": "", "seq": 0, "hash": ""})
    try:
        if head is None:
            head = parse_head(f"{root}head", keys[f"{root}head"][0])
        log.head = head
        _read(log, keys, root)
    except BrokenError as error:
        return log, error
    return log, None


def parse_head(key: str, raw: bytes) -> dict[str, Any]:
    """A head or a cursor; raises BrokenError if it is none."""
    head = _json_object(raw)
    forms = ("log_id", str), ("seq", int), ("hash", str)
    is_one = all(isinstance(head.get(name), kind) for name, kind in forms)
    hold("I3", holds=is_one, reason=f"{key} is no head")
    return head


def _json_object(raw: bytes) -> dict[str, Any]:
    """A JSON object; an empty one for anything else."""
    try:
        data = json.loads(raw)
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def _read(log: Log, keys: Keys, root: str) -> None:
    chain, seq, revision = bytes(16), 0, 0
    manifest = _manifest(keys, root, log)
    if manifest is not None:
        try:
            seq, chain = manifest["trim"]["seq"], bytes.fromhex(manifest["trim"]["hash"])
            log.trim_seq = seq
            _load(keys, root, manifest, log)
        except (ArithmeticError, LookupError, TypeError, ValueError, zlib.error):
            raise BrokenError("I6", f"{root}snapshot is none") from None
    log.first_seq = seq + 1
    for key in sorted(key for key in keys if key.startswith(f"{root}log/")):
        raw, mod_revision = keys[key]
        number = key.rpartition("/")[2]
        hold("I3", holds=number.isdecimal(), reason=f"{key} is no record's")
        last_seq = int(number)
        if last_seq <= seq:
            continue
        version, log_id, first_seq, time_ms, previous, body = _parts(key, raw)
        hold("I7", holds=log_id.hex() == log.head["log_id"], reason=f"{key} is of another log")
        hold("I3", holds=version == 1 and first_seq == seq + 1, reason=f"{key}: gap after {seq}")
        hold("I3", holds=previous == chain, reason=f"{key}: the chain is broken")
        hold("I3", holds=mod_revision >= revision, reason=f"{key}: revision went back")
        is_its = last_seq == seq + len(body)
        hold("I3", holds=is_its, reason=f"{key} ends with {seq + len(body)}")
        chain, revision, seq = digest(raw), mod_revision, last_seq
        _take(log, first_seq, last_seq, body)
        log.records[last_seq], log.revisions[last_seq] = raw, mod_revision
        log.times.append(time_ms)
        if manifest is not None and seq == manifest["seq"]:
            is_same = chain.hex() == manifest["hash"]
            hold("I6", holds=is_same, reason=f"snapshot at {seq} is another")
    reached = (seq, chain.hex()) == (log.head["seq"], log.head["hash"])
    hold("I3", holds=reached, reason=f"{root}head says {log.head['seq']}, its log ends at {seq}")


def _parts(key: str, raw: bytes) -> list[Any]:
    try:
        parts: Any = msgpack.unpackb(raw)
    except ValueError:
        parts = None
    is_record = isinstance(parts, list) and len(parts) >= RECORD_FIELDS
    is_record = is_record and all(map(isinstance, parts, RECORD_TYPES)) and bool(parts[5])
    is_record = is_record and all(isinstance(e, list) and len(e) >= EVENT_FIELDS for e in parts[5])
    hold("I3", holds=is_record, reason=f"{key} is no record")
    return list(parts[:RECORD_FIELDS])


def _take(log: Log, first_seq: int, last_seq: int, body: list[list[Any]]) -> None:
    """Take in the events of a record."""
    for seq, event in enumerate(body, first_seq):
        log.events.append((seq, event))
        if seq > log.snapshot[0]:
            fold(log.state, event)
    begun = first_seq
    for seq in range(first_seq, last_seq + 1):
        cause = body[seq - first_seq][4]
        if seq == last_seq or body[seq + 1 - first_seq][4] != cause:
            if cause:
                log.made.setdefault(cause, set()).add((begun, seq))
            begun = seq + 1


def _manifest(keys: Keys, root: str, log: Log) -> dict[str, Any] | None:
    manifest = _json_object(keys.get(f"{root}snapshot/manifest", (b"", 0))[0])
    return manifest if manifest.get("log_id") == log.head["log_id"] else None


def _load(keys: Keys, root: str, manifest: dict[str, Any], log: Log) -> None:
    for number, expected in enumerate(manifest["parts"]):
        key = f"{root}snapshot/{manifest['seq']:020}/{number:06}"
        raw = keys.get(key, (b"", 0))[0]
        hold("I6", holds=digest(raw).hex() == expected, reason=f"part {number} is another")
        _, events, causes = msgpack.unpackb(zlib.decompress(raw))[:3]
        for _, _, event in events:
            fold(log.state, event)
        for cause, first_seq, last_seq, *_ in causes:
            log.made.setdefault(cause, set()).add((first_seq, last_seq))
    log.snapshot = manifest["seq"], {noun: dict(held) for noun, held in log.state.items()}


def fold(state: dict[str, dict[str, Any]], event: list[Any]) -> None:
    """What an event does, as protocols/records.md says."""
    kind, key, data = event[:3]
    noun, _, verb = kind.rpartition(".")
    if verb == "set":
        state.setdefault(noun, {})[key] = data
        return
    state.get(noun, {}).pop(key, None)
    if kind == SERVICE_REMOVED:
        endpoints = state.get("endpoint", {})
        for name in [name for name in endpoints if name.startswith(f"{key}/")]:
            del endpoints[name]


def replica_root(keys: Keys, peer: str) -> tuple[str, dict[str, Any]]:
    """Where a replica lies, and its cursor."""
    root = f"/meshd/v1/replica/{peer}/"
    cursor = json.loads(keys[f"{root}cursor"][0])
    return root + ("b/" if cursor.get("place") else ""), cursor


def check_replica(own: Keys, theirs: Keys, peer: str) -> Log:
    """I6: what a cluster keeps of a peer is byte for byte the peer's, as far as both reach back."""
    root, cursor = replica_root(own, peer)
    copy, export = read_log(own, root, cursor), read_log(theirs, "/meshd/v1/export/mesh/")
    is_same = copy.head["log_id"] == export.head["log_id"]
    hold("I7", holds=is_same, reason=f"the replica of {peer} is of another log")
    for seq in copy.records.keys() & export.records.keys():
        same = copy.records[seq] == export.records[seq]
        hold("I6", holds=same, reason=f"the replica of {peer} differs at seq {seq}")
    hold("I6", holds=copy.state == export.state, reason=f"the replica of {peer} says otherwise")
    return copy


def check_acknowledged(log: Log, acknowledged: Iterable[str], asked: Iterable[str]) -> None:
    """I1 and I2: what was acknowledged is there once; what was only asked for, at most once."""
    causes = log.causes()
    counts = {cause: causes.count(cause) for cause in set(causes)}
    for cause in acknowledged:
        hold("I1", holds=counts.get(cause, 0) >= 1, reason=f"{cause} was acknowledged and is gone")
    for cause in asked:
        hold(
            "I2", holds=counts.get(cause, 0) <= 1, reason=f"{cause} was done {counts.get(cause)} x"
        )


def backends(perspective: str, exports: Mapping[str, Log], own: Log) -> set[tuple[str, str, str]]:
    """Who serves what, by the logs: (service, cluster, endpoint) of all that take traffic.

    exports: of the other clusters. A service is global if the own cluster marks it so; another
    cluster takes part if its export log has it.
    """
    found = set()
    for key, service in own.state.get("service", {}).items():
        if not service.get("global"):
            continue
        for cluster, log in ({perspective: own} | dict(exports)).items():
            if key not in log.state.get("service", {}):
                continue
            for name, endpoint in log.state.get("endpoint", {}).items():
                if name.startswith(f"{key}/") and _takes_traffic(endpoint):
                    found.add((key, cluster, name.removeprefix(f"{key}/")))
    return found


def _takes_traffic(endpoint: dict[str, Any]) -> bool:
    is_there = endpoint.get("ready", True) and not endpoint.get("terminating", False)
    return bool(is_there) and endpoint.get("weight", 100) > 0
