"""What one meshd makes of the logs that it reads: states, tables, and replicas behind them.

For: doing the effects of `core.replica` as `runtime.projector` and `runtime.replica_store` do, and
checking each. Not for: reading (`link`). Invariants: every delta is held against what was told
before; a crash leaves what is durable and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from meshd.core.budget import Budget, Ceiling
from meshd.core.claims import id_taken, stolen_id, trespass
from meshd.core.derive import derive, digest_of_table
from meshd.core.fold import fold_record
from meshd.core.liveness import Sight
from meshd.core.snapshot import finish_loading, load_part
from meshd.core.state import ClusterState
from meshd.core.tables import Tables
from meshd.model.errors import CorruptError
from meshd.model.event import Record
from meshd.model.ids import ClusterName, Head, LogId, ServiceKey
from meshd.model.replica import (
    BeginGeneration,
    CompleteGeneration,
    Effect,
    FinishSnapshot,
    Fold,
    LoadPart,
    PassOver,
)
from meshd.model.snapshot import Manifest, decode_part
from meshd.model.table import Backend, BackendKey, Standing, TableDelta
from tests.sim.sayings import IDS, OWN, OWN_STATE, is_same
from tests.sim.tally import Tally

OWN_LOG_ID = LogId("0" * 32)
BUDGET = Budget(
    1e9,
    1e9,
    1.0,
    services_max=5,
    endpoints_max=100,
    state_bytes_max=10**9,
    nodes_max=100,
    identities_max=100,
    policies_max=100,
)
"""Five services are more than a peer has by itself, and fewer than a greedy one says."""


@dataclass(slots=True)
class Generation:
    """One generation of a log as far as it is folded. manifest, parts: the snapshot that it begins
    with. records: with their mod revisions. whole_at: how many of them it had once it was served.
    """

    head: Head
    ceiling: Ceiling
    state: ClusterState = field(default_factory=ClusterState)
    manifest: Manifest | None = None
    parts: list[bytes] = field(default_factory=list)
    records: list[tuple[Record, int]] = field(default_factory=list)
    whole_at: int = 0


@dataclass(slots=True)
class Copy:
    """A replica in the own etcd: of a generation, so many records behind its snapshot."""

    of: Generation
    records: int

    @property
    def cursor(self) -> tuple[Head, int]:
        """Where it ends, and at which revision of the peer's etcd."""
        if self.records:
            record, revision = self.of.records[self.records - 1]
            return record.head, revision
        return (self.of.manifest.head if self.of.manifest else self.of.head), 0


