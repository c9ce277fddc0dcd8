"""Rows 24 and 25: brokers that are gone or stand still, and subscribers that read too slowly.

For: what is behind a meshd and takes what it tells. Not for: those who ask it too much (`floods`).
Invariants: what is said to have something to tell is a service of the victim that nobody else is
told of, and gone when the fault is; a broker runs again afterwards.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import ClassVar, Final

from chaos.brokers import Broker, Subscriber
from chaos.faults.fault import Fault, Says, Stage, Usual
from chaos.faults.ground import UNANSWERED, ask, first_of, kept, metric, running, until
from chaos.mesh.shape import Cluster, Kind, Power, Server

PATH: Final = "/v1/services/chaos/{}"
NOT_PUBLISHING: Final = frozenset({"Connecting", "Waiting"})
PUBLISHING: Final = "Publishing"
PUBLISH_AGAIN_S: Final = 15.0
"""More than the 10 s that a meshd waits at most before it tries a broker again."""
SUBSCRIBERS: Final = 5
RECEIVE_BYTES: Final = 4096
"""What the kernel keeps for one who doesn't read: little, so that it is full soon."""
READ_BYTES: Final = 100
"""In a second, of a slow one."""
LOUD_ENDPOINTS: Final = 500
ROUNDS_MAX: Final = 6
"""3000 events are 1.4 MB as server-sent events: several times what the buffers between hold,
and little enough that it isn't the work which shows.
"""
SUBSCRIPTION: Final = "GET /v1/events?from=beginning HTTP/1.1\r\nHost: {}\r\n{}\r\n\r\n"
EVENT_STREAM: Final = "Accept: text/event-stream"


class BrokerDown(Usual):
    """A broker is killed."""

    number: ClassVar[int] = 24
    name: ClassVar[str] = "broker-down"
    summary: ClassVar[str] = "a cluster's MQTT broker is killed"
    behaviour: ClassVar[str] = (
        "nothing but publishing waits for it; once it is back, what it missed is published in order"
    )
    needs: ClassVar[frozenset[Power]] = frozenset({Power.BROKER, Power.KILL})
    programs: ClassVar[tuple[str, ...]] = ("mosquitto",)
    hold_s: ClassVar[float] = 5.0

    async def inject(self, stage: Stage) -> Says:
        """Kill it."""
        for broker in _brokers(stage):
            await broker.kill()
        return Says()

    async def bit(self, stage: Stage) -> str:
        """Who publishes says that it can't."""
        return await _unpublished(stage)

    async def heal(self, stage: Stage) -> None:
        """Start it on what it kept."""
        for cluster in stage.clusters:
            for server in cluster.servers:
                if server.kind is Kind.BROKER:
                    await server.start()
        await _published_again(stage)


class BrokerFrozen(BrokerDown):
    """A broker stands still."""

    name: ClassVar[str] = "broker-frozen"
    summary: ClassVar[str] = "a cluster's MQTT broker stands still, and its connections stay open"
    needs: ClassVar[frozenset[Power]] = frozenset({Power.BROKER, Power.FREEZE})
    hold_s: ClassVar[float] = 10.0
    settings: ClassVar[Mapping[str, object]] = {"mqtt.keepalive_s": 5}

    async def inject(self, stage: Stage) -> Says:
        """Freeze it."""
        for broker in _brokers(stage):
            await broker.freeze()
        return Says()

    async def heal(self, stage: Stage) -> None:
        """Let it go on."""
        for broker in _brokers(stage):
            await broker.thaw()
        await _published_again(stage)


def _brokers(stage: Stage) -> Sequence[Server]:
    return running(stage.clusters, Kind.BROKER)


