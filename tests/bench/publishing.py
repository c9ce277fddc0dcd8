"""What publishing to MQTT costs, against aiomqtt publishing the same messages to the same broker.

For: one meshd as a process that publishes its log from the beginning, on a real etcd and a real
mosquitto; then aiomqtt alone, with the messages as a subscriber had them and as many in flight.
Not for: judging. Each round has a mesh name of its own, for which publishing begins anew.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import aiomqtt
import orjson
from paho.mqtt.properties import Properties
from rich.console import Console

from chaos.brokers import Broker
from meshd.edges.embedded import EmbeddedConfig, EmbeddedEtcd
from meshd.settings import MqttSettings
from tests.bench.daemons import ETCD, Meshd, meshd
from tests.bench.places import NET, peers_of
from tests.bench.streams import Figures
from tests.bench.tables import Row

BROKER: Final = f"{NET}6:1883"
EVENTS: Final = 10_000
EVENTS_PER_WRITE: Final = 500
IN_FLIGHT: Final = MqttSettings().in_flight_max
LOOK_EVERY_S: Final = 0.05
PUBLISHED: Final = "meshd_mqtt_events_total"

Sent = tuple[str, bytes, Properties | None]


async def measure_publishing(rounds: int) -> list[Row]:
    """All of it, `rounds` times."""
    figures = Figures()
    with tempfile.TemporaryDirectory(prefix="meshd-bench-") as name:
        folder = Path(name)
        broker = Broker(BROKER, folder)
        config = EmbeddedConfig(folder / "etcd", ETCD, peers_of(ETCD), history_kept="")
        async with EmbeddedEtcd(config):
            async with meshd(folder) as one:
                for _ in range(EVENTS // EVENTS_PER_WRITE):
                    await one.touch_many(EVENTS_PER_WRITE)
            await broker.start()
            try:
                messages = await _messages(folder)
                for number in range(rounds):
                    Console(stderr=True).print(f"publishing, round {number + 1} of {rounds}")
                    ours, ours_us = await _by_meshd(folder, f"round-{number}")
                    bare, bare_us = await _by_aiomqtt(messages)
                    figures.add("MQTT: events published", "events/s", ours, bare, "aiomqtt alone")
                    figures.add(
                        "MQTT: processor, each event", "µs", ours_us, bare_us, "aiomqtt alone"
                    )
            finally:
                await broker.stop()
    return list(figures.rows.values())


@asynccontextmanager
async def _publishing(folder: Path, mesh: str) -> AsyncIterator[Meshd]:
    publishing = (
        f"mqtt.broker={BROKER}",
        f"mqtt.mesh={mesh}",
        "mqtt.publish_tables=false",
        "mqtt.publish_status=false",
    )
    async with meshd(folder, *publishing) as one:
        yield one


async def _by_meshd(folder: Path, mesh: str) -> tuple[float, float]:
    """Events per second, and the processor time of each in µs, from the first one on that is seen
    to be acknowledged: what a start costs is no part of it.
    """
    async with _publishing(folder, mesh) as one:
        end = orjson.loads(await one.get("/v1/status"))["local"]["seq"]
        while not (first := await one.metric(PUBLISHED)):  # noqa: ASYNC110 it is asked
            await asyncio.sleep(LOOK_EVERY_S)
        began_s, cpu_s, last = time.perf_counter(), one.cpu_s(), first
        while last < end:
            await asyncio.sleep(LOOK_EVERY_S)
            last = await one.metric(PUBLISHED)
        took_s, cpu_s = time.perf_counter() - began_s, one.cpu_s() - cpu_s
    return (last - first) / took_s, cpu_s / (last - first) * 1e6


async def _messages(folder: Path) -> list[Sent]:
    """What a subscriber has of the log."""
    found: list[Sent] = []
    async with _client("listener") as client:
        await client.subscribe("meshd/listened/#", qos=1)
        async with _publishing(folder, "listened"):
            async for message in client.messages:
                payload = message.payload
                assert isinstance(payload, bytes)
                found.append((message.topic.value, payload, message.properties))
                if len(found) == EVENTS:
                    break
    return found


async def _by_aiomqtt(messages: list[Sent]) -> tuple[float, float]:
    """The same messages, as many at a time: each waits for its acknowledgement."""
    waiting = iter(messages)
    async with _client("bare") as client:

        async def publish() -> None:
            for topic, payload, properties in waiting:
                await client.publish(topic, payload, qos=1, properties=properties)

        began_s, cpu_s = time.perf_counter(), time.process_time()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(IN_FLIGHT):
                tasks.create_task(publish())
        took_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
    return len(messages) / took_s, cpu_s / len(messages) * 1e6


def _client(name: str) -> aiomqtt.Client:
    host, _, port = BROKER.rpartition(":")
    return aiomqtt.Client(
        host,
        int(port),
        identifier=f"bench-{name}",
        protocol=aiomqtt.ProtocolVersion.V5,
        max_inflight_messages=IN_FLIGHT,
    )
