"""Where everything lies in an etcd (design, section 3; `protocols/keyspace.md`).

For: keys to bytes and back. Not for: what the values hold (`codec`). Invariant: a key of one log,
peer or audience can't be mistaken for another's: every name is closed by a slash.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from meshd.model.ids import ClusterName, EndpointKey, Seq

DEFAULT_PREFIX = "/meshd/v1"
DEFAULT_AUDIENCE = "mesh"
SEQ_DIGITS = 20
PART_DIGITS = 6

_SEQ = re.compile(rb"[0-9]{20}\Z")


def prefix_end(prefix: bytes) -> bytes:
    """The first key after all that start with `prefix`, which must not end in 0xff."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


@dataclass(frozen=True, slots=True)
class LogKeys:
    """The keys of one log: the local one, an export log, or a replica of one."""

    root: bytes

    @property
    def head(self) -> bytes:
        """Key of the head."""
        return self.root + b"head"

    @property
    def heartbeat(self) -> bytes:
        """Key of the leader's sign of life (export logs only)."""
        return self.root + b"heartbeat"

    @property
    def cursor(self) -> bytes:
        """Key of how far a replica has come (replicas only)."""
        return self.root + b"cursor"

    @property
    def log(self) -> bytes:
        """What every record's key starts with."""
        return self.root + b"log/"

    @property
    def log_end(self) -> bytes:
        """The first key after all records."""
        return prefix_end(self.log)

    @property
    def snapshots(self) -> bytes:
        """What every key of the log's snapshots starts with."""
        return self.root + b"snapshot/"

    @property
    def snapshots_end(self) -> bytes:
        """The first key after all snapshots."""
        return prefix_end(self.snapshots)

    @property
    def manifest(self) -> bytes:
        """Key of the manifest: it makes the snapshot that it names the valid one."""
        return self.snapshots + b"manifest"

    def parts(self, seq: int) -> bytes:
        """What every part of the snapshot at `seq` starts with."""
        return self.snapshots + str(seq).zfill(SEQ_DIGITS).encode() + b"/"

    def part(self, seq: int, number: int) -> bytes:
        """Key of one part, numbered from 0, of the snapshot at `seq`."""
        return self.parts(seq) + str(number).zfill(PART_DIGITS).encode()

    def kept_manifest(self, seq: int) -> bytes:
        """Key of the manifest of a snapshot that is kept though there are newer ones."""
        return self.parts(seq) + b"manifest"

    def record(self, last_seq: int) -> bytes:
        """Key of the record whose last event has this seq."""
        return self.log + str(last_seq).zfill(SEQ_DIGITS).encode()

    def seq_of(self, key: bytes) -> Seq | None:
        """The seq in a record's key; None if it isn't the key of a record of this log."""
        tail = key.removeprefix(self.log)
        return Seq(int(tail)) if len(tail) < len(key) and _SEQ.match(tail) else None


@dataclass(frozen=True, slots=True)
class Keyspace:
    """All keys below one prefix. prefix: without a slash at its end."""

    prefix: str = DEFAULT_PREFIX

    @property
    def descriptor(self) -> bytes:
        """Key of the cluster's descriptor."""
        return f"{self.prefix}/cluster".encode()

    @property
    def leader(self) -> bytes:
        """Key that the meshd in charge of this cluster holds by a lease."""
        return f"{self.prefix}/leader/holder".encode()

    @property
    def local(self) -> LogKeys:
        """The local log."""
        return LogKeys(f"{self.prefix}/local/".encode())

    def export(self, audience: str = DEFAULT_AUDIENCE) -> LogKeys:
        """The export log of an audience."""
        return LogKeys(f"{self.prefix}/export/{audience}/".encode())

    def replica(self, peer: ClusterName, place: int = 0) -> LogKeys:
        """This cluster's copy of a peer's export log: in the place that its cursor says, 0 or 1.

        The cursor itself always lies in place 0.
        """
        return LogKeys(f"{self.prefix}/replica/{peer}/{'b/' if place else ''}".encode())

    def registration(self, key: EndpointKey) -> bytes:
        """Key of an endpoint's registration: it lives as long as the lease that it is bound to."""
        return self.registrations + str(key).encode()

    @property
    def registrations(self) -> bytes:
        """What the keys of all registrations start with."""
        return f"{self.prefix}/registration/".encode()

    def signal(self, operation: str) -> bytes:
        """Key of what somebody outside last told of an operation, bound to a lease."""
        return f"{self.prefix}/signal/{operation}".encode()

    def publish_cursor(self, mesh: str) -> bytes:
        """Key of how far the local log is published to a broker, as a mesh of this name."""
        return f"{self.prefix}/local/mqtt/{mesh}".encode()

    @property
    def replicas(self) -> bytes:
        """What the keys of all replicas start with."""
        return f"{self.prefix}/replica/".encode()
