"""What a peer may announce, and what it may not."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from meshd.core.claims import (
    Claims,
    may_announce,
    stolen_id,
    stolen_number,
    stolen_number_in,
    trespass,
    trespass_in,
)
from meshd.core.fold import fold_record
from meshd.core.state import ClusterState
from meshd.model.codec import encode_record
from meshd.model.event import Event
from meshd.model.identity import identity_number
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


def cluster_set(number: object) -> Event:
    return Event("cluster.set", "west", {"name": "west", "id": number}, "ann")


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


def node_set(**data: object) -> Event:
    return Event("node.set", "n1", {"addresses": ["10.1.0.1"], **data}, "ann")


@pytest.mark.parametrize(
    ("claims", "node", "stray"),
    [
        ((), {}, ""),
        ((), {"addresses": ["10.0.0.1", "127.0.0.1"]}, "127.0.0.1"),
        ((), {"addresses": ["fe80::1"]}, "fe80::1"),
        ((), {"pod_cidrs": ["10.1.0.0/16", "fd00::/48", "100.64.0.0/10"]}, ""),
        ((), {"pod_cidrs": ["0.0.0.0/0"]}, "0.0.0.0/0"),
        ((), {"pod_cidrs": ["10.1.0.0/16", "127.0.0.0/24"]}, "127.0.0.0/24"),
        ((), {"pod_cidrs": ["169.254.169.254/32"]}, "169.254.169.254/32"),
        ((), {"pod_cidrs": ["::/0"]}, "::/0"),
        ((), {"pod_cidrs": ["fe80::/64"]}, "fe80::/64"),
        ((), {"tunnel_endpoint": "10.0.0.1:51820"}, ""),
        ((), {"tunnel_endpoint": "[::1]:51820"}, "::1"),
        (RANGES, {"pod_cidrs": ["10.1.0.0/16", "2001:db8:1::/48"]}, ""),
        (RANGES, {"addresses": ["10.2.0.1"]}, "10.2.0.1"),
        (RANGES, {"pod_cidrs": ["10.0.0.0/8"]}, "10.0.0.0/8"),
        (RANGES, {"pod_cidrs": ["10.2.0.0/24"]}, "10.2.0.0/24"),
        (RANGES, {"pod_cidrs": ["2001:db9::/48"]}, "2001:db9::/48"),
        (RANGES, {"tunnel_endpoint": "10.2.0.1:51820"}, "10.2.0.1"),
    ],
)
def test_a_node_announces_its_addresses_and_its_pods_ranges(
    claims: Claims, node: dict[str, object], stray: str
) -> None:
    said = node_set(**node)
    expected = f"node n1 has address {stray}, which" if stray else ""
    reason = trespass(claims, [event("10.1.0.1"), said])
    assert reason.startswith(expected)
    assert bool(reason) is bool(stray)
    state = ClusterState()
    fold_record(state, encode_record(Head.genesis(LOG_ID), 0, [said]), WEST)
    assert trespass_in(claims, state) == reason


@pytest.mark.parametrize(
    "odd",
    [
        Event("node.set", "n1", None, "ann"),
        Event("node.set", "n1", {"addresses": "127.0.0.1", "pod_cidrs": 5}, "ann"),
        Event("node.set", "n1", {"addresses": [5], "pod_cidrs": ["nowhere"]}, "ann"),
        Event("node.set", "n1", {"tunnel_endpoint": "nowhere"}, "ann"),
    ],
)
def test_what_is_no_node_is_for_the_fold_to_refuse(odd: Event) -> None:
    assert trespass((), [odd]) == ""


def identity_set(number: object) -> Event:
    return Event("identity.set", str(number), {"labels": {"a": "b"}}, "ann")


OWN, OTHERS = (identity_number(number, 256) for number in (7, 3))


@pytest.mark.parametrize(
    ("said_id", "events", "stolen"),
    [
        (7, [identity_set(OWN)], 0),
        (7, [identity_set(OWN), identity_set(OTHERS)], OTHERS),
        (7, [identity_set(identity_number(9, 256))], identity_number(9, 256)),
        # What a cluster says of itself counts from there on.
        (None, [cluster_set(7), identity_set(OWN)], 0),
        (None, [cluster_set(7), identity_set(OTHERS)], OTHERS),
        (7, [cluster_set("7"), identity_set(OTHERS)], OTHERS),
        # As long as it hasn't, only others' ids are others'.
        (None, [identity_set(OWN)], 0),
        (None, [identity_set(OTHERS)], OTHERS),
        (7, [event("10.0.0.1"), identity_set("x"), Event("cluster.set", "west", None, "ann")], 0),
    ],
)
def test_a_number_is_of_the_cluster_that_gives_it(
    said_id: int | None, events: list[Event], stolen: int
) -> None:
    reason = stolen_number(said_id, events, lambda: frozenset({3}))
    assert reason.startswith(f"identity {stolen} has a number of cluster id" if stolen else "")
    assert bool(reason) is bool(stolen)


def test_a_whole_state_is_looked_through_for_others_numbers() -> None:
    state = ClusterState()
    record = encode_record(Head.genesis(LOG_ID), 0, [identity_set(OWN), identity_set(OTHERS)])
    fold_record(state, record, WEST)
    assert stolen_number_in(state) == ""
    fold_record(state, encode_record(record.head, 0, [cluster_set(7)]), WEST)
    assert f"identity {OTHERS} " in stolen_number_in(state)
    removal = Event("identity.removed", str(OTHERS), None, "ann")
    fold_record(state, encode_record(record.head, 0, [removal]), WEST)
    assert stolen_number_in(state) == ""


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
