"""A mesh of hundreds of clusters: one real meshd follows as many logs as are wanted.

For: `make bench-mesh ARGS='--clusters 250 --endpoints 250000 --nodes 25000 --rate 325'`, the size
of Cilium Cluster Mesh's published scale test. Not for: judging. All others are mock peers, whose
logs lie in a few etcds; everything that meshd does with them is real. Times are of this machine,
which the mock peers, their etcds and the meshd share.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import orjson
import yaml
from rich.console import Console
from rich.table import Table

from meshd.edges.embedded import EmbeddedConfig, EmbeddedEtcd
from meshd.edges.etcd import EtcdKv, EtcdTarget, connect
from meshd.model.ids import ClusterName
from meshd.runtime.ports import Txn
from meshd.telemetry.log import configure
from tests.bench.daemons import ETCD, Meshd, meshd
from tests.bench.lags import FOLLOWING, Lags
from tests.bench.machine import Machine, describe, keep_data_in
from tests.bench.mock_peers import PUTS_PER_TXN, MockPeer, Size, keep_beating, lay, portions
from tests.bench.places import etcd_at, peers_of

PEERS_PER_ETCD: Final = 64
FIRST_ETCD: Final = 100
"""The number of their first host: below are those of the meshd."""
FIRST_NUMBER: Final = 2
"""Of the mock peers' ids; the real meshd has 1."""
SERVICES_PER_APPLY: Final = 500
TICK_S: Final = 0.02
"""How often changes are written, so many that the rate is kept."""
READY_TIMEOUT_S: Final = 600.0
DRAIN_TIMEOUT_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """How large, and for how long it changes at which rates. followed: what its subscriber is told,
    `tables` or `events`.
    """

    clusters: int
    endpoints: int
    nodes: int
    services: int
    rates_hz: tuple[float, ...]
    seconds: float
    followed: str = "tables"

    @property
    def size(self) -> Size:
        """Of each peer."""
        each = self.clusters
        return Size(self.endpoints // each, self.nodes // each, max(1, self.services // each))


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What was measured."""

    machine: dict[str, Any]
    wanted: dict[str, Any]
    laid_s: float
    first_copy_s: float
    ready_s: float
    cold_start_s: float
    rss_bytes: int
    rss_bytes_per_endpoint: float
    rates: list[dict[str, float]]


@dataclass(slots=True)
class MockMesh:
    """The peers, by the etcd that they lie in."""

    stores: list[tuple[EtcdKv, list[MockPeer]]] = field(default_factory=list)
    addresses: dict[str, str] = field(default_factory=dict)

    @property
    def peers(self) -> list[MockPeer]:
        """All of them."""
        return [peer for _, peers in self.stores for peer in peers]

    @property
    def namespaces(self) -> Counter[str]:
        """Of their services, and how many clusters have those of each."""
        return Counter(peer.namespace for peer in self.peers)

    async def lay_all(self) -> None:
        """Write all logs, those of one etcd one after the other."""

        async def lay_those(kv: EtcdKv, peers: Sequence[MockPeer]) -> None:
            for peer in peers:
                await lay(kv, peer)

        async with asyncio.TaskGroup() as tasks:
            for kv, peers in self.stores:
                tasks.create_task(lay_those(kv, peers))

    async def change(self, rate_hz: float, seconds: float, lags: Lags) -> float:
        """Write changes at a rate, each a record of its own; returns the rate that it came to."""
        chance = random.Random(8)
        began_s = time.perf_counter()
        written = 0
        while (passed_s := time.perf_counter() - began_s) < seconds:
            due = int(rate_hz * passed_s) - written
            by_store: dict[int, dict[str, MockPeer]] = {}
            for _ in range(min(due, len(self.peers))):
                store = chance.randrange(len(self.stores))
                peer = chance.choice(self.stores[store][1])
                by_store.setdefault(store, {})[peer.name] = peer
            async with asyncio.TaskGroup() as tasks:
                for store, peers in by_store.items():
                    kv = self.stores[store][0]
                    written += len(peers)
                    tasks.create_task(self._write(kv, list(peers.values()), lags))
            await asyncio.sleep(TICK_S)
        return written / (time.perf_counter() - began_s)

    async def _write(self, kv: EtcdKv, peers: Sequence[MockPeer], lags: Lags) -> None:
        """One change of each, in as few transactions as etcd takes."""
        for portion in portions(peers, PUTS_PER_TXN // 2):
            changes = [peer.change() for peer in portion]
            puts = [
                put
                for peer, event in zip(portion, changes, strict=True)
                for put in peer.record((event,))
            ]
            # What is told before it is acknowledged must be waited for by then.
            for peer, event in zip(portion, changes, strict=True):
                lags.acked(peer.name, event.key.rpartition("/")[2], peer.head.seq)
            await kv.commit(Txn(success=tuple(puts)))


async def define(one: Meshd, mesh: MockMesh, wanted: Wanted) -> None:
    """Offer what they offer: a cluster's tables have the services that it has itself."""
    spec = {"global": True, "ports": [{"name": "http", "port": 80}]}
    documents = [
        {
            "apiVersion": "meshd.io/v1",
            "kind": "Service",
            "metadata": {"namespace": namespace, "name": f"web-{number}"},
            "spec": spec,
        }
        for namespace in mesh.namespaces
        for number in range(wanted.size.services)
    ]
    for portion in portions(documents, SERVICES_PER_APPLY):
        url = f"http://{one.address}/v1/apply"
        body = {"apiVersion": "v1", "kind": "List", "items": portion}
        async with one.http.post(url, json=body) as answer:
            assert answer.status == HTTPStatus.OK, await answer.text()


async def until_served(one: Meshd, mesh: MockMesh, wanted: Wanted) -> None:
    """Wait until every peer is Ready and the tables have everybody's endpoints."""
    async with asyncio.timeout(READY_TIMEOUT_S):
        while not await is_served(one, mesh, wanted):  # noqa: ASYNC110 it is asked
            await asyncio.sleep(0.2)


async def until_kept(one: Meshd) -> None:
    """Wait until the replicas hold all that was read: they are written behind it."""
    async with asyncio.timeout(READY_TIMEOUT_S):
        while not await is_kept(one):  # noqa: ASYNC110 it is asked
            await asyncio.sleep(0.2)


async def is_kept(one: Meshd) -> bool:
    """Whether a start would find everything in the own etcd."""
    peers = orjson.loads(await one.get("/v1/peers"))["items"]
    return all(peer["replica_seq"] == peer["seq"] for peer in peers)


async def is_served(one: Meshd, mesh: MockMesh, wanted: Wanted) -> bool:
    """Whether all is there, by the last service of each group of clusters."""
    status = orjson.loads(await one.get("/v1/status"))
    if any(peer["phase"] != "Ready" for peer in status["peers"]):
        return False
    last = wanted.size.services - 1
    each = len(range(last, wanted.size.endpoints, wanted.size.services))
    for namespace, clusters in mesh.namespaces.items():
        table = orjson.loads(await one.get(f"/v1/tables/{namespace}/web-{last}"))
        if len(table["backends"]) != each * clusters:
            return False
    return True


async def started(
    folder: Path, mesh: MockMesh, wanted: Wanted, config: Path
) -> tuple[float, float, int]:
    """Start a meshd: in how many seconds it was ready, and served everything; and what it then took
    in memory. It is ended once its replicas have everything.
    """
    began_s = time.perf_counter()
    async with meshd(folder, config=config) as one:
        ready_s = time.perf_counter() - began_s
        await until_served(one, mesh, wanted)
        served_s, rss_bytes = time.perf_counter() - began_s, one.rss_bytes()
        await until_kept(one)
        return ready_s, served_s, rss_bytes


async def measure(wanted: Wanted, folder: Path) -> Figures:
    """All of it."""
    say = Console(stderr=True).print
    async with AsyncExitStack() as stack:
        mesh = MockMesh()
        names = [ClusterName(f"mock-{number}") for number in range(wanted.clusters)]
        for place, group in enumerate(
            portions(list(enumerate(names, FIRST_NUMBER)), PEERS_PER_ETCD)
        ):
            address = etcd_at(FIRST_ETCD + place)
            await stack.enter_async_context(EmbeddedEtcd(_etcd(folder / f"peers-{place}", address)))
            kv = connect(EtcdTarget(endpoints=(address,)))
            stack.push_async_callback(kv.close)
            mesh.stores.append(
                (kv, [MockPeer(name, number, wanted.size) for number, name in group])
            )
            mesh.addresses |= {name: address for _, name in group}
        await stack.enter_async_context(EmbeddedEtcd(_etcd(folder / "own", ETCD)))
        began_s = time.perf_counter()
        await mesh.lay_all()
        laid_s = time.perf_counter() - began_s
        say(f"{wanted.clusters} logs of mock peers written in {laid_s:.1f} s")
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        beating = [tasks.create_task(keep_beating(kv, peers)) for kv, peers in mesh.stores]
        stack.callback(lambda: [task.cancel() for task in beating])
        async with meshd(folder) as one:
            await define(one, mesh, wanted)
        config = _config(folder, mesh)
        _, first_copy_s, _ = await started(folder, mesh, wanted, config)
        say(f"copied for the first time, and served, in {first_copy_s:.1f} s")
        ready_s, cold_start_s, rss_bytes = await started(folder, mesh, wanted, config)
        say(f"started with replicas: ready in {ready_s:.1f} s, all served in {cold_start_s:.1f} s")
        rates = []
        async with meshd(folder, config=config) as one:
            await until_served(one, mesh, wanted)
            for rate_hz in wanted.rates_hz:
                rates.append(await at_rate(one, mesh, rate_hz, wanted))
                say(str(rates[-1]))
        return Figures(
            machine=asdict(describe()),
            wanted=asdict(wanted),
            laid_s=laid_s,
            first_copy_s=first_copy_s,
            ready_s=ready_s,
            cold_start_s=cold_start_s,
            rss_bytes=rss_bytes,
            rss_bytes_per_endpoint=rss_bytes / wanted.endpoints,
            rates=rates,
        )


async def at_rate(one: Meshd, mesh: MockMesh, rate_hz: float, wanted: Wanted) -> dict[str, float]:
    """Change at a rate, and see how long a subscriber waits for each change."""
    lags, loaded = Lags(), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(FOLLOWING[wanted.followed](one, lags, loaded))
        await loaded.wait()
        cpu_s = one.cpu_s()
        real_hz = await mesh.change(rate_hz, wanted.seconds, lags)
        cpu_s = one.cpu_s() - cpu_s
        left = lags.missing
        until_s = time.perf_counter() + DRAIN_TIMEOUT_S
        while lags.missing and time.perf_counter() < until_s:  # noqa: ASYNC110 it is counted
            await asyncio.sleep(0.05)
        following.cancel()
    found = sorted(lags.values_s) or [float("nan")]
    return {
        "wanted_hz": rate_hz,
        "written_hz": real_hz,
        "p50_s": statistics.median(found),
        "p99_s": found[int(len(found) * 0.99)],
        "untold_at_the_end": left,
        "never_told": lags.missing,
        "meshd_cores": cpu_s / wanted.seconds,
    }


def _etcd(folder: Path, address: str) -> EmbeddedConfig:
    return EmbeddedConfig(folder, address, peers_of(address), history_kept="5m")


def _config(folder: Path, mesh: MockMesh) -> Path:
    """Its settings: hundreds of peers don't fit in a command line."""
    peers = [
        {"name": peer.name, "endpoints": [mesh.addresses[peer.name]], "prefix": peer.prefix}
        for peer in mesh.peers
    ]
    file = folder / "meshd.yaml"
    file.write_text(yaml.safe_dump({"peers": peers}))
    return file


def show(figures: Figures) -> None:
    """Print it for people."""
    table = Table(title=f"mock mesh, {Machine(**figures.machine)}")
    for column in ("events/s wanted", "written", "lag p50", "lag p99", "never told", "meshd"):
        table.add_column(column, justify="right")
    for rate in figures.rates:
        table.add_row(
            f"{rate['wanted_hz']:,.0f}",
            f"{rate['written_hz']:,.0f}",
            f"{rate['p50_s'] * 1e3:,.0f} ms",
            f"{rate['p99_s'] * 1e3:,.0f} ms",
            f"{rate['never_told']:,.0f}",
            f"{rate['meshd_cores']:.2f} cores",
        )
    console = Console()
    console.print(
        f"first copy {figures.first_copy_s:.1f} s; cold start: ready {figures.ready_s:.1f} s,"
        f" all served {figures.cold_start_s:.1f} s; memory"
        f" {figures.rss_bytes / 2**20:,.0f} MiB, {figures.rss_bytes_per_endpoint:,.0f} bytes an"
        " endpoint"
    )
    console.print(table)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="make bench-mesh", description=__doc__)
    parser.add_argument("--clusters", type=int, default=250)
    parser.add_argument("--endpoints", type=int, default=250_000)
    parser.add_argument("--nodes", type=int, default=25_000)
    parser.add_argument("--services", type=int, default=25_000)
    parser.add_argument(
        "--rate", type=float, action="append", help="changes a second in all; may be repeated"
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="for each rate")
    parser.add_argument(
        "--follow",
        choices=tuple(FOLLOWING),
        default="tables",
        help="what the subscriber is told whose lag is measured",
    )
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    parser.add_argument("--tmpfs", action="store_true", help="keep the data in memory")
    given = parser.parse_args()
    keep_data_in(is_tmpfs=given.tmpfs)
    rates_hz = tuple(given.rate or (325.0,))
    wanted = Wanted(
        given.clusters,
        given.endpoints,
        given.nodes,
        given.services,
        rates_hz,
        given.seconds,
        given.follow,
    )
    configure("warning", "console")
    with tempfile.TemporaryDirectory(prefix="meshd-bench-") as name:
        figures = asyncio.run(measure(wanted, Path(name)))
    show(figures)
    if given.json:
        given.json.write_bytes(orjson.dumps(asdict(figures), option=orjson.OPT_INDENT_2))


if __name__ == "__main__":
    main()
