"""What a change costs, as ratios: `python tests/bench/derive_cost.py`.

The claim: an endpoint that flaps costs the same however many endpoints there are and however large
its service is. Times are of this machine; the ratios are what counts.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from time import perf_counter

from meshd.core.derive import derive, digest_of_table
from meshd.core.fold import EndpointChange
from meshd.core.liveness import Sight, StalenessRules
from meshd.core.state import ClusterState, Held
from meshd.core.tables import Tables
from meshd.model.endpoint import Endpoint
from meshd.model.ids import ClusterName, EndpointKey, LogId, Seq, ServiceKey
from meshd.model.service import Port, Service
from meshd.model.staleness import StalenessPolicy

CLUSTERS = tuple(ClusterName(f"cluster-{number}") for number in range(4))
LOG_IDS = {cluster: LogId(f"{number:032x}") for number, cluster in enumerate(CLUSTERS)}
HERE, THERE = CLUSTERS[:2]
SERVICE = Service(is_global=True, ports=(Port(80, "http"),))
DEMOTED = Sight(StalenessRules(StalenessPolicy.DEMOTE, 10, 20), 10)
FLAPS = 2000
RUNS = 5

States = dict[ClusterName, ClusterState]


def mesh(endpoints: int, per_service: int) -> States:
    """That many endpoints, evenly over four clusters, in services of that many backends."""
    states = {cluster: ClusterState() for cluster in CLUSTERS}
    for number in range(endpoints):
        service, within = divmod(number, per_service)
        state = states[CLUSTERS[within % len(CLUSTERS)]]
        key = ServiceKey("shop", f"service-{service}")
        address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        endpoint = Endpoint(address=address, zone="z1", node=f"node-{number % 100}")
        state.endpoints.setdefault(key, {})[f"e{within}"] = Held(endpoint, Seq(number), 0, "bench")
        if within < len(CLUSTERS):
            for other in states.values():
                other.services[key] = Held(SERVICE, Seq(0), 0, "bench")
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


def flap_us(endpoints: int, per_service: int) -> float:
    """One endpoint going down and up, in microseconds for each change."""
    states = mesh(endpoints, per_service)
    tables = Tables(HERE)
    tables.replace(HERE, states, LOG_IDS)
    key = next(iter(states[THERE].services))
    held = states[THERE].endpoints[key]

    def flaps() -> None:
        for number in range(FLAPS):
            old = held["e1"]
            value = replace(old.value, ready=not old.value.ready)
            held["e1"] = Held(value, Seq(old.seq + number), 0, "bench")
            (delta,) = tables.apply(
                THERE, [EndpointChange(EndpointKey(key, "e1"))], states, LOG_IDS
            )
            assert len(delta.upserts) == 1

    return median(seconds(flaps) for _ in range(RUNS)) / FLAPS * 1e6


def show_flaps(title: str, sizes: dict[str, tuple[int, int]]) -> None:
    """A line for each size, as a ratio to the first."""
    print(title)
    first = None
    for name, (endpoints, per_service) in sizes.items():
        cost_us = flap_us(endpoints, per_service)
        first = first or cost_us
        print(f"  {name:>8}  {cost_us:8.1f} µs  x {cost_us / first:.2f}")


def show_whole() -> None:
    """From scratch, and the changes that reach many backends at once."""
    states = mesh(100_000, 10)
    tables = Tables(HERE)
    large = ServiceKey("shop", "service-0")
    works: dict[str, Callable[[], object]] = {
        "derive from scratch": lambda: derive(HERE, states, LOG_IDS),
        "digest from scratch": lambda: digest_of_table(HERE, states, LOG_IDS),
        "first load": lambda: tables.replace(HERE, states, LOG_IDS),
        "replace a cluster, unchanged": lambda: tables.replace(THERE, states, LOG_IDS),
        "demote a cluster": lambda: tables.set_sight(THERE, DEMOTED),
        "all views": lambda: list(map(tables.view, tables.keys())),
        "one view, cached": lambda: tables.view(large),
    }
    print("100,000 endpoints in services of 10, four clusters")
    for name, work in works.items():
        print(f"  {name:<30} {seconds(work) * 1e3:10.3f} ms")
    tracemalloc.start()
    fresh = Tables(HERE)
    fresh.replace(HERE, states, LOG_IDS)
    print(f"  {'memory of the tables':<30} {tracemalloc.get_traced_memory()[0] / 1e6:10.1f} MB")
    tracemalloc.stop()


if __name__ == "__main__":
    show_flaps(
        "one flap, by the number of endpoints (services of 10)",
        {"1k": (1_000, 10), "10k": (10_000, 10), "100k": (100_000, 10)},
    )
    show_flaps(
        "one flap, by the size of its service (10,000 endpoints)",
        {"10": (10_000, 10), "1k": (10_000, 1_000), "10k": (10_000, 10_000)},
    )
    show_whole()
