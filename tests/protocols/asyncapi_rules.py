"""What AsyncAPI 3.0 asks of a document like ours, and asyncapi.json as something to check against.

For: the tests of asyncapi.json. Not for: what it must say of meshd (`test_asyncapi`). Invariant:
only what AsyncAPI knows passes: a field that is misspelt, or of another version, does not.

These rules were written from the text of the specification, for the parts of it that we use; the
project's own parser (@asyncapi/parser) found nothing in the document when they were.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jsonschema import Draft7Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7

FILE = Path(__file__).parents[2] / "protocols/asyncapi.json"
DOCUMENT: dict[str, Any] = json.loads(FILE.read_text())
CHANNELS: dict[str, Any] = DOCUMENT["channels"]
MESSAGES: dict[str, Any] = DOCUMENT["components"]["messages"]
Json = dict[str, Any]

TEXT = {"type": "string", "minLength": 1}
REFERENCE = {
    "type": "object",
    "properties": {"$ref": {"type": "string", "pattern": "^#/"}},
    "required": ["$ref"],
    "additionalProperties": False,
}


def fields(*required: str, **known: Any) -> Json:
    """An object with these fields, and at most x- beside them."""
    return {
        "type": "object",
        "properties": known,
        "required": list(required),
        "additionalProperties": False,
        "patternProperties": {"^x-": {}},
    }


def named(value: Any, pattern: str = r"^[A-Za-z0-9._-]+$") -> Json:
    return {"type": "object", "patternProperties": {pattern: value}, "additionalProperties": False}


def either(*kinds: Any) -> Json:
    return {"anyOf": list(kinds)}


SCHEMA = {"type": "object"}
"""Checked by itself: it is JSON Schema."""
OBJECT_SCHEMA = either(
    REFERENCE, {"type": "object", "properties": {"type": {"const": "object"}}, "required": ["type"]}
)
BINDING = {"bindingVersion": {"type": "string", "pattern": r"^\d+\.\d+\.\d+$"}}
HTTP_OPERATION = fields("bindingVersion", method={"const": "GET"}, query=OBJECT_SCHEMA, **BINDING)
WS_CHANNEL = fields(
    "bindingVersion", method={"const": "GET"}, query=OBJECT_SCHEMA, headers=OBJECT_SCHEMA, **BINDING
)
QOS = {"enum": [0, 1, 2]}
MQTT_OPERATION = fields(
    *("qos", "retain", "bindingVersion"),
    qos=QOS,
    retain={"type": "boolean"},
    messageExpiryInterval={"type": "integer", "minimum": 1, "maximum": 2**32 - 1},
    **BINDING,
)
MQTT_SERVER = fields(
    "bindingVersion",
    clientId=TEXT,
    cleanSession={"type": "boolean"},
    lastWill=fields("topic", topic=TEXT, qos=QOS, message=TEXT, retain={"type": "boolean"}),
    keepAlive={"type": "integer", "minimum": 1},
    **BINDING,
)
MQTT_MESSAGE = fields("bindingVersion", payloadFormatIndicator={"enum": [0, 1]}, **BINDING)
SECURITY = {
    "oneOf": [
        fields("type", "scheme", type={"const": "http"}, scheme=TEXT, description=TEXT),
        fields("type", type={"enum": ["X509", "userPassword"]}, description=TEXT),
    ]
}
SERVER = fields(
    *("host", "protocol"),
    host={"type": "string", "pattern": r"^[^/]+$"},
    protocol={"enum": ["http", "ws", "mqtt"]},
    protocolVersion=TEXT,
    description=TEXT,
    security={"type": "array", "items": REFERENCE},
    bindings=fields(mqtt=MQTT_SERVER),
)
CHANNEL = fields(
    *("address", "messages"),
    address=TEXT,
    title=TEXT,
    description=TEXT,
    servers={"type": "array", "items": REFERENCE, "minItems": 1},
    parameters=named(
        fields(
            description=TEXT,
            default=TEXT,
            enum={"type": "array", "items": TEXT},
            examples={"type": "array", "items": TEXT},
        )
    ),
    messages=named(REFERENCE),
    bindings=fields(ws=WS_CHANNEL),
)
OPERATION = fields(
    *("action", "channel"),
    action={"enum": ["send", "receive"]},
    channel=REFERENCE,
    summary=TEXT,
    bindings=fields(http=HTTP_OPERATION, mqtt=MQTT_OPERATION),
)
MESSAGE = fields(
    *("name", "contentType"),
    name=TEXT,
    summary=TEXT,
    contentType=TEXT,
    headers=OBJECT_SCHEMA,
    payload=SCHEMA,
    bindings=fields(mqtt=MQTT_MESSAGE),
)
RULES = fields(
    *("asyncapi", "info", "channels", "operations", "components"),
    asyncapi={"const": "3.0.0"},
    id={"type": "string", "format": "uri", "pattern": "^[a-z]+:"},
    info=fields(
        *("title", "version"),
        title=TEXT,
        version=TEXT,
        description=TEXT,
        license=fields("name", name=TEXT),
    ),
    defaultContentType={"const": "application/json"},
    servers=named(SERVER),
    channels=named(CHANNEL),
    operations=named(OPERATION),
    components=fields(
        securitySchemes=named(SECURITY), messages=named(MESSAGE), schemas=named(SCHEMA)
    ),
)


def check_rules(document: Json) -> None:
    """Raise for a document that isn't AsyncAPI 3.0."""
    Draft7Validator(RULES).validate(document)
    for reference in references(document):
        resolved(document, reference)
    for channel in document["channels"].values():
        assert re.findall(r"{(\w+)}", channel["address"]) == list(channel.get("parameters", {}))
        for one in channel["servers"]:
            assert one["$ref"].startswith("#/servers/")
        for one in channel["messages"].values():
            assert one["$ref"].startswith("#/components/messages/")
    for operation in document["operations"].values():
        assert operation["channel"]["$ref"].startswith("#/channels/")
    for schema in schemas_in(document):
        Draft7Validator.check_schema(schema)
        # Beside a reference a reader of draft 7 sees nothing else.
        for part in parts(schema):
            assert "$ref" not in part or part.keys() <= {"$ref", "description", "default"}, part
            newer = {"$defs", "prefixItems", "dependentRequired", "unevaluatedProperties"}
            assert not newer & part.keys(), part


