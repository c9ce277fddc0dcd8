"""Row 12: what a meshd takes for the time of day jumps, or runs too fast.

For: meshds. Not for: etcds, whose Go asks the kernel past every library, nor the machine's clock.
Invariant: healed, meshds run without anything that lies to them.
"""

from __future__ import annotations

import asyncio
from email.utils import parsedate_to_datetime
from time import time
from typing import ClassVar, Final

from chaos.faults.boot import as_configured
from chaos.faults.fault import Fault, Says, Stage, Usual
from chaos.faults.ground import ASK_EVERY_S, UNANSWERED, ask, running
from chaos.mesh.clocks import Clock
from chaos.mesh.shape import Kind, Power, Server

JUMP_S: Final = 7200.0
"""Two hours: more than a wrong time zone, or than a lease or any pause of ours."""
FACTOR: Final = 10.0
DRIFTED_S: Final = 20.0
"""So far ahead is no rounding: an answer's date is in whole seconds."""


class _Clocks(Usual):
    """The victims' meshds run with a clock that can be set, which is then set wrong."""

    number: ClassVar[int] = 12
    behaviour: ClassVar[str] = "order, leases and ages don't depend on the time of day"
    needs: ClassVar[frozenset[Power]] = frozenset({Power.CLOCK, Power.KILL, Power.RESTART})
    hold_s: ClassVar[float] = 10.0
    least_s: ClassVar[float] = JUMP_S / 2

    def set(self, clock: Clock) -> None:
        """Set it wrong."""
        raise NotImplementedError

    async def inject(self, stage: Stage) -> Says:
        """Start them with a clock that is right, then set it wrong while they run."""
        for cluster in stage.clusters:
            stage.memory[f"clocks {cluster.name}"] = True
            clock = Clock(stage.mesh.folder / f"clock-of-{cluster.name}")
            clock.jump(0)
            for meshd in cluster.meshds:
                await meshd.stop()
                await meshd.start_with((), clock.environment())
            self.set(clock)
        return Says()

    async def bit(self, stage: Stage) -> str:
        """Each answers with a date that is wrong enough."""
        meshds = running(stage.clusters, Kind.MESHD)
        return "; ".join([await self._wrong(meshd) for meshd in meshds])

    async def _wrong(self, meshd: Server) -> str:
        while True:
            ahead_s = await _ahead_s(meshd)
            if ahead_s is not None and self.is_wrong(ahead_s):
                return f"{meshd.name} says a time that is {ahead_s:+.0f} s ahead"
            await asyncio.sleep(ASK_EVERY_S)

    def is_wrong(self, ahead_s: float) -> bool:
        """Whether that is the effect that was wanted."""
        return ahead_s > self.least_s

    async def heal(self, stage: Stage) -> None:
        """Start them without it."""
        await as_configured(stage, "clocks")


async def _ahead_s(meshd: Server) -> float | None:
    try:
        answer = await ask(meshd, "/livez")
    except UNANSWERED:
        return None
    said = parsedate_to_datetime(answer.headers["Date"])
    return said.timestamp() - time()


class ClockForward(_Clocks):
    """Two hours forward."""

    name: ClassVar[str] = "clock-forward"
    summary: ClassVar[str] = "the time of day jumps two hours forward"

    def set(self, clock: Clock) -> None:
        """Jump."""
        clock.jump(JUMP_S)


class ClockBack(_Clocks):
    """Two hours back."""

    name: ClassVar[str] = "clock-back"
    summary: ClassVar[str] = "the time of day jumps two hours back"

    def set(self, clock: Clock) -> None:
        """Jump."""
        clock.jump(-JUMP_S)

    def is_wrong(self, ahead_s: float) -> bool:
        """Behind, that is."""
        return ahead_s < -self.least_s


class ClockDrift(_Clocks):
    """Ten times as fast."""

    name: ClassVar[str] = "clock-drift"
    summary: ClassVar[str] = "the time of day runs ten times as fast"
    least_s: ClassVar[float] = DRIFTED_S

    def set(self, clock: Clock) -> None:
        """Drift from now on."""
        clock.drift(FACTOR)


FAULTS: Final[tuple[type[Fault], ...]] = (ClockForward, ClockBack, ClockDrift)
