"""Logs of the model mesh: chained records, and a snapshot of some, as `protocols/` has them.

For: `model_run` and doctoring. Not for: meshd's own.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgpack

from chaos import raw
from chaos.history import RawKey

Event = list[Any]


@dataclass
class Log:
    """Records in a chain, and a snapshot of some of them. seq, chain: its end."""

    log_id: str
    records: list[tuple[int, int, bytes]] = field(default_factory=list)
    seq: int = 0
    chain: bytes = bytes(16)
    events: list[Event] = field(default_factory=list)
    snapshot: list[RawKey] = field(default_factory=list)
    trim_seq: int = 0

    def append(self, events: Sequence[Event], revision: int, time_ms: int = 0) -> None:
        log_id = bytes.fromhex(self.log_id)
        record = [1, log_id, self.seq + 1, time_ms or revision, self.chain, list(events)]
        packed: bytes = msgpack.packb(record)
        self.seq += len(events)
        self.events += events
        self.chain = raw.digest(packed)
        self.records.append((self.seq, revision, packed))

    @property
    def state(self) -> raw.State:
        state: raw.State = {}
        for event in self.events:
            raw.fold(state, event)
        return state

    def head(self) -> dict[str, Any]:
        return {"log_id": self.log_id, "seq": self.seq, "hash": self.chain.hex()}

    def sum_up(self) -> None:
        """Make a snapshot of all there is, and trim what is in it."""
        latest = {(event[0].partition(".")[0], event[1]): event for event in self.events}
        kept = [[1, 0, [*event[:4], ""]] for event in latest.values()]
        causes = [[event[4], seq, seq, 1] for seq, event in enumerate(self.events, 1) if event[4]]
        part = zlib.compress(msgpack.packb([1, kept, causes]))
        manifest = self.head() | {"parts": [raw.digest(part).hex()], "trim": self.head()}
        self.trim_seq = self.seq
        self.snapshot = [
            key_of("snapshot/manifest", 1, json.dumps(manifest).encode()),
            key_of(f"snapshot/{self.seq:020}/000000", 1, part),
        ]

    def keys(self, end: str = "head") -> tuple[RawKey, ...]:
        records = [
            key_of(f"log/{seq:020}", revision, packed)
            for seq, revision, packed in self.records
            if seq > self.trim_seq
        ]
        head = key_of(end, 1, json.dumps(self.head()).encode())
        return (head, *records, *self.snapshot)


def key_of(key: str, revision: int, value: bytes) -> RawKey:
    return RawKey(key, revision, 1, base64.b64encode(value).decode())


def log_id(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def logs_of(name: str, generation: int) -> tuple[Log, Log]:
    return tuple(Log(log_id(f"{kind} {name} {generation}")) for kind in ("local", "export"))  # type: ignore[return-value]


def is_told(event: Event) -> bool:
    return event[0] != "service.set" or bool(event[2].get("global"))
