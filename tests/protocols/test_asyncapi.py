"""asyncapi.json against the code: what it lists is what there is.

What is really sent is held against it by `test_asyncapi_messages`.
"""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import SchemaError, ValidationError

from meshd.edges.http.contracts import contract_text
from meshd.edges.http.outlets import ERROR
from meshd.edges.mqtt.topics import NO_NAMESPACE, Topics, unescaped
from meshd.model.event import EventType
from meshd.model.ids import ServiceKey
from meshd.settings import MqttSettings
from tests.edges.http.served import serve_cluster
from tests.protocols.asyncapi_rules import (
    CHANNELS,
    DOCUMENT,
    FILE,
    MESSAGES,
    Json,
    check_rules,
    messages_of,
    pattern_of,
    references,
)

MESHD = Path(__file__).parents[2] / "meshd"
STREAMS = {name: one for name, one in CHANNELS.items() if not name.startswith("mqtt")}
TOPICS = {name: one for name, one in CHANNELS.items() if name.startswith("mqtt")}
UNNAMED = {"place", "other"}
ROOT = "site/meshd/mesh/east"


def test_it_is_an_asyncapi_document() -> None:
    check_rules(DOCUMENT)


SPOILT: dict[str, Callable[[Json], Any]] = {
    "version": lambda one: one.update(asyncapi="2.6.0"),
    "misspelt": lambda one: one["channels"]["events"].update(adress="/v1/events"),
    "no server": lambda one: one["channels"]["events"]["servers"].append({"$ref": "#/servers/x"}),
    "parameter": lambda one: one["channels"]["mqttTables"]["parameters"].pop("name"),
    "action": lambda one: one["operations"]["tellEvents"].update(action="publish"),
    "no shape": lambda one: one["components"]["schemas"].pop("Problem"),
    "headers": lambda one: one["components"]["messages"]["place"].update(headers={"type": "array"}),
    "type": lambda one: one["components"]["schemas"]["Problem"].update(type="things"),
    "draft": lambda one: one["components"]["schemas"]["Problem"].update(prefixItems=[]),
}


@pytest.mark.parametrize("what", SPOILT)
def test_a_document_that_is_not_one_would_be_found(what: str) -> None:
    document = copy.deepcopy(DOCUMENT)
    SPOILT[what](document)
    with pytest.raises((ValidationError, SchemaError, KeyError, AssertionError)):
        check_rules(document)


def test_it_is_in_the_package() -> None:
    assert contract_text("asyncapi.json") == FILE.read_bytes()


def test_nothing_in_it_is_unused() -> None:
    used = set(references(DOCUMENT)) | {"#/components/schemas/WebSocketText"}
    for kind, found in DOCUMENT["components"].items():
        assert {f"#/components/{kind}/{name}" for name in found} <= used
    told = {one["channel"]["$ref"] for one in DOCUMENT["operations"].values()}
    assert told == {f"#/channels/{name}" for name in CHANNELS}


def names_in_code() -> Iterator[str]:
    """What constants of the code name messages."""
    for folder in ("core", "edges"):
        for path in (MESHD / folder).rglob("*.py"):
            for line in ast.parse(path.read_text()).body:
                value = line.value if isinstance(line, ast.Assign | ast.AnnAssign) else None
                text = str(value.value) if isinstance(value, ast.Constant) else ""
                if re.fullmatch(r"meshd(\.[a-z]+)+", text):
                    yield text


def test_it_has_every_name_that_the_code_has_and_no_other() -> None:
    names = {one["name"] for key, one in MESSAGES.items() if not key.startswith("mqtt.")}
    assert names == {*names_in_code(), *EventType, *UNNAMED}
    assert ERROR in names


def test_every_event_is_told_by_the_stream_and_on_one_topic() -> None:
    assert set(messages_of("events")) >= set(EventType)
    of_topics = [key for name in TOPICS for key in messages_of(name)]
    assert len(of_topics) == len(set(of_topics))
    assert {f"mqtt.{kind}" for kind in EventType} <= set(of_topics)


