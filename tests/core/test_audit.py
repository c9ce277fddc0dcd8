"""What makes records a log, and what is said when they don't."""

from __future__ import annotations

from dataclasses import replace

import pytest

from meshd.core.audit import Audit
from meshd.core.snapshot import manifest_of, parts_of
from meshd.model.archive import Entry
from meshd.model.errors import CorruptError
from meshd.model.event import Event, Record
from meshd.model.ids import ClusterName
from meshd.model.snapshot import Manifest, Mark, hash_part
from tests.logs import LOG_ID, OTHER_LOG_ID, WEST, Log, log_of


def entry(record: Record, revision: int = 1) -> Entry:
    return Entry(record, revision, f"seq {record.first_seq}")


def audited(*records: Record) -> Audit:
    audit = Audit(WEST, LOG_ID)
    for record in records:
        audit.take(entry(record))
    return audit


def test_a_log_is_counted_and_folded() -> None:
    log = log_of(2, 1, 3)
    audit = audited(*log.records)
    span = audit.span
    assert audit.at == log.head
    assert (span.first_seq, span.last_seq, span.records, span.events) == (1, 6, 3, 6)
    assert span.size_bytes == sum(len(record.raw) for record in log.records)
    assert audit.state.seq == 6


def test_a_piece_of_a_log_may_begin_anywhere() -> None:
    assert audited(*log_of(2, 1, 3).records[1:]).span.first_seq == 3


def test_what_is_not_a_log_is_named() -> None:
    log, other = log_of(2, 1, 3), log_of(1, log_id=OTHER_LOG_ID)
    forked = Log()
    forked.append(Event("x", "y", None, "ann"), Event("x", "y", None, "ann"))
    forked.append()
    for records, reason in (
        ((log.records[0], log.records[2]), "seq 3 to 3 are missing"),
        ((log.records[0], log.records[0]), "come again after seq 2"),
        ((log.records[0], forked.records[1]), "the chain is broken"),
        ((log.records[0], other.records[0]), f"is of log {OTHER_LOG_ID}"),
    ):
        with pytest.raises(CorruptError, match=reason):
            audited(*records)


def test_revisions_never_go_back_within_one_etcd() -> None:
    first, second, _ = log_of(1, 1, 1).records
    audit = Audit(WEST, LOG_ID)
    audit.take(entry(first, 5))
    with pytest.raises(CorruptError, match="mod revision 4 comes after 5"):
        audit.take(entry(second, 4))
    audit.begin(WEST, LOG_ID, "next file")
    audit.take(entry(second, 4))
    assert audit.span.first_seq == 2


def test_files_of_different_logs_do_not_join() -> None:
    audit = audited(*log_of(1).records)
    for speaker, log_id in ((ClusterName("east"), LOG_ID), (WEST, OTHER_LOG_ID)):
        with pytest.raises(CorruptError, match="what came before is of log"):
            audit.begin(speaker, log_id, "b.log")


def test_events_must_fold_where_that_is_asked() -> None:
    log = Log()
    record = log.append(Event("service.set", "shop/web", {"global": "perhaps"}, "ann"))
    with pytest.raises(CorruptError, match="west seq 1"):
        audited(record)
    unfolded = Audit(WEST, LOG_ID, is_folding=False)
    unfolded.take(entry(record))
    assert unfolded.at == log.head


# --- a log that begins with a snapshot ------------------------------------------------------------


LOG = log_of(2, 1, 3)
HEADS = [record.head for record in LOG.records]


def snapshot_at(number: int, trimmed: int) -> tuple[Manifest, list[bytes]]:
    """A snapshot at the end of a record, of a log that was cut at the end of another."""
    state = audited(*LOG.records[: number + 1]).state
    parts = list(parts_of(state))
    manifest = manifest_of(state, HEADS[number], 0, [hash_part(part) for part in parts], None)
    return replace(manifest, trim=Mark(HEADS[trimmed].seq, HEADS[trimmed].hash, 0, 0)), parts


def begun(number: int, trimmed: int) -> Audit:
    audit = Audit(WEST, LOG_ID)
    audit.begin_with(*snapshot_at(number, trimmed), "x.log")
    return audit


@pytest.mark.parametrize(("number", "trimmed"), [(0, 0), (1, 0), (1, 1), (2, 0), (2, 2)])
def test_a_snapshot_and_what_is_left_of_the_log_come_to_all_of_it(
    number: int, trimmed: int
) -> None:
    audit = begun(number, trimmed)
    for record in LOG.records[trimmed + 1 :]:
        audit.take(entry(record))
    assert audit.end("x.log") == LOG.head
    assert audit.state == audited(*LOG.records).state


def test_a_log_that_ends_before_its_snapshot_is_not_whole() -> None:
    with pytest.raises(CorruptError, match="ends before the snapshot"):
        begun(1, 0).end("x.log")
    with pytest.raises(CorruptError, match="ends before the snapshot"):
        Audit(WEST, LOG_ID).end("x.log")
    assert begun(2, 2).end("x.log") == LOG.head


def test_a_snapshot_of_another_log_or_another_past_is_none() -> None:
    manifest, parts = snapshot_at(1, 0)
    with pytest.raises(CorruptError, match="its snapshot is of log"):
        Audit(WEST, OTHER_LOG_ID).begin_with(manifest, parts, "x.log")
    wrong = Audit(WEST, LOG_ID)
    wrong.begin_with(replace(manifest, head=replace(manifest.head, hash=HEADS[0].hash)), parts, "x")
    with pytest.raises(CorruptError, match="is not the record that the snapshot at 3 names"):
        wrong.take(entry(LOG.records[1]))


def test_a_record_right_behind_the_cut_must_continue_it() -> None:
    with pytest.raises(CorruptError, match="seq 3 to 3 are missing"):
        begun(1, 0).take(entry(LOG.records[2]))
