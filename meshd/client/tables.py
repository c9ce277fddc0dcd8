"""The shapes of answers about tables, for a type checker; the others are in `answers`.

For: names of fields. Not for: checking them at run time: a newer server may say more. Invariant:
each shape is one of `protocols/openapi.json`.
"""

from __future__ import annotations

from typing import Any, TypedDict

from meshd.client.answers import OriginItem, PortItem


class BackendItem(TypedDict):
    """One endpoint of a global service, in (eligible) or out of it (reason)."""

    cluster: str
    name: str
    address: str
    ports: list[PortItem]
    priority: int
    endpoint_weight: int
    weight: float
    region: str
    zone: str
    node: str
    serving: bool
    eligible: bool
    reason: str | None
    origin: OriginItem


class ConditionItem(TypedDict):
    """Something remarkable about a global service."""

    type: str
    cluster: str
    message: str


class TierItem(TypedDict):
    """The backends of one priority together; shares are in parts per million."""

    priority: int
    clusters: list[str]
    backends: int
    eligible: int
    weight: float
    healthy_ppm: int
    turned_ppm: int
    percent: int
    reach_ppm: int
    share_ppm: int


class DefinitionItem(TypedDict):
    """What is common to a global service's backends."""

    ports: list[PortItem]
    headless: bool
    session_affinity: str
    session_timeout_s: int
    affinity: str
    spill: dict[str, Any]
    exposure: str
    labels: dict[str, str]
    clusters: list[str]
    conditions: list[ConditionItem]


class TableService(DefinitionItem):
    """A global service with all its backends. stale: clusters whose backends are as last known."""

    namespace: str
    name: str
    stale: list[str]
    digest: str
    tiers: list[TierItem]
    backends: list[BackendItem]


class MadeItem(TypedDict):
    """An event that made something so. what: its type and key."""

    what: str
    cluster: str
    log_id: str
    seq: int
    time: str
    actor: str


class ExplainedTierItem(TierItem):
    """A tier, why its clusters are in it, and why it takes so much."""

    order: str
    why: str


class ExplainedEndpointItem(TypedDict):
    """One endpoint: in or out, and why. tier: its place among the tiers, from 0; None: in none."""

    cluster: str
    name: str
    address: str
    eligible: bool
    tier: int | None
    share_ppm: int
    reason: str | None
    why: str
    made: list[MadeItem]


class Explained(TypedDict):
    """Why a global service is as it is, as one cluster sees it."""

    perspective: str
    vector_text: str
    namespace: str
    name: str
    served: bool
    why: str
    affinity: str | None
    clusters: list[str]
    conditions: list[ConditionItem]
    tiers: list[ExplainedTierItem]
    endpoints: list[ExplainedEndpointItem]


class SlottedItem(TypedDict):
    """A backend that slots belong to."""

    cluster: str
    name: str
    address: str


class Slots(TypedDict):
    """A table for consistent hashing. slots: for each slot, which of the backends."""

    vector_text: str
    size: int
    backends: list[SlottedItem]
    slots: list[int]


class Table(TypedDict):
    """All global services from one cluster's perspective. unsure: clusters of which it may know
    something else. as_of: the vector of an earlier state; None for now. unknown: clusters of which
    nothing was known then.
    """

    perspective: str
    vector_text: str
    events_after: str
    digest: str
    stale: list[str]
    unsure: list[str]
    as_of: str | None
    unknown: list[str]
    services: list[TableService]
