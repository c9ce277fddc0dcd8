"""What the tables cost: one endpoint's flap by size, a derivation from scratch, memory.

For: the claim that cost follows what changed. Not for: etcd or the network: everything here is
folded and derived in this process. Each figure has its reference in the same run: the smallest mesh
for flaps, orjson reading the same endpoints for the derivation, the plain values for memory.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from time import perf_counter

import orjson

from meshd.core.derive import derive
from meshd.core.fold import fold_record
from meshd.core.state import ClusterState, Held
from meshd.core.tables import Tables
from meshd.model.codec import encode_record
from meshd.model.endpoint import Endpoint
from meshd.model.event import Event, EventType, Record
from meshd.model.ids import GENESIS_HASH, ClusterName, EndpointKey, Head, LogId, Seq, ServiceKey
from meshd.model.schema import to_data
from meshd.model.service import Affinity, Port, Service

SERVICE = Service(is_global=True, ports=(Port(80, "http"),), affinity=Affinity.LOCAL)
FLAPS = 500
MESH_CLUSTERS = 4
LARGE = (250, 250_000)
"""Clusters and endpoints: the published scale test of Cilium's Cluster Mesh."""
CLUSTERS_PER_SERVICE = 10
ENDPOINTS_PER_CLUSTER = 10

States = dict[ClusterName, ClusterState]
BY_ENDPOINTS = {"1k": (1_000, 10), "10k": (10_000, 10), "100k": (100_000, 10)}
BY_SERVICE = {"10": (10_000, 10), "1k": (10_000, 1_000), "10k": (10_000, 10_000)}


def names(number: int) -> list[ClusterName]:
    """So many clusters."""
    return [ClusterName(f"cluster-{one}") for one in range(number)]


def log_ids(states: Mapping[ClusterName, ClusterState]) -> dict[ClusterName, LogId]:
    """A log for each."""
    return {name: LogId(f"{number:032x}") for number, name in enumerate(states)}


def endpoint(number: int) -> Endpoint:
    """One of many."""
    address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    return Endpoint(address=address, zone="z1", node=f"node-{number % 100}")


def mesh(endpoints: int, per_service: int) -> States:
    """So many endpoints, evenly over four clusters, in services of so many backends."""
    clusters = names(MESH_CLUSTERS)
    states = {cluster: ClusterState() for cluster in clusters}
    for number in range(endpoints):
        service, within = divmod(number, per_service)
        key = ServiceKey("shop", f"service-{service}")
        held = states[clusters[within % len(clusters)]].endpoints.setdefault(key, {})
        held[f"e{within}"] = Held(endpoint(number), Seq(number), 0, "bench")
        if not within:
            for state in states.values():
                state.services[key] = Held(SERVICE, Seq(0), 0, "bench")
    return states


def large_mesh(clusters: int, endpoints: int) -> States:
    """So many endpoints in so many clusters, every service in ten of them, all of them in the
    first.
    """
    members = names(clusters)
    states = {cluster: ClusterState() for cluster in members}
    per_service = CLUSTERS_PER_SERVICE * ENDPOINTS_PER_CLUSTER
    for number in range(endpoints):
        service, within = divmod(number, per_service)
        key = ServiceKey("shop", f"service-{service}")
        place = service * CLUSTERS_PER_SERVICE + within // ENDPOINTS_PER_CLUSTER
        state = states[members[place % clusters]]
        held = Held(endpoint(number), Seq(number), 0, "bench")
        state.endpoints.setdefault(key, {})[f"e{within}"] = held
        for member in (state, states[members[0]]):
            if key not in member.services:
                member.services[key] = Held(SERVICE, Seq(0), 0, "bench")
    return states


def seconds(work: Callable[[], object]) -> float:
    """How long it takes, without the collector's pauses."""
    gc.collect()
    gc.disable()
    start = perf_counter()
    work()
    taken = perf_counter() - start
    gc.enable()
    return taken