async def _published_again(stage: Stage) -> None:
    """Wait until somebody publishes in each cluster, or what comes next would be taken for the
    next fault's doing; not for ever, since others may be broken as well.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(PUBLISH_AGAIN_S):
            for cluster in stage.clusters:
                meshds = running([cluster], Kind.MESHD)
                await first_of(
                    until(meshd, "/v1/status", lambda it: it["mqtt"]["phase"] == PUBLISHING)
                    for meshd in meshds
                )


async def _unpublished(stage: Stage) -> str:
    told = []
    for cluster in stage.clusters:
        meshds = running([cluster], Kind.MESHD)
        told.append(await first_of(_when_not_publishing(meshd) for meshd in meshds))
    return "; ".join(told)


async def _when_not_publishing(meshd: Server) -> str:
    status = await until(meshd, "/v1/status", lambda it: it["mqtt"]["phase"] in NOT_PUBLISHING)
    return f"{meshd.name} is {status['mqtt']['phase']}: {status['mqtt']['reason']}"


@dataclass(slots=True)
class _Pair:
    """A subscriber that stands still, and one that doesn't."""

    still: Subscriber
    lively: Subscriber


class MqttSubscriberStopped(Usual):
    """Somebody who subscribes at a broker stands still."""

    number: ClassVar[int] = 24
    name: ClassVar[str] = "mqtt-subscriber-stopped"
    summary: ClassVar[str] = "a subscriber at a broker stands still while events are published"
    behaviour: ClassVar[str] = "publishing goes on, and other subscribers hear all of it"
    needs: ClassVar[frozenset[Power]] = frozenset({Power.BROKER})
    programs: ClassVar[tuple[str, ...]] = ("mosquitto_sub", "stdbuf")
    hold_s: ClassVar[float] = 5.0

    async def inject(self, stage: Stage) -> Says:
        """Subscribe twice, and stop one of the two."""
        for cluster in stage.clusters:
            broker = _broker_of(cluster)
            pair = stage.memory[f"pair {cluster.name}"] = _Pair(
                *(
                    Subscriber(broker, stage.mesh.folder / f"{cluster.name}-{kind}-{id(stage)}")
                    for kind in ("still", "lively")
                )
            )
            await pair.still.start()
            await pair.lively.start()
            process = pair.still.process
            if process is not None:
                process.send_signal(signal.SIGSTOP)
        return Says()

    async def bit(self, stage: Stage) -> str:
        """Say things until the one has heard what the other hasn't."""
        told = []
        for cluster in stage.clusters:
            pair = kept(stage, f"pair {cluster.name}", _Pair)
            if pair is None:
                raise RuntimeError(f"nobody subscribes in {cluster.name}: inject comes first")
            number = 0
            before = len(pair.lively.heard())
            while len(pair.lively.heard()) <= before:
                number += 1
                await _say(cluster, number)
            heard, missed = len(pair.lively.heard()), len(pair.still.heard())
            told.append(f"of {heard} messages in {cluster.name} one that stands still has {missed}")
        return "; ".join(told)

    async def heal(self, stage: Stage) -> None:
        """End both, and take back what was said."""
        for cluster in stage.clusters:
            pair = kept(stage, f"pair {cluster.name}", _Pair)
            if pair is not None:
                if pair.still.process is not None and pair.still.process.returncode is None:
                    pair.still.process.send_signal(signal.SIGCONT)
                await pair.still.stop()
                await pair.lively.stop()
                await unsay(cluster, "said")
                del stage.memory[f"pair {cluster.name}"]


def _broker_of(cluster: Cluster) -> Broker:
    if cluster.broker is None:
        raise RuntimeError(f"{cluster.name} has no broker of ours: its driver lacks power `broker`")
    return cluster.broker


async def _say(cluster: Cluster, number: int) -> None:
    """Say something new in the cluster's log, wherever a meshd takes it."""
    body = {"labels": {"said": str(number)}}
    for meshd in running([cluster], Kind.MESHD):
        with suppress(*UNANSWERED):
            if (await ask(meshd, PATH.format("said"), "PUT", body)).status < 300:  # noqa: PLR2004
                break
    # A broker needs a moment, and what waits for it nothing else.
    await asyncio.sleep(0.1)


async def unsay(cluster: Cluster, service: str) -> None:
    """Remove a service that a fault defined, with its endpoints; until it is gone."""
    while True:
        for meshd in running([cluster], Kind.MESHD):
            with suppress(*UNANSWERED):
                if (await ask(meshd, PATH.format(service), "DELETE")).status in {200, 204, 404}:
                    return
        await asyncio.sleep(0.1)


