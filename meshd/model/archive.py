"""A piece of a log as a file: records to archive bytes and back (`protocols/archive.md`).

For: exact bytes, a block at a time, of a log's snapshot and records. Not for: whether they make a
log (`core.audit`), nor files themselves. Invariants: everything comes out byte for byte; never more
than a block or a part is held; any bytes at all either decode to their end or raise CorruptError
with the place.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b

import orjson

from meshd.model.codec import HASH_BYTES, decode_record
from meshd.model.errors import CorruptError, Problem, RejectedError, shown
from meshd.model.event import Record
from meshd.model.ids import ClusterName, LogId, is_cluster_name, is_dns_label, is_log_id
from meshd.model.keyspace import Keyspace, LogKeys
from meshd.model.listed import Skip
from meshd.model.schema import from_data, to_data
from meshd.model.snapshot import Manifest, decode_manifest, encode_manifest, hash_part

MAGIC = b"meshd-archive 1\n"
MAGIC_WITH_SNAPSHOT = b"meshd-archive 2\n"
"""Of an archive that begins with a snapshot, which a reader of version 1 couldn't take."""
BLOCK_BYTES = 256 * 1024
"""A block is closed when it holds so much: enough to compress well."""
BLOCK_BYTES_MAX = 1024 * 1024
"""What a block may hold uncompressed; BLOCK_BYTES and one more record are less."""
FRAME_BYTES_MAX = BLOCK_BYTES_MAX + 64 * 1024

_NAME = MAGIC[:-2]
_FRAME = struct.Struct(">cI16s")
_ENTRY = struct.Struct(">IQ")
_HEADER, _SNAPSHOT, _PART, _BLOCK, _FOOTER = b"H", b"S", b"P", b"R", b"F"


@dataclass(frozen=True, slots=True)
class LogName:
    """Which of a cluster's logs. owner: audience or peer; '' for the local log."""

    kind: str
    owner: str = ""

    def __str__(self) -> str:
        return f"{self.kind}/{self.owner}" if self.owner else self.kind

    @staticmethod
    def parse(text: str) -> LogName:
        """Read `local`, `export/<audience>` or `replica/<peer>`; raises RejectedError."""
        kind, _, owner = text.partition("/")
        if (
            text == "local"
            or (kind == "export" and is_dns_label(owner))
            or (kind == "replica" and is_cluster_name(owner))
        ):
            return LogName(kind, owner)
        remedy = "write local, export/AUDIENCE or replica/PEER"
        raise RejectedError((Problem("log", f"{shown(text)} is not the name of a log", remedy),))

    def keys(self, keyspace: Keyspace) -> LogKeys:
        """Where it lies."""
        match self.kind:
            case "export":
                return keyspace.export(self.owner)
            case "replica":
                return keyspace.replica(ClusterName(self.owner))
            case _:
                return keyspace.local


@dataclass(frozen=True, slots=True)
class Origin:
    """What an archive is of. cluster: in whose etcd the log lay. skip: what that cluster passes
    over of a replica: its records are there, and say nothing.
    """

    cluster: ClusterName
    log_id: LogId
    log: LogName
    prefix: str
    skip: Skip | None = None

    @property
    def speaker(self) -> ClusterName:
        """Whose events these are: a replica holds its peer's."""
        return ClusterName(self.log.owner) if self.log.kind == "replica" else self.cluster


@dataclass(frozen=True, slots=True)
class Entry:
    """A record as it lay in an etcd. where: for messages."""

    record: Record
    revision: int
    where: str


@dataclass(slots=True)
class _Tally:
    """What the footer repeats."""

    first_seq: int = 0
    last_seq: int = 0
    last_hash: str = ""
    records: int = 0

    def add(self, record: Record) -> None:
        self.first_seq = self.first_seq or record.first_seq
        self.last_seq, self.last_hash = record.last_seq, record.hash.hex()
        self.records += 1

    def fields(self) -> dict[str, object]:
        return {
            "first_seq": self.first_seq,
            "last_seq": self.last_seq,
            "last_hash": self.last_hash,
            "records": self.records,
        }


