"""What a peer may announce, and what it may not."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from meshd.core.claims import Claims, may_announce, stolen_id, trespass, trespass_in
from meshd.core.fold import fold_record
from meshd.core.state import ClusterState
from meshd.model.codec import encode_record
from meshd.model.event import Event
from meshd.model.ids import Head
from tests.logs import LOG_ID, WEST

RANGES: Claims = (ip_network("10.1.0.0/16"), ip_network("2001:db8::/32"))
LOOPBACK: Claims = (ip_network("127.0.0.0/8"),)


@pytest.mark.parametrize(
    ("claims", "address", "may"),
    [
        ((), "10.0.0.1", True),
        ((), "192.168.1.1", True),
        ((), "8.8.8.8", True),
        ((), "fd00::1", True),
        ((), "2001:db8::1", True),
        ((), "127.0.0.1", False),
        ((), "::1", False),
        ((), "169.254.169.254", False),
        ((), "fe80::1", False),
        ((), "224.0.0.1", False),
        ((), "ff02::1", False),
        ((), "0.0.0.0", False),
        ((), "::", False),
        ((), "255.255.255.255", False),
        ((), "240.0.0.1", False),
        (RANGES, "10.1.2.3", True),
        (RANGES, "10.2.2.3", False),
        (RANGES, "2001:db8::1", True),
        (RANGES, "2001:db9::1", False),
        (LOOPBACK, "127.77.1.1", True),
        (LOOPBACK, "10.0.0.1", False),
        ((), "nowhere", True),
    ],
)
def test_which_addresses_a_peer_may_announce(claims: Claims, address: str, *, may: bool) -> None:
    assert may_announce(claims, address) is may


def event(address: object, kind: str = "endpoint.set") -> Event:
    data = None if address is None else {"address": address}
    return Event(kind, "shop/web/a", data, "ann")


def test_the_first_trespass_is_named_with_its_remedy() -> None:
    reason = trespass((), [event("10.0.0.1"), event("127.0.0.1")])
    assert "endpoint shop/web/a has address 127.0.0.1" in reason
    assert "announces" in reason


@pytest.mark.parametrize(
    "harmless", [event("10.0.0.1"), event(None), event(5), event("127.0.0.1", "moon.set")]
)
def test_what_is_no_address_is_no_trespass(harmless: Event) -> None:
    assert trespass((), [harmless]) == ""


def test_a_state_is_looked_through() -> None:
    state = ClusterState()
    fold_record(state, encode_record(Head.genesis(LOG_ID), 0, [event("10.1.0.1")]), WEST)
    assert trespass_in(RANGES, state) == ""
    assert trespass_in((), state) == ""
    assert "10.1.0.1" in trespass_in(LOOPBACK, state)


def cluster_set(number: object) -> Event:
    return Event("cluster.set", "west", {"name": "west", "id": number}, "ann")


def test_a_log_may_not_say_an_id_that_is_anothers() -> None:
    taken = frozenset({1, 3})
    assert stolen_id(WEST, [cluster_set(7)], lambda: taken) == ""
    reason = stolen_id(WEST, [cluster_set(7), cluster_set(3)], lambda: taken)
    assert reason == "cluster id 3 is already another cluster's; give each its own"


FOR_ANOTHER = Event("cluster.set", "east", {"name": "east", "id": 3}, "ann")
NAMED_ANOTHER = Event("cluster.set", "west", {"name": "east", "id": 3}, "ann")


@pytest.mark.parametrize(
    "harmless",
    [cluster_set("3"), event("10.0.0.1"), event(None), FOR_ANOTHER, NAMED_ANOTHER],
)
def test_what_says_no_id_steals_none(harmless: Event) -> None:
    assert stolen_id(WEST, [harmless], lambda: frozenset({3})) == ""


def test_who_has_which_id_is_asked_only_if_one_is_said() -> None:
    def asked() -> frozenset[int]:
        raise AssertionError

    assert (
        stolen_id(WEST, [event("10.0.0.1"), Event("cluster.set", "west", None, "ann")], asked) == ""
    )
