"""Ring 2: the real asyncio code of a mesh's meshds on in-memory etcds, in made-up time.

For: crashes, freezes, cuts, wipes and lost answers at any await of writer, followers, replicas,
chores and presence. Not for: gRPC and HTTP. Invariants: all chance comes from the seed; the checks
(`witness`, `daemon_checks`) read the raw etcds and fold and derive from scratch, and believe
nothing that a meshd says of itself.
"""

from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count

from meshd.edges.memory import MemoryKv
from meshd.model.command import Command, Outcome, RemoveEndpoint, RemoveService
from meshd.model.errors import CompactedError, MeshdError, OutcomeUnknownError, OverloadedError
from meshd.model.ids import ClusterName, EndpointKey, ServiceKey
from meshd.model.replica import Pause, Resume, Resync
from tests.mesh import Running, endpoint, service
from tests.sim.daemon_checks import Asked, Meshd, Site, check_site, unrest
from tests.sim.daemon_swarm import FAULTS, Swarm, SwarmMesh
from tests.sim.loop import PROCESS, SimLoop
from tests.sim.tally import BrokenError, Tally
from tests.sim.witness import WitnessedEtcd

__all__ = ["FAULTS", "Schedule", "simulate"]

HEAL_S = 90.0
"""Longer than the slowest retry (30 s) after the longest backoff, with a heartbeat to follow."""
LOOK_EVERY_S = 0.3
START_AGAIN_S = 1.0
BACKUP_SHARE, FAULT_SHARE = 0.5, 0.6
"""Of the rounds, in how many there is one."""
ASK_AGAIN_SHARE = 0.2
TURNS = (0, 1, 2, 3, 4, 5, 7, 10)
CLOCK_JUMP_MS = 2 * 3600 * 1000
FLOOD = 6
PAUSES_S = (0.0, 0.01, 0.3, 0.3, 1.0)
FREEZES_S = (0.3, 2.0, 6.5)
"""The last is longer than a lease and the next try for the key."""
FREEZE_PAUSES_S = (0.01, 0.3, 7.0)
LEADER_SHARE = 0.7


