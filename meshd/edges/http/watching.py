"""`/v1/watch`: the mesh's condition, as it is and as it becomes.

For: what is told of this meshd and its peers, when, and how often. Not for: the fields (`status`,
`clusters`), nor how a stream is sent (`outlets`). Invariants: what is told is how it is when it is
told, and whoever takes nothing misses only what is no longer so; one look serves all who watch.

It is a condition and no history, so nothing can be resumed: everybody begins with all of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import orjson
from aiohttp import web

from meshd.core.telling import Json
from meshd.edges.http.clusters import peer_items
from meshd.edges.http.limits import NODE
from meshd.edges.http.outlets import Batch, Message, Outlet, serve_stream
from meshd.edges.http.requests import check_query, query_number
from meshd.edges.http.status import digest_now, leader_fields, not_ready_because
from meshd.model.ids import format_vector
from meshd.runtime.node import Node

MESH: Final = "meshd.mesh"
STATUS: Final = "meshd.status"
PEER: Final = "meshd.peer"
PEER_REMOVED: Final = "meshd.peer.removed"

LOOK_EVERY_S: Final = 0.25
"""How often a subscriber looks whether something is otherwise: phases are reviewed every 0.5 s, and
a thousand who watch cost some hundredths of a core."""
EVERY_S_DEFAULT: Final = 1
"""How often numbers alone are told at most: people read no faster, and a log moves many times a
second."""
EVERY_S_MAX: Final = 60

AT_ONCE: Final = frozenset(
    {
        *("phase", "reason", "standing", "link", "log_id", "source", "endpoints"),
        *("quarantined_seq", "skipped", "cluster", "ready", "reasons", "leader"),
    }
)
"""Of a peer and of the status, what is told as soon as it is otherwise."""
NOW_AND_THEN: Final = frozenset(
    {
        *("seq", "head_seq", "lag_events", "replica_seq", "reconnects", "forks", "snapshots"),
        *("digest", "vector_text", "events_after"),
    }
)
"""What is told now and then while it changes. The rest are ages, which change by themselves."""


class Item:
    """The status or one peer, as it was at one look."""

    def __init__(self, event: str, fields: Json) -> None:
        self.fields = fields
        self.state = {name: fields[name] for name in sorted(AT_ONCE & fields.keys())}
        self.numbers = {name: fields[name] for name in sorted(NOW_AND_THEN & fields.keys())}
        self._event = event

    @cached_property
    def message(self) -> Message:
        """As it is told."""
        return Message(self._event, orjson.dumps(self.fields))


@dataclass(frozen=True, slots=True)
class Seen:
    """What one look saw. peers: by name."""

    at_s: float
    status: Item
    peers: Mapping[str, Item]


class Condition:
    """How the mesh is, looked at once for all who watch."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._seen: Seen | None = None

    def look(self) -> Seen:
        """How it is, or was a moment ago."""
        now_s = self._node.clock.monotonic_s()
        if self._seen is None or now_s - self._seen.at_s >= LOOK_EVERY_S:
            peers = {str(fields["name"]): Item(PEER, fields) for fields in peer_items(self._node)}
            self._seen = Seen(now_s, Item(STATUS, _status(self._node)), peers)
        return self._seen


CONDITION: Final = web.AppKey("CONDITION", Condition)


@dataclass(slots=True)
class Watcher:
    """What one subscriber was told last. numbers_s: when it was told numbers alone."""

    status: Item
    peers: dict[str, Item] = field(default_factory=dict)
    numbers_s: float = -math.inf

    def news(self, seen: Seen, every_s: float) -> Sequence[Message]:
        """What is to be told now; it counts as told then."""
        is_due = seen.at_s - self.numbers_s >= every_s
        found: list[Message] = []
        if _is_news(self.status, seen.status, is_due=is_due):
            self.status = seen.status
            found.append(seen.status.message)
        for name in self.peers.keys() - seen.peers.keys():
            del self.peers[name]
            found.append(Message(PEER_REMOVED, orjson.dumps({"name": name})))
        for name, peer in seen.peers.items():
            if _is_news(self.peers.get(name), peer, is_due=is_due):
                self.peers[name] = peer
                found.append(peer.message)
        if found and is_due:
            self.numbers_s = seen.at_s
        return found


def _is_news(told: Item | None, now: Item, *, is_due: bool) -> bool:
    if told is None or told.state != now.state:
        return True
    return is_due and told.numbers != now.numbers


def routes() -> list[web.AbstractRouteDef]:
    """The path that is served here. No HEAD: of a stream it would never end."""
    return [web.get("/v1/watch", watch, allow_head=False)]


async def watch(request: web.Request) -> web.StreamResponse:
    """Tell how the mesh is until the client goes, or meshd stops."""
    check_query(request, "every_s")
    every_s = query_number(request, "every_s", EVERY_S_DEFAULT, 1, EVERY_S_MAX)
    node, condition = request.app[NODE], request.app[CONDITION]

    async def tell(outlet: Outlet) -> None:
        seen = condition.look()
        watcher = Watcher(seen.status, dict(seen.peers), seen.at_s)
        await outlet.send(Batch((_all_of(seen),)))
        while True:
            await node.clock.sleep(LOOK_EVERY_S)
            news = watcher.news(condition.look(), every_s)
            if news:
                await outlet.send(Batch(news))

    return await serve_stream(request, tell)


def _all_of(seen: Seen) -> Message:
    peers = [seen.peers[name].fields for name in sorted(seen.peers)]
    return Message(MESH, orjson.dumps({"status": seen.status.fields, "peers": peers}))


def _status(node: Node) -> Json:
    projector = node.projector
    reasons = not_ready_because(node)
    return {
        "cluster": projector.own,
        "ready": not reasons,
        "reasons": reasons,
        "leader": leader_fields(node),
        "digest": digest_now(node),
        "vector_text": format_vector(projector.vector()),
        "events_after": format_vector(projector.log_vector()),
    }
