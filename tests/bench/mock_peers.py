"""Peers that exist as logs only: what their etcds would hold, without the meshds.

For: meshes larger than a machine could run. Not for: measuring. The records are those of a meshd,
made by its codec; whoever follows them can't see a difference. Several peers share an etcd, each
below a prefix of its own, so that few etcds serve hundreds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, TypeVar

from meshd.edges.system import SystemChance
from meshd.model.codec import (
    PROTOCOL_MAX,
    PROTOCOL_MIN,
    Descriptor,
    Heartbeat,
    encode_descriptor,
    encode_head,
    encode_heartbeat,
    encode_record,
)
from meshd.model.endpoint import Endpoint
from meshd.model.event import Event, EventType
from meshd.model.ids import ClusterName, Head, LogId
from meshd.model.keyspace import Keyspace, LogKeys
from meshd.model.node import Node
from meshd.model.schema import to_data
from meshd.model.service import Port, Service
from meshd.runtime.ports import Kv, Put, Txn

EVENTS_PER_RECORD: Final = 500
"""As a meshd commits them while much is applied."""
PUTS_PER_TXN: Final = 128
"""etcd's own limit."""
HEARTBEAT_EVERY_S: Final = 1.0
CLUSTERS_PER_SERVICE: Final = 10
"""A service is in so many clusters: one per group of so many has the same names."""
SERVICE: Final = Service(is_global=True, ports=(Port(80, "http"),))

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Size:
    """Of each mock peer."""

    endpoints: int
    nodes: int
    services: int


@dataclass(slots=True)
class MockPeer:
    """One log, and what the next record continues."""

    name: ClusterName
    number: int
    size: Size
    head: Head = field(default_factory=lambda: Head.genesis(LogId(SystemChance().uuid_hex())))
    beat: int = 0
    turns: int = 0

    @property
    def prefix(self) -> str:
        """Of all its keys."""
        return f"/{self.name}"

    @property
    def keys(self) -> LogKeys:
        """Of its export log."""
        return Keyspace(self.prefix).export()

    def beginning(self) -> Iterator[Event]:
        """Everything that it says of itself first."""
        cluster = {"name": self.name, "id": self.number}
        yield Event(EventType.CLUSTER_SET, self.name, cluster, "bench")
        for number in range(self.size.nodes):
            node = Node(
                addresses=(f"10.{self.number >> 1}.{number >> 8}.{number & 255}",),
                pod_cidrs=(f"fd00:{self.number:x}:{number:x}::/48",),
            )
            yield Event(EventType.NODE_SET, f"node-{number}", to_data(node), "bench")
        for number in range(self.size.services):
            yield Event(EventType.SERVICE_SET, self._service(number), to_data(SERVICE), "bench")
        for number in range(self.size.endpoints):
            yield self._endpoint(number, 1)

    @property
    def namespace(self) -> str:
        """Of all its services, which some other clusters have too."""
        return f"group-{self.number // CLUSTERS_PER_SERVICE}"

    def _service(self, number: int) -> str:
        return f"{self.namespace}/web-{number}"

    def _endpoint(self, number: int, weight: int) -> Event:
        value = Endpoint(
            address=f"10.{self.number & 255}.{number >> 8 & 255}.{number & 255}",
            ports=(Port(8080, "http"),),
            zone="a",
            node=f"node-{number % max(1, self.size.nodes)}",
            weight=weight,
        )
        key = f"{self._service(number % self.size.services)}/web-{number}"
        return Event(EventType.ENDPOINT_SET, key, to_data(value), "bench")

    def change(self) -> Event:
        """The next change."""
        self.turns += 1
        return self.turn(self.turns)

    def turn(self, number: int) -> Event:
        """The so-manieth change, which changes something for sure: endpoints in their order get one
        weight after the other.
        """
        turns, endpoint = divmod(number, self.size.endpoints)
        return self._endpoint(endpoint, 2 + turns % 99)

    def record(self, events: Sequence[Event]) -> tuple[Put, Put]:
        """The next record, and the head that it makes."""
        record = encode_record(self.head, time.time_ns() // 1_000_000, events)
        self.head = record.head
        return (
            Put(self.keys.record(self.head.seq), record.raw),
            Put(self.keys.head, encode_head(self.head)),
        )

    def described(self) -> tuple[Put, Put]:
        """Whose etcd it is, and the first heartbeat."""
        created_ms = time.time_ns() // 1_000_000
        descriptor = Descriptor(self.name, self.number, PROTOCOL_MIN, PROTOCOL_MAX, created_ms)
        key = Keyspace(self.prefix).descriptor
        return Put(key, encode_descriptor(descriptor)), self.heartbeat()

    def heartbeat(self) -> Put:
        """The next sign of life."""
        self.beat += 1
        heartbeat = Heartbeat(self.beat, time.time_ns() // 1_000_000, "", "", self.head)
        return Put(self.keys.heartbeat, encode_heartbeat(heartbeat))


def portions(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """In order, so many at a time."""
    left = iter(items)
    while portion := list(islice(left, size)):
        yield portion


async def lay(kv: Kv, peer: MockPeer) -> None:
    """Write its log, as long as what it has needs."""
    for events in portions(peer.beginning(), EVENTS_PER_RECORD):
        await kv.commit(Txn(success=peer.record(events)))
    await kv.commit(Txn(success=peer.described()))


async def append(
    kv: Kv, peer: MockPeer, events: Iterable[Event], per_record: int = EVENTS_PER_RECORD
) -> None:
    """Write more of its log, records of so many events, in as few transactions as etcd takes."""
    at_once = max(1, min(PUTS_PER_TXN - 1, EVENTS_PER_RECORD // per_record))
    for portion in portions(portions(events, per_record), at_once):
        puts = [peer.record(one) for one in portion]
        await kv.commit(Txn(success=(*(record for record, _ in puts), puts[-1][1])))


async def keep_beating(kv: Kv, peers: Sequence[MockPeer]) -> None:
    """Show that they live, for ever. All of an etcd are written together: one call each second."""
    while True:
        for portion in portions(peers, PUTS_PER_TXN):
            await kv.commit(Txn(success=tuple(peer.heartbeat() for peer in portion)))
        await asyncio.sleep(HEARTBEAT_EVERY_S)
