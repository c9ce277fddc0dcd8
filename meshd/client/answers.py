"""The shapes of meshd's answers, for a type checker.

For: names of fields. Not for: checking them at run time: a newer server may say more. Invariant:
each shape is one of `protocols/openapi.json`.
"""

from __future__ import annotations

from typing import Any, Literal, TypedDict


class PortItem(TypedDict):
    """One port."""

    port: int
    name: str
    protocol: str
    app_protocol: str


class OriginItem(TypedDict):
    """The event that made something so."""

    cluster: str
    log_id: str
    seq: int
    time: str
    actor: str


class ServiceItem(TypedDict, total=False):
    """A cluster's own definition of a service; also what is sent to define one."""

    namespace: str
    name: str
    ports: list[PortItem]
    labels: dict[str, str]
    shared: bool | None
    headless: bool
    session_affinity: str
    session_timeout_s: int
    affinity: str
    tiers: list[dict[str, Any]]
    spill: dict[str, Any]
    staleness: dict[str, Any]
    weight: int
    exposure: str
    export: dict[str, Any]
    source: str
    created_ms: int
    origin: OriginItem


class EndpointItem(TypedDict, total=False):
    """A cluster's own endpoint; also what is sent to set one."""

    namespace: str
    service: str
    name: str
    address: str
    ports: list[PortItem]
    ready: bool
    serving: bool | None
    terminating: bool
    region: str
    zone: str
    node: str
    weight: int
    labels: dict[str, str]
    source: str
    origin: OriginItem


class RangeConditionItem(TypedDict):
    """Address ranges that collide, of two clusters or of one."""

    type: str
    clusters: list[str]
    ranges: list[str]
    message: str


class FieldChangeItem(TypedDict):
    """A field that differs, or that an apply changes. None: it isn't there."""

    path: str
    old: Any
    new: Any


class BackendDiffItem(TypedDict):
    """One backend that came, went or changed. origin, before: what made it what it is and was."""

    cluster: str
    name: str
    change: Literal["added", "removed", "changed"]
    fields: list[FieldChangeItem]
    origin: OriginItem | None
    before: OriginItem | None


class ServiceDiffItem(TypedDict):
    """One service that came, went or changed. fields: of its definition."""

    namespace: str
    name: str
    change: Literal["added", "removed", "changed"]
    fields: list[FieldChangeItem]
    backends: list[BackendDiffItem]


TableDiff = TypedDict(
    "TableDiff",
    {
        "perspective": str,
        "from": str,
        "to": str,
        "unknown_from": list[str],
        "unknown_to": list[str],
        "digest_from": str,
        "digest_to": str,
        "services": list[ServiceDiffItem],
    },
)
"""What is different between the tables of two vectors."""


class StepItem(TypedDict):
    """One event of a thing's history. changes: None where the value before wasn't looked for far
    enough. snapshot_seq: of what is known from the snapshot where the log was cut.
    """

    cluster: str
    log_id: str
    seq: int
    time: str
    actor: str
    type: str
    subject: str
    data: dict[str, Any] | None
    changes: list[FieldChangeItem] | None
    snapshot_seq: int | None


class HistoryPage(TypedDict):
    """What happened to one thing, newest first. next: the `before` of the next page."""

    kind: str
    name: str
    items: list[StepItem]
    next: str | None
    unknown: list[str]


class ClusterItem(TypedDict):
    """A cluster of the mesh as seen from the one that was asked. None: not known yet. phase: None
    of an earlier state.
    """

    name: str
    id: int | None
    region: str | None
    zone: str | None
    labels: dict[str, str]
    self: bool
    phase: str | None
    log_id: str | None
    seq: int | None
    services: int | None
    endpoints: int | None
    nodes: int | None
    identities: int | None
    policies: int | None
    state: str | None
    weight: int | None
    announces: list[str] | None
    conditions: list[RangeConditionItem]
    conditions_count: int


class OwnClusterItem(TypedDict):
    """What the asked cluster says of itself."""

    name: str
    id: int
    region: str
    zone: str
    labels: dict[str, str]
    state: str
    weight: int
    announces: list[str]
    audiences: list[str]
    origin: OriginItem


class NodeItem(TypedDict):
    """A node of a cluster."""

    name: str
    addresses: list[str]
    pod_cidrs: list[str]
    tunnel_endpoint: str
    public_key: str
    region: str
    zone: str
    labels: dict[str, str]
    audiences: list[str]
    source: str
    origin: OriginItem


class IdentityItem(TypedDict):
    """A set of labels and its number."""

    number: int
    labels: dict[str, str]
    audiences: list[str]
    source: str
    origin: OriginItem


class PeerItem(TypedDict):
    """How following a peer goes. None: not known yet."""

    name: str
    phase: str
    reason: str
    since: str
    standing: str
    log_id: str | None
    seq: int | None
    head_seq: int | None
    lag_events: int | None
    heartbeat_age_s: float | None
    round_trip_s: float | None
    unfresh_s: float
    link: str
    records_read: int
    records_duplicate: int
    reconnects: int
    forks: int
    replica_seq: int | None
    snapshots: int
    slowed_s: float
    source: str
    endpoints: list[str]
    quarantined_seq: int | None
    skipped: list[int]


class PlaceItem(TypedDict):
    """A place in a log."""

    log_id: str
    seq: int


class LogItem(TypedDict):
    """A log in the own etcd. first_seq: the oldest event that wasn't cut off."""

    log: str
    log_id: str
    first_seq: int
    last_seq: int
    snapshot_seq: int | None
    snapshot_items: int | None
    snapshot_parts: int | None


class LeaderItem(TypedDict):
    """The meshd that does the cluster's chores. self: the one that answers."""

    self: bool
    host: str
    pid: int
    api: str


class WriteResult(TypedDict):
    """What became of a write."""

    events: int
    first_seq: int
    last_seq: int
    position: str
    repeated: bool


class IdentityResult(WriteResult):
    """What became of asking for an identity, and its number."""

    number: int


class RemovedItem(TypedDict):
    """A thing that its owner no longer has."""

    kind: str
    namespace: str
    name: str


class AppliedItem(TypedDict):
    """A document that was taken."""

    where: str
    kind: str
    namespace: str
    name: str
    note: str
    change: Literal["created", "updated", "unchanged"]
    changes: list[FieldChangeItem]
    changes_count: int


class IgnoredItem(TypedDict):
    """A document that means nothing to meshd."""

    where: str
    kind: str
    namespace: str
    name: str
    reason: str


class ApplyResult(TypedDict):
    """What became of an apply; of a dry run no seq nor position. decided_on: where the log was."""

    dry_run: bool
    decided_on: str
    events: int
    first_seq: int | None
    last_seq: int | None
    position: str | None
    repeated: bool
    applied: list[AppliedItem]
    removed: list[RemovedItem]
    ignored: list[IgnoredItem]


class CloudEvent(TypedDict):
    """One event, as CloudEvents 1.0 has it."""

    specversion: str
    id: str
    source: str
    type: str
    subject: str
    time: str
    datacontenttype: str
    meshdcluster: str
    meshdseq: int
    meshdactor: str
    data: dict[str, Any] | None


class EventPage(TypedDict):
    """Some events of one log. next: where the next page starts, None at the end."""

    items: list[CloudEvent]
    next: int | None
