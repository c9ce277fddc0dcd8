"""How many bytes of etcd an event takes, by its type, alone in its record and among 500.

For: the part `costs` of `make bench`. Not for: what a log takes in the end, which snapshots bound:
this is the price of writing. The reference, in an etcd of its own and the same run: the bytes that
each event adds to its record, as one key each. `in use` and `on disk` are of etcd's database; its
write-ahead log comes in files of 64 MB whatever is written.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console

from meshd.daemon.parts import Parts
from meshd.edges.embedded import EmbeddedConfig, EmbeddedEtcd
from meshd.edges.etcd import EtcdTarget, connect
from meshd.model.cluster import ClusterInfo
from meshd.model.codec import decode_record, event_bytes
from meshd.model.command import (
    AllocateIdentity,
    Command,
    RemoveEndpoint,
    SetCluster,
    SetEndpoint,
    SetNode,
    SetService,
    Submission,
)
from meshd.model.endpoint import Endpoint
from meshd.model.ids import EndpointKey, ServiceKey
from meshd.model.node import Node
from meshd.model.service import Port, Service
from meshd.runtime.ports import Kv, Put, Txn
from tests.bench.as_of_cost import ADDRESS, alone
from tests.bench.mock_peers import PUTS_PER_TXN, portions
from tests.bench.places import peers_of
from tests.bench.policies import labels
from tests.bench.streams import Figures
from tests.bench.tables import Row

SHARED: Final = ServiceKey("bench", "shared")
KEPT: Final = ServiceKey("bench", "kept")
PER_RECORD: Final = (1, 500)
EVENTS: Final = 5_000
ROUNDS_MAX: Final = 3
"""Sizes hardly differ from round to round."""
LOOK_EVERY_S: Final = 0.3
"""etcd commits to its database every 0.1 s and says its size then."""
SETTLE_TIMEOUT_S: Final = 60.0


def _endpoint(service: ServiceKey, number: int) -> SetEndpoint:
    address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    value = Endpoint(address=address, ports=(Port(8080, "http"),), zone="a", node="node-1")
    return SetEndpoint(EndpointKey(service, f"web-{number}"), value)


def _service(number: int) -> SetService:
    value = Service(ports=(Port(80, "http"),), is_global=True)
    return SetService(ServiceKey("bench", f"service-{number}"), value)


def _node(number: int) -> SetNode:
    value = Node(
        addresses=(f"10.9.{number >> 8}.{number & 255}",), pod_cidrs=(f"fd00:1:{number:x}::/48",)
    )
    return SetNode(f"node-{number}", value)


def _identity(number: int) -> AllocateIdentity:
    return AllocateIdentity(labels(number))


@dataclass(frozen=True, slots=True)
class Kind:
    """What is written, and what must be there before. A number gives a command."""

    name: str
    command: Callable[[int], Command]
    before: Callable[[int], Command] | None = None


KINDS: Final = (
    Kind("endpoint.set of a global service", lambda number: _endpoint(SHARED, number)),
    Kind("endpoint.set of a service that stays here", lambda number: _endpoint(KEPT, number)),
    Kind(
        "endpoint.removed of a global service",
        lambda number: RemoveEndpoint(_endpoint(SHARED, number).key),
        lambda number: _endpoint(SHARED, number),
    ),
    Kind("service.set", _service),
    Kind("node.set", _node),
    Kind("identity.set", _identity),
)


@dataclass(frozen=True, slots=True)
class Size:
    """Of a database."""

    in_use: float
    on_disk: float

    def since(self, before: Size, events: int) -> Size:
        """Tell what it grew, by event."""
        return Size(
            (self.in_use - before.in_use) / events, (self.on_disk - before.on_disk) / events
        )


async def measure_etcd(
    rounds: int, events: int = EVENTS, kinds: Sequence[Kind] = KINDS
) -> list[Row]:
    """All of it, at most three times. events: of each kind."""
    figures = Figures()
    for number in range(min(rounds, ROUNDS_MAX)):
        Console(stderr=True).print(f"bytes of etcd, round {number + 1}")
        for kind in kinds:
            for per_record in PER_RECORD:
                await _measure(figures, kind, min(per_record, events), events)
    return list(figures.rows.values())


async def _measure(figures: Figures, kind: Kind, per_record: int, events: int) -> None:
    """One kind, and then the same bytes as single keys."""
    with tempfile.TemporaryDirectory(prefix="meshd-bench-") as name:
        async with alone(Path(name)) as parts:
            await _prepare(parts, kind, events)
            head = parts.node.projector.local_head
            first = head.local.seq if head else 0
            before = await _settled(parts.node.kv)
            await _write(parts, kind.command, per_record, events)
            ours = (await _settled(parts.node.kv)).since(before, events)
            compacted = (await _compacted(parts.node.kv)).since(before, events)
            sizes = await _payload(parts, first)
    assert len(sizes) == events, f"{len(sizes)} events of {kind.name} instead of {events}"
    async with _empty() as kv:
        before = await _settled(kv)
        for portion in portions(enumerate(sizes), PUTS_PER_TXN):
            puts = tuple(Put(b"/raw/log/%020d" % number, bytes(size)) for number, size in portion)
            await kv.commit(Txn(success=puts))
        other = (await _settled(kv)).since(before, events)
        other_compacted = (await _compacted(kv)).since(before, events)
    of = f"{kind.name}, {per_record} a record"
    for what, mine, theirs in (
        ("in use", ours.in_use, other.in_use),
        ("on disk", ours.on_disk, other.on_disk),
        ("in use once compacted", compacted.in_use, other_compacted.in_use),
    ):
        figures.add(f"{of}: etcd's database, {what}", "bytes", mine, theirs, "the same as keys")


@asynccontextmanager
async def _empty() -> AsyncIterator[Kv]:
    """An etcd with nothing in it."""
    with tempfile.TemporaryDirectory(prefix="meshd-bench-") as name:
        config = EmbeddedConfig(Path(name), ADDRESS, peers_of(ADDRESS), history_kept="")
        async with EmbeddedEtcd(config):
            kv = connect(EtcdTarget(endpoints=(ADDRESS,)))
            try:
                yield kv
            finally:
                await kv.close()


async def _prepare(parts: Parts, kind: Kind, events: int) -> None:
    definitions = (
        SetService(SHARED, Service(ports=(Port(80, "http"),), is_global=True)),
        SetService(KEPT, Service(ports=(Port(80, "http"),))),
    )
    cluster = SetCluster(ClusterInfo(name="here", id=1))
    await parts.node.writer.submit(Submission((cluster, *definitions), "bench"))
    if kind.before is not None:
        await _write(parts, kind.before, 500, events)


async def _write(
    parts: Parts, command: Callable[[int], Command], per_record: int, events: int
) -> None:
    """Write so many, each submission a record of its own: nobody else is waiting meanwhile."""
    for numbers in portions(range(events), per_record):
        commands = tuple(command(number) for number in numbers)
        await parts.node.writer.submit(Submission(commands, "bench"))


async def _payload(parts: Parts, after: int) -> list[int]:
    """What each event adds to its record, in bytes, of all records behind a seq."""
    keys = parts.node.keyspace.local
    found = await parts.node.kv.range(keys.record(after + 1), keys.log_end)
    return list(_sizes(kv.value for kv in found.kvs))


def _sizes(raws: Iterator[bytes]) -> Iterator[int]:
    for raw in raws:
        for event in decode_record(raw, "the bench's log").events:
            yield event_bytes(event)


async def _settled(kv: Kv) -> Size:
    """Its size once it says the same twice."""
    async with asyncio.timeout(SETTLE_TIMEOUT_S):
        last = None
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            status = await kv.status()
            found = Size(status.db_used_bytes, status.db_size_bytes)
            if found == last:
                return found
            last = found


async def _compacted(kv: Kv) -> Size:
    """Its size when only the newest of every key is kept."""
    await kv.compact((await kv.status()).revision)
    return await _settled(kv)
