"""What was seen of a run, entry by entry: the closed set of kinds that a history is made of.

For: those who record a run and those who judge it. Not for: files (`journal`), nor what follows
from entries (`evidence`). Invariants: an entry says what somebody outside meshd saw or did, never
what it means; all times are nanoseconds of one monotonic clock; an entry knows its line.

Words: a position is `cluster:log id:seq`, a vector is positions with commas between, as REST has
them. A log is called `local`, `export/<audience>` or `replica/<peer>`, as in its keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, ClassVar, NamedTuple

FORMAT = 1
"""Of the file. A reader refuses another one."""


VectorText = Annotated[str, "positions"]
Base64Text = Annotated[str, "base64"]
"""Texts of a form that is checked when they are read."""


class Outcome(StrEnum):
    """What is known of an operation. unknown: it may have been done, or not, or be done later."""

    OK = "ok"
    FAIL = "fail"
    UNKNOWN = "unknown"


class Change(StrEnum):
    """What became of a process. killed: by us; ended: by itself."""

    STARTED = "started"
    KILLED = "killed"
    ENDED = "ended"


class Deed(StrEnum):
    """What somebody tried with the rights of another cluster."""

    READ = "read"
    WRITE = "write"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a run is held to.

    converge_s: after the last fault healed. notice_fork_s: from a log's replacement until every
    reader has left the old one. ready_lag_s: of peers that are called Ready. latency_factor,
    latency_slack_s: how far a disturbed p99 may be above the quiet one; the larger counts.
    settle_s: how long after a fault a cluster is not yet quiet. The others: of each meshd.
    """

    converge_s: float = 30.0
    notice_fork_s: float = 30.0
    ready_lag_s: float = 15.0
    latency_factor: float = 1.2
    latency_slack_s: float = 0.050
    settle_s: float = 5.0
    rss_bytes: int = 512 * 1024 * 1024
    fds: int = 1024
    tasks: int = 2000
    connections: int = 512
    connects_per_min: int = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What every entry has. line: where it stands in its file, from 1; 0 before it is written."""

    KIND: ClassVar[str] = ""
    at_ns: int
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted(Entry):
    """The first entry. versions: of meshd, etcd and whatever else takes part."""

    KIND: ClassVar[str] = "run"
    format: int = FORMAT
    seed: int
    scenario: str
    versions: Mapping[str, str]
    clusters: tuple[str, ...]
    bounds: Bounds


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded(Entry):
    """The last entry of a run that came to its end. error: why it is none that proves anything."""

    KIND: ClassVar[str] = "end"
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultInjected(Entry):
    """A fault begins. clusters: whom it is done to. loses: of these the etcd forgets history, as it
    is wiped or restored. poisons: positions from which on somebody else wrote into an export log.
    """

    KIND: ClassVar[str] = "fault-injected"
    fault_id: int
    fault: str
    clusters: tuple[str, ...]
    loses: tuple[str, ...] = ()
    poisons: tuple[VectorText, ...] = ()
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultBit(Entry):
    """It was seen to have an effect. proof: which."""

    KIND: ClassVar[str] = "fault-bit"
    fault_id: int
    proof: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultHealed(Entry):
    """It is over. begun_ns: when its healing began, since when it may have been over for some of
    its clusters; 0 if that isn't known.
    """

    KIND: ClassVar[str] = "fault-healed"
    fault_id: int
    begun_ns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Invoked(Entry):
    """A command is sent. op: its number, used once. key: the idempotency key, or empty; whoever
    tries again sends the same one as another operation. A command of several portions, which have
    keys of their own, is no single operation.
    """

    KIND: ClassVar[str] = "invoked"
    op: int
    cluster: str
    caller: str
    key: str
    command: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed(Entry):
    """Its answer, or that none came. status: HTTP's, 0 without one. log_id, first_seq, last_seq: of
    the events that it made in the local log, 0 if it made none. repeated: the key was known.
    """

    KIND: ClassVar[str] = "completed"
    op: int
    outcome: Outcome
    status: int = 0
    log_id: str = ""
    first_seq: int = 0
    last_seq: int = 0
    repeated: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamMessage(Entry):
    """A subscriber of a cluster's meshd was told an event. of, log: of which log. connection: the
    subscriber's how-manieth. reset: not an event, but that the stream goes on behind `seq` of this
    log, whatever was told before.
    """

    KIND: ClassVar[str] = "stream"
    subscriber: str
    connection: int
    cluster: str
    of: str
    log: str
    log_id: str
    seq: int
    type: str = ""
    subject: str = ""
    reset: bool = False


class Row(NamedTuple):
    """One backend of a table. ports: `number/protocol name`, sorted, with commas between. weight:
    in units of an endpoint's. reason: why it is out, or empty.
    """

    cluster: str
    name: str
    address: str
    ports: str
    priority: int
    weight: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRead(Entry):
    """The table of a cluster was read of a process. vector: of what peers may know. events_after:
    the same with the local log's position for the own cluster. stale: who is out of sight. anew:
    derived from the logs for this answer, not kept up to date. services: None if only the digest
    was read.
    """

    KIND: ClassVar[str] = "table"
    reader: str
    process: str
    cluster: str
    vector: VectorText
    events_after: VectorText = ""
    digest: str
    stale: tuple[str, ...] = ()
    anew: bool = False
    services: Mapping[str, tuple[Row, ...]] | None = None


class PeerSeen(NamedTuple):
    """A peer as a status has it. lag_s: how old what is known of it is; negative: not known."""

    name: str
    phase: str
    seq: int
    lag_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusRead(Entry):
    """A meshd's status was read. process: which one's."""

    KIND: ClassVar[str] = "status"
    process: str
    cluster: str
    ready: bool
    vector: VectorText
    digest: str = ""
    peers: tuple[PeerSeen, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LossNamed(Entry):
    """The mesh said that these events of a local log are lost. said_by: where."""

    KIND: ClassVar[str] = "loss-named"
    cluster: str
    log_id: str
    first_seq: int
    last_seq: int
    said_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Request(Entry):
    """A request to a service was sent through a cluster's table. answered_by: the backend's
    cluster; empty if nobody answered.
    """

    KIND: ClassVar[str] = "request"
    cluster: str
    service: str
    answered_by: str
    backend: str
    took_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt(Entry):
    """Somebody tried something with a cluster's rights on another's etcd. may: whether the design
    lets them. done: whether it was let.
    """

    KIND: ClassVar[str] = "attempt"
    cluster: str
    target: str
    deed: Deed
    key: str
    may: bool
    done: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample(Entry):
    """What a process uses. connects: how many connections it has tried to open since its start.
    Negative: not known.
    """

    KIND: ClassVar[str] = "sample"
    process: str
    cluster: str
    rss_bytes: int = -1
    fds: int = -1
    tasks: int = -1
    connections: int = -1
    connects: int = -1


class RawKey(NamedTuple):
    """One key as etcdctl prints it. key: behind the log's root. value: base64."""

    key: str
    revision: int
    version: int
    value: Base64Text