def references(value: Any) -> Iterator[str]:
    for part in parts(value):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]


def parts(value: Any) -> Iterator[Json]:
    """Every object in it, itself included."""
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from parts(item)
    elif isinstance(value, list):
        for item in value:
            yield from parts(item)


def resolved(document: Json, reference: str) -> Any:
    found: Any = document
    for step in reference.removeprefix("#/").split("/"):
        found = found[step]
    return found


def schemas_in(document: Json) -> Iterator[Json]:
    components = document["components"]
    yield from components["schemas"].values()
    for message in components["messages"].values():
        yield from (message[name] for name in ("headers", "payload") if name in message)


def messages_of(channel: str) -> dict[str, Json]:
    """The messages of a channel, by their keys."""
    of_channel = CHANNELS[channel]["messages"]
    return {key: resolved(DOCUMENT, one["$ref"]) for key, one in of_channel.items()}


def pattern_of(address: str) -> re.Pattern[str]:
    """Which topics an address stands for; the prefix may have several levels."""
    text = re.escape(address).replace(r"\{", "{").replace(r"\}", "}")
    levels = re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", text)
    return re.compile(levels.replace("(?P<prefix>[^/]+)", "(?P<prefix>.+)"))


def _strict(value: Any) -> Any:
    """The same with no other fields than those that are named, so that none is undocumented."""
    if isinstance(value, list):
        return [_strict(item) for item in value]
    if not isinstance(value, dict):
        return value
    changed = {key: _strict(item) for key, item in value.items()}
    if value.get("type") == "object" and "properties" in value:
        changed.setdefault("additionalProperties", False)
    return changed


BASE = "urn:asyncapi"
REGISTRY: Registry[Any] = Registry().with_resource(
    BASE, Resource.from_contents(_strict(DOCUMENT), default_specification=DRAFT7)
)


def check_message(key: str, headers: Json, payload: Any) -> None:
    """Hold what was sent against what is said of it."""
    message, base = MESSAGES[key], f"{BASE}#/components/messages/{key}"
    _check(f"{base}/headers" if "headers" in message else None, headers)
    if "payload" in message:
        _check(f"{base}/payload", payload)
    else:
        assert payload is None


def check_shape(name: str, value: Any) -> None:
    _check(f"{BASE}#/components/schemas/{name}", value)


def _check(place: str | None, value: Any) -> None:
    if place is None:
        assert not value
    else:
        Draft7Validator({"$ref": place}, registry=REGISTRY).validate(value)
