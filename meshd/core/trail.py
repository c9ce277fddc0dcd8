"""Which events say something about one thing, and what each changed.

For: telling a thing's history. Not for: reading logs (`runtime.trails`). Invariants: pure; of types
that this version doesn't fold the events are found by the beginning of their type and their key, so
a newer cluster's history can be told too.

Rules:
- What an event changed is its value against the value that the same thing had before it in the same
  log. Values are the events' own data: a field that isn't there is at its default.
- An endpoint goes with its service, so `service.removed` belongs to the endpoint's history.
- What is passed over of a peer's log belongs to the peer's history.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from meshd.core.table_diff import FieldChange
from meshd.model.codec import KEY_CHARS_MAX
from meshd.model.errors import Problem, RejectedError, shown
from meshd.model.event import Event, EventType
from meshd.model.ids import (
    ClusterName,
    EndpointKey,
    LogId,
    Seq,
    ServiceKey,
    parse_cluster_name,
)

KINDS: Final = ("service", "endpoint", "node", "identity", "cluster", "peer", "policy", "operation")

Thing = tuple[str, str]
"""What a value belongs to: the first word of its events' types, and their key."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is asked about. with_endpoints: of a service, its endpoints too."""

    kind: str
    key: str
    with_endpoints: bool = False

    @staticmethod
    def parse(kind: str, key: str, *, with_endpoints: bool = False) -> Subject:
        """Check what is asked about; raises RejectedError."""
        match kind:
            case "service":
                ServiceKey.parse(key)
            case "endpoint":
                EndpointKey.parse(key)
            case "cluster" | "peer":
                parse_cluster_name(key)
            case "node" | "identity" | "policy" | "operation":
                if not key.isprintable() or not 0 < len(key) <= KEY_CHARS_MAX:
                    what = f"{shown(key)} is not a name of 1 to {KEY_CHARS_MAX} characters"
                    raise RejectedError((Problem("name", what),))
            case _:
                what = f"{shown(kind)} has no history"
                raise RejectedError((Problem("kind", what, f"ask for {', '.join(KINDS)}"),))
        if with_endpoints and kind != "service":
            raise RejectedError((Problem("endpoints", "only a service has endpoints"),))
        return Subject(kind, key, with_endpoints)

    @property
    def needle(self) -> bytes:
        """What the bytes of every record hold that says something about it."""
        key = self.key.rpartition("/")[0] if self.kind == "endpoint" else self.key
        return key.encode()

    def thing_of(self, event: Event) -> Thing | None:
        """Which of the things that are asked about an event says something of; None for none."""
        family = event.type.partition(".")[0]
        if event.key == self.key:
            is_it = family == self.kind or (self.kind, family) == ("peer", "skip")
            return (family, event.key) if is_it else None
        if self.with_endpoints and family == "endpoint" and event.key.startswith(f"{self.key}/"):
            return family, event.key
        is_removed = event.type == EventType.SERVICE_REMOVED
        if self.kind == "endpoint" and is_removed and self.key.startswith(f"{event.key}/"):
            return self.kind, self.key
        return None


@dataclass(frozen=True, slots=True)
class Step:
    """One event of a thing's history. changes: against the value before; None where that wasn't
    looked for far enough. snapshot_seq: what was before the log's cut is told by the snapshot at
    that seq, which knows only the last event of each thing that was there; None for an event that
    is in the log.
    """

    cluster: ClusterName
    log_id: LogId
    seq: Seq
    time_ms: int
    thing: Thing
    event: Event
    changes: tuple[FieldChange, ...] | None = None
    snapshot_seq: Seq | None = None

    def after(self, before: Step | None) -> Step:
        """The same with what it changed against the step before it; None: there was no value."""
        old = before.event.data if before is not None else None
        return replace(self, changes=changes_of(old, self.event.data))


def changes_of(
    old: Mapping[str, object] | None, new: Mapping[str, object] | None
) -> tuple[FieldChange, ...]:
    """The fields of two values that differ, sorted."""
    before, after = old or {}, new or {}
    return tuple(
        FieldChange(field, before.get(field), after.get(field))
        for field in sorted({*before, *after})
        if before.get(field) != after.get(field)
    )
