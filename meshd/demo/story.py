"""The story: the steps in their order, from nothing to nothing left.

For: the frame around the steps, and what becomes of a step that can't go on. Not for: the steps
themselves (`opening`, `east`, `west`). Invariant: the last step, the end, is always played, and
what it finds is told.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager

from meshd.client import ClientError
from meshd.demo import east, opening, west
from meshd.demo.catalog import CALM, CLUSTERS, Trouble
from meshd.demo.children import Child
from meshd.demo.expect import no_failures
from meshd.demo.feed import Look
from meshd.demo.mesh import EndedError
from meshd.demo.scene import Finding, Step, Tone
from meshd.demo.stage import Stage, Stopwatch
from meshd.demo.waiting import NotInTimeError

STEPS_TOTAL = 6
STEPS_WITHOUT_STORY = 2
START_AGAIN = signal.SIGUSR1
"""Asks for those to be started again that somebody has ended since the story is over."""


class BrokenOffError(Exception):
    """A step could not go on; its finding has been told."""


class Story:
    """Plays the steps on a stage. looks, digests: what the clusters said at the end, and of every
    perspective what each cluster worked out.
    """

    def __init__(self, stage: Stage) -> None:
        self.looks: dict[str, Look] = {}
        self.digests: dict[str, dict[str, str]] = {}
        self._stage = stage
        self._is_complete = False

    async def play(self, *, stay: bool, has_story: bool = True) -> None:
        """Play all steps but the end; raises BrokenOffError when one can't go on. stay: never
        return by itself. has_story: whether anything happens between the first step and the last.
        """
        stage = self._stage
        # From the first moment on, since a signal that nobody handles would end the demo.
        again = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(START_AGAIN, again.set)
        async with self._step("start", "Three clusters start") as step:
            await opening.start(stage, step)
        async with asyncio.TaskGroup() as tasks:
            customers = tasks.create_task(stage.traffic.run(), name="customers")
            if has_story:
                await self._play_with_customers()
            await self._look_around()
            if stay:
                await self._stay(again)
            customers.cancel()

    async def _play_with_customers(self) -> None:
        stage = self._stage
        async with self._step("steady", "Customers everywhere") as step:
            await opening.steady(stage, step)
        async with self._step("east", "East's backends are taken away", east.WITHOUT_EAST) as step:
            await east.empties(stage, step)
        async with self._step("west-dies", "West's meshd and etcd are killed") as step:
            before = await west.dies(stage, step)
        async with self._step("west-returns", "West comes back") as step:
            await west.returns(stage, step, before)

    async def _look_around(self) -> None:
        stage = self._stage
        self.looks = {name: await stage.mesh.look(name) for name in CLUSTERS}
        self.digests = await stage.mesh.digests(CLUSTERS)
        self._is_complete = True

    async def _stay(self, again: asyncio.Event) -> None:
        """Leave the mesh running for whoever wants to try things on it, until a signal. Who was
        ended meanwhile is started again when that is asked for, and not before: it may be the
        very thing that somebody wants to look at.
        """
        self._stage.scene.tell(Tone.STEP, "All is as it was, and goes on until Ctrl-C")
        for site in self._stage.mesh.sites.values():
            manifest = f"its manifest is {site.manifest_file}"
            self._stage.scene.say(f"{site.name}: {site.place.url}, {manifest}")
        self._stage.scene.say("try `meshd --url … status`, `… get tables`, `… apply -f FILE`")
        while True:
            again.clear()
            for site in self._stage.mesh.sites.values():
                for child in site.children:
                    if child.exit_status is not None:
                        await child.start()
                        self._stage.scene.did(f"started {child.name} again")
            await again.wait()

    async def end(self) -> None:
        """End everything, and look for what is left."""
        stage = self._stage
        step = stage.scene.begin_step("end", "Everything ends")
        watch = Stopwatch()
        alive = [child for child in stage.children if child.pid is not None]
        await stage.children.end()
        step.timings["all processes gone"] = watch.seconds
        step.did.append(f"SIGTERM to {', '.join(child.name for child in alive) or 'nobody'}")
        stage.find([self._ended_well(alive, watch.seconds), self._nothing_left()])
        self._close(step)

    def _ended_well(self, alive: Sequence[Child], seconds: float) -> Finding:
        # Who is told to end before it has begun has no other way to.
        well = {0} if self._is_complete else {0, -signal.SIGTERM}
        unwell = [
            f"{child.name} with {child.exit_status}"
            for child in alive
            if child.exit_status not in well
        ]
        detail = ", ".join(unwell) or f"{len(alive)} in {seconds:.1f} s"
        return Finding("every process ends by itself with exit status 0", not unwell, detail)

    def _nothing_left(self) -> Finding:
        left = [*self._stage.children.remains, *self._stage.children.left()]
        detail = ", ".join(f"{one.pid} {one.command[:60]}" for one in left)
        return Finding("no process is left", not left, detail or "none found")

    @asynccontextmanager
    async def _step(self, name: str, title: str, trouble: Trouble = CALM) -> AsyncIterator[Step]:
        scene = self._stage.scene
        step = scene.begin_step(name, title)
        try:
            yield step
        except* (NotInTimeError, EndedError, ClientError) as group:
            for error in _leaves(group):
                what = "the step can be played to its end"
                scene.find(Finding(what, ok=False, detail=str(error)))
            raise BrokenOffError from group
        finally:
            for label, tally in step.requests.items():
                self._stage.find([no_failures(tally, CLUSTERS, trouble, f"request ({label})")])
            if step.meanwhile.sent:
                self._stage.find(
                    [
                        no_failures(
                            step.meanwhile,
                            CLUSTERS,
                            trouble,
                            "request of the customers who never stop",
                        )
                    ]
                )
            self._close(step)

    def _close(self, step: Step) -> None:
        step.ended_s = self._stage.scene.elapsed_s


def _leaves(group: BaseExceptionGroup[Exception]) -> Iterator[Exception]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
