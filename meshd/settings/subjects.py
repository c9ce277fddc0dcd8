"""The settings, by subject: every field with its unit in the name and its reason below it.

For: declaring what can be set, and the limits of each value by itself. Not for: rules between
values (`rules`) nor where values come from (`sources`). Invariant: every default is one that a
small mesh can run with; only the cluster's name and id have none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, StrictBool, StrictInt

from meshd.core.liveness import StalenessRules
from meshd.model.forms import Labels, PlaceName
from meshd.model.ids import CLUSTER_ID_MAX
from meshd.model.keyspace import DEFAULT_AUDIENCE, DEFAULT_PREFIX
from meshd.model.staleness import StalenessPolicy
from meshd.settings.health import HealthSettings
from meshd.settings.hostport import HostPort
from meshd.settings.keeping import RetentionSettings
from meshd.settings.kinds import (
    NO_SECRET,
    Audience,
    ExportLogs,
    FilePath,
    Host,
    Listen,
    Name,
    OptionalPath,
    Prefix,
    Ranges,
    Seconds,
    Target,
    Targets,
)
from meshd.settings.mqtt import MqttSettings
from meshd.settings.serving import GateSettings, ServerTls

ETCD_HERE = HostPort("127.0.0.1", 2379)
ETCD_RAFT_HERE = HostPort("127.0.0.1", 2380)
REST_HERE = HostPort("127.0.0.1", 7979)

KIB = 1024
MIB = 1024 * KIB
SUBSCRIBER_BYTES_MAX = 192 * KIB
"""What a subscriber takes: 25 KiB, and two batches of 64 KiB in its connection's buffer while it is
sent more than it takes at once."""
STOPPED_BYTES_MAX = 576 * KIB
"""What one takes that stopped in the midst of a log: beside that 256 decoded events, and a batch as
messages and as bytes. It is cut after half a minute."""
GIB = 1024 * MIB


class EtcdMode(StrEnum):
    """Who runs the cluster's etcd."""

    EXTERNAL = "external"
    EMBEDDED = "embedded"


