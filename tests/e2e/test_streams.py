"""Event streams as programs have them: curl processes on a real meshd, cut, stopped and resumed."""

from __future__ import annotations

import asyncio
import random
import re
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.e2e.conftest import Daemon, NewEtcd, RunDaemon

CUTS = 30
EVENTS_PER_WRITE = 20
FRAME = re.compile(rb"(?:[^\n]+\n)*\n")
CURL = shutil.which("curl")
pytestmark = pytest.mark.skipif(CURL is None, reason="there is no curl on PATH")


@dataclass(frozen=True, slots=True)
class Read:
    """What a curl got. ids, seqs: of the whole frames; each is as the next connection needs it."""

    place: str
    seqs: list[int]
    notices: list[str]


def read(raw: bytes) -> Read:
    """Take whole frames apart; a frame that was cut in the middle was never there."""
    place, seqs, notices = "", list[int](), list[str]()
    for frame in FRAME.findall(raw):
        lines = dict(line.split(": ", 1) for line in frame.decode().splitlines() if ": " in line)
        place = lines.get("id", place)
        if lines.get("event", "").startswith("meshd."):
            notices.append(lines["event"])
        elif "data" in lines:
            seqs.append(orjson.loads(lines["data"])["meshdseq"])
    return Read(place, seqs, notices)


@dataclass(slots=True)
class Curl:
    """One `curl -N`, and the file that it writes."""

    process: asyncio.subprocess.Process
    file: Path

    def read(self) -> Read:
        return read(self.file.read_bytes())

    async def until(self, what: Callable[[Read], bool]) -> Read:
        """Look until it got something; the test's own timeout is the limit."""
        while not what(found := self.read()):  # noqa: ASYNC110 a file tells nobody
            await asyncio.sleep(0.02)
        return found


@asynccontextmanager
async def curl(daemon: Daemon, file: Path, query: str, place: str = "") -> AsyncIterator[Curl]:
    """Run one as long as the context lasts; leaving kills it."""
    header = ("-H", f"Last-Event-ID: {place}") if place else ()
    with file.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            *(str(CURL), "-sS", "-N", "--limit-rate", "2m", "-H", "Accept: text/event-stream"),
            *(*header, f"{daemon.url}/v1/events{query}"),
            stdout=out,
        )
    try:
        yield Curl(process, file)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def write(daemon: Daemon, turn: int, weight: int = 1) -> None:
    """Some events in one request."""
    endpoints = [
        {"name": f"e{turn % 50}-{n}", "address": "10.0.0.1", "weight": weight}
        for n in range(EVENTS_PER_WRITE)
    ]
    for endpoint in endpoints:
        endpoint["labels"] = {"turn": f"{turn}"}
    document = {
        "apiVersion": "meshd.io/v1",
        "kind": "Endpoints",
        "metadata": {"name": f"web{turn % 50}", "namespace": "shop"},
        "spec": {"endpoints": endpoints},
    }
    async with daemon.http.post(f"{daemon.url}/v1/apply", json=document) as response:
        assert response.status == 200, await response.read()


async def logged(daemon: Daemon) -> list[int]:
    """All seqs of the log, page by page."""
    found: list[int] = []
    after: Any = 0
    while after is not None:
        page = await daemon.get(f"/v1/events?limit=1000&after={after}")
        found += [item["meshdseq"] for item in page["items"]]
        after = page["next"]
    return found


@asynccontextmanager
async def loading(daemon: Daemon) -> AsyncIterator[None]:
    """Write one after the other, as long as the context lasts."""
    stopping = asyncio.Event()

    async def load() -> None:
        turn = 0
        while not stopping.is_set():
            turn += 1
            await write(daemon, turn, turn)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(load())
        try:
            yield
        finally:
            stopping.set()


async def test_a_curl_that_is_cut_anywhere_and_resumed_has_the_log(
    new_etcd: NewEtcd, run_daemon: RunDaemon, tmp_path: Path
) -> None:
    chance = random.Random(6)
    etcd = await new_etcd()
    async with run_daemon("east", 1, etcd.endpoints) as east:
        place, told = "", list[int]()
        async with loading(east):
            for cut in range(CUTS):
                file = tmp_path / f"curl{cut}"
                wanted = chance.randrange(60)
                async with curl(east, file, "?from=beginning", place) as one:
                    await one.until(lambda got, wanted=wanted: len(got.seqs) >= wanted)  # type: ignore[misc]
                    await asyncio.sleep(chance.uniform(0, 0.02))
                got = one.read()
                told += got.seqs
                place = got.place or place
                assert got.notices == []
        log = await logged(east)
        missing = len(log) - len(told)
        async with curl(east, tmp_path / "last", "?from=beginning", place) as one:
            told += (await one.until(lambda got: len(got.seqs) >= missing)).seqs
        assert told == log
        assert len(log) > CUTS * EVENTS_PER_WRITE


async def test_a_curl_that_is_stopped_delays_nobody_and_misses_nothing(
    new_etcd: NewEtcd, run_daemon: RunDaemon, tmp_path: Path
) -> None:
    etcd = await new_etcd()
    # What it doesn't take is more than is kept in memory, so that it is read from the log later.
    small = ("streams.feed_bytes=1048576", "streams.ring_bytes=1048576")
    async with run_daemon("east", 1, etcd.endpoints, None, *small) as east:
        query = "?from=beginning"
        async with (
            curl(east, tmp_path / "still", query) as still,
            curl(east, tmp_path / "one", query) as one,
            curl(east, tmp_path / "other", query + "&type=service.set&type=cluster.set") as other,
        ):
            await still.until(lambda got: len(got.seqs) >= 1)
            still.process.send_signal(signal.SIGSTOP)
            for turn in range(300):
                await write(east, turn, turn + 1)
            log = await logged(east)
            # They have everything while the one stands still, which has next to nothing.
            assert (await one.until(lambda got: len(got.seqs) >= len(log))).seqs == log
            assert (await other.until(lambda got: len(got.seqs) >= 1)).notices == []
            before = still.read()
            assert len(before.seqs) < len(log)

            still.process.send_signal(signal.SIGCONT)
            # It goes on without a gap, or it was cut and is resumed.
            await until_whole_or_cut(still, len(log))
            got = still.read()
        told = got.seqs
        if told != log:
            async with curl(east, tmp_path / "again", query, got.place) as again:
                await again.until(lambda got: len(told) + len(got.seqs) >= len(log))
            told += again.read().seqs
        assert told == log


async def until_whole_or_cut(one: Curl, count: int) -> None:
    async with asyncio.TaskGroup() as tasks:
        whole = tasks.create_task(one.until(lambda got: len(got.seqs) >= count))
        cut = tasks.create_task(one.process.wait())
        await asyncio.wait((whole, cut), return_when=asyncio.FIRST_COMPLETED)
        whole.cancel()
        cut.cancel()
