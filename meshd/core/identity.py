"""Who stands behind a peer's address, and whether its log is the one that was read so far.

For: judging one identification, or one head. Not for: what follows from it (`replica`). Invariant:
a log is taken for the same only if its id is the same and what lies at the cursor is what was read
there.
"""

from __future__ import annotations

from meshd.core.claims import id_taken
from meshd.model.codec import PROTOCOL_MAX, PROTOCOL_MIN, Descriptor, decode_record
from meshd.model.errors import CorruptError
from meshd.model.ids import Head
from meshd.model.replica import Fetched, FollowRules, Identified, ReplicaState, Watched
from meshd.model.snapshot import NO_MARK, Manifest


def emptiness(seen: Identified) -> str:
    """An etcd whose meshd never ran is no reason to give up on it: it may run soon."""
    if seen.descriptor is None:
        return "its etcd holds no meshd cluster yet; check the peer's endpoints and prefix"
    return "its etcd holds no such log; check the peer's audience"


def refusal(rules: FollowRules, descriptor: Descriptor) -> str:
    """Why this can't be the cluster that is wanted; '' if it can."""
    if descriptor.name != rules.cluster:
        return (
            f"the cluster behind this address is {descriptor.name}, not {rules.cluster};"
            " check the peer's name and endpoints"
        )
    if (rules.cluster_id and descriptor.id != rules.cluster_id) or (
        descriptor.id in rules.foreign_ids
    ):
        return id_taken(descriptor.id)
    if descriptor.protocol_min > PROTOCOL_MAX or descriptor.protocol_max < PROTOCOL_MIN:
        return (
            f"it speaks protocol {descriptor.protocol_min}..{descriptor.protocol_max},"
            f" this meshd {PROTOCOL_MIN}..{PROTOCOL_MAX}; upgrade the older one"
        )
    return ""


def usable_snapshot(seen: Identified) -> Manifest | None:
    """The snapshot of the log that was identified, if there is one and it is of that log."""
    snapshot, head = seen.snapshot, seen.head
    if snapshot is None or head is None:
        return None
    is_of_it = snapshot.head.log_id == head.log_id and snapshot.head.seq <= head.seq
    return snapshot if is_of_it else None


def fork_reason(at: Head, at_revision: int, seen: Identified, head: Head) -> str:
    """Why this isn't the log that was read up to `at`; '' if it is."""
    if head.log_id != at.log_id:
        return f"log {at.log_id} was replaced by log {head.log_id}"
    if head.seq < at.seq:
        return f"its log ends at {head.seq}, before {at.seq} which was read already"
    if at.seq == 0:
        return ""
    found = seen.at_cursor
    if found is None:
        return _where_nothing_is(at, usable_snapshot(seen))
    return _where_a_record_is(at, at_revision, found)


def heard_head(state: ReplicaState, seen: Watched) -> tuple[ReplicaState, bool]:
    """Take in a head that a watch told; says whether it makes one ask who is there.

    A heartbeat may be a little behind: it was put together before it was written. The next one was
    put together after that, and so after everything that was read before the first.
    """
    at, head = state.at, seen.head
    if at is None or head is None:
        return state, False
    if head.log_id != at.log_id or (head.seq == at.seq and head.hash != at.hash):
        return state, True
    if head.seq >= at.seq or seen.beat is None:
        return state, False
    if state.behind_seq == at.seq:
        return state._replace(behind_seq=None), True
    return state._replace(behind_seq=at.seq), False


def _where_nothing_is(at: Head, snapshot: Manifest | None) -> str:
    """A record may be gone because the log was cut there, or beyond."""
    trim = snapshot.trim if snapshot else NO_MARK
    if at.seq > trim.seq:
        return f"its record at {at.seq} is gone"
    if at.seq == trim.seq and at.hash != trim.hash:
        return f"it was cut at {at.seq}, where it is another log"
    return ""


def _where_a_record_is(at: Head, at_revision: int, found: Fetched) -> str:
    if at_revision and found.revision != at_revision:
        return f"its record at {at.seq} was written again"
    try:
        record = decode_record(found.raw, f"record {at.seq}")
    except CorruptError as error:
        return str(error)
    return "" if record.hash == at.hash else f"its record at {at.seq} is another one"
