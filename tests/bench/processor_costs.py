"""The processor time of 100,000 events, by process: who writes them, who follows, and their etcds.

For: the part `costs` of `make bench`. Two real meshds, one of which follows the other, each with an
etcd of its own; times from /proc/PID/stat. The reference, afterwards in the same round, on two more
etcds: bare clients that write as many transactions of the same sizes, and copy the records by a
watch and puts. Not for: how long it takes, which depends on who else is there.

Written by REST: in bulk, so that 500 events are one record, and one by one by many callers. What
HTTP and JSON take is part of the writer's figure and no part of its reference's.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson
from rich.console import Console

from meshd.edges.embedded import EmbeddedConfig, EmbeddedEtcd
from meshd.edges.etcd import EtcdTarget, connect
from meshd.model.codec import decode_local_head, decode_record
from meshd.model.keyspace import SEQ_DIGITS, Keyspace
from tests.bench.children import Child, child
from tests.bench.daemons import ETCD, NAMESPACE, START_TIMEOUT_S, Meshd, cpu_s_of, meshd
from tests.bench.places import api_at, etcd_at, peers_of
from tests.bench.streams import Figures
from tests.bench.tables import Row

THERE_ETCD: Final = etcd_at(7)
THERE_API: Final = api_at(7)
BARE_ETCD: Final = etcd_at(9)
BARE_THERE_ETCD: Final = etcd_at(10)
MARK_PATH: Final = f"/v1/services/{NAMESPACE}/mark"
MARK_TABLE: Final = f"/v1/tables/{NAMESPACE}/mark"
"""A service of one backend, which is written last and looked at there."""
EVENTS_PER_WRITE: Final = 500
CALLERS: Final = 16
PER_EVENTS: Final = 100_000
LOOK_EVERY_S: Final = 0.1
SIDES: Final = ("the writer", "the writer's etcd", "the reader", "the reader's etcd")


@dataclass(frozen=True, slots=True)
class Shape:
    """What an average commit wrote: keys with SEQ for the seq, and how many bytes.

    records: how many commits there were.
    """

    puts: list[tuple[str, int]]
    records: int


async def measure_processor(rounds: int, bulk: int = 40_000, single: int = 5_000) -> list[Row]:
    """All of it, `rounds` times. bulk, single: how many events are written in that way, if any."""
    figures = Figures()
    for number in range(rounds):
        Console(stderr=True).print(f"processor, round {number + 1} of {rounds}")
        for name, events, callers in (("in bulk", bulk, 1), ("one by one", single, CALLERS)):
            if not events:
                continue
            with tempfile.TemporaryDirectory(prefix="meshd-bench-") as folder:
                ours, shape = await _by_meshd(Path(folder), events, callers)
                bare = await _by_bare_clients(Path(folder), shape)
            for side, mine, theirs in zip(SIDES, ours, bare, strict=True):
                of = f"processor of {side}, 100,000 events {name}"
                each = PER_EVENTS / events
                figures.add(of, "s", mine * each, theirs * each, "bare clients")
    return list(figures.rows.values())


@asynccontextmanager
async def _etcds(folder: Path, *addresses: str) -> AsyncIterator[list[int]]:
    """Run them; gives their process ids."""
    async with AsyncExitStack() as stack:
        pids = []
        for address in addresses:
            place = folder / address
            config = EmbeddedConfig(place, address, peers_of(address), history_kept="")
            etcd = await stack.enter_async_context(EmbeddedEtcd(config))
            assert etcd.pid is not None
            pids.append(etcd.pid)
        yield pids


async def _by_meshd(folder: Path, events: int, callers: int) -> tuple[list[float], Shape]:
    """Seconds of each side, and the shape of what was committed."""
    there_settings = (
        "cluster.name=there",
        "cluster.id=2",
        f"etcd.endpoints={THERE_ETCD}",
        f"peers=[{{name: bench, endpoints: ['{ETCD}']}}]",
    )
    async with (
        _etcds(folder, ETCD, THERE_ETCD) as etcds,
        meshd(folder) as here,
        meshd(folder, *there_settings, address=THERE_API) as there,
    ):
        for one in (here, there):
            await one.put(MARK_PATH, {"ports": [{"port": 80}], "global": True})
        await _mark(here, there, 1)
        first_seq = await _exported()
        pids = (here.process.pid, etcds[0], there.process.pid, etcds[1])
        before = [cpu_s_of(pid) for pid in pids]
        await (_in_bulk(here, events) if callers == 1 else _one_by_one(here, events, callers))
        await _mark(here, there, 2)
        taken_s = [cpu_s_of(pid) - was for pid, was in zip(pids, before, strict=True)]
        return taken_s, await _shape(first_seq)


async def _in_bulk(one: Meshd, events: int) -> None:
    for _ in range(0, events, EVENTS_PER_WRITE):
        await one.touch_many(min(events, EVENTS_PER_WRITE), service="web")


async def _one_by_one(one: Meshd, events: int, callers: int) -> None:
    async def caller() -> None:
        for _ in range(events // callers):
            await one.touch()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(callers):
            tasks.create_task(caller())


async def _mark(here: Meshd, there: Meshd, weight: int) -> None:
    """Write one more, and wait until it is in the other one's table: so is all before."""
    body = {"address": "10.7.0.1", "weight": weight}
    await here.put(f"{MARK_PATH}/endpoints/one", body)
    async with asyncio.timeout(START_TIMEOUT_S):
        while True:
            backends = orjson.loads(await there.get(MARK_TABLE))["backends"]
            if any(backend["endpoint_weight"] == weight for backend in backends):
                return
            await asyncio.sleep(LOOK_EVERY_S)


