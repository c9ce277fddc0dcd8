"""keyspace.md and records.md against the code, and against what a running mesh really writes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from meshd.model import codec, event, ids, keyspace
from meshd.model.codec import (
    decode_cursor,
    decode_descriptor,
    decode_head,
    decode_heartbeat,
    decode_local_head,
    decode_record,
)
from meshd.model.event import EventType
from meshd.model.ids import ClusterName
from meshd.model.keyspace import Keyspace, LogKeys
from meshd.runtime.presence import Holder
from tests.mesh import Mesh, endpoint, service

PROTOCOLS = Path(__file__).parents[2] / "protocols"
KEYSPACE = (PROTOCOLS / "keyspace.md").read_text()
RECORDS = (PROTOCOLS / "records.md").read_text()
ROWS = dict(re.findall(r"^\| `(/meshd/v1/[^`]+)` \| ([^|]+) \|", KEYSPACE, re.MULTILINE))
EXAMPLES = dict(re.findall(r"^```json (\w+)\n(.*)\n```$", KEYSPACE, re.MULTILINE))
SEQ = 42


def _key(raw: bytes) -> str:
    return raw.decode().replace(str(SEQ).zfill(20), "<last seq>")


def _log(keys: LogKeys, *names: str) -> set[str]:
    return {_key(getattr(keys, name)) for name in names} | {_key(keys.record(SEQ))}


def test_keyspace_md_lists_exactly_the_keys_that_there_are() -> None:
    keys = Keyspace()
    made = {_key(keys.descriptor), _key(keys.leader)}
    made |= _log(keys.local, "head")
    made |= _log(keys.export("<audience>"), "head", "heartbeat")
    made |= _log(keys.replica(ClusterName("<peer>")), "cursor")
    assert set(ROWS) == made


async def test_a_running_mesh_writes_exactly_these_keys_and_values() -> None:
    mesh = Mesh(("east", "west"), overrides=("replication.heartbeat_every_s=0.1",))
    async with mesh.running("east") as east, mesh.running("west") as west:
        await east.submit(service(), endpoint("shop/web/a"))
        await west.submit(service())
        await east.until_ready("west")
        await west.until_ready("east")
        for cluster, peer in ((east, "west"), (west, "east")):
            replicas = cluster.parts.node.peers
            await cluster.until(lambda p=peer, r=replicas: _durable(r, p))  # type: ignore[misc]
            found = await cluster.kv.range(b"\x00", b"\x00")
            seen = {_pattern(kv.key.decode()): kv.value for kv in found.kvs}
            assert set(seen) == set(ROWS)
            for key, value in seen.items():
                READERS[_kind(key)](value, key)


def _durable(peers: Any, name: str) -> bool:
    condition = peers.condition(ClusterName(name))
    return bool(condition.replica_seq == condition.target.seq > 0)


def _pattern(key: str) -> str:
    key = re.sub(r"/[0-9]{20}$", "/<last seq>", key)
    key = re.sub(r"/export/mesh/", "/export/<audience>/", key)
    return re.sub(r"/replica/(east|west)/", "/replica/<peer>/", key)


def _kind(key: str) -> str:
    """What the table's second column says of a key's value."""
    link = re.search(r"\(#([a-z-]+)\)", ROWS[key])
    return link[1].replace("-", "_") if link else "record"


def _read_holder(raw: bytes, where: str) -> Holder:
    holder = Holder.decode(raw)
    assert holder.process, f"{where}: {raw!r}"
    return holder


READERS: dict[str, Any] = {
    "descriptor": decode_descriptor,
    "head": decode_head,
    "local_head": decode_local_head,
    "heartbeat": decode_heartbeat,
    "cursor": decode_cursor,
    "record": decode_record,
    "holder": _read_holder,
}


def test_every_kind_of_value_has_an_example() -> None:
    assert set(EXAMPLES) == set(READERS) - {"record"}


@pytest.mark.parametrize("kind", EXAMPLES)
def test_the_examples_are_read(kind: str) -> None:
    assert READERS[kind](EXAMPLES[kind].encode(), kind)


def test_the_examples_are_the_golden_values() -> None:
    golden = json.loads((PROTOCOLS / "golden/records-v1.json").read_text())["control"]
    assert {item["name"]: item["value"] for item in golden} == {
        kind: text for kind, text in EXAMPLES.items() if kind != "holder"
    }


def test_the_numbers_in_the_documents_are_those_of_the_code() -> None:
    assert keyspace.SEQ_DIGITS == 20
    assert f"{keyspace.SEQ_DIGITS} decimal digits" in KEYSPACE
    assert f"at most\n{codec.CONTROL_BYTES_MAX // 1024} KiB" in KEYSPACE
    assert f"1 to {ids.CLUSTER_ID_MAX}" in KEYSPACE
    assert f"at most {event.RECORD_BYTES_MAX:,} bytes" in RECORDS
    assert f"an event at most {event.EVENT_BYTES_MAX:,}" in RECORDS
    assert f"array of 1 to {event.EVENTS_PER_RECORD_MAX}" in RECORDS
    assert codec.SEQ_MAX == 2**63 - 1
    for name, chars_max in (
        ("type", codec.KEY_CHARS_MAX),
        ("key", codec.KEY_CHARS_MAX),
        ("actor", event.ACTOR_CHARS_MAX),
        ("cause", event.CAUSE_CHARS_MAX),
    ):
        assert re.search(rf"\| {name} \| str, at most {chars_max} characters \|", RECORDS), name


def test_records_md_lists_exactly_the_event_types_and_fields() -> None:
    assert set(re.findall(r"^\| `([a-z.]+)` \|", RECORDS, re.MULTILINE)) == set(EventType)
    numbered = re.findall(r"^\| ([0-9]+) \| ", RECORDS, re.MULTILINE)
    fields = [*range(codec.RECORD_FIELDS), *range(codec.EVENT_FIELDS)]
    assert numbered == [str(number) for number in fields]
