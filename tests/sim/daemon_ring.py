"""Ring 2: the real asyncio code of three meshds on in-memory etcds, in made-up time.

For: crashes, cuts, wipes and lost answers at any await of writer, followers, replicas and presence.
Not for: gRPC and HTTP. Invariants: all chance comes from the seed; the checks read the raw etcds
and fold and derive from scratch, and believe nothing that a meshd says of itself.
"""

from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache

from meshd.core.derive import derive
from meshd.core.fold import fold_record
from meshd.core.position import Verdict, classify
from meshd.core.state import ClusterState
from meshd.edges.memory import MemoryEtcd
from meshd.model.codec import (
    LocalHead,
    decode_cursor,
    decode_head,
    decode_local_head,
    decode_record,
)
from meshd.model.command import Command, Outcome, RemoveEndpoint, RemoveService
from meshd.model.errors import CompactedError, MeshdError, OutcomeUnknownError
from meshd.model.event import Record
from meshd.model.ids import ClusterName, EndpointKey, Head, ServiceKey
from meshd.model.keyspace import DEFAULT_AUDIENCE, Keyspace, LogKeys
from meshd.settings import Settings
from tests.mesh import Mesh, Running, endpoint, service
from tests.sim.loop import SimLoop
from tests.sim.tally import BrokenError, Tally

KEYS = Keyspace()
ROUNDS_MIN, ROUNDS_MAX = 1, 7
HEAL_S = 90.0
"""Longer than the slowest retry (30 s) after the longest backoff, with a heartbeat to follow."""
FAULT_FREE_SHARE = 0.25
FAULTS = (
    "etcd down", "link cut", "reply lost", "kill", "wipe", "restore", "compact", "out of space",
)  # fmt: skip


class QuickMesh(Mesh):
    """A mesh that reads its settings once for all schedules."""

    def settings(self, name: str) -> Settings:
        return _settings(name)


@cache
def _settings(name: str) -> Settings:
    return Mesh().settings(name)


@dataclass(slots=True)
class Asked:
    """One submission: outcome if it was acknowledged, is_open while its fate is unknown."""

    cluster: str
    cause: str
    epoch: int
    outcome: Outcome | None = None


@dataclass(slots=True)
class Site:
    """A cluster: its etcd is always there, its meshd not. epoch: which history its etcd holds."""

    name: str
    etcd: MemoryEtcd
    running: Running | None = None
    task: asyncio.Task[None] | None = None
    epoch: int = 0
    backups: list[object] = field(default_factory=list)


