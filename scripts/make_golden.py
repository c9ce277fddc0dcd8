"""Write golden records and snapshots of this version, once: `protocols/golden/*-v<version>.json`.

For: vectors that every later version, in any language, must read to the same values. Not for:
running again. Invariant: a file that exists is never rewritten; a new version gets a file of its
own.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgpack

from meshd.model.codec import (
    RECORD_VERSION,
    Cursor,
    Descriptor,
    Heartbeat,
    LocalHead,
    decode_record,
    encode_cursor,
    encode_descriptor,
    encode_event,
    encode_head,
    encode_heartbeat,
    encode_local_head,
    encode_record,
)
from meshd.model.command import Outcome
from meshd.model.event import Event, EventType, Record
from meshd.model.ids import ClusterName, Head, LogId, RecordHash, Revision, Seq
from meshd.model.snapshot import (
    SNAPSHOT_VERSION,
    Kept,
    Manifest,
    Mark,
    encode_manifest,
    encode_part,
    hash_part,
)

FOLDER = Path(__file__).parents[1] / "protocols/golden"
LOG_ID = LogId("0f2c6b0f9a7e4d0c8b1d2e3f4a5b6c7d")
TIME_MS = 1_790_000_000_123

CHAIN: tuple[tuple[str, tuple[Event, ...]], ...] = (
    (
        "the first record of a log: what a cluster says of itself",
        (
            Event(
                EventType.CLUSTER_SET,
                "east",
                {"name": "east", "id": 1, "region": "eu", "zone": "eu-1a", "labels": {"a": "b"}},
                "meshd",
            ),
        ),
    ),
    (
        "events committed together, by two actors",
        (
            Event(
                EventType.SERVICE_SET,
                "shop/web",
                {
                    "ports": [
                        {"port": 80, "name": "http", "app_protocol": "http"},
                        {"port": 53, "name": "dns", "protocol": "UDP"},
                    ],
                    "global": True,
                    "affinity": "local",
                    "labels": {"grüße": "日本"},
                    "created_ms": TIME_MS,
                },
                "ann",
                "key-1",
            ),
            Event(
                EventType.ENDPOINT_SET,
                "shop/web/web-1",
                {
                    "address": "10.1.0.1",
                    "ports": [{"port": 8080, "name": "http"}],
                    "ready": False,
                    "serving": True,
                    "terminating": True,
                    "zone": "eu-1a",
                    "node": "node-1",
                    "weight": 0,
                    "source": "Endpoints/shop/web",
                },
                "ann",
                "key-1",
            ),
            Event(EventType.ENDPOINT_SET, "shop/web/v6", {"address": "2001:db8::1"}, "bob"),
        ),
    ),
    (
        "a value at all its defaults",
        (Event(EventType.SERVICE_SET, "shop/plain", {}, "rest"),),
    ),
    (
        "removals have no data",
        (
            Event(EventType.ENDPOINT_REMOVED, "shop/web/v6", None, "rest"),
            Event(EventType.SERVICE_REMOVED, "shop/web", None, "rest", "key-2"),
        ),
    ),
    (
        "a type that this version doesn't know, carried as it is",
        (
            Event(
                "weather.set",
                "here",
                {"sun": True, "rain": None, "degrees": -3.5, "hours": [1, 2, 3]},
                "bob",
            ),
        ),
    ),
)


def fields_of(record: Record) -> dict[str, Any]:
    """A record as JSON."""
    return {
        "version": RECORD_VERSION,
        "log_id": record.log_id,
        "first_seq": record.first_seq,
        "time_ms": record.time_ms,
        "prev_hash": record.prev_hash.hex(),
        "events": [
            {
                "type": event.type,
                "key": event.key,
                "data": event.data,
                "actor": event.actor,
                "cause": event.cause,
            }
            for event in record.events
        ],
    }


def _vector(name: str, record: Record, *, exact: bool) -> dict[str, Any]:
    return {
        "name": name,
        "exact": exact,
        "raw": record.raw.hex(),
        "hash": record.hash.hex(),
        "last_seq": record.last_seq,
        "fields": fields_of(record),
    }


Chain = tuple[tuple[str, tuple[Event, ...]], ...]
"""Records by what is remarkable about each."""


def _chained(records: Chain) -> list[dict[str, Any]]:
    """Vectors of records of which each continues the one before."""
    head, vectors = Head.genesis(LOG_ID), []
    for number, (name, events) in enumerate(records):
        record = encode_record(head, TIME_MS + number, events)
        vectors.append(_vector(name, record, exact=True))
        head = record.head
    return vectors


def chain() -> list[dict[str, Any]]:
    """Records that follow each other from the first on."""
    far = Head(LOG_ID, Seq((1 << 32) - 2), RecordHash(bytes(range(16))))
    across = encode_record(far, TIME_MS, [Event(EventType.SERVICE_SET, "a/b", {}, "x")] * 3)
    return [*_chained(CHAIN), _vector("seqs beyond 32 bits", across, exact=True)]


def tolerated() -> list[dict[str, Any]]:
    """What a reader takes though this version doesn't write it."""
    event = ["service.set", "a/b", {"global": True, "colour": "red"}, "x", "", "more", 7]
    fields = [1, bytes.fromhex(LOG_ID), 1, TIME_MS, bytes(16), [event], {"signature": b"\x00"}]
    raw = msgpack.packb(fields)
    return [_vector("fields that a newer writer appended", decode_record(raw, ""), exact=False)]


