"""The limits of events fit into those of records, and of etcd's requests."""

from __future__ import annotations

from meshd.model.codec import encode_record, event_bytes
from meshd.model.event import (
    ACTOR_CHARS_MAX,
    CAUSE_CHARS_MAX,
    EVENT_BYTES_MAX,
    EVENTS_PER_RECORD_MAX,
    RECORD_BYTES_MAX,
    SUBMISSION_BYTES_MAX,
    SUBMISSION_EVENTS_MAX,
    SUBMISSION_EXPORT_BYTES_MAX,
    Event,
)
from meshd.model.ids import Head
from tests.logs import LOG_ID, log_of, ticked

ETCD_REQUEST_BYTES_MAX = 1_572_864


def test_half_a_record_and_one_submission_more_fit_into_a_record() -> None:
    overhead = len(encode_record(Head.genesis(LOG_ID), 2**53, ()).raw) + 16
    assert RECORD_BYTES_MAX // 2 + SUBMISSION_BYTES_MAX + overhead <= RECORD_BYTES_MAX
    assert EVENTS_PER_RECORD_MAX // 2 - 1 + SUBMISSION_EVENTS_MAX <= EVENTS_PER_RECORD_MAX


def test_half_a_record_and_the_largest_submission_fit_into_one_request() -> None:
    largest_bytes = SUBMISSION_BYTES_MAX + SUBMISSION_EXPORT_BYTES_MAX
    assert RECORD_BYTES_MAX // 2 + largest_bytes + 128 * 1024 <= ETCD_REQUEST_BYTES_MAX


def test_one_event_of_the_largest_size_is_one_submission() -> None:
    texts = Event("t" * 64, "k" * 512, None, "a" * ACTOR_CHARS_MAX, "c" * CAUSE_CHARS_MAX)
    assert 2 * EVENT_BYTES_MAX + event_bytes(texts) <= SUBMISSION_BYTES_MAX


def test_a_record_ends_where_the_next_begins() -> None:
    first, second = log_of(3, 2).records
    assert (first.first_seq, first.last_seq, second.first_seq, second.last_seq) == (1, 3, 4, 5)
    assert second.prev_hash == first.hash == first.head.hash
    assert first.events[0] == ticked(1)
