"""Where everything lies: the keys of section 3 of the design, letter by letter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.model.ids import ClusterName, EndpointKey
from meshd.model.keyspace import Keyspace, LogKeys, prefix_end

SPACE = Keyspace()
WEST = ClusterName("west")


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (SPACE.descriptor, b"/meshd/v1/cluster"),
        (SPACE.leader, b"/meshd/v1/leader/holder"),
        (SPACE.replicas, b"/meshd/v1/replica/"),
        (SPACE.publish_cursor("mesh"), b"/meshd/v1/local/mqtt/mesh"),
        (SPACE.local.head, b"/meshd/v1/local/head"),
        (SPACE.local.log, b"/meshd/v1/local/log/"),
        (SPACE.local.log_end, b"/meshd/v1/local/log0"),
        (SPACE.local.record(42), b"/meshd/v1/local/log/00000000000000000042"),
        (SPACE.export().head, b"/meshd/v1/export/mesh/head"),
        (SPACE.export().heartbeat, b"/meshd/v1/export/mesh/heartbeat"),
        (SPACE.export("hub").log, b"/meshd/v1/export/hub/log/"),
        (SPACE.replica(WEST).cursor, b"/meshd/v1/replica/west/cursor"),
        (Keyspace("/team/mesh").descriptor, b"/team/mesh/cluster"),
    ],
)
def test_keys(key: bytes, expected: bytes) -> None:
    assert key == expected


@given(st.integers(0, 2**63 - 1))
def test_a_records_key_tells_its_seq(seq: int) -> None:
    assert SPACE.local.seq_of(SPACE.local.record(seq)) == seq


@given(st.lists(st.integers(0, 2**63 - 1)))
def test_records_sort_by_seq(seqs: list[int]) -> None:
    keys = SPACE.local
    assert sorted(map(keys.record, seqs)) == list(map(keys.record, sorted(seqs)))
    assert all(keys.log < keys.record(seq) < keys.log_end for seq in seqs)


@pytest.mark.parametrize(
    "key",
    [
        SPACE.local.head,
        SPACE.local.log,
        SPACE.local.log + b"42",
        SPACE.local.log + b"0" * 20 + b"x",
        SPACE.local.log + b"0" * 20 + b"\n",
        SPACE.local.log + b"-" + b"0" * 19,
        SPACE.export().record(42),
        b"",
    ],
)
def test_what_is_no_record_of_this_log(key: bytes) -> None:
    assert SPACE.local.seq_of(key) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (SPACE.replica(ClusterName("c1")), SPACE.replica(ClusterName("c10"))),
        (SPACE.export("mesh"), SPACE.export("mesh-2")),
        (SPACE.local, SPACE.export("local")),
    ],
)
def test_no_log_lies_within_anothers_range(one: LogKeys, other: LogKeys) -> None:
    for key in (other.head, other.heartbeat, other.cursor, other.record(1)):
        assert not one.root <= key < prefix_end(one.root)
        assert one.seq_of(key) is None


def test_a_watch_from_head_to_the_end_of_the_log_sees_head_heartbeat_and_records() -> None:
    keys = SPACE.export()
    seen = [keys.head, keys.heartbeat, keys.record(0), keys.record(2**63)]
    assert seen == sorted(seen)
    assert all(keys.head <= key < keys.log_end for key in seen)
    assert not keys.head <= keys.cursor < keys.log_end


def test_a_registrations_key_ends_with_its_endpoints_name() -> None:
    keys = Keyspace("/x")
    assert keys.registration(EndpointKey.parse("shop/web/a")) == b"/x/registration/shop/web/a"
    assert keys.registrations == b"/x/registration/"
