"""A mesh that somebody else runs, as a mesh under test.

For: `shape.Mesh` over the commands of a mesh file (`mesh_file`), by systemd over SSH, by kubectl or
by anything that ends. Not for: starting a mesh. Invariants: what the file doesn't allow isn't
touched; when the mesh is left, by its end, an error, Ctrl-C or SIGTERM, all that was done to it has
been undone, or what hasn't is told.
"""

from __future__ import annotations

import asyncio
import signal
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from chaos.brokers import Broker
from chaos.etcds import Etcd
from chaos.history import Change
from chaos.mesh.commanding import (
    ENDING_SIGNALS,
    CommandError,
    Commanding,
    RefusedError,
    Say,
)
from chaos.mesh.mesh_file import (
    ClusterEntry,
    MeshdEntry,
    MeshFile,
    Target,
    Verb,
    read_mesh_file,
    targets,
)
from chaos.mesh.shape import CLOSED, OPEN, Kind, Power, Server, Way
from chaos.mesh.undoing import UndoFileError, UndoList

ASK_EVERY_S = 0.5
ASK_TIMEOUT_S = 5.0

POWER_OF: Mapping[Power, tuple[Verb, ...]] = {
    Power.KILL: (Verb.KILL, Verb.START),
    Power.FREEZE: (Verb.FREEZE, Verb.THAW),
    Power.CUT: (Verb.CUT, Verb.HEAL),
    Power.CUT_ONE_WAY: (Verb.CUT_ONE_WAY, Verb.HEAL_ONE_WAY),
}
"""Which commands each power takes."""

Listener = Callable[[Server, Change, int], None]
"""Told of what is done to processes; the status is not known here, so it is 0."""


@dataclass(slots=True)
class AttachedServer:
    """One process of theirs. kill, start, stop and the others return once the command has ended:
    a command must not end before its work is done.
    """

    name: str
    cluster: str
    kind: Kind
    address: str
    _commanding: Commanding = field(repr=False)
    _listener: Listener | None = field(default=None, repr=False)
    _runs: bool = field(default=True, repr=False)

    @property
    def pid(self) -> int | None:
        """0, which is no process of this machine that could be looked at; None once it was ended
        from here. What its owner does to it isn't known.
        """
        return 0 if self._runs else None

    async def start(self) -> None:
        """Start it, and wait until it answers."""
        await self._do(Verb.START)
        if not self._commanding.dry_run:
            await self._until_it_answers()
        self._tell(Change.STARTED)

    async def kill(self) -> None:
        """End it as a power cut does."""
        await self._do(Verb.KILL)
        self._tell(Change.KILLED)

    async def stop(self) -> None:
        """Ask it to end; where the file doesn't say how, kill it."""
        can_stop = self._commanding.can(Verb.STOP, self._target)
        await self._do(Verb.STOP if can_stop else Verb.KILL)
        self._tell(Change.ENDED if can_stop else Change.KILLED)

    async def freeze(self) -> None:
        """Let it do nothing."""
        await self._do(Verb.FREEZE)

    async def thaw(self) -> None:
        """Let it go on."""
        await self._do(Verb.THAW)

    @property
    def _target(self) -> Target:
        return Target.of_server(self.name)

    async def _do(self, verb: Verb) -> None:
        await asyncio.to_thread(self._commanding.do, verb, self._target)

    def _tell(self, change: Change) -> None:
        if self._commanding.dry_run:
            return
        self._runs = change is Change.STARTED
        if self._listener is not None:
            self._listener(self, change, 0)

    async def _until_it_answers(self) -> None:
        """An etcd or a broker is used by whoever is next; only of a meshd we know where to ask."""


@dataclass(slots=True)
class AttachedMeshd(AttachedServer):
    """One meshd of theirs. entry: its URL and credentials, for those who speak to it."""

    entry: MeshdEntry = field(kw_only=True)

    async def start_with(
        self, settings: Sequence[str] = (), environment: Mapping[str, str] | None = None
    ) -> None:
        """Not here: its settings are its owner's. A mesh that is attached to lacks this power."""
        del settings, environment
        raise RefusedError(f"{self.name} can't be started with other settings from here")

    async def _until_it_answers(self) -> None:
        timeout_s = self._commanding.file.start_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                while not await self.is_ready():  # noqa: ASYNC110 nobody tells us
                    await asyncio.sleep(ASK_EVERY_S)
        except TimeoutError:
            what = f"{self.name} was started, but isn't ready after {timeout_s:g} s"
            raise CommandError(f"{what}: ask {self.entry.url}/readyz") from None

    async def is_ready(self) -> bool:
        """Whether it says so."""
        limits = aiohttp.ClientTimeout(total=ASK_TIMEOUT_S)
        url = f"{self.entry.url.rstrip('/')}/readyz"
        try:
            async with (
                aiohttp.ClientSession(timeout=limits) as http,
                http.get(url, ssl=tls_of(self.entry)) as answer,
            ):
                return answer.ok
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False


def tls_of(entry: MeshdEntry) -> ssl.SSLContext | bool:
    """Whom to trust."""
    return ssl.create_default_context(cafile=entry.ca_file) if entry.ca_file is not None else True


