"""What was served is told later, by real meshds on real etcds: across snapshots, cuts and a
restart, with the peer alive or dead.
"""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass
from typing import Any

import orjson

from tests.e2e.conftest import Daemon, NewEtcd, RunDaemon
from tests.e2e.test_daemon import SERVICE, put

OFTEN = (
    "retention.check_every_s=0.1",
    "retention.snapshot_every_events=20",
    "retention.keep_events=60",
    "retention.cap_events=200",
    "retention.snapshots_kept=4",
    "replication.heartbeat_every_s=0.2",
)
WEB = "/v1/services/shop/web"


@dataclass(frozen=True, slots=True)
class Seen:
    """A table as it was served, and when."""

    table: dict[str, Any]
    time_ms: int

    @property
    def vector(self) -> str:
        return str(self.table["events_after"])

    @property
    def of_logs(self) -> dict[str, Any]:
        """What the logs tell of it: who was in sight then is in none."""
        services = [{**one, "stale": []} for one in self.table["services"]]
        return {**self.table, "stale": [], "as_of": self.vector, "services": services}

    def is_before(self, first: dict[str, int]) -> bool:
        return any(seq < first[name] for name, seq in seqs(self.vector).items())


def seqs(vector: str) -> dict[str, int]:
    return {name: int(seq) for name, _, seq in (one.split(":") for one in vector.split(","))}


async def ask(daemon: Daemon, path: str) -> tuple[int, Any]:
    async with daemon.http.get(f"{daemon.url}{path}") as response:
        return response.status, orjson.loads(await response.read())


async def cli(daemon: Daemon, *arguments: str) -> Any:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "meshd", "--url", daemon.url, *arguments, "-o", "json"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    return orjson.loads(said)


async def write(daemon: Daemon, number: int) -> None:
    body = {"address": f"10.0.0.{number % 5 + 1}", "weight": number % 97, "ready": number % 7 > 0}
    assert await put(daemon, f"{WEB}/endpoints/e{number % 5}", body) == 200
    if number % 11 == 0:
        assert await put(daemon, f"/v1/services/shop/s{number}", SERVICE) == 200


async def look(east: Daemon, west: Daemon) -> Seen:
    """What east serves once it has read, and written, all that west's log says."""
    seq = (await west.get("/v1/status"))["vector"]["west"]["seq"]
    await east.until("/v1/peers/west", lambda it: it["replica_seq"] >= seq)
    table, time_ms = await east.get("/v1/tables"), time.time_ns() // 1_000_000
    # What happens next is later by the clock that both meshds write into their records.
    await east.until("/livez", lambda _: time.time_ns() // 1_000_000 > time_ms)
    return Seen(table, time_ms)


async def first_seqs(east: Daemon) -> dict[str, int]:
    """Where the events begin that east still has."""
    logs = {item["log"]: item for item in (await east.get("/v1/logs"))["items"]}
    return {
        "east": logs["local"]["first_seq"] - 1,
        "west": logs["replica/west"]["first_seq"] - 1,
    }


def assert_told(one: Seen, table: dict[str, Any]) -> None:
    assert table["digest"] == one.table["digest"]
    # The export log is cut at other places; a position that it doesn't tell isn't named.
    assert seqs(table["vector_text"]).items() <= seqs(one.table["vector_text"]).items()
    assert table | {"vector_text": ""} == one.of_logs | {"vector_text": ""}


async def check(east: Daemon, seen: list[Seen]) -> None:
    """All that is retained is told as it was, by vector and by time; the rest is refused.

    The logs may be cut while it is asked: what was there before and is gone after may be either.
    """
    statuses = []
    for one in seen:
        for moment in (one.vector, str(one.time_ms)):
            was_gone = one.is_before(await first_seqs(east))
            status, answer = await ask(east, f"/v1/tables?as_of={moment}")
            statuses.append(status)
            if status == 410:
                assert one.is_before(await first_seqs(east)), answer
                assert "the oldest state that can be told is that at seq" in answer["detail"]
            else:
                assert (status, was_gone) == (200, False), answer
                assert_told(one, answer)
    assert 0 < statuses.count(410) < len(statuses) - 8
    last = seen[-1]
    status, table = await ask(east, f"/v1/tables?as_of={last.table['vector_text']}")
    assert (status, table["digest"]) == (200, last.table["digest"])


async def test_what_was_served_is_told_later(new_etcd: NewEtcd, run_daemon: RunDaemon) -> None:
    own, peer = await new_etcd(), await new_etcd()
    seen: list[Seen] = []
    async with (
        run_daemon("west", 2, peer.endpoints, {"east": own.endpoints}, *OFTEN) as west,
        run_daemon("east", 1, own.endpoints, {"west": peer.endpoints}, *OFTEN) as east,
    ):
        for daemon in (west, east):
            assert await put(daemon, WEB, SERVICE) == 200
        for number in range(1, 160):
            await write(west if number % 2 else east, number)
            if number % 8 == 0:
                seen.append(await look(east, west))
        await east.until("/v1/logs", lambda it: it["items"][0]["first_seq"] > 20)
        await check(east, seen)
        east.kill()
    # Another process, and the peer is dead: the logs in the own etcd tell it all.
    async with run_daemon("east", 1, own.endpoints, {"west": peer.endpoints}, *OFTEN) as east:
        await check(east, seen)
        old, new = seen[-4], seen[-1]
        await changes(east, old, new)


async def changes(east: Daemon, old: Seen, new: Seen) -> None:
    """The difference of two moments is what their tables differ in; the history says by whom."""
    diff = await cli(east, "diff", "--from", old.vector, "--to", str(new.time_ms))
    assert (diff["digest_from"], diff["digest_to"]) == (old.table["digest"], new.table["digest"])
    tables = [
        {(one["namespace"], one["name"]): one for one in seen.of_logs["services"]}
        for seen in (old, new)
    ]
    differing = {key for key in tables[1] if tables[0].get(key) != tables[1][key]}
    assert {(one["namespace"], one["name"]) for one in diff["services"]} == differing
    backend = next(
        one
        for service in diff["services"]
        for one in service["backends"]
        if service["name"] == "web" and one["origin"] and one["cluster"] == "east"
    )
    page = await cli(east, "history", "endpoint", f"shop/web/{backend['name']}")
    steps = {(step["cluster"], step["seq"]): step for step in page["items"]}
    step = steps[backend["cluster"], backend["origin"]["seq"]]
    assert (step["time"], step["actor"]) == (backend["origin"]["time"], "rest")
    assert page["items"][-1]["snapshot_seq"] is not None
    assert {step["cluster"] for step in page["items"]} == {"east", "west"}
