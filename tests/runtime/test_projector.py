"""States, heads and tables: changed together, by each record once, whoever hands it in."""

from __future__ import annotations

import pytest

from meshd.core.fold import fold_record
from meshd.core.state import ClusterState
from meshd.model.codec import LocalHead
from meshd.model.errors import CorruptError
from meshd.model.event import Event, Record
from meshd.model.ids import ClusterName, Head, LogId, ServiceKey
from meshd.model.keyspace import DEFAULT_AUDIENCE
from meshd.model.table import Standing
from meshd.runtime.projector import Projector
from meshd.runtime.ring import ENTRY_BYTES, RECENT_BYTES_MAX, RecordRing
from meshd.runtime.table_feed import TableFeed
from tests.core.sights import SIGHTS
from tests.logs import LOG_ID, OTHER_LOG_ID, WEST, Log, log_of

EAST = ClusterName("east")
WEB = ServiceKey("shop", "web")
SERVICE = Event("service.set", "shop/web", {"global": True, "ports": [{"port": 80}]}, "ann")
ENDPOINT = Event("endpoint.set", "shop/web/a", {"address": "10.0.0.1"}, "ann")
BAD = Event("endpoint.set", "shop/web/b", {"address": "nowhere"}, "ann")


def read(projector: Projector, cluster: ClusterName, log: Log, *, is_fork: bool = False) -> None:
    """Read a log from its beginning."""
    log_id = log.records[0].log_id if log.records else LOG_ID
    projector.begin_generation(cluster, log_id, is_fork=is_fork)
    for record in log.records:
        projector.fold(cluster, record)
    projector.complete_generation(cluster)


def logged(*events: Event, log_id: LogId = LOG_ID) -> Log:
    log = Log(Head.genesis(log_id))
    log.append(*events)
    return log


@pytest.fixture
def projector() -> Projector:
    projector = Projector(EAST, RecordRing(1 << 20), TableFeed("a" * 16))
    read(projector, EAST, logged(SERVICE, log_id=OTHER_LOG_ID))
    return projector


def backends(projector: Projector) -> list[tuple[str, str]]:
    view = projector.tables.view(WEB)
    return [(backend.cluster, backend.name) for backend in view.eligible] if view else []


def test_nothing_is_known_before_a_first_generation_is_whole() -> None:
    fresh = Projector(EAST, RecordRing(1 << 20), TableFeed("a" * 16))
    assert (fresh.head(EAST), fresh.state(EAST), fresh.vector()) == (None, None, {})
    fresh.begin_generation(EAST, LOG_ID)
    fresh.fold(EAST, log_of(1).records[0])
    assert (fresh.head(EAST), fresh.tables.keys()) == (None, ())
    fresh.complete_generation(EAST)
    assert fresh.tables.keys() == (WEB,)


def test_a_record_that_comes_twice_is_folded_once(projector: Projector) -> None:
    log = logged(SERVICE, ENDPOINT)
    read(projector, WEST, log)
    version = projector.version
    projector.fold(WEST, log.records[0])
    assert projector.version == version
    assert backends(projector) == [(WEST, "a")]


def test_a_record_that_does_not_come_next_is_refused(projector: Projector) -> None:
    log = log_of(1, 1, 1)
    read(projector, WEST, Log(Head.genesis(LOG_ID), log.records[:1]))
    before = projector.head(WEST)
    for record, verdict in (
        (log.records[2], "GAP"),
        (log_of(1, log_id=OTHER_LOG_ID).records[0], "FORK"),
    ):
        with pytest.raises(CorruptError, match=f"{verdict} at a fold"):
            projector.fold(WEST, record)
    assert projector.head(WEST) == before


def test_a_new_generation_is_built_beside_the_served_one(projector: Projector) -> None:
    read(projector, WEST, logged(SERVICE, ENDPOINT))
    new = logged(SERVICE, log_id=OTHER_LOG_ID)
    projector.begin_generation(WEST, OTHER_LOG_ID)
    projector.fold(WEST, new.records[0])
    assert backends(projector) == [(WEST, "a")]
    assert projector.ring.after(WEST, 0) is None
    projector.complete_generation(WEST)
    assert backends(projector) == []
    assert projector.head(WEST) == new.head


def test_before_a_record_that_can_not_be_folded_the_log_stops(projector: Projector) -> None:
    log = logged(SERVICE, ENDPOINT)
    read(projector, WEST, log)
    with pytest.raises(CorruptError, match="is not an IPv4 or IPv6 address"):
        projector.fold(WEST, log.append(BAD))
    assert projector.head(WEST) == log.records[0].head
    assert backends(projector) == [(WEST, "a")]


