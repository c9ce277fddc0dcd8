"""What is published: events, tables and the status as MQTT messages (`protocols/mqtt.md`).

For: topic, payload and properties of each. Not for: sending. Invariants: pure; whatever an event
holds, its message is one that a broker can take: no text in it has what MQTT forbids.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import orjson
from paho.mqtt.packettypes import PacketTypes

from meshd.core.past import time_text
from meshd.core.telling import EVENT_TYPE_PREFIX, event_bytes, reset_event
from meshd.edges.mqtt.client import Message, properties_of
from meshd.edges.mqtt.topics import Topics
from meshd.model.event import Told
from meshd.model.ids import ClusterName, ServiceKey
from meshd.model.publishing import Reset
from meshd.runtime.ports import Json

CLOUD_EVENT: Final = "application/cloudevents+json; charset=utf-8"
JSON: Final = "application/json"
GONE: Final = "gone"

_FORBIDDEN: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
"""What a text of MQTT must not or should not hold."""


def fit(text: str) -> str:
    """A text as a user property: exact but for what MQTT doesn't allow."""
    return _FORBIDDEN.sub("\ufffd", text)


@dataclass(frozen=True, slots=True)
class Messages:
    """The messages of one cluster. event_expiry_s: 0 for never."""

    cluster: ClusterName
    topics: Topics
    event_expiry_s: int

    def event(self, told: Told) -> Message:
        """An event, as a CloudEvent in structured mode, with its attributes as user properties."""
        position, event = told.position, told.event
        properties = properties_of(
            ("id", str(position)),
            ("type", fit(EVENT_TYPE_PREFIX + event.type)),
            ("source", f"meshd://{position.cluster}"),
            ("subject", fit(event.key)),
            ("time", time_text(told.time_ms)),
            ("meshdseq", str(position.seq)),
            content_type=CLOUD_EVENT,
            expiry_s=self.event_expiry_s,
        )
        return Message(self.topics.event(event.type, event.key), event_bytes(told), properties)

    def reset(self, reset: Reset) -> Message:
        """The word that what follows does not follow what came before."""
        fields = reset_event(reset)
        properties = properties_of(
            *((name, str(fields[name])) for name in ("id", "type", "source")),
            content_type=CLOUD_EVENT,
            expiry_s=self.event_expiry_s,
        )
        return Message(self.topics.reset, orjson.dumps(fields), properties)

    def table(self, key: ServiceKey, service: bytes) -> Message:
        """A service, kept until the next; b"" has the broker forget it."""
        properties = properties_of(content_type=JSON)
        return Message(self.topics.table(key), service, properties, is_retained=True)

    def status(self, status: Json) -> Message:
        """How the cluster is, kept until the next."""
        properties = properties_of(content_type=JSON)
        return Message(self.topics.status, orjson.dumps(status), properties, is_retained=True)

    def will(self) -> Message:
        """What the broker says in our place once it has lost us."""
        properties = properties_of(content_type=JSON, kind=PacketTypes.WILLMESSAGE)
        fields = {"state": GONE, "cluster": self.cluster}
        return Message(self.topics.status, orjson.dumps(fields), properties, is_retained=True)
