"""Following one log, in words: what comes in, what goes out, and what is known in between.

For: the values that `core.replica` steps through and `runtime.follower` acts on. Not for: any of
their rules. Invariant: all times are monotonic seconds of the one who follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from meshd.model.codec import Descriptor
from meshd.model.event import Record
from meshd.model.ids import ClusterName, Head, LogId, RecordHash, Seq
from meshd.model.listed import Skip
from meshd.model.peer import NO_TRAFFIC, Phase, Traffic
from meshd.model.snapshot import Manifest


@dataclass(frozen=True, slots=True)
class FollowRules:
    """What one log is held to.

    cluster: whose log this must be. cluster_id: its numeric id if known, else 0. foreign_ids: ids
    that it may not have. has_heartbeat: false for the own log. lost_after_s: unfresh for so long
    is Lost rather than Stale. skip: what is passed over of it.
    """

    cluster: ClusterName
    cluster_id: int = 0
    foreign_ids: frozenset[int] = frozenset()
    has_heartbeat: bool = True
    silent_after_s: float = 10.0
    lost_after_s: float = 60.0
    recycle_after_s: float = 300.0
    slow_retry_s: float = 30.0
    window_seqs: int = 5000
    skip: Skip | None = None


@dataclass(frozen=True, slots=True)
class Fetched:
    """A record as it was found: under which seq in its key, with which mod revision."""

    key_seq: int
    revision: int
    raw: bytes


# What comes in.


@dataclass(frozen=True, slots=True)
class Begin:
    """The driver starts, or starts again after a wait."""


@dataclass(frozen=True, slots=True)
class Identified:
    """One consistent read of what stands behind the address. revision: the store's.

    at_cursor: the record whose key carries the seq of `at`, if that key exists. snapshot: the
    log's valid snapshot, if there is one.
    """

    descriptor: Descriptor | None
    head: Head | None
    beat: int
    revision: int
    at_cursor: Fetched | None
    snapshot: Manifest | None = None


@dataclass(frozen=True, slots=True)
class WindowRead:
    """The records of the window that was asked for, ascending; `complete` if it held no more."""

    records: tuple[Fetched, ...]
    complete: bool


@dataclass(frozen=True, slots=True)
class PartRead:
    """The part of the snapshot that was asked for; None if it is gone."""

    raw: bytes | None


@dataclass(frozen=True, slots=True)
class Watched:
    """One response of the watch: whole revisions of the log's keys.

    head: as its own key or a heartbeat says; a heartbeat's may be a little behind.
    """

    records: tuple[Fetched, ...]
    head: Head | None
    beat: int | None


@dataclass(frozen=True, slots=True)
class Quiet:
    """The watch was silent for so long that it is doubted."""


@dataclass(frozen=True, slots=True)
class LinkFailed:
    """The peer's etcd could not be read. denied: it answered, and refused."""

    reason: str
    denied: bool = False


@dataclass(frozen=True, slots=True)
class WatchLost:
    """The watch ended in a way that says nothing about the link, such as compaction."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unreadable:
    """What should identify the log can't be decoded."""

    reason: str


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A record that continues its log and can't be folded. seq: of its first event."""

    log_id: LogId
    seq: Seq
    hash: RecordHash


@dataclass(frozen=True, slots=True)
class Misread:
    """What was given out can't be folded. The log stops before it, and the step that gave it out
    did not happen beyond `at`.

    at, at_revision: the last record that could be; or the snapshot, once all of it was. record:
    what couldn't be, if it is a record that continues the log.
    """

    reason: str
    at: Head | None
    at_revision: int
    record: BadRecord | None = None


@dataclass(frozen=True, slots=True)
class Pause:
    """A person says not to read this peer until it is resumed."""


@dataclass(frozen=True, slots=True)
class Resume:
    """A person says to read it again."""


@dataclass(frozen=True, slots=True)
class Resync:
    """A person says to read its log anew, from the beginning, beside what is served."""


