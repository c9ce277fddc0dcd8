"""The messages in asyncapi.json.

For: what each is called, what is in it, and what is around that on HTTP, WebSocket and MQTT. Not
for: where it is told (`asyncapi_document`) nor its data's shape (`asyncapi_schemas`). Invariant:
names are the code's own.
"""

from __future__ import annotations

from typing import Final

from asyncapi_schemas import PLACE, event_name
from openapi_schemas import Json, ref

from meshd.edges.http import table_messages as tables
from meshd.edges.http import watching
from meshd.edges.http.outlets import ERROR, RESET
from meshd.edges.http.stream import SNAPSHOT_BEGIN, SNAPSHOT_END
from meshd.edges.mqtt.messages import CLOUD_EVENT, JSON
from meshd.model.event import EventType

PLACE_NAME: Final = "place"
OTHER_NAME: Final = "other"
"""What stands for a message without a name, and for those with names that aren't known here."""
MQTT_MESSAGE: Final = "0.2.0"
"""The version of MQTT's bindings."""
ENDPOINT_TYPES: Final = (EventType.ENDPOINT_SET, EventType.ENDPOINT_REMOVED)

OTHER = (
    "An event of a type that this version doesn't know: a newer meshd wrote it. Ignore it, or fold"
    " what you know."
)


def stream_message(name: str, summary: str, payload: Json | None, *, has_id: bool | None) -> Json:
    """A message of a stream. has_id: whether it has one; None if it may. payload: None for a
    message that says a place alone.
    """
    headers: Json = {}
    if has_id is not False:
        headers["id"] = PLACE
    if payload is not None:
        headers["event"] = {"type": "string"} if name == OTHER_NAME else {"const": name}
    required = [one for one in headers if one != "id" or has_id]
    found: Json = {
        "name": name,
        "summary": summary,
        "contentType": JSON,
        "headers": {"type": "object", "properties": headers, "required": required},
    }
    return found | ({"payload": payload} if payload is not None else {})


def stream_messages() -> dict[str, Json]:
    """All messages of streams, by the names that channels refer to."""
    place = "Where the stream has come to: an id and nothing else."
    return {
        **{
            str(kind): stream_message(kind, _of_event(kind), ref(event_name(kind)), has_id=None)
            for kind in EventType
        },
        OTHER_NAME: stream_message(OTHER_NAME, OTHER, ref("CloudEvent"), has_id=None),
        PLACE_NAME: stream_message(PLACE_NAME, place, None, has_id=True),
        **{
            key: stream_message(name, summary, ref(schema), has_id=has_id)
            for key, (name, summary, schema, has_id) in NAMED.items()
        },
    }


NAMED: Final[dict[str, tuple[str, str, str, bool | None]]] = {
    "eventsSnapshotBegin": (
        SNAPSHOT_BEGIN,
        "Everything that exists follows, each thing as its last event. Forget what you have.",
        "EventsSnapshotBegin",
        False,
    ),
    "eventsSnapshotEnd": (
        SNAPSHOT_END,
        "That was everything; changes follow.",
        "EventsSnapshotEnd",
        True,
    ),
    "reset": (
        RESET,
        "The place is gone for good; the stream ends, or with `reset=snapshot` a snapshot follows.",
        "Problem",
        False,
    ),
    "error": (ERROR, "The stream ends here, and can be resumed.", "Problem", False),
    "tablesSnapshotBegin": (
        tables.BEGIN,
        "All services that match follow. Forget what you have once they have all come.",
        "TablesSnapshotBegin",
        False,
    ),
    "table": (tables.VALUE, "A service, whole.", "ToldService", None),
    "tableDelta": (
        tables.DELTA,
        "What became of a service; only with `delta=true`.",
        "ServiceDelta",
        None,
    ),
    "tableRemoved": (tables.REMOVED, "A service is gone.", "ServiceRemoved", None),
    "tablesSnapshotEnd": (
        tables.END,
        "Those were all; changes follow.",
        "TablesSnapshotEnd",
        True,
    ),
    "mesh": (watching.MESH, "All of it, once at the start.", "Mesh", False),
    "status": (
        watching.STATUS,
        "How the asked meshd is, when that is otherwise.",
        "MeshStatus",
        False,
    ),
    "peer": (watching.PEER, "How a peer is, when that is otherwise.", "Peer", False),
    "peerRemoved": (watching.PEER_REMOVED, "A peer is followed no more.", "PeerRemoved", False),
}
"""Name, summary, shape, and whether it has an id."""


def _of_event(kind: EventType) -> str:
    thing, _, deed = kind.partition(".")
    return f"A {thing} is there, or is otherwise." if deed == "set" else f"A {thing} is gone."


def mqtt_messages() -> dict[str, Json]:
    """All messages on MQTT, by the names that channels refer to."""
    found = {
        mqtt_name(kind): _mqtt_event(kind, _of_event(kind), event_name(kind)) for kind in EventType
    }
    found[mqtt_name(OTHER_NAME)] = _mqtt_event(OTHER_NAME, OTHER, "CloudEvent")
    found[mqtt_name("reset")] = _mqtt_event(
        RESET,
        "Events are missing before the next one, or it is of another log.",
        "event.reset",
        "ResetProperties",
    )
    for name, (summary, payload) in KEPT.items():
        found[mqtt_name(name)] = {
            "name": name,
            "summary": summary,
            "contentType": JSON,
            "payload": payload,
            "bindings": _bindings(),
        }
    return found


KEPT: Final[dict[str, tuple[str, Json]]] = {
    "table": ("A global service as the cluster sees it; retained.", ref("KeptService")),
    "tableRemoved": (
        "The service is gone: an empty payload, with which the broker forgets what it retained.",
        {"type": "string", "maxLength": 0},
    ),
    "status": ("How the cluster is; retained.", ref("LiveStatus")),
    "will": ("The last will: the cluster's meshd was lost; retained.", ref("LostStatus")),
}
"""What the broker retains: summary and payload."""


def mqtt_name(name: str) -> str:
    """What a message is called among the others."""
    return f"mqtt.{name}"


def _mqtt_event(
    name: str, summary: str, schema: str, properties: str = "CloudEventProperties"
) -> Json:
    return {
        "name": name,
        "summary": summary,
        "contentType": CLOUD_EVENT,
        "headers": ref(properties),
        "payload": ref(schema),
        "bindings": _bindings(),
    }


def _bindings() -> Json:
    return {"mqtt": {"payloadFormatIndicator": 1, "bindingVersion": MQTT_MESSAGE}}
