"""Archives as bytes: what goes in comes out, and no flipped or missing byte goes unnoticed."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.model import archive
from meshd.model.archive import (
    MAGIC,
    MAGIC_WITH_SNAPSHOT,
    ArchiveReader,
    ArchiveWriter,
    Entry,
    LogName,
    Origin,
)
from meshd.model.errors import CorruptError, RejectedError
from meshd.model.event import Event
from meshd.model.keyspace import Keyspace
from meshd.model.listed import Skip, SkippedRecord
from meshd.model.snapshot import Manifest, hash_part
from tests.logs import LOG_ID, WEST, Log, log_of

ORIGIN = Origin(WEST, LOG_ID, LogName("local"), "/meshd/v1")


def packed(log: Log, origin: Origin = ORIGIN) -> bytes:
    writer = ArchiveWriter(origin)
    parts = [writer.begin()]
    parts += [writer.add(record, 10 + n) for n, record in enumerate(log.records)]
    return b"".join((*parts, writer.end()))


def unpacked(raw: bytes) -> list[Entry]:
    return list(ArchiveReader(io.BytesIO(raw).read, "x.log").entries())


def framed(frames: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Make a file of these frames, each with its right hash."""
    raw, check = MAGIC, MAGIC
    for kind, payload in frames:
        check = archive._check(check, kind, payload)
        raw += struct.pack(">cI16s", kind, len(payload), check) + payload
    return raw


HEADER = (
    b"H",
    orjson.dumps({"cluster": "west", "log_id": LOG_ID, "log": "local", "prefix": "/meshd/v1"}),
)


def header(**changes: object) -> tuple[bytes, bytes]:
    return b"H", orjson.dumps(orjson.loads(HEADER[1]) | changes)


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=20),
    st.sampled_from(["local", "export/mesh", "replica/east"]),
)
def test_what_goes_in_comes_out(sizes: list[int], name: str) -> None:
    log = log_of(*sizes)
    origin = Origin(WEST, LOG_ID, LogName.parse(name), "/other")
    reader = ArchiveReader(io.BytesIO(packed(log, origin)).read, "x.log")
    assert reader.origin == origin
    found = list(reader.entries())
    assert [entry.record for entry in found] == log.records
    assert [entry.revision for entry in found] == [10 + n for n in range(len(sizes))]


def test_what_is_passed_over_of_a_replica_goes_with_it() -> None:
    skip = Skip(log_id=LOG_ID, records=(SkippedRecord(seq=2, hash="0" * 32),))
    origin = Origin(WEST, LOG_ID, LogName.parse("replica/east"), "", skip)
    assert ArchiveReader(io.BytesIO(packed(log_of(1), origin)).read, "x.log").origin == origin


def test_large_logs_are_written_and_read_in_blocks() -> None:
    log = Log()
    for n in range(40):
        log.append(Event("x", f"{n}", {"text": "e" * 60_000}, "ann"))
    writer = ArchiveWriter(ORIGIN)
    pieces = [writer.add(record, 1) for record in log.records]
    assert sum(map(bool, pieces)) == 8
    assert [entry.record for entry in unpacked(packed(log))] == log.records


def test_every_flipped_byte_is_noticed() -> None:
    raw = packed(log_of(2, 1))
    for offset in range(len(raw)):
        for flip in (0x01, 0x80, 0xFF):
            damaged = bytearray(raw)
            damaged[offset] ^= flip
            with pytest.raises(CorruptError):
                unpacked(bytes(damaged))


def test_every_truncation_is_noticed() -> None:
    raw = packed(log_of(2, 1))
    for size in range(len(raw)):
        with pytest.raises(CorruptError, match=r"cut off|not an archive"):
            unpacked(raw[:size])
    with pytest.raises(CorruptError, match="more bytes"):
        unpacked(raw + b"\0")


@given(st.binary(max_size=200))
def test_any_bytes_are_corrupt_or_an_archive(tail: bytes) -> None:
    with pytest.raises(CorruptError):
        unpacked(tail)
    with pytest.raises(CorruptError):
        unpacked(framed([HEADER, (b"R", zlib.compress(tail))]))


def test_damage_is_named_with_seq_and_offset() -> None:
    log = Log()
    for n in range(10):
        log.append(Event("x", f"{n}", {"text": "e" * 60_000}, "ann"))
    raw = bytearray(packed(log))
    raw[-200] ^= 1
    with pytest.raises(CorruptError, match=r"x.log offset \d+, after seq (5|10): .* damaged"):
        unpacked(bytes(raw))