Control = Pause | Resume | Resync
Input = (
    Begin
    | Identified
    | WindowRead
    | PartRead
    | Watched
    | Quiet
    | LinkFailed
    | WatchLost
    | Unreadable
    | Misread
    | Pause
    | Resume
    | Resync
)


# What goes out: effects, done at once, then the one thing to do next.


@dataclass(frozen=True, slots=True)
class BeginGeneration:
    """From here on FOLD builds a new state beside the served one, from this log's beginning or its
    snapshot. is_fork: another history was found, rather than one that was cut or never read.
    """

    log_id: LogId
    is_fork: bool = False


@dataclass(frozen=True, slots=True)
class Fold:
    """Fold this record; `revision` is where it lies in the peer's etcd."""

    record: Record
    revision: int


@dataclass(frozen=True, slots=True)
class PassOver:
    """Go on behind this record without folding it: a person said so. It is kept like any other."""

    record: Record
    revision: int


@dataclass(frozen=True, slots=True)
class LoadPart:
    """Fold this part of a snapshot into the new state."""

    manifest: Manifest
    number: int
    raw: bytes


@dataclass(frozen=True, slots=True)
class FinishSnapshot:
    """All parts were loaded: the new state stands where the snapshot does."""

    manifest: Manifest


@dataclass(frozen=True, slots=True)
class CompleteGeneration:
    """The new state is whole: serve it in place of the old one."""


Effect = BeginGeneration | LoadPart | FinishSnapshot | Fold | PassOver | CompleteGeneration


@dataclass(frozen=True, slots=True)
class Identify:
    """Read descriptor, head, heartbeat and the record at `cursor_seq` (0: none), at once."""

    cursor_seq: int


@dataclass(frozen=True, slots=True)
class ReadWindow:
    """Read the records with seqs in (after_seq, through_seq]."""

    after_seq: int
    through_seq: int


@dataclass(frozen=True, slots=True)
class ReadPart:
    """Read a part of the snapshot at `seq`."""

    seq: int
    number: int


@dataclass(frozen=True, slots=True)
class Watch:
    """Go on with the watch; if there is none, begin one at this revision."""

    from_revision: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait: the n-th time in a row with growing delay, or `slow` for what only a person mends."""

    attempt: int
    slow: bool = False


@dataclass(frozen=True, slots=True)
class Hold:
    """Do nothing until a person says otherwise."""


Todo = Identify | ReadWindow | ReadPart | Watch | Wait | Hold


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why the log isn't read on: Refused or Quarantined, and the reason. record: at which record,
    if it is one that could be passed over.
    """

    phase: Phase
    reason: str
    record: BadRecord | None = None


class ReplicaState(NamedTuple):
    """Everything known of a followed log; all times are monotonic seconds.

    A tuple, since every input makes a new one: that takes a fifth of what a frozen dataclass does.

    at: what was given out to fold; None before the log was ever seen. at_revision: the mod
    revision of the record at `at`, 0 if unknown. staging: a new generation is being built.
    loading, parts_loaded: from which snapshot, and how much of it is in.
    target: the peer's head as last seen. watch_revision: where the next watch begins.
    fresh_s: when it was last fresh, at first when it began. beat_s: when the heartbeat last rose.
    doubted_seq: after which seq a window did not fit, once. behind_seq: where `at` stood when a
    heartbeat told of an earlier head, once. link_reason: why the link last failed.
    """

    began_s: float
    fresh_s: float
    at: Head | None = None
    at_revision: int = 0
    staging: bool = False
    loading: Manifest | None = None
    parts_loaded: int = 0
    target: Head | None = None
    linked: bool = False
    watching_since_s: float | None = None
    heard_s: float = 0.0
    watch_revision: int = 0
    beat: int = -1
    beat_s: float | None = None
    attempt: int = 0
    trouble: Trouble | None = None
    paused: bool = False
    doubted_seq: int | None = None
    behind_seq: int | None = None
    link_reason: str = "not linked yet"
    fork_reason: str = ""
    traffic: Traffic = NO_TRAFFIC


Step = tuple[ReplicaState, tuple[Effect, ...], Todo]
"""What taking one input comes to: the new state, the effects in order, and what to do next."""
