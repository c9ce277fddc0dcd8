"""The shapes in asyncapi.json.

For: what streams and MQTT tell, from the same shapes as openapi.json and the schemas of events.
Not for: the messages around them (`asyncapi_messages`). Invariant: a shape requires every field
that meshd sends; readers ignore others.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from event_schemas import DATA_OF, data_schema
from openapi_schemas import (
    COUNT,
    FLAG,
    HASH,
    REF_BASE,
    TEXT,
    TIME,
    VECTOR,
    Json,
    many,
    maybe,
    rebase,
    ref,
    schemas,
    shape,
    words,
)

from meshd.core.telling import EVENT_TYPE_PREFIX, RESET
from meshd.model.event import EventType
from meshd.model.peer import Phase

DEFINITION = (
    *("ports", "headless", "session_affinity", "session_timeout_s", "affinity", "spill"),
    *("exposure", "labels", "clusters", "conditions"),
)
"""The fields of a service in a table that a delta tells together."""
PLACE: Json = {
    "type": "string",
    "description": "Where to resume: opaque; `protocols/streams.md` says what a client may read in"
    " it.",
}


def all_shapes() -> Json:
    """Every shape that may be referred to, whether or not it is."""
    found = schemas()
    for group in (_data(), _events(found["CloudEvent"]), _tables(found), _mesh(), _frames()):
        for name, schema in group.items():
            if found.setdefault(name, schema) != schema:
                raise ValueError(f"two schemas have one name: {name}")
    return found


def used(document: Json, shapes: Json) -> Json:
    """The shapes that a document refers to, directly or by others."""
    found: Json = {}
    waiting = list(_references(document))
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = shapes[name]
            waiting += _references(shapes[name])
    return dict(sorted(found.items()))


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key == "$ref" and item.startswith(REF_BASE):
                yield item.removeprefix(REF_BASE)
            else:
                yield from _references(item)
    elif isinstance(value, list):
        for item in value:
            yield from _references(item)


def event_name(kind: EventType) -> str:
    """What the shape of an event is called."""
    return f"event.{kind}"


def _data() -> Json:
    """The data of events, each as a shape of its own."""
    found: Json = {}
    for kind, value in DATA_OF.items():
        if value is not None:
            schema = rebase(data_schema(kind))
            found |= schema.pop("$defs", {})
            found[value.__name__] = schema
    return found


def _events(cloud_event: Json) -> Json:
    """A cloud event of each type that this version folds."""
    found: Json = {}
    for kind, value in DATA_OF.items():
        data = {"type": "null"} if value is None else ref(value.__name__)
        own = {"type": {"const": EVENT_TYPE_PREFIX + kind}, "data": data}
        found[event_name(kind)] = cloud_event | {"properties": cloud_event["properties"] | own}
    place = {"anyOf": [VECTOR, {"type": "null"}]}
    found["event.reset"] = shape(
        "Events are missing before the next one, or it is of another log. id: the same for the same"
        " gap.",
        specversion={"const": "1.0"},
        id=TEXT,
        source=TEXT,
        type={"const": EVENT_TYPE_PREFIX + RESET},
        datacontenttype={"const": "application/json"},
        meshdcluster=TEXT,
        data=shape(
            "Between which events. before: the last one that is known to have been published; null"
            " if that isn't known.",
            before=place,
            next=VECTOR,
            reason=TEXT,
        ),
    )
    return found


def _tables(shapes: Json) -> Json:
    whole = shapes["TableService"]
    fields = {name: whole["properties"][name] for name in whole["required"]}
    named = {"namespace": TEXT, "name": TEXT}
    number = COUNT | {"description": "Of the change. Rises within a run of meshd."}
    return {
        "ToldService": shape(
            "A global service, whole. Ignore one whose change isn't above that of what you hold.",
            **fields,
            change=number,
        ),
        "KeptService": shape("A global service, whole.", **fields),
        "ServiceDelta": shape(
            "What became of a global service. before: the change that this one follows; 0 if the"
            " service is new, and this is all of it. definition, tiers: null if they are as they"
            " were. upserts: backends, whole.",
            **named,
            change=number,
            before=COUNT,
            stale=many(TEXT),
            digest=HASH,
            definition=maybe(
                shape(
                    "What is common to its backends.", **{name: fields[name] for name in DEFINITION}
                )
            ),
            tiers=maybe(fields["tiers"]),
            upserts=fields["backends"],
            removals=many(shape("A backend that is gone.", cluster=TEXT, name=TEXT)),
        ),
        "ServiceRemoved": shape(
            "A service is gone, or is none of those that were asked for any more.",
            **named,
            change=number,
        ),
        "EventsSnapshotBegin": shape("Whose events follow.", clusters=many(TEXT)),
        "EventsSnapshotEnd": shape(
            "How many there were, and where the changes go on.", items=COUNT, vector=VECTOR
        ),
        "TablesSnapshotBegin": shape(
            "events_after: where to follow events from. services: how many follow.",
            perspective=TEXT,
            events_after=VECTOR,
            services=COUNT,
        ),
        "TablesSnapshotEnd": shape("The last change that it stands for.", change=number),
    }


def _mesh() -> Json:
    standing = {
        "vector_text": VECTOR,
        "digest": HASH,
        "events_after": VECTOR,
    }
    return {
        "MeshStatus": shape(
            "How the asked meshd is. digest: null while the own log is read on.",
            cluster=TEXT,
            ready=FLAG,
            reasons=many(TEXT),
            leader=maybe(ref("Leader")),
            **standing | {"digest": maybe(HASH)},
        ),
        "Mesh": shape("All of it.", status=ref("MeshStatus"), peers=many(ref("Peer"))),
        "PeerRemoved": shape("A peer is followed no more.", name=TEXT),
        "LiveStatus": shape(
            "How a cluster is. state: `live`, or `gone` when its meshd stopped well. vector_text,"
            " digest: null while the own log is read on. peers: the phase of each.",
            state=words("live", "gone"),
            cluster=TEXT,
            version=TEXT,
            leader=maybe(
                shape("Who publishes. api: where it serves REST.", host=TEXT, api=TEXT),
            ),
            vector_text=maybe(VECTOR),
            digest=maybe(HASH),
            events_after=VECTOR,
            peers={"type": "object", "additionalProperties": words(*Phase)},
        ),
        "LostStatus": shape(
            "The last will: the broker says it once it has lost the cluster's meshd.",
            state={"const": "gone"},
            cluster=TEXT,
        ),
    }


def _frames() -> Json:
    """What is around data."""
    return {
        "WebSocketText": shape(
            "A message as a WebSocket's text; null for what it hasn't got.",
            id=maybe(TEXT),
            event=maybe(TEXT),
            data={},
        ),
        "CloudEventProperties": shape(
            "Attributes of the event, as user properties: what one may filter by.",
            id=TEXT,
            type=TEXT,
            source=TEXT,
            subject=TEXT,
            time=TIME,
            meshdseq={"type": "string", "pattern": "^[0-9]+$"},
        ),
        "ResetProperties": shape("The same of a reset.", id=TEXT, type=TEXT, source=TEXT),
    }
