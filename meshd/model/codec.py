"""Records and control values to bytes and back (`protocols/records.md`).

For: exact bytes. Not for: whether a record continues a log (`core.position`) or what its events
mean (`core.fold`). Invariant: `decode_record(encode_record(...).raw)` is the same record, and any
bytes at all either decode or raise CorruptError.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import msgpack
import orjson

from meshd.model.control import (
    control_object,
    head_fields,
    head_of,
    is_count,
)
from meshd.model.errors import CorruptError, shown
from meshd.model.event import (
    ACTOR_CHARS_MAX,
    CAUSE_CHARS_MAX,
    EVENTS_PER_RECORD_MAX,
    RECORD_BYTES_MAX,
    Event,
    Record,
)
from meshd.model.ids import (
    CLUSTER_ID_MAX,
    ClusterName,
    Head,
    LogId,
    RecordHash,
    Revision,
    Seq,
    is_cluster_name,
)

RECORD_VERSION = 1
PROTOCOL_MIN = 1
PROTOCOL_MAX = 1
HASH_BYTES = 16
KEY_CHARS_MAX = 512
RECORD_FIELDS = 6
EVENT_FIELDS = 5


def hash_record(raw: bytes) -> RecordHash:
    """BLAKE2b-128 over a record's bytes."""
    return RecordHash(blake2b(raw, digest_size=HASH_BYTES).digest())


def encode_record(prev: Head, time_ms: int, events: Sequence[Event]) -> Record:
    """Make the record that continues a log after `prev`."""
    first_seq = Seq(prev.seq + 1)
    body = [encode_event(event) for event in events]
    raw = msgpack.packb(
        [
            RECORD_VERSION,
            bytes.fromhex(prev.log_id),
            first_seq,
            time_ms,
            bytes(prev.hash),
            body,
        ]
    )
    return Record(prev.log_id, first_seq, time_ms, prev.hash, tuple(events), raw, hash_record(raw))


def encode_event(event: Event) -> list[object]:
    """An event as it lies in a record, before it is packed."""
    return [event.type, event.key, event.data, event.actor, event.cause]


def event_bytes(event: Event) -> int:
    """How many bytes the event adds to a record."""
    return len(msgpack.packb(encode_event(event)))


def decode_record(raw: bytes, where: str) -> Record:
    """Read a record; raises CorruptError naming `where` for anything that isn't one.

    Fields that a newer writer appended to the record or to an event are carried in `raw` and
    otherwise left alone.
    """
    if len(raw) > RECORD_BYTES_MAX:
        raise CorruptError(where, f"a record of {len(raw)} bytes; at most {RECORD_BYTES_MAX}")
    try:
        fields = msgpack.unpackb(raw, strict_map_key=True)
    except (ValueError, RecursionError, msgpack.UnpackException) as error:
        raise CorruptError(where, f"not msgpack: {error or type(error).__name__}") from error
    if not isinstance(fields, list) or len(fields) < RECORD_FIELDS:
        raise CorruptError(where, f"not an array of {RECORD_FIELDS} fields")
    version, log_id, first_seq, time_ms, prev_hash, events = fields[:RECORD_FIELDS]
    if not is_count(version) or version != RECORD_VERSION:
        raise CorruptError(
            where, f"record version {shown(version)}; this meshd reads {RECORD_VERSION}"
        )
    if not isinstance(log_id, bytes) or len(log_id) != HASH_BYTES:
        raise CorruptError(where, "the log id is not 16 bytes")
    if not is_count(first_seq) or first_seq == 0:
        raise CorruptError(where, f"first seq {shown(first_seq)} is not a number from 1")
    if not is_count(time_ms):
        raise CorruptError(where, f"time {shown(time_ms)} is not in milliseconds since 1970")
    if not isinstance(prev_hash, bytes) or len(prev_hash) != HASH_BYTES:
        raise CorruptError(where, "the previous hash is not 16 bytes")
    if not isinstance(events, list) or not 0 < len(events) <= EVENTS_PER_RECORD_MAX:
        raise CorruptError(where, f"not between 1 and {EVENTS_PER_RECORD_MAX} events")
    return Record(
        LogId(log_id.hex()),
        Seq(first_seq),
        time_ms,
        RecordHash(prev_hash),
        tuple(decode_event(item, f"{where} event {n}") for n, item in enumerate(events)),
        raw,
        hash_record(raw),
    )


def decode_event(item: object, where: str) -> Event:
    """Read an event out of an unpacked record; raises CorruptError."""
    if not isinstance(item, list) or len(item) < EVENT_FIELDS:
        raise CorruptError(where, f"not an array of {EVENT_FIELDS} fields")
    kind, key, data, actor, cause = item[:EVENT_FIELDS]
    for name, text, chars_max in (
        ("type", kind, KEY_CHARS_MAX),
        ("key", key, KEY_CHARS_MAX),
        ("actor", actor, ACTOR_CHARS_MAX),
        ("cause", cause, CAUSE_CHARS_MAX),
    ):
        if not isinstance(text, str) or len(text) > chars_max:
            raise CorruptError(where, f"{name} is not a text of at most {chars_max} characters")
    if data is not None and not isinstance(data, dict):
        raise CorruptError(where, "data is neither a map nor nil")
    if data is not None and not _is_plain(data):
        raise CorruptError(where, "data holds what JSON can't say")
    return Event(kind, key, data, actor, cause)


