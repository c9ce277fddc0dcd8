"""The parts of one meshd, built from its settings and not yet running.

For: turning settings into what the runtime takes. Not for: starting anything (`daemon.run`).
Invariant: building does no I/O but reading the files of secrets and certificates.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass, replace

from meshd.core.retention import Keep, RetentionRules
from meshd.daemon.peering import PeerMaker, World, follow_rules, own_target, pace, peer_target
from meshd.daemon.publishing import publisher_of
from meshd.edges.embedded import EmbeddedConfig, EmbeddedTls
from meshd.edges.etcd.connection import Connection
from meshd.edges.etcd.gate import ANSWER_BYTES_MAX, Gate
from meshd.edges.system.files import shelf
from meshd.edges.system.process import host_name, process_id
from meshd.model.codec import Descriptor
from meshd.model.ids import ClusterName
from meshd.model.keyspace import Keyspace
from meshd.runtime.agreement import Agreement
from meshd.runtime.bootstrap import Identity
from meshd.runtime.chores import ChoreRules, Chores
from meshd.runtime.clearing import Clearing, ClearingRules, Own
from meshd.runtime.combining import CombinedCommits
from meshd.runtime.expiry import Expiry
from meshd.runtime.follower import Follower
from meshd.runtime.history import History
from meshd.runtime.leadership import Holder, Leadership
from meshd.runtime.listing import Listing
from meshd.runtime.long_lived import LongLived
from meshd.runtime.node import Node
from meshd.runtime.opening import open_own_log
from meshd.runtime.operator import Operator
from meshd.runtime.past import Past
from meshd.runtime.peer import Maker
from meshd.runtime.peers import Peers
from meshd.runtime.presence import Presence
from meshd.runtime.prober import Prober, ProberRules
from meshd.runtime.projector import Projector
from meshd.runtime.publisher import Sources
from meshd.runtime.reading import LogReader
from meshd.runtime.registrations import Registrations
from meshd.runtime.ring import RecordRing
from meshd.runtime.signals import Signals
from meshd.runtime.sinks import Ids, OwnSink
from meshd.runtime.table_feed import TableFeed
from meshd.runtime.trails import Trails
from meshd.runtime.upkeep import Upkeep, UpkeepRules
from meshd.runtime.writer import Writer, WriterLimits
from meshd.settings import EtcdSettings, HealthSettings, PeerStaleness, RetentionSettings, Settings

__all__ = ["Parts", "World", "build", "embedded_config", "identity_of", "own_target"]


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that `daemon.run` sets going."""

    node: Node
    own_sink: OwnSink
    own_follower: Follower
    presence: Presence
    chores: Chores
    upkeep: Upkeep
    clearing: Clearing
    expiry: Expiry

    async def load(self) -> None:
        """Serve what the own etcd holds, before any peer is asked; raises as etcd does."""
        node = self.node
        await open_own_log(node.kv, node.keyspace, node.projector, self.own_follower)
        await node.peers.load_replicas()


def gate_of(settings: Settings) -> Gate | None:
    """The door for peers, with a connection of its own to the own etcd; None if there is none."""
    if settings.gate.listen is None:
        return None
    target = replace(own_target(settings.etcd), receive_bytes_max=ANSWER_BYTES_MAX)
    return Gate(settings.gate, Keyspace(settings.etcd.prefix), Connection(target))


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


def identity_of(settings: Settings) -> Identity:
    """Who this cluster is."""
    return Identity(ClusterName(settings.cluster.name), settings.cluster.id)


