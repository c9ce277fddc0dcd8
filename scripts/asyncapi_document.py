"""asyncapi.json: every stream and topic, who may read it, how it is asked for and what it tells.

For: what programs may subscribe to, for people and generators. Not for: messages and their shapes
(`asyncapi_messages`, `asyncapi_schemas`), nor requests with one answer (`openapi_paths`).
Invariant: tests hold the code and what it really sends against this description.
"""

from __future__ import annotations

from typing import Any, Final

from asyncapi_messages import (
    ENDPOINT_TYPES,
    MQTT_MESSAGE,
    OTHER_NAME,
    PLACE_NAME,
    mqtt_messages,
    mqtt_name,
    stream_messages,
)
from asyncapi_schemas import all_shapes, used
from openapi_paths import document as openapi
from openapi_schemas import TEXT, Json

from meshd import __version__
from meshd.edges.mqtt.topics import NO_NAMESPACE, Topics
from meshd.model.event import EventType
from meshd.model.ids import ServiceKey
from meshd.settings import MqttSettings

LIST_ONLY: Final = {"limit"}
"""What `/v1/events` takes only where it isn't a stream."""
REPEATED: Final = {"cluster", "type", "namespace", "service", "label"}
HTTP_OPERATION: Final = "0.3.0"
WS_CHANNEL: Final = "0.1.0"
"""The versions of the bindings."""
ROOT: Final = "{prefix}/{mesh}/{cluster}"
PARAMETERS: Final[dict[str, Json]] = {
    "prefix": {"description": "`mqtt.topic_prefix`: some levels.", "default": "meshd"},
    "mesh": {"description": "`mqtt.mesh`: one level.", "default": "mesh"},
    "cluster": {"description": "Whose log, or from whose perspective.", "examples": ["east"]},
    "type": {
        "description": "The event's type without `io.meshd.`, escaped.",
        "examples": ["service.set", "policy.removed"],
    },
    "namespace": {
        "description": f"Of the thing, escaped; `{NO_NAMESPACE}` for what has none: nodes,"
        " identities, peers, operations and the cluster itself.",
        "examples": ["shop", NO_NAMESPACE],
    },
    "service": {"description": "Of the endpoint, escaped.", "examples": ["web"]},
    "name": {"description": "Of the thing, escaped.", "examples": ["web"]},
}
ESCAPED = (
    " What isn't an ASCII letter, a digit or one of `-._~:` is escaped as `%` and two digits, byte"
    " by byte of its UTF-8; a `/` in a key begins a level."
)
SUBSCRIBE = (
    "Each message over server-sent events has the fields `id` (where to resume: bring the last one"
    " back as Last-Event-ID), `event` (the message's name) and `data` (its payload, JSON); over a"
    " WebSocket it is a text that holds the same (WebSocketText). What `headers` says of `id` and"
    " `event` holds for both."
)


def document() -> Json:
    """The whole description."""
    shapes = all_shapes()
    found: Json = {
        "asyncapi": "3.0.0",
        "id": "urn:meshd:streams",
        "info": {
            "title": "meshd",
            "version": __version__,
            "license": {"name": "Apache-2.0"},
            "description": "What one meshd tells programs by itself: the events of its cluster and"
            " of those that it follows, the global tables, the mesh's condition. Fields, messages"
            " and event types may be added within a version: ignore those that you don't know."
            f" {SUBSCRIBE}",
        },
        "defaultContentType": "application/json",
        "servers": _servers(),
        "channels": _streams() | _topics(),
        "operations": _operations(),
        "components": {
            "securitySchemes": SECURITY,
            "messages": stream_messages() | mqtt_messages(),
        },
    }
    text = {"WebSocketText": shapes["WebSocketText"]}
    found["components"]["schemas"] = text | used(found, shapes)
    return found


def _ref(*steps: str) -> Json:
    return {"$ref": "/".join(("#", *steps))}


SECURITY: Final[dict[str, Json]] = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "description": "Needed as soon as one is configured, and beyond loopback.",
    },
    "certificate": {
        "type": "X509",
        "description": "Where `api.tls.client_ca_file`, or the broker, asks for one.",
    },
    "mqttUser": {
        "type": "userPassword",
        "description": "`mqtt.username` and `mqtt.password_file`, where the broker asks.",
    },
}


def _servers() -> Json:
    by = {name: _ref("components", "securitySchemes", name) for name in SECURITY}
    meshd = {"host": "127.0.0.1:7979", "security": [by["token"], by["certificate"]]}
    mqtt = MqttSettings()
    return {
        "http": meshd | {"protocol": "http", "description": "meshd, for server-sent events."},
        "ws": meshd | {"protocol": "ws", "description": "The same meshd, for WebSockets."},
        "mqtt": {
            "host": "broker.example:1883",
            "protocol": "mqtt",
            "protocolVersion": "5",
            "description": "The broker that `mqtt.broker` names; meshd is a client of it.",
            "security": [by["mqttUser"], by["certificate"]],
            "bindings": {
                "mqtt": {
                    "clientId": f"meshd-{mqtt.mesh}-<cluster>",
                    "cleanSession": True,
                    "lastWill": {
                        "topic": Topics(ROOT).status,
                        "qos": 1,
                        "message": '{"state":"gone","cluster":"<cluster>"}',
                        "retain": True,
                    },
                    "keepAlive": mqtt.keepalive_s,
                    "bindingVersion": MQTT_MESSAGE,
                }
            },
        },
    }


