"""Manifests and parts: exact bytes, and any bytes at all either decode or are refused."""

from __future__ import annotations

import zlib
from contextlib import suppress
from dataclasses import replace

import msgpack
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.model.command import Outcome
from meshd.model.control import SEQ_MAX
from meshd.model.errors import CorruptError
from meshd.model.event import Event
from meshd.model.ids import Head, LogId, RecordHash, Seq
from meshd.model.snapshot import (
    MARKS_MAX,
    NO_MARK,
    PART_BYTES_MAX,
    PARTS_MAX,
    SNAPSHOTS_KEPT_MAX,
    Kept,
    Manifest,
    Mark,
    Part,
    decode_manifest,
    decode_part,
    encode_manifest,
    encode_part,
    hash_part,
)

SEQS = st.integers(0, 1 << 40).map(Seq)
HASHES = st.binary(min_size=16, max_size=16).map(RecordHash)
MARKS = st.builds(Mark, SEQS, HASHES, st.integers(0, 1 << 50), st.integers(0, 1 << 50))
HEAD = Head(LogId("a" * 32), Seq(7), RecordHash(b"h" * 16))
MANIFEST = Manifest(HEAD, 1000, 2000, 3, (hash_part(b"x"),), replace(NO_MARK, seq=Seq(2)))
EVENT = Event("service.set", "shop/web", {"global": True}, "ann")
KEPT = Kept(Seq(3), 1000, EVENT)
CAUSE = ("key-1", Outcome(Seq(3), Seq(4), 2))


@given(
    st.integers(1 << 40, 1 << 41).map(Seq),
    HASHES,
    st.lists(HASHES, max_size=3).map(tuple),
    MARKS,
    SEQS,
    st.lists(MARKS, max_size=3).map(tuple),
)
def test_a_manifest_comes_back(
    seq: Seq,
    digest: RecordHash,
    parts: tuple[RecordHash, ...],
    trim: Mark,
    previous_seq: Seq,
    marks: tuple[Mark, ...],
) -> None:
    head = Head(LogId("b" * 32), seq, digest)
    manifest = Manifest(head, 5, 6, 7, parts, trim, previous_seq, marks)
    assert decode_manifest(encode_manifest(manifest), "manifest") == manifest
    assert manifest.mark == Mark(seq, digest, 5, 6)


@given(st.lists(st.builds(Kept, SEQS, st.integers(0, 9), st.just(EVENT)), max_size=5))
def test_a_part_comes_back(kept: list[Kept]) -> None:
    raw = encode_part(kept, [CAUSE])
    assert decode_part(raw, "part") == Part(tuple(kept), (CAUSE,))
    assert raw == encode_part(kept, [CAUSE])


def fields(**changes: object) -> bytes:
    return orjson.dumps(orjson.loads(encode_manifest(MANIFEST)) | changes)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"{", "not JSON"),
        (b"[]", "not a JSON object"),
        (b" " * 70_000, "at most"),
        (fields(version=2), "version 2; this meshd reads 1"),
        (fields(log_id="x"), "is not a log id"),
        (fields(seq=-1), "is not a seq"),
        (fields(hash=5), "is not a hash"),
        (fields(time_ms="now"), "time_ms 'now' is not a number from 0"),
        (fields(log_bytes=True), "log_bytes True"),
        (fields(items=None), "items None"),
        (fields(parts={}), f"parts is not an array of at most {PARTS_MAX}"),
        (fields(parts=["00" * 16] * (PARTS_MAX + 1)), "parts is not an array"),
        (fields(parts=["x"]), "parts[0]: 'x' is not a hash"),
        (fields(marks=7), f"marks is not an array of at most {MARKS_MAX}"),
        (fields(marks=[{}] * (MARKS_MAX + 1)), "marks is not an array"),
        (fields(marks=[7]), "marks[0]: not a JSON object"),
        (fields(trim=None), "trim: not a JSON object"),
        (fields(trim={"seq": 1}), "trim: None is not a hash"),
        (fields(previous_seq="x"), "previous_seq"),
        (fields(seq=1), "is trimmed to 2, beyond 1"),
        (fields(kept=7), f"kept is not an array of fewer than {SNAPSHOTS_KEPT_MAX}"),
        (fields(kept=[3] * SNAPSHOTS_KEPT_MAX), "kept is not an array of fewer than"),
        (fields(kept=[3, 3]), "kept is not an array of ascending seqs"),
        (fields(kept=["3"]), "kept is not an array of ascending seqs"),
        (fields(kept=[1]), "keeps a snapshot before trim, or not before its own"),
        (fields(kept=[3, 7]), "keeps a snapshot before trim, or not before its own"),
    ],
)
def test_what_is_no_manifest_is_refused(raw: bytes, reason: str) -> None:
    with pytest.raises(CorruptError) as caught:
        decode_manifest(raw, "here")
    assert "here" in str(caught.value)
    assert reason in str(caught.value)


