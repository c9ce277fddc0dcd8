"""The leader of a three-member etcd is killed: how long nothing is acknowledged.

For: one meshd and one bare grpc.aio client, which write to the same etcd at the same pace while the
same leader dies. Not for: meshd's own leader. Both ask again for what they got no answer to: the
client of meshd with the same idempotency key, the bare one with the same put, at the next member.
What was lost and what was done twice is counted by reading the log, and by the versions of the bare
keys.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final

import aiohttp
import grpc

from chaos.etcds import Etcd, Member
from chaos.mesh.servers import dying_with_us
from chaos.raw import read_log
from meshd.edges.etcd import EtcdTarget, connect
from meshd.model.keyspace import prefix_end
from tests.bench.catching_up import say
from tests.bench.daemons import SERVICE_PATH, Meshd, meshd
from tests.bench.mirror import BarePuts
from tests.bench.pacing import Times, due
from tests.bench.places import etcd_at, peers_of
from tests.bench.sides import HERE_API, HERE_ID
from tests.bench.streams import Figures

MEMBERS: Final = (etcd_at(36), etcd_at(37), etcd_at(38))
RATE_HZ: Final = 50.0
BEFORE_S: Final = 1.0
AFTER_S: Final = 6.0
"""Three elections' time."""
ASK_TIMEOUT_S: Final = 1.0
"""Of the bare client: an election's. etcd itself lets a caller wait for seven seconds."""
ASK_AGAIN_S: Final = 0.02
REQUEST_TIMEOUT_S: Final = 20.0
ATTEMPTS_MAX: Final = 1_000
BARE: Final = b"/bare/"
RAW: Final = "bare grpc.aio"
LOG: Final = "/meshd/v1/local/"

Ask = Callable[[int], Awaitable[None]]


@dataclass(slots=True)
class BareClient:
    """Puts to whichever member answers."""

    channels: Sequence[BarePuts]
    at: int = 0

    async def put(self, key: bytes) -> None:
        """Write a key until it is acknowledged."""
        for _ in range(ATTEMPTS_MAX):
            asked = self.at
            try:
                await self.channels[asked % len(self.channels)].put(key, key, ASK_TIMEOUT_S)
            except grpc.aio.AioRpcError:
                # Whoever is first to be refused goes on to the next member, for all.
                self.at = max(self.at, asked + 1)
                await asyncio.sleep(ASK_AGAIN_S)
            else:
                return
        raise TimeoutError(f"no member took {key!r}")


@dataclass(slots=True)
class Rig:
    """What is killed, and who writes to it. asked: of each, over all rounds."""

    etcd: Etcd
    one: Meshd
    bare: BareClient
    asked: list[str] = field(default_factory=list)

    async def put(self, key: str) -> None:
        """Write one event by meshd until it is acknowledged."""
        url = f"http://{self.one.address}{SERVICE_PATH}/endpoints/{key}"
        number = len(self.asked)
        body = {"address": f"10.7.{number >> 8 & 255}.{number & 255}"}
        for _ in range(ATTEMPTS_MAX):
            try:
                async with self.one.http.put(
                    url,
                    json=body,
                    headers={"Idempotency-Key": key},
                    timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S),
                ) as answer:
                    await answer.read()
                    if answer.ok:
                        return
            except (aiohttp.ClientError, TimeoutError):
                pass
            await asyncio.sleep(ASK_AGAIN_S)
        raise TimeoutError(f"meshd didn't take {key}")


@asynccontextmanager
async def _rig(folder: Path) -> AsyncIterator[Rig]:
    async with AsyncExitStack() as stack:
        members = [
            Member(f"m{place}", address, peers_of(address), folder, within=dying_with_us())
            for place, address in enumerate(MEMBERS)
        ]
        etcd = Etcd(members)
        stack.push_async_callback(etcd.stop)
        await etcd.start()
        settings = (
            "cluster.name=here",
            f"cluster.id={HERE_ID}",
            f"etcd.endpoints={etcd.endpoints}",
        )
        one = await stack.enter_async_context(meshd(folder, *settings, address=HERE_API))
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(f"ipv4:{member.client}"))
            for member in members
        ]
        yield Rig(etcd, one, BareClient([BarePuts(channel) for channel in channels]))


async def measure_leader_kill(folder: Path, figures: Figures, rounds: int, after_s: float) -> None:
    """after_s: for how long both write on once the leader is dead."""
    async with _rig(folder) as rig:
        for number in range(rounds):
            say(f"leader of three members killed, round {number + 1} of {rounds}")
            await _kill(rig, figures, f"round-{number}", after_s)
        await _count(rig, figures)


async def _kill(rig: Rig, figures: Figures, name: str, after_s: float) -> None:
    leader = await _leader(rig.etcd)
    keys = [f"{name}-{number}" for number in range(round(RATE_HZ * (BEFORE_S + after_s)))]
    rig.asked += keys

    async def by_meshd(number: int) -> None:
        await rig.put(keys[number])

    async def by_bare(number: int) -> None:
        await rig.bare.put(BARE + keys[number].encode())

    async with asyncio.TaskGroup() as tasks:
        ours = tasks.create_task(_write(by_meshd, len(keys)))
        bare = tasks.create_task(_write(by_bare, len(keys)))
        await asyncio.sleep(BEFORE_S)
        await leader.kill()
    name = "leader of three etcds killed: longest time without an acknowledgement"
    figures.add(name, "s", _gap_s(ours.result()), _gap_s(bare.result()), RAW)
    await rig.etcd.start_member(leader)


async def _write(ask: Ask, events: int) -> Times:
    """Ask for so many at a pace, and wait until all are acknowledged."""
    times = Times()

    async def one(number: int) -> None:
        await ask(number)
        times.ack(number)

    async with asyncio.TaskGroup() as tasks:
        async for due_s in due(RATE_HZ, events / RATE_HZ):
            tasks.create_task(one(times.ask(due_s)))
    return times


def _gap_s(times: Times) -> float:
    return max(after - before for before, after in pairwise(sorted(times.acked_s)))


async def _leader(etcd: Etcd) -> Member:
    for member in etcd.members:
        said = await etcd.ctl("endpoint", "status", "-w", "json", endpoints=member.client)
        status = json.loads(said)[0]["Status"]
        if status["leader"] == status["header"]["member_id"]:
            return member
    raise RuntimeError("no member says that it leads")


async def _count(rig: Rig, figures: Figures) -> None:
    """Everything was acknowledged, so whatever isn't there once is lost, or done again."""
    causes = Counter(read_log(await rig.etcd.dump(), LOG).causes())
    kv = connect(EtcdTarget(endpoints=tuple(member.client for member in rig.etcd.members)))
    try:
        found = await kv.range(BARE, prefix_end(BARE))
    finally:
        await kv.close()
    versions = {one.key.removeprefix(BARE).decode(): one.version for one in found.kvs}
    for what, count in (("lost", _lost), ("done twice", _twice)):
        name = f"leader of three etcds killed: acknowledged events that were {what}"
        ours, bare = count(rig.asked, causes), count(rig.asked, versions)
        figures.add(name, "events", ours, bare, RAW)


def _lost(asked: Sequence[str], counts: dict[str, int]) -> int:
    return sum(not counts.get(key) for key in asked)


def _twice(asked: Sequence[str], counts: dict[str, int]) -> int:
    return sum(counts.get(key, 0) > 1 for key in asked)
