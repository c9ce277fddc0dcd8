"""Records and control values as bytes: what goes in comes out, and nothing else gets in.

A peer's bytes are a stranger's: whatever they are, they decode or are CorruptError, since any other
error would end the whole meshd and not only what is read from that peer.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from hashlib import blake2b
from typing import Any

import msgpack
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meshd.model.codec import (
    KEY_CHARS_MAX,
    Cursor,
    Descriptor,
    Heartbeat,
    LocalHead,
    decode_cursor,
    decode_descriptor,
    decode_head,
    decode_heartbeat,
    decode_local_head,
    decode_record,
    encode_cursor,
    encode_descriptor,
    encode_head,
    encode_heartbeat,
    encode_local_head,
    encode_record,
    event_bytes,
    hash_record,
)
from meshd.model.control import CONTROL_BYTES_MAX, SEQ_MAX
from meshd.model.errors import CorruptError
from meshd.model.event import EVENTS_PER_RECORD_MAX, RECORD_BYTES_MAX, Event, Record
from meshd.model.ids import GENESIS_HASH, ClusterName, Head, LogId, RecordHash, Revision, Seq
from tests.logs import LOG_ID, ticked

HEAD = Head(LOG_ID, Seq(41), RecordHash(b"h" * 16))

texts = st.text(st.characters(codec="utf-8"), max_size=20)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
events = st.builds(
    Event,
    type=st.sampled_from(("service.set", "endpoint.removed", "moon.set")),
    key=texts,
    data=st.none() | st.dictionaries(texts, plain, max_size=4),
    actor=texts,
    cause=texts,
)
heads = st.builds(
    Head,
    st.binary(min_size=16, max_size=16).map(lambda raw: LogId(raw.hex())),
    st.integers(0, 2**62).map(Seq),
    st.binary(min_size=16, max_size=16).map(RecordHash),
)
records = st.builds(
    encode_record, heads, st.integers(0, 2**53), st.lists(events, min_size=1, max_size=4)
)


def decodes_or_is_corrupt(raw: bytes) -> Record | None:
    try:
        return decode_record(raw, "here")
    except CorruptError as error:
        told = error
    assert told.where.startswith("here")
    assert len(str(told)) < 500
    return None


# --- what goes in comes out -----------------------------------------------------------------------


@given(heads, st.integers(0, 2**53), st.lists(events, min_size=1, max_size=4))
def test_a_record_is_its_bytes(prev: Head, time_ms: int, said: list[Event]) -> None:
    record = encode_record(prev, time_ms, said)
    again = decode_record(record.raw, "here")
    # NaN is unequal to itself; the bytes tell.
    assert replace(again, events=()) == replace(record, events=())
    assert repr(again.events) == repr(record.events)
    assert encode_record(prev, time_ms, again.events).raw == record.raw


@given(records)
def test_a_record_continues_the_head_and_becomes_it(record: Record) -> None:
    assert record.last_seq == record.first_seq + len(record.events) - 1
    assert record.head == Head(record.log_id, record.last_seq, hash_record(record.raw))
    assert record.hash == blake2b(record.raw, digest_size=16).digest()


def test_an_events_size_is_what_it_adds_to_a_record() -> None:
    one, two = ticked(1), Event("endpoint.removed", "shop/web/ä", None, "ann", "key-1")
    grown = len(encode_record(HEAD, 1, (one, two)).raw) - len(encode_record(HEAD, 1, (one,)).raw)
    assert grown == event_bytes(two)


def test_what_a_newer_writer_appended_is_carried_and_left_alone() -> None:
    fields = msgpack.unpackb(encode_record(HEAD, 1, (ticked(),)).raw)
    fields[5][0].append({"new": 1})
    fields.append("newer still")
    raw = msgpack.packb(fields)
    record = decode_record(raw, "here")
    assert record.events == (ticked(),)
    assert record.raw == raw
    assert record.hash == hash_record(raw)


def test_a_record_can_be_as_large_as_allowed() -> None:
    empty = Event("x", "y", None, "a")
    many = encode_record(HEAD, 1, (empty,) * EVENTS_PER_RECORD_MAX)
    assert len(decode_record(many.raw, "here").events) == EVENTS_PER_RECORD_MAX
    long = Event("x", "y", {"": "z" * (RECORD_BYTES_MAX - 56)}, "a")
    large = encode_record(HEAD, 1, (long,))
    assert len(large.raw) == RECORD_BYTES_MAX
    assert decode_record(large.raw, "here") == large


# --- and nothing else gets in ---------------------------------------------------------------------


def record_fields(**changes: object) -> list[object]:
    fields: dict[str, object] = {
        "version": 1,
        "log_id": b"i" * 16,
        "first_seq": 1,
        "time_ms": 1000,
        "prev_hash": GENESIS_HASH,
        "events": [event_fields()],
    }
    return list((fields | changes).values())


def event_fields(**changes: object) -> list[object]:
    fields: dict[str, object] = {
        "type": "service.set",
        "key": "shop/web",
        "data": {"global": True},
        "actor": "ann",
        "cause": "",
    }
    return list((fields | changes).values())


def deep(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def test_the_fields_that_are_broken_below_are_a_record_unbroken() -> None:
    assert decode_record(msgpack.packb(record_fields()), "here").events[0].data == {"global": True}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "not an array of 6 fields"),
        (None, "not an array of 6 fields"),
        (record_fields()[:5], "not an array of 6 fields"),
        (record_fields(version=2), "record version 2; this meshd reads 1"),
        (record_fields(version=True), "record version True"),
        (record_fields(version=1.0), "record version 1.0"),
        (record_fields(version=deep(500)), "record version [[["),
        (record_fields(log_id="i" * 16), "the log id is not 16 bytes"),
        (record_fields(log_id=b"i" * 15), "the log id is not 16 bytes"),
        (record_fields(first_seq=0), "first seq 0 is not a number from 1"),
        (record_fields(first_seq=-1), "first seq -1 is not"),
        (record_fields(first_seq=True), "first seq True is not"),
        (record_fields(first_seq=1.0), "first seq 1.0 is not"),
        (record_fields(first_seq=SEQ_MAX + 1), "is not a number from 1"),
        (record_fields(time_ms=-1), "time -1 is not in milliseconds"),
        (record_fields(time_ms=None), "time None is not in milliseconds"),
        (record_fields(prev_hash=b""), "the previous hash is not 16 bytes"),
        (record_fields(prev_hash="h" * 16), "the previous hash is not 16 bytes"),
        (record_fields(events=[]), "not between 1 and 4096 events"),
        (record_fields(events={}), "not between 1 and 4096 events"),
        (record_fields(events=[event_fields()] * 4097), "not between 1 and 4096 events"),
        (record_fields(events=[event_fields(), "x"]), "here event 1: not an array of 5 fields"),
        (record_fields(events=[event_fields()[:4]]), "here event 0: not an array of 5 fields"),
    ],
    ids=str,
)
def test_what_is_no_record(fields: object, reason: str) -> None:
    with pytest.raises(CorruptError, match=re.escape(reason)):
        decode_record(msgpack.packb(fields), "here")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"type": 1}, "type is not a text"),
        ({"type": b"service.set"}, "type is not a text"),
        ({"key": None}, "key is not a text"),
        ({"key": "k" * (KEY_CHARS_MAX + 1)}, "key is not a text of at most 512 characters"),
        ({"actor": ["ann"]}, "actor is not a text"),
        ({"actor": "a" * 257}, "actor is not a text of at most 256 characters"),
        ({"cause": "c" * 257}, "cause is not a text of at most 256 characters"),
        ({"data": []}, "data is neither a map nor nil"),
        ({"data": "x"}, "data is neither a map nor nil"),
        ({"data": {"address": b"10.0.0.1"}}, "data holds what JSON can't say"),
        ({"data": {"at": msgpack.Timestamp(1)}}, "data holds what JSON can't say"),
        ({"data": {"ext": msgpack.ExtType(7, b"")}}, "data holds what JSON can't say"),
        ({"data": {b"global": True}}, "data holds what JSON can't say"),
        ({"data": {"labels": {b"a": "b"}}}, "data holds what JSON can't say"),
        ({"data": {"labels": deep(300)}}, "data holds what JSON can't say"),
    ],
    ids=str,
)
def test_what_is_no_event(changes: dict[str, object], reason: str) -> None:
    raw = msgpack.packb(record_fields(events=[event_fields(**changes)]))
    with pytest.raises(CorruptError, match=reason):
        decode_record(raw, "here")


LABELS = b"\xa6labels"
"""The text 'labels' in msgpack."""


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "not msgpack"),
        (b"\xc1", "not msgpack"),
        (b"\x96\x01", "not msgpack"),
        (msgpack.packb(record_fields()) + b"\x00", "not msgpack"),
        (b'{"version": 1}', "not msgpack"),
        (b"\x91" * 2000 + b"\x01", "not msgpack"),
        (b"\x96" + b"\x91" * 1010 + b"\x01" + b"\xc0" * 5, "something unprintable"),
        (b"\x96\x81\x01\x02" + b"\xc0" * 5, "int is not allowed for map key"),
        (b"\x96\x81\x91\x01\x02" + b"\xc0" * 5, "not msgpack"),
        (b"\x96\xa2\xff\xfe" + b"\xc0" * 5, "not msgpack"),
        (b"\x96\xa3\xed\xa0\x80" + b"\xc0" * 5, "not msgpack"),
        (b"\xdd\xff\xff\xff\xff", "not msgpack"),
        (b"\xc6\xff\xff\xff\xff", "not msgpack"),
        (b"\x96\xc7\x05\xff12345" + b"\xc0" * 5, "not msgpack"),
        (bytes(RECORD_BYTES_MAX + 1), "a record of 524289 bytes; at most 524288"),
    ],
)
def test_bytes_that_are_no_record(raw: bytes, reason: str) -> None:
    with pytest.raises(CorruptError, match=f"here: .*{reason}"):
        decode_record(raw, "here")


def test_a_key_that_is_there_twice_has_its_last_value_everywhere() -> None:
    raw = msgpack.packb(record_fields(events=[event_fields(data={"labels": 1, "lobels": 2})]))
    record = decode_record(raw.replace(b"\xa6lobels", LABELS), "here")
    assert record.events[0].data == {"labels": 2}


@given(st.binary(max_size=200))
@example(b"\x96" + b"\x91" * 1015 + b"\x01" + b"\xc0" * 5)
def test_any_bytes_decode_or_are_corrupt(raw: bytes) -> None:
    assert decodes_or_is_corrupt(raw) is None


packable = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | texts
    | st.binary(max_size=16)
    | st.builds(msgpack.Timestamp, st.integers(0, 2**33), st.integers(0, 10**9 - 1))
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=4)),
    lambda inner: (
        st.lists(inner, max_size=6)
        | st.dictionaries(texts | st.binary(max_size=4) | st.integers(0, 9), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(st.data())
def test_any_value_in_any_place_decodes_or_is_corrupt(data: st.DataObject) -> None:
    place = data.draw(st.sampled_from(["version", "log_id", "first_seq", "time_ms", "prev_hash"]))
    inside = data.draw(st.sampled_from(["type", "key", "data", "actor", "cause"]))
    value = data.draw(packable)
    decodes_or_is_corrupt(msgpack.packb(value))
    decodes_or_is_corrupt(msgpack.packb(record_fields(**{place: value})))
    raw = msgpack.packb(record_fields(events=[event_fields(**{inside: value})]))
    record = decodes_or_is_corrupt(raw)
    if record is not None:
        assert orjson.dumps(record.events[0].data)


@given(records, st.data())
def test_a_mutated_record_decodes_or_is_corrupt_and_never_keeps_its_hash(
    record: Record, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(record.raw) - 1))
    length = data.draw(st.integers(0, 3))
    raw = record.raw[:at] + data.draw(st.binary(max_size=3)) + record.raw[at + length :]
    found = decodes_or_is_corrupt(raw)
    if found is not None and raw != record.raw:
        assert found.hash != record.hash


# --- control values -------------------------------------------------------------------------------

DESCRIPTOR = Descriptor(ClusterName("west"), 7, 1, 1, 1000)
LOCAL_HEAD = LocalHead(HEAD, {"mesh": Head.genesis(LogId("c" * 32))})
CURSOR = Cursor(HEAD, Revision(99))
HEARTBEAT = Heartbeat(5, 1000, f"west:{LOG_ID}:41", "d" * 16)

Control = tuple[Callable[[Any], bytes], Callable[[bytes, str], object], object]
CONTROLS: list[Control] = [
    (encode_descriptor, decode_descriptor, DESCRIPTOR),
    (encode_head, decode_head, HEAD),
    (encode_local_head, decode_local_head, LOCAL_HEAD),
    (encode_cursor, decode_cursor, CURSOR),
    (encode_heartbeat, decode_heartbeat, HEARTBEAT),
]
DECODERS = [decode for _, decode, _ in CONTROLS]


def test_a_heartbeat_may_repeat_the_head_of_its_log() -> None:
    told = replace(HEARTBEAT, head=HEAD)
    assert decode_heartbeat(encode_heartbeat(told), "heartbeat") == told
    raw = encode_heartbeat(told).replace(HEAD.log_id.encode(), b"x")
    with pytest.raises(CorruptError, match="heartbeat head: 'x' is not a log id"):
        decode_heartbeat(raw, "heartbeat")


@pytest.mark.parametrize(("encode", "decode", "value"), CONTROLS)
def test_a_control_value_is_its_json(
    encode: Callable[[Any], bytes], decode: Callable[[bytes, str], object], value: object
) -> None:
    assert decode(encode(value), "here") == value
    assert isinstance(orjson.loads(encode(value)), dict)


@pytest.mark.parametrize("decode", DECODERS)
@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"{",
        b'"x"',
        b"\xff",
        b'{"exports": []}',
        b'{"exports": {"mesh": 1}, "log_id": "' + b"a" * 32 + b'", "seq": 1, "hash": 1}',
        b"{" + b" " * CONTROL_BYTES_MAX + b"}",
    ],
)
def test_bytes_that_are_no_control_value(
    decode: Callable[[bytes, str], object], raw: bytes
) -> None:
    with pytest.raises(CorruptError, match=r"^here: "):
        decode(raw, "here")


BAD_NUMBERS = [-1, 2**63, True, 1.0, "1", None]
BAD_HEX = ["", "a" * 31, "A" * 32, None, 5]
WRONG: list[tuple[int, str, list[object]]] = [
    (0, "name", ["", "West", "a" * 33, "a/b", None, 1]),
    (0, "id", [0, 512, *BAD_NUMBERS]),
    (0, "protocol", [[], [1], [1, 2, 3], [1, "2"], [1, -1], {"min": 1}, 1, None]),
    (0, "created_ms", [*BAD_NUMBERS]),
    (1, "log_id", [*BAD_HEX]),
    (1, "seq", [*BAD_NUMBERS]),
    (1, "hash", [*BAD_HEX]),
    (2, "log_id", [*BAD_HEX]),
    (2, "exports", [None, [], {"mesh": None}, {"mesh": {}}]),
    (3, "hash", [*BAD_HEX]),
    (3, "revision", [*BAD_NUMBERS]),
    (4, "beat", [*BAD_NUMBERS]),
    (4, "time_ms", [*BAD_NUMBERS]),
    (4, "vector", [1, None, {}]),
    (4, "digest", [1, None, {}]),
]


@pytest.mark.parametrize(
    ("number", "field", "value"),
    [(number, field, value) for number, field, values in WRONG for value in values],
)
def test_a_control_value_with_one_wrong_field(number: int, field: str, value: object) -> None:
    encode, decode, good = CONTROLS[number]
    fields = orjson.loads(encode(good)) | {field: value}
    with pytest.raises(CorruptError, match=r"^here"):
        decode(orjson.dumps(fields), "here")


@pytest.mark.parametrize(("number", "field"), [(number, field) for number, field, _ in WRONG])
def test_a_control_value_with_a_bottomless_field(number: int, field: str) -> None:
    """JSON nests deeper than Python can write out again: a peer's descriptor must not end us."""
    encode, decode, good = CONTROLS[number]
    fields = orjson.loads(encode(good)) | {field: "BOTTOMLESS"}
    for depth in (300, 1010):
        raw = orjson.dumps(fields).replace(b'"BOTTOMLESS"', b"[" * depth + b"]" * depth)
        with pytest.raises(CorruptError) as error:
            decode(raw, "here")
        assert len(str(error.value)) < 300


