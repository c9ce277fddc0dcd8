"""Which peers a cluster follows, and what of their logs it passes over: values of the local log.

For: the values and their limits, as for services (`service`). Not for: whether this host can use
them, such as files that must be there (`settings.listed`). Invariant: they never leave the cluster:
where and by which credentials somebody is followed is nobody else's business (design, I17). That a
log is read shows in the heartbeat's vector, as for every peer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from pydantic import AfterValidator, Field, StrictInt, StringConstraints

from meshd.model.forms import PRINTABLE_PATTERN
from meshd.model.ids import CLUSTER_ID_MAX, DNS_LABEL_PATTERN, LOG_ID_PATTERN, LogId
from meshd.model.keyspace import DEFAULT_AUDIENCE, DEFAULT_PREFIX
from meshd.model.staleness import AS_THE_PEER, Staleness

PEERS_MAX = CLUSTER_ID_MAX - 1
"""There are no more ids for other clusters."""
SKIPS_MAX = 100
"""Records of one log that are passed over. Whoever needs more has no use for the rest either."""
ENDPOINTS_MAX = 16
RANGES_MAX = 256
FILE_PATTERN = r"^$|^/[^\x00-\x1f\x7f]*$"
ADDRESS_PATTERN = r"^[^\s/@,]+:[0-9]{1,5}$"
RANGE_PATTERN = r"^[0-9A-Fa-f.:]+(/[0-9]{1,3})?$"
PREFIX_PATTERN = r"^(/[A-Za-z0-9._-]+)+$"


FileText = Annotated[str, StringConstraints(max_length=4096, pattern=FILE_PATTERN)]
HostText = Annotated[str, StringConstraints(max_length=253, pattern=r"^[A-Za-z0-9._:-]*$")]
EndpointText = Annotated[str, StringConstraints(max_length=261, pattern=ADDRESS_PATTERN)]
RangeText = Annotated[str, StringConstraints(max_length=64, pattern=RANGE_PATTERN)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedTls:
    """TLS towards a peer's etcd: absolute paths on the hosts of this cluster's meshds. Off unless
    something is set. server_name: the name in the server's certificate, where it isn't the
    endpoint's host.
    """

    ca_file: FileText = ""
    cert_file: FileText = ""
    key_file: FileText = ""
    server_name: HostText = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedPeer:
    """A peer as the local log lists it; the same fields as `peers[]` of the settings.

    endpoints: `host:port` of the members of its etcd. username, password_file: of the etcd user
    that may read the audience's log there. announces: where its endpoints, its nodes and their pods
    may be; none: anywhere but loopback, link-local and the like.
    """

    endpoints: Annotated[tuple[EndpointText, ...], Field(min_length=1, max_length=ENDPOINTS_MAX)]
    tls: ListedTls = field(default_factory=ListedTls)
    username: Annotated[str, StringConstraints(max_length=256, pattern=PRINTABLE_PATTERN)] = ""
    password_file: FileText = ""
    staleness: Staleness = AS_THE_PEER
    audience: Annotated[str, StringConstraints(pattern=DNS_LABEL_PATTERN)] = DEFAULT_AUDIENCE
    prefix: Annotated[str, StringConstraints(max_length=128, pattern=PREFIX_PATTERN)] = (
        DEFAULT_PREFIX
    )
    announces: Annotated[tuple[RangeText, ...], Field(max_length=RANGES_MAX)] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SkippedRecord:
    """A record that is passed over: the seq of its first event, and its hash, since whoever said so
    meant just those bytes.
    """

    seq: Annotated[StrictInt, Field(ge=1, le=(1 << 63) - 1)]
    hash: Annotated[str, StringConstraints(pattern=LOG_ID_PATTERN)]


def _ascending(records: tuple[SkippedRecord, ...]) -> tuple[SkippedRecord, ...]:
    seqs = [record.seq for record in records]
    if sorted(set(seqs)) != seqs:
        raise ValueError("the seqs do not ascend")
    return records


@dataclass(frozen=True, slots=True, kw_only=True)
class Skip:
    """What is passed over of one log of a peer; of another log behind its name nothing is."""

    log_id: Annotated[LogId, StringConstraints(pattern=LOG_ID_PATTERN)]
    records: Annotated[
        tuple[SkippedRecord, ...],
        Field(min_length=1, max_length=SKIPS_MAX),
        AfterValidator(_ascending),
    ]

    def hash_at(self, seq: int) -> str | None:
        """The hash of the record that begins at a seq, if it is passed over."""
        return next((record.hash for record in self.records if record.seq == seq), None)