def test_the_heads_of_export_logs_are_noted_when_the_local_log_is_folded_as_far(
    projector: Projector,
) -> None:
    log = logged(SERVICE, log_id=OTHER_LOG_ID)
    exports = {DEFAULT_AUDIENCE: Head.genesis(LOG_ID)}
    now, ahead = LocalHead(log.head, exports), LocalHead(log.append().head, exports)
    projector.settle(ahead)
    assert EAST not in projector.vector()
    projector.settle(now)
    assert projector.local_head == now
    assert str(projector.vector()[EAST]) == f"east:{LOG_ID}:0"
    assert str(projector.log_vector()[EAST]) == f"east:{OTHER_LOG_ID}:1"
    # Nobody is woken for what is known.
    version = projector.version
    projector.settle(now)
    assert projector.version == version
    projector.fold(EAST, log.records[-1])
    projector.settle(ahead)
    assert projector.local_head == ahead


def test_a_removed_peer_takes_its_backends_with_it(projector: Projector) -> None:
    read(projector, WEST, logged(SERVICE, ENDPOINT))
    projector.remove(WEST)
    assert backends(projector) == []
    assert projector.head(WEST) is None
    assert WEST not in projector.states
    version = projector.version
    projector.remove(WEST)
    assert projector.version == version


def test_every_change_wakes_those_who_wait_for_one(projector: Projector) -> None:
    read(projector, WEST, logged(SERVICE, ENDPOINT))
    for change in (
        projector.touch,
        lambda: projector.see(WEST, SIGHTS[Standing.DEMOTED]),
        lambda: projector.adopt(WEST, Head.genesis(LOG_ID), ClusterState()),
    ):
        waiting, version = projector.changed, projector.version
        change()
        assert waiting.is_set()
        assert projector.version == version + 1
        assert not projector.changed.is_set()
    version = projector.version
    projector.see(WEST, SIGHTS[Standing.DEMOTED])
    assert (projector.version, projector.standing(WEST)) == (version, Standing.DEMOTED)


def test_what_others_see_is_derived_from_the_same_states(projector: Projector) -> None:
    log = logged(SERVICE, ENDPOINT)
    state = ClusterState()
    fold_record(state, log.records[0], WEST)
    projector.adopt(WEST, log.head, state)
    assert [backend.name for backend in projector.tables_as(WEST)[WEB].eligible] == ["a"]
    assert projector.digest_as(EAST) == projector.tables.digest
    assert projector.digest_as(WEST) != ""
    assert projector.log_ids == {EAST: OTHER_LOG_ID, WEST: LOG_ID}


# --- the ring -------------------------------------------------------------------------------------


def kept(ring: RecordRing, cluster: ClusterName, seq: int) -> list[Record]:
    records = ring.after(cluster, seq)
    assert records is not None
    return list(records)


def test_a_ring_keeps_the_latest_records_of_all_clusters_and_no_more_bytes_than_it_may() -> None:
    log, other = log_of(*[1] * 10), log_of(*[2] * 10, log_id=OTHER_LOG_ID)
    size_bytes = sum(
        len(record.raw) + ENTRY_BYTES for record in log.records[7:] + other.records[7:]
    )
    ring = RecordRing(size_bytes)
    for one, two in zip(log.records, other.records, strict=True):
        ring.add(WEST, one)
        ring.add(EAST, two)
    assert kept(ring, WEST, 7) == log.records[7:]
    assert kept(ring, WEST, 8) == log.records[8:]
    assert kept(ring, WEST, 10) == []
    assert ring.after(WEST, 6) is None
    # From the middle of a record on, the whole record.
    assert kept(ring, EAST, 17) == other.records[8:]
    ring.reset(WEST)
    assert ring.after(WEST, 9) is None
    for record in log_of(*[1] * 30, log_id=OTHER_LOG_ID).records:
        ring.add(WEST, record)
    assert ring.after(EAST, 19) is None


def test_records_that_were_read_last_are_decoded_once() -> None:
    ring, log = RecordRing(1 << 20), log_of(*[100] * 100)
    for record in log.records:
        ring.add(WEST, record)
    assert kept(ring, WEST, 9_900)[0] is log.records[-1]
    first = kept(ring, WEST, 0)
    assert first == log.records
    assert first[0] is not log.records[0]
    assert sum(len(record.raw) for record in log.records) > RECENT_BYTES_MAX
    assert kept(ring, WEST, 9_900)[0] is first[-1]


def test_a_record_larger_than_the_ring_is_not_kept() -> None:
    ring = RecordRing(10)
    ring.add(WEST, log_of(1).records[0])
    assert ring.after(WEST, 0) is None