def _is_plain(data: dict[str, object]) -> bool:
    """Whether data can be told outside the mesh: no bytes, no extensions, no bottomless nesting."""
    try:
        orjson.dumps(data)
    except orjson.JSONEncodeError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What `/meshd/v1/cluster` says: whose etcd this is. created_ms: when it was first set up."""

    name: ClusterName
    id: int
    protocol_min: int
    protocol_max: int
    created_ms: int


@dataclass(frozen=True, slots=True)
class LocalHead:
    """The head of the local log and, from the same transaction, those of its export logs."""

    local: Head
    exports: Mapping[str, Head]


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a replica has come. revision: the mod revision of the record at `head.seq` in the
    peer's etcd, 0 when that isn't known. place: in which of its two places the copy lies.
    """

    head: Head
    revision: Revision
    place: int = 0


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The leader's sign of life. beat: rises with every rewrite. vector and digest: the mesh as
    this cluster sees it, for others to compare. head: that of this export log, so that a reader
    whose watch lost something, or was opened on another history, notices it by the next beat; None
    from a meshd that doesn't say it yet.
    """

    beat: int
    time_ms: int
    vector: str
    digest: str
    head: Head | None = None


def encode_descriptor(descriptor: Descriptor) -> bytes:
    """As JSON, so that a person with etcdctl can read it."""
    return orjson.dumps(
        {
            "name": descriptor.name,
            "id": descriptor.id,
            "protocol": [descriptor.protocol_min, descriptor.protocol_max],
            "created_ms": descriptor.created_ms,
        }
    )


def decode_descriptor(raw: bytes, where: str) -> Descriptor:
    """Read a descriptor; raises CorruptError."""
    fields = control_object(raw, where)
    name, number, protocol, created_ms = (
        fields.get(key) for key in ("name", "id", "protocol", "created_ms")
    )
    if not isinstance(name, str) or not is_cluster_name(name):
        raise CorruptError(where, f"{shown(name)} is not a cluster name")
    if not is_count(number) or not 1 <= number <= CLUSTER_ID_MAX:
        raise CorruptError(where, f"{shown(number)} is not a cluster id of 1..{CLUSTER_ID_MAX}")
    if (
        not isinstance(protocol, list)
        or len(protocol) != len(("min", "max"))
        or not all(is_count(bound) for bound in protocol)
    ):
        raise CorruptError(where, f"{shown(protocol)} is not a protocol range")
    if not is_count(created_ms):
        raise CorruptError(where, f"{shown(created_ms)} is not a time")
    return Descriptor(ClusterName(name), number, protocol[0], protocol[1], created_ms)


def encode_head(head: Head) -> bytes:
    """An export log's head, as JSON."""
    return orjson.dumps(head_fields(head))


def decode_head(raw: bytes, where: str) -> Head:
    """Read an export log's head; raises CorruptError."""
    return head_of(control_object(raw, where), where)


def encode_local_head(head: LocalHead) -> bytes:
    """The local log's head together with the heads of its export logs, as JSON."""
    exports = {audience: head_fields(export) for audience, export in head.exports.items()}
    return orjson.dumps(head_fields(head.local) | {"exports": exports})


def decode_local_head(raw: bytes, where: str) -> LocalHead:
    """Read the local log's head; raises CorruptError."""
    fields = control_object(raw, where)
    exports = fields.get("exports")
    if not isinstance(exports, dict):
        raise CorruptError(where, "exports is not a map")
    return LocalHead(
        head_of(fields, where),
        {name: head_of(export, f"{where} exports.{name}") for name, export in exports.items()},
    )


def encode_cursor(cursor: Cursor) -> bytes:
    """A replica's cursor, as JSON."""
    fields = head_fields(cursor.head) | {"revision": cursor.revision}
    return orjson.dumps(fields | {"place": cursor.place} if cursor.place else fields)


def decode_cursor(raw: bytes, where: str) -> Cursor:
    """Read a replica's cursor; raises CorruptError."""
    fields = control_object(raw, where)
    revision = fields.get("revision")
    if not is_count(revision):
        raise CorruptError(where, f"{shown(revision)} is not a revision")
    place = fields.get("place", 0)
    if not is_count(place) or place > 1:
        raise CorruptError(where, f"{shown(place)} is not a place, 0 or 1")
    return Cursor(head_of(fields, where), Revision(revision), place)


def encode_heartbeat(heartbeat: Heartbeat) -> bytes:
    """The leader's sign of life, as JSON."""
    fields: dict[str, object] = {
        "beat": heartbeat.beat,
        "time_ms": heartbeat.time_ms,
        "vector": heartbeat.vector,
        "digest": heartbeat.digest,
    }
    if heartbeat.head is not None:
        fields["head"] = head_fields(heartbeat.head)
    return orjson.dumps(fields)


def decode_heartbeat(raw: bytes, where: str) -> Heartbeat:
    """Read a heartbeat; raises CorruptError."""
    fields = control_object(raw, where)
    beat, time_ms = fields.get("beat"), fields.get("time_ms")
    vector, digest = fields.get("vector"), fields.get("digest")
    if not is_count(beat) or not is_count(time_ms):
        raise CorruptError(where, "beat or time_ms is not a number from 0")
    if not isinstance(vector, str) or not isinstance(digest, str):
        raise CorruptError(where, "vector or digest is not a text")
    head = head_of(fields["head"], f"{where} head") if "head" in fields else None
    return Heartbeat(beat, time_ms, vector, digest, head)