class Reader:
    """One meshd of the cluster OWN. summed_up: what snapshots must come to, by their heads.
    has_ceilings: whether what a peer may hold is counted, for the schedules in which one grows.
    """

    def __init__(
        self, tally: Tally, summed_up: dict[Head, ClusterState], *, has_ceilings: bool
    ) -> None:
        self.tally = tally
        self._has_ceilings = has_ceilings
        self.summed_up = summed_up
        self.durable: dict[ClusterName, Copy] = {}
        self._start()

    def _start(self) -> None:
        self.served: dict[ClusterName, Generation] = {}
        self.staged: dict[ClusterName, Generation] = {}
        self.states = {OWN: OWN_STATE}
        self.log_ids = {OWN: OWN_LOG_ID}
        self.refused: set[ClusterName] = set()
        self.sights: dict[ClusterName, Sight] = {}
        self.tables = Tables(OWN)
        self._told: dict[ServiceKey, dict[BackendKey, Backend]] = {}
        self._tell(OWN, self.tables.replace(OWN, self.states, self.log_ids))

    # What is known.

    def folding(self, cluster: ClusterName) -> Generation | None:
        """The generation that a cluster's next record is folded into."""
        return self.staged.get(cluster) or self.served.get(cluster)

    def vector(self) -> dict[ClusterName, Head]:
        """Where the tables stand."""
        return {name: generation.head for name, generation in self.served.items()}

    def foreign_ids(self, cluster: ClusterName) -> frozenset[int]:
        """As `runtime.peers.Ids` says them."""
        infos = (
            state.info
            for name, state in self.states.items()
            if name != cluster and name not in self.refused
        )
        return frozenset(info.value.id for info in infos if info is not None)

    # Effects.

    def take(self, cluster: ClusterName, effect: Effect) -> None:
        """Do an effect; raises CorruptError for what can't be folded."""
        match effect:
            case Fold(record, revision):
                self._fold(cluster, record, revision)
            case PassOver():
                self.tally.hold("I6", False, "passed over what nobody said to pass over")
            case BeginGeneration(log_id):
                self.staged[cluster] = Generation(Head.genesis(log_id), Ceiling(BUDGET))
            case LoadPart(manifest, _, raw):
                self._load_part(cluster, manifest, raw)
            case FinishSnapshot(manifest):
                self._finish_snapshot(cluster, manifest)
            case CompleteGeneration():
                self._complete(cluster)

    def _complete(self, cluster: ClusterName) -> None:
        self.tally.hold("I6", cluster in self.staged, "completed what never began")
        generation = self.staged[cluster]
        info = generation.state.info
        if info is not None and info.value.id in self.foreign_ids(cluster):
            raise CorruptError(f"{cluster} seq {info.seq}", id_taken(info.value.id))
        del self.staged[cluster]
        generation.whole_at = len(generation.records)
        self._serve(cluster, generation)

    def _fold(self, cluster: ClusterName, record: Record, revision: int) -> None:
        hold, generation = self.tally.hold, self.folding(cluster)
        if generation is None:
            hold("I5", False, "folded before any generation began")
            return
        at = generation.head
        hold("I7", record.log_id == at.log_id, "two histories in one generation")
        hold("I5", record.first_seq == at.seq + 1, "a seq is left out or comes again")
        hold("I3", record.prev_hash == at.hash, "the chain breaks")
        self._guard(generation, record, cluster)
        changes = fold_record(generation.state, record, cluster)
        generation.head = record.head
        generation.records.append((record, revision))
        if cluster not in self.staged:
            self._tell(cluster, self.tables.apply(cluster, changes, self.states, self.log_ids))

    def _guard(self, generation: Generation, record: Record, cluster: ClusterName) -> None:
        reason = trespass((), record.events)
        if not reason and cluster not in self.staged:
            reason = stolen_id(cluster, record.events, lambda: self.foreign_ids(cluster))
        if not reason and self._has_ceilings:
            size_bytes = len(record.raw)
            reason = generation.ceiling.passed_by(generation.state, record.events, size_bytes)
        if reason:
            raise CorruptError(f"{cluster} seq {record.first_seq}", reason)

    def _load_part(self, cluster: ClusterName, manifest: Manifest, raw: bytes) -> None:
        generation = self.staged[cluster]
        part = decode_part(raw, f"{cluster} snapshot at {manifest.head.seq}")
        load_part(generation.state, part, cluster, manifest)
        generation.parts.append(raw)

    def _finish_snapshot(self, cluster: ClusterName, manifest: Manifest) -> None:
        generation = self.staged[cluster]
        finish_loading(generation.state, manifest)
        generation.head, generation.manifest = manifest.head, manifest
        truth = self.summed_up[manifest.head]
        self.tally.hold("I6", is_same(generation.state, truth), "a snapshot isn't what it replaces")
        self.tally.saw("snapshot loaded")

    def _serve(self, cluster: ClusterName, generation: Generation) -> None:
        hold = self.tally.hold
        hold("I15", generation.head.seq > 0, "nothing is served in place of what isn't known")
        self.served[cluster] = generation
        self.states[cluster] = generation.state
        self.log_ids[cluster] = generation.head.log_id
        self._tell(cluster, self.tables.replace(cluster, self.states, self.log_ids))

    def see(self, cluster: ClusterName, sight: Sight) -> None:
        """Let how a cluster is seen act on its backends."""
        self.tally.saw("demoted", sight.standing() is Standing.DEMOTED)
        self.sights[cluster] = sight
        self._tell(cluster, self.tables.set_sight(cluster, sight))

    def _tell(self, cluster: ClusterName, deltas: TableDelta) -> None:
        """Add a delta to what was told before: nothing twice, and nothing of another cluster."""
        hold = self.tally.hold
        for delta in deltas:
            if delta.gone:
                hold("I5", self._told.pop(delta.key, None) is not None, "withdrawn twice")
                continue
            told = self._told.setdefault(delta.key, {})
            for key in delta.removals:
                hold("I8", key[0] == cluster, "an event of one cluster withdrew another's")
                hold("I5", told.pop(key, None) is not None, "withdrawn twice")
            for backend in delta.upserts:
                key = backend.cluster, backend.name
                # Another definition gives others' backends other ports.
                is_own = delta.redefined or key[0] == cluster
                hold("I8", is_own, "an event of one cluster changed another's")
                hold("I5", told.get(key) != backend, "told twice")
                told[key] = backend

    # Checks.

    def check_tables(self) -> None:
        """Hold the tables against those derived from scratch, and each backend's provenance."""
        hold, tables, log_ids = self.tally.hold, self.tables, self.log_ids
        expected = derive(OWN, self.states, log_ids, self.sights)
        keys = tables.keys()
        views = {key: tables.view(key) for key in keys}
        hold("I18", views == expected, "the incremental table isn't the derived one")
        digest = digest_of_table(OWN, self.states, log_ids)
        hold("I18", tables.digest == digest, "the incremental digest isn't the derived one")
        for key, service in expected.items():
            told = self._told.get(key, {})
            found = {(one.cluster, one.name): one for one in service.backends}
            hold("I18", told == found, "what was told doesn't come to the table")
            for backend in service.backends:
                origin = backend.origin
                held = self.states[backend.cluster].endpoints[key][backend.name]
                is_from_there = (
                    backend.address.split(".")[1] == str(IDS[backend.cluster])
                    and origin.log_id == log_ids[backend.cluster]
                    and origin.seq == held.seq
                )
                hold("I8", is_from_there, "a backend isn't from its own cluster's log")

    # The replica.

    def persist(self, cluster: ClusterName, chance: Random) -> None:
        """Write some of what is served behind it: another generation whole, and all at once."""
        generation = self.served.get(cluster)
        if generation is None:
            return
        copy = self.durable.get(cluster)
        is_new = copy is None or copy.of is not generation
        written = generation.whole_at if copy is None or is_new else copy.records
        reached = chance.randint(written, len(generation.records))
        self.durable[cluster] = Copy(generation, reached)

    def crash(self) -> None:
        """Die, and serve what the replicas hold."""
        self._start()
        for cluster, copy in self.durable.items():
            head, _ = copy.cursor
            loaded = Generation(Head.genesis(head.log_id), Ceiling(BUDGET))
            manifest = copy.of.manifest
            if manifest is not None:
                for raw in copy.of.parts:
                    load_part(loaded.state, decode_part(raw, "replica"), cluster, manifest)
                finish_loading(loaded.state, manifest)
                loaded.manifest, loaded.parts = manifest, copy.of.parts
            loaded.records = copy.of.records[: copy.records]
            self._adopt(cluster, loaded, head)
            copy.of = loaded

    def begin_with(self, cluster: ClusterName, records: list[tuple[Record, int]]) -> None:
        """Have a replica, and serve it, before anything is read."""
        head = records[-1][0].head
        generation = Generation(Head.genesis(head.log_id), Ceiling(BUDGET), records=records)
        self._adopt(cluster, generation, head)
        self.durable[cluster] = Copy(generation, len(records))

    def _adopt(self, cluster: ClusterName, generation: Generation, head: Head) -> None:
        for record, _ in generation.records:
            fold_record(generation.state, record, cluster)
        generation.head, generation.whole_at = head, len(generation.records)
        generation.ceiling.begin(generation.state)
        self._serve(cluster, generation)
