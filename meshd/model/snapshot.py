"""Snapshots: a log's state at one seq, to bytes and back (`protocols/snapshots.md`).

For: the manifest and the parts. Not for: what a state holds (`core.snapshot`) nor where a log may
be cut (`core.retention`). Invariants: a part is at most PART_BYTES_MAX, so that a slow link carries
it within one call; a snapshot is valid once its manifest is written, which comes last; any bytes at
all either decode or raise CorruptError.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgpack
import orjson

from meshd.model.codec import decode_event, encode_event, hash_record
from meshd.model.command import Outcome
from meshd.model.control import control_object, count_of, hash_of, head_fields, head_of, is_count
from meshd.model.errors import CorruptError, shown
from meshd.model.event import CAUSE_CHARS_MAX, EVENT_BYTES_MAX, Event
from meshd.model.ids import GENESIS_HASH, Head, RecordHash, Seq

SNAPSHOT_VERSION: Final = 1
PART_BYTES = 256 * 1024
"""A part is closed when it holds so much, uncompressed: about 50 KiB compressed, which 256 kbit/s
carry in two seconds.
"""
PART_BYTES_MAX = PART_BYTES + 2 * EVENT_BYTES_MAX
PARTS_MAX = 1500
"""So many hashes fit into a manifest: with PART_BYTES, states of 375 MiB."""
MARKS_MAX = 64
"""Places where a log may be cut that a manifest remembers."""
SNAPSHOTS_KEPT_MIN = 3
"""What is retained begins with one, and the newest two are for those who are reading them."""
SNAPSHOTS_KEPT_MAX = 32
"""Of a state of 20 MB, 32 snapshots take a third of etcd's default quota."""

_PART_FIELDS = 3
_KEPT_FIELDS = 3
_CAUSE_FIELDS = 4


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a log where it may be cut: the end of a record.

    time_ms: of that record. log_bytes: of all records up to it since the log began.
    """

    seq: Seq
    hash: RecordHash
    time_ms: int
    log_bytes: int


NO_MARK = Mark(Seq(0), GENESIS_HASH, 0, 0)
"""Before a log's first record."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What makes a snapshot valid.

    head: where in the log it stands. time_ms, log_bytes: as in a Mark at that place. items: events
    that it keeps. parts: the hash of each part's bytes. trim: records up to here are or may be
    gone; never beyond `head`. previous_seq: the snapshot before this one, whose parts are kept for
    those who are reading them; 0 for none. marks: where the log may be cut, ascending from `trim`.
    kept: the snapshots before this one that stay, ascending, each with its parts and a manifest of
    its own: from there the log's past is read. None of an export log, nor of an older writer.
    """

    head: Head
    time_ms: int
    log_bytes: int
    items: int
    parts: tuple[RecordHash, ...]
    trim: Mark = NO_MARK
    previous_seq: Seq = Seq(0)  # noqa: RUF009 a NewType is no call
    marks: tuple[Mark, ...] = ()
    kept: tuple[Seq, ...] = ()

    @property
    def mark(self) -> Mark:
        """The place where the snapshot stands."""
        return Mark(self.head.seq, self.head.hash, self.time_ms, self.log_bytes)

    @property
    def alone(self) -> Manifest:
        """The same snapshot with nothing of what was before it: as the first of a log, or as one
        that is kept beside a newer one.
        """
        return replace(self, trim=self.mark, previous_seq=Seq(0), marks=(), kept=())


@dataclass(frozen=True, slots=True)
class Kept:
    """An event that still says how something is, with its place and time in the log."""

    seq: Seq
    time_ms: int
    event: Event


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a snapshot. causes: idempotency keys and what they did (local logs only)."""

    kept: tuple[Kept, ...]
    causes: tuple[tuple[str, Outcome], ...] = ()


def encode_part(kept: Iterable[Kept], causes: Iterable[tuple[str, Outcome]] = ()) -> bytes:
    """Make a part's bytes; equal contents make equal bytes with the same zlib."""
    body = [
        SNAPSHOT_VERSION,
        [[item.seq, item.time_ms, encode_event(item.event)] for item in kept],
        [[cause, did.first_seq, did.last_seq, did.events] for cause, did in causes],
    ]
    return zlib.compress(msgpack.packb(body))


def hash_part(raw: bytes) -> RecordHash:
    """BLAKE2b-128 over a part's bytes, as for records."""
    return hash_record(raw)


def decode_part(raw: bytes, where: str) -> Part:
    """Read a part; raises CorruptError."""
    try:
        fields = msgpack.unpackb(_inflated(raw, where), strict_map_key=True)
    except (ValueError, RecursionError, msgpack.UnpackException) as error:
        raise CorruptError(where, f"not msgpack: {error or type(error).__name__}") from error
    if not isinstance(fields, list) or len(fields) < _PART_FIELDS or fields[0] != SNAPSHOT_VERSION:
        raise CorruptError(where, f"not a part of a snapshot of version {SNAPSHOT_VERSION}")
    kept, causes = fields[1:_PART_FIELDS]
    if not isinstance(kept, list) or not isinstance(causes, list):
        raise CorruptError(where, "events or causes are not an array")
    return Part(
        tuple(_kept(item, f"{where} event {n}") for n, item in enumerate(kept)),
        tuple(_cause(item, f"{where} cause {n}") for n, item in enumerate(causes)),
    )