@dataclass(frozen=True, slots=True)
class AttachedCluster:
    """One of their clusters. Their etcd and broker are not ours to look into."""

    name: str
    number: int
    meshds: Sequence[AttachedMeshd]
    others: Sequence[AttachedServer]
    share: Sequence[str] = ()
    etcd: Etcd | None = None
    broker: Broker | None = None

    @property
    def servers(self) -> Sequence[AttachedServer]:
        """All its processes that the file lists."""
        return [*self.meshds, *self.others]


class AttachedNetwork:
    """What lies between their clusters."""

    def __init__(self, commanding: Commanding) -> None:
        self._commanding = commanding
        self._closed: set[tuple[str, str]] = set()

    async def shape(self, source: str, target: str, way: Way) -> None:
        """Cut or heal. Where only both directions can be cut together, they are cut with the first
        that is to be and healed with the last.
        """
        if way not in {OPEN, CLOSED}:
            raise RefusedError(f"{source} > {target}: a mesh of others can be cut, not shaped")
        is_one_way = self._commanding.can(Verb.CUT_ONE_WAY, Target(source, peer=target))
        other = (target, source) in self._closed
        if way == CLOSED:
            verb = Verb.CUT_ONE_WAY if is_one_way else Verb.CUT
        else:
            verb = Verb.HEAL_ONE_WAY if is_one_way else Verb.HEAL
        if is_one_way:
            link = Target(source, peer=target)
        else:
            first, second = sorted((source, target))
            link = Target(first, peer=second)
        if is_one_way or not other:
            await asyncio.to_thread(self._commanding.do, verb, link)
        if way == CLOSED:
            self._closed.add((source, target))
        else:
            self._closed.discard((source, target))

    async def reset(self, source: str, target: str) -> int:
        """Not here."""
        raise RefusedError(f"{source} > {target}: a mesh of others can be cut, not reset")


@dataclass(frozen=True, slots=True)
class AttachedMesh:
    """Their mesh."""

    driver: str
    powers: frozenset[Power]
    clusters: Mapping[str, AttachedCluster]
    network: AttachedNetwork
    folder: Path
    commanding: Commanding


def powers_of(commanding: Commanding) -> frozenset[Power]:
    """What can be done to at least one allowed target. Another one is refused."""
    allowed = tuple(targets(commanding.file))
    powers = {
        power
        for power, verbs in POWER_OF.items()
        if any(all(commanding.can(verb, target) for verb in verbs) for target in allowed)
    }
    if Power.CUT_ONE_WAY in powers:
        powers.add(Power.CUT)
    if all(len(cluster.meshds) > 1 for cluster in commanding.file.clusters):
        powers.add(Power.HA)
    return frozenset(powers)


def undo_path(path: Path) -> Path:
    """Where it is kept what is to be undone: beside the file, whoever uses that."""
    return path.with_name(f"{path.name}.undo")


def commanding_of(path: Path, say: Say, *, dry_run: bool = False) -> Commanding:
    """The commands of a file. Refuses to begin on a mesh that an earlier run left broken."""
    file = read_mesh_file(path)
    left = UndoList.read(undo_path(path))
    if len(left) and not dry_run:
        things = "; ".join(one.what for one in left)
        remedy = f"run `python -m chaos.mesh undo {left.path}` first"
        raise UndoFileError(f"an earlier run has left something to undo ({things}); {remedy}")
    return Commanding(path, file, say, dry_run=dry_run, undo=UndoList(undo_path(path)))


def _cluster(
    entry: ClusterEntry, commanding: Commanding, listener: Listener | None
) -> AttachedCluster:
    meshds = [
        AttachedMeshd(
            f"{entry.name}/{one.name}",
            entry.name,
            Kind.MESHD,
            one.address,
            commanding,
            listener,
            entry=one,
        )
        for one in entry.meshds
    ]
    others = [
        AttachedServer(f"{entry.name}/{one.name}", entry.name, kind, "", commanding, listener)
        for kind, one in entry.servers()
        if kind is not Kind.MESHD
    ]
    return AttachedCluster(entry.name, entry.id, meshds, others)


@asynccontextmanager
async def attached(
    path: Path,
    *,
    folder: Path,
    dry_run: bool = False,
    say: Say = print,
    listener: Listener | None = None,
) -> AsyncIterator[AttachedMesh]:
    """Attach to the mesh that a file describes. dry_run: say each command instead of running it.

    Raises MeshFileError or UndoFileError at the beginning, and NotUndoneError at the end.
    """
    commanding = commanding_of(path, say, dry_run=dry_run)
    file: MeshFile = commanding.file
    with _cancelled_by_signals():
        try:
            yield AttachedMesh(
                "attached",
                powers_of(commanding),
                {one.name: _cluster(one, commanding, listener) for one in file.clusters},
                AttachedNetwork(commanding),
                folder,
                commanding,
            )
        finally:
            # It blocks the loop on purpose: nothing that is cancelled again may break it off.
            commanding.close()


@contextmanager
def _cancelled_by_signals() -> Iterator[None]:
    """A signal that would end this process at once cancels what uses the mesh instead. Whoever has
    a handler of their own keeps it.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    taken: list[signal.Signals] = []
    for number in ENDING_SIGNALS:
        if task is not None and signal.getsignal(number) is signal.SIG_DFL:
            loop.add_signal_handler(number, task.cancel)
            taken.append(number)
    try:
        yield
    finally:
        for number in taken:
            loop.remove_signal_handler(number)
