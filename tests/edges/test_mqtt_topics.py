from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meshd.edges.mqtt.topics import TOPIC_BYTES_MAX, Topics
from meshd.model.codec import KEY_CHARS_MAX
from meshd.model.event import EventType
from meshd.model.ids import ServiceKey

TOPICS = Topics("meshd/mesh/east")
TEXTS = st.one_of(
    st.text(max_size=KEY_CHARS_MAX),
    st.text(alphabet="/-%+#$ \x00a\ud800é", max_size=12),
)


@pytest.mark.parametrize(
    ("kind", "key", "topic"),
    [
        ("service.set", "shop/web", "service.set/shop/web"),
        ("endpoint.removed", "shop/web/a.b", "endpoint.removed/shop/web/a.b"),
        ("node.set", "n1", "node.set/-/n1"),
        ("cluster.set", "east", "cluster.set/-/east"),
        ("identity.set", "65537", "identity.set/-/65537"),
        ("of.the.future", "a+b/#/$c", "of.the.future/a%2Bb/%23/%24c"),
        ("of/the/future", "-/x", "of%2Fthe%2Ffuture/%2D/x"),
        ("x", "-", "x/-/%2D"),
        ("x", "", "x/-/"),
        ("x", "a//b", "x/a//b"),
        ("x", "50%/é", "x/50%25/%C3%A9"),
        ("x", "\x00/\ud800", "x/%00/%ED%A0%80"),
    ],
)
def test_the_topics_of_events(kind: str, key: str, topic: str) -> None:
    assert TOPICS.event(kind, key) == f"meshd/mesh/east/events/{topic}"
    assert TOPICS.parse_event(TOPICS.event(kind, key)) == (kind, key)


@given(kind=TEXTS, key=TEXTS)
@example(kind="meshd.reset", key="x")
@example(kind="", key="")
def test_any_event_has_a_valid_topic_that_gives_it_back(kind: str, key: str) -> None:
    topic = TOPICS.event(kind, key)
    assert re.fullmatch(r"[A-Za-z0-9._~:%/-]+", topic)
    assert len(topic) <= TOPIC_BYTES_MAX
    assert TOPICS.parse_event(topic) == (kind, key)
    assert topic != TOPICS.reset


@given(kind=TEXTS, key=TEXTS, other_kind=TEXTS, other_key=TEXTS)
def test_two_things_never_share_a_topic(
    kind: str, key: str, other_kind: str, other_key: str
) -> None:
    same = (kind, key) == (other_kind, other_key)
    assert (TOPICS.event(kind, key) == TOPICS.event(other_kind, other_key)) == same


def test_the_longest_topic_fits() -> None:
    widest = "\U0010ffff" * KEY_CHARS_MAX
    assert len(Topics("p" * 500).event(widest, widest)) <= TOPIC_BYTES_MAX


def test_no_known_type_needs_escaping() -> None:
    assert all(f"/{kind}/" in TOPICS.event(kind, "x") for kind in EventType)


def test_the_topics_of_tables() -> None:
    key = ServiceKey("shop", "web")
    assert TOPICS.table(key) == "meshd/mesh/east/tables/shop/web"
    assert TOPICS.parse_table(TOPICS.table(key)) == key


@pytest.mark.parametrize(
    "topic",
    ["", "x", "meshd/mesh/west/tables/shop/web", "meshd/mesh/east/tables/shop", TOPICS.status],
)
def test_what_is_no_topic_of_ours_is_nothing(topic: str) -> None:
    assert TOPICS.parse_table(topic) is None
    assert TOPICS.parse_event(topic) is None


def test_a_reset_is_no_event() -> None:
    assert TOPICS.parse_event(TOPICS.reset) is None