class Flapping:
    """A mesh in which one endpoint goes down and up: folded from a record, then derived."""

    def __init__(self, endpoints: int, per_service: int) -> None:
        self._states = mesh(endpoints, per_service)
        self._log_ids = log_ids(self._states)
        here, self._there = names(2)
        self._tables = Tables(here)
        for name in self._states:
            self._tables.replace(name, self._states, self._log_ids)
        self._records = list(self._made())

    def _made(self) -> Iterator[Record]:
        key = str(EndpointKey(ServiceKey("shop", "service-0"), "e1"))
        head = Head(self._log_ids[self._there], Seq(1_000_000), GENESIS_HASH)
        for number in range(FLAPS):
            value = replace(endpoint(1), ready=bool(number % 2))
            event = Event(EventType.ENDPOINT_SET, key, to_data(value), "bench")
            record = encode_record(head, number, [event])
            head = record.head
            yield record

    def flap(self) -> None:
        """All flaps, one record after the other."""
        for record in self._records:
            changes = fold_record(self._states[self._there], record, self._there)
            (delta,) = self._tables.apply(self._there, changes, self._states, self._log_ids)
            if len(delta.upserts) != 1:
                raise AssertionError("a flap changes one backend")


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of every round, and its reference in the same round."""

    name: str
    unit: str
    ours: list[float]
    reference: list[float]
    reference_name: str


def flap_rows(rounds: int) -> list[Row]:
    """One flap, by the number of endpoints and by the size of the service; sizes interleaved."""
    rows = []
    for title, sizes in (
        ("one flap, {} endpoints in services of 10", BY_ENDPOINTS),
        ("one flap, a service of {} backends", BY_SERVICE),
    ):
        meshes = {name: Flapping(*size) for name, size in sizes.items()}
        costs: dict[str, list[float]] = {name: [] for name in meshes}
        for _ in range(rounds + 1):
            for name, flapping in meshes.items():
                costs[name].append(seconds(flapping.flap) / FLAPS * 1e6)
        smallest = next(iter(sizes))
        rows += [
            Row(title.format(name), "µs", cost[1:], costs[smallest][1:], f"with {smallest}")
            for name, cost in costs.items()
        ]
    return rows


def scratch_row(rounds: int) -> Row:
    """The table of a large mesh from scratch, against reading its endpoints as JSON."""
    states = large_mesh(*LARGE)
    ids = log_ids(states)
    here = next(iter(states))
    texts = [
        orjson.dumps(to_data(held.value))
        for state in states.values()
        for endpoints in state.endpoints.values()
        for held in endpoints.values()
    ]
    ours, reference = [], []
    for _ in range(rounds):
        ours.append(seconds(lambda: derive(here, states, ids)))
        reference.append(seconds(lambda: [orjson.loads(text) for text in texts]))
    title = f"derive {LARGE[1]:,} endpoints in {LARGE[0]} clusters from scratch"
    return Row(title, "s", ours, reference, "orjson reads them")


def memory_rows() -> list[Row]:
    """Bytes for each endpoint: of the table, against those of the state that it is made from."""
    tracemalloc.start()
    states = mesh(20_000, 10)
    state_bytes = tracemalloc.get_traced_memory()[0]
    ids = log_ids(states)
    tables = Tables(next(iter(states)))
    for name in states:
        tables.replace(name, states, ids)
    table_bytes = tracemalloc.get_traced_memory()[0] - state_bytes
    tracemalloc.stop()
    per_state, per_table = state_bytes / 20_000, table_bytes / 20_000
    return [
        Row("memory of the states, each endpoint", "bytes", [per_state], [per_state], "itself"),
        Row("memory of the tables, each endpoint", "bytes", [per_table], [per_state], "the states"),
    ]


def measure_tables(rounds: int) -> list[Row]:
    """All of it."""
    return [*flap_rows(rounds), scratch_row(min(rounds, 3)), *memory_rows()]
