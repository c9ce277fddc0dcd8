"""Golden records: they decode to what they say, and this version still writes the same bytes."""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest

from meshd.core.fold import fold_kept, fold_record
from meshd.core.position import Verdict, classify
from meshd.core.snapshot import load_part, parts_of
from meshd.core.state import ClusterState
from meshd.model.codec import (
    RECORD_VERSION,
    decode_cursor,
    decode_descriptor,
    decode_head,
    decode_heartbeat,
    decode_local_head,
    decode_record,
    encode_cursor,
    encode_descriptor,
    encode_event,
    encode_head,
    encode_heartbeat,
    encode_local_head,
    encode_record,
    hash_record,
)
from meshd.model.errors import CorruptError
from meshd.model.event import EventType, Record
from meshd.model.ids import ClusterName, Head, LogId, RecordHash, Seq
from meshd.model.snapshot import (
    SNAPSHOT_VERSION,
    decode_manifest,
    decode_part,
    encode_manifest,
    hash_part,
)

FOLDER = Path(__file__).parents[2] / "protocols/golden"
FILE_HASHES = {
    "operations-v1.json": "fd607c619f6fda77cd3c820b50db507e",
    "peers-v1.json": "13c3ddbce5834c67a36e8cf369393fb3",
    "policies-v1.json": "eaba9aa25a6811d78e06a9fb8894e738",
    "records-v1.json": "db6a907cc5060b53bb442c8687e8686e",
    "snapshots-v1.json": "b4273b7d6ef7468a0dc4b0d8252b0c50",
    "things-v1.json": "462e7bb6d85141c4b7b00cd550bae46f",
}
"""Golden records are never rewritten: whoever changes one has to change this as well."""

VECTORS: dict[str, list[dict[str, Any]]] = json.loads((FOLDER / "records-v1.json").read_text())
PEERS: list[dict[str, Any]] = json.loads((FOLDER / "peers-v1.json").read_text())["chain"]
OPERATIONS: list[dict[str, Any]] = json.loads((FOLDER / "operations-v1.json").read_text())["chain"]
THINGS: list[dict[str, Any]] = json.loads((FOLDER / "things-v1.json").read_text())["chain"]
POLICIES: list[dict[str, Any]] = json.loads((FOLDER / "policies-v1.json").read_text())["chain"]
READABLE = VECTORS["chain"] + VECTORS["tolerated"] + PEERS + THINGS + OPERATIONS + POLICIES


def _name(vector: dict[str, Any]) -> str:
    return str(vector["name"]).replace(" ", "-")


def _decode(vector: dict[str, Any]) -> Record:
    return decode_record(bytes.fromhex(vector["raw"]), vector["name"])


def test_golden_files_are_what_they_always_were() -> None:
    found = {
        path.name: blake2b(path.read_bytes(), digest_size=16).hexdigest()
        for path in FOLDER.iterdir()
    }
    assert found == FILE_HASHES
    assert f"records-v{RECORD_VERSION}.json" in found


@pytest.mark.parametrize("vector", READABLE, ids=_name)
def test_a_golden_record_decodes_to_what_it_says(vector: dict[str, Any]) -> None:
    record = _decode(vector)
    fields = vector["fields"]
    assert fields["version"] == 1
    assert record.log_id == fields["log_id"]
    assert record.first_seq == fields["first_seq"]
    assert record.last_seq == vector["last_seq"]
    assert record.time_ms == fields["time_ms"]
    assert record.prev_hash.hex() == fields["prev_hash"]
    assert record.hash.hex() == vector["hash"] == hash_record(record.raw).hex()
    events = [
        {
            "type": event.type,
            "key": event.key,
            "data": event.data,
            "actor": event.actor,
            "cause": event.cause,
        }
        for event in record.events
    ]
    assert events == fields["events"]


@pytest.mark.parametrize("vector", READABLE, ids=_name)
def test_this_version_writes_the_same_bytes(vector: dict[str, Any]) -> None:
    record = _decode(vector)
    before = Head(LogId(record.log_id), Seq(record.first_seq - 1), RecordHash(record.prev_hash))
    again = encode_record(before, record.time_ms, record.events)
    assert (again.raw == record.raw) is vector["exact"]
    if vector["exact"]:
        assert again == record


def test_the_golden_chain_is_a_log_and_folds() -> None:
    records = [_decode(vector) for vector in VECTORS["chain"]]
    head, state = Head.genesis(records[0].log_id), ClusterState()
    for record in records[:-1]:
        assert classify(head, record) is Verdict.NEXT
        fold_record(state, record, ClusterName("east"))
        head = record.head
    assert [str(key) for key in state.services] == ["shop/plain"]
    assert state.endpoints == {}
    assert state.unknown == {"weather.set": 1}
    assert set(state.causes) == {"key-1", "key-2"}
    assert classify(head, records[-1]) is not Verdict.NEXT


