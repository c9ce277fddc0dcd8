"""The only writer of the states and the tables.

For: folding records as they come, from the own log as from peers', and publishing what changed.
Not for: deciding which record comes next (`core.replica`) or serving anybody. Invariants: a record
is folded exactly once, whoever hands it in; states, heads and tables always belong together, since
every method runs to its end without waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from meshd.core.derive import derive, digest_of_table
from meshd.core.digest import DIGEST_ZERO, digest_hex
from meshd.core.explain import Explanation, explain
from meshd.core.fold import fold_record, pass_over
from meshd.core.liveness import ALL_IN_SIGHT, Sight, Sights
from meshd.core.policies import Policies
from meshd.core.position import Verdict, classify
from meshd.core.readers import Outlook, outlook_of, states_about, states_in
from meshd.core.snapshot import finish_loading, load_part
from meshd.core.standpoint import written
from meshd.core.state import ClusterState
from meshd.core.tables import Tables
from meshd.model.codec import LocalHead
from meshd.model.errors import CorruptError
from meshd.model.event import Record
from meshd.model.ids import ClusterName, Head, LogId, Position, ServiceKey, Vector
from meshd.model.keyspace import DEFAULT_AUDIENCE
from meshd.model.snapshot import Manifest, Part
from meshd.model.table import GlobalService, Standing, TableDelta
from meshd.runtime.ring import RecordRing
from meshd.runtime.table_feed import TableFeed

DIGEST_OF_NOTHING = digest_hex(DIGEST_ZERO)


@dataclass(slots=True)
class _Log:
    """One log as far as it is folded."""

    head: Head
    state: ClusterState = field(default_factory=ClusterState)


class Listener(Protocol):
    """Who hears of every change of a served log within the change; neither may raise."""

    def folded(self, cluster: ClusterName, record: Record) -> None:
        """The log went on with a record."""

    def replaced(self, cluster: ClusterName) -> None:
        """The cluster joined, its log was begun anew or replaced by another, or it was removed."""


class Projector:
    """States, heads and tables of all clusters that are known here.

    policies: of all clusters, over the identities of all. feed: the changes of the tables. version:
    rises with every change. changed: set at the next change, then replaced. listeners: who hears of
    every record.
    """

    def __init__(self, own: ClusterName, ring: RecordRing, feed: TableFeed) -> None:
        self.own = own
        self.ring = ring
        self.feed = feed
        self.version = 0
        self.changed = asyncio.Event()
        self.listeners: list[Listener] = []
        self.local_head: LocalHead | None = None
        self.tables = Tables(own)
        self.policies = Policies()
        self._served: dict[ClusterName, _Log] = {}
        self._states: dict[ClusterName, ClusterState] = {}
        self._log_ids: dict[ClusterName, LogId] = {}
        self._generations: dict[ClusterName, int] = {}
        self._generation = 0
        self._staged: dict[ClusterName, _Log] = {}
        self._forked: set[ClusterName] = set()
        self._pasts: dict[ClusterName, int] = {}
        self._sights: dict[ClusterName, Sight] = {}

    # What is known.

    def head(self, cluster: ClusterName) -> Head | None:
        """How far the cluster's served log is folded; None if nothing is known of it."""
        log = self._served.get(cluster)
        return log.head if log else None

    def state(self, cluster: ClusterName) -> ClusterState | None:
        """The cluster's served state; to be read, never written."""
        log = self._served.get(cluster)
        return log.state if log else None

    def folding(self, cluster: ClusterName) -> ClusterState:
        """The state that the cluster's next record is folded into; to be read, never written."""
        log = self._staged.get(cluster) or self._served.get(cluster)
        return log.state if log else ClusterState()

    @property
    def states(self) -> Mapping[ClusterName, ClusterState]:
        """All served states."""
        return self._states

    @property
    def log_ids(self) -> Mapping[ClusterName, LogId]:
        """The log that each served state is folded from."""
        return self._log_ids

    @property
    def generations(self) -> Mapping[ClusterName, int]:
        """Which time it is that each served state was begun. A log that is read anew may come to
        something else at the same place, since what is passed over of it may have changed.
        """
        return self._generations

    def past(self, cluster: ClusterName) -> int:
        """How often the log that is served of a cluster was found to have another past than it had:
        its etcd was restored. Places in it that were told before may have been taken by others.
        """
        return self._pasts.get(cluster, 0)

    @property
    def exports(self) -> Mapping[str, Head]:
        """The heads of the own export logs, by audience; none before the own log is read."""
        return self.local_head.exports if self.local_head is not None else {}

    @property
    def is_settled(self) -> bool:
        """Whether the heads of the own export logs, and so `vector`, are of the same place as
        states and digests. They aren't while the own log is read on: how far its export logs go is
        known only of its end.
        """
        local = self.local_head.local if self.local_head is not None else None
        return self.head(self.own) == local

    def vector(self, audience: str = DEFAULT_AUDIENCE) -> dict[ClusterName, Position]:
        """Where the tables stand, in the positions that all clusters share: those of the export
        logs. Of the own ones an audience is told of no other than its own.
        """
        vector = {
            name: Position(name, log.head.log_id, log.head.seq)
            for name, log in self._served.items()
            if name != self.own
        }
        head = self.exports.get(audience)
        if head is not None:
            vector[self.own] = Position(self.own, head.log_id, head.seq)
        return vector

    def is_written(self, audience: str) -> bool:
        """Whether the own cluster still offers things to an audience that has an export log."""
        state = self.state(self.own)
        return audience in written(state.info.value if state and state.info else None)

    def digest_for(self, audience: str) -> str:
        """The digest over what the own cluster offers to an audience."""
        if audience == DEFAULT_AUDIENCE:
            return self.tables.digest
        return self.tables.digest_for(audience) if self.is_written(audience) else DIGEST_OF_NOTHING

    def log_vector(self) -> dict[ClusterName, Position]:
        """Where the events stand that are told here: the own local log, and peers' export logs."""
        return {
            name: Position(name, log.head.log_id, log.head.seq)
            for name, log in self._served.items()
        }

    def outlook_of(self, cluster: ClusterName, vector: Vector | None) -> Outlook:
        """What another cluster sees. vector: by its heartbeat; None if it wasn't heard."""
        return outlook_of(cluster, vector, (self.own, self.exports), self._log_ids)

    @property
    def sights(self) -> Sights:
        """How each cluster is seen from here; to be copied by who keeps it."""
        return self._sights

    def states_as(self, outlook: Outlook) -> Mapping[ClusterName, ClusterState]:
        """The states as another cluster has them."""
        return states_in(outlook, self.own, self._states)

    def view_as(
        self, perspective: ClusterName, vector: Vector | None, key: ServiceKey
    ) -> GlobalService | None:
        """One service as another cluster sees it, or as this one does; None if it isn't served."""
        if perspective == self.own:
            return self.tables.view(key)
        states = self.states_as(self.outlook_of(perspective, vector))
        return derive(perspective, states, self._log_ids, ALL_IN_SIGHT, (key,)).get(key)

    def explain_as(
        self, perspective: ClusterName, vector: Vector | None, key: ServiceKey
    ) -> Explanation:
        """Why a service is as it is; as another cluster sees it if its links are all fresh.

        Raises NotFoundError if nobody has heard of it.
        """
        if perspective == self.own:
            return explain(perspective, key, self._states, self._log_ids, self._sights)
        outlook = self.outlook_of(perspective, vector)
        states, unheard = states_about(outlook, self.own, self._states, key)
        return explain(perspective, key, states, self._log_ids, ALL_IN_SIGHT, unheard)

    def tables_as(
        self, perspective: ClusterName, vector: Vector | None = None
    ) -> Mapping[ServiceKey, GlobalService]:
        """The tables as another cluster sees them if its links are all fresh. vector: as it says
        in its heartbeat how far it reads what; without, it is taken to read all that is read here.
        """
        states = self.states_as(self.outlook_of(perspective, vector))
        return derive(perspective, states, self._log_ids)

    def digest_as(self, perspective: ClusterName, vector: Vector | None = None) -> str:
        """The digest of the tables as another cluster sees them, or as this one does."""
        if perspective == self.own:
            return self.tables.digest
        states = self.states_as(self.outlook_of(perspective, vector))
        return digest_of_table(perspective, states, self._log_ids)

    # What changes.

    def adopt(self, cluster: ClusterName, head: Head, state: ClusterState) -> None:
        """Serve a state that was folded elsewhere: the durable replica at the start."""
        self._serve(cluster, _Log(head, state))

    def begin_generation(
        self, cluster: ClusterName, log_id: LogId, *, is_fork: bool = False
    ) -> None:
        """Build a new state beside the served one. is_fork: the log has another past than that."""
        self._staged[cluster] = _Log(Head.genesis(log_id))
        if is_fork:
            self._forked.add(cluster)

    def load_part(self, cluster: ClusterName, manifest: Manifest, part: Part) -> None:
        """Fold a part of a snapshot into the new state; raises CorruptError, and nothing is done
        then.
        """
        load_part(self._staged[cluster].state, part, cluster, manifest)

    def finish_snapshot(self, cluster: ClusterName, manifest: Manifest) -> None:
        """The new state stands where the snapshot does."""
        log = self._staged[cluster]
        finish_loading(log.state, manifest)
        log.head = manifest.head

    def complete_generation(self, cluster: ClusterName) -> None:
        """Serve the new state; backends that are gone are withdrawn by comparing, each once."""
        if cluster in self._forked:
            self._forked.discard(cluster)
            self._pasts[cluster] = self.past(cluster) + 1
        self._serve(cluster, self._staged.pop(cluster))

    def _serve(self, cluster: ClusterName, log: _Log) -> None:
        self._served[cluster] = log
        self._states[cluster] = log.state
        self._log_ids[cluster] = log.head.log_id
        self._generation += 1
        self._generations[cluster] = self._generation
        self.ring.reset(cluster)
        self._tell(self.tables.replace(cluster, self._states, self._log_ids))
        self.policies.replace(cluster, self._states)
        self._tell_replaced(cluster)
        self._publish()

    def fold(self, cluster: ClusterName, record: Record) -> None:
        """Fold the next record of a cluster's log; one that was folded before changes nothing.

        Raises CorruptError for a record that can't be folded; what came before it is served on.
        """
        log = self._log_before(cluster, record)
        if log is None:
            return
        changes = fold_record(log.state, record, cluster)
        log.head = record.head
        if cluster not in self._staged:
            self.ring.add(cluster, record)
            self._tell(self.tables.apply(cluster, changes, self._states, self._log_ids))
            self.policies.apply(cluster, changes, self._states)
            self._tell_folded(cluster, record)
            self._publish()

    def pass_over(self, cluster: ClusterName, record: Record) -> None:
        """Go on behind the next record of a cluster's log, as a person said. It is told to those
        who read events, who are told the log as it is, and changes no table.
        """
        log = self._log_before(cluster, record)
        if log is None:
            return
        pass_over(log.state, record)
        log.head = record.head
        if cluster not in self._staged:
            self.ring.add(cluster, record)
            self._tell_folded(cluster, record)
            self._publish()

    def _log_before(self, cluster: ClusterName, record: Record) -> _Log | None:
        """The log that a record continues; None if it was folded before. Raises CorruptError."""
        log = self._staged.get(cluster) or self._served[cluster]
        verdict = classify(log.head, record)
        if verdict is Verdict.DUPLICATE:
            return None
        if verdict is not Verdict.NEXT:
            raise CorruptError(f"{cluster} seq {record.first_seq}", f"{verdict.name} at a fold")
        return log

    def settle(self, local_head: LocalHead) -> None:
        """Note the heads of the own export logs, once the local log is folded as far."""
        log = self._served.get(self.own)
        if log is not None and log.head == local_head.local and local_head != self.local_head:
            self.local_head = local_head
            self._publish()

    def see(self, cluster: ClusterName, sight: Sight | None) -> None:
        """Let how a cluster is seen act on its backends; None once it is seen no more."""
        before = self.standing(cluster)
        self._sights.pop(cluster, None)
        if sight is not None:
            self._sights[cluster] = sight
        delta = self.tables.set_sight(cluster, sight)
        self._tell(delta)
        if delta or self.standing(cluster) is not before:
            self._publish()

    def see_unfresh(self, clusters: frozenset[ClusterName]) -> None:
        """Let it be told whose part of the tables is as last known, since they are out of sight."""
        if self.feed.see(clusters, self.tables):
            self._publish()

    def standing(self, cluster: ClusterName) -> Standing:
        """What the cluster's liveness does to its backends, where services don't say otherwise."""
        sight = self._sights.get(cluster)
        return Standing.FRESH if sight is None else sight.standing()

    def remove(self, cluster: ClusterName) -> None:
        """Forget a peer that was removed, and withdraw its backends."""
        self._staged.pop(cluster, None)
        self._forked.discard(cluster)
        if self._served.pop(cluster, None) is not None:
            del self._states[cluster], self._log_ids[cluster], self._generations[cluster]
            self.ring.reset(cluster)
            self._tell(self.tables.replace(cluster, self._states, self._log_ids))
            self.policies.replace(cluster, self._states)
            self._tell_replaced(cluster)
            self._publish()
        self.see(cluster, None)

    def touch(self) -> None:
        """Wake those who wait for a change: a peer's phase is none of the tables'."""
        self._publish()

    def _tell_folded(self, cluster: ClusterName, record: Record) -> None:
        for listener in self.listeners:
            listener.folded(cluster, record)

    def _tell_replaced(self, cluster: ClusterName) -> None:
        for listener in tuple(self.listeners):
            listener.replaced(cluster)

    def _tell(self, delta: TableDelta) -> None:
        self.feed.note(delta, self.tables)

    def _publish(self) -> None:
        self.version += 1
        self.changed.set()
        self.changed = asyncio.Event()
