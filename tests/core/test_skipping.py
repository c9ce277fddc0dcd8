"""What may be passed over of a peer's log, and what is: just the record that somebody meant."""

from __future__ import annotations

from dataclasses import replace

import pytest

from meshd.core.audit import Audit
from meshd.core.fold import fold_record
from meshd.core.replica import begin_state, step
from meshd.core.said import followed_otherwise
from meshd.core.skipping import is_skipped, skip_of, skipped_seqs, with_record
from meshd.core.state import ClusterState
from meshd.model.archive import Entry
from meshd.model.codec import Descriptor
from meshd.model.command import SkipRecord
from meshd.model.errors import CorruptError, RejectedError
from meshd.model.event import Event, Record
from meshd.model.ids import Head
from meshd.model.listed import Skip, SkippedRecord
from meshd.model.peer import Phase
from meshd.model.replica import (
    BadRecord,
    Begin,
    Effect,
    Fold,
    FollowRules,
    Hold,
    Identified,
    Misread,
    PassOver,
    Pause,
    ReplicaState,
    Resume,
    Trouble,
    Wait,
    Watch,
    WindowRead,
)
from tests.logs import LOG_ID, OTHER_LOG_ID, WEST, Log, log_of

LOG = log_of(2)
LOG.append(Event("endpoint.set", "shop/web/bad", {"weight": 1 << 63}, "eve"), time_ms=2000)
LOG.append(time_ms=3000)
GOOD, BAD, LAST = LOG.records
"""Seqs 1 to 2; 3, which nobody can fold; and 4."""


def skip_for(*records: Record) -> Skip:
    items = [SkippedRecord(seq=one.first_seq, hash=one.hash.hex()) for one in records]
    return Skip(log_id=records[0].log_id, records=tuple(items))


SKIP = skip_for(BAD)
RULES = FollowRules(WEST)
SKIPPING = FollowRules(WEST, skip=SKIP)


def identified(log: Log = LOG) -> Identified:
    return Identified(Descriptor(WEST, 7, 1, 1, 0), log.head, 1, 20, None)


def followed(rules: FollowRules) -> tuple[ReplicaState, list[Effect]]:
    """Read the log to its end, from nothing."""
    state = begin_state(0, None, 0)
    done: list[Effect] = []
    for event in (Begin(), identified(), identified(), WindowRead(LOG.fetched(), complete=True)):
        state, effects, _ = step(state, rules, event, 1)
        done.extend(effects)
    return state, done


def stopped() -> ReplicaState:
    """As it is once the bad record couldn't be folded."""
    state, _ = followed(RULES)
    bad = BadRecord(BAD.log_id, BAD.first_seq, BAD.hash)
    state, _, todo = step(state, RULES, Misread("can't be", GOOD.head, 10, bad), 1)
    assert todo == Wait(0, slow=True)
    return state


def refused(state: ReplicaState, seq: int | None = None) -> str:
    with pytest.raises(RejectedError) as caught:
        skip_of(WEST, state, seq)
    return str(caught.value)


# --- what is passed over --------------------------------------------------------------------------


def test_only_the_bytes_that_were_meant_are_passed_over() -> None:
    assert is_skipped(SKIP, BAD)
    assert not is_skipped(None, BAD)
    assert not is_skipped(SKIP, GOOD)
    # The owner has put a good record in the place of the bad one.
    repaired = log_of(2)
    assert not is_skipped(SKIP, repaired.append())
    assert not is_skipped(Skip(log_id=OTHER_LOG_ID, records=SKIP.records), BAD)


def test_the_machine_gives_it_out_to_be_passed_over_and_goes_on_behind_it() -> None:
    state, effects = followed(SKIPPING)
    given = [effect for effect in effects if isinstance(effect, Fold | PassOver)]
    assert [type(effect) for effect in given] == [Fold, PassOver, Fold]
    assert given[1] == PassOver(BAD, 12)
    assert state.at == LOG.head
    assert state.trouble is None


def test_what_was_passed_over_is_no_trouble_of_what_comes_behind_it() -> None:
    """A person who looked between two windows would pass over the same record once more."""
    state = stopped()
    window = WindowRead((LOG.fetched()[1],), complete=False)
    seen = replace(identified(), at_cursor=LOG.fetched()[0])
    for event in (Begin(), seen, window):
        assert state.trouble is not None
        state, _, _ = step(state, SKIPPING, event, 1)
    assert state.at == BAD.head
    assert state.trouble is None
    assert "is not Quarantined" in refused(state)