@dataclass(slots=True)
class _Readers:
    """Connections to a meshd that are hardly read. cuts: how many it had cut off before."""

    meshd: Server
    cuts: float
    sockets: list[socket.socket] = field(default_factory=list)


class SseStopped(Usual):
    """Subscribers of event streams read nothing."""

    number: ClassVar[int] = 25
    name: ClassVar[str] = "sse-stopped"
    summary: ClassVar[str] = f"{SUBSCRIBERS} subscribers of an event stream read nothing"
    behaviour: ClassVar[str] = "each is cut off after a while, and delays nobody"
    hold_s: ClassVar[float] = 5.0
    reads_bytes: ClassVar[int] = 0

    async def inject(self, stage: Stage) -> Says:
        """Subscribe, from the beginning."""
        for cluster in stage.clusters:
            meshd = running([cluster], Kind.MESHD)[0]
            readers = _Readers(meshd, await _cuts(meshd))
            stage.memory[f"readers {cluster.name}"] = readers
            for _ in range(SUBSCRIBERS):
                readers.sockets.append(await _subscribed(meshd.address))
        return Says()

    async def bit(self, stage: Stage) -> str:
        """Say much, until the meshd has cut them off."""
        told = []
        for cluster in stage.clusters:
            readers = kept(stage, f"readers {cluster.name}", _Readers)
            if readers is None:
                raise RuntimeError(f"nobody subscribes in {cluster.name}: inject comes first")
            number = 0
            while (cuts := await _cuts(readers.meshd) - readers.cuts) < 1:
                number += 1
                if number <= ROUNDS_MAX:
                    await _say_much(readers.meshd, number)
                await asyncio.sleep(1)
                self._read(readers)
            told.append(f"{readers.meshd.name} has cut off {cuts:.0f} that took too little")
        return "; ".join(told)

    def _read(self, readers: _Readers) -> None:
        for one in readers.sockets if self.reads_bytes else ():
            with suppress(OSError):
                one.recv(self.reads_bytes)

    async def heal(self, stage: Stage) -> None:
        """Close the connections, and take back what was said."""
        for cluster in stage.clusters:
            readers = kept(stage, f"readers {cluster.name}", _Readers)
            if readers is not None:
                for one in readers.sockets:
                    one.close()
                await unsay(cluster, "loud")
                del stage.memory[f"readers {cluster.name}"]


class SseSlow(SseStopped):
    """Subscribers of event streams read a little at a time."""

    name: ClassVar[str] = "sse-slow"
    summary: ClassVar[str] = f"{SUBSCRIBERS} subscribers of an event stream read {READ_BYTES} B/s"
    reads_bytes: ClassVar[int] = READ_BYTES


async def _cuts(meshd: Server) -> float:
    return await metric(meshd, "meshd_stream_cuts_total", 'reason="slow"')


async def _subscribed(address: str) -> socket.socket:
    """A connection on which a stream was asked for, and whose kernel keeps little of it."""
    host, _, port = address.rpartition(":")
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
    one.setblocking(False)
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_connect(one, (host, int(port)))
        await loop.sock_sendall(one, SUBSCRIPTION.format(address, EVENT_STREAM).encode())
    except BaseException:
        one.close()
        raise
    return one


async def _say_much(meshd: Server, number: int) -> None:
    """So many events in one command, of a service that no peer is told of."""
    items = [
        {"name": f"e{one}", "address": f"10.99.{one >> 8}.{one & 255}", "weight": number}
        for one in range(1, LOUD_ENDPOINTS + 1)
    ]
    names = {"namespace": "chaos", "name": "loud"}
    specs = {"Service": {"global": False}, "Endpoints": {"endpoints": items}}
    documents = [
        {"apiVersion": "meshd.io/v1", "kind": kind, "metadata": names, "spec": spec}
        for kind, spec in specs.items()
    ]
    with suppress(*UNANSWERED):
        await ask(
            meshd, "/v1/apply", "POST", {"apiVersion": "v1", "kind": "List", "items": documents}
        )


FAULTS: Final[tuple[type[Fault], ...]] = (
    *(BrokerDown, BrokerFrozen, MqttSubscriberStopped),
    *(SseStopped, SseSlow),
)
