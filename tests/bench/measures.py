"""The measurements: meshd and the bare client doing the same bytes on the same etcd.

For: one round of each; rounds are interleaved by `__main__`. Not for: judging: no test depends on
a figure. Shapes: a group commit of events is, for the bare client, one transaction of a compare and
four puts whose values have the same lengths.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import count

from meshd.edges.etcd.pb import etcd_pb2 as pb
from meshd.model.codec import encode_record, event_bytes
from meshd.model.event import Event, EventType
from meshd.model.ids import GENESIS_HASH, Head, LogId, RecordHash, Seq
from meshd.model.schema import to_data
from tests.bench.rig import Rig, put_request, touch, txn_call

HEAD_BYTES = 260
EXPORT_HEAD_BYTES = 110
_numbers: Iterator[int] = count(1)


def _event(number: int) -> Event:
    command = touch(number)
    return Event(EventType.ENDPOINT_SET, str(command.key), to_data(command.endpoint), "bench")


def _record_bytes(events: int) -> int:
    head = Head(LogId("0" * 32), Seq(1), RecordHash(GENESIS_HASH))
    return len(encode_record(head, 1_700_000_000_000, [_event(n) for n in range(events)]).raw)


def _group(number: int, events: int) -> pb.TxnRequest:
    """What a group commit of so many events weighs, for the bare client."""
    record = bytes(_record_bytes(events))
    return put_request(
        (b"/raw/local/log/%020d" % number, record),
        (b"/raw/local/head", bytes(HEAD_BYTES)),
        (b"/raw/export/log/%020d" % number, record),
        (b"/raw/export/head", bytes(EXPORT_HEAD_BYTES)),
        guard=b"/raw/never",
    )


async def append_one(rig: Rig, seconds: float) -> dict[str, float]:
    """One caller: median time of an append, in microseconds."""
    txn = txn_call(rig.raw)

    async def bare(number: int) -> None:
        await txn(_group(number, 1))

    async def ours(number: int) -> None:
        await rig.append(touch(number))

    return {
        "meshd": await _median_us(ours, seconds),
        "raw": await _median_us(bare, seconds),
    }


async def append_many(rig: Rig, seconds: float, callers: int = 64) -> dict[str, float]:
    """Many callers of single commands: events per second; bare: as many single puts at a time."""
    txn = txn_call(rig.raw)
    value = bytes(event_bytes(_event(1)))

    async def bare(number: int) -> None:
        await txn(put_request((b"/raw/many/%020d" % number, value)))

    async def ours(number: int) -> None:
        await rig.append(touch(number))

    return {
        "meshd": await _rate(ours, seconds, callers),
        "raw": await _rate(bare, seconds, callers),
    }


async def append_bulk(rig: Rig, seconds: float, events: int = 500) -> dict[str, float]:
    """One caller of large submissions: events per second; bare: the same group commits."""
    txn = txn_call(rig.raw)

    async def bare(number: int) -> None:
        await txn(_group(number, events))

    async def ours(number: int) -> None:
        await rig.append(*(touch(number * events + n) for n in range(events)))

    return {
        "meshd": events * await _rate(ours, seconds, 1),
        "raw": events * await _rate(bare, seconds, 1),
    }


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
                await txn(put_request((b"/raw/watched/%020d" % number, value)))
            taken_us.append((seen.result() - begun) * 1e6)
            await asyncio.sleep(max(0.0, 1 / rate_hz - (seen.result() - begun)))
    finally:
        watch.cancel()
    return statistics.median(taken_us)


async def _read(watch: object) -> float:
    await watch.read()  # type: ignore[attr-defined]
    return time.perf_counter()


Work = Callable[[int], "asyncio.Future[None]"]


async def _median_us(work: object, seconds: float) -> float:
    taken_us: list[float] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        begun = time.perf_counter()
        await work(next(_numbers))  # type: ignore[operator]
        taken_us.append((time.perf_counter() - begun) * 1e6)
    return statistics.median(taken_us)


async def _rate(work: object, seconds: float, callers: int) -> float:
    until = time.perf_counter() + seconds
    done = 0

    async def caller() -> None:
        nonlocal done
        while time.perf_counter() < until:
            await work(next(_numbers))  # type: ignore[operator]
            done += 1

    begun = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(callers):
            tasks.create_task(caller())
    return done / (time.perf_counter() - begun)