class Schedule:
    """One schedule of ring 2."""

    def __init__(self, seed: int, tally: Tally, loop: SimLoop) -> None:
        self.tally = tally
        self.loop = loop
        self.chance = random.Random(seed)
        self.swarm = Swarm.draw(self.chance)
        self.mesh = SwarmMesh(self.swarm, tally, loop)
        self.sites: list[Site] = []
        for name, meshds in zip(self.swarm.names, self.swarm.meshds, strict=True):
            etcd = self.mesh.etcds[name]
            assert isinstance(etcd, WitnessedEtcd)
            self.sites.append(Site(name, etcd, [Meshd() for _ in range(meshds)]))
        self.asked: list[Asked] = []
        self.trace = 0
        self._processes = count(1)
        self._calls: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Run it all. Raises BrokenError."""
        async with asyncio.TaskGroup() as tasks:
            for site in self.sites:
                for meshd in site.meshds:
                    self._start(tasks, site, meshd)
            for _ in range(self.swarm.rounds):
                await self._round(tasks)
            await self._heal()
            for site in self.sites:
                check_site(site, self.sites, self.asked, self.tally)
                self._mark(f"{site.name}{site.etcd.revision}{site.witness.export.state.seq}")
            for meshd in (meshd for site in self.sites for meshd in site.meshds):
                self._count(meshd)
                self._end(meshd)
        self.tally.saw("without any fault", not self.swarm.faults)
        self.tally.saw("several meshds", self.swarm.has_several)
        self.tally.schedules += 1

    async def _round(self, tasks: asyncio.TaskGroup) -> None:
        chance, swarm = self.chance, self.swarm
        is_long = "freeze" in swarm.faults and swarm.has_several
        await asyncio.sleep(chance.choice(FREEZE_PAUSES_S if is_long else PAUSES_S))
        for _ in range(chance.randint(0, 2)):
            self._ask(tasks, chance.choice(self.sites))
        if swarm.restores and chance.random() < BACKUP_SHARE:
            chance.choice(self.sites).back_up()
        if swarm.faults and chance.random() < FAULT_SHARE:
            # So that it comes in the middle of what was asked for just now.
            for _ in range(chance.choice(TURNS)):
                await asyncio.sleep(0)
            self._befall(tasks, chance.choice(swarm.faults))

    # What runs.

    def _start(self, tasks: asyncio.TaskGroup, site: Site, meshd: Meshd) -> None:
        meshd.task = tasks.create_task(self._supervise(site, meshd), name=f"meshd of {site.name}")

    async def _supervise(self, site: Site, meshd: Meshd) -> None:
        """Start meshd again whenever it ends, as systemd would."""
        is_alone = len(site.meshds) == 1 and self.swarm.knows_deaths
        while True:
            process = next(self._processes)
            PROCESS.set(process)
            meshd.process = process
            try:
                async with self.mesh.running(site.name, is_alone=is_alone) as running:
                    meshd.running = running
                    self._watch_refills(running)
                    site.check_replicas(self.sites)
                    await asyncio.Event().wait()
            except (MeshdError, ExceptionGroup) as error:
                _only_meshd_errors(error)
                if meshd.task is not asyncio.current_task():
                    # It was killed while it was ending: a task group then tells of the error alone.
                    return
                self.tally.saw("start again after an error")
            finally:
                # Unless this one was killed and the next one runs already.
                if meshd.task is asyncio.current_task():
                    meshd.running = None
            await asyncio.sleep(START_AGAIN_S)

    def _watch_refills(self, running: Running) -> None:
        for peer in running.parts.node.peers:
            refill = peer.store._refill

            async def counted(backlog: object, refill: Callable[..., object] = refill) -> None:
                self.tally.saw("refill from the peer")
                await refill(backlog)  # type: ignore[misc]

            peer.store._refill = counted  # type: ignore[method-assign]

    def _kill(self, tasks: asyncio.TaskGroup, site: Site, meshd: Meshd) -> None:
        self._count(meshd)
        self.loop.thaw(meshd.process)
        self._end(meshd)
        site.check_replicas(self.sites)
        self._start(tasks, site, meshd)

    def _end(self, meshd: Meshd) -> None:
        task, meshd.task, meshd.running = meshd.task, None, None
        if task is not None:
            task.cancel()

    def _count(self, meshd: Meshd) -> None:
        """Count what a meshd has been through, before it is gone."""
        for peer in meshd.running.parts.node.peers if meshd.running else ():
            self.tally.saw("fork seen", peer.follower.state.traffic.forks)
            self.tally.saw("snapshot taken", peer.follower.state.traffic.snapshots)
            self.tally.saw("slowed", peer.follower.slowed_s > 0)

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
        is_new = True
        for _ in range(4):
            leaders = site.witness.leaders
            try:
                running = self.chance.choice(site.meshds).running
                if running is not None:
                    was_new, is_new = is_new, False
                    asked.outcome = await self._submit(running, asked, commands)
                    is_first = not (was_new and asked.outcome.repeated)
                    self.tally.hold("I2", is_first, f"{asked.cause} was decided twice")
                    if self.chance.random() < ASK_AGAIN_SHARE:
                        await self._ask_again(site, asked, commands)
                    return
            except OutcomeUnknownError:
                self.tally.saw("unknown outcome seen")
            except OverloadedError:
                self.tally.saw("full queue seen")
            except MeshdError as error:
                self._mark(f"{asked.cause}{type(error).__name__}")
            finally:
                is_changed = site.witness.leaders != leaders
                self.tally.saw("leader change in mid-append seen", is_changed)
            await asyncio.sleep(1.0)

    async def _submit(
        self, running: Running, asked: Asked, commands: tuple[Command, ...]
    ) -> Outcome:
        outcome = await running.submit(*commands, cause=asked.cause)
        folded = running.parts.node.projector.head(running.name)
        is_read = folded is not None and folded.seq >= outcome.last_seq
        self.tally.hold("I15", is_read, f"{asked.cause} was answered before it was folded")
        self._mark(f"{asked.cause}{outcome}")
        return outcome

    async def _ask_again(self, site: Site, asked: Asked, commands: tuple[Command, ...]) -> None:
        """As a caller whom the answer didn't reach: it is told the same, by whichever meshd."""
        first, running = asked.outcome, self.chance.choice(site.meshds).running
        if first is None or not first.events or running is None or asked.epoch != site.epoch:
            return
        again = await self._submit(running, asked, commands)
        if asked.epoch == site.epoch:
            is_same = (again.first_seq, again.last_seq) == (first.first_seq, first.last_seq)
            self.tally.hold("I2", is_same, f"{asked.cause}: {first}, and then {again}")
            self.tally.saw("repeated answer seen", again.repeated)

    def _mark(self, text: str) -> None:
        self.trace = zlib.crc32(f"{self.loop.time():.6f}{text}".encode(), self.trace)

    # What befalls it.

    def _befall(self, tasks: asyncio.TaskGroup, fault: str) -> None:
        site = self.chance.choice(self.sites)
        if fault == "freeze":
            # It tells most where somebody takes over.
            site = max(self.sites, key=lambda site: len(site.meshds))
        meshd = self.chance.choice(site.meshds)
        if fault == "freeze" and self.chance.random() < LEADER_SHARE:
            meshd = next((m for m in site.meshds if m.process == site.witness.leader), meshd)
        self._mark(f"{fault}{site.name}")
        if (
            self._befall_etcd(site.etcd, fault)
            or self._befall_history(tasks, fault, site)
            or self._befall_site(tasks, fault, site, meshd)
            or (meshd.running is not None and self._befall_meshd(fault, site, meshd.running))
        ):
            self.tally.saw(f"{fault} seen")

    def _befall_etcd(self, etcd: WitnessedEtcd, fault: str) -> bool:
        match fault:
            case "etcd down":
                etcd.set_up(up=not etcd.is_up)
            case "out of space":
                etcd.is_out_of_space = not etcd.is_out_of_space
            case "compact":
                with suppress(CompactedError):
                    etcd.compact(etcd.revision)
            case "events repeated":
                etcd.repeats_events = not etcd.repeats_events
            case _:
                return False
        return True

    def _befall_history(self, tasks: asyncio.TaskGroup, fault: str, site: Site) -> bool:
        """Let an etcd hold something else; its meshds die of it at once, or must find out."""
        match fault:
            case "wipe" | "wipe unnoticed":
                site.wipe(self.tally)
            case "restore" | "restore unnoticed":
                if not site.restore():
                    return False
            case _:
                return False
        if fault in {"wipe", "restore"}:
            for meshd in site.meshds:
                self._kill(tasks, site, meshd)
        return True

    def _befall_site(self, tasks: asyncio.TaskGroup, fault: str, site: Site, meshd: Meshd) -> bool:
        match fault:
            case "kill":
                self._kill(tasks, site, meshd)
            case "freeze" if meshd.running is not None:
                self._freeze(tasks, site, meshd)
            case "reply lost" if meshd.running is not None:
                meshd.running.kv.lose_next_reply = True
                self._ask(tasks, site)
            case "request lost" if meshd.running is not None:
                meshd.running.kv.lose_next_request = True
                self._ask(tasks, site)
            case "flood":
                for _ in range(FLOOD):
                    self._ask(tasks, site)
            case "clock jump":
                jump_ms = self.chance.choice((-CLOCK_JUMP_MS, CLOCK_JUMP_MS))
                self.mesh.clocks[site.name].ahead_ms += jump_ms
            case _:
                return False
        return True

    def _befall_meshd(self, fault: str, site: Site, running: Running) -> bool:
        name = self.chance.choice(sorted(running.links))
        peers, link = running.parts.node.peers, running.links[name]
        match fault:
            case "link cut":
                link.set_linked(linked=not link.is_linked)
            case "link deaf":
                link.set_hearing(hears=not link.is_hearing)
            case "own link deaf":
                running.kv.set_hearing(hears=not running.kv.is_hearing)
            case "slow":
                slow = self.chance.choice((running.kv, link))
                slow.latency_s = self.chance.choice((0.02, 0.3))
            case "pause":
                peers.control(ClusterName(name), Pause(), "test")
            case "resync":
                peers.control(ClusterName(name), Resync(), "test")
            case "events lost" | "watches silent":
                self._spoil_watches(fault, link, name, site)
            case _:
                return False
        return True

    def _spoil_watches(self, fault: str, link: MemoryKv, name: str, site: Site) -> None:
        """All of an etcd where that is found out within a recycling; else those of one link."""
        etcd, owner = site.etcd, None
        if not self.swarm.is_recycling:
            etcd, owner = next(other.etcd for other in self.sites if other.name == name), link
        if fault == "events lost":
            etcd.lose_events(owner=owner)
        else:
            etcd.silence_watches(owner=owner)

    def _freeze(self, tasks: asyncio.TaskGroup, site: Site, meshd: Meshd) -> None:
        self.tally.saw("frozen leader seen", site.witness.leader == meshd.process)
        self.loop.freeze(meshd.process)
        pause_s = FREEZES_S[-1] if self.swarm.has_several else self.chance.choice(FREEZES_S)
        self._calls.add(tasks.create_task(self._thaw_after(pause_s, site, meshd, meshd.process)))

    async def _thaw_after(self, pause_s: float, site: Site, meshd: Meshd, process: int) -> None:
        leader = site.witness.leader
        await asyncio.sleep(pause_s)
        is_deposed = leader == process != site.witness.leader and self.loop.is_frozen(process)
        self.tally.saw("leader deposed while frozen", is_deposed)
        self.loop.thaw(process)

    async def _heal(self) -> None:
        """Mend everything; within a bounded time all is as it should be."""
        if self.swarm.has_several and self.loop.has_frozen:
            # Another one takes over first, in half of all cases.
            await asyncio.sleep(self.chance.choice(FREEZE_PAUSES_S))
        for site in self.sites:
            site.etcd.set_up(up=True)
            site.etcd.is_out_of_space = site.etcd.repeats_events = False
            for meshd in site.meshds:
                self.loop.thaw(meshd.process)
                if meshd.running is not None:
                    _mend(meshd.running)
        until_s = self.loop.time() + HEAL_S
        while reason := self._unrest():
            if self.loop.time() >= until_s:
                raise BrokenError("I11", f"{HEAL_S:g} s after the last fault {reason}")
            await asyncio.sleep(LOOK_EVERY_S)
        self.tally.checks["I11"] += 1

    def _unrest(self) -> str:
        if not all(call.done() for call in self._calls):
            return "somebody waits for an answer"
        return unrest(self.sites)


def _mend(running: Running) -> None:
    running.kv.lose_next_reply = running.kv.lose_next_request = False
    for kv in (running.kv, *running.links.values()):
        kv.latency_s = 0.0
        kv.set_linked(linked=True)
        kv.set_hearing(hears=True)
    for peer in running.parts.node.peers:
        if peer.follower.state.paused or peer.follower._control is not None:
            running.parts.node.peers.control(peer.name, Resume(), "test")


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


def simulate(seed: int, tally: Tally, watch: Callable[[SimLoop], None] = lambda _: None) -> int:
    """Run one schedule; returns a hash of what happened. Raises BrokenError."""
    random.seed(seed)  # tenacity rolls its own dice
    loop = SimLoop(seed)
    watch(loop)
    schedule = Schedule(seed, tally, loop)
    try:
        loop.run_until_complete(schedule.run())
    except ExceptionGroup as group:
        raise next(leaves(group)) from None
    finally:
        loop.close()
    for site in schedule.sites:
        if site.etcd.broken is not None:
            raise site.etcd.broken
    return zlib.crc32(f"{loop.turns} {loop.time():.6f}".encode(), schedule.trace)
