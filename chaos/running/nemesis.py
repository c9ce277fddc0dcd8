"""Breaks what a window says, sees that it had an effect, and heals it.

For: the runner. Not for: what each fault does. Invariants: what was begun to be broken is healed,
whatever happened in between, also if healing something else failed; a fault whose effect wasn't
seen is recorded without one.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from chaos.faults.fault import Fault, Says, Stage
from chaos.history import FaultBit, FaultHealed, FaultInjected
from chaos.mesh.shape import Mesh
from chaos.recorder import Recorder
from chaos.running.held import HeldWriter
from chaos.running.progress import Progress, told
from chaos.scenarios.scenario import Faults, Healing, Hit, Window

INJECT_TIMEOUT_S = 60.0
"""For each victim. The slowest fills an etcd, or restores three members of one."""
BITE_TIMEOUT_S = 45.0
"""For each victim. What takes longest to be seen is a silent peer: after
`replication.silent_after_s` of 10 s, and with a quorum lost another election."""
HEAL_TIMEOUT_S = 240.0
"""Starting three members and two meshds anew takes some 10 s on a machine that does nothing else; a
server is given 120 s to start, and of several clusters one is healed after the other."""


class NotHealedError(Exception):
    """Something is still broken: what the run shows after it proves nothing."""


@dataclass(slots=True)
class Active:
    """A fault that was begun."""

    number: int
    hit: Hit
    fault: Fault
    stage: Stage


@dataclass(slots=True, kw_only=True)
class Nemesis:
    """Of one run. begun: the names of faults. toothless: those whose effect wasn't seen, with what
    was seen instead.
    """

    mesh: Mesh
    writer: HeldWriter
    recorder: Recorder
    faults: Faults
    seed: int
    progress: Progress
    begun: list[str] = field(default_factory=list)
    toothless: list[str] = field(default_factory=list)

    async def perform(self, window: Window) -> None:
        """Break, hold, heal, rest. Raises NotHealedError, and whatever injecting raised."""
        if not window.is_quiet:
            await self._break_and_heal(window)
        else:
            await asyncio.sleep(window.hold_s)
        if window.rest_s:
            self.progress.enter(f"resting for {window.rest_s:g} s")
            await asyncio.sleep(window.rest_s)

    async def _break_and_heal(self, window: Window) -> None:
        active: list[Active] = []
        chance = random.Random(f"{self.seed} healing {len(self.begun)}")  # noqa: S311 to be drawn again
        try:
            async with asyncio.TaskGroup() as tasks:
                for number, hit in enumerate(window.hits):
                    if number:
                        await asyncio.sleep(window.apart_s)
                    await self._inject(hit, window, active)
                    tasks.create_task(self._see(active[-1]))
                await asyncio.sleep(window.hold_s)
        finally:
            await self._heal(_order(active, window.healing, chance), window.apart_s)

    async def _inject(self, hit: Hit, window: Window, active: list[Active]) -> None:
        """Break it. The record has it where it began, and what it did once that is known."""
        self.begun.append(hit.fault)
        number = len(self.begun)
        chance = random.Random(f"{self.seed} {number} {hit.fault}")  # noqa: S311 to be drawn again
        elsewhere = frozenset(name for one in window.hits for name in one.victims)
        stage = Stage(mesh=self.mesh, victims=hit.victims, chance=chance, elsewhere=elsewhere)
        one = Active(number, hit, self.faults[hit.fault](), stage)
        active.append(one)
        self.progress.broken.append(str(hit))
        self.progress.tell(f"injecting {hit}")
        place = self.writer.take(self.recorder.now_ns())
        says = Says(detail="injecting it failed")
        limit_s = INJECT_TIMEOUT_S * len(hit.victims)
        try:
            async with asyncio.timeout(limit_s):
                says = await one.fault.inject(stage)
        except TimeoutError as error:
            raise TimeoutError(f"injecting {hit}: {_said(error, limit_s)}") from None
        finally:
            entry = FaultInjected(
                at_ns=place.at_ns,
                fault_id=one.number,
                fault=hit.fault,
                clusters=tuple(hit.victims),
                loses=says.loses,
                poisons=says.poisons,
                detail=says.detail,
            )
            self.writer.fill(place, entry)
        for attempt in says.attempts:
            self.recorder.note(replace(attempt, at_ns=self.recorder.now_ns()))

    async def _see(self, one: Active) -> None:
        """Wait for a proof. That there is none ends no run, but it proves nothing then."""
        limit_s = BITE_TIMEOUT_S * len(one.hit.victims)
        try:
            async with asyncio.timeout(limit_s):
                proof = await one.fault.bit(one.stage)
        except Exception as error:  # noqa: BLE001 whatever it is, there is no proof
            self.toothless.append(f"{one.hit}: {_said(error, limit_s)}")
            self.progress.tell(f"no proof that {one.hit} had an effect: {self.toothless[-1]}")
            return
        self.recorder.note(FaultBit(at_ns=self.recorder.now_ns(), fault_id=one.number, proof=proof))
        self.progress.tell(f"{one.hit} bit: {proof}")

    async def _heal(self, active: Sequence[Active], apart_s: float) -> None:
        failed: list[str] = []
        for number, one in enumerate(active):
            if number:
                await asyncio.sleep(apart_s)
            begun_ns = self.recorder.now_ns()
            try:
                async with asyncio.timeout(HEAL_TIMEOUT_S):
                    await one.fault.heal(one.stage)
            except Exception as error:  # noqa: BLE001 the others are healed all the same
                failed.append(f"{one.hit}: {_said(error, HEAL_TIMEOUT_S)}")
                continue
            finally:
                self.progress.broken.remove(str(one.hit))
            at_ns = self.recorder.now_ns()
            self.recorder.note(FaultHealed(at_ns=at_ns, fault_id=one.number, begun_ns=begun_ns))
            self.progress.tell(f"healed {one.hit}")
        if failed:
            raise NotHealedError(f"not healed: {'; '.join(failed)}")


def _order(active: Sequence[Active], healing: Healing, chance: random.Random) -> list[Active]:
    """In which order they are healed. Another one is another one, if there are two."""
    order = list(active)
    if healing is Healing.SWIZZLE and len(order) > 1:
        while order == list(active):
            chance.shuffle(order)
    return order


def _said(error: Exception, limit_s: float) -> str:
    if isinstance(error, TimeoutError) and not str(error):
        return f"nothing within {limit_s:g} s"
    return told(error)