class Schedule:
    """One schedule of ring 2."""

    def __init__(self, seed: int, tally: Tally) -> None:
        self.tally = tally
        self.chance = random.Random(seed)
        self.mesh = QuickMesh()
        self.sites = [Site(name, etcd) for name, etcd in self.mesh.etcds.items()]
        self.asked: list[Asked] = []
        self.trace = 0
        self.is_calm = self.chance.random() < FAULT_FREE_SHARE
        self.faults = [f for f in FAULTS if not self.is_calm and self.chance.random() < 0.4]
        self._calls: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Run it all. Raises BrokenError."""
        async with asyncio.TaskGroup() as tasks:
            for site in self.sites:
                self._start(tasks, site)
            for _ in range(self.chance.randint(ROUNDS_MIN, ROUNDS_MAX)):
                await asyncio.sleep(self.chance.choice((0.0, 0.01, 0.3, 2.0)))
                for _ in range(self.chance.randint(0, 2)):
                    self._ask(tasks, self.chance.choice(self.sites))
                if self.faults and self.chance.random() < 0.6:
                    self._befall(tasks, self.chance.choice(self.faults))
            await self._heal(tasks)
            for site in self.sites:
                self.check_site(site)
            for site in self.sites:
                if site.task is not None:
                    site.task.cancel()
        self.tally.saw("without any fault", not self.faults)
        self.tally.schedules += 1

    # What runs.

    def _start(self, tasks: asyncio.TaskGroup, site: Site) -> None:
        site.task = tasks.create_task(self._supervise(site), name=f"meshd of {site.name}")

    async def _supervise(self, site: Site) -> None:
        """Start meshd again whenever it ends, as systemd would."""
        while True:
            try:
                async with self.mesh.running(site.name) as running:
                    site.running = running
                    self._check_replicas_whole(site)
                    await asyncio.Event().wait()
            except (MeshdError, ExceptionGroup) as error:
                _only_meshd_errors(error)
                self.tally.saw("start again after an error")
            finally:
                # Unless this one was killed and the next one runs already.
                if site.task is asyncio.current_task():
                    site.running = None
            await asyncio.sleep(1.0)

    def _kill(self, tasks: asyncio.TaskGroup, site: Site) -> None:
        if site.task is not None:
            site.task.cancel()
        site.running = None
        self._check_replicas_whole(site)
        self._start(tasks, site)

    # What is asked.

    def _ask(self, tasks: asyncio.TaskGroup, site: Site) -> None:
        asked = Asked(site.name, f"key-{len(self.asked)}", site.epoch)
        self.asked.append(asked)
        self._calls.add(tasks.create_task(self._call(site, asked, self._commands())))

    def _commands(self) -> tuple[Command, ...]:
        chance = self.chance
        key = chance.choice(("shop/web", "shop/cart"))
        name = f"{key}/{chance.choice('abc')}"
        return chance.choice(
            (
                (service(key, is_global=chance.random() < 0.8),),
                (service(key), endpoint(name, f"10.0.0.{chance.randint(1, 200)}")),
                (endpoint(name, f"10.0.0.{chance.randint(1, 200)}"),),
                (RemoveEndpoint(EndpointKey.parse(name)),),
                (RemoveService(ServiceKey.parse(key)),),
            )
        )

    async def _call(self, site: Site, asked: Asked, commands: tuple[Command, ...]) -> None:
        """Ask with an idempotency key until there is an answer, a few times at most."""
        for _ in range(4):
            try:
                if site.running is not None:
                    asked.outcome = await site.running.submit(*commands, cause=asked.cause)
                    self._mark(f"{asked.cause}{asked.outcome}")
                    self.tally.saw("repeated answer seen", asked.outcome.repeated)
                    return
            except OutcomeUnknownError:
                self.tally.saw("unknown outcome seen")
            except MeshdError as error:
                self._mark(f"{asked.cause}{type(error).__name__}")
            await asyncio.sleep(1.0)

    def _mark(self, text: str) -> None:
        now_s = asyncio.get_running_loop().time()
        self.trace = zlib.crc32(f"{now_s:.6f}{text}".encode(), self.trace)

    # What befalls it.

    def _befall(self, tasks: asyncio.TaskGroup, fault: str) -> None:
        site = self.chance.choice(self.sites)
        self._mark(f"{fault}{site.name}")
        self.tally.saw(f"{fault} seen")
        etcd, running = site.etcd, site.running
        match fault:
            case "etcd down":
                etcd.set_up(up=not etcd.is_up)
            case "link cut" if running is not None:
                link = running.links[self.chance.choice(sorted(running.links))]
                link.set_linked(linked=not link.is_linked)
            case "reply lost" if running is not None:
                running.kv.lose_next_reply = True
                self._ask(tasks, site)
            case "kill":
                self._kill(tasks, site)
            case "compact":
                with suppress(CompactedError):
                    etcd.compact(etcd.revision)
            case "out of space":
                etcd.is_out_of_space = not etcd.is_out_of_space
            case "wipe":
                site.epoch += 1
                etcd.wipe()
                self._kill(tasks, site)
            case "restore":
                self._restore(tasks, site)
            case _:
                pass

    def _restore(self, tasks: asyncio.TaskGroup, site: Site) -> None:
        """Make a backup, or go back to the last one."""
        if not site.backups:
            site.backups.append(site.etcd.backup())
            return
        site.epoch += 1
        site.etcd.restore(site.backups.pop())  # type: ignore[arg-type]
        self._kill(tasks, site)

    async def _heal(self, tasks: asyncio.TaskGroup) -> None:
        """Mend everything; within a bounded time all is as it should be."""
        for site in self.sites:
            site.etcd.set_up(up=True)
            site.etcd.is_out_of_space = False
            if site.running is not None:
                site.running.kv.lose_next_reply = False
                for link in site.running.links.values():
                    link.set_linked(linked=True)
        loop = asyncio.get_running_loop()
        until_s = loop.time() + HEAL_S
        while not self._is_converged():
            if loop.time() >= until_s:
                raise BrokenError("I11", f"not converged {HEAL_S} s after the last fault")
            await asyncio.sleep(0.2)
        self.tally.checks["I11"] += 1

    def _is_converged(self) -> bool:
        if not all(call.done() for call in self._calls):
            return False
        heads = {site.name: export_head(site.etcd) for site in self.sites}
        for site in self.sites:
            if site.running is None:
                return False
            node = site.running.parts.node
            vector = node.projector.vector()
            for name, head in heads.items():
                place = vector.get(ClusterName(name))
                if head is None or place is None or (place.log_id, place.seq) != _place(head):
                    return False
            for peer in node.peers:
                if peer.store.backlog_bytes or peer.phase != "Ready":
                    return False
                if peer.store.durable_seq != vector[peer.name].seq:
                    return False
        return True

    # What must hold.

    def check_site(self, site: Site) -> None:
        """Hold one cluster against the raw etcds of all."""
        hold = self.tally.hold
        local = self._read(site.etcd, KEYS.local)
        self._read(site.etcd, KEYS.export())
        self._check_commands(site, local)
        states, log_ids = {}, {}
        for other in self.sites:
            name = ClusterName(other.name)
            keys = KEYS.local if other is site else KEYS.export()
            records = self._read(other.etcd, keys)
            states[name] = ClusterState()
            for record in records:
                fold_record(states[name], record, name)
            head = local_head(other.etcd).local if other is site else export_head(other.etcd)
            if head is not None:
                log_ids[name] = head.log_id
            if other is not site:
                copy = raw_log(site.etcd, replica_keys(site.etcd, name))
                hold("I6", copy == raw_log(other.etcd, KEYS.export()), f"replica of {name} differs")
        self._check_replicas_whole(site)
        if site.running is None:
            raise BrokenError("I11", f"{site.name} does not run")
        projector = site.running.parts.node.projector
        own = ClusterName(site.name)
        served = projector.tables.keys()
        views = {key: projector.tables.view(key) for key in served}
        table = {key: view for key, view in views.items() if view is not None}
        expected = derive(own, states, log_ids)
        hold("I18", table == expected, f"the tables of {own} are not what the logs give")
        for view in table.values():
            for backend in view.backends:
                owner = states[ClusterName(backend.cluster)]
                is_own = backend.name in owner.endpoints_of(view.key)
                hold("I8", is_own, f"{backend.cluster} never said {backend.name}")
        self._mark(f"{site.name}{site.etcd.revision}{sorted(map(str, table))}")

    def _read(self, etcd: MemoryEtcd, keys: LogKeys) -> list[Record]:
        """Read a log raw, from its beginning, as an independent client."""
        hold = self.tally.hold
        head = local_head(etcd).local if keys == KEYS.local else export_head(etcd)
        if head is None:
            raise BrokenError("I3", "a log without a head")
        at, revision, records = Head.genesis(head.log_id), 0, []
        for kv in etcd.range(keys.log, keys.log_end, limit=0, revision=0).kvs:
            record = decode_record(kv.value, kv.key.decode())
            hold("I3", classify(at, record) is Verdict.NEXT, f"{kv.key!r} does not follow {at.seq}")
            hold("I3", kv.mod_revision > revision, f"{kv.key!r} is older than the one before")
            hold("I4", kv.version == 1, f"{kv.key!r} was written {kv.version} times")
            at, revision = record.head, kv.mod_revision
            records.append(record)
        hold("I3", at == head, "the head is not at the last record")
        return records

    def _check_commands(self, site: Site, records: list[Record]) -> None:
        """Every acknowledged command is in the log, and none is there twice."""
        runs: dict[str, list[int]] = {}
        for record in records:
            for offset, event in enumerate(record.events):
                if event.cause:
                    runs.setdefault(event.cause, []).append(record.first_seq + offset)
        for asked in self.asked:
            if asked.cluster != site.name:
                continue
            seqs = runs.get(asked.cause, [])
            is_one = seqs == list(range(seqs[0], seqs[0] + len(seqs))) if seqs else True
            self.tally.hold("I2", is_one, f"{asked.cause} is in the log at {seqs}")
            outcome = asked.outcome
            if outcome is not None and outcome.events and asked.epoch == site.epoch:
                expected = list(range(outcome.first_seq, outcome.last_seq + 1))
                self.tally.hold("I1", seqs == expected, f"{asked.cause} is at {seqs}: {outcome}")

    def _check_replicas_whole(self, site: Site) -> None:
        """The durable cursor stands exactly behind a whole copy, at every moment (I5)."""
        for peer in self.sites:
            keys = replica_keys(site.etcd, ClusterName(peer.name))
            for kv in site.etcd.range(
                KEYS.replica(ClusterName(peer.name)).cursor, b"", limit=0, revision=0
            ).kvs:
                cursor = decode_cursor(kv.value, "cursor")
                at = Head.genesis(cursor.head.log_id)
                for raw in raw_log(site.etcd, keys).values():
                    at = decode_record(raw, "replica").head
                self.tally.hold("I5", at == cursor.head, f"cursor {cursor.head.seq}, copy {at.seq}")


def _only_meshd_errors(error: BaseException) -> None:
    """Anything else that ends a meshd is a bug of its own, and a broken check is no bug of it."""
    for one in leaves(error):
        if not isinstance(one, MeshdError):
            raise one


def leaves(error: BaseException) -> Iterator[BaseException]:
    """All errors in a group of groups."""
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from leaves(one)
    else:
        yield error


def _place(head: Head) -> tuple[str, int]:
    return head.log_id, head.seq


def replica_keys(etcd: MemoryEtcd, peer: ClusterName) -> LogKeys:
    """The place in which a peer's copy lies."""
    keys = KEYS.replica(peer)
    found = etcd.range(keys.cursor, b"", limit=0, revision=0).kvs
    return KEYS.replica(peer, decode_cursor(found[0].value, "cursor").place) if found else keys