def test_the_golden_chain_of_peers_folds_and_is_kept_by_a_snapshot() -> None:
    state = ClusterState()
    for vector in PEERS[:-1]:
        fold_record(state, _decode(vector), ClusterName("east"))
    assert sorted(state.peers) == sorted(state.skips) == ["south", "west"]
    again = ClusterState()
    for raw in parts_of(state):
        fold_kept(again, decode_part(raw, "part").kept, ClusterName("east"))
    assert (again.peers, again.skips) == (state.peers, state.skips)
    fold_record(state, _decode(PEERS[-1]), ClusterName("east"))
    assert list(state.peers) == ["south"]
    assert state.skips == {}


def test_the_golden_chain_of_things_folds_and_is_kept_by_a_snapshot() -> None:
    state = ClusterState()
    for vector in THINGS[:-1]:
        fold_record(state, _decode(vector), ClusterName("east"))
    assert sorted(state.nodes) == ["node-1.east", "node-2"]
    assert sorted(state.identities) == [65_792, 131_071]
    assert state.info is not None
    assert state.info.value.state == "draining"
    again = ClusterState()
    for raw in parts_of(state):
        fold_kept(again, decode_part(raw, "part").kept, ClusterName("east"))
    assert (again.info, again.nodes, again.identities) == (
        *(state.info, state.nodes, state.identities),
    )
    fold_record(state, _decode(THINGS[-1]), ClusterName("east"))
    assert list(state.nodes) == ["node-1.east"]
    assert list(state.identities) == [131_071]


def test_the_golden_chain_of_policies_folds_and_is_kept_by_a_snapshot() -> None:
    state = ClusterState()
    fold_record(state, _decode(POLICIES[0]), ClusterName("east"))
    assert sorted(map(str, state.policies)) == ["shop/deny-all", "shop/web.v1"]
    again = ClusterState()
    for raw in parts_of(state):
        fold_kept(again, decode_part(raw, "part").kept, ClusterName("east"))
    assert again.policies == state.policies
    fold_record(state, _decode(POLICIES[1]), ClusterName("east"))
    assert list(map(str, state.policies)) == ["shop/web.v1"]


def test_every_event_type_has_a_golden_record() -> None:
    seen = {event.type for vector in READABLE for event in _decode(vector).events}
    assert seen >= set(EventType)


@pytest.mark.parametrize("vector", VECTORS["refused"], ids=_name)
def test_what_is_no_record_is_refused(vector: dict[str, Any]) -> None:
    with pytest.raises(CorruptError):
        _decode(vector)


CODECS: dict[str, tuple[Any, Any]] = {
    "descriptor": (decode_descriptor, encode_descriptor),
    "head": (decode_head, encode_head),
    "local_head": (decode_local_head, encode_local_head),
    "cursor": (decode_cursor, encode_cursor),
    "heartbeat": (decode_heartbeat, encode_heartbeat),
}


@pytest.mark.parametrize("vector", VECTORS["control"], ids=_name)
def test_golden_control_values_are_read_and_written_the_same(vector: dict[str, Any]) -> None:
    decode, encode = CODECS[vector["name"]]
    raw = vector["value"].encode()
    assert encode(decode(raw, "")) == raw


def test_every_control_value_has_a_golden_one() -> None:
    assert [vector["name"] for vector in VECTORS["control"]] == list(CODECS)


def test_a_golden_snapshot_is_read_and_loads_to_what_it_says() -> None:
    golden = json.loads((FOLDER / "snapshots-v1.json").read_text())
    assert SNAPSHOT_VERSION == 1
    (control,) = golden["control"]
    manifest = decode_manifest(control["value"].encode(), "manifest")
    assert encode_manifest(manifest).decode() == control["value"]
    raws = [bytes.fromhex(part) for part in golden["parts"]]
    assert manifest.parts == tuple(map(hash_part, raws))
    parts = [decode_part(raw, "part") for raw in raws]
    assert [
        {"seq": item.seq, "time_ms": item.time_ms, "event": encode_event(item.event)}
        for part in parts
        for item in part.kept
    ] == golden["fields"]["kept"]
    assert [
        [cause, did.first_seq, did.last_seq, did.events]
        for part in parts
        for cause, did in part.causes
    ] == golden["fields"]["causes"]
    state = ClusterState()
    for part in parts:
        load_part(state, part, ClusterName("east"), manifest)
    assert [str(key) for key in state.services] == ["shop/web"]
    assert list(state.carried) == [("moon.set", "phase")]
