"""How a peer is followed: from its settings to the parts that do it.

For: links, rules and budgets of one peer at a time, at the start as later on. Not for: which peers
there are (`runtime.listing`), nor running them (`runtime.peers`). Invariant: making a peer does no
I/O but reading the files of secrets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from meshd.core.budget import Budget
from meshd.edges.etcd import EtcdTarget, TlsFiles, connect
from meshd.edges.probe import look
from meshd.edges.system.process import process_mark
from meshd.model.errors import FatalError
from meshd.model.ids import ClusterName
from meshd.model.keyspace import Keyspace
from meshd.model.listed import Skip
from meshd.model.replica import FollowRules
from meshd.runtime.combining import CombinedCommits
from meshd.runtime.distance import RoundTrips
from meshd.runtime.follower import Follower, Pace
from meshd.runtime.leadership import HolderCheck
from meshd.runtime.listing import Wish
from meshd.runtime.peer import Peer
from meshd.runtime.ports import Chance, Clock, Kv, Look
from meshd.runtime.projector import Projector
from meshd.runtime.reading import LogReader
from meshd.runtime.replica_copy import Fence, Loaded, ReplicaCopy
from meshd.runtime.replica_store import ReplicaStore
from meshd.runtime.sinks import Guard, Ids, PeerSink
from meshd.settings import (
    BudgetSettings,
    EtcdSettings,
    PeerSettings,
    ReplicationSettings,
    Settings,
    TlsSettings,
    secret_text,
)


@dataclass(frozen=True, slots=True)
class World:
    """The doors to everything outside. dial: how a peer's etcd is reached. is_gone: whether the
    holder of the leader key is known to be dead. process: tells this start from all others. look:
    how an endpoint is probed.
    """

    kv: Kv
    clock: Clock
    chance: Chance
    dial: Callable[[EtcdTarget], Kv] = connect
    is_gone: HolderCheck = lambda _: False
    process: Callable[[], str] = process_mark
    look: Look = look


def own_target(etcd: EtcdSettings) -> EtcdTarget:
    """Where the own etcd is."""
    return EtcdTarget(
        endpoints=tuple(str(target) for target in etcd.targets),
        tls=tls_files(etcd.tls),
        username=etcd.username,
        password=secret_text(etcd.password_file, etcd.password),
        call_timeout_s=etcd.call_timeout_s,
    )


def peer_target(peer: PeerSettings, replication: ReplicationSettings) -> EtcdTarget:
    """Where a peer's etcd is."""
    return EtcdTarget(
        endpoints=tuple(str(target) for target in peer.endpoints),
        tls=tls_files(peer.tls),
        username=peer.username,
        password=secret_text(peer.password_file),
        call_timeout_s=replication.connect_timeout_s,
    )


def tls_files(tls: TlsSettings) -> TlsFiles | None:
    """TLS towards an etcd; None for none."""
    if not tls.is_on:
        return None
    if tls.ca_file is None:
        raise FatalError("tls needs ca_file: the authority that signed the etcd's certificate")
    return TlsFiles(tls.ca_file, tls.cert_file, tls.key_file, tls.server_name)


@dataclass(frozen=True, slots=True)
class PeerMaker:
    """Makes the parts that follow a peer."""

    settings: Settings
    keyspace: Keyspace
    projector: Projector
    world: World
    fence: Fence
    ids: Ids
    commits: CombinedCommits

    def link_of(self, wish: Wish) -> EtcdTarget:
        """What a peer would be dialled by now: a password that was replaced counts."""
        return peer_target(wish.settings, self.settings.replication)

    def make(self, wish: Wish, former: Peer | None) -> Peer:
        """The parts of a peer. Those that know its log are used on, where there are any."""
        settings, world, name = self.settings, self.world, wish.name
        link = self.link_of(wish)
        kv = world.dial(link)
        theirs = Keyspace(wish.settings.prefix)

        def reader() -> LogReader:
            return LogReader(kv, theirs, theirs.export(wish.settings.audience), is_local=False)

        budget = _budget(settings.replication.budget)
        guard = Guard(wish.settings.announces, budget)
        source = reader()
        store = former.store if former else self._store(name, source)
        sink = former.sink if former else PeerSink(name, self.projector, store, guard, self.ids)
        follower = Follower(
            reader(),
            sink,
            follow_rules(settings, name, is_own=False),
            replace(pace(settings.replication), budget=budget),
            world.clock,
            world.chance,
        )
        staleness = wish.settings.staleness.over(settings.staleness)
        head = theirs.export(wish.settings.audience).head
        round_trips = RoundTrips(kv, head, world.clock, lambda: follower.state.paused)
        return Peer(wish, link, kv, source, follower, sink, store, staleness, guard, round_trips)

    async def load(self, name: ClusterName) -> Loaded | None:
        """The replica of a peer that can't be followed; raises as etcd does."""
        return await self._copy(name).load()

    def _store(self, name: ClusterName, source: LogReader) -> ReplicaStore:
        backlog_bytes = self.settings.replication.persist_backlog_bytes
        return ReplicaStore(self._copy(name), source, self.world.clock, backlog_bytes)

    def _copy(self, name: ClusterName) -> ReplicaCopy:
        projector = self.projector

        def skip() -> Skip | None:
            own = projector.state(projector.own)
            return own.skip(name) if own else None

        commit = self.commits.commit
        return ReplicaCopy(self.world.kv, self.keyspace, name, self.fence, commit, skip)


def _budget(settings: BudgetSettings) -> Budget:
    return Budget(
        settings.events_per_s,
        settings.bytes_per_s,
        settings.burst_s,
        settings.services_max,
        settings.endpoints_max,
        settings.state_bytes_max,
        settings.nodes_max,
        settings.identities_max,
        settings.policies_max,
    )


def follow_rules(settings: Settings, cluster: ClusterName, *, is_own: bool) -> FollowRules:
    """What a log is held to."""
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


def pace(replication: ReplicationSettings) -> Pace:
    """How often a log is tried."""
    return Pace(replication.backoff_min_s, replication.backoff_max_s, replication.slow_retry_s)
