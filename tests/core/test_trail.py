"""Which events say something about one thing, and what each changed."""

from __future__ import annotations

import pytest

from meshd.core.table_diff import FieldChange
from meshd.core.trail import KINDS, Step, Subject, Thing, changes_of
from meshd.model.errors import RejectedError
from meshd.model.event import Event
from meshd.model.ids import Seq
from tests.logs import LOG_ID, WEST


def event(kind: str, key: str, data: dict[str, object] | None = None) -> Event:
    return Event(kind, key, data, "ann")


@pytest.mark.parametrize(
    ("kind", "key", "told", "expected"),
    [
        ("service", "shop/web", event("service.set", "shop/web"), ("service", "shop/web")),
        ("service", "shop/web", event("service.removed", "shop/web"), ("service", "shop/web")),
        ("service", "shop/web", event("service.set", "shop/web2"), None),
        ("service", "shop/web", event("endpoint.set", "shop/web/a"), None),
        ("service", "shop/web", event("policy.set", "shop/web"), None),
        ("endpoint", "shop/web/a", event("endpoint.set", "shop/web/a"), ("endpoint", "shop/web/a")),
        ("endpoint", "shop/web/a", event("endpoint.set", "shop/web/ab"), None),
        (
            "endpoint",
            "shop/web/a",
            event("service.removed", "shop/web"),
            ("endpoint", "shop/web/a"),
        ),
        ("endpoint", "shop/web/a", event("service.removed", "shop/w"), None),
        ("endpoint", "shop/web/a", event("service.set", "shop/web"), None),
        ("peer", "west", event("peer.set", "west"), ("peer", "west")),
        ("peer", "west", event("skip.set", "west"), ("skip", "west")),
        ("cluster", "west", event("skip.set", "west"), None),
        ("cluster", "west", event("cluster.set", "west"), ("cluster", "west")),
        ("policy", "moon", event("policy.waxed", "moon"), ("policy", "moon")),
        ("node", "n1", event("node.set", "n1"), ("node", "n1")),
        ("identity", "a/b/c", event("identity.set", "a/b/c"), ("identity", "a/b/c")),
    ],
)
def test_an_event_belongs_to_a_thing(
    kind: str, key: str, told: Event, expected: Thing | None
) -> None:
    subject = Subject.parse(kind, key)
    assert subject.thing_of(told) == expected
    if expected is not None:
        assert subject.needle in told.key.encode()


def test_a_service_with_its_endpoints() -> None:
    subject = Subject.parse("service", "shop/web", with_endpoints=True)
    assert subject.thing_of(event("endpoint.set", "shop/web/a")) == ("endpoint", "shop/web/a")
    assert subject.thing_of(event("endpoint.removed", "shop/web2/a")) is None
    assert subject.thing_of(event("node.set", "shop/web/a")) is None


@pytest.mark.parametrize(
    ("kind", "key", "reason"),
    [
        ("moon", "a", "ask for service, endpoint, node, identity, cluster, peer, policy"),
        ("service", "web", "is not a service name"),
        ("endpoint", "shop/web", "is not a service name"),
        ("cluster", "No", "is not a cluster name"),
        ("peer", "", "is not a cluster name"),
        ("node", "", "is not a name of 1 to 512 characters"),
        ("policy", "a\n", "is not a name of"),
        ("identity", "a" * 513, "is not a name of"),
    ],
)
def test_what_has_no_history_is_refused(kind: str, key: str, reason: str) -> None:
    with pytest.raises(RejectedError, match=reason):
        Subject.parse(kind, key)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "service"])
def test_only_a_service_has_endpoints(kind: str) -> None:
    key = "shop/web/a" if kind == "endpoint" else "a"
    with pytest.raises(RejectedError, match="only a service has endpoints"):
        Subject.parse(kind, key, with_endpoints=True)


def test_what_an_event_changed() -> None:
    assert changes_of(None, None) == ()
    assert changes_of({"a": 1, "b": 2}, {"b": 2}) == (FieldChange("a", 1, None),)
    assert changes_of({"z": 1, "a": 1}, {"z": 2, "a": 0}) == (
        FieldChange("a", 1, 0),
        FieldChange("z", 1, 2),
    )
    first = Step(WEST, LOG_ID, Seq(1), 0, ("node", "n"), event("node.set", "n", {"a": 1}))
    second = Step(WEST, LOG_ID, Seq(2), 0, ("node", "n"), event("node.removed", "n"))
    assert first.after(None).changes == (FieldChange("a", None, 1),)
    assert second.after(first).changes == (FieldChange("a", 1, None),)
