"""A subscriber of a cluster's events at its broker, judged like any other.

For: histories with streams, where clusters have brokers. Not for: tables and status, which are
retained. Invariants: an event that is told again is passed over, as `protocols/mqtt.md` asks for;
where messages may be lost behind the broker's back, the record says that the stream goes on
elsewhere, and nowhere else.
"""

from __future__ import annotations

import asyncio
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import orjson

from chaos import answers
from chaos.brokers import Broker
from chaos.evidence import parse_vector
from chaos.history import StreamMessage
from chaos.mesh.servers import dying_with_us
from chaos.recorder import Recorder
from chaos.traffic.counters import Counters
from chaos.traffic.subscribers import reset_before

TOPIC: Final = "meshd/+/{cluster}/events/#"
FORMAT: Final = "%t\t%p"
RESET_TOPIC: Final = "/events/meshd.reset"
AGAIN_AFTER_S: Final = 0.5
STOP_TIMEOUT_S: Final = 5.0
LINE_BYTES_MAX: Final = 16 * 1024 * 1024
"""As of a message of a stream."""


@dataclass(slots=True)
class MqttSubscriber:
    """mosquitto_sub with a session that the broker keeps, so that it misses nothing while either is
    away. connection: how often the broker was another process.
    """

    name: str
    cluster: str
    broker: Broker
    recorder: Recorder
    counters: Counters
    connection: int = 0
    last: StreamMessage | None = None
    _broker_pid: int | None = None
    _goes_on: bool = False
    """What comes next needn't follow what came last."""

    async def run(self) -> None:
        """Follow for ever. mosquitto_sub connects again by itself once it was connected."""
        while True:
            async with self._listening() as process:
                await self._read(process)
            await asyncio.sleep(AGAIN_AFTER_S)

    @asynccontextmanager
    async def _listening(self) -> AsyncIterator[Process]:
        topic = TOPIC.format(cluster=self.cluster)
        process = await asyncio.create_subprocess_exec(
            *(
                *dying_with_us(),
                "stdbuf",
                "-oL",
                "mosquitto_sub",
                "-V",
                "mqttv5",
                "-q",
                "1",
                "-F",
                FORMAT,
            ),
            *("-h", self.broker.host, "-p", str(self.broker.port), "-t", topic),
            *("-c", "-i", f"chaos-{self.name}", "-x", "86400"),
            stdout=PIPE,
            stderr=DEVNULL,
            limit=LINE_BYTES_MAX,
        )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await process.wait()
            except TimeoutError:
                process.kill()

    async def _read(self, process: Process) -> None:
        assert process.stdout is not None  # noqa: S101 it has a pipe
        while line := await process.stdout.readline():
            topic, _, payload = line.decode(errors="replace").rstrip("\n").partition("\t")
            self._count_connections()
            if topic.endswith(RESET_TOPIC):
                self._goes_on = True
            elif payload:
                self._take(orjson.loads(payload))

    def _count_connections(self) -> None:
        """A broker that died may have lost what it had acknowledged but not stored."""
        pid = self.broker.process.pid if self.broker.process is not None else None
        if pid != self._broker_pid:
            self._goes_on = self._goes_on or self._broker_pid is not None
            self._broker_pid = pid
            self.connection += 1

    def _take(self, event: Any) -> None:
        told = answers.stream_message(
            self.name, self.connection, self.cluster, self.recorder.now_ns(), event
        )
        last = self.last
        is_same_log = last is not None and last.log_id == told.log_id
        if last is not None and is_same_log and told.seq <= last.seq:
            return
        follows = last is None or (is_same_log and told.seq == last.seq + 1)
        # A log that was founded anew begins without a cursor, so without a reset: its id is one.
        if not follows and (self._goes_on or not is_same_log):
            self.recorder.note(reset_before(told))
        self._goes_on = False
        self.recorder.note(told)
        self.counters.events += 1
        self.last = told

    def was_told(self, vector: str) -> bool:
        """Whether it has all events of the cluster's local log up to there."""
        log_id, seq = parse_vector(vector).get(self.cluster, ("", 0))
        return not seq or (
            self.last is not None and (self.last.log_id, self.last.seq) == (log_id, seq)
        )
