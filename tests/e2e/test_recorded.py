"""Real daemons on real etcds are recorded over HTTP and by etcdctl, and judged: one is killed while
the others work on.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import cast

import pytest

from chaos import answers, journal
from chaos.evidence import Evidence
from chaos.history import (
    Bounds,
    Change,
    FaultBit,
    FaultHealed,
    FaultInjected,
    LossNamed,
    Outcome,
    Process,
    RunEnded,
    RunStarted,
)
from chaos.mesh.choose import running_mesh
from chaos.mesh.shape import Mesh, Plan
from chaos.recorder import Recorder
from chaos.traffic.traffic import Rates, Traffic
from chaos.validators.judging import VALIDATORS, Judgement, judge
from chaos.validators.verdict import Status

pytestmark = pytest.mark.timeout(300)
"""Half a minute of work on a machine that does nothing else, and five times that on a busy one."""

NAMES = ("east", "south", "west")
BOUNDS = Bounds(converge_s=30, settle_s=1, latency_slack_s=10)
"""How long something takes where other tests run beside it says nothing."""
RATES = Rates(commands_per_s=10, anew_every_s=2, dumps_every_s=2, samples_every_s=1)
COMMANDS = 60
"""Before the fault, and while it lasts: enough of each of two clusters for a p99."""
SETTLE_TIMEOUT_S = 60.0
NOT_TRIED = {"I10", "I16"}
"""Nothing is poisoned, and nobody tries what isn't theirs."""


@dataclass(slots=True)
class Run:
    """A mesh with traffic that is recorded."""

    mesh: Mesh
    recorder: Recorder
    traffic: Traffic

    async def until(self, what: Callable[[], bool]) -> None:
        """The test's own timeout is the limit."""
        while not what():  # noqa: ASYNC110 nobody tells us
            await asyncio.sleep(0.05)

    async def more_commands(self, number: int) -> None:
        done = self.traffic.counters.commands
        wanted = done[Outcome.OK] + number
        await self.until(lambda: done[Outcome.OK] >= wanted)

    @asynccontextmanager
    async def fault(self, what: str, *clusters: str, loses: bool = False) -> AsyncIterator[None]:
        """Something is broken as the block is entered, and mended in it."""
        recorder = self.recorder
        lost = clusters if loses else ()
        injected = FaultInjected(
            at_ns=recorder.now_ns(), fault_id=1, fault=what, clusters=clusters, loses=lost
        )
        recorder.note(injected)
        yield
        recorder.note(FaultHealed(at_ns=recorder.now_ns(), fault_id=1))

    def bit(self, proof: str) -> None:
        now_ns = self.recorder.now_ns()
        self.recorder.note(FaultBit(at_ns=now_ns, fault_id=1, proof=proof))

    async def killed(self, name: str) -> None:
        """The first meshd of a cluster is killed while others work, and started again."""
        meshd = self.mesh.clusters[name].meshds[0]
        async with self.fault("kill", name):
            await meshd.kill()
            assert meshd.name not in self.recorder.running
            self.bit("it is gone")
            await self.more_commands(COMMANDS)
            await meshd.start()


@asynccontextmanager
async def recorded(path: Path, plan: Plan) -> AsyncIterator[Run]:
    """Run a mesh with traffic, and write down what is seen of it."""
    with journal.Writer(path) as writer:
        recorder = Recorder(writer)
        header = {"seed": 1, "scenario": "recorded", "versions": {"meshd": "this"}}
        begun = RunStarted(at_ns=recorder.now_ns(), clusters=plan.names, bounds=BOUNDS, **header)  # type: ignore[arg-type]
        recorder.note(begun)
        async with running_mesh(plan, "loopback", recorder.process_changed) as running:
            mesh = cast(Mesh, running)
            traffic = Traffic(mesh, recorder, random.Random(1), RATES)
            async with traffic.running():
                yield Run(mesh, recorder, traffic)
                await traffic.settle(SETTLE_TIMEOUT_S)
                assert traffic.unrest == ""
        recorder.note(RunEnded(at_ns=recorder.now_ns()))


def judged(path: Path) -> tuple[Evidence, Judgement]:
    evidence = Evidence(journal.read(path).entries)
    judgement = judge(evidence)
    assert [str(one) for verdict in judgement.violated for one in verdict.violations] == []
    assert judgement.absent == ()
    return evidence, judgement


async def test_what_was_recorded_of_daemons_holds(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    async with recorded(path, Plan(names=NAMES, folder=tmp_path)) as run:
        await run.more_commands(COMMANDS)
        await run.killed("south")
        await run.more_commands(len(NAMES))
    evidence, judgement = judged(path)
    held = {one.invariant for one in judgement.verdicts if one.status is Status.HOLDS}
    assert held == {invariant for invariant in VALIDATORS if invariant not in NOT_TRIED}
    changes = [one.change for one in evidence.all(Process) if one.process == "south/meshd-1"]
    assert changes == [Change.STARTED, Change.KILLED, Change.STARTED]


async def test_who_was_told_what_is_lost_now_says_so(tmp_path: Path) -> None:
    """One cluster begins anew, and another one goes on in its log behind a backup."""
    path = tmp_path / "history.jsonl"
    async with recorded(path, Plan(names=NAMES, folder=tmp_path)) as run:
        south, west = (run.mesh.clusters[name] for name in NAMES[1:])
        assert south.etcd is not None
        assert west.etcd is not None
        await run.more_commands(COMMANDS // 2)
        backup = await south.etcd.backup()
        await run.more_commands(COMMANDS // 2)
        async with run.fault("forget", "south", "west", loses=True):
            for cluster in (south, west):
                await cluster.meshds[0].kill()
            await south.etcd.restore(backup)
            await west.etcd.wipe()
            run.bit("their etcds have another past")
            for cluster in (south, west):
                assert cluster.etcd is not None
                await cluster.etcd.start()
                await cluster.meshds[0].start()
        await run.until(lambda: run.traffic.counters.resets >= len(NAMES))
        await run.more_commands(COMMANDS // 2)
    evidence, _ = judged(path)
    for told in evidence.streams.values():
        assert {one.of for one in told if one.reset} == set(NAMES)
    assert {one.cluster for one in evidence.all(LossNamed)} == {"south", "west"}


async def test_what_was_recorded_of_pairs_of_daemons_and_of_brokers_holds(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    plan = Plan(names=NAMES[:2], is_ha=True, has_brokers=True, folder=tmp_path)
    async with recorded(path, plan) as run:
        await run.more_commands(COMMANDS // 2)
        broker = run.mesh.clusters["east"].broker
        assert broker is not None
        await broker.stop()
        await run.killed("south")
        await broker.start()
        await run.more_commands(len(NAMES))
    evidence, _ = judged(path)
    # One mosquitto_sub, one subscriber of each meshd, and one that takes either.
    told = Counter(one.cluster for one in map(itemgetter(0), evidence.streams.values()))
    assert told == {"east": 4, "south": 4}
    connections = {one.connection for one in evidence.streams["mqtt-east"]}
    assert connections == {1, 2}


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
