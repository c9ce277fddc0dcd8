"""The parts of one meshd, built from its settings and not yet running.

For: turning settings into what the runtime takes. Not for: starting anything (`daemon.run`).
Invariant: building does no I/O but reading the files of secrets and certificates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from meshd.core.budget import Budget
from meshd.core.retention import Keep, RetentionRules
from meshd.edges.embedded import EmbeddedConfig, EmbeddedTls
from meshd.edges.etcd import EtcdTarget, TlsFiles, connect
from meshd.edges.system.files import shelf
from meshd.edges.system.process import host_name, process_id, process_mark
from meshd.model.codec import Descriptor
from meshd.model.errors import FatalError
from meshd.model.ids import ClusterName
from meshd.model.keyspace import Keyspace
from meshd.model.replica import FollowRules
from meshd.runtime.bootstrap import Identity
from meshd.runtime.chores import ChoreRules, Chores
from meshd.runtime.follower import Follower, Pace
from meshd.runtime.history import History
from meshd.runtime.leadership import Holder, HolderCheck, Leadership
from meshd.runtime.node import Node
from meshd.runtime.peers import Guard, Ids, OwnSink, Peer, Peers, PeerSink
from meshd.runtime.ports import Chance, Clock, Kv
from meshd.runtime.presence import Presence
from meshd.runtime.projector import Projector
from meshd.runtime.reading import LogReader
from meshd.runtime.replica_copy import Fence, ReplicaCopy
from meshd.runtime.replica_store import ReplicaStore
from meshd.runtime.ring import RecordRing
from meshd.runtime.upkeep import Upkeep, UpkeepRules
from meshd.runtime.writer import Writer, WriterLimits
from meshd.settings import (
    BudgetSettings,
    EtcdSettings,
    PeerSettings,
    ReplicationSettings,
    RetentionSettings,
    Settings,
    TlsSettings,
    secret_text,
)


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that `daemon.run` sets going."""

    node: Node
    own_sink: OwnSink
    own_follower: Follower
    presence: Presence
    chores: Chores
    upkeep: Upkeep


def own_target(etcd: EtcdSettings) -> EtcdTarget:
    """Where the own etcd is."""
    return EtcdTarget(
        endpoints=tuple(str(target) for target in etcd.targets),
        tls=_tls(etcd.tls),
        username=etcd.username,
        password=secret_text(etcd.password_file, etcd.password),
        call_timeout_s=etcd.call_timeout_s,
    )


def embedded_config(etcd: EtcdSettings) -> EmbeddedConfig:
    """How the embedded etcd is run. TLS on etcd also means TLS on its own etcd."""
    tls = etcd.tls
    return EmbeddedConfig(
        data_dir=etcd.embedded.data_dir,
        client_address=str(etcd.embedded.client_address),
        peer_address=str(etcd.embedded.peer_address),
        binary=etcd.embedded.binary,
        tls=EmbeddedTls(tls.ca_file, tls.cert_file, tls.key_file)
        if tls.ca_file and tls.cert_file and tls.key_file
        else None,
        allow_unsafe=etcd.allow_unsafe_version,
        quota_bytes=etcd.embedded.quota_bytes,
    )


def peer_target(peer: PeerSettings, replication: ReplicationSettings) -> EtcdTarget:
    """Where a peer's etcd is."""
    return EtcdTarget(
        endpoints=tuple(str(target) for target in peer.endpoints),
        tls=_tls(peer.tls),
        username=peer.username,
        password=secret_text(peer.password_file),
        call_timeout_s=replication.connect_timeout_s,
    )


def _tls(tls: TlsSettings) -> TlsFiles | None:
    if not tls.is_on:
        return None
    if tls.ca_file is None:
        raise FatalError("tls needs ca_file: the authority that signed the etcd's certificate")
    return TlsFiles(tls.ca_file, tls.cert_file, tls.key_file, tls.server_name)


def identity_of(settings: Settings) -> Identity:
    """Who this cluster is."""
    return Identity(ClusterName(settings.cluster.name), settings.cluster.id)


@dataclass(frozen=True, slots=True)
class World:
    """The doors to everything outside. dial: how a peer's etcd is reached. is_gone: whether the
    holder of the leader key is known to be dead.
    """

    kv: Kv
    clock: Clock
    chance: Chance
    dial: Callable[[EtcdTarget], Kv] = connect
    is_gone: HolderCheck = lambda _: False


