"""One judgement for every reader of a log, and why it is enough: NEXT alone rebuilds the log."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.core.position import Verdict, classify
from meshd.model.codec import encode_record
from meshd.model.event import Record
from meshd.model.ids import GENESIS_HASH, Head, RecordHash, Seq
from tests.logs import LOG_ID, OTHER_LOG_ID, Log, log_of, ticked

LOG = log_of(2, 3, 1)
"""Seqs 1 to 2, 3 to 5, and 6."""
FIRST, SECOND, THIRD = LOG.records
ELSEWHERE = RecordHash(b"x" * 16)


def made(first_seq: int, events: int, prev_hash: RecordHash = GENESIS_HASH) -> Record:
    prev = Head(LOG_ID, Seq(first_seq - 1), prev_hash)
    return encode_record(prev, 7, [ticked(n) for n in range(events)])


@pytest.mark.parametrize(
    ("at", "record", "verdict"),
    [
        (Head.genesis(LOG_ID), FIRST, Verdict.NEXT),
        (FIRST.head, SECOND, Verdict.NEXT),
        (SECOND.head, THIRD, Verdict.NEXT),
        # Read before: the last one, or any earlier.
        (FIRST.head, FIRST, Verdict.DUPLICATE),
        (THIRD.head, SECOND, Verdict.DUPLICATE),
        (THIRD.head, FIRST, Verdict.DUPLICATE),
        # Something is missing.
        (Head.genesis(LOG_ID), made(2, 1), Verdict.GAP),
        (Head.genesis(LOG_ID), SECOND, Verdict.GAP),
        (FIRST.head, THIRD, Verdict.GAP),
        # Another log, wherever in it.
        (FIRST.head, log_of(2, log_id=OTHER_LOG_ID).records[0], Verdict.FORK),
        (Head.genesis(OTHER_LOG_ID), FIRST, Verdict.FORK),
        # The right seq on another past.
        (FIRST.head, made(3, 3, ELSEWHERE), Verdict.FORK),
        (Head.genesis(LOG_ID), made(1, 2, ELSEWHERE), Verdict.FORK),
        # The right seq and past, but another record was read there.
        (SECOND.head, made(3, 3, FIRST.hash), Verdict.FORK),
        # It begins before here and ends after: records never overlap in one history.
        (FIRST.head, made(1, 3), Verdict.FORK),
        (FIRST.head, made(2, 2, FIRST.hash), Verdict.FORK),
    ],
)
def test_verdicts(at: Head, record: Record, verdict: Verdict) -> None:
    assert classify(at, record) is verdict


logs = st.lists(st.integers(1, 3), min_size=1, max_size=8).map(lambda sizes: log_of(*sizes))


@given(st.data(), logs)
def test_folding_only_next_rebuilds_the_log_from_any_mess(data: st.DataObject, log: Log) -> None:
    """Duplicates, gaps and reorderings, also of a foreign log: what is NEXT is the log's prefix."""
    foreign = log_of(1, 2, 2, log_id=OTHER_LOG_ID).records
    rewritten = [made(record.first_seq, 1, ELSEWHERE) for record in log.records]
    delivered = data.draw(st.lists(st.sampled_from(log.records + foreign + rewritten), max_size=40))
    at = Head.genesis(LOG_ID)
    folded: list[Record] = []
    for record in delivered:
        verdict = classify(at, record)
        assert (verdict is Verdict.NEXT) == (log.records[len(folded) :][:1] == [record])
        if verdict is Verdict.NEXT:
            folded.append(record)
            at = record.head
    assert folded == log.records[: len(folded)]

    # Whatever was read so far, reading it all from anywhere before completes it.
    start = data.draw(st.integers(0, len(folded)))
    for record in log.records[start:]:
        if classify(at, record) is Verdict.NEXT:
            folded.append(record)
            at = record.head
    assert folded == log.records
    assert at == log.head