def _inflated(raw: bytes, where: str) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        body = unpacker.decompress(raw, PART_BYTES_MAX)
    except zlib.error as error:
        raise CorruptError(where, f"can't be decompressed: {error}") from error
    if not unpacker.eof or unpacker.unused_data:
        raise CorruptError(where, f"is not a part of at most {PART_BYTES_MAX} bytes")
    return body


def _kept(item: object, where: str) -> Kept:
    if not isinstance(item, list) or len(item) < _KEPT_FIELDS:
        raise CorruptError(where, f"not an array of {_KEPT_FIELDS} fields")
    seq, time_ms, event = item[:_KEPT_FIELDS]
    if not is_count(seq) or not is_count(time_ms):
        raise CorruptError(where, "seq or time is not a number from 0")
    return Kept(Seq(seq), time_ms, decode_event(event, where))


def _cause(item: object, where: str) -> tuple[str, Outcome]:
    if not isinstance(item, list) or len(item) < _CAUSE_FIELDS:
        raise CorruptError(where, f"not an array of {_CAUSE_FIELDS} fields")
    cause, first_seq, last_seq, events = item[:_CAUSE_FIELDS]
    if not isinstance(cause, str) or not 0 < len(cause) <= CAUSE_CHARS_MAX:
        raise CorruptError(where, f"{shown(cause)} is not an idempotency key")
    if not is_count(first_seq) or not is_count(last_seq) or not is_count(events):
        raise CorruptError(where, "a seq or count is not a number from 0")
    return cause, Outcome(Seq(first_seq), Seq(last_seq), events)


def encode_manifest(manifest: Manifest) -> bytes:
    """As JSON, so that a person with etcdctl can read it."""
    fields = {
        "version": SNAPSHOT_VERSION,
        **head_fields(manifest.head),
        "time_ms": manifest.time_ms,
        "log_bytes": manifest.log_bytes,
        "items": manifest.items,
        "parts": [part.hex() for part in manifest.parts],
        "trim": _mark_fields(manifest.trim),
        "previous_seq": manifest.previous_seq,
        "marks": [_mark_fields(mark) for mark in manifest.marks],
    }
    return orjson.dumps(fields | {"kept": manifest.kept} if manifest.kept else fields)


def _mark_fields(mark: Mark) -> dict[str, object]:
    return {
        "seq": mark.seq,
        "hash": mark.hash.hex(),
        "time_ms": mark.time_ms,
        "log_bytes": mark.log_bytes,
    }


def decode_manifest(raw: bytes, where: str) -> Manifest:
    """Read a manifest; raises CorruptError."""
    fields = control_object(raw, where)
    if fields.get("version") != SNAPSHOT_VERSION:
        version = shown(fields.get("version"))
        raise CorruptError(where, f"version {version}; this meshd reads {SNAPSHOT_VERSION}")
    parts, marks = fields.get("parts"), fields.get("marks")
    if not isinstance(parts, list) or len(parts) > PARTS_MAX:
        raise CorruptError(where, f"parts is not an array of at most {PARTS_MAX}")
    if not isinstance(marks, list) or len(marks) > MARKS_MAX:
        raise CorruptError(where, f"marks is not an array of at most {MARKS_MAX}")
    manifest = Manifest(
        head=head_of(fields, where),
        time_ms=count_of(fields, "time_ms", where),
        log_bytes=count_of(fields, "log_bytes", where),
        items=count_of(fields, "items", where),
        parts=_hashes(parts, where),
        trim=_mark(fields.get("trim"), f"{where} trim"),
        previous_seq=Seq(count_of(fields, "previous_seq", where)),
        marks=tuple(_mark(mark, f"{where} marks[{n}]") for n, mark in enumerate(marks)),
        kept=_kept_seqs(fields.get("kept", []), where),
    )
    if manifest.trim.seq > manifest.head.seq:
        raise CorruptError(where, f"is trimmed to {manifest.trim.seq}, beyond {manifest.head.seq}")
    if manifest.kept and not manifest.trim.seq <= manifest.kept[0] <= manifest.kept[-1] < (
        manifest.head.seq
    ):
        raise CorruptError(where, "keeps a snapshot before trim, or not before its own")
    return manifest


def _kept_seqs(seqs: object, where: str) -> tuple[Seq, ...]:
    if not isinstance(seqs, list) or len(seqs) >= SNAPSHOTS_KEPT_MAX:
        raise CorruptError(where, f"kept is not an array of fewer than {SNAPSHOTS_KEPT_MAX}")
    if not all(map(is_count, seqs)) or sorted(set(seqs)) != seqs:
        raise CorruptError(where, "kept is not an array of ascending seqs")
    return tuple(map(Seq, seqs))


def _hashes(parts: Sequence[object], where: str) -> tuple[RecordHash, ...]:
    return tuple(hash_of({"hash": part}, f"{where} parts[{n}]") for n, part in enumerate(parts))


def _mark(fields: object, where: str) -> Mark:
    if not isinstance(fields, dict):
        raise CorruptError(where, "not a JSON object")
    return Mark(
        Seq(count_of(fields, "seq", where)),
        hash_of(fields, where),
        count_of(fields, "time_ms", where),
        count_of(fields, "log_bytes", where),
    )
