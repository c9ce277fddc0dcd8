"""Appends by the number of callers: how many, and how long each takes, against the bare client.

For: the part `logs` of `make bench`. Not for: what follows a log: one cluster without peers, so
that nothing else takes the processor. References, in the same round and on the same etcd, by as
many callers: single puts, which nobody can beat one event at a time; and transactions of the shape
that meshd commits one event with.
"""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Final

import grpc
from rich.console import Console

from meshd.daemon.parts import Parts
from meshd.edges.etcd.pb import etcd_pb2 as pb
from meshd.model.command import SetService, Submission
from meshd.model.service import Port, Service
from tests.bench.as_of_cost import ADDRESS, alone
from tests.bench.measures import Load, Work, loaded, payload
from tests.bench.rig import SERVICE, touch
from tests.bench.shapes import put_call, shape_of, txn_call
from tests.bench.streams import Figures
from tests.bench.tables import Row

CALLERS: Final = (1, 16, 64, 256)
PUTS: Final = "single puts"
TXNS: Final = "transactions of the same shape"


async def measure_appends(
    rounds: int, seconds: float, callers: Sequence[int] = CALLERS
) -> list[Row]:
    """All of it, `rounds` times. seconds: of each load."""
    figures = Figures()
    with tempfile.TemporaryDirectory(prefix="meshd-bench-") as name:
        async with alone(Path(name)) as parts, grpc.aio.insecure_channel(f"ipv4:{ADDRESS}") as raw:
            service = Service(ports=(Port(80, "http"),), is_global=True)
            await parts.node.writer.submit(Submission((SetService(SERVICE, service),), "bench"))
            works = await _works(parts, raw)
            for number in range(rounds):
                Console(stderr=True).print(f"appends, round {number + 1} of {rounds}")
                for many in callers:
                    await _round(figures, works, number, many, seconds)
    return list(figures.rows.values())


async def _works(parts: Parts, raw: grpc.aio.Channel) -> dict[str, Work]:
    """What is measured, by its name."""
    put, txn, value = put_call(raw), txn_call(raw), payload(1)
    shape = await shape_of(parts, [touch(0)])
    await txn(shape.begin())

    async def ours(number: int) -> None:
        await parts.node.writer.submit(Submission((touch(number),), "bench"))

    def single(number: int) -> Awaitable[object]:
        return put(pb.PutRequest(key=b"/raw/many/%020d" % number, value=value))

    def same(number: int) -> Awaitable[object]:
        return txn(shape.request(number))

    return {"meshd": ours, PUTS: single, TXNS: same}


async def _round(
    figures: Figures, works: dict[str, Work], number: int, callers: int, seconds: float
) -> None:
    """One load of each, begun by another in each round."""
    names = list(works)
    first = number % len(names)
    found: dict[str, Load] = {}
    for name in names[first:] + names[:first]:
        found[name] = await loaded(works[name], seconds, callers)
    ours = found["meshd"]
    of = f"append, {callers} caller{'s' if callers > 1 else ''} of single commands"
    for name in (PUTS, TXNS):
        other = found[name]
        figures.add(f"{of}, against {name}", "events/s", ours.per_s, other.per_s, name)
    figures.add(f"{of}, p50", "µs", ours.p50_us, found[TXNS].p50_us, TXNS)
    figures.add(f"{of}, p99", "µs", ours.p99_us, found[TXNS].p99_us, TXNS)
