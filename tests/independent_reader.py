"""Reads a cluster's etcd as a stranger would: etcdctl's output and msgpack, nothing of meshd's.

Rebuilds the state from the log and checks the chain; written from `protocols/` alone.
Usage: etcdctl get --prefix /meshd/v1/ -w json | python tests/independent_reader.py export/mesh
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from typing import Any

import msgpack


def keys_of(etcdctl_json: str) -> dict[str, tuple[bytes, int]]:
    """Key -> (value, mod revision)."""
    found = json.loads(etcdctl_json).get("kvs", [])
    return {
        base64.b64decode(kv["key"]).decode(): (
            base64.b64decode(kv.get("value", "")),
            kv["mod_revision"],
        )
        for kv in found
    }


def read_log(keys: dict[str, tuple[bytes, int]], root: str) -> tuple[dict[str, Any], list[Any]]:
    """Check one log from its first record to its head; returns its state and its events."""
    head = json.loads(keys[f"{root}head"][0])
    state: dict[str, Any] = {"cluster": {}, "service": {}, "endpoint": {}}
    events: list[Any] = []
    seq, chain, revision = 0, bytes(16), 0
    for key in sorted(key for key in keys if key.startswith(f"{root}log/")):
        raw, mod_revision = keys[key]
        version, log_id, first_seq, _, previous, body = msgpack.unpackb(raw)[:6]
        assert version == 1, f"{key}: version {version}"
        assert log_id.hex() == head["log_id"], f"{key}: of another log"
        assert first_seq == seq + 1, f"{key}: gap after {seq}"
        assert previous == chain, f"{key}: the chain is broken"
        assert mod_revision > revision, f"{key}: revision went back"
        seq, revision = seq + len(body), mod_revision
        chain = hashlib.blake2b(raw, digest_size=16).digest()
        assert int(key.rpartition("/")[2]) == seq, f"{key}: ends with seq {seq}"
        for event in body:
            events.append(event)
            fold(state, *event[:3])
    assert (seq, chain.hex()) == (head["seq"], head["hash"]), "the head is not the last record"
    return state, events


def fold(state: dict[str, Any], kind: str, key: str, data: dict[str, Any] | None) -> None:
    """What an event does, as protocols/records.md says."""
    noun, _, verb = kind.partition(".")
    if verb == "set":
        state[noun][key] = data
    elif noun in state:
        state[noun].pop(key, None)
        if noun == "service":
            gone = [name for name in state["endpoint"] if name.startswith(f"{key}/")]
            for name in gone:
                del state["endpoint"][name]


if __name__ == "__main__":
    log = sys.argv[1] if len(sys.argv) > 1 else "local"
    print(json.dumps(read_log(keys_of(sys.stdin.read()), f"/meshd/v1/{log}/")[0], indent=2))
