"""One performance of the demo: everything set up, played, and taken down again.

For: folders, processes, signals and the order of the end. Not for: the story (`story`) nor how it
is shown. Invariant: however a performance ends, by itself, by a signal or by an error, no process
that it started is left.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from meshd.client import Client, Target
from meshd.demo.catalog import CLUSTERS
from meshd.demo.children import Children
from meshd.demo.mesh import Mesh
from meshd.demo.places import claim_places
from meshd.demo.report import Json, last_words, report
from meshd.demo.scene import Scene
from meshd.demo.site import Site
from meshd.demo.stage import Stage
from meshd.demo.story import BrokenOffError, Story
from meshd.demo.traffic import Traffic
from meshd.edges.embedded.binary import ask_version, is_unsafe
from meshd.model.errors import FatalError, MeshdError

ACTOR = "demo"
REQUEST_TIMEOUT_S = 5.0
NO_ETCD = (
    "there is no `etcd` on PATH, and each of the three clusters needs one: run `make demo`, which"
    " sees to it, or install it (`apt-get install etcd-server`) and try again"
)


@dataclass(frozen=True, slots=True)
class Options:
    """How to play. folder None: a temporary one, removed at the end. stay: go on until a signal
    when the story is over. has_story: whether there is one between start and end.
    """

    seed: int
    pace: float
    folder: Path | None
    stay: bool
    has_story: bool = True


class _Signalled(Exception):  # noqa: N818 it is no error
    """A signal asks for the end."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number.name)
        self.number = number


class Performance:
    """Plays once. report, logs: what there is to say of it afterwards. mesh: for those who watch,
    once there is one. signalled: the signal that ended it, if one did.
    """

    def __init__(self, options: Options, scene: Scene) -> None:
        self.mesh: Mesh | None = None
        self.report: Json = {}
        self.logs: dict[str, list[str]] = {}
        self.signalled: signal.Signals | None = None
        self._options = options
        self._scene = scene
        self._story: Story | None = None
        self._problem = ""

    @property
    def scene(self) -> Scene:
        """What is told."""
        return self._scene

    async def play(self) -> None:
        """Play; afterwards `report` is complete."""
        try:
            async with asyncio.TaskGroup() as tasks:
                signals = tasks.create_task(_until_signal(), name="signals")
                tasks.create_task(self._play(signals), name="performance")
        except* _Signalled as group:
            self.signalled = _first(group).number
            self._problem = self._problem or f"ended by {self.signalled.name}"
        except* MeshdError as group:
            self._problem = "; ".join(str(error) for error in group.exceptions)
        self.report = report(
            self._scene, self._story, seed=self._options.seed, problem=self._problem
        )
        if self.logs:
            self.report["logs"] = self.logs

    async def _play(self, signals: asyncio.Task[None]) -> None:
        allow_unsafe = await _look_for_etcd()
        async with AsyncExitStack() as stack:
            places = stack.enter_context(claim_places(CLUSTERS))
            folder = _folder(self._options.folder, stack)
            children = await stack.enter_async_context(Children(folder))
            sites = {}
            for name, place in places.items():
                target = Target(url=place.url, actor=ACTOR, timeout_s=REQUEST_TIMEOUT_S)
                client = await stack.enter_async_context(Client(target))
                sites[name] = Site(place, folder, children, client)
                others = [other for other in places.values() if other is not place]
                sites[name].write_files(others, allow_unsafe=allow_unsafe)
            self.mesh = Mesh(sites)
            await self._play_on(self.mesh, children)
        signals.cancel()

    async def _play_on(self, mesh: Mesh, children: Children) -> None:
        options, scene = self._options, self._scene
        traffic = Traffic(mesh.feeds, scene, options.seed)
        story = self._story = Story(Stage(mesh, scene, traffic, children, options.pace))
        try:
            async with asyncio.TaskGroup() as tasks:
                following = tasks.create_task(mesh.follow(), name="read tables")
                await story.play(stay=options.stay, has_story=options.has_story)
                following.cancel()
        except* BrokenOffError:
            self._problem = "a step could not be played to its end"
        finally:
            if not scene.ok:
                self.logs = await asyncio.to_thread(last_words, children)
            await story.end()
            if not scene.ok and not self.logs:
                self.logs = await asyncio.to_thread(last_words, children)
            # What was last seen is better than nothing in the report of a story without an end.
            seen = {name: feed.look for name, feed in mesh.feeds.items() if feed.look is not None}
            story.looks = story.looks or seen


def _first(group: BaseExceptionGroup[_Signalled]) -> _Signalled:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


async def _until_signal() -> None:
    received: asyncio.Queue[signal.Signals] = asyncio.Queue(maxsize=1)
    loop = asyncio.get_running_loop()

    def take(number: signal.Signals) -> None:
        # Of several the first counts: the end is on its way, and takes no harm from impatience.
        if received.empty():
            received.put_nowait(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, take, number)
    raise _Signalled(await received.get())


async def _look_for_etcd() -> bool:
    """Whether the etcd on PATH is one that meshd takes only when told to."""
    found = shutil.which("etcd")
    if found is None:
        raise FatalError(NO_ETCD)
    return is_unsafe(await ask_version(Path(found)))


def _folder(given: Path | None, stack: AsyncExitStack) -> Path:
    if given is None:
        return Path(stack.enter_context(TemporaryDirectory(prefix="meshd-demo-")))
    try:
        given.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FatalError(
            f"can't use {given}: {error.strerror}; give --dir another folder"
        ) from error
    return given.resolve()
