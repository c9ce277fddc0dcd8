"""One meshd: run its parts as one tree of tasks, and end cleanly.

For: the order of start and stop; every root task is here, by name. Not for: any behaviour of a
part. Invariants: when one root task ends, all end; stopping withdraws nothing.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial

import structlog

from meshd import __version__
from meshd.daemon.ending import Ending
from meshd.daemon.parts import (
    Parts,
    World,
    build,
    embedded_config,
    gate_of,
    own_target,
)
from meshd.daemon.reloading import Reread, keep_reloading
from meshd.daemon.starting import first_look, introduce, take_over
from meshd.edges.embedded import EmbeddedEtcd
from meshd.edges.etcd import connect
from meshd.edges.http.app import serve
from meshd.edges.system import SystemChance, SystemClock
from meshd.edges.system.process import is_gone
from meshd.edges.system.stacks import end_within, tell_stacks
from meshd.edges.system.systemd import notify, watchdog_interval_s
from meshd.model.errors import FatalError
from meshd.runtime.peers import Peers
from meshd.runtime.ports import Kv
from meshd.runtime.pulse import keep_pulse
from meshd.settings import EtcdMode, EtcdSettings, Settings
from meshd.telemetry.log import configure
from meshd.telemetry.loop_errors import LoopErrors

log = structlog.get_logger(__name__)

Reloads = Callable[[Peers], Coroutine[None, None, None]]
"""Reads the settings again whenever it is asked for, and says so to the peers."""


class _Stop(Exception):  # noqa: N818 it is no error
    """A signal asked us to end."""


async def run(settings: Settings, reread: Reread) -> None:
    """Run meshd until SIGTERM or SIGINT; raises FatalError when it can't go on.

    reread: what SIGHUP asks for.
    """
    configure(settings.log.level, settings.log.format)
    tell_stacks()
    # From the first moment on, since a SIGHUP that nobody handles ends a process.
    reload_asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, reload_asked.set)
    loop.set_exception_handler(LoopErrors())
    ending = Ending(settings.api.drain_timeout_s, end_within)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_until_signal(ending), name="signals")
            reloads = partial(keep_reloading, reload_asked, settings, reread)
            tasks.create_task(_run_on_etcd(settings, reloads, ending), name="meshd")
    except* _Stop:
        log.info("meshd stopped", cluster=settings.cluster.name)
    except* FatalError as group:
        raise _first(group) from None


def _first(group: BaseExceptionGroup[FatalError]) -> FatalError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


async def _until_signal(ending: Ending) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
    notify("STOPPING=1")
    ending.begin()
    raise _Stop


async def _run_on_etcd(settings: Settings, reloads: Reloads, ending: Ending) -> None:
    async with _own_etcd(settings.etcd) as kv:
        world = World(
            kv,
            SystemClock(),
            SystemChance(),
            is_gone=lambda holder: is_gone(holder.pid, holder.process),
        )
        parts = build(settings, await first_look(settings, world), world)
        try:
            await take_over(parts)
            await _run_parts(settings, parts, reloads, ending)
        finally:
            await parts.presence.resign()
            await parts.node.peers.close()


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


async def _run_parts(settings: Settings, parts: Parts, reloads: Reloads, ending: Ending) -> None:
    node = parts.node
    async with asyncio.TaskGroup() as tasks:

        def start(part: Coroutine[None, None, None], name: str) -> None:
            ending.watch(tasks.create_task(part, name=name))

        # Reads the own log into the states, like a peer's.
        start(parts.own_follower.run(), "follow the own log")
        # The only one who appends to it.
        start(node.writer.run(), "commit")
        # Reads the peers' logs and keeps their replicas.
        start(node.peers.run(), "peers")
        # Reads the settings again when somebody asks for it.
        start(reloads(node.peers), "reload settings")
        # Stands for election and, while it leads, beats for the peers.
        start(parts.presence.run(), "presence")
        # While it leads, keeps the logs in the own etcd short.
        start(parts.chores.run(), "chores")
        # While it leads, deletes what is left of peers that were removed.
        start(parts.clearing.run(), "clearing")
        # Follows which endpoints are registered with a time to live, and by which leases.
        start(node.registrations.run(), "registrations")
        # While it leads, asks the cluster's own endpoints whether they are well.
        start(node.prober.run(), "probes")
        # While it leads, removes the endpoints of those that ran out.
        start(parts.expiry.run(), "expiry")
        # While it leads, lets the own etcd forget, where nobody else does.
        start(parts.upkeep.run(), "upkeep")
        # While it leads, takes operations from stage to stage.
        start(node.operator.run(), "operations")
        # Measures the event loop and keeps systemd's watchdog quiet.
        start(
            keep_pulse(node.clock, watchdog_interval_s(), lambda: notify("WATCHDOG=1")),
            "pulse",
        )
        if node.publisher is not None:
            # While it leads, publishes to the broker.
            start(node.publisher.run(), "publish")
        gate = gate_of(settings)
        if gate is not None:
            # Lets peers read the export logs, where they don't get at the etcd itself.
            start(gate.run(), "gate")
        # Serves REST and streams.
        async with serve(node, settings):
            await parts.own_sink.complete.wait()
            await introduce(settings, node, tasks)
            notify("READY=1")
            log.info(
                "meshd runs",
                version=__version__,
                cluster=node.descriptor.name,
                api=str(settings.api.listen),
                peers=node.peers.names(),
            )
            await asyncio.Event().wait()
