"""Real daemons on real etcds are recorded over HTTP and by etcdctl, and judged: one is killed while
the others work on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from chaos import answers, journal
from chaos.etcds import Etcd
from chaos.evidence import Evidence
from chaos.history import (
    Bounds,
    Change,
    Completed,
    Entry,
    FaultBit,
    FaultHealed,
    FaultInjected,
    Invoked,
    Outcome,
    Process,
    RunEnded,
    RunStarted,
)
from chaos.validators.judging import VALIDATORS, judge
from chaos.validators.verdict import Status
from tests.e2e.conftest import Daemon, NewEtcd, RunDaemon

NAMES = ("east", "south", "west")
BOUNDS = Bounds(converge_s=30, settle_s=1)
ROUNDS = 8
NOT_TRIED = {"I10", "I14", "I16"}
"""Nothing is poisoned, nobody looks at what processes use, nor tries what isn't theirs."""


@dataclass
class Recorder:
    """The clusters, and the file that what is seen of them goes to."""

    writer: journal.Writer
    etcds: dict[str, Etcd]
    daemons: dict[str, Daemon] = field(default_factory=dict)
    at: dict[str, str] = field(default_factory=dict)
    ops: int = 0

    def note(self, entry: Entry) -> None:
        self.writer.write(entry)

    async def command(self, name: str) -> None:
        self.ops += 1
        op, key = self.ops, f"key-{self.ops}"
        path = f"/v1/services/shop/web/endpoints/{op % 3}"
        self.note(Invoked(at_ns=now(), op=op, cluster=name, caller="c", key=key, command=path))
        daemon = self.daemons[name]
        body = {"address": f"10.0.0.{op}", "weight": op % 9}
        headers = {"Idempotency-Key": key}
        try:
            async with daemon.http.put(daemon.url + path, json=body, headers=headers) as response:
                answer = orjson.loads(await response.read())
                self.note(answers.completed(op, now(), response.status, answer))
        except (aiohttp.ClientError, TimeoutError) as error:
            self.note(Completed(at_ns=now(), op=op, outcome=Outcome.UNKNOWN, error=repr(error)))

    async def look(self) -> None:
        for name, daemon in self.daemons.items():
            if daemon.process.returncode is None:
                table = await daemon.get("/v1/tables")
                self.note(answers.table_read("r", name, now(), table))
                status = await daemon.get("/v1/status")
                self.note(answers.status_read(name, now(), status))

    async def look_anew(self) -> None:
        """Have every table derived from the logs, at the place where it is."""
        for name, daemon in self.daemons.items():
            kept = await daemon.get("/v1/tables")
            self.note(answers.table_read("r", name, now(), kept))
            anew = await daemon.get(f"/v1/tables?as_of={kept['events_after']}")
            self.note(answers.table_read("r", name, now(), anew, anew=True))

    async def dump(self) -> None:
        for name, etcd in self.etcds.items():
            said = await etcd.ctl("get", "--prefix", "/meshd/v1/", "-w", "json")
            for entry in answers.raw_logs(name, now(), said):
                self.note(entry)

    async def work(self, rounds: int, *names: str) -> None:
        for _ in range(rounds):
            for name in names:
                await self.command(name)
            await self.look()

    @asynccontextmanager
    async def followed(self, name: str, daemon: Daemon, connection: int) -> AsyncIterator[None]:
        """A subscriber follows it, and goes on where it was before."""
        pid = daemon.process.pid
        process: dict[str, Any] = {"process": name, "cluster": name, "pid": pid}
        self.note(Process(at_ns=now(), change=Change.STARTED, **process))
        self.daemons[name] = daemon
        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(self._follow(name, daemon, connection))
            yield
            following.cancel()
        self.note(Process(at_ns=now(), change=Change.ENDED, **process))

    async def _follow(self, name: str, daemon: Daemon, connection: int) -> None:
        headers = {"Accept": "text/event-stream"}
        if name in self.at:
            headers["Last-Event-ID"] = self.at[name]
        url = f"{daemon.url}/v1/events?from=beginning"
        with suppress(aiohttp.ClientError):
            async with daemon.http.get(url, headers=headers, timeout=FOR_EVER) as response:
                place = ""
                async for raw in response.content:
                    kind, _, value = raw.decode().strip().partition(": ")
                    if kind == "id":
                        place = value
                    elif kind == "data":
                        event = orjson.loads(value)
                        told = answers.stream_message(f"of {name}", connection, name, now(), event)
                        self.note(told)
                        self.at[name] = place