ONE = struct.pack(">IQ", len(log_of(1).records[0].raw), 7) + log_of(1).records[0].raw


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([(b"H", b"{")], "not JSON"),
        ([(b"H", b"[]")], "not a JSON object"),
        ([(b"F", HEADER[1])], "no header"),
        ([header(cluster="A B")], "not a cluster name"),
        ([header(log_id="1")], "not a log id"),
        ([header(log=1)], "not a text"),
        ([header(prefix=None)], "not a text"),
        ([header(log="loca")], "not the name of a log"),
        ([header(skip={"log_id": "1"})], "skip.log_id"),
        ([HEADER, (b"X", b"")], "not a kind of frame"),
        ([HEADER, (b"F", b"{}")], "the footer says"),
        ([HEADER, (b"F", orjson.dumps(archive._Tally().fields()))], "the footer says"),
        ([HEADER, (b"R", zlib.compress(ONE)), (b"F", b"{}")], "the footer says"),
        ([HEADER, (b"R", b"no zlib")], "can't be decompressed"),
        ([HEADER, (b"R", zlib.compress(ONE)[:-3])], "not a block"),
        ([HEADER, (b"R", zlib.compress(ONE) + b"x")], "not a block"),
        ([HEADER, (b"R", zlib.compress(b""))], "not a block"),
        ([HEADER, (b"R", zlib.compress(bytes(2 << 20)))], "not a block"),
        ([HEADER, (b"R", zlib.compress(ONE + b"x"))], "within an entry"),
        ([HEADER, (b"R", zlib.compress(ONE[:-1]))], "within a record"),
        ([HEADER, (b"R", zlib.compress(bytes(12)))], "offset"),
        ([HEADER, (b"R", bytes(archive.FRAME_BYTES_MAX + 1))], "at most"),
    ],
)
def test_what_is_rightly_hashed_and_still_wrong_is_refused(
    frames: list[tuple[bytes, bytes]], reason: str
) -> None:
    with pytest.raises(CorruptError, match=reason):
        unpacked(framed(frames))


def test_another_version_is_named() -> None:
    with pytest.raises(CorruptError, match="version b'3"):
        unpacked(b"meshd-archive 3\n")
    with pytest.raises(CorruptError, match="not an archive"):
        unpacked(b"#!/bin/sh\necho hello\n")


def test_names_of_logs() -> None:
    keyspace = Keyspace()
    for text, root in (
        ("local", b"/meshd/v1/local/"),
        ("export/mesh", b"/meshd/v1/export/mesh/"),
        ("replica/west", b"/meshd/v1/replica/west/"),
    ):
        assert str(LogName.parse(text)) == text
        assert LogName.parse(text).keys(keyspace).root == root
    for text in ("", "local/x", "export", "export/", "export/a/b", "replica/../x", "other/x"):
        with pytest.raises(RejectedError):
            LogName.parse(text)


def test_a_replica_speaks_for_its_peer() -> None:
    assert ORIGIN.speaker == "west"
    assert Origin(WEST, LOG_ID, LogName.parse("replica/east"), "").speaker == "east"


def test_archive_md_says_what_the_code_does() -> None:
    told = (Path(__file__).parents[2] / "protocols" / "archive.md").read_text()
    assert f"`{MAGIC.decode().strip()}`" in told
    assert f"{archive.BLOCK_BYTES_MAX:,}" in told
    assert f"{archive.FRAME_BYTES_MAX:,}" in told
    assert all(f"`{name}`" in told for name in orjson.loads(HEADER[1]))
    assert all(f"`{name}`" in told for name in archive._Tally().fields())


# --- with a snapshot ------------------------------------------------------------------------------

PARTS = (b"part 0", b"part 1")
SNAPSHOT = Manifest(log_of(2).head, 0, 0, 1, tuple(map(hash_part, PARTS)))


def packed_with(snapshot: Manifest, parts: tuple[bytes, ...], log: Log) -> bytes:
    writer = ArchiveWriter(ORIGIN, snapshot)
    pieces = [writer.begin(), *map(writer.add_part, parts)]
    pieces += [writer.add(record, 1) for record in log.records]
    return b"".join((*pieces, writer.end()))


def unpacked_with(raw: bytes) -> tuple[Manifest | None, list[bytes], list[Entry]]:
    reader = ArchiveReader(io.BytesIO(raw).read, "x.log")
    return reader.snapshot, list(reader.parts()), list(reader.entries())


@pytest.mark.parametrize("log", [log_of(2, 1), log_of()], ids=["records", "none"])
def test_a_snapshot_goes_in_and_comes_out(log: Log) -> None:
    raw = packed_with(SNAPSHOT, PARTS, log)
    snapshot, parts, entries = unpacked_with(raw)
    assert (snapshot, tuple(parts)) == (SNAPSHOT, PARTS)
    assert [entry.record for entry in entries] == log.records
    for size in range(len(raw)):
        with pytest.raises(CorruptError):
            unpacked_with(raw[:size])
    for offset in range(len(raw)):
        damaged = bytearray(raw)
        damaged[offset] ^= 1
        with pytest.raises(CorruptError):
            unpacked_with(bytes(damaged))


def test_parts_that_are_not_the_snapshots_are_refused() -> None:
    for parts in ((PARTS[1], PARTS[0]), PARTS[:1]):
        with pytest.raises(CorruptError, match=r"part \d of the snapshot is not what"):
            unpacked_with(packed_with(SNAPSHOT, parts, log_of(1)))


def test_a_file_that_promises_a_snapshot_must_have_one() -> None:
    raw, check = MAGIC_WITH_SNAPSHOT, MAGIC_WITH_SNAPSHOT
    for kind, payload in (HEADER, (b"R", b"")):
        check = archive._check(check, kind, payload)
        raw += struct.pack(">cI16s", kind, len(payload), check) + payload
    with pytest.raises(CorruptError, match="there is no snapshot"):
        unpacked_with(raw)


def test_without_a_snapshot_there_must_be_a_record() -> None:
    with pytest.raises(CorruptError, match="the footer says"):
        unpacked(packed(log_of()))
