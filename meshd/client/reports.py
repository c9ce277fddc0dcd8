"""The shapes of what meshd says of a mesh as a whole: whether it agrees, and what a plan would do.

For: names of fields, beside those of `answers`. Not for: checking them at run time. Invariant: each
shape is one of `protocols/openapi.json`.
"""

from __future__ import annotations

from typing import Literal, TypedDict

from meshd.client.answers import AppliedItem, FieldChangeItem, IgnoredItem, PlaceItem
from meshd.client.policies import ClassItem


class LagItem(TypedDict):
    """How far a cluster is behind in a cluster's log. None: not known."""

    cluster: str
    events: int | None
    seconds: float | None


class ComparedItem(TypedDict):
    """The last time that two digests could be compared."""

    vector_text: str
    agrees: bool
    age_s: float


class StandpointItem(TypedDict):
    """One cluster beside the others. digest_here: what is derived for it where the asked one
    stands, which is here_text.
    """

    name: str
    self: bool
    verdict: Literal["agrees", "differs", "behind", "ahead", "unknown"]
    reason: str
    vector: dict[str, PlaceItem] | None
    vector_text: str | None
    digest: str | None
    here_text: str | None
    digest_here: str | None
    age_s: float | None
    behind: list[LagItem]
    compared: ComparedItem | None


class Agreement(TypedDict):
    """All clusters side by side, the asked one first."""

    cluster: str
    vector_text: str
    digest: str
    agrees: bool
    clusters: list[StandpointItem]


class PlannedBackendItem(TypedDict):
    """A backend that would come, go or change."""

    cluster: str
    name: str
    change: Literal["added", "removed", "changed"]
    fields: list[FieldChangeItem]


class ServiceEffectItem(TypedDict):
    """A service that would come, go or change. backends_omitted: how many more would."""

    namespace: str
    name: str
    change: Literal["added", "removed", "changed"]
    eligible_before: int | None
    eligible_after: int | None
    fields: list[FieldChangeItem]
    backends: list[PlannedBackendItem]
    backends_omitted: int


class EffectItem(TypedDict):
    """What would become of one cluster's table."""

    perspective: str
    services: list[ServiceEffectItem]


class ThroughItem(TypedDict):
    """Ports that one may reach; conditional: with those that only others can judge."""

    ports: list[str]
    conditional: list[str]


ReachChangeItem = TypedDict(
    "ReachChangeItem",
    {"from": ClassItem, "to": ClassItem, "old": ThroughItem, "new": ThroughItem},
)
"""What would change about who may talk to whom."""


class ReachItem(TypedDict):
    """All of that. count: all that was found; complete: whether all was looked at."""

    changes: list[ReachChangeItem]
    count: int
    complete: bool


class EmptyItem(TypedDict):
    """A service that would be served without any backend that is in."""

    perspective: str
    namespace: str
    name: str
    eligible_before: int | None


class Plan(TypedDict):
    """What changes would do to the tables. unknown: clusters of which nothing is known yet."""

    cluster: str
    vector_text: str
    events: int
    unknown: list[str]
    removed: list[str]
    applied: list[AppliedItem]
    ignored: list[IgnoredItem]
    empty: list[EmptyItem]
    reach: ReachItem
    perspectives: list[EffectItem]
