"""The configuration file of each of the demo's meshds.

For: what a person would write by hand for three clusters that know each other, with times short
enough to watch. Not for: addresses (`places`). Invariant: everything in it is documented in
`meshd.settings`; the demo has no settings of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import yaml

from meshd.demo.places import Place

HEADER = "# Written by `meshd demo` for cluster {cluster}: {url}\n"


@dataclass(frozen=True, slots=True)
class Patience:
    """How soon the clusters notice things, in seconds; the defaults of meshd are longer."""

    heartbeat_every_s: float = 0.5
    silent_after_s: float = 3.0
    stale_after_s: float = 5.0
    backoff_min_s: float = 0.1
    backoff_max_s: float = 1.0
    connect_timeout_s: float = 2.0


PATIENCE = Patience()


def configuration(place: Place, peers: Iterable[Place], *, allow_unsafe: bool = False) -> str:
    """The file's text. allow_unsafe: take an etcd that can lose acknowledged writes in a crash."""
    tree = {
        "cluster": {"name": place.cluster, "id": place.number, "region": "loopback"},
        "etcd": {
            "mode": "embedded",
            "allow_unsafe_version": allow_unsafe,
            "embedded": {
                "data_dir": "etcd",
                "client_address": place.etcd,
                "peer_address": place.raft,
            },
        },
        "api": {"listen": place.rest, "drain_timeout_s": 2.0},
        "peers": [
            {"name": peer.cluster, "endpoints": [peer.etcd], "announces": ["127.0.0.0/8"]}
            for peer in peers
        ],
        "staleness": {"policy": "demote", "stale_after_s": PATIENCE.stale_after_s},
        "replication": {
            "heartbeat_every_s": PATIENCE.heartbeat_every_s,
            "silent_after_s": PATIENCE.silent_after_s,
            "backoff_min_s": PATIENCE.backoff_min_s,
            "backoff_max_s": PATIENCE.backoff_max_s,
            "connect_timeout_s": PATIENCE.connect_timeout_s,
        },
        "log": {"level": "info", "format": "console"},
    }
    header = HEADER.format(cluster=place.cluster, url=place.url)
    return header + yaml.safe_dump(tree, sort_keys=False)
