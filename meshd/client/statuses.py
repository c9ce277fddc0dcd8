"""The shape of a meshd's status.

For: names of fields, beside those of `answers`. Not for: checking them at run time. Invariant: each
shape is one of `protocols/openapi.json`.
"""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

from meshd.client.answers import LeaderItem, PeerItem, PlaceItem


class EtcdItem(TypedDict):
    """The cluster's own etcd."""

    reachable: bool
    reason: str
    version: str | None
    db_size_bytes: int | None


class ExportItem(TypedDict):
    """The end of an export log. written: whether anything is still offered to its audience."""

    audience: str
    written: bool
    log_id: str
    seq: int
    hash: str


class MqttItem(TypedDict):
    """Publishing to a broker. published, behind_events: None where another meshd publishes."""

    phase: str
    broker: str
    reason: str
    published: str | None
    behind_events: int | None


class Status(TypedDict):
    """One meshd in short. events_after: a vector to follow events from. mqtt: None without a
    broker.
    """

    cluster: str
    id: int
    version: str
    ready: bool
    reasons: list[str]
    vector: dict[str, PlaceItem]
    vector_text: str
    events_after: str
    digest: str | None
    local: dict[str, Any] | None
    exports: list[ExportItem]
    peers: list[PeerItem]
    etcd: EtcdItem
    leader: LeaderItem | None
    mqtt: NotRequired[MqttItem | None]
    uptime_s: float