def _check(before: bytes, kind: bytes, payload: bytes) -> bytes:
    size = len(payload).to_bytes(4, "big")
    return blake2b(before + kind + size + payload, digest_size=HASH_BYTES).digest()


class ArchiveWriter:
    """Makes an archive's bytes, piece by piece: `begin`, with a snapshot `add_part` for each of its
    parts, `add` for each record, `end`.
    """

    def __init__(self, origin: Origin, snapshot: Manifest | None = None) -> None:
        self._origin = origin
        self._snapshot = snapshot
        self._tally = _Tally()
        self._block = bytearray()
        self._last_check = MAGIC_WITH_SNAPSHOT if snapshot else MAGIC

    def begin(self) -> bytes:
        """What comes before the first record."""
        origin = self._origin
        fields: dict[str, object] = {
            "cluster": origin.cluster,
            "log_id": origin.log_id,
            "log": str(origin.log),
            "prefix": origin.prefix,
        }
        if origin.skip is not None:
            fields["skip"] = to_data(origin.skip)
        begun = self._last_check + self._frame(_HEADER, orjson.dumps(fields))
        if self._snapshot is None:
            return begun
        return begun + self._frame(_SNAPSHOT, encode_manifest(self._snapshot))

    def add_part(self, raw: bytes) -> bytes:
        """Take the snapshot's next part; returns what is to be written."""
        return self._frame(_PART, raw)

    def add(self, record: Record, revision: int) -> bytes:
        """Take a record; returns what is ready to be written, mostly nothing."""
        self._tally.add(record)
        self._block += _ENTRY.pack(len(record.raw), revision) + record.raw
        return self._close_block() if len(self._block) >= BLOCK_BYTES else b""

    def end(self) -> bytes:
        """What comes after the last record."""
        rest = self._close_block() if self._block else b""
        return rest + self._frame(_FOOTER, orjson.dumps(self._tally.fields()))

    def _close_block(self) -> bytes:
        frame = self._frame(_BLOCK, zlib.compress(bytes(self._block)))
        self._block.clear()
        return frame

    def _frame(self, kind: bytes, payload: bytes) -> bytes:
        self._last_check = _check(self._last_check, kind, payload)
        return _FRAME.pack(kind, len(payload), self._last_check) + payload