def build(settings: Settings, descriptor: Descriptor, world: World) -> Parts:
    """Build all parts of a meshd on its own etcd."""
    kv, clock, chance = world.kv, world.clock, world.chance
    keyspace = Keyspace(settings.etcd.prefix)
    feed = TableFeed(chance.uuid_hex())
    projector = Projector(descriptor.name, RecordRing(settings.streams.ring_bytes), feed)
    projector.listeners.append(LongLived(projector, gc.freeze))
    limits = WriterLimits(settings.writer.queue_max, settings.writer.submit_timeout_s)
    holder = Holder(host_name(), process_id(), world.process(), str(settings.api.listen))
    leadership = Leadership(kv, keyspace, holder, clock, world.is_gone)
    for peer in settings.peers:
        # What can't be read now is better said before anything runs.
        peer_target(peer, settings.replication)
    commits = CombinedCommits(kv, clock)
    fence, ids = leadership.fence, Ids(projector)
    maker = PeerMaker(settings, keyspace, projector, world, fence, ids, commits)
    listing = Listing(settings, projector)
    general = PeerStaleness().over(settings.staleness)
    makes = Maker(maker.link_of, maker.make, maker.load, commits.run, general)
    followed = Peers(projector, clock, listing, makes)
    past = Past(kv, keyspace, projector, followed, clock)
    writer = Writer(kv, keyspace, projector, (clock, chance), limits)
    registrations = Registrations(
        kv, keyspace, projector, writer, clock, settings.health.registrations_max
    )
    signals = Signals(kv, keyspace, clock)
    history = History(kv, keyspace, projector, followed.place)
    sources = Sources(projector, history, followed)
    node = Node(
        descriptor=descriptor,
        kv=kv,
        keyspace=keyspace,
        projector=projector,
        writer=writer,
        peers=followed,
        history=history,
        past=past,
        trails=Trails(past),
        agreement=Agreement(kv, keyspace, projector, followed, clock),
        registrations=registrations,
        prober=_prober(settings.health, world, projector, writer, leadership),
        leadership=leadership,
        operator=Operator(projector, followed, leadership, writer, signals, clock),
        clock=clock,
        started_s=clock.monotonic_s(),
        publisher=publisher_of(settings.mqtt, sources, leadership, (kv, keyspace), (clock, chance)),
    )
    own_sink = OwnSink(projector)
    own_follower = Follower(
        LogReader(kv, keyspace, keyspace.local, is_local=True),
        own_sink,
        follow_rules(settings, ClusterName(settings.cluster.name), is_own=True),
        pace(settings.replication),
        clock,
        chance,
    )
    return Parts(node, own_sink, own_follower, *_duties(settings, node))


Duties = tuple[Presence, Chores, Upkeep, Clearing, Expiry]


def _duties(settings: Settings, node: Node) -> Duties:
    """What one meshd of a cluster does for all, while it leads."""
    kv, keyspace, projector, clock = node.kv, node.keyspace, node.projector, node.clock
    leadership, retention, etcd = node.leadership, settings.retention, settings.etcd
    beat_every_s = settings.replication.heartbeat_every_s
    rules = UpkeepRules(etcd.compact_every_s, etcd.defragment_free_bytes)
    own = Own(kv, keyspace, projector, node.writer.submit)
    clearing_rules = ClearingRules(retention.check_every_s, retention.replica_grace_s)
    return (
        Presence(kv, keyspace, projector, leadership, beat_every_s, clock),
        Chores(kv, keyspace, node.peers, leadership, _chore_rules(retention), clock),
        Upkeep(kv, leadership, rules, clock),
        Clearing(own, node.peers, leadership, clock, clearing_rules),
        Expiry(projector, node.writer, node.registrations, leadership, clock),
    )


def _prober(
    health: HealthSettings,
    world: World,
    projector: Projector,
    writer: Writer,
    leadership: Leadership,
) -> Prober:
    rules = ProberRules(health.probes_at_once_max, health.probed_max, health.probe_local)
    doors = (world.clock, world.chance, world.look)
    return Prober(projector, writer, leadership, doors, rules)


def _chore_rules(retention: RetentionSettings) -> ChoreRules:
    return ChoreRules(
        check_every_s=retention.check_every_s,
        retention=RetentionRules(
            retention.snapshot_every_events,
            Keep(retention.keep_events, retention.keep_bytes, retention.keep_age_s),
            Keep(retention.cap_events, retention.cap_bytes, retention.cap_age_s),
            retention.snapshots_kept,
        ),
        shelf=shelf(retention.archive_dir) if retention.archive_dir else None,
    )
