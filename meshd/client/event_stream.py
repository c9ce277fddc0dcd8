"""Following events: which, from where on, and over as many connections as it takes.

For: `Client.follow`. Not for: connections (`stream`). Invariant: what is yielded is every chosen
event after the start, once, in order per cluster; a gap is an error, or a reset among them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from meshd.client.http import Http
from meshd.client.sse import Notice, StreamEvent
from meshd.client.stream import Route, follow

EVENTS_PATH = "/v1/events"

Start = Literal["now", "beginning", "snapshot"]
"""What comes next; everything that there still is; or what exists, and then what comes next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventChoice:
    """Which events; of each kind that is empty, all.

    types: with or without `io.meshd.`. services: as `namespace/name`, with their endpoints. labels:
    as `name=value` or `name`, all of them; removals say none and are told.
    """

    types: Sequence[str] = ()
    namespaces: Sequence[str] = ()
    services: Sequence[str] = ()
    labels: Sequence[str] = ()

    def query(self) -> list[tuple[str, str]]:
        """As parameters of a query."""
        return [
            *(("type", kind) for kind in self.types),
            *(("namespace", namespace) for namespace in self.namespaces),
            *(("service", service) for service in self.services),
            *(("label", label) for label in self.labels),
        ]


ALL_EVENTS = EventChoice()


@dataclass(frozen=True, slots=True, kw_only=True)
class Following:
    """What to follow.

    after: a vector to go on from; else since: a time (RFC 3339, or milliseconds since 1970), from
    which on; else start. clusters: whose events; none: all. choice: which of them.
    has_resets: what is to come where the place is gone: a reset and a snapshot among the events
    (`StreamEvent.notice`), rather than an error. patience_s: how long a broken connection may take
    to come back.
    """

    after: str = ""
    since: str = ""
    start: Start = "now"
    clusters: Sequence[str] = ()
    choice: EventChoice = field(default=ALL_EVENTS)
    has_resets: bool = False
    patience_s: float = 60.0

    def route(self) -> Route:
        """As a stream."""
        endings = {Notice.FAILED} if self.has_resets else {Notice.FAILED, Notice.RESET}
        query = [("cluster", cluster) for cluster in self.clusters] + self.choice.query()
        return Route(
            path=EVENTS_PATH,
            after=self.after,
            first=(("since", self.since) if self.since else ("from", self.start),),
            query=query + ([("reset", "snapshot")] if self.has_resets else []),
            endings=frozenset(endings),
            patience_s=self.patience_s,
        )


def follow_events(http: Http, following: Following) -> AsyncGenerator[StreamEvent, None]:
    """Yield events for ever, and the notices of snapshots and resets that were asked for; raises as
    `follow` does.
    """
    return follow(http, following.route())
