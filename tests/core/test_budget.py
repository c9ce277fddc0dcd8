"""What a peer may cost: rates with bursts, and ceilings that hold whatever the order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.core import budget as core_budget
from meshd.core.budget import Bucket, Budget, Ceiling, Rates
from meshd.core.fold import fold_record
from meshd.core.state import ClusterState
from meshd.model.codec import encode_record
from meshd.model.event import Event
from meshd.model.ids import Head
from tests.logs import LOG_ID, WEST

PLENTY = 10**9


def budget(
    services: int = PLENTY,
    endpoints: int = PLENTY,
    state_bytes: int = PLENTY,
    nodes: int = PLENTY,
    identities: int = PLENTY,
    policies: int = PLENTY,
) -> Budget:
    return Budget(100, 1000, 2, services, endpoints, state_bytes, nodes, identities, policies)


def test_a_burst_is_free_and_what_is_beyond_is_waited_for() -> None:
    bucket = Bucket(10, 20)
    assert bucket.take(20, 0) == 0
    assert bucket.take(10, 0) == 1
    assert bucket.take(0, 1) == 0
    # A long silence fills it up to one burst and no further.
    assert bucket.take(20, 1000) == 0
    assert bucket.take(5, 1000) == 0.5


@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0, 5)), max_size=30))
def test_never_more_than_the_rate_and_one_burst(steps: list[tuple[float, float]]) -> None:
    bucket, now_s, taken = Bucket(10, 20), 0.0, 0.0
    for amount, pause_s in steps:
        now_s += pause_s
        wait_s = bucket.take(amount, now_s)
        taken += amount
        now_s += wait_s
        assert taken <= 20 + 10 * now_s + 1e-6


def test_the_slower_of_both_rates_counts() -> None:
    assert Rates(budget()).take(300, 0, 0) == 1
    assert Rates(budget()).take(0, 5000, 0) == 3
    assert Rates(budget()).take(300, 5000, 0) == 3


def sets(kind: str, *keys: str, labels: dict[str, str] | None = None) -> list[Event]:
    data: dict[str, object] = {"address": "10.0.0.1"} if kind == "endpoint" else {}
    return [Event(f"{kind}.set", key, data | {"labels": labels or {}}, "ann") for key in keys]


class Peer:
    """Adds records as long as the ceiling lets it."""

    def __init__(self, its: Budget) -> None:
        self.state = ClusterState()
        self.ceiling = Ceiling(its)
        self.ceiling.begin(self.state)
        self.head = Head.genesis(LOG_ID)

    def add(self, events: list[Event]) -> str:
        record = encode_record(self.head, 0, events)
        reason = self.ceiling.passed_by(self.state, events, len(record.raw))
        if not reason:
            fold_record(self.state, record, WEST)
            self.head = record.head
        return reason


def test_services_have_a_ceiling() -> None:
    peer = Peer(budget(services=2))
    assert peer.add(sets("service", "a/a", "a/b", "a/a")) == ""
    assert peer.add(sets("service", "a/a")) == ""
    assert "more than 2 services" in peer.add(sets("service", "a/c"))
    assert peer.add([Event("service.removed", "a/a", None, "ann")]) == ""
    assert peer.add(sets("service", "a/c")) == ""


@pytest.mark.parametrize(
    ("kind", "keys", "its"),
    [
        ("node", ("n1", "n2", "n3"), budget(nodes=2)),
        ("identity", ("65792", "65793", "65794"), budget(identities=2)),
        ("policy", ("a/a", "a/b", "a/c"), budget(policies=2)),
    ],
)
def test_nodes_identities_and_policies_have_a_ceiling(
    kind: str, keys: tuple[str, str, str], its: Budget
) -> None:
    needed: dict[str, dict[str, object]] = {
        "node": {"addresses": ["10.0.0.1"]},
        "identity": {"labels": {"a": "b"}},
    }
    data = needed.get(kind, {})
    one, two, three = (Event(f"{kind}.set", key, data, "ann") for key in keys)
    peer = Peer(its)
    assert peer.add([one, two, one]) == ""
    assert peer.add([one]) == ""
    assert "it has more than 2 " in peer.add([three])
    assert peer.add([Event(f"{kind}.removed", keys[0], None, "ann")]) == ""
    assert peer.add([three]) == ""


def test_nodes_identities_and_long_definitions_take_room() -> None:
    large = {f"n{number}": "x" * 100 for number in range(9)}
    names = [f"cluster-{number}" for number in range(60)]
    said: list[tuple[str, str, dict[str, object]]] = [
        ("node.set", "n", {"addresses": ["10.0.0.1"], "labels": large}),
        ("identity.set", "6580", {"labels": large}),
        ("policy.set", "a/n", {"labels": large}),
        ("service.set", "a/n", {"tiers": [{"clusters": names}]}),
        ("service.set", "a/n", {"import": {"clusters": names}}),
    ]
    for kind, key, data in said:
        peer = Peer(budget(state_bytes=5000))
        reasons = [peer.add([Event(kind, f"{key}{n}", data, "ann")]) for n in range(10)]
        assert any("more than 5000 bytes" in reason for reason in reasons), kind


def test_endpoints_have_a_ceiling_and_flapping_is_no_growth() -> None:
    peer = Peer(budget(endpoints=3))
    for _ in range(10):
        assert peer.add(sets("endpoint", "a/a/x", "a/a/y")) == ""
        assert peer.add([Event("endpoint.removed", "a/a/x", None, "ann")]) == ""
    assert peer.add(sets("endpoint", "a/a/x", "a/b/x")) == ""
    assert "more than 3 endpoints" in peer.add(sets("endpoint", "a/b/y"))
    # It stays so, however often it is tried.
    assert "more than 3 endpoints" in peer.add(sets("endpoint", "a/b/y"))


def test_bytes_have_a_ceiling_and_overwriting_is_no_growth() -> None:
    peer = Peer(budget(state_bytes=5000))
    for number in range(200):
        assert peer.add(sets("endpoint", "a/a/x", labels={"n": str(number)})) == ""
    assert peer.add(sets("service", "a/a", labels={"n": "x" * 100})) == ""
    large = {f"n{number}": "x" * 250 for number in range(20)}
    assert "more than 5000 bytes" in peer.add(sets("endpoint", "a/a/y", labels=large))


def test_what_is_carried_counts_as_well() -> None:
    peer = Peer(budget(state_bytes=5000))
    reasons = [peer.add([Event("moon.set", str(n), {"x": "y" * 500}, "ann")]) for n in range(20)]
    assert any("more than 5000 bytes" in reason for reason in reasons)
    assert len(peer.state.carried) < 12


def test_a_state_from_elsewhere_is_counted_first() -> None:
    peer = Peer(budget(endpoints=2))
    assert peer.add(sets("endpoint", "a/a/x", "a/a/y")) == ""
    again = Ceiling(budget(endpoints=2))
    again.begin(peer.state)
    assert "more than 2" in again.passed_by(peer.state, sets("endpoint", "a/a/z"), 1)


@pytest.mark.parametrize("key", ["nonsense", "a/b", "A/b/c"])
def test_what_the_fold_refuses_is_left_to_it(key: str) -> None:
    peer = Peer(budget(endpoints=1))
    assert peer.ceiling.passed_by(peer.state, sets("endpoint", key), 1) == ""
    assert peer.ceiling.passed_by(peer.state, sets("service", "x" + key + "/"), 1) == ""
    assert peer.ceiling.passed_by(peer.state, sets("identity", key), 1) == ""
    assert peer.ceiling.passed_by(peer.state, sets("policy", f"{key}/x"), 1) == ""


def test_a_state_with_hardly_any_room_left_is_not_counted_at_every_record(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counted = 0
    count = core_budget._bytes_in

    def counting(state: ClusterState) -> int:
        nonlocal counted
        counted += 1
        return count(state)

    monkeypatch.setattr(core_budget, "_bytes_in", counting)
    peer = Peer(budget(endpoints=1000, state_bytes=100_000))
    reason = ""
    for number in range(2000):
        # All of them take a little less than there may be.
        reason = peer.add(sets("endpoint", f"a/a/n{number % 298}", labels={"n": "x" * 20}))
        if reason:
            break
    assert "more than 100000 bytes" in reason
    assert counted < 20