def raw_log(etcd: MemoryEtcd, keys: LogKeys) -> dict[int | None, bytes]:
    """The bytes of a log by seq."""
    found = etcd.range(keys.log, keys.log_end, limit=0, revision=0).kvs
    return {keys.seq_of(kv.key): kv.value for kv in found}


def export_head(etcd: MemoryEtcd) -> Head | None:
    """The head of the export log, if there is one."""
    found = etcd.range(KEYS.export().head, b"", limit=0, revision=0).kvs
    return decode_head(found[0].value, "head") if found else None


def local_head(etcd: MemoryEtcd) -> LocalHead:
    """The head of the local log."""
    found = etcd.range(KEYS.local.head, b"", limit=0, revision=0).kvs
    head = decode_local_head(found[0].value, "local head")
    if head.exports[DEFAULT_AUDIENCE] != export_head(etcd):
        raise BrokenError("I3", "the heads of local and export log disagree")
    return head


def simulate(seed: int, tally: Tally, watch: Callable[[SimLoop], None] = lambda _: None) -> int:
    """Run one schedule; returns a hash of what happened. Raises BrokenError."""
    random.seed(seed)  # tenacity rolls its own dice
    loop = SimLoop(seed)
    watch(loop)
    schedule = Schedule(seed, tally)
    try:
        loop.run_until_complete(schedule.run())
        return zlib.crc32(f"{loop.turns} {loop.time():.6f}".encode(), schedule.trace)
    except ExceptionGroup as group:
        raise next(leaves(group)) from None
    finally:
        loop.close()
