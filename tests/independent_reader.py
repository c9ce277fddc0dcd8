"""Reads a cluster's etcd as a stranger would: etcdctl's output and msgpack, nothing of meshd's.

Rebuilds the state from the log and checks the chain; written from `protocols/` alone.
Usage: etcdctl get --prefix /meshd/v1/ -w json | python tests/independent_reader.py export/mesh
"""

import base64
import hashlib
import json
import sys
from typing import Any

import msgpack


def keys_of(etcdctl_json: str) -> dict[str, tuple[bytes, int]]:
    """Key -> (value, mod revision)."""
    kvs = json.loads(etcdctl_json).get("kvs", [])
    decode = base64.b64decode
    return {
        decode(kv["key"]).decode(): (decode(kv.get("value", "")), kv["mod_revision"]) for kv in kvs
    }


def read_log(keys: dict[str, tuple[bytes, int]], root: str) -> tuple[dict[str, Any], list[Any]]:
    """Check one log from its first record to its head; returns its state and its events."""
    head = json.loads(keys[f"{root}head"][0])
    state: dict[str, Any] = {"cluster": {}, "service": {}, "endpoint": {}}
    events: list[Any] = []
    chain, revision = bytes(16), 0
    for key in sorted(key for key in keys if key.startswith(f"{root}log/")):
        raw, mod_revision = keys[key]
        version, log_id, first_seq, _, previous, body = msgpack.unpackb(raw)[:6]
        assert (version, log_id.hex()) == (1, head["log_id"]), f"{key}: of another log"
        assert first_seq == len(events) + 1, f"{key}: gap after {len(events)}"
        assert previous == chain, f"{key}: the chain is broken"
        assert mod_revision >= revision, f"{key}: revision went back"
        chain, revision = hashlib.blake2b(raw, digest_size=16).digest(), mod_revision
        events.extend(body)
        assert int(key.rpartition("/")[2]) == len(events), f"{key}: ends with {len(events)}"
    assert (len(events), chain.hex()) == (head["seq"], head["hash"]), "head isn't the last record"
    for kind, key, data, *_ in events:
        noun, verb = kind.split(".")
        fold(state, noun, verb, key, data)
    return state, events


def fold(state: dict[str, Any], noun: str, verb: str, key: str, data: object) -> None:
    """What an event does, as protocols/records.md says."""
    if verb == "set":
        state[noun][key] = data
        return
    gone = f"{key}/" if noun == "service" else None
    state[noun].pop(key, None)
    for name in [name for name in state["endpoint"] if gone and name.startswith(gone)]:
        del state["endpoint"][name]


if __name__ == "__main__":
    log = sys.argv[1] if len(sys.argv) > 1 else "local"
    print(json.dumps(read_log(keys_of(sys.stdin.read()), f"/meshd/v1/{log}/")[0], indent=2))
