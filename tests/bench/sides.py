"""The two sides of a replication: a source's etcd, and the meshd or the mirror that follows it.

For: starting and ending them, and asking whether all has arrived. Not for: measuring. Where no
meshd writes, the source is a mock peer's log. Its last events are of the service that every meshd
of a bench offers, so that one small table tells whether everything before is there.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final

import grpc
import orjson

from meshd.edges.embedded import EmbeddedConfig, EmbeddedEtcd
from meshd.edges.etcd import EtcdKv, EtcdTarget, connect
from meshd.model.endpoint import Endpoint
from meshd.model.event import Event, EventType
from meshd.model.ids import ClusterName
from meshd.model.schema import to_data
from meshd.model.service import Port
from tests.bench.alongside import alongside
from tests.bench.daemons import NAMESPACE, TABLE_PATH, Meshd, cpu_s_of, meshd
from tests.bench.mesh import MockMesh, Wanted, define
from tests.bench.mock_peers import SERVICE, MockPeer, Size, keep_beating
from tests.bench.places import api_at, etcd_at, peers_of

SOURCE: Final = etcd_at(31)
READER: Final = etcd_at(32)
TARGET: Final = etcd_at(33)
"""Of the mirror."""
HERE_API: Final = api_at(31)
THERE_API: Final = api_at(32)
THERE_ID: Final = 1
HERE_ID: Final = 3
"""Mock peers have those that are none of a real one: `mock_peer`."""
LOOK_EVERY_S: Final = 0.01
ARRIVAL_TIMEOUT_S: Final = 600.0
ENDPOINTS_MAX: Final = 2_000_000
"""Twice the largest first copy here: what a peer may have by default is half of that copy."""
HISTORY_KEPT: Final = "1h"
"""As a meshd's own etcd keeps it. A mirror that falls behind what is kept begins from the first
key, and while a link is down so much may be written that five minutes go by.
"""


@dataclass(frozen=True, slots=True)
class Store:
    """An etcd of its own. channel: for clients that are grpc.aio and nothing else."""

    etcd: EmbeddedEtcd
    kv: EtcdKv
    channel: grpc.aio.Channel

    def cpu_s(self) -> float:
        """The processor time that it took so far."""
        assert self.etcd.pid is not None
        return cpu_s_of(self.etcd.pid)


@asynccontextmanager
async def store(folder: Path, address: str) -> AsyncIterator[Store]:
    """Run one on a new folder, which is removed at the end."""
    config = EmbeddedConfig(folder, address, peers_of(address), history_kept=HISTORY_KEPT)
    try:
        async with EmbeddedEtcd(config) as etcd:
            kv = connect(EtcdTarget(endpoints=(address,)))
            async with grpc.aio.insecure_channel(f"ipv4:{address}") as channel:
                try:
                    yield Store(etcd, kv, channel)
                finally:
                    await kv.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def mock_peer(number: int, size: Size) -> MockPeer:
    """One of a few."""
    return MockPeer(ClusterName(f"mock-{number}"), number, size)


def beating(kv: EtcdKv, *peers: MockPeer) -> AbstractAsyncContextManager[None]:
    """Let them live as long as the context lasts."""
    return alongside(keep_beating(kv, peers))


@asynccontextmanager
async def following(folder: Path, *overrides: str) -> AsyncIterator[Meshd]:
    """Run the meshd that follows others, on the etcd at READER."""
    settings = (
        "cluster.name=there",
        f"cluster.id={THERE_ID}",
        f"etcd.endpoints={READER}",
        f"replication.budget.endpoints_max={ENDPOINTS_MAX}",
    )
    async with meshd(folder, *settings, *overrides, address=THERE_API) as one:
        yield one


async def offer(one: Meshd, kv: EtcdKv, peer: MockPeer) -> None:
    """Offer what a mock peer offers: without that its endpoints are in no table of this cluster."""
    size = peer.size
    wanted = Wanted(1, size.endpoints, size.nodes, size.services, (), 0.0)
    await define(one, MockMesh([(kv, [peer])]), wanted)


async def list_peer(
    one: Meshd, name: str, address: str = SOURCE, prefix: str = "/meshd/v1"
) -> None:
    """Have it follow a peer from now on."""
    await one.put(f"/v1/peers/{name}", {"endpoints": [address], "prefix": prefix})


def mark(number: int) -> tuple[Event, Event]:
    """What is written last, to see when it arrives. number: from 1 to 1,000."""
    value = Endpoint(address="10.250.0.1", ports=(Port(8080, "http"),), weight=number)
    service = f"{NAMESPACE}/web"
    return (
        Event(EventType.SERVICE_SET, service, to_data(SERVICE), "bench"),
        Event(EventType.ENDPOINT_SET, f"{service}/mark", to_data(value), "bench"),
    )


async def until_marked(one: Meshd, peer: MockPeer, number: int) -> None:
    """Wait until the table has what was written last, and so all before it."""
    async with asyncio.timeout(ARRIVAL_TIMEOUT_S):
        while not await _is_marked(one, peer, number):  # noqa: ASYNC110 it is asked
            await asyncio.sleep(LOOK_EVERY_S)


async def _is_marked(one: Meshd, peer: MockPeer, number: int) -> bool:
    async with one.http.get(f"http://{one.address}{TABLE_PATH}") as answer:
        if answer.status != HTTPStatus.OK:
            return False
        table = orjson.loads(await answer.read())
    return any(
        backend["cluster"] == peer.name and backend["endpoint_weight"] == number
        for backend in table["backends"]
    )
