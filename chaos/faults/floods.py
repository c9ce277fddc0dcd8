"""Row 26: clients that ask a meshd more than it should be asked.

For: floods of writes, bodies that are too large, requests that never end. Not for: peers that
flood (`poison`), nor streams that aren't read (`consumers`). Invariants: the floods are processes
of their own and end with the fault; what they wrote is removed.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar, Final

from chaos.faults.consumers import PATH, unsay
from chaos.faults.fault import Fault, Says, Stage, Usual
from chaos.faults.flooder import SERVICE
from chaos.faults.ground import ASK_EVERY_S, UNANSWERED, ask, kept, running
from chaos.mesh.shape import Kind, Server

WRITERS: Final = 100
QUEUE_MAX: Final = 50
"""Of `writer.queue_max`, which would be 10,000: then a flood of this machine would not fill it."""
ENDED: Final = ("408", "closed")
HALVES: Final = 100
"""Connections at a time: few enough for the descriptors of who does it."""


@dataclass(slots=True)
class _Flood:
    """A flooder, and whom it floods."""

    meshd: Server
    process: asyncio.subprocess.Process

    async def counts(self) -> Mapping[str, int]:
        """How often it was answered what; raises RuntimeError if it ended."""
        stdin, stdout = self.process.stdin, self.process.stdout
        if stdin is None or stdout is None:
            raise RuntimeError("the flooder has no pipes")
        stdin.write(b"\n")
        line = await stdout.readline()
        if not line:
            raise RuntimeError("the flooder ended by itself; its error is on standard error")
        found: Mapping[str, int] = json.loads(line)
        return found


class _Flooded(Usual):
    """The first meshd of each victim is flooded."""

    number: ClassVar[int] = 26
    name: ClassVar[str]
    summary: ClassVar[str]
    behaviour: ClassVar[str] = (
        "what is too much is refused; a person's writes succeed, and logs are followed as ever"
    )
    hold_s: ClassVar[float] = 5.0
    kind: ClassVar[str]
    at_once: ClassVar[int]
    refusals: ClassVar[tuple[str, ...]]
    """What shows that it was too much."""
    refusals_min: ClassVar[int] = 1

    async def inject(self, stage: Stage) -> Says:
        """Begin."""
        for cluster in stage.clusters:
            meshd = running([cluster], Kind.MESHD)[0]
            process = await asyncio.create_subprocess_exec(
                # Whoever floods would take no processor from those who aren't flooded.
                *(*cluster.share, sys.executable, "-m", "chaos.faults.flooder"),
                *(self.kind, meshd.address, str(self.at_once)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            stage.memory[f"flood {cluster.name}"] = _Flood(meshd, process)
        return Says()

    async def bit(self, stage: Stage) -> str:
        """So many were refused, and meanwhile somebody else's command was done."""
        told = []
        for cluster in stage.clusters:
            flood = kept(stage, f"flood {cluster.name}", _Flood)
            if flood is None:
                raise RuntimeError(f"nobody floods {cluster.name}: inject comes first")
            while True:
                counts = await flood.counts()
                refused = sum(counts.get(one, 0) for one in self.refusals)
                if refused >= self.refusals_min:
                    break
                await asyncio.sleep(ASK_EVERY_S)
            tries = await _tries_until_done(flood.meshd)
            told.append(
                f"{flood.meshd.name} answered {json.dumps(counts)}; a command of somebody else"
                f" was done at try {tries}"
            )
        return "; ".join(told)

    async def heal(self, stage: Stage) -> None:
        """End it, and remove what it wrote."""
        for cluster in stage.clusters:
            flood = kept(stage, f"flood {cluster.name}", _Flood)
            if flood is not None:
                if flood.process.returncode is None:
                    flood.process.kill()
                await flood.process.wait()
                await unsay(cluster, SERVICE)
                await unsay(cluster, "person")
                del stage.memory[f"flood {cluster.name}"]


async def _tries_until_done(meshd: Server) -> int:
    """Write as a person does, who tries again where it was too much."""
    tries = 0
    while True:
        tries += 1
        with suppress(*UNANSWERED):
            answer = await ask(meshd, PATH.format("person"), "PUT", {"labels": {"n": str(tries)}})
            if answer.status == 200:  # noqa: PLR2004 OK
                return tries
        await asyncio.sleep(ASK_EVERY_S)


class RestFlood(_Flooded):
    """More writes at a time than are queued."""

    name: ClassVar[str] = "rest-flood"
    summary: ClassVar[str] = f"{WRITERS} clients write as fast as they can"
    settings: ClassVar[Mapping[str, object]] = {"writer.queue_max": QUEUE_MAX}
    kind: ClassVar[str] = "writes"
    at_once: ClassVar[int] = WRITERS
    refusals: ClassVar[tuple[str, ...]] = ("429",)


class BigBodies(_Flooded):
    """Bodies larger than any command."""

    name: ClassVar[str] = "big-bodies"
    summary: ClassVar[str] = "clients send bodies of 100 MB"
    kind: ClassVar[str] = "bodies"
    at_once: ClassVar[int] = 4
    refusals: ClassVar[tuple[str, ...]] = ("413",)


class HalfHeads(_Flooded):
    """Requests whose heads are begun and never finished (slowloris)."""

    name: ClassVar[str] = "half-heads"
    summary: ClassVar[str] = f"{HALVES} requests are begun and their heads never finished"
    hold_s: ClassVar[float] = 35.0
    """A meshd waits 30 s for a head, and as long for a body."""
    kind: ClassVar[str] = "half-heads"
    at_once: ClassVar[int] = HALVES
    refusals: ClassVar[tuple[str, ...]] = ENDED
    refusals_min: ClassVar[int] = HALVES


class HalfBodies(HalfHeads):
    """Requests whose bodies are begun and never finished."""

    name: ClassVar[str] = "half-bodies"
    summary: ClassVar[str] = f"{HALVES} requests are begun and their bodies never finished"
    kind: ClassVar[str] = "half-bodies"


FAULTS: Final[tuple[type[Fault], ...]] = (RestFlood, BigBodies, HalfHeads, HalfBodies)