class LogLevel(StrEnum):
    """The least severe log entry that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """How a log entry is written."""

    JSON = "json"
    CONSOLE = "console"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSettings:
    """What this cluster is called; said to the peers."""

    name: Name
    """Unique in the mesh and never changed: the log belongs to it."""
    id: Annotated[StrictInt, Field(ge=1, le=CLUSTER_ID_MAX)]
    """Unique in the mesh. Data planes have 9 bits for it, hence 1..511."""
    region: PlaceName = ""
    """Backends of the same region are nearer than others. Empty: unknown."""
    zone: PlaceName = ""
    """Where this cluster is within its region. Empty: unknown, or several."""
    labels: Labels = field(default_factory=dict)
    """Free texts for people and policies."""
    audiences: ExportLogs = ()
    """The export logs that this cluster writes beside `mesh`, each for those who may know the same.
    Every one of them costs a part of every append that it is told of, so at most 15."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """TLS towards an etcd, and of an embedded one. It is used as soon as any of these is set."""

    ca_file: OptionalPath = None
    """PEM of who signs the certificates. Needed with TLS: the system's authorities sign for all
    the world, which is not who may be a cluster's etcd."""
    cert_file: OptionalPath = None
    """PEM of the client certificate; together with `key_file`. An embedded etcd shows it too."""
    key_file: OptionalPath = None
    """PEM of the certificate's key."""
    server_name: Host = ""
    """The name in the server's certificate, where it isn't the endpoint's host."""

    @property
    def is_on(self) -> bool:
        """Whether anything is set."""
        return bool(self.ca_file or self.cert_file or self.key_file or self.server_name)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedSettings:
    """An etcd that meshd starts and supervises itself (mode `embedded`)."""

    data_dir: FilePath = Path("meshd-data/etcd")
    """What must survive: the cluster's log. Beside the configuration file unless absolute."""
    client_address: Target = ETCD_HERE
    """Where meshd and peers reach it; etcd's usual port. Loopback until somebody opens it."""
    peer_address: Target = ETCD_RAFT_HERE
    """etcd insists on a raft address, though this etcd has one member; its usual port."""
    binary: OptionalPath = None
    """The etcd to run. None: the `etcd` on PATH."""
    quota_bytes: Annotated[StrictInt, Field(ge=16 * MIB, le=8 * GIB)] = 2 * GIB
    """Disk that etcd may fill before it refuses writes: its own default; it advises against more
    than 8 GiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdSettings:
    """This cluster's own etcd."""

    mode: EtcdMode = EtcdMode.EXTERNAL
    """`external`: one that runs already. `embedded`: meshd's own. Short form: `etcd: embedded`."""
    endpoints: Annotated[Targets, Field(max_length=16)] = ()
    """Members of an external etcd, in any order. None: 127.0.0.1:2379, the sidecar's place."""
    prefix: Prefix = DEFAULT_PREFIX
    """What all keys start with, so that one etcd can serve others too."""
    tls: TlsSettings = field(default_factory=TlsSettings)
    """Off unless something in it is set: etcd on loopback needs none."""
    username: str = ""
    """Of the etcd user that may write below the prefix. Empty: no authentication."""
    password_file: OptionalPath = None
    """The user's password, on the file's first line."""
    password: SecretStr = NO_SECRET
    """The same from the environment, MESHD_ETCD__PASSWORD; refused in files and flags, which get
    copied and listed."""
    call_timeout_s: Annotated[Seconds, Field(ge=0.1, le=60)] = 5.0
    """Deadline of every call. An etcd fails over in 2 to 3 s; twice that is not a hiccup."""
    start_timeout_s: Annotated[Seconds, Field(ge=0.1, le=600)] = 30.0
    """How long it may take to answer when meshd starts; then meshd gives up, saying so, and a
    supervisor starts it again."""
    allow_unsafe_version: StrictBool = False
    """Take etcd 3.5.0 to 3.5.2 as well, which can lose acknowledged writes in a crash."""
    compact_every_s: Annotated[Seconds, Field(ge=0, le=30 * 86_400)] = 0.0
    """How often the leader lets etcd forget what was overwritten before the last time. 0: somebody
    else sees to it, such as etcd's own auto-compaction; an embedded etcd does. Needs root."""
    defragment_free_bytes: Annotated[StrictInt, Field(ge=0, le=1024 * GIB)] = 0
    """Free space in a member's database at which it is given back after a compaction. 0: never,
    since a member stands still meanwhile. Needs root."""
    embedded: EmbeddedSettings = field(default_factory=EmbeddedSettings)
    """Read in mode `embedded` only."""

    @property
    def targets(self) -> tuple[HostPort, ...]:
        """Where the etcd is reached, whichever mode it runs in."""
        if self.mode is EtcdMode.EMBEDDED:
            return (self.embedded.client_address,)
        return self.endpoints or (ETCD_HERE,)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSettings:
    """REST, streams and metrics for people, tools and data planes."""

    listen: Listen = REST_HERE
    """Loopback, so that nothing is open by default. Port 0 takes any free one, for tests."""
    tls: ServerTls = field(default_factory=ServerTls)
    """Off unless `cert_file` is set."""
    token_file: OptionalPath = None
    """The bearer token, on the file's first line. Needed beyond loopback."""
    token: SecretStr = NO_SECRET
    """The same from the environment, MESHD_API__TOKEN; refused in files and flags."""
    body_bytes_max: Annotated[StrictInt, Field(ge=KIB, le=64 * MIB)] = 8 * MIB
    """The largest request. A submission has to fit in one record anyway, long before this."""
    drain_timeout_s: Annotated[Seconds, Field(ge=0, le=300)] = 5.0
    """How long requests under way may take to end when meshd stops; systemd grants 90 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StalenessSettings:
    """What losing sight of a peer does to its backends."""

    policy: StalenessPolicy = StalenessPolicy.DEMOTE
    """`keep` them, `demote` them behind every fresh backend, or `withdraw` them later on. A dead
    control plane doesn't mean dead backends, so the default doesn't take them away."""
    stale_after_s: Annotated[Seconds, Field(ge=1, le=86_400)] = 30.0
    """Demotion: three times the silence that makes a peer stale, so that a restart isn't seen."""
    withdraw_after_s: Annotated[Seconds, Field(ge=1, le=30 * 86_400)] = 600.0
    """Withdrawal, with that policy: long enough for a person to be called first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerStaleness:
    """Where one peer's staleness differs from the general one; None: as there."""

    policy: StalenessPolicy | None = None
    """As in `staleness`."""
    stale_after_s: Annotated[Seconds, Field(ge=1, le=86_400)] | None = None
    """As in `staleness`."""
    withdraw_after_s: Annotated[Seconds, Field(ge=1, le=30 * 86_400)] | None = None
    """As in `staleness`."""

    def over(self, general: StalenessSettings) -> StalenessRules:
        """The rules for this peer: its own where it has some, else the general ones."""
        return StalenessRules(
            policy=general.policy if self.policy is None else self.policy,
            stale_after_s=_first(self.stale_after_s, general.stale_after_s),
            withdraw_after_s=_first(self.withdraw_after_s, general.withdraw_after_s),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerSettings:
    """One peer: a cluster whose export log is read, and never written. See also `model.listed`."""

    name: Name
    """What the peer calls itself; a log that says otherwise is refused."""
    endpoints: Annotated[Targets, Field(min_length=1, max_length=16)]
    """Members of its etcd, in any order."""
    tls: TlsSettings = field(default_factory=TlsSettings)
    """TLS towards its etcd. Off unless something in it is set."""
    username: str = ""
    """Of the etcd user that may read the audience's log there. Empty: no authentication."""
    password_file: OptionalPath = None
    """The user's password, on the file's first line."""
    staleness: PeerStaleness = field(default_factory=PeerStaleness)
    """Where it differs from the general `staleness`."""
    audience: Audience = DEFAULT_AUDIENCE
    """Which of its export logs is read; its user may read no other."""
    prefix: Prefix = DEFAULT_PREFIX
    """What its keys start with in its etcd."""
    announces: Annotated[Ranges, Field(max_length=256)] = ()
    """Where its endpoints, its nodes and their pods may be. None: anywhere but loopback, link-local
    and the like.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetSettings:
    """What one peer may cost this cluster: beyond the rates it is read slower, beyond the rest not
    at all.
    """

    events_per_s: Annotated[Seconds, Field(ge=1, le=10_000_000)] = 50_000.0
    """More than a meshd folds: it bounds what one peer takes from the others."""
    bytes_per_s: Annotated[Seconds, Field(ge=1024, le=10 * GIB)] = 32.0 * MIB
    """A quarter of a gigabit."""
    burst_s: Annotated[Seconds, Field(ge=0.1, le=600)] = 10.0
    """So many seconds' worth at once: the first copy of half a million events isn't slowed."""
    services_max: Annotated[StrictInt, Field(ge=1, le=10_000_000)] = 100_000
    """Ten times the largest cluster that Kubernetes supports."""
    endpoints_max: Annotated[StrictInt, Field(ge=1, le=100_000_000)] = 500_000
    """Three times the pods of the largest cluster that Kubernetes supports."""
    nodes_max: Annotated[StrictInt, Field(ge=1, le=1_000_000)] = 25_000
    """Five times the largest cluster that Kubernetes supports."""
    identities_max: Annotated[StrictInt, Field(ge=1, le=65_280)] = 65_280
    """All that a cluster has numbers for."""
    policies_max: Annotated[StrictInt, Field(ge=1, le=1_000_000)] = 25_000
    """A few for each namespace of the largest cluster that Kubernetes supports."""
    state_bytes_max: Annotated[StrictInt, Field(ge=MIB, le=64 * GIB)] = GIB
    """About what its events would take: memory is a few times that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicationSettings:
    """Following the peers' logs."""

    window_seqs: Annotated[StrictInt, Field(ge=4096, le=100_000)] = 5000
    """Events per range read while catching up: measured fastest between 2000 and 5000."""
    connect_timeout_s: Annotated[Seconds, Field(ge=0.1, le=60)] = 5.0
    """How long one attempt to reach a peer may take; a round the world takes 0.3 s."""
    heartbeat_every_s: Annotated[Seconds, Field(ge=0.1, le=60)] = 1.0
    """How often our own heartbeat is rewritten: one small write a second."""
    silent_after_s: Annotated[Seconds, Field(ge=0.5, le=3600)] = 10.0
    """A peer whose heartbeat hasn't advanced for so long is Stale: ten beats missed."""
    lost_after_s: Annotated[Seconds, Field(ge=1, le=86_400)] = 60.0
    """A peer that has been stale for so long is Lost, which is worth waking somebody."""
    recycle_after_s: Annotated[Seconds, Field(ge=1, le=86_400)] = 300.0
    """Age at which a watch is opened anew: etcd keeps one alive after its user was revoked."""
    backoff_min_s: Annotated[Seconds, Field(ge=0.01, le=60)] = 0.2
    """The first wait after a failure: a restart of etcd is over quickly."""
    backoff_max_s: Annotated[Seconds, Field(ge=0.1, le=3600)] = 10.0
    """The longest wait: a peer that comes back is seen within it."""
    slow_retry_s: Annotated[Seconds, Field(ge=1, le=3600)] = 30.0
    """The wait after a refusal that only a person can end, such as bad credentials."""
    persist_backlog_bytes: Annotated[StrictInt, Field(ge=MIB, le=4 * GIB)] = 64 * MIB
    """What a peer may be ahead of its stored replica in memory while our own etcd is slow; then
    records are dropped from the backlog and read again from the peer."""
    budget: BudgetSettings = field(default_factory=BudgetSettings)
    """What each peer may cost."""
    listed_files_dir: OptionalPath = None
    """Below which folder the files must be that a peer listed in the log names: a password goes to
    the peer's etcd, so whoever may write through REST could have any file's first line sent to
    themselves. None: such a peer may name no file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterSettings:
    """Appending to the own log."""

    queue_max: Annotated[StrictInt, Field(ge=1, le=1_000_000)] = 10_000
    """Submissions that may wait: a second's worth; the next one is told to come again (429)."""
    submit_timeout_s: Annotated[Seconds, Field(ge=0.1, le=300)] = 15.0
    """How long a caller waits: three calls to etcd, so one lost answer can be resolved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamsSettings:
    """Event streams to subscribers. What they take in memory has a bound: `ring_bytes` and
    `feed_bytes`, 192 KiB for each who takes what it is sent (25 KiB while that is little), 576 KiB
    for each who doesn't; and in the kernel 128 KiB for each, and what is under way to it.
    """

    ring_bytes: Annotated[StrictInt, Field(ge=MIB, le=4 * GIB)] = 64 * MIB
    """Records kept in memory for subscribers, of all logs together; who falls behind further reads
    the log."""
    feed_bytes: Annotated[StrictInt, Field(ge=MIB, le=4 * GIB)] = 16 * MIB
    """Encoded events kept in memory for subscribers who are a little behind, in all: about ten
    seconds of 1,000 events a second. Who falls behind further reads the records above."""
    subscribers_max: Annotated[StrictInt, Field(ge=1, le=100_000)] = 1000
    """Streams at a time; each costs a socket and a buffer, as is said above."""
    per_client_max: Annotated[StrictInt, Field(ge=1, le=100_000)] = 100
    """Of those, to one address, so that a program which forgets to close its streams doesn't take
    the others' places. Raise it behind a proxy: all that comes through it has its address."""

    def memory_bytes_max(self, subscribers: int, stopped: int) -> int:
        """What so many subscribers take at most, all together. stopped: how many of them take
        nothing.
        """
        shared = self.ring_bytes + self.feed_bytes
        each = (subscribers - stopped) * SUBSCRIBER_BYTES_MAX + stopped * STOPPED_BYTES_MAX
        return shared + each


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """What meshd writes to standard error about itself."""

    level: LogLevel = LogLevel.INFO
    """`info` says what changed and what is wrong; `debug` every record."""
    format: LogFormat = LogFormat.JSON
    """`json` for collectors, `console` for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set."""

    cluster: ClusterSettings
    """This cluster."""
    etcd: EtcdSettings = field(default_factory=EtcdSettings)
    """Its etcd."""
    api: ApiSettings = field(default_factory=ApiSettings)
    """Its REST interface."""
    gate: GateSettings = field(default_factory=GateSettings)
    """Where peers read, if not in the etcd itself."""
    peers: tuple[PeerSettings, ...] = ()
    """The clusters that it follows."""
    staleness: StalenessSettings = field(default_factory=StalenessSettings)
    """What losing sight of one of them does."""
    replication: ReplicationSettings = field(default_factory=ReplicationSettings)
    """How they are followed."""
    retention: RetentionSettings = field(default_factory=RetentionSettings)
    """How long logs are kept."""
    writer: WriterSettings = field(default_factory=WriterSettings)
    """How the own log is written."""
    streams: StreamsSettings = field(default_factory=StreamsSettings)
    """How events are handed on."""
    mqtt: MqttSettings = field(default_factory=MqttSettings)
    """Where events, tables and status are published."""
    health: HealthSettings = field(default_factory=HealthSettings)
    """What its endpoints' health costs."""
    log: LogSettings = field(default_factory=LogSettings)
    """How meshd speaks of itself."""


def _first(own: float | None, general: float) -> float:
    return general if own is None else own
