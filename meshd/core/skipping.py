"""Which records of a peer's log are passed over, and which may be.

For: a person who would rather have the rest of a log than none of it. Not for: passing over
(`fold.pass_over`), nor the event that says so (`decide`). Invariants: only a record that decodes,
is of that log and continues its chain is ever passed over, so that what comes behind it is still
held to the chain; and only the very bytes that somebody said it of.

Rules:
- A record is passed over when the seq of its first event and its hash were said, of this log id.
- Only the record at which a peer is Quarantined may be said, and only one that was given out to be
  folded: it says what it may not, or what nobody can fold. What doesn't decode or doesn't continue
  the log is no record of it; there its owner has to act.
"""

from __future__ import annotations

from meshd.model.command import SkipRecord
from meshd.model.errors import Problem, RejectedError
from meshd.model.event import Record
from meshd.model.ids import ClusterName, Head, Seq
from meshd.model.listed import SKIPS_MAX, Skip, SkippedRecord
from meshd.model.peer import Phase
from meshd.model.replica import ReplicaState


def is_skipped(skip: Skip | None, record: Record) -> bool:
    """Whether this record is passed over."""
    if skip is None or skip.log_id != record.log_id:
        return False
    return skip.hash_at(record.first_seq) == record.hash.hex()


def skipped_seqs(skip: Skip | None, at: Head | None) -> tuple[Seq, ...]:
    """Where a log that was read up to `at` isn't all that its owner said."""
    if skip is None or at is None or skip.log_id != at.log_id:
        return ()
    return tuple(Seq(record.seq) for record in skip.records if record.seq <= at.seq)


def with_record(known: Skip | None, more: SkipRecord) -> Skip:
    """What is passed over with one more record; another log's are forgotten.

    Raises RejectedError beyond SKIPS_MAX.
    """
    if known is None or known.log_id != more.log_id:
        return Skip(log_id=more.log_id, records=(more.record,))
    others = [record for record in known.records if record.seq != more.record.seq]
    records = sorted((*others, more.record), key=lambda record: record.seq)
    if len(records) > SKIPS_MAX:
        raise RejectedError(
            (
                Problem(
                    "seq",
                    f"{SKIPS_MAX} records of this log are passed over already",
                    "have its owner found its log anew, or remove the peer",
                ),
            )
        )
    return Skip(log_id=known.log_id, records=tuple(records))


def skip_of(peer: ClusterName, state: ReplicaState, seq: int | None) -> SkipRecord:
    """What passing over the record at which a peer is stopped means; seq: what the person saw.

    Raises RejectedError if it isn't stopped there, or not by a record that can be passed over.
    """
    trouble = state.trouble
    if trouble is None or trouble.phase is not Phase.QUARANTINED:
        raise _refused(f"{peer} is not Quarantined", "there is nothing to pass over")
    at_seq = state.at.seq + 1 if state.at else 1
    if seq is not None and seq != at_seq:
        raise _refused(
            f"{peer} is Quarantined at seq {at_seq}, not at {seq}", "look again: meshd peer show"
        )
    if trouble.record is None:
        raise _refused(
            f"what is at seq {at_seq} of {peer} is no record that continues its log:"
            f" {trouble.reason}",
            "its owner can restore or cut that log; after a cut, or once it has a snapshot behind"
            f" seq {at_seq}, `meshd peer resync {peer}` reads it anew",
        )
    bad = trouble.record
    record = SkippedRecord(seq=bad.seq, hash=bad.hash.hex())
    return SkipRecord(peer, bad.log_id, record)


def _refused(what: str, remedy: str) -> RejectedError:
    return RejectedError((Problem("seq", what, remedy),))
