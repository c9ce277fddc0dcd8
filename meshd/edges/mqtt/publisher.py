"""A broker, as the runtime sees it: connections on which a cluster's news is published.

For: making connections by the settings, and bounding what is in flight on one. Not for: who
publishes, what, and from where on (`runtime.publisher`). Invariants: every connection has the
cluster's client id, so the broker keeps one of them; credentials and certificates are read anew for
each.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Never

import aiomqtt
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from meshd.edges.mqtt.client import Address, Client, Message, Pace, meant
from meshd.edges.mqtt.messages import Messages
from meshd.edges.mqtt.topics import Topics
from meshd.model.errors import DeniedError, FatalError
from meshd.model.event import Told
from meshd.model.ids import ClusterName, ServiceKey
from meshd.model.publishing import Reset
from meshd.runtime.ports import Json
from meshd.settings import BrokerTls, HostPort, MqttSettings, secret_text

__all__ = ["MqttBroker", "MqttSession"]


ALONE_MESSAGES: Final = 1000
"""After so many that went well, several are in flight again."""


class MqttBroker:
    """The broker that the settings name."""

    def __init__(self, address: HostPort, settings: MqttSettings, cluster: ClusterName) -> None:
        self._address = address
        self._settings = settings
        self._cluster = cluster
        topics = Topics(f"{settings.topic_prefix}/{settings.mesh}/{cluster}")
        self._messages = Messages(cluster, topics, settings.event_expiry_s)

    @property
    def address(self) -> str:
        """Where it is."""
        return str(self._address)

    @asynccontextmanager
    async def connect(self, *, alone: bool = False) -> AsyncIterator[MqttSession]:
        """Connect, which ends any other connection of this cluster."""
        settings = self._settings
        pace = Pace(settings.keepalive_s, settings.connect_timeout_s, settings.in_flight_max)
        will = self._messages.will() if settings.publish_status else None
        # Files are read elsewhere than on the loop that serves everybody.
        client = Client(await asyncio.to_thread(self._who), pace, will)
        await client.open()
        try:
            yield MqttSession(client, self._messages, alone=alone)
        finally:
            await client.close()

    def _who(self) -> Address:
        settings = self._settings
        client_id = settings.client_id or f"meshd-{settings.mesh}-{self._cluster}"
        try:
            password = secret_text(settings.password_file, settings.password)
            tls = _context(settings.tls) if settings.tls.is_on else None
        except (FatalError, OSError) as error:
            # A file that is being replaced is no reason to end.
            raise DeniedError(f"the credentials for the broker can't be read: {error}") from error
        host, port = self._address.host, self._address.port
        return Address(host, port, client_id, settings.username or None, password or None, tls)


def _context(tls: BrokerTls) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=tls.ca_file)
    if tls.cert_file is not None and tls.key_file is not None:
        context.load_cert_chain(tls.cert_file, tls.key_file)
    return context


class MqttSession:
    """One connection (`runtime.ports.BrokerSession`)."""

    def __init__(self, client: Client, messages: Messages, *, alone: bool) -> None:
        self._client = client
        self._messages = messages
        self._room = asyncio.Semaphore(1 if alone else client.in_flight_max)
        self._alone_left = ALONE_MESSAGES if alone else 0

    async def event(self, told: Told) -> asyncio.Future[None]:
        """Publish an event of the own log."""
        return await self._send(self._messages.event(told))

    async def reset(self, reset: Reset) -> asyncio.Future[None]:
        """Say that what follows doesn't follow what came before."""
        return await self._send(self._messages.reset(reset))

    async def table(self, key: ServiceKey, service: bytes) -> asyncio.Future[None]:
        """Have the broker keep a service; b"" to forget it."""
        return await self._send(self._messages.table(key, service))

    async def status(self, status: Json) -> asyncio.Future[None]:
        """Have the broker keep how the cluster is."""
        return await self._send(self._messages.status(status))

    async def kept(self) -> AsyncIterator[tuple[ServiceKey, bytes]]:
        """The services that the broker keeps of this cluster, and what it is told of them by
        others later on.
        """
        topics = self._messages.topics
        options = SubscribeOptions(qos=0, noLocal=True)
        try:
            codes = await self._client.subscribe(topics.all_tables, options=options)
            for code in codes:
                if isinstance(code, ReasonCode) and code.is_failure:
                    raise DeniedError(f"the broker won't let {topics.all_tables} be read: {code}")
            async for message in self._client.messages:
                key = topics.parse_table(message.topic.value)
                if key is not None:
                    yield key, message.payload
        except aiomqtt.MqttError as error:
            raise meant(error) from error

    async def lost(self) -> Never:
        """Wait until the connection is lost, or hangs."""
        await self._client.lost()

    async def _send(self, message: Message) -> asyncio.Future[None]:
        await self._room.acquire()
        try:
            acknowledged = self._client.send(message)
        except BaseException:
            self._room.release()
            raise
        acknowledged.add_done_callback(self._make_room)
        return acknowledged

    def _make_room(self, acknowledged: asyncio.Future[None]) -> None:
        self._room.release()
        if self._alone_left:
            self._alone_left -= 1
            for _ in range(0 if self._alone_left else self._client.in_flight_max - 1):
                self._room.release()
        if not acknowledged.cancelled():
            # Of several refusals the first ends the connection, and nobody asks about the others.
            acknowledged.exception()
