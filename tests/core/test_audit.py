"""What makes records a log, and what is said when they don't."""

from __future__ import annotations

import pytest

from meshd.core.audit import Audit
from meshd.model.archive import Entry
from meshd.model.errors import CorruptError
from meshd.model.event import Event, Record
from meshd.model.ids import ClusterName
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
