"""Watching the mesh's condition: what a stream of it says, typed.

For: `Client.watch`. Not for: connections (`stream`). Invariant: after any message the latest of
each kind and peer are how it is; a lost connection begins anew with all of it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Final, TypedDict, cast

from meshd.client.answers import LeaderItem, PeerItem
from meshd.client.http import Http
from meshd.client.sse import StreamEvent
from meshd.client.stream import Route, follow_read

WATCH_PATH: Final = "/v1/watch"


class OwnCondition(TypedDict):
    """The asked meshd in short."""

    cluster: str
    ready: bool
    reasons: list[str]
    leader: LeaderItem | None
    digest: str | None
    vector_text: str
    events_after: str


@dataclass(frozen=True, slots=True)
class MeshSeen:
    """All of it: at the start, and after every lost connection."""

    status: OwnCondition
    peers: list[PeerItem]


@dataclass(frozen=True, slots=True)
class StatusSeen:
    """This meshd is otherwise, or further on."""

    status: OwnCondition


@dataclass(frozen=True, slots=True)
class PeerSeen:
    """A peer is otherwise, further on, or new."""

    peer: PeerItem


@dataclass(frozen=True, slots=True)
class PeerGone:
    """A peer is followed no more."""

    name: str


ConditionMessage = MeshSeen | StatusSeen | PeerSeen | PeerGone


def watch(http: Http, every_s: int, patience_s: float) -> AsyncGenerator[ConditionMessage, None]:
    """What is told, for ever. Raises as `follow` does."""
    query = (("every_s", str(every_s)),)
    route = Route(path=WATCH_PATH, query=query, patience_s=patience_s)
    return follow_read(http, route, condition_of)


def condition_of(event: StreamEvent) -> ConditionMessage | None:
    """What a message says; None for one of a kind that isn't known here."""
    data = cast("Any", event.json())
    match event.type:
        case "meshd.mesh":
            return MeshSeen(data["status"], data["peers"])
        case "meshd.status":
            return StatusSeen(data)
        case "meshd.peer":
            return PeerSeen(data)
        case "meshd.peer.removed":
            return PeerGone(data["name"])
        case _:
            return None
