"""One meshd: run its parts as one tree of tasks, and end cleanly.

For: the order of start and stop; every root task is here, by name. Not for: any behaviour of a
part. Invariants: when one root task ends, all end; stopping withdraws nothing.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_fixed

from meshd import __version__
from meshd.daemon.parts import (
    Parts,
    World,
    build,
    embedded_config,
    gate_of,
    identity_of,
    own_target,
)
from meshd.edges.embedded import EmbeddedEtcd
from meshd.edges.etcd import connect
from meshd.edges.http.app import serve
from meshd.edges.system import SystemChance, SystemClock
from meshd.edges.system.process import is_gone
from meshd.edges.system.systemd import notify, watchdog_interval_s
from meshd.model.codec import Descriptor
from meshd.model.command import SetCluster, Submission
from meshd.model.errors import (
    DeniedError,
    FatalError,
    NoSpaceError,
    OutcomeUnknownError,
    TransientError,
)
from meshd.model.keyspace import Keyspace
from meshd.model.service import ClusterInfo
from meshd.runtime.bootstrap import ensure_log
from meshd.runtime.ports import Kv
from meshd.runtime.pulse import keep_pulse
from meshd.settings import EtcdMode, EtcdSettings, Settings
from meshd.telemetry.log import configure

log = structlog.get_logger(__name__)

UNSAFE_VERSIONS = frozenset({"3.5.0", "3.5.1", "3.5.2"})
"""These can lose acknowledged writes in a crash (design, section 3)."""
ACTOR = "meshd"


class _Stop(Exception):  # noqa: N818 it is no error
    """A signal asked us to end."""


async def run(settings: Settings) -> None:
    """Run meshd until SIGTERM or SIGINT; raises FatalError when it can't go on."""
    configure(settings.log.level, settings.log.format)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_until_signal(), name="signals")
            tasks.create_task(_run_on_etcd(settings), name="meshd")
    except* _Stop:
        log.info("meshd stopped", cluster=settings.cluster.name)
    except* FatalError as group:
        raise _first(group) from None


def _first(group: BaseExceptionGroup[FatalError]) -> FatalError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


async def _until_signal() -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
    notify("STOPPING=1")
    raise _Stop


async def _run_on_etcd(settings: Settings) -> None:
    async with _own_etcd(settings.etcd) as kv:
        world = World(
            kv,
            SystemClock(),
            SystemChance(),
            is_gone=lambda holder: is_gone(holder.pid, holder.process),
        )
        parts = build(settings, await _first_look(settings, world), world)
        try:
            await _take_over(parts)
            await _run_parts(settings, parts)
        finally:
            await parts.presence.resign()
            await parts.node.peers.close()


async def _take_over(parts: Parts) -> None:
    """Stand for election, then serve what the replicas hold before any peer is asked."""
    try:
        await parts.node.leadership.campaign()
        await parts.node.peers.load_replicas()
    except (TransientError, OutcomeUnknownError, DeniedError, NoSpaceError) as error:
        raise FatalError(f"the own etcd failed at the start: {error}") from error


@asynccontextmanager
async def _own_etcd(etcd: EtcdSettings) -> AsyncIterator[Kv]:
    """Connect to the own etcd; with mode `embedded` run it as long as we run."""
    kv = connect(own_target(etcd))
    try:
        if etcd.mode is EtcdMode.EXTERNAL:
            yield kv
            return
        async with EmbeddedEtcd(embedded_config(etcd)) as server, asyncio.TaskGroup() as tasks:
            keeping = tasks.create_task(server.run(), name="keep etcd running")
            yield kv
            keeping.cancel()
    finally:
        await kv.close()


async def _first_look(settings: Settings, world: World) -> Descriptor:
    """Wait for the own etcd and see to it that it is ours, of a safe version, and has a log."""
    log.info(
        "waiting for the own etcd", endpoints=[str(target) for target in settings.etcd.targets]
    )
    try:
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type((TransientError, OutcomeUnknownError)),
            stop=stop_after_delay(settings.etcd.start_timeout_s),
            wait=wait_fixed(0.2),
            reraise=True,
        ):
            with attempt:
                await _check_version(settings.etcd, world.kv)
                return await ensure_log(
                    world.kv,
                    Keyspace(settings.etcd.prefix),
                    identity_of(settings),
                    world.clock,
                    world.chance,
                )
    except (TransientError, OutcomeUnknownError) as error:
        raise FatalError(
            f"the own etcd gave no answer for {settings.etcd.start_timeout_s:g} s: {error};"
            " check etcd.endpoints and that etcd runs there"
        ) from error
    except DeniedError as error:
        raise FatalError(
            f"the own etcd refuses us: {error}; check etcd.username and TLS"
        ) from error
    raise AssertionError("tenacity ends by returning or raising")


async def _check_version(etcd: EtcdSettings, kv: Kv) -> None:
    try:
        version = (await kv.status()).version
    except DeniedError:
        # If we are refused everything, the next read says so. A version that tells its number to
        # root alone is none of the unsafe ones.
        return
    if version in UNSAFE_VERSIONS and not etcd.allow_unsafe_version:
        raise FatalError(
            f"etcd {version} can lose acknowledged writes in a crash; use 3.4.22 or later, or"
            " 3.5.6 or later, or set etcd.allow_unsafe_version"
        )


async def _run_parts(settings: Settings, parts: Parts) -> None:
    node = parts.node
    async with asyncio.TaskGroup() as tasks:
        # Reads the own log into the states, like a peer's.
        tasks.create_task(parts.own_follower.run(), name="follow the own log")
        # The only one who appends to it.
        tasks.create_task(node.writer.run(), name="commit")
        # Reads the peers' logs and keeps their replicas.
        tasks.create_task(node.peers.run(), name="peers")
        # Stands for election and, while it leads, beats for the peers.
        tasks.create_task(parts.presence.run(), name="presence")
        # While it leads, keeps the logs in the own etcd short.
        tasks.create_task(parts.chores.run(), name="chores")
        # While it leads, lets the own etcd forget, where nobody else does.
        tasks.create_task(parts.upkeep.run(), name="upkeep")
        # Measures the event loop and keeps systemd's watchdog quiet.
        tasks.create_task(
            keep_pulse(node.clock, watchdog_interval_s(), lambda: notify("WATCHDOG=1")),
            name="pulse",
        )
        gate = gate_of(settings)
        if gate is not None:
            # Lets peers read the export logs, where they don't get at the etcd itself.
            tasks.create_task(gate.run(), name="gate")
        # Serves REST and streams.
        async with serve(node, settings):
            await parts.own_sink.complete.wait()
            await node.writer.submit(_introduction(settings))
            notify("READY=1")
            log.info(
                "meshd runs",
                version=__version__,
                cluster=node.descriptor.name,
                api=str(settings.api.listen),
                peers=[peer.name for peer in settings.peers],
            )
            await asyncio.Event().wait()


def _introduction(settings: Settings) -> Submission:
    """What this cluster says of itself, as its settings have it now."""
    cluster = settings.cluster
    info = ClusterInfo(
        name=cluster.name,
        id=cluster.id,
        region=cluster.region,
        zone=cluster.zone,
        labels=cluster.labels,
    )
    return Submission((SetCluster(info),), actor=ACTOR)
