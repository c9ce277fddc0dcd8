"""Names and positions: who a thing belongs to and where in a log it stands.

For: identifiers, each a type of its own so that they can't be mixed up. Not for: what the named
things contain (`service`, `event`). Invariant: a value of these types that came out of a `parse`
function is well-formed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NewType

from meshd.model.errors import Problem, RejectedError

ClusterName = NewType("ClusterName", str)
"""A DNS label of at most 32 characters."""
LogId = NewType("LogId", str)
"""The incarnation of a log: a random UUID as 32 hexadecimal digits."""
Seq = NewType("Seq", int)
"""An event's number in its log, from 1, without gaps. 0 is 'before the first event'."""
Revision = NewType("Revision", int)
"""An etcd revision. It orders keys within one etcd and means nothing in another."""
RecordHash = NewType("RecordHash", bytes)
"""BLAKE2b-128 over a record's bytes."""

CLUSTER_NAME_CHARS_MAX = 32
CLUSTER_ID_MAX = 511
GENESIS_HASH = RecordHash(bytes(16))
"""The previous hash of a log's first record."""

DNS_LABEL_PATTERN = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
DNS_NAME_CHARS_MAX = 253
CLUSTER_NAME_PATTERN = r"^[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?$"
LOG_ID_PATTERN = r"^[0-9a-f]{32}$"

_DNS_LABEL = re.compile(DNS_LABEL_PATTERN.removesuffix("$") + r"\Z")
_DNS_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")
_CLUSTER_NAME = re.compile(CLUSTER_NAME_PATTERN.removesuffix("$") + r"\Z")
_LOG_ID = re.compile(LOG_ID_PATTERN.removesuffix("$") + r"\Z")


def is_dns_label(text: str) -> bool:
    """Whether this is an RFC 1123 label: what a namespace or a service may be called."""
    return _DNS_LABEL.match(text) is not None


def is_dns_name(text: str) -> bool:
    """Whether this is an RFC 1123 subdomain: what an endpoint or a node may be called."""
    return len(text) <= DNS_NAME_CHARS_MAX and _DNS_NAME.match(text) is not None


def is_cluster_name(text: str) -> bool:
    """Whether this may be a cluster's name (design, section 2)."""
    return _CLUSTER_NAME.match(text) is not None


def parse_cluster_name(text: str) -> ClusterName:
    """Read a cluster's name; raises RejectedError."""
    if not is_cluster_name(text):
        raise RejectedError(
            (
                Problem(
                    "cluster",
                    f"{text!r} is not a cluster name",
                    f"use a-z, 0-9 and '-' inside, at most {CLUSTER_NAME_CHARS_MAX}",
                ),
            )
        )
    return ClusterName(text)


def is_log_id(text: str) -> bool:
    """Whether this is a log id: 32 lower-case hexadecimal digits."""
    return _LOG_ID.match(text) is not None


KEYS_REMEMBERED = 16_384
"""Names of services that were read lately: each comes again with every event of its endpoints."""


@dataclass(frozen=True, slots=True, order=True)
class ServiceKey:
    """A service's name, the same in every cluster: `namespace/name`."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    @staticmethod
    @lru_cache(maxsize=KEYS_REMEMBERED)
    def parse(text: str) -> ServiceKey:
        """Read `namespace/name`; raises RejectedError if either isn't a DNS label."""
        namespace, slash, name = text.partition("/")
        if not slash or not is_dns_label(namespace) or not is_dns_label(name):
            raise RejectedError(
                (Problem("service", f"{text!r} is not a service name", "write namespace/name"),)
            )
        return ServiceKey(namespace, name)


@dataclass(frozen=True, slots=True, order=True)
class EndpointKey:
    """An endpoint's name within its cluster: `namespace/service/name`."""

    service: ServiceKey
    name: str

    def __str__(self) -> str:
        return f"{self.service}/{self.name}"

    @staticmethod
    def parse(text: str) -> EndpointKey:
        """Read `namespace/service/name`; raises RejectedError if a part isn't a DNS name."""
        service, slash, name = text.rpartition("/")
        if not slash or not is_dns_name(name):
            raise RejectedError(
                (
                    Problem(
                        "endpoint",
                        f"{text!r} is not an endpoint name",
                        "write namespace/service/name",
                    ),
                )
            )
        return EndpointKey(ServiceKey.parse(service), name)


@dataclass(frozen=True, slots=True, order=True)
class PolicyKey:
    """A policy's name within its cluster: `namespace/name`."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    @staticmethod
    def parse(text: str) -> PolicyKey:
        """Read `namespace/name`; raises RejectedError unless they are a DNS label and a DNS name,
        as Kubernetes has it.
        """
        namespace, slash, name = text.partition("/")
        if not slash or not is_dns_label(namespace) or not is_dns_name(name):
            raise RejectedError(
                (Problem("policy", f"{text!r} is not a policy's name", "write namespace/name"),)
            )
        return PolicyKey(namespace, name)


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a log, or a place in it: the last record at or before `seq` hashes to `hash`."""

    log_id: LogId
    seq: Seq
    hash: RecordHash

    @staticmethod
    def genesis(log_id: LogId) -> Head:
        """The place before the first event of a log."""
        return Head(log_id, Seq(0), GENESIS_HASH)


@dataclass(frozen=True, slots=True)
class Position:
    """One place in one cluster's log."""

    cluster: ClusterName
    log_id: LogId
    seq: Seq

    def __str__(self) -> str:
        return f"{self.cluster}:{self.log_id}:{self.seq}"

    @staticmethod
    def parse(text: str) -> Position:
        """Read `cluster:log id:seq`; raises RejectedError if it is anything else."""
        parts = text.split(":")
        if (
            len(parts) != len(("cluster", "log id", "seq"))
            or not is_cluster_name(parts[0])
            or not is_log_id(parts[1])
            or not re.fullmatch(r"[0-9]{1,19}", parts[2])
        ):
            raise RejectedError(
                (Problem("position", f"{text!r} is not a position", "write cluster:log-id:seq"),)
            )
        return Position(ClusterName(parts[0]), LogId(parts[1]), Seq(int(parts[2])))


Vector = Mapping[ClusterName, Position]
"""One position per cluster."""


def format_vector(vector: Vector) -> str:
    """Write a vector as text, sorted by cluster, so that equal vectors are equal strings."""
    return ",".join(str(vector[name]) for name in sorted(vector))


def parse_vector(text: str) -> dict[ClusterName, Position]:
    """Read what `format_vector` wrote; raises RejectedError, also for a cluster named twice."""
    positions = [Position.parse(part) for part in text.split(",")] if text else []
    vector = {position.cluster: position for position in positions}
    if len(vector) != len(positions):
        raise RejectedError(
            (Problem("vector", f"{text!r} names a cluster twice", "keep one position per cluster"),)
        )
    return vector
