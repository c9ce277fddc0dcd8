"""Records as another writer would make them: of a next version, or of somebody who means harm.

For: faults that write into a log behind its meshd's back. Not for: what meshd writes. Invariant:
written from `protocols/records.md` alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgpack

from chaos.raw import digest

TIME_MS: Final = 1_790_000_000_000
"""A time informs and decides nothing."""
WRITER: Final = "eve"
Event = Sequence[object]
"""Type, key, data, actor, cause, and what later versions may add."""
Head = Mapping[str, Any]


def event(type_: str, key: str, data: object) -> Event:
    """An event without a cause."""
    return [type_, key, data, WRITER, ""]


def record_after(head: Head, *events: Event, version: int = 1, time_ms: int = TIME_MS) -> bytes:
    """What a writer of this or another version would append. time_ms: who means no harm takes care
    that it isn't before that of the record it follows.
    """
    return bytes(
        msgpack.packb(
            [
                version,
                bytes.fromhex(head["log_id"]),
                head["seq"] + 1,
                time_ms,
                bytes.fromhex(head["hash"]),
                [list(one) for one in events],
            ]
        )
    )


def head_behind(head: Head, raw: bytes, events: int = 1) -> dict[str, Any]:
    """The head of a log to which a record of so many events was added."""
    return dict(head) | {"seq": head["seq"] + events, "hash": digest(raw).hex()}


def head_bytes(head: Head) -> bytes:
    """A head as its key holds it."""
    return json.dumps(head, separators=(",", ":")).encode()


def record_key(root: str, last_seq: int) -> str:
    """Where a record lies that ends at a seq."""
    return f"{root}log/{last_seq:020}"