async def _exported() -> int:
    """The export log's seq."""
    kv = connect(EtcdTarget(endpoints=(ETCD,)))
    try:
        (head,) = (await kv.range(Keyspace().local.head)).kvs
        return decode_local_head(head.value, "the bench's head").exports["mesh"].seq
    finally:
        await kv.close()


async def _shape(after: int) -> Shape:
    """What meshd wrote since a seq, as an average commit."""
    kv, keyspace = connect(EtcdTarget(endpoints=(ETCD,))), Keyspace()
    export, local = keyspace.export(), keyspace.local
    try:
        found = (await kv.range(export.record(after + 1), export.log_end)).kvs
        heads = [(await kv.range(log.head)).kvs[0] for log in (local, export)]
    finally:
        await kv.close()
    events = [len(decode_record(kv.value, "the bench's log").events) for kv in found]
    assert sum(events) > 0
    record = sum(len(kv.value) for kv in found) // len(found)
    puts = [(_bare_key(log.record(1)), record) for log in (local, export)]
    puts += [(_bare_key(head.key), len(head.value)) for head in heads]
    return Shape(puts, len(found))


def _bare_key(key: bytes) -> str:
    text = key.decode()
    return text[:-SEQ_DIGITS] + "SEQ" if text[-SEQ_DIGITS:].isdigit() else text


async def _by_bare_clients(folder: Path, shape: Shape) -> list[float]:
    """Seconds of each side."""
    async with (
        _etcds(folder, BARE_ETCD, BARE_THERE_ETCD) as etcds,
        child("tests.bench.bare_client", BARE_ETCD) as writer,
        child("tests.bench.bare_client", BARE_ETCD) as reader,
    ):
        log = Keyspace().export().log.decode()
        await reader.ask({"follow": log, "to": BARE_THERE_ETCD, "records": shape.records})
        pids = (writer.process.pid, etcds[0], reader.process.pid, etcds[1])
        before = [cpu_s_of(pid) for pid in pids]
        await _both(writer, reader, shape)
        return [cpu_s_of(pid) - was for pid, was in zip(pids, before, strict=True)]


async def _both(writer: Child, reader: Child, shape: Shape) -> None:
    """Write one commit after the other, as meshd's writer does, until all is copied."""
    await writer.ask({"write": shape.puts, "times": shape.records, "at_once": 1})
    await reader.ask()
