"""MQTT: the settings of the broker that this cluster publishes to.

For: the values, their defaults and their limits, each with its reason. Not for: topics and messages
(`protocols/mqtt.md`), nor rules between values (`rules`). Invariant: as for all settings
(`subjects`); unless a broker is named, nothing is published.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field, SecretStr, StrictBool, StrictInt

from meshd.settings.kinds import (
    NO_SECRET,
    Audience,
    ClientId,
    OptionalPath,
    OptionalTarget,
    Seconds,
    TopicPrefix,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerTls:
    """TLS towards the broker. It is used as soon as any of these is set."""

    ca_file: OptionalPath = None
    """PEM of who signs the broker's certificate. Needed with TLS, as for an etcd; a public broker's
    is in the system's bundle. The certificate has to name the host in `mqtt.broker`."""
    cert_file: OptionalPath = None
    """PEM of the client certificate; together with `key_file`."""
    key_file: OptionalPath = None
    """PEM of the certificate's key."""

    @property
    def is_on(self) -> bool:
        """Whether anything is set."""
        return bool(self.ca_file or self.cert_file or self.key_file)


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttSettings:
    """Publishing this cluster's events, tables and status to an MQTT 5 broker."""

    broker: OptionalTarget = None
    """Its host:port; brokers listen on 1883, with TLS on 8883. None: nothing is published."""
    mesh: Audience = "mesh"
    """What the mesh is called in topics, so that one broker can serve several meshes. Another name
    begins anew at the oldest event that is kept."""
    topic_prefix: TopicPrefix = "meshd"
    """What all topics start with."""
    client_id: ClientId = ""
    """The same for all meshds of a cluster: the broker then ends the connection of a former leader
    when the next one comes. Empty: `meshd-<mesh>-<cluster>`."""
    username: str = ""
    """Of the user that may publish below `<topic_prefix>/<mesh>/<cluster>/` and read its `tables/`.
    Empty: no authentication."""
    password_file: OptionalPath = None
    """The user's password, on the file's first line; read again for each connection."""
    password: SecretStr = NO_SECRET
    """The same from the environment, MESHD_MQTT__PASSWORD; refused in files and flags."""
    tls: BrokerTls = field(default_factory=BrokerTls)
    """Off unless something in it is set."""
    publish_events: StrictBool = True
    """Every event of the own log."""
    publish_tables: StrictBool = True
    """Every global service as this cluster sees it, retained."""
    publish_status: StrictBool = True
    """How this cluster is, retained, with a last will."""
    event_expiry_s: Annotated[StrictInt, Field(ge=0, le=4_294_967_295)] = 7 * 86_400
    """How long a broker keeps an event for a subscriber who is away, before it is dropped without a
    word: a week, since somebody away for longer is better off with the tables. 0: for ever."""
    in_flight_max: Annotated[StrictInt, Field(ge=1, le=1000)] = 10
    """Messages that the broker has not acknowledged yet: 8 were measured to come within a tenth of
    what 64 do. A broker far away needs more, and may ask for fewer."""
    keepalive_s: Annotated[StrictInt, Field(ge=5, le=3600)] = 15
    """A broker that is silent for twice this time is lost, and it announces the last will after one
    and a half times."""
    connect_timeout_s: Annotated[Seconds, Field(ge=0.1, le=60)] = 5.0
    """How long each step of connecting may take; a round the world takes 0.3 s."""