@pytest.mark.parametrize("name", STREAMS)
async def test_its_query_is_what_the_handler_takes(name: str) -> None:
    channel = STREAMS[name]
    async with serve_cluster() as east:
        answer = await east.ask(
            "GET", channel["address"] + "?made_up=1", Accept="text/event-stream"
        )
    assert answer.slug == "bad-request"
    (problem,) = answer.json["problems"]
    taken = problem["remedy"].removeprefix("this path takes ").split(", ")
    query = channel["bindings"]["ws"]["query"]
    assert sorted(query["properties"]) == sorted(taken)
    (operation,) = (
        one
        for one in DOCUMENT["operations"].values()
        if one["channel"]["$ref"] == f"#/channels/{name}"
    )
    assert operation["bindings"]["http"]["query"] == query


@pytest.mark.parametrize("name", STREAMS)
async def test_the_words_of_its_query_are_those_that_are_taken(name: str) -> None:
    address = STREAMS[name]["address"]
    query = STREAMS[name]["bindings"]["ws"]["query"]["properties"]
    choices = {one: schema["enum"] for one, schema in query.items() if "enum" in schema}
    async with serve_cluster() as east:
        for parameter, words in choices.items():
            for word in words:
                path = f"{address}?{parameter}={word}"
                async with east.client.get(path, headers={"Accept": "text/event-stream"}) as told:
                    assert told.status == 200, path
            path = f"{address}?{parameter}=made-up"
            answer = await east.ask("GET", path, Accept="text/event-stream")
            assert answer.slug == "bad-request"
            assert all(word in answer.body.decode() for word in words)


NAMED = [
    ("service.set", "shop/web"),
    ("service.removed", "shop/we%b"),
    ("endpoint.set", "shop/web/a b"),
    ("endpoint.removed", "shop/web/10.0.0.1:80"),
    ("policy.set", "shop/dänemark"),
    ("node.set", "n+1"),
    ("node.removed", "#"),
    ("identity.set", "65792"),
    ("cluster.set", "east"),
    ("peer.set", "west"),
    ("skip.set", "west"),
    ("operation.set", "one"),
    ("operation.removed", "-"),
    ("gadget.set", "shop/odd"),
]


@pytest.mark.parametrize(("kind", "key"), NAMED)
def test_the_topic_of_an_event_is_of_the_channel_that_tells_it(kind: str, key: str) -> None:
    topic = Topics(ROOT).event(kind, key)
    matching = {name: pattern_of(one["address"]).fullmatch(topic) for name, one in TOPICS.items()}
    ((name, found),) = ((name, found) for name, found in matching.items() if found)
    told = f"mqtt.{kind}" if kind in set(EventType) else "mqtt.other"
    assert told in messages_of(name)
    levels = {one: unescaped(text) for one, text in found.groupdict().items()}
    assert (levels["mesh"], levels["cluster"], levels["prefix"]) == ("mesh", "east", "site/meshd")
    assert levels["type"] == kind
    where = [levels[one] for one in ("namespace", "service", "name") if one in levels]
    assert "/".join(where).removeprefix(f"{NO_NAMESPACE}/") == key


def test_the_other_topics_are_those_of_the_code() -> None:
    topics = Topics(ROOT)
    expected = {
        "mqttResets": topics.reset,
        "mqttStatus": topics.status,
        "mqttTables": topics.table(ServiceKey("shop", "web")),
    }
    for topic in expected.values():
        matching = [
            name for name, one in TOPICS.items() if pattern_of(one["address"]).fullmatch(topic)
        ]
        assert matching == [name for name, one in expected.items() if one == topic]


def test_what_it_says_of_the_broker_is_what_the_settings_say() -> None:
    settings = MqttSettings()
    binding = DOCUMENT["servers"]["mqtt"]["bindings"]["mqtt"]
    assert binding["keepAlive"] == settings.keepalive_s
    assert binding["clientId"] == "meshd-mesh-<cluster>"
    parameters = TOPICS["mqttStatus"]["parameters"]
    assert parameters["prefix"]["default"] == settings.topic_prefix
    assert parameters["mesh"]["default"] == settings.mesh
    for operation in DOCUMENT["operations"].values():
        mqtt = operation["bindings"].get("mqtt")
        if mqtt is not None and not mqtt["retain"]:
            assert mqtt["messageExpiryInterval"] == settings.event_expiry_s
