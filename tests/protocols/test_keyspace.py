"""keyspace.md and records.md against the code, and against what a running mesh really writes."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from meshd.core.operations import Signal
from meshd.model import codec, control, event, ids, keyspace
from meshd.model.codec import (
    decode_cursor,
    decode_descriptor,
    decode_head,
    decode_heartbeat,
    decode_local_head,
    decode_record,
)
from meshd.model.endpoint import Endpoint
from meshd.model.event import EventType
from meshd.model.ids import ClusterName, EndpointKey
from meshd.model.keyspace import Keyspace, LogKeys
from meshd.model.publishing import decode_publish_cursor
from meshd.model.registration import Registering, Registration
from meshd.model.snapshot import (
    MARKS_MAX,
    PART_BYTES_MAX,
    PARTS_MAX,
    SNAPSHOTS_KEPT_MAX,
    decode_manifest,
    decode_part,
)
from meshd.runtime.leadership import Holder
from meshd.runtime.publish_cursor import CursorKey
from meshd.runtime.registrations import Wish
from meshd.runtime.signals import decode_signal
from tests.mesh import Mesh, Running, endpoint, service

PROTOCOLS = Path(__file__).parents[2] / "protocols"
KEYSPACE = (PROTOCOLS / "keyspace.md").read_text()
RECORDS = (PROTOCOLS / "records.md").read_text()
ROWS = dict(re.findall(r"^\| `(/meshd/v1/[^`]+)` \| ([^|]+) \|", KEYSPACE, re.MULTILINE))
SNAPSHOTS = (PROTOCOLS / "snapshots.md").read_text()
EXAMPLES = dict(re.findall(r"^```json (\w+)\n(.*)\n```$", KEYSPACE + SNAPSHOTS, re.MULTILINE))
SEQ = 42
REGISTERED = EndpointKey.parse("shop/web/r")


def _key(raw: bytes) -> str:
    return _pattern(raw.decode())


def _log(keys: LogKeys, *names: str) -> set[str]:
    places = {*(getattr(keys, name) for name in names), keys.record(SEQ), keys.part(SEQ, 0)}
    return {_key(place) for place in places}


def _with_a_past() -> tuple[LogKeys, LogKeys]:
    return Keyspace().local, Keyspace().replica(ClusterName("<peer>"))


def test_keyspace_md_lists_exactly_the_keys_that_there_are() -> None:
    keys = Keyspace()
    made = {_key(keys.descriptor), _key(keys.leader), _key(keys.registration(REGISTERED))}
    made.add(_key(keys.signal("<operation>")))
    made.add(_key(keys.publish_cursor("<mesh>")))
    made |= _log(keys.local, "head", "manifest")
    made |= {_key(log.kept_manifest(SEQ)) for log in _with_a_past()}
    made |= _log(keys.export("<audience>"), "head", "heartbeat", "manifest")
    made |= _log(keys.replica(ClusterName("<peer>")), "cursor", "manifest")
    assert set(ROWS) == made
    other = keys.replica(ClusterName("<peer>"), place=1).root.decode()
    assert f"`{other}`" in KEYSPACE


async def test_a_running_mesh_writes_exactly_these_keys_and_values() -> None:
    short = ("retention.check_every_s=0.1", "retention.snapshot_every_events=1")
    mesh = Mesh(("east", "west"), overrides=("replication.heartbeat_every_s=0.1", *short))
    async with mesh.running("east") as east, mesh.running("west") as west:
        await east.submit(service(), endpoint("shop/web/a"))
        await west.submit(service())
        for cluster in (east, west):
            wish = Wish(REGISTERED, "vm-1", "test")
            said = Registering(endpoint=Endpoint(address="10.0.0.9"), ttl_s=3600)
            await cluster.parts.node.registrations.register(wish, said)
            await cluster.parts.node.operator.signals.tell("drain-1", 0.5)
            await _publish(cluster)
        await east.until_ready("west")
        await west.until_ready("east")
        for cluster, peer in ((east, "west"), (west, "east")):
            replicas = cluster.parts.node.peers
            await cluster.until(lambda p=peer, r=replicas: _durable(r, p))  # type: ignore[misc]
        # Until all logs have a snapshot, and something behind it.
        await asyncio.sleep(1)
        for name in ("b", "c"):
            await east.submit(endpoint(f"shop/web/{name}"))
            await west.submit(endpoint(f"shop/web/{name}"))
            await asyncio.sleep(1)
        for cluster, peer in ((east, "west"), (west, "east")):
            replicas = cluster.parts.node.peers
            await cluster.until(lambda p=peer, r=replicas: _durable(r, p))  # type: ignore[misc]
            found = await cluster.kv.range(b"\x00", b"\x00")
            seen = {_pattern(kv.key.decode()): kv.value for kv in found.kvs}
            assert set(seen) == set(ROWS)
            for key, value in seen.items():
                READERS[_kind(key)](value, key)


async def _publish(cluster: Running) -> None:
    """Move the publish cursor, as if there were a broker."""
    node = cluster.parts.node
    fence, place = node.leadership.fence(), node.projector.log_vector()[cluster.name]
    assert fence is not None
    await CursorKey(cluster.kv, Keyspace().publish_cursor("mesh")).write(place, fence)


def _durable(peers: Any, name: str) -> bool:
    condition = peers.condition(ClusterName(name))
    return bool(condition.replica_seq == condition.target.seq > 0)


def _pattern(key: str) -> str:
    key = re.sub(r"/[0-9]{20}$", "/<last seq>", key)
    key = re.sub(r"/[0-9]{20}/[0-9]{6}$", "/<seq>/<part>", key)
    key = re.sub(r"/[0-9]{20}/manifest$", "/<seq>/manifest", key)
    key = key.replace("/registration/shop/web/r", "/registration/<namespace>/<service>/<name>")
    key = re.sub(r"/mqtt/mesh$", "/mqtt/<mesh>", key)
    key = re.sub(r"/signal/drain-1$", "/signal/<operation>", key)
    key = re.sub(r"/export/mesh/", "/export/<audience>/", key)
    return re.sub(r"/replica/(east|west)/(b/)?", "/replica/<peer>/", key)


def _kind(key: str) -> str:
    """What the table's second column says of a key's value."""
    link = re.search(r"#([a-z-]+)\)", ROWS[key])
    return link[1].replace("-", "_") if link else "record"


def _read_holder(raw: bytes, where: str) -> Holder:
    holder = Holder.decode(raw)
    assert holder.process, f"{where}: {raw!r}"
    return holder


def _read_signal(raw: bytes, where: str) -> Signal:
    signal = decode_signal(raw)
    assert signal is not None, f"{where}: {raw!r}"
    return signal


READERS: dict[str, Any] = {
    "descriptor": decode_descriptor,
    "head": decode_head,
    "local_head": decode_local_head,
    "heartbeat": decode_heartbeat,
    "cursor": decode_cursor,
    "manifest": decode_manifest,
    "part": decode_part,
    "record": decode_record,
    "publish_cursor": decode_publish_cursor,
    "holder": _read_holder,
    "registration": Registration.decode,
    "signal": _read_signal,
}


def test_the_limits_of_snapshots_are_those_of_the_code() -> None:
    assert f"at most {PARTS_MAX}" in SNAPSHOTS
    assert f"at most {MARKS_MAX}" in SNAPSHOTS
    assert f"fewer than {SNAPSHOTS_KEPT_MAX}" in SNAPSHOTS
    assert f"at most {PART_BYTES_MAX // 1024} KiB" in SNAPSHOTS


def test_every_kind_of_value_has_an_example() -> None:
    assert set(EXAMPLES) == set(READERS) - {"record", "part"}


@pytest.mark.parametrize("kind", EXAMPLES)
def test_the_examples_are_read(kind: str) -> None:
    assert READERS[kind](EXAMPLES[kind].encode(), kind)


def test_the_examples_are_the_golden_values() -> None:
    golden = json.loads((PROTOCOLS / "golden/records-v1.json").read_text())["control"]
    golden += json.loads((PROTOCOLS / "golden/snapshots-v1.json").read_text())["control"]
    assert {item["name"]: item["value"] for item in golden} == {
        kind: text
        for kind, text in EXAMPLES.items()
        if kind not in {"publish_cursor", "holder", "registration", "signal"}
    }


def test_the_numbers_in_the_documents_are_those_of_the_code() -> None:
    assert keyspace.SEQ_DIGITS == 20
    assert f"{keyspace.SEQ_DIGITS} decimal digits" in KEYSPACE
    assert f"at most\n{control.CONTROL_BYTES_MAX // 1024} KiB" in KEYSPACE
    assert f"1 to {ids.CLUSTER_ID_MAX}" in KEYSPACE
    assert f"at most {event.RECORD_BYTES_MAX:,} bytes" in RECORDS
    assert f"an event at most {event.EVENT_BYTES_MAX:,}" in RECORDS
    assert f"array of 1 to {event.EVENTS_PER_RECORD_MAX}" in RECORDS
    assert control.SEQ_MAX == 2**63 - 1
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