class ArchiveReader:
    """Reads an archive. read: gives up to so many bytes, fewer only at the end.

    origin: what the header says. snapshot: what it begins with, if it does. offset: how far it has
    read. Raises CorruptError, also at once.
    """

    def __init__(self, read: Callable[[int], bytes], where: str) -> None:
        self._read = read
        self._where = where
        self._tally = _Tally()
        self.offset = 0
        self._last_check = self._take(len(MAGIC))
        if self._last_check not in {MAGIC, MAGIC_WITH_SNAPSHOT}:
            version = shown(self._last_check[len(_NAME) :])
            raise CorruptError(
                where,
                f"is an archive of version {version}; this meshd reads 1 and 2"
                if self._last_check.startswith(_NAME)
                else "is not an archive of a log",
            )
        has_snapshot = self._last_check == MAGIC_WITH_SNAPSHOT
        kind, payload = self._frame()
        self.origin = _origin(self._object(payload), where)
        if kind != _HEADER:
            raise self._wrong("there is no header")
        self.snapshot = self._read_manifest() if has_snapshot else None

    def _read_manifest(self) -> Manifest:
        kind, payload = self._frame()
        if kind != _SNAPSHOT:
            raise self._wrong("there is no snapshot")
        return decode_manifest(payload, f"{self._place()} snapshot")

    def parts(self) -> Iterator[bytes]:
        """The parts of the snapshot, to be taken before the records; none without one."""
        for number, expected in enumerate(self.snapshot.parts if self.snapshot else ()):
            kind, payload = self._frame()
            if kind != _PART or hash_part(payload) != expected:
                raise self._wrong(f"part {number} of the snapshot is not what its manifest says")
            yield payload

    def entries(self) -> Iterator[Entry]:
        """All records in their order; what comes after the last of them is checked too."""
        while True:
            place = self._place()
            kind, payload = self._frame()
            if kind == _FOOTER:
                break
            if kind != _BLOCK:
                raise CorruptError(place, f"{shown(kind)} is not a kind of frame")
            yield from self._records(payload, place)
        is_something = self._tally.records or self.snapshot
        if self._object(payload) != self._tally.fields() or not is_something:
            raise CorruptError(
                place,
                f"the footer says {shown(payload.decode(errors='replace'))}, the records are"
                f" {self._tally.records}, seq {self._tally.first_seq} to {self._tally.last_seq}",
            )
        if self._read(1):
            raise self._wrong("there are more bytes after the footer")

    def _records(self, payload: bytes, place: str) -> Iterator[Entry]:
        unpacker = zlib.decompressobj()
        try:
            block = unpacker.decompress(payload, BLOCK_BYTES_MAX)
        except zlib.error as error:
            raise CorruptError(place, f"can't be decompressed: {error}") from error
        if not unpacker.eof or unpacker.unused_data or not block:
            raise CorruptError(place, f"is not a block of 1 to {BLOCK_BYTES_MAX} bytes")
        start = 0
        while start < len(block):
            if len(block) - start < _ENTRY.size:
                raise CorruptError(place, "the block ends within an entry")
            size, revision = _ENTRY.unpack_from(block, start)
            start += _ENTRY.size
            if size > len(block) - start:
                raise CorruptError(place, "the block ends within a record")
            where = f"{self._where} seq {self._tally.last_seq + 1}"
            record = decode_record(block[start : start + size], f"{place}, {where}")
            start += size
            self._tally.add(record)
            yield Entry(record, revision, f"{self._where} seq {record.first_seq}")

    def _frame(self) -> tuple[bytes, bytes]:
        place = self._place()
        kind, size, check = _FRAME.unpack(self._take(_FRAME.size))
        if size > FRAME_BYTES_MAX:
            raise CorruptError(place, f"a frame of {size} bytes; at most {FRAME_BYTES_MAX}")
        payload = self._take(size)
        if check != _check(self._last_check, kind, payload):
            raise CorruptError(place, "the bytes are damaged: they don't have their hash")
        self._last_check = check
        return kind, payload

    def _take(self, size: int) -> bytes:
        data = self._read(size)
        self.offset += len(data)
        if len(data) < size:
            is_named = self.offset >= len(MAGIC)
            raise (
                self._wrong("the file is cut off: it ends before its footer")
                if is_named
                else (CorruptError(self._where, "is not an archive of a log"))
            )
        return data

    def _object(self, payload: bytes) -> dict[str, object]:
        try:
            fields = orjson.loads(payload)
        except orjson.JSONDecodeError as error:
            raise self._wrong(f"not JSON: {error}") from error
        if not isinstance(fields, dict):
            raise self._wrong("not a JSON object")
        return fields

    def _place(self) -> str:
        return f"{self._where} offset {self.offset}, after seq {self._tally.last_seq}"

    def _wrong(self, reason: str) -> CorruptError:
        return CorruptError(self._place(), reason)


def _origin(fields: dict[str, object], where: str) -> Origin:
    cluster, log_id = fields.get("cluster"), fields.get("log_id")
    log, prefix = fields.get("log"), fields.get("prefix")
    if not isinstance(cluster, str) or not is_cluster_name(cluster):
        raise CorruptError(where, f"{shown(cluster)} is not a cluster name")
    if not isinstance(log_id, str) or not is_log_id(log_id):
        raise CorruptError(where, f"{shown(log_id)} is not a log id")
    if not isinstance(log, str) or not isinstance(prefix, str):
        raise CorruptError(where, "log or prefix is not a text")
    skip = fields.get("skip")
    try:
        name = LogName.parse(log)
        passed = None if skip is None else from_data(Skip, skip, "skip", "ignore")
    except RejectedError as error:
        raise CorruptError(where, str(error)) from error
    return Origin(ClusterName(cluster), LogId(log_id), name, prefix, passed)
