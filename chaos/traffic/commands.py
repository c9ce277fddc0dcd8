"""Clients of a cluster that change something all the time, and what they were told of it.

For: histories with commands. Not for: which commands (`mix`). Invariants: each try is an operation
of its own; who got no answer tries again with the same idempotency key, a few times; some that got
one send it again all the same, after the next command; what was never sent has failed, what wasn't
answered is unknown.

Within a cluster each caller sends a command after the answer to its last one, as I9 asks for. Logs
of several clusters have no order among each other, so nobody has to wait for another cluster's.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from chaos import answers
from chaos.history import Completed, Invoked, Outcome
from chaos.mesh.shape import Cluster, Meshd
from chaos.recorder import Recorder
from chaos.traffic.calls import Calls, UnansweredError
from chaos.traffic.counters import Counters
from chaos.traffic.mix import Command, Mix
from chaos.traffic.pacing import Gate, paced

TRIES_MAX: Final = 3
"""With one key. Of a cluster that is down for long most tries are in vain."""
RETRY_AFTER_S: Final = 0.3
LATE_SHARE: Final = 0.1
"""Of commands that were done, how many are sent once more later, as a queue or a proxy does it."""
CALLERS: Final = 2
"""Of each cluster: so that one waits for an answer while the other goes on, and meshd commits some
commands together."""
BEGIN_TIMEOUT_S: Final = 60.0
"""For nine commands, which take less than a second; on a machine that is busy they take longer."""


@dataclass(slots=True)
class Caller:
    """One client of one cluster."""

    name: str
    cluster: Cluster
    mix: Mix
    calls: Calls
    recorder: Recorder
    counters: Counters
    _asked: int = 0

    async def begin(self) -> None:
        """See to it that there is what commands are about."""
        async with asyncio.timeout(BEGIN_TIMEOUT_S):
            for command in self.mix.beginnings():
                while True:
                    if await self.send(command) is Outcome.OK:
                        break
                    await asyncio.sleep(RETRY_AFTER_S)

    async def run(self, every_s: float, gate: Gate) -> None:
        """Send commands for ever."""
        done: deque[tuple[Command, str]] = deque(maxlen=2)
        async for _ in paced(every_s, gate, first_s=self.mix.chance.uniform(0, every_s)):
            if len(done) == done.maxlen and self.mix.chance.random() < LATE_SHARE:
                await self.send(*done.popleft())
                continue
            command, key = self.mix.draw(), self._next_key()
            if await self.send(command, key) is Outcome.OK:
                done.append((command, key))

    def _next_key(self) -> str:
        self._asked += 1
        return f"{self.name}-{self._asked}"

    async def send(self, command: Command, key: str = "") -> Outcome:
        """Send a command, until it is known what became of it or it was tried often enough. key:
        its idempotency key, a new one if empty.
        """
        key = key or self._next_key()
        meshds = self.cluster.meshds
        outcome = Outcome.UNKNOWN
        for number in range(TRIES_MAX):
            if number:
                await asyncio.sleep(RETRY_AFTER_S * number)
            meshd = meshds[(self._asked + number) % len(meshds)]
            done = await self._try(meshd, command, key)
            outcome = done.outcome
            if done.outcome is Outcome.OK or _is_refused(done, meshds):
                break
        return outcome

    async def _try(self, meshd: Meshd, command: Command, key: str) -> Completed:
        op, recorder = self.recorder.next_op(), self.recorder
        recorder.note(
            Invoked(
                at_ns=recorder.now_ns(),
                op=op,
                cluster=self.cluster.name,
                caller=self.name,
                key=key,
                command=str(command),
            )
        )
        done = await self._answered(op, meshd, command, key)
        recorder.note(done)
        self.counters.commands[done.outcome] += 1
        return done

    async def _answered(self, op: int, meshd: Meshd, command: Command, key: str) -> Completed:
        headers = {"Idempotency-Key": key}
        try:
            answer = await self.calls.ask(
                meshd, command.path, command.method, command.body, headers
            )
        except UnansweredError as error:
            outcome = Outcome.UNKNOWN if error.was_sent else Outcome.FAIL
            at_ns = self.recorder.now_ns()
            return Completed(at_ns=at_ns, op=op, outcome=outcome, error=str(error))
        return answers.completed(op, self.recorder.now_ns(), answer.status, answer.data)


def _is_refused(done: Completed, meshds: Sequence[Meshd]) -> bool:
    """It makes no sense to try again: it was refused, or there is nobody else to be asked."""
    return done.outcome is Outcome.FAIL and (done.status > 0 or len(meshds) == 1)


def callers_of(
    cluster: Cluster, seed: int, calls: Calls, recorder: Recorder, counters: Counters
) -> list[Caller]:
    """The clients of a cluster."""
    found = []
    for number in range(1, CALLERS + 1):
        name = f"{cluster.name}-{number}"
        chance = random.Random(f"{seed} {name}")  # noqa: S311 it is to be drawn again
        mix = Mix(cluster.number, chance, name)
        found.append(Caller(name, cluster, mix, calls, recorder, counters))
    return found