FOR_EVER = aiohttp.ClientTimeout(total=None)


def now() -> int:
    return time.monotonic_ns()


async def test_what_was_recorded_of_daemons_holds(
    tmp_path: Path, new_etcd: NewEtcd, run_daemon: RunDaemon
) -> None:
    path = tmp_path / "history.jsonl"
    etcds = {name: await new_etcd() for name in NAMES}

    def daemon(name: str) -> Any:
        peers = {other: etcd.endpoints for other, etcd in etcds.items() if other != name}
        return run_daemon(name, NAMES.index(name) + 1, etcds[name].endpoints, peers)

    with journal.Writer(path) as writer:
        recorder = Recorder(writer, etcds)
        header = {"seed": 1, "scenario": "recorded", "versions": {"meshd": "this"}}
        writer.write(RunStarted(at_ns=now(), clusters=NAMES, bounds=BOUNDS, **header))  # type: ignore[arg-type]
        async with AsyncExitStack() as stack:
            for name in ("east", "west"):
                running = await stack.enter_async_context(daemon(name))
                await stack.enter_async_context(recorder.followed(name, running, 1))
            async with daemon("south") as south, recorder.followed("south", south, 1):
                for one in recorder.daemons.values():
                    web = {"global": True, "ports": [{"port": 80, "name": "http"}]}
                    url = f"{one.url}/v1/services/shop/web"
                    async with one.http.put(url, json=web) as response:
                        assert response.status == 200
                await recorder.work(ROUNDS, *NAMES)
                await recorder.dump()
                recorder.note(
                    FaultInjected(at_ns=now(), fault_id=1, fault="kill", clusters=("south",))
                )
                south.kill()
                await south.process.wait()
                recorder.note(FaultBit(at_ns=now(), fault_id=1, proof="it is gone"))
                await recorder.work(ROUNDS, *NAMES)
            south = await stack.enter_async_context(daemon("south"))
            await stack.enter_async_context(recorder.followed("south", south, 2))
            recorder.note(FaultHealed(at_ns=now(), fault_id=1))
            await recorder.work(2, *NAMES)
            await converged(recorder)
            await recorder.look_anew()
            await recorder.dump()
            writer.write(RunEnded(at_ns=now()))
    history = journal.read(path)
    judgement = judge(Evidence(history.entries))
    assert [str(one) for verdict in judgement.violated for one in verdict.violations] == []
    assert judgement.absent == ()
    held = {one.invariant for one in judgement.verdicts if one.status is Status.HOLDS}
    assert held == {invariant for invariant in VALIDATORS if invariant not in NOT_TRIED}


async def converged(recorder: Recorder) -> None:
    """All three stand at one vector, with all in sight, and their subscribers were told it."""

    def is_there(status: Any) -> bool:
        return all(peer["phase"] == "Ready" and not peer["lag_events"] for peer in status["peers"])

    for daemon in recorder.daemons.values():
        await daemon.until("/v1/status", is_there)


@pytest.mark.parametrize(
    ("status", "answer", "outcome"),
    [
        (409, {"title": "Conflict", "detail": "it is another"}, Outcome.FAIL),
        (429, {"title": "Too Many Requests"}, Outcome.UNKNOWN),
        (503, {"title": "Service Unavailable"}, Outcome.UNKNOWN),
    ],
)
def test_what_was_refused_was_not_done(
    status: int, answer: dict[str, str], outcome: Outcome
) -> None:
    done = answers.completed(1, 2, status, answer)
    assert (done.outcome, done.status, done.last_seq) == (outcome, status, 0)
    assert done.error in answer.values()