@given(st.binary(max_size=100), st.sampled_from(CONTROLS), st.data())
def test_any_bytes_are_a_control_value_or_corrupt(
    raw: bytes, control: Control, data: st.DataObject
) -> None:
    encode, decode, good = control
    whole = encode(good)
    at = data.draw(st.integers(0, len(whole)))
    for attempt in (raw, whole[:at] + raw[:3] + whole[at:], whole[:at] + whole[at + 1 :]):
        with suppress(CorruptError):
            decode(attempt, "here")


@given(heads, st.dictionaries(texts, heads, max_size=3), st.integers(0, SEQ_MAX))
def test_heads_and_cursors_are_their_json(
    head: Head, exports: dict[str, Head], revision: int
) -> None:
    local_head, cursor = LocalHead(head, exports), Cursor(head, Revision(revision))
    assert decode_head(encode_head(head), "here") == head
    assert decode_local_head(encode_local_head(local_head), "here") == local_head
    assert decode_cursor(encode_cursor(cursor), "here") == cursor


@pytest.mark.parametrize("place", [2, -1, True, "1", None])
def test_a_replica_has_two_places(place: object) -> None:
    fields = orjson.loads(encode_cursor(CURSOR)) | {"place": place}
    with pytest.raises(CorruptError, match="is not a place, 0 or 1"):
        decode_cursor(orjson.dumps(fields), "here")


def test_the_first_place_goes_without_saying() -> None:
    assert b"place" not in encode_cursor(CURSOR)
    other = replace(CURSOR, place=1)
    assert decode_cursor(encode_cursor(other), "here") == other
