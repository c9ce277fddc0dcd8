"""The measurements: meshd and the bare client doing the same bytes on the same etcd.

For: one round of each; rounds are interleaved by `__main__`. Not for: judging: no test depends on
a figure. One caller has for its reference the bare transaction of just the shape of its commit;
many callers have as many single puts; a bulk has what etcd takes at most, 128 puts a transaction.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Final

from meshd.edges.etcd.pb import etcd_pb2 as pb
from meshd.model.codec import encode_record, event_bytes
from meshd.model.event import Event, EventType
from meshd.model.ids import GENESIS_HASH, Head, LogId, RecordHash, Seq
from meshd.model.schema import to_data
from tests.bench.rig import Rig, touch
from tests.bench.shapes import put_call, puts_request, shape_of, txn_call

PUTS_PER_TXN: Final = 128
"""What etcd takes at most."""
_numbers: Iterator[int] = count(1)

Work = Callable[[int], Awaitable[object]]
"""Do one thing. Its number is of no other one."""


@dataclass(frozen=True, slots=True)
class Load:
    """What came of callers that each wait for their answer before they go on."""

    per_s: float
    p50_us: float
    p99_us: float


async def loaded(work: Work, seconds: float, callers: int) -> Load:
    """Have so many callers at once do it for so long."""
    taken_us: list[float] = []
    until = time.perf_counter() + seconds

    async def caller() -> None:
        begun = time.perf_counter()
        while begun < until:
            await work(next(_numbers))
            done = time.perf_counter()
            taken_us.append((done - begun) * 1e6)
            begun = done

    begun = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(callers):
            tasks.create_task(caller())
    took_s = time.perf_counter() - begun
    taken_us.sort()
    return Load(
        len(taken_us) / took_s, statistics.median(taken_us), taken_us[len(taken_us) * 99 // 100]
    )


def _event(number: int) -> Event:
    command = touch(number)
    return Event(EventType.ENDPOINT_SET, str(command.key), to_data(command.endpoint), "bench")


def payload(number: int) -> bytes:
    """As many bytes as an event of the bench has in a record."""
    return bytes(event_bytes(_event(number)))


def _record_bytes(events: int) -> int:
    head = Head(LogId("0" * 32), Seq(1), RecordHash(GENESIS_HASH))
    return len(encode_record(head, 1_700_000_000_000, [_event(n) for n in range(events)]).raw)


async def append_one(rig: Rig, seconds: float) -> dict[str, float]:
    """One caller: median time of an append, in microseconds; bare: transactions of its shape."""
    txn = txn_call(rig.raw)
    shape = await shape_of(rig.here, [touch(next(_numbers))])
    await txn(shape.begin())
    ours = await loaded(lambda number: rig.append(touch(number)), seconds, 1)
    raw = await loaded(lambda number: txn(shape.request(number)), seconds, 1)
    return {"meshd": ours.p50_us, "raw": raw.p50_us}


async def append_many(rig: Rig, seconds: float, callers: int = 64) -> dict[str, float]:
    """Many callers of single commands: events per second; bare: as many single puts at a time."""
    put, value = put_call(rig.raw), payload(1)

    def bare(number: int) -> Awaitable[object]:
        return put(pb.PutRequest(key=b"/raw/many/%020d" % number, value=value))

    ours = await loaded(lambda number: rig.append(touch(number)), seconds, callers)
    return {"meshd": ours.per_s, "raw": (await loaded(bare, seconds, callers)).per_s}


async def append_bulk(
    rig: Rig, seconds: float, callers: int = 1, events: int = 500
) -> dict[str, float]:
    """Large submissions: events per second; bare: transactions of 128 puts, an event each, as many
    at a time as there are callers. Beside it, the group commits that meshd itself makes.
    """
    txn = txn_call(rig.raw)

    def many(number: int) -> Iterator[int]:
        return iter(range(number * events, (number + 1) * events))

    shape = await shape_of(rig.here, [touch(one) for one in many(next(_numbers))])
    await txn(shape.begin())
    value = payload(1)

    def bare(number: int) -> Awaitable[object]:
        first = number * PUTS_PER_TXN
        keys = (b"/raw/bulk/%020d" % one for one in range(first, first + PUTS_PER_TXN))
        return txn(puts_request([(key, value) for key in keys]))

    async def ours(number: int) -> None:
        await rig.append(*(touch(one) for one in many(number)))

    def same(number: int) -> Awaitable[object]:
        return txn(shape.request(number))

    return {
        "meshd": events * (await loaded(ours, seconds, callers)).per_s,
        "raw": PUTS_PER_TXN * (await loaded(bare, seconds, callers)).per_s,
        "raw group commits": events * (await loaded(same, seconds, callers)).per_s,
    }


async def append_bulk_at_once(rig: Rig, seconds: float) -> dict[str, float]:
    """The same by four callers, where the bare client has four transactions on the way."""
    return await append_bulk(rig, seconds, callers=4)


async def to_the_other_table(rig: Rig, seconds: float, rate_hz: float = 100) -> dict[str, float]:
    """From submission, and from acknowledgement, to the other cluster's table; in microseconds.

    Bare: from sending a put to the event at a bare watch of the same etcd.
    """
    sent_us: list[float] = []
    acked_us: list[float] = []
    for _ in range(int(seconds * rate_hz)):
        begun = time.perf_counter()
        await rig.append(touch(next(_numbers)))
        acked = time.perf_counter()
        await rig.until_there(rig.exported_seq)
        seen = time.perf_counter()
        sent_us.append((seen - begun) * 1e6)
        acked_us.append((seen - acked) * 1e6)
        await asyncio.sleep(max(0.0, 1 / rate_hz - (seen - begun)))
    return {
        "meshd": statistics.median(sent_us),
        "meshd after ack": statistics.median(acked_us),
        "raw": await _watch_us(rig, int(seconds * rate_hz), rate_hz),
    }


async def _watch_us(rig: Rig, times: int, rate_hz: float) -> float:
    txn = txn_call(rig.raw)
    watch = rig.raw.stream_stream(
        "/etcdserverpb.Watch/Watch",
        request_serializer=pb.WatchRequest.SerializeToString,
        response_deserializer=pb.WatchResponse.FromString,
    )()
    create = pb.WatchCreateRequest(key=b"/raw/watched/", range_end=b"/raw/watched0")
    await watch.write(pb.WatchRequest(create_request=create))
    await watch.read()
    taken_us: list[float] = []
    value = bytes(_record_bytes(1))
    try:
        for number in range(times):
            begun = time.perf_counter()
            async with asyncio.TaskGroup() as tasks:
                seen = tasks.create_task(_read(watch))
                await txn(puts_request([(b"/raw/watched/%020d" % number, value)]))
            taken_us.append((seen.result() - begun) * 1e6)
            await asyncio.sleep(max(0.0, 1 / rate_hz - (seen.result() - begun)))
    finally:
        watch.cancel()
    return statistics.median(taken_us)


async def _read(watch: object) -> float:
    await watch.read()  # type: ignore[attr-defined]
    return time.perf_counter()
