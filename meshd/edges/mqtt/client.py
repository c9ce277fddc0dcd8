"""An MQTT 5 connection: aiomqtt, with what a publisher needs to know and it keeps to itself.

For: sending in order, knowing what became of each message, and an end that leaves nothing behind.
Not for: what is sent. Invariants: one object is one connection, begun clean, so nothing that an
earlier one had in flight is sent again; a message that the broker refused is never taken for
published.

aiomqtt 2.5 takes a PUBACK with an error for a success, waits its whole time-out for the PUBACKs of
a connection that is lost, keeps what the broker says in its CONNACK to itself, and leaves a
connection open that was not accepted in time. paho doesn't keep to the broker's Receive Maximum and
Maximum Packet Size. So this reaches behind aiomqtt's interface, at the names that
`tests/edges/test_mqtt.py` would find gone, and pyproject.toml holds its minor version.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Never

import aiomqtt
from paho.mqtt.client import MQTT_ERR_SUCCESS
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from meshd.model.errors import DeniedError, MeshdError, TransientError

ACKNOWLEDGE_TIMEOUT_S: Final = 30.0
"""A broker that writes to a disk takes milliseconds; one that takes this long hangs."""
LOOK_EVERY_S: Final = 1.0
CLOSE_TIMEOUT_S: Final = 1.0
"""A word of goodbye is not worth a wait: the last will says what it would."""
PACKET_MORE_BYTES: Final = 16
"""The most that a PUBLISH has beside topic, properties and payload."""

NEEDS_A_PERSON: Final = frozenset(
    {
        0x84,  # Unsupported protocol version
        0x85,  # Client identifier not valid
        0x86,  # Bad user name or password
        0x87,  # Not authorized
        0x8A,  # Banned
        0x8C,  # Bad authentication method
        0x90,  # Topic name invalid
        0x9A,  # Retain not supported
        0x9B,  # QoS not supported
    }
)
"""Reasons of a broker that don't pass by themselves."""
_UNSPECIFIED: Final = 0x80

# What paho has to say is said by the errors; aiomqtt would have it at each of them.
_log = logging.getLogger("meshd.mqtt")
_log.setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class Address:
    """Where the broker is, and who we are to it. tls: None for none."""

    host: str
    port: int
    client_id: str
    username: str | None
    password: str | None
    tls: ssl.SSLContext | None


@dataclass(frozen=True, slots=True)
class Pace:
    """How a connection is kept, as the settings say."""

    keepalive_s: int
    connect_timeout_s: float
    in_flight_max: int


@dataclass(frozen=True, slots=True)
class Message:
    """What is published, at least once (QoS 1)."""

    topic: str
    payload: bytes
    properties: Properties
    is_retained: bool = False


@dataclass(frozen=True, slots=True)
class _Sent:
    acknowledged: asyncio.Future[None]
    topic: str
    sent_s: float