# Streams.

STREAMS: Final[dict[str, tuple[str, str, tuple[str, ...]]]] = {
    "events": (
        "/v1/events",
        "The events of one, some or all clusters, as CloudEvents.",
        (
            *(str(kind) for kind in EventType),
            *(OTHER_NAME, PLACE_NAME, "eventsSnapshotBegin", "eventsSnapshotEnd"),
            *("reset", "error"),
        ),
    ),
    "tables": (
        "/v1/tables/stream",
        "The global services as this cluster sees them, and what becomes of them.",
        (
            *("tablesSnapshotBegin", "table", "tableDelta", "tableRemoved", "tablesSnapshotEnd"),
            *(PLACE_NAME, "reset", "error"),
        ),
    ),
    "condition": (
        "/v1/watch",
        "How the mesh is, and what becomes of it. Nothing can be resumed: it begins with all.",
        ("mesh", "status", "peer", "peerRemoved", "error"),
    ),
}
"""Path, what is told, and the messages."""


def _streams() -> Json:
    return {
        name: {
            "address": path,
            "title": path,
            "description": what,
            "servers": [_ref("servers", "http"), _ref("servers", "ws")],
            "messages": _messages(messages),
            "bindings": {
                "ws": {
                    "method": "GET",
                    "query": _query(path),
                    "headers": _request_headers(path),
                    "bindingVersion": WS_CHANNEL,
                }
            },
        }
        for name, (path, what, messages) in STREAMS.items()
    }


def _messages(names: tuple[str, ...]) -> Json:
    return {name: _ref("components", "messages", name) for name in names}


def _parameters(path: str, where: str) -> list[dict[str, Any]]:
    given = openapi()["paths"][path]["get"].get("parameters", [])
    return [one for one in given if one["in"] == where]


def _query(path: str) -> Json:
    """The query of a stream, as openapi.json has it."""
    return _object(
        {
            one["name"]: ({"type": "array", "items": TEXT} if one["name"] in REPEATED else {})
            | one["schema"]
            | {"description": one["description"]}
            for one in _parameters(path, "query")
            if one["name"] not in LIST_ONLY
        }
    )


def _request_headers(path: str) -> Json:
    return _object(
        {
            one["name"]: TEXT | {"description": one["description"]}
            for one in _parameters(path, "header")
        }
    )


def _object(properties: Json) -> Json:
    return {"type": "object", "properties": properties, "additionalProperties": False}


# Topics.


def _topics() -> Json:
    topics = Topics(ROOT)
    events = f"{ROOT}/events/{{type}}/{{namespace}}"
    return {
        "mqttEvents": _topic(
            f"{events}/{{name}}",
            "The events of one cluster's log, in its order." + ESCAPED,
            *(mqtt_name(kind) for kind in EventType if kind not in ENDPOINT_TYPES),
            mqtt_name(OTHER_NAME),
        ),
        "mqttEndpointEvents": _topic(
            f"{events}/{{service}}/{{name}}",
            "Those of endpoints, in the same order: below their service, so that a filter can name"
            " it with all that is its.",
            *map(mqtt_name, ENDPOINT_TYPES),
        ),
        "mqttResets": _topic(
            topics.reset,
            "Says, before the event that is next, that events are missing before it.",
            mqtt_name("reset"),
        ),
        "mqttTables": _topic(
            topics.table(ServiceKey("{namespace}", "{name}")),
            "Every global service as the cluster sees it.",
            *(mqtt_name("table"), mqtt_name("tableRemoved")),
        ),
        "mqttStatus": _topic(
            topics.status, "How the cluster is.", mqtt_name("status"), mqtt_name("will")
        ),
    }


def _topic(address: str, description: str, *messages: str) -> Json:
    return {
        "address": address,
        "description": description,
        "servers": [_ref("servers", "mqtt")],
        "parameters": {
            name: parameter for name, parameter in PARAMETERS.items() if f"{{{name}}}" in address
        },
        "messages": _messages(messages),
    }


# Operations.


def _operations() -> Json:
    found: Json = {
        f"tell{name.capitalize()}": {
            "action": "send",
            "channel": _ref("channels", name),
            "summary": what,
            "bindings": {
                "http": {
                    "method": "GET",
                    "query": _query(path),
                    "bindingVersion": HTTP_OPERATION,
                }
            },
        }
        for name, (path, what, _) in STREAMS.items()
    }
    expiry = {"messageExpiryInterval": MqttSettings().event_expiry_s}
    return found | {
        "publishEvents": _publishing("mqttEvents", retain=False, **expiry),
        "publishEndpointEvents": _publishing("mqttEndpointEvents", retain=False, **expiry),
        "publishResets": _publishing("mqttResets", retain=False, **expiry),
        "publishTables": _publishing("mqttTables", retain=True),
        "publishStatus": _publishing("mqttStatus", retain=True),
    }


def _publishing(channel: str, **more: bool | int) -> Json:
    return {
        "action": "send",
        "channel": _ref("channels", channel),
        "summary": "At least once, in order.",
        "bindings": {"mqtt": {"qos": 1, **more, "bindingVersion": MQTT_MESSAGE}},
    }
