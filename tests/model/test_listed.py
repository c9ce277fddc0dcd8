"""Peers and skips as values: their limits, and what is said of what is wrong."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from meshd.model.errors import RejectedError
from meshd.model.listed import SKIPS_MAX, ListedPeer, Skip, SkippedRecord
from meshd.model.schema import from_data, to_data

GOOD: dict[str, object] = {"endpoints": ["b:2379"]}
CHECKS: dict[object, Callable[[object], object]] = {
    ListedPeer: lambda data: from_data(ListedPeer, data, ""),
    Skip: lambda data: from_data(Skip, data, ""),
}
LOG_ID, HASH = "f" * 32, "0" * 32


def problems_of(kind: type[ListedPeer | Skip], data: object) -> list[str]:
    with pytest.raises(RejectedError) as error:
        CHECKS[kind](data)
    return [str(problem) for problem in error.value.problems]


def test_a_peer_needs_no_more_than_an_endpoint() -> None:
    peer = from_data(ListedPeer, GOOD, "")
    assert to_data(peer) == GOOD
    assert (peer.audience, peer.prefix, peer.announces) == ("mesh", "/meshd/v1", ())


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"endpoints": []}, "endpoints: tuple should have at least 1 item"),
        ({"endpoints": ["b"]}, "endpoints[0]: is not host:port"),
        ({"endpoints": ["http://b:2379"]}, "endpoints[0]: is not host:port"),
        ({"endpoints": ["b:2379"] * 17}, "endpoints: tuple should have at most 16 items"),
        ({"password_file": "pw"}, "password_file: is not an absolute path on meshd's host"),
        ({"tls": {"ca_file": "../ca.pem"}}, "tls.ca_file: is not an absolute path"),
        ({"prefix": "/meshd/v1/"}, "prefix: is not a prefix"),
        ({"audience": "Mesh"}, "audience: is not a DNS label"),
        ({"announces": ["everything"]}, "announces[0]: is not an address range"),
        ({"staleness": {"policy": "forget"}}, "staleness.policy: should be 'keep'"),
        ({"staleness": {"stale_after_s": 0.5}}, "staleness.stale_after_s: should be greater"),
        ({"staleness": {"stale_after_s": "9"}}, "staleness.stale_after_s: should be a valid"),
        ({"password": "secret"}, "password: unknown field"),
    ],
)
def test_what_is_wrong_with_a_peer_is_named(more: dict[str, object], said: str) -> None:
    assert problems_of(ListedPeer, GOOD | more)[0].startswith(said)


def test_a_skip_names_records_in_their_order_and_not_too_many() -> None:
    items = [{"seq": seq, "hash": HASH} for seq in range(1, SKIPS_MAX + 2)]
    skip = from_data(Skip, {"log_id": LOG_ID, "records": items[:SKIPS_MAX]}, "")
    assert skip.hash_at(SKIPS_MAX) == HASH
    assert skip.hash_at(SKIPS_MAX + 1) is None
    assert skip.records[0] == SkippedRecord(seq=1, hash=HASH)
    for wrong in (items, [], items[1::-1], [items[0], items[0]]):
        assert len(problems_of(Skip, {"log_id": LOG_ID, "records": wrong})) == 1