class Client(aiomqtt.Client):
    """One connection, used once. in_flight_max: how many messages the broker takes at a time."""

    def __init__(self, address: Address, pace: Pace, will: Message | None) -> None:
        super().__init__(
            address.host,
            address.port,
            identifier=address.client_id,
            username=address.username,
            password=address.password,
            tls_context=address.tls,
            protocol=aiomqtt.ProtocolVersion.V5,
            clean_start=True,
            keepalive=pace.keepalive_s,
            timeout=pace.connect_timeout_s,
            max_inflight_messages=pace.in_flight_max,
            logger=_log,
            will=None
            if will is None
            else aiomqtt.Will(will.topic, will.payload, 1, retain=True, properties=will.properties),
        )
        self._client.connect_timeout = pace.connect_timeout_s
        self._sent: dict[int, _Sent] = {}
        self._packet_bytes_max = 0
        self.in_flight_max = pace.in_flight_max
        self.unable = ""

    # What the broker says.

    def _on_connect(self, *told: Any) -> None:
        _, _, _, reason, properties = told
        if properties is not None and not reason.is_failure:
            limit = getattr(properties, "ReceiveMaximum", self.in_flight_max)
            self.in_flight_max = max(1, min(self.in_flight_max, limit))
            self._packet_bytes_max = getattr(properties, "MaximumPacketSize", 0)
            if getattr(properties, "MaximumQoS", 1) < 1:
                self.unable = "acknowledges no messages (its maximum QoS is 0)"
            elif not getattr(properties, "RetainAvailable", 1):
                self.unable = "keeps no messages (retained messages are not available)"
        super()._on_connect(*told)

    def _on_publish(self, *told: Any) -> None:
        _, _, mid, reason_code, _ = told
        sent = self._sent.pop(mid, None)
        if sent is None or sent.acknowledged.done():
            return
        if reason_code.is_failure:
            sent.acknowledged.set_exception(
                DeniedError(f"the broker refused a message on {sent.topic}: {reason_code}")
            )
        else:
            sent.acknowledged.set_result(None)

    # What we do.

    def send(self, message: Message) -> asyncio.Future[None]:
        """Send now, behind what was sent before; the future is done once the broker has it.

        Not more than `in_flight_max` at a time. Raises TransientError, or DeniedError for what the
        broker said it would not take.
        """
        self._check_size(message)
        info = self._client.publish(
            message.topic, message.payload, 1, message.is_retained, message.properties
        )
        if info.rc != MQTT_ERR_SUCCESS:
            raise TransientError(f"the connection is lost: {self._why_lost()}")
        loop = asyncio.get_running_loop()
        sent = _Sent(loop.create_future(), message.topic, loop.time())
        self._sent[info.mid] = sent
        return sent.acknowledged

    def _check_size(self, message: Message) -> None:
        if not self._packet_bytes_max:
            return
        size = len(message.topic) + len(_packed(message.properties)) + len(message.payload)
        if size + PACKET_MORE_BYTES > self._packet_bytes_max:
            raise DeniedError(
                f"a message on {message.topic} has {size} bytes, and the broker takes"
                f" {self._packet_bytes_max} (its maximum packet size): raise that"
            )

    async def lost(self) -> Never:
        """Wait until the connection is lost, or a message isn't acknowledged; TransientError."""
        while not self._disconnected.done():
            await asyncio.wait({self._disconnected}, timeout=LOOK_EVERY_S)
            oldest = next(iter(self._sent.values()), None)
            now_s = asyncio.get_running_loop().time()
            if oldest is not None and now_s - oldest.sent_s > ACKNOWLEDGE_TIMEOUT_S:
                raise TransientError(
                    f"the broker has not acknowledged a message on {oldest.topic} within"
                    f" {ACKNOWLEDGE_TIMEOUT_S:g} s"
                )
        oldest = next(iter(self._sent.values()), None)
        # A broker may end a connection for a message that it won't have, and not say so.
        what = "" if oldest is None else f", before a message on {oldest.topic} was acknowledged"
        raise TransientError(f"the connection is lost: {self._why_lost()}{what}")

    def _why_lost(self) -> str:
        if not self._disconnected.done():
            return "it can't be written to"
        error = self._disconnected.exception()
        if isinstance(error, aiomqtt.MqttCodeError) and isinstance(error.rc, ReasonCode):
            # What nobody said a reason for is paho's 'Unspecified error'.
            return "it broke" if error.rc.value == _UNSPECIFIED else str(error.rc)
        return "the broker ended it" if error is None else str(error)

    async def open(self) -> None:
        """Connect; raises TransientError or DeniedError, and nothing stays open then."""
        try:
            await self.__aenter__()
        except aiomqtt.MqttError as error:
            self._abandon()
            raise meant(error) from error
        if self.unable:
            await self.close()
            raise DeniedError(f"the broker {self.unable}")

    async def close(self) -> None:
        """Say goodbye, for a moment; then the connection is closed whatever the broker does."""
        self.timeout = CLOSE_TIMEOUT_S
        with suppress(aiomqtt.MqttError):
            await self.__aexit__(None, None, None)
        self._abandon()
        if self._disconnected.done():
            # Why it was lost may be known to nobody: then nobody wanted to know.
            self._disconnected.exception()

    def _abandon(self) -> None:
        """Close a socket that may still be open: paho hears of it and ends what belongs to it."""
        opened = self._client.socket()
        if isinstance(opened, socket.socket):
            with suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)


def _packed(properties: Properties) -> bytes:
    packed: bytes = properties.pack()  # type: ignore[no-untyped-call]
    return packed


def meant(error: aiomqtt.MqttError) -> MeshdError:
    """What an error of the library means to who retries."""
    code = error.rc if isinstance(error, aiomqtt.MqttCodeError) else None
    if isinstance(code, ReasonCode):
        kind = DeniedError if code.value in NEEDS_A_PERSON else TransientError
        return kind(f"the broker said: {code}")
    return TransientError(f"the broker can't be reached: {error}")


def properties_of(
    *user: tuple[str, str], content_type: str, expiry_s: int = 0, kind: int = PacketTypes.PUBLISH
) -> Properties:
    """The properties of a message of text. user: what one may filter by without reading it.
    expiry_s: 0 for never.
    """
    properties = Properties(kind)  # type: ignore[no-untyped-call]
    properties.PayloadFormatIndicator = 1
    properties.ContentType = content_type
    if expiry_s:
        properties.MessageExpiryInterval = expiry_s
    if user:
        properties.UserProperty = list(user)
    return properties
