"""The publisher, from the settings to what `daemon.run` sets going.

For: building it. Not for: running it (`runtime.publisher`) nor MQTT (`edges.mqtt`). Invariant:
without a broker there is none.
"""

from __future__ import annotations

from meshd.edges.mqtt import MqttBroker
from meshd.model.keyspace import Keyspace
from meshd.runtime.leadership import Leadership
from meshd.runtime.ports import Chance, Clock, Kv
from meshd.runtime.publish_cursor import CursorKey
from meshd.runtime.publisher import Published, Publisher, Sources
from meshd.settings import MqttSettings


def publisher_of(
    mqtt: MqttSettings,
    sources: Sources,
    leadership: Leadership,
    etcd: tuple[Kv, Keyspace],
    doors: tuple[Clock, Chance],
) -> Publisher | None:
    """What publishes this cluster's news; None if no broker is set."""
    if mqtt.broker is None:
        return None
    kv, keyspace = etcd
    return Publisher(
        MqttBroker(mqtt.broker, mqtt, sources.projector.own),
        Published(mqtt.publish_events, mqtt.publish_tables, mqtt.publish_status),
        sources,
        leadership,
        CursorKey(kv, keyspace.publish_cursor(mqtt.mesh)),
        doors,
    )