def refused() -> list[dict[str, str]]:
    """What a reader must not take."""
    log_id, event = bytes.fromhex(LOG_ID), ["service.set", "a/b", {}, "x", ""]
    good = [1, log_id, 1, TIME_MS, bytes(16), [event]]

    def but(index: int, value: object) -> bytes:
        return bytes(msgpack.packb([*good[:index], value, *good[index + 1 :]]))

    raws = {
        "no bytes": b"",
        "cut short": bytes(msgpack.packb(good))[:-1],
        "bytes after the end": bytes(msgpack.packb(good)) + b"\x00",
        "a map": bytes(msgpack.packb({"version": 1})),
        "too few fields": bytes(msgpack.packb(good[:-1])),
        "another version": but(0, 2),
        "a log id of 15 bytes": but(1, log_id[:-1]),
        "seq 0": but(2, 0),
        "a negative time": but(3, -1),
        "a previous hash as text": but(4, "0" * 16),
        "no event": but(5, []),
        "an event without cause": but(5, [event[:-1]]),
        "an event whose data is a list": but(5, [["service.set", "a/b", [], "x", ""]]),
        "an event whose key is a number": but(5, [["service.set", 5, {}, "x", ""]]),
    }
    return [{"name": name, "raw": raw.hex()} for name, raw in raws.items()]


def control() -> list[dict[str, str]]:
    """The values of the keys that are no records."""
    digest = RecordHash(bytes(range(16)))
    local, export = Head(LOG_ID, Seq(7), digest), Head(LogId("f" * 32), Seq(5), digest)
    values = {
        "descriptor": encode_descriptor(Descriptor(ClusterName("east"), 1, 1, 1, TIME_MS)),
        "head": encode_head(export),
        "local_head": encode_local_head(LocalHead(local, {"mesh": export})),
        "cursor": encode_cursor(Cursor(export, Revision(1234))),
        "heartbeat": encode_heartbeat(
            Heartbeat(TIME_MS, TIME_MS, f"east:{'f' * 32}:5", "00112233445566778899aabbccddeeff")
        ),
    }
    return [{"name": name, "value": value.decode()} for name, value in values.items()]


