"""Control values: the few and small JSON objects beside a log's records (`protocols/keyspace.md`).

For: reading one member at a time, each with a clear error. Not for: which members a value has
(`codec`, `snapshot`). Invariant: any bytes at all either are what was asked for or raise
CorruptError naming the place.
"""

from __future__ import annotations

from typing import TypeGuard

import orjson

from meshd.model.errors import CorruptError, shown
from meshd.model.ids import Head, LogId, RecordHash, Seq, is_log_id

CONTROL_BYTES_MAX = 64 * 1024
SEQ_MAX = (1 << 63) - 1


def is_count(value: object) -> TypeGuard[int]:
    """Whether this is a number from 0 that every language can hold."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= SEQ_MAX


def count_of(fields: dict[str, object], name: str, where: str) -> int:
    """A member that counts something; raises CorruptError."""
    value = fields.get(name)
    if not is_count(value):
        raise CorruptError(where, f"{name} {shown(value)} is not a number from 0")
    return value


def control_object(raw: bytes, where: str) -> dict[str, object]:
    """Read a control value; raises CorruptError."""
    if len(raw) > CONTROL_BYTES_MAX:
        raise CorruptError(where, f"{len(raw)} bytes; at most {CONTROL_BYTES_MAX}")
    try:
        fields = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise CorruptError(where, f"not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise CorruptError(where, "not a JSON object")
    return fields


def head_fields(head: Head) -> dict[str, object]:
    """A head as members of a control value."""
    return {"log_id": head.log_id, "seq": head.seq, "hash": head.hash.hex()}


def head_of(fields: object, where: str) -> Head:
    """The head that a control value, or a member of one, says; raises CorruptError."""
    if not isinstance(fields, dict):
        raise CorruptError(where, "not a JSON object")
    log_id = fields.get("log_id")
    if not isinstance(log_id, str) or not is_log_id(log_id):
        raise CorruptError(where, f"{shown(log_id)} is not a log id")
    seq = fields.get("seq")
    if not is_count(seq):
        raise CorruptError(where, f"{shown(seq)} is not a seq")
    return Head(LogId(log_id), Seq(seq), hash_of(fields, where))


def hash_of(fields: dict[str, object], where: str) -> RecordHash:
    """The member `hash`; raises CorruptError."""
    digest = fields.get("hash")
    if not isinstance(digest, str) or not is_log_id(digest):
        raise CorruptError(where, f"{shown(digest)} is not a hash of 32 hexadecimal digits")
    return RecordHash(bytes.fromhex(digest))
