"""Following tables: what a stream of them says, typed.

For: `Client.follow_tables`. Not for: keeping a copy (`mirror`), nor connections (`stream`).
Invariant: what is yielded is everything that was told, in its order; messages that this version
doesn't know are passed over.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypedDict, cast

from meshd.client.http import Http
from meshd.client.sse import Notice, StreamEvent
from meshd.client.stream import Route, follow_read
from meshd.client.tables import BackendItem, DefinitionItem, TableService, TierItem

TABLES_PATH: Final = "/v1/tables/stream"
MESSAGE_BYTES_MAX: Final = 256 * 1024 * 1024
"""One service whole: some 600 bytes for each of its backends."""


class ToldService(TableService):
    """A global service as a stream tells it. change: the number of its last change."""

    change: int


class RemovalItem(TypedDict):
    """A backend that is there no more."""

    cluster: str
    name: str


class ServiceDelta(TypedDict):
    """What became of a global service. before: the change that it was at; 0 if it is new, and this
    is all of it. definition, tiers: None if they are as they were.
    """

    namespace: str
    name: str
    change: int
    before: int
    stale: list[str]
    digest: str
    definition: DefinitionItem | None
    tiers: list[TierItem] | None
    upserts: list[BackendItem]
    removals: list[RemovalItem]


@dataclass(frozen=True, slots=True)
class SnapshotBegun:
    """All services that are selected are told next. events_after: a vector to follow events from.

    place, here and below: where to go on after it, over to another process as well.
    """

    place: str
    perspective: str
    events_after: str
    services: int


@dataclass(frozen=True, slots=True)
class SnapshotEnded:
    """All of them were told. What changed meanwhile follows."""

    place: str
    change: int


@dataclass(frozen=True, slots=True)
class ServiceTold:
    """A service, whole."""

    place: str
    service: ToldService


@dataclass(frozen=True, slots=True)
class ServiceChanged:
    """A part of a service is otherwise."""

    place: str
    delta: ServiceDelta


@dataclass(frozen=True, slots=True)
class ServiceRemoved:
    """A service is gone, or is none of the selected ones any more."""

    place: str
    namespace: str
    name: str
    change: int


@dataclass(frozen=True, slots=True)
class TablesReset:
    """The place was gone: what was told before is void, and a snapshot follows. detail: why."""

    place: str
    detail: str


TableMessage = (
    SnapshotBegun | SnapshotEnded | ServiceTold | ServiceChanged | ServiceRemoved | TablesReset
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowedTables:
    """Which services, and how. deltas: what changed of a service instead of all of it. after: the
    place of a message of such a stream, to go on behind it. patience_s: how long a broken
    connection may take to come back. Services to which all of the others apply are told; empty:
    whatever it is. services: as `namespace/name`. labels: as `name=value` or `name`.
    """

    deltas: bool = False
    after: str = ""
    namespaces: Sequence[str] = ()
    services: Sequence[str] = ()
    labels: Sequence[str] = ()
    clusters: Sequence[str] = ()
    patience_s: float = 60.0

    def query(self) -> list[tuple[str, str]]:
        """How it is asked for. A gap is never passed over, and never ends the stream."""
        given = [("reset", "snapshot")]
        given += [("delta", "true")] if self.deltas else []
        named = (
            ("namespace", self.namespaces),
            ("service", self.services),
            ("label", self.labels),
            ("cluster", self.clusters),
        )
        return given + [(name, value) for name, values in named for value in values]


def follow_tables(http: Http, followed: FollowedTables) -> AsyncGenerator[TableMessage, None]:
    """What is told, for ever. Raises as `follow` does."""
    route = Route(
        path=TABLES_PATH,
        after=followed.after,
        query=followed.query(),
        event_bytes_max=MESSAGE_BYTES_MAX,
        patience_s=followed.patience_s,
    )
    return follow_read(http, route, message_of)


def message_of(event: StreamEvent) -> TableMessage | None:
    """What a message says; None for one of a kind that isn't known here. Raises ValueError,
    KeyError or TypeError for one that isn't as it should be.
    """
    data = cast("Any", event.json())
    match event.type:
        case Notice.SNAPSHOT_BEGIN:
            return SnapshotBegun(
                event.id, data["perspective"], data["events_after"], data["services"]
            )
        case Notice.SNAPSHOT_END:
            return SnapshotEnded(event.id, data["change"])
        case "meshd.table":
            return ServiceTold(event.id, data)
        case "meshd.table.delta":
            return ServiceChanged(event.id, data)
        case "meshd.table.removed":
            return ServiceRemoved(event.id, data["namespace"], data["name"], data["change"])
        case Notice.RESET:
            return TablesReset(event.id, data["detail"])
        case _:
            return None