def test_what_comes_behind_it_is_still_held_to_the_chain() -> None:
    broken = log_of(2, 1, 1)
    fetched = (*LOG.fetched()[:2], broken.fetched()[2])
    state = begin_state(0, None, 0)
    for event in (Begin(), identified(), identified(), WindowRead(fetched, complete=True)):
        state, _, _ = step(state, SKIPPING, event, 1)
    assert state.at == BAD.head
    assert state.doubted_seq == BAD.last_seq


def test_a_log_is_folded_alike_when_it_is_read_back() -> None:
    audit = Audit(WEST, LOG_ID, skip=SKIP)
    for record in LOG.records:
        audit.take(Entry(record, 1, "here"))
    expected = ClusterState()
    for record in (GOOD, LAST):
        fold_record(expected, record, WEST)
    assert audit.state == expected
    assert audit.at == LOG.head
    unskipped = Audit(WEST, LOG_ID)
    unskipped.take(Entry(GOOD, 1, "here"))
    with pytest.raises(CorruptError, match="shop/web/bad"):
        unskipped.take(Entry(BAD, 1, "here"))


def test_the_seqs_are_shown_once_they_were_reached_and_of_this_log_only() -> None:
    assert skipped_seqs(SKIP, LOG.head) == (3,)
    assert skipped_seqs(SKIP, GOOD.head) == ()
    assert skipped_seqs(SKIP, None) == ()
    assert skipped_seqs(None, LOG.head) == ()
    assert skipped_seqs(SKIP, Head(OTHER_LOG_ID, LOG.head.seq, LOG.head.hash)) == ()


# --- what may be ----------------------------------------------------------------------------------


def test_the_record_at_which_a_peer_is_stopped_may_be_passed_over() -> None:
    asked = skip_of(WEST, stopped(), None)
    assert asked == SkipRecord(WEST, LOG_ID, SKIP.records[0])
    assert skip_of(WEST, stopped(), 3) == asked
    assert with_record(None, asked) == SKIP


def test_a_person_passes_over_what_they_saw() -> None:
    assert "Quarantined at seq 3, not at 5" in refused(stopped(), 5)


def test_nothing_is_passed_over_where_nothing_is_stopped() -> None:
    assert "is not Quarantined" in refused(followed(SKIPPING)[0])
    other = ReplicaState(0, 0, trouble=Trouble(Phase.REFUSED, "another cluster"))
    assert "is not Quarantined" in refused(other)


def test_what_is_no_record_of_the_log_names_its_remedies() -> None:
    state = ReplicaState(0, 0, trouble=Trouble(Phase.QUARANTINED, "not msgpack"))
    text = refused(state)
    assert "seq 1 of west is no record that continues its log: not msgpack" in text
    assert "meshd peer resync west" in text


# --- following otherwise --------------------------------------------------------------------------


def test_who_follows_otherwise_goes_on_where_the_former_one_stopped() -> None:
    before = stopped()
    after = followed_otherwise(before, anew=False)
    assert (after.at, after.at_revision) == (before.at, before.at_revision)
    assert not after.linked
    assert after.trouble is None
    state, effects, todo = step(after, SKIPPING, Begin(), 2)
    assert not effects
    behind = WindowRead(LOG.fetched()[1:], complete=True)
    at_cursor = LOG.fetched()[0]
    again = Identified(Descriptor(WEST, 7, 1, 1, 0), LOG.head, 2, 20, at_cursor)
    state, _, _ = step(state, SKIPPING, again, 2)
    state, _, todo = step(state, SKIPPING, behind, 2)
    assert state.at == LOG.head
    assert isinstance(todo, Watch)


def test_a_pause_outlasts_a_change() -> None:
    paused, _, _ = step(stopped(), RULES, Pause(), 1)
    after = followed_otherwise(paused, anew=False)
    assert after.paused
    _, _, todo = step(after, RULES, Begin(), 1)
    assert todo == Hold()
    resumed, _, _ = step(after, RULES, Resume(), 1)
    assert not resumed.paused


def test_who_reads_anew_keeps_only_what_was_counted() -> None:
    before = stopped()
    after = followed_otherwise(before, anew=True)
    assert (after.at, after.at_revision, after.staging) == (None, 0, False)
    assert after.traffic == before.traffic
