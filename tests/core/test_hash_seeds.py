"""The same logs give the same tables and digests in every Python, whatever its hashes are."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from pathlib import Path

from meshd.core.derive import derive, digest_of_table
from meshd.core.explain import explain
from meshd.core.fold import fold_record
from meshd.core.slots import slots_of
from meshd.core.state import ClusterState
from meshd.core.tables import Tables
from meshd.model.cluster import Availability
from meshd.model.event import Event, EventType, Record
from meshd.model.ids import GENESIS_HASH, ClusterName, LogId, Seq
from meshd.model.service import Affinity, SpillSplit

ROOT = Path(__file__).parents[2]
CLUSTERS = tuple(ClusterName(name) for name in ("a", "b", "c", "d"))
RECORDS = 120
HASH_SEEDS = ("0", "1", "4711")


def fingerprint(order_seed: int) -> str:
    """A hash over all tables, digests, explanations and slots, of one set of logs whose records
    come in an order of that seed's.
    """
    logs = {name: records_of(name) for name in CLUSTERS}
    dice = random.Random(order_seed)
    states = {name: ClusterState() for name in CLUSTERS}
    log_ids = {name: LogId(f"{number:032x}") for number, name in enumerate(CLUSTERS)}
    tables = {name: Tables(name) for name in CLUSTERS}
    for name in CLUSTERS:
        for one in tables.values():
            one.replace(name, states, log_ids)
    turns = [name for name in CLUSTERS for _ in logs[name]]
    dice.shuffle(turns)
    for name in turns:
        changes = fold_record(states[name], logs[name].pop(0), name)
        for one in tables.values():
            one.apply(name, changes, states, log_ids)
    told = hashlib.blake2b()
    for name in CLUSTERS:
        table = derive(name, states, log_ids)
        assert {key: tables[name].view(key) for key in tables[name].keys()} == table  # noqa: SIM118
        assert tables[name].digest == digest_of_table(name, states, log_ids)
        told.update(repr([tables[name].digest, table]).encode())
        for key, service in table.items():
            told.update(repr(explain(name, key, states, log_ids)).encode())
            told.update(repr(slots_of(service, 251)).encode())
    return told.hexdigest()


def records_of(name: ClusterName) -> list[Record]:
    """One cluster's log: events of all kinds that tables depend on."""
    dice = random.Random(f"log of {name}")
    records = []
    for seq in range(1, RECORDS + 1):
        event = dice.choice((_service, _service, _endpoint, _endpoint, _endpoint, _cluster))(
            name, dice
        )
        records.append(
            Record(LogId("f" * 32), Seq(seq), seq, GENESIS_HASH, (event,), b"", GENESIS_HASH)
        )
    return records


def _service(_name: ClusterName, dice: random.Random) -> Event:
    key = f"shop/{dice.choice('xyz')}"
    if dice.random() < 0.1:
        return Event(EventType.SERVICE_REMOVED, key, None, "ann")
    data = {
        "global": dice.random() < 0.9,
        "ports": dice.choice([[], [{"port": 80, "name": "http"}]]),
        "affinity": str(dice.choice(list(Affinity))),
        "tiers": dice.choice(
            [[], [{"clusters": ["b", "no", "nobody", "nowhere"]}, {"clusters": ["*"]}]]
        ),
        "spill": {
            "below_percent": dice.choice([0, 70, 100]),
            "split": str(dice.choice(list(SpillSplit))),
        },
        "labels": {f"l{number}": "x" for number in dice.sample(range(9), 3)},
        "export": {"audiences": dice.choice([["mesh"], ["eu", "mesh"]])},
        "import": {"not_clusters": dice.choice([[], ["c"]])},
        "created_ms": dice.randrange(3),
    }
    return Event(EventType.SERVICE_SET, key, data, "ann")


def _endpoint(_name: ClusterName, dice: random.Random) -> Event:
    key = f"shop/{dice.choice('xyz')}/e{dice.randrange(6)}"
    if dice.random() < 0.2:
        return Event(EventType.ENDPOINT_REMOVED, key, None, "ann")
    data = {
        "address": f"10.0.0.{dice.randrange(1, 9)}",
        "ready": dice.random() < 0.7,
        "weight": dice.choice([0, 50, 100]),
        "zone": dice.choice(["", "z1"]),
    }
    return Event(EventType.ENDPOINT_SET, key, data, "ann")


def _cluster(name: ClusterName, dice: random.Random) -> Event:
    data = {
        "name": name,
        "id": CLUSTERS.index(name) + 1,
        "region": dice.choice(["", "eu"]),
        "zone": dice.choice(["", "z1"]),
        "weight": dice.choice([50, 100]),
        "state": str(dice.choice(list(Availability))),
    }
    return Event(EventType.CLUSTER_SET, name, data, "ann")


def test_neither_pythons_hashes_nor_the_order_of_the_logs_changes_anything() -> None:
    found = {fingerprint(order) for order in range(3)}
    for seed in HASH_SEEDS:
        program = f"from {__name__} import fingerprint; print(fingerprint({seed}))"
        ran = subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        found.add(ran.stdout.strip())
    assert len(found) == 1
