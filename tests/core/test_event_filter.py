"""Filters of events: what passes, and what is refused."""

from __future__ import annotations

import pytest

from meshd.core.event_filter import ALL_EVENTS, VALUES_MAX, EventFilter, make_filter
from meshd.model.errors import RejectedError
from meshd.model.event import Event, EventType
from meshd.model.policy import NAMESPACE_LABEL

RED = {"labels": {"color": "red", "tier": "1"}}
EVENTS = {
    "service": Event("service.set", "shop/web", RED, "ann"),
    "other": Event("service.set", "bank/web", {"labels": {"color": "blue"}}, "ann"),
    "gone": Event("service.removed", "shop/web", None, "ann"),
    "endpoint": Event("endpoint.set", "shop/web/a", {"address": "10.0.0.1"}, "ann"),
    "sibling": Event("endpoint.set", "shop/web2/a", RED, "ann"),
    "lost": Event("endpoint.removed", "bank/web/a", None, "ann"),
    "policy": Event("policy.set", "shop/web", RED, "ann"),
    "node": Event("node.set", "n1", RED, "ann"),
    "unplugged": Event("node.removed", "n1", None, "ann"),
    "identity": Event("identity.set", "65537", {"labels": {NAMESPACE_LABEL: "shop"}}, "ann"),
    "forgotten": Event("identity.removed", "65537", None, "ann"),
    "cluster": Event("cluster.set", "east", {"id": 1}, "ann"),
    "newer": Event("gadget.set", "shop/web", RED, "ann"),
    "odd": Event("service.set", "shop/odd", {"labels": ["color"]}, "ann"),
}


def passing(wanted: EventFilter) -> set[str]:
    return {name for name, event in EVENTS.items() if wanted.passes(event)}


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (ALL_EVENTS, set(EVENTS)),
        (EventFilter(types=frozenset({"service.set"})), {"service", "other", "odd"}),
        (EventFilter(types=frozenset({"gadget.set", "node.set"})), {"newer", "node"}),
        (
            EventFilter(namespaces=frozenset({"shop"})),
            {
                *("service", "gone", "endpoint", "sibling", "policy", "identity", "forgotten"),
                "odd",
            },
        ),
        (EventFilter(namespaces=frozenset({"bank"})), {"other", "lost", "forgotten"}),
        (EventFilter(services=frozenset({"shop/web"})), {"service", "gone", "endpoint"}),
        (
            EventFilter(labels=(("color", "red"),)),
            {
                *("service", "gone", "sibling", "lost", "policy", "node", "unplugged"),
                "forgotten",
            },
        ),
        (
            EventFilter(labels=(("color", None),), types=frozenset({"service.set"})),
            {"service", "other"},
        ),
        (
            EventFilter(labels=(("color", "red"), ("tier", "2"))),
            {"gone", "lost", "unplugged", "forgotten"},
        ),
        (
            EventFilter(
                types=frozenset({"service.set", "endpoint.set"}),
                namespaces=frozenset({"shop"}),
                services=frozenset({"shop/web", "bank/web"}),
                labels=(("color", "red"), ("tier", "1")),
            ),
            {"service"},
        ),
    ],
)
def test_what_passes(wanted: EventFilter, expected: set[str]) -> None:
    assert passing(wanted) == expected


def test_what_is_asked_for_becomes_a_filter_and_equal_wishes_are_equal() -> None:
    once = make_filter(
        types=["service.set", "gadget.set"],
        namespaces=["shop"],
        services=["shop/web"],
        labels=[("b", None), ("a", "1"), ("a", None), ("b", None)],
        newer_types=["gadget.set"],
    )
    assert once == EventFilter(
        frozenset({"service.set", "gadget.set"}),
        frozenset({"shop"}),
        frozenset({"shop/web"}),
        (("a", None), ("a", "1"), ("b", None)),
    )
    assert make_filter(types=[], namespaces=[], services=[], labels=[]) == ALL_EVENTS


def test_all_that_is_wrong_is_said_at_once_and_the_known_types_are_named() -> None:
    with pytest.raises(RejectedError) as caught:
        make_filter(
            types=["gadget.set", "service.set"],
            namespaces=["Shop", ""],
            services=["web", "shop/web/a"],
            labels=[(f"l{n}", None) for n in range(VALUES_MAX + 1)],
        )
    found = [(problem.where, problem.remedy) for problem in caught.value.problems]
    assert [where for where, _ in found] == [
        *("?label", "?type", "?namespace", "?namespace", "?service", "?service"),
    ]
    assert all(kind in found[1][1] for kind in EventType)
