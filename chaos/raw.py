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


class BrokenError(AssertionError):
    """An invariant doesn't hold."""


def hold(invariant: str, *, holds: bool, reason: str) -> None:
    """Raise if it doesn't."""
    if not holds:
        raise BrokenError(f"{invariant}: {reason}")


def digest(raw: bytes) -> bytes:
    """BLAKE2b-128."""
    return hashlib.blake2b(raw, digest_size=16).digest()


@dataclass(slots=True)
class Log:
    """One log as it lies there. first_seq: of the oldest record. events: with their seqs. state: by
    noun and key, over snapshot and records.
    """

    head: dict[str, Any]
    first_seq: int = 1
    records: dict[int, bytes] = field(default_factory=dict)
    events: list[tuple[int, list[Any]]] = field(default_factory=list)
    state: dict[str, dict[str, Any]] = field(default_factory=dict)

    def causes(self) -> list[str]:
        """The idempotency keys of its events, in order."""
        return [event[4] for _, event in self.events if event[4]]


def read_log(keys: Keys, root: str, head: dict[str, Any] | None = None) -> Log:
    """Read a log from its snapshot or its beginning to its head, checking I3 and I6.

    root: like `/meshd/v1/local/`. head: where there is no key `head`, as with replicas.
    """
    if head is None:
        head = json.loads(keys[f"{root}head"][0])
    log = Log(head)
    chain, seq = bytes(16), 0
    manifest = _manifest(keys, root, log)
    if manifest is not None:
        seq, chain = manifest["trim"]["seq"], bytes.fromhex(manifest["trim"]["hash"])
        _load(keys, root, manifest, log)
    log.first_seq = seq + 1
    revision = 0
    known_seq = manifest["seq"] if manifest else 0
    for key in sorted(key for key in keys if key.startswith(f"{root}log/")):
        raw, mod_revision = keys[key]
        last_seq = int(key.rpartition("/")[2])
        if last_seq <= seq:
            continue
        version, log_id, first_seq, _, previous, body = msgpack.unpackb(raw)[:6]
        hold("I7", holds=log_id.hex() == head["log_id"], reason=f"{key} is of another log")
        hold("I3", holds=version == 1 and first_seq == seq + 1, reason=f"{key}: gap after {seq}")
        hold("I3", holds=previous == chain, reason=f"{key}: the chain is broken")
        hold("I3", holds=mod_revision >= revision, reason=f"{key}: revision went back")
        chain, revision = digest(raw), mod_revision
        log.records[last_seq] = raw
        for event in body:
            seq += 1
            log.events.append((seq, event))
            if seq > known_seq:
                fold(log.state, event)
        hold("I3", holds=last_seq == seq, reason=f"{key} ends with {seq}")
        if seq == known_seq and manifest is not None:
            hold(
                "I6", holds=chain.hex() == manifest["hash"], reason=f"snapshot at {seq} is another"
            )
    reached = (seq, chain.hex()) == (head["seq"], head["hash"])
    hold("I3", holds=reached, reason=f"{root} ends at {seq}, its head says {head['seq']}")
    return log


def _manifest(keys: Keys, root: str, log: Log) -> dict[str, Any] | None:
    found = keys.get(f"{root}snapshot/manifest")
    manifest: dict[str, Any] | None = json.loads(found[0]) if found else None
    return manifest if manifest and manifest["log_id"] == log.head["log_id"] else None


def _load(keys: Keys, root: str, manifest: dict[str, Any], log: Log) -> None:
    for number, expected in enumerate(manifest["parts"]):
        raw = keys[f"{root}snapshot/{manifest['seq']:020}/{number:06}"][0]
        hold("I6", holds=digest(raw).hex() == expected, reason=f"part {number} is another")
        for _, _, event in msgpack.unpackb(zlib.decompress(raw))[1]:
            fold(log.state, event)


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