@dataclass(frozen=True, slots=True, kw_only=True)
class RawLog(Entry):
    """All keys of one log, read out of a cluster's etcd by etcdctl at one revision. asked_ns: when
    it was asked for: it holds all that was done before, and may hold what was done until `at_ns`.
    0: nothing was done meanwhile.
    """

    KIND: ClassVar[str] = "log"
    cluster: str
    log: str
    keys: tuple[RawKey, ...]
    asked_ns: int = 0

    @property
    def from_ns(self) -> int:
        """Up to when it is sure to hold everything."""
        return self.asked_ns or self.at_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class Process(Entry):
    """A process began or ended. status: its exit status, or the signal with a minus."""

    KIND: ClassVar[str] = "process"
    process: str
    cluster: str
    pid: int
    change: Change
    status: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stalled(Entry):
    """Whoever recorded did nothing from then until now: what took long meanwhile may have taken
    long here.
    """

    KIND: ClassVar[str] = "stalled"
    from_ns: int


KINDS: Mapping[str, type[Entry]] = {
    kind.KIND: kind
    for kind in (
        *(RunStarted, RunEnded, FaultInjected, FaultBit, FaultHealed, Invoked, Completed),
        *(StreamMessage, TableRead, StatusRead, LossNamed, Request, Attempt, Sample, RawLog),
        *(Process, Stalled),
    )
}
"""All of them. A history holds no other."""
