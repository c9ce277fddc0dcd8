"""Real MQTT brokers (mosquitto), and subscribers as anybody would run them.

For: brokers under test, on loopback, that can be stopped, frozen and started again on what they
kept. Not for: speaking MQTT. Invariant: a broker always starts with the same configuration.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos.etcds import Started, tell_nobody

START_TIMEOUT_S = 30.0

OPEN = ("allow_anonymous true",)
FORMAT = "%r\t%t\t%C\t%E\t%P\t%p"
"""Retained, topic, content type, expiry, user properties, payload."""


@dataclass(slots=True)
class Broker:
    """One mosquitto. lines: of its configuration, after the listener's. within: the command that
    runs it, as `nsenter --net=…`. is_ended_by_us: whether it was told to end since it was started.
    """

    address: str
    folder: Path
    lines: Sequence[str] = OPEN
    process: asyncio.subprocess.Process | None = field(default=None)
    within: Sequence[str] = ()
    started: Started = tell_nobody
    is_ended_by_us: bool = False

    @property
    def host(self) -> str:
        """Where it listens."""
        return self.address.rpartition(":")[0]

    @property
    def port(self) -> int:
        """And on which port."""
        return int(self.address.rpartition(":")[2])

    async def start(self) -> None:
        """Start it, and wait until it takes connections."""
        config = self.folder / "mosquitto.conf"
        # As root it would become somebody who can't write here.
        user = ("user root",) if os.getuid() == 0 else ()
        config.write_text(
            "\n".join(
                (
                    f"listener {self.port} {self.host}",
                    "persistence true",
                    f"persistence_location {self.folder}/",
                    # Of a subscriber who is away it would keep a hundred or a thousand.
                    "max_queued_messages 0",
                    *user,
                    *self.lines,
                    "",
                )
            )
        )
        with (self.folder / "mosquitto.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.within, "mosquitto", "-v", "-c", str(config), stdout=log, stderr=log
            )
        self.is_ended_by_us = False
        self.started(self.process)
        async with asyncio.timeout(START_TIMEOUT_S):
            while not await self._answers():
                if self.process.returncode is not None:
                    raise RuntimeError(f"mosquitto ended: {self.log()[-2000:]}")
                await asyncio.sleep(0.02)

    async def _answers(self) -> bool:
        try:
            _, writer = await asyncio.open_connection(self.host, self.port)
        except OSError:
            return False
        writer.close()
        return True

    def log(self) -> str:
        """What it said."""
        return (self.folder / "mosquitto.log").read_text(errors="replace")

    def send(self, number: int) -> None:
        """Stop or continue it, or have it read its configuration again."""
        if self.process is not None and self.process.returncode is None:
            self.is_ended_by_us = self.is_ended_by_us or number in {signal.SIGKILL, signal.SIGTERM}
            self.process.send_signal(number)

    async def stop(self, number: int = signal.SIGTERM) -> None:
        """End it. By SIGTERM it keeps what it has, as on a machine that is shut down; by SIGKILL
        it loses what it acknowledged since it last wrote its file.
        """
        self.send(signal.SIGCONT)
        self.send(number)
        if self.process is not None:
            await self.process.wait()
            self.process = None


@dataclass(frozen=True, slots=True)
class Heard:
    """One message, as mosquitto_sub prints it."""

    is_retained: bool
    topic: str
    content_type: str
    expiry_s: int
    user: dict[str, str]
    payload: str

    @property
    def data(self) -> Any:
        """The payload as JSON."""
        return json.loads(self.payload)


def _heard(line: str) -> Heard:
    retained, topic, content_type, expiry, user, payload = line.split("\t", 5)
    pairs = dict(pair.split(":", 1) for pair in user.split() if ":" in pair)
    return Heard(retained == "1", topic, content_type, int(expiry or 0), pairs, payload)


@dataclass(slots=True)
class Subscriber:
    """A mosquitto_sub that writes into a file. session: a client id whose session the broker keeps,
    so that it misses nothing while either is away; '' for a guest.
    """

    broker: Broker
    file: Path
    filters: Sequence[str] = ("#",)
    session: str = ""
    more: Sequence[str] = ()
    process: asyncio.subprocess.Process | None = field(default=None)

    async def start(self) -> None:
        """Subscribe, and wait until the broker knows."""
        lasting = ("-c", "-i", self.session, "-x", "86400") if self.session else ()
        before = self.broker.log().count("Sending SUBACK")
        with self.file.open("ab") as output:
            self.process = await asyncio.create_subprocess_exec(
                *("stdbuf", "-oL", "mosquitto_sub", "-V", "mqttv5", "-q", "1", "-F", FORMAT),
                *("-h", self.broker.host, "-p", str(self.broker.port), *lasting, *self.more),
                *(part for one in self.filters for part in ("-t", one)),
                stdout=output,
                stderr=output,
            )
        async with asyncio.timeout(START_TIMEOUT_S):
            while self.broker.log().count("Sending SUBACK") == before:  # noqa: ASYNC110 a file
                await asyncio.sleep(0.02)

    def heard(self) -> list[Heard]:
        """All messages so far, in the order they came in."""
        lines = self.file.read_text(errors="replace").split("\n")[:-1]
        return [_heard(line) for line in lines if line.count("\t") >= 5]  # noqa: PLR2004 FORMAT's

    async def stop(self) -> None:
        """End it; its session stays, if it has one."""
        if self.process is not None and self.process.returncode is None:
            self.process.terminate()
            await self.process.wait()
        self.process = None
