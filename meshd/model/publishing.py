"""Publishing to a broker: how far it has come, and in what condition it is.

For: the values. Not for: how a broker is spoken to (`edges.mqtt`) nor when (`runtime.publisher`).
Invariant: a cursor that was decoded names a log and a place in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import orjson

from meshd.model.control import control_object, count_of, is_count
from meshd.model.errors import CorruptError, shown
from meshd.model.ids import ClusterName, LogId, Position, Seq, is_log_id

CURSOR_VERSION = 1


class PublishPhase(StrEnum):
    """What the publisher of a meshd is doing."""

    STANDBY = "Standby"
    """Another meshd of the cluster leads, and publishes."""
    CONNECTING = "Connecting"
    PUBLISHING = "Publishing"
    WAITING = "Waiting"
    """Something failed, and is tried again soon."""
    REFUSED = "Refused"
    """The broker refused us or a message: a person must act; it is tried again slowly."""


@dataclass(frozen=True, slots=True)
class PublishCursor:
    """The last event of the own log that the broker has acknowledged, with all before it."""

    log_id: LogId
    seq: Seq

    def encode(self) -> bytes:
        """As JSON, for a person with etcdctl and for whoever leads next."""
        fields = {"version": CURSOR_VERSION, "log_id": self.log_id, "seq": self.seq}
        return orjson.dumps(fields)

    def at(self, cluster: ClusterName) -> Position:
        """As a position in the cluster's log."""
        return Position(cluster, self.log_id, self.seq)


def decode_publish_cursor(raw: bytes, where: str) -> PublishCursor:
    """Read a publish cursor; raises CorruptError."""
    fields = control_object(raw, where)
    version, log_id = fields.get("version"), fields.get("log_id")
    if not is_count(version) or version > CURSOR_VERSION:
        raise CorruptError(where, f"version {shown(version)}; this meshd knows {CURSOR_VERSION}")
    if not isinstance(log_id, str) or not is_log_id(log_id):
        raise CorruptError(where, f"{shown(log_id)} is not a log id")
    return PublishCursor(LogId(log_id), Seq(count_of(fields, "seq", where)))


@dataclass(frozen=True, slots=True)
class Reset:
    """What is published next does not follow what was published before.

    before: the last event that is known to have been published; None if that isn't known. next: the
    event that follows. reason: why, for people.
    """

    before: Position | None
    next: Position
    reason: str


@dataclass(frozen=True, slots=True)
class PublishCondition:
    """How publishing goes. published: the last event that the broker acknowledged, as far as this
    meshd knows: None for one that doesn't lead. behind: how many events of the own log come after
    it. reason: what is wrong.
    """

    phase: PublishPhase
    broker: str
    published: Position | None
    behind: int | None
    reason: str