PEER_CHAIN: Chain = (
    (
        "whom a cluster follows: one by all its fields, one at its defaults",
        (
            Event(
                EventType.PEER_SET,
                "west",
                {
                    "endpoints": ["10.2.0.1:2379", "[2001:db8::2]:2379"],
                    "tls": {
                        "ca_file": "/etc/meshd/west-ca.pem",
                        "cert_file": "/etc/meshd/east.pem",
                        "key_file": "/etc/meshd/east-key.pem",
                        "server_name": "etcd.west",
                    },
                    "username": "east",
                    "password_file": "/etc/meshd/west-password",
                    "staleness": {
                        "policy": "withdraw",
                        "stale_after_s": 20.0,
                        "withdraw_after_s": 600.0,
                    },
                    "audience": "eu",
                    "prefix": "/west/v1",
                    "announces": ["10.2.0.0/16", "2001:db8::/32"],
                },
                "ann",
                "key-3",
            ),
            Event(EventType.PEER_SET, "south", {"endpoints": ["south:2379"]}, "ann"),
        ),
    ),
    (
        "records of a peer's log that are passed over",
        (
            Event(
                EventType.SKIP_SET,
                "west",
                {
                    "log_id": "f" * 32,
                    "records": [
                        {"seq": 7, "hash": "000102030405060708090a0b0c0d0e0f"},
                        {"seq": 12, "hash": "0f0e0d0c0b0a09080706050403020100"},
                    ],
                },
                "ann",
            ),
            Event(
                EventType.SKIP_SET,
                "south",
                {"log_id": "e" * 32, "records": [{"seq": 1, "hash": "11" * 16}]},
                "ann",
            ),
        ),
    ),
    (
        "a skip alone is forgotten; a peer takes its skip along",
        (
            Event(EventType.SKIP_REMOVED, "south", None, "meshd"),
            Event(EventType.PEER_REMOVED, "west", None, "ann"),
        ),
    ),
)


THING_CHAIN: Chain = (
    (
        "what a cluster says of itself, all of it",
        (
            Event(
                EventType.CLUSTER_SET,
                "east",
                {
                    "name": "east",
                    "id": 1,
                    "region": "eu",
                    "zone": "eu-1a",
                    "labels": {"tier": "gold"},
                    "state": "draining",
                    "weight": 50,
                    "announces": ["10.1.0.0/16", "2001:db8:1::/48"],
                },
                "ann",
            ),
        ),
    ),
    (
        "nodes: one by all its fields, one at its defaults",
        (
            Event(
                EventType.NODE_SET,
                "node-1.east",
                {
                    "addresses": ["10.0.0.1", "2001:db8::1"],
                    "pod_cidrs": ["10.1.1.0/24", "2001:db8:1:1::/64"],
                    "tunnel_endpoint": "[2001:db8::1]:51820",
                    "public_key": "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=",
                    "region": "eu",
                    "zone": "eu-1a",
                    "labels": {"rack": "7"},
                    "audiences": ["eu", "mesh"],
                    "source": "kubelet",
                },
                "ann",
                "key-4",
            ),
            Event(EventType.NODE_SET, "node-2", {"addresses": ["10.0.0.2"]}, "ann"),
        ),
    ),
    (
        "identities: the first number of a cluster, and its last",
        (
            Event(
                EventType.IDENTITY_SET,
                "65792",
                {
                    "labels": {"app": "web", "team": "shop"},
                    "audiences": ["eu", "mesh"],
                    "source": "Owner/shop",
                },
                "ann",
            ),
            Event(EventType.IDENTITY_SET, "131071", {"labels": {"app": "cart"}}, "ann"),
        ),
    ),
    (
        "a node is removed, and a number taken back",
        (
            Event(EventType.NODE_REMOVED, "node-2", None, "ann"),
            Event(EventType.IDENTITY_REMOVED, "65792", None, "ann"),
        ),
    ),
)


POLICY_CHAIN = (
    (
        "policies: one by all its fields, one at its defaults",
        (
            Event(
                EventType.POLICY_SET,
                "shop/web.v1",
                {
                    "subjects": {
                        "labels": {"app": "web"},
                        "expressions": [
                            {"key": "tier", "operator": "In", "values": ["back", "front"]},
                            {"key": "old", "operator": "DoesNotExist"},
                        ],
                    },
                    "directions": ["egress", "ingress"],
                    "ingress": [
                        {
                            "peers": [
                                {
                                    "labels": {"labels": {"app": "cart"}},
                                    "namespaces": {"names": ["shop"], "labels": {"team": "a"}},
                                    "clusters": {"not_clusters": ["south"]},
                                },
                                {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]},
                            ],
                            "ports": [
                                {"port": 8000, "end_port": 8080},
                                {"protocol": "UDP", "name": "dns"},
                            ],
                            "http": [
                                {"methods": ["GET", "HEAD"], "path": "/api"},
                                {"path": "/", "match": "exact"},
                            ],
                        }
                    ],
                    "egress": [{"peers": [{"dns": "*.example.org"}]}],
                    "labels": {"meshd.io/owner": "shop"},
                    "audiences": ["eu", "mesh"],
                    "source": "git",
                },
                "ann",
                "key-5",
            ),
            Event(EventType.POLICY_SET, "shop/deny-all", {}, "ann"),
        ),
    ),
    (
        "a policy is removed",
        (Event(EventType.POLICY_REMOVED, "shop/deny-all", None, "ann"),),
    ),
)