def build(settings: Settings, descriptor: Descriptor, world: World) -> Parts:
    """Build all parts of a meshd on its own etcd."""
    kv, clock, chance = world.kv, world.clock, world.chance
    keyspace = Keyspace(settings.etcd.prefix)
    projector = Projector(descriptor.name, RecordRing(settings.streams.ring_bytes))
    limits = WriterLimits(settings.writer.queue_max, settings.writer.submit_timeout_s)
    holder = Holder(host_name(), process_id(), process_mark(), str(settings.api.listen))
    leadership = Leadership(kv, keyspace, holder, clock, world.is_gone)
    ids = Ids(projector)
    peers = [
        _peer(settings, peer, keyspace, projector, (world, leadership.fence, ids))
        for peer in settings.peers
    ]
    followed = Peers(projector, clock, peers)
    node = Node(
        descriptor=descriptor,
        kv=kv,
        keyspace=keyspace,
        projector=projector,
        writer=Writer(kv, keyspace, projector, clock, limits),
        peers=followed,
        history=History(kv, keyspace, projector, followed.place),
        leadership=leadership,
        clock=clock,
        started_s=clock.monotonic_s(),
    )
    own_sink = OwnSink(projector)
    own_follower = Follower(
        LogReader(kv, keyspace, keyspace.local, is_local=True),
        own_sink,
        _rules(settings, ClusterName(settings.cluster.name), is_own=True),
        _pace(settings.replication),
        clock,
        chance,
    )
    beat_every_s = settings.replication.heartbeat_every_s
    presence = Presence(kv, keyspace, projector, leadership, beat_every_s, clock)
    chores = Chores(kv, keyspace, followed, leadership, _chore_rules(settings.retention), clock)
    upkeep = Upkeep(
        kv,
        leadership,
        UpkeepRules(settings.etcd.compact_every_s, settings.etcd.defragment_free_bytes),
        clock,
    )
    return Parts(node, own_sink, own_follower, presence, chores, upkeep)


def _chore_rules(retention: RetentionSettings) -> ChoreRules:
    return ChoreRules(
        check_every_s=retention.check_every_s,
        retention=RetentionRules(
            retention.snapshot_every_events,
            Keep(retention.keep_events, retention.keep_bytes, retention.keep_age_s),
            Keep(retention.cap_events, retention.cap_bytes, retention.cap_age_s),
        ),
        shelf=shelf(retention.archive_dir) if retention.archive_dir else None,
    )


def _peer(
    settings: Settings,
    peer: PeerSettings,
    keyspace: Keyspace,
    projector: Projector,
    doors: tuple[World, Fence, Ids],
) -> Peer:
    world, fence, ids = doors
    name = ClusterName(peer.name)
    kv = world.dial(peer_target(peer, settings.replication))
    theirs = Keyspace(peer.prefix)

    def reader() -> LogReader:
        return LogReader(kv, theirs, theirs.export(peer.audience), is_local=False)

    store = ReplicaStore(
        ReplicaCopy(world.kv, keyspace, name, fence),
        reader(),
        world.clock,
        settings.replication.persist_backlog_bytes,
    )
    budget = _budget(settings.replication.budget)
    guard = Guard(peer.announces, budget)
    follower = Follower(
        reader(),
        PeerSink(name, projector, store, guard, ids),
        _rules(settings, name, is_own=False),
        replace(_pace(settings.replication), budget=budget),
        world.clock,
        world.chance,
    )
    return Peer(name, kv, follower, store, peer.staleness.over(settings.staleness), guard)


def _budget(settings: BudgetSettings) -> Budget:
    return Budget(
        settings.events_per_s,
        settings.bytes_per_s,
        settings.burst_s,
        settings.services_max,
        settings.endpoints_max,
        settings.state_bytes_max,
    )


def _rules(settings: Settings, cluster: ClusterName, *, is_own: bool) -> FollowRules:
    replication = settings.replication
    return FollowRules(
        cluster=cluster,
        cluster_id=settings.cluster.id if is_own else 0,
        foreign_ids=frozenset() if is_own else frozenset({settings.cluster.id}),
        has_heartbeat=not is_own,
        silent_after_s=replication.silent_after_s,
        lost_after_s=replication.lost_after_s,
        recycle_after_s=replication.recycle_after_s,
        window_seqs=replication.window_seqs,
    )


def _pace(replication: ReplicationSettings) -> Pace:
    return Pace(replication.backoff_min_s, replication.backoff_max_s, replication.slow_retry_s)
