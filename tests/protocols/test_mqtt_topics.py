"""mqtt.md against the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from meshd.core.telling import RESET
from meshd.edges.mqtt.messages import CLOUD_EVENT
from meshd.edges.mqtt.topics import NO_NAMESPACE, TOPIC_BYTES_MAX, Topics
from meshd.model.ids import ServiceKey
from meshd.model.publishing import PublishPhase
from meshd.runtime import publisher, publishing_events, publishing_tables, refusals
from meshd.settings import MqttSettings

PAGE = (Path(__file__).parents[2] / "protocols" / "mqtt.md").read_text()
TEXT = " ".join(PAGE.split())
TOPICS = Topics("meshd/mesh/<cluster>")


def test_the_topics_are_those_of_the_code() -> None:
    rows = set(re.findall(r"^\| `([^`]+)` \|", PAGE, re.MULTILINE))
    key = ServiceKey("<namespace>", "<name>")
    made = {TOPICS.table(key), TOPICS.status, TOPICS.reset}
    assert {row for row in rows if "<type>" not in row} == {
        topic.removeprefix("meshd/mesh/<cluster>/") for topic in made
    }
    assert "events/<type>/<namespace>/<name>" in rows
    assert RESET in PAGE
    assert f"has `{NO_NAMESPACE}` in its place" in TEXT


@pytest.mark.parametrize(
    ("topic", "kind", "key"),
    [
        ("events/service.set/shop/web", "service.set", "shop/web"),
        ("events/endpoint.set/shop/web/web-1", "endpoint.set", "shop/web/web-1"),
        ("events/node.set/-/n1", "node.set", "n1"),
    ],
)
def test_the_examples_are_topics(topic: str, kind: str, key: str) -> None:
    assert f"`{topic}`" in PAGE
    assert TOPICS.event(kind, key) == f"{TOPICS.root}/{topic}"


def test_the_numbers_are_those_of_the_code() -> None:
    defaults = MqttSettings()
    assert f"limit of {TOPIC_BYTES_MAX:,} bytes" in TEXT
    assert CLOUD_EVENT in TEXT
    assert defaults.event_expiry_s == 7 * 86_400
    assert f"`mqtt.in_flight_max` messages ({defaults.in_flight_max})" in TEXT
    every_s, every = publishing_events.CURSOR_EVERY_S, publishing_events.CURSOR_EVERY_EVENTS
    assert f"at most every {every_s:g} s or {every:,} events" in TEXT
    assert f"Changes within {publishing_tables.COALESCE_S:g} s" in TEXT
    assert f"after {publisher.BACKOFF_MIN_S:g} to {publisher.BACKOFF_MAX_S:g} s" in TEXT
    assert f"after {publisher.SLOW_RETRY_S / 2:g} to {publisher.SLOW_RETRY_S:g} s" in TEXT
    assert (refusals.HOLD_S, refusals.HELD_MAX) == (300, 10)


def test_the_phases_are_those_of_the_code() -> None:
    named = re.findall(r"^\| ([A-Z][a-z]+) \| ", PAGE, re.MULTILINE)
    assert named == list(PublishPhase)