def policies() -> dict[str, Any]:
    """Events of policies."""
    return {"chain": _chained(POLICY_CHAIN)}


def things() -> dict[str, Any]:
    """Events of nodes and identities, and what a cluster says of itself since then."""
    return {"chain": _chained(THING_CHAIN)}


OPERATION_CHAIN: Chain = (
    (
        "a service is turned down, and the operation that does it says so",
        (
            Event(EventType.SERVICE_SET, "shop/web", {"turned_percent": 90}, "ann", "key-5"),
            Event(
                EventType.OPERATION_SET,
                "web-to-west",
                {
                    "kind": "migration",
                    "subjects": ["service/shop/web"],
                    "stages": [{"turned_percent": 90, "hold_s": 30.0}, {"turned_percent": 0}],
                    "to": "west",
                    "floor_percent": 50,
                    "conditions": {"healthy_percent_min": 90, "error_percent_max": 0.5},
                    "on_trouble": "rollback",
                    "force": True,
                    "stage": 1,
                    "before": {"service/shop/web": 100},
                    "started_ms": TIME_MS,
                    "since_ms": TIME_MS,
                    "by": "ann",
                },
                "ann",
                "key-5",
            ),
        ),
    ),
    (
        "an operation is forgotten",
        (Event(EventType.OPERATION_REMOVED, "web-to-west", None, "ann"),),
    ),
)


def operations() -> dict[str, Any]:
    """Events of operations, in the local log only."""
    return {"chain": _chained(OPERATION_CHAIN)}


def peers() -> dict[str, Any]:
    """Events that came after the first golden file: of peers, in the local log only."""
    return {"chain": _chained(PEER_CHAIN)}


def records() -> dict[str, Any]:
    return {
        "chain": chain(),
        "tolerated": tolerated(),
        "refused": refused(),
        "control": control(),
    }


def snapshots() -> dict[str, Any]:
    """A manifest, and parts: one of events with one of an unknown type, one of idempotency keys."""
    digest = RecordHash(bytes(range(16)))
    web = Event(EventType.SERVICE_SET, "shop/web", {"global": True}, "ann")
    moon = Event("moon.set", "phase", {"full": True}, "bob")
    kept = [Kept(Seq(3), TIME_MS - 20, web), Kept(Seq(5), TIME_MS, moon)]
    parts = [encode_part(kept), encode_part((), [("key-1", Outcome(Seq(3), Seq(4), 2))])]
    manifest = Manifest(
        head=Head(LogId("f" * 32), Seq(5), digest),
        time_ms=TIME_MS,
        log_bytes=480,
        items=2,
        parts=tuple(map(hash_part, parts)),
        trim=Mark(Seq(2), RecordHash(bytes(reversed(range(16)))), TIME_MS - 23, 210),
        previous_seq=Seq(4),
        marks=(Mark(Seq(4), digest, TIME_MS - 13, 400),),
    )
    fields = {
        "kept": [
            {"seq": item.seq, "time_ms": item.time_ms, "event": encode_event(item.event)}
            for item in kept
        ],
        "causes": [["key-1", 3, 4, 2]],
    }
    return {
        "control": [{"name": "manifest", "value": encode_manifest(manifest).decode()}],
        "parts": [part.hex() for part in parts],
        "fields": fields,
    }


def main() -> int:
    wanted = {
        f"records-v{RECORD_VERSION}.json": records,
        f"snapshots-v{SNAPSHOT_VERSION}.json": snapshots,
        "peers-v1.json": peers,
        "things-v1.json": things,
        "operations-v1.json": operations,
        "policies-v1.json": policies,
    }
    missing = {name: make for name, make in wanted.items() if not (FOLDER / name).exists()}
    if not missing:
        print("all files exist; golden vectors are never rewritten", file=sys.stderr)
        return 1
    for name, make in missing.items():
        (FOLDER / name).write_text(json.dumps(make(), indent=2, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