def test_kept_snapshots_come_back_and_are_left_out_where_there_are_none() -> None:
    kept = replace(MANIFEST, kept=(Seq(2), Seq(5)))
    assert decode_manifest(encode_manifest(kept), "manifest") == kept
    assert b"kept" not in encode_manifest(MANIFEST)


def test_the_largest_manifest_is_a_control_value() -> None:
    far = Mark(Seq(SEQ_MAX), RecordHash(bytes(16)), 1 << 50, 1 << 60)
    seqs = tuple(Seq(SEQ_MAX - number) for number in range(SNAPSHOTS_KEPT_MAX - 1, 0, -1))
    largest = Manifest(
        replace(HEAD, seq=Seq(SEQ_MAX)),
        1 << 50,
        1 << 60,
        1 << 50,
        (RecordHash(bytes(16)),) * PARTS_MAX,
        replace(far, seq=seqs[0]),
        seqs[-1],
        (far,) * MARKS_MAX,
        seqs,
    )
    assert decode_manifest(encode_manifest(largest), "manifest") == largest


def test_members_that_a_newer_version_adds_are_left_alone() -> None:
    assert decode_manifest(fields(moon="full"), "manifest") == MANIFEST


def packed(*body: object) -> bytes:
    return zlib.compress(msgpack.packb(list(body)))


ROW = [3, 1000, ["service.set", "shop/web", None, "ann", ""]]


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "is not a part of at most"),
        (b"no zlib", "can't be decompressed"),
        (encode_part([KEPT])[:-1], "is not a part of at most"),
        (encode_part([KEPT]) + b"x", "is not a part of at most"),
        (zlib.compress(b"x" * (PART_BYTES_MAX + 1)), "is not a part of at most"),
        (zlib.compress(b"\xc1"), "not msgpack"),
        (zlib.compress(b"\x91" * 2000), "not msgpack"),
        (packed(), "not a part of a snapshot of version 1"),
        (packed(2, [], []), "not a part of a snapshot of version 1"),
        (packed(1, {}, []), "events or causes are not an array"),
        (packed(1, [], 5), "events or causes are not an array"),
        (packed(1, [5], []), "event 0: not an array of 3 fields"),
        (packed(1, [[1, 2]], []), "event 0: not an array of 3 fields"),
        (packed(1, [["1", 2, ROW[2]]], []), "seq or time is not a number"),
        (packed(1, [[1, -2, ROW[2]]], []), "seq or time is not a number"),
        (packed(1, [[1, 2, []]], []), "not an array of 5 fields"),
        (packed(1, [], ["x"]), "cause 0: not an array of 4 fields"),
        (packed(1, [], [["k", 1, 2]]), "cause 0: not an array of 4 fields"),
        (packed(1, [], [["", 1, 2, 3]]), "is not an idempotency key"),
        (packed(1, [], [[7, 1, 2, 3]]), "is not an idempotency key"),
        (packed(1, [], [["k", 1, "2", 3]]), "a seq or count is not a number"),
        (packed(1, [], [["k", -1, 2, 3]]), "a seq or count is not a number"),
        (packed(1, [], [["k", 1, 2, None]]), "a seq or count is not a number"),
    ],
)
def test_what_is_no_part_is_refused(raw: bytes, reason: str) -> None:
    with pytest.raises(CorruptError) as caught:
        decode_part(raw, "here")
    assert reason in str(caught.value)


def test_fields_that_a_newer_version_adds_are_left_alone() -> None:
    raw = packed(1, [[*ROW, "more"]], [["k", 1, 2, 3, "more"]], "more")
    part = decode_part(raw, "part")
    assert (part.kept[0].seq, part.causes[0][0]) == (3, "k")


@given(st.binary(max_size=200))
def test_any_bytes_decode_or_are_refused(raw: bytes) -> None:
    for decode in (decode_manifest, decode_part):
        for given_bytes in (raw, zlib.compress(raw)):
            with suppress(CorruptError):
                decode(given_bytes, "here")
