"""Where followed logs go: the own one to the projector, a peer's also to its replica.

For: what each of a follower's effects does here. Not for: following (`follower`). Invariant: what a
peer may not say is folded nowhere and kept nowhere, unless a person said to pass over it; then it
is kept, since a replica is the peer's log byte for byte.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from meshd.core.budget import Budget, Ceiling
from meshd.core.claims import (
    Claims,
    id_taken,
    stolen_id,
    stolen_number,
    stolen_number_in,
    trespass,
    trespass_in,
)
from meshd.core.freshness import target_seq
from meshd.core.state import ClusterState
from meshd.model.codec import LocalHead, event_bytes
from meshd.model.errors import CorruptError, FatalError
from meshd.model.event import Event, Record
from meshd.model.ids import ClusterName, Head, LogId
from meshd.model.listed import Skip
from meshd.model.peer import NO_TRAFFIC, Phase
from meshd.model.replica import ReplicaState
from meshd.model.snapshot import Manifest, decode_part
from meshd.runtime.projector import Projector
from meshd.runtime.replica_store import ReplicaStore
from meshd.telemetry import metrics

log = structlog.get_logger(__name__)


class Guard:
    """What a peer may say, and how much of it."""

    def __init__(self, claims: Claims, budget: Budget) -> None:
        self._claims = claims
        self._ceiling = Ceiling(budget)

    def begin(self, state: ClusterState) -> None:
        """Begin with a state that was checked before."""
        self._ceiling.begin(state)

    def check(
        self, state: ClusterState, events: Sequence[Event], size_bytes: int, where: str
    ) -> None:
        """Raise CorruptError if a peer with this state may not add these events."""
        reason = trespass(self._claims, events)
        reason = reason or self._ceiling.passed_by(state, events, size_bytes)
        if reason:
            raise CorruptError(where, reason)

    def trespass_in(self, state: ClusterState) -> str:
        """What was let in once and may not be said any more; '' for nothing."""
        return trespass_in(self._claims, state)


class OwnSink:
    """The own log goes to the projector; anything wrong with it ends this meshd."""

    def __init__(self, projector: Projector) -> None:
        self._projector = projector
        self.complete = asyncio.Event()

    def begin_generation(self, log_id: LogId, *, is_fork: bool) -> None:
        """Begin to read the own log; or begin anew, if it was cut beyond where this meshd was: then
        it must have stood still for long.
        """
        if is_fork:
            raise FatalError(
                "the own log was replaced while meshd was running (its etcd was wiped or restored);"
                " start meshd again to serve the new one"
            )
        self._projector.begin_generation(self._projector.own, log_id)

    def fold(self, record: Record, revision: int) -> None:
        """Fold the next record; one that the writer handed over already changes nothing."""
        del revision
        self._projector.fold(self._projector.own, record)

    def pass_over(self, record: Record, revision: int) -> None:
        """Never: of the own log nothing is passed over."""
        raise AssertionError(f"the own log's seq {record.first_seq} at {revision} is passed over")

    def load_part(self, manifest: Manifest, number: int, raw: bytes) -> None:
        """Begin with the own log's snapshot."""
        own = self._projector.own
        part = decode_part(raw, f"{own} snapshot at {manifest.head.seq} part {number}")
        self._projector.load_part(own, manifest, part)

    def finish_snapshot(self, manifest: Manifest) -> None:
        """Go on behind it."""
        self._projector.finish_snapshot(self._projector.own, manifest)

    def complete_generation(self) -> None:
        """The own log has been read to its end for the first time."""
        self._projector.complete_generation(self._projector.own)

    def foreign_ids(self) -> frozenset[int]:
        """Say nothing: the own id comes first."""
        return frozenset()

    def skip(self) -> Skip | None:
        """Nothing: who can't fold the own log must not write to it."""
        return None

    def folded_head(self) -> Head | None:
        """How far the own log is folded: the writer hands its records over itself."""
        return self._projector.head(self._projector.own)

    def settle(self, local_head: LocalHead | None) -> None:
        """Take the heads of the own export logs over."""
        if local_head is not None:
            self._projector.settle(local_head)
            if self._projector.local_head is not None:
                self.complete.set()

    def report(self, state: ReplicaState) -> None:
        """End this meshd if its own log can't be read on."""
        if state.trouble is not None:
            raise FatalError(
                f"the own log can't be read: {state.trouble.reason}; restore the etcd of this"
                " cluster from a backup"
            )


class Ids:
    """Which cluster has which numeric id: what its log says, while the cluster itself is let in.

    Who is refused holds none, or two that had exchanged theirs would keep each other out for ever.
    """

    def __init__(self, projector: Projector) -> None:
        self._projector = projector
        self._refused: set[ClusterName] = set()

    def of_others(self, peer: ClusterName) -> frozenset[int]:
        """The ids of all other clusters that are known here: who came first keeps its own."""
        infos = (
            state.info
            for name, state in self._projector.states.items()
            if name != peer and name not in self._refused
        )
        return frozenset(info.value.id for info in infos if info is not None)

    def note(self, peer: ClusterName, *, is_refused: bool) -> None:
        """A peer is refused, or isn't any more."""
        if is_refused:
            self._refused.add(peer)
        else:
            self._refused.discard(peer)


class PeerSink:
    """A peer's log goes to the projector and, behind it, to its replica."""

    def __init__(
        self, peer: ClusterName, projector: Projector, store: ReplicaStore, guard: Guard, ids: Ids
    ) -> None:
        self._peer = peer
        self.guard = guard
        self._ids = ids
        self._projector = projector
        self._store = store
        self._log_id = LogId("")
        self._is_staged = False
        self._phase_trouble = ""
        self._reported = NO_TRAFFIC
        self._read = metrics.REPLICA_RECORDS_READ.labels(peer)
        self._duplicate = metrics.REPLICA_RECORDS_DUPLICATE.labels(peer)
        self._lag = metrics.REPLICA_LAG_EVENTS.labels(peer)

    def begin_generation(self, log_id: LogId, *, is_fork: bool) -> None:
        """Begin a new generation beside the served one."""
        self.guard.begin(ClusterState())
        self._log_id, self._is_staged = log_id, True
        self._projector.begin_generation(self._peer, log_id, is_fork=is_fork)
        self._store.begin_generation()

    def fold(self, record: Record, revision: int) -> None:
        """Fold the next record, unless the peer may not say it; then keep it."""
        where = f"{self._peer} seq {record.first_seq}"
        # Of a log that is read anew only what it comes to counts: ids may have changed hands.
        is_new = not self._is_staged
        reason = stolen_id(self._peer, record.events, self.foreign_ids) if is_new else ""
        reason = reason or self._stolen_number(record.events)
        if reason:
            raise CorruptError(where, reason)
        self.guard.check(self._state(), record.events, len(record.raw), where)
        self._projector.fold(self._peer, record)
        self._store.add(record, revision)

    def pass_over(self, record: Record, revision: int) -> None:
        """Keep the next record without folding it."""
        self._projector.pass_over(self._peer, record)
        self._store.add(record, revision)
        log.warning("record passed over", peer=self._peer, seq=record.first_seq)

    def load_part(self, manifest: Manifest, number: int, raw: bytes) -> None:
        """Fold a part of the peer's snapshot, then keep it."""
        where = f"{self._peer} snapshot at {manifest.head.seq} part {number}"
        part = decode_part(raw, where)
        if part.causes:
            # They belong to their callers and leave no cluster (Decision 12): here, mere ballast.
            raise CorruptError(where, "it keeps idempotency keys, which are never exported")
        events = [item.event for item in part.kept]
        stolen = self._stolen_number(events)
        if stolen:
            raise CorruptError(where, stolen)
        self.guard.check(self._state(), events, sum(map(event_bytes, events)), where)
        self._projector.load_part(self._peer, manifest, part)
        self._store.add_part(manifest, number, raw)

    def finish_snapshot(self, manifest: Manifest) -> None:
        """Go on behind the snapshot."""
        self._projector.finish_snapshot(self._peer, manifest)
        self._store.finish_snapshot(manifest)
        log.info(
            "peer's snapshot read", peer=self._peer, seq=manifest.head.seq, items=manifest.items
        )

    def complete_generation(self) -> None:
        """Serve the new generation, unless it says that this cluster has another's id."""
        info = self._state().info
        if info is not None and info.value.id in self.foreign_ids():
            raise CorruptError(f"{self._peer} seq {info.seq}", id_taken(info.value.id))
        stolen = stolen_number_in(self._state())
        if stolen:
            raise CorruptError(f"{self._peer} seq {self._state().seq}", stolen)
        self._is_staged = False
        self._projector.complete_generation(self._peer)
        self._store.complete_generation(self._log_id)

    def _stolen_number(self, events: Sequence[Event]) -> str:
        info = self._state().info
        said_id = info.value.id if info is not None else None
        return stolen_number(said_id, events, self.foreign_ids)

    def _state(self) -> ClusterState:
        return self._projector.folding(self._peer)

    def foreign_ids(self) -> frozenset[int]:
        """The ids that others have."""
        return self._ids.of_others(self._peer)

    def skip(self) -> Skip | None:
        """What the own log says, as far as it is folded."""
        own = self._projector.state(self._projector.own)
        return own.skip(self._peer) if own else None

    def folded_head(self) -> Head | None:
        """Say nothing: a peer's records come by its follower alone."""
        return None

    def settle(self, local_head: LocalHead | None) -> None:
        """Do nothing: a peer's heads are its own affair."""

    def report(self, state: ReplicaState) -> None:
        """Count, and say once what is wrong."""
        is_refused = state.trouble is not None and state.trouble.phase is Phase.REFUSED
        self._ids.note(self._peer, is_refused=is_refused)
        new, old = state.traffic, self._reported
        if new is not old:
            self._read.inc(new.records_read - old.records_read)
            self._duplicate.inc(new.records_duplicate - old.records_duplicate)
        self._reported = new
        self._lag.set(max(0, target_seq(state) - (state.at.seq if state.at else 0)))
        trouble = state.trouble.reason if state.trouble else ""
        if trouble and trouble != self._phase_trouble and state.trouble is not None:
            log.warning("peer stopped", peer=self._peer, phase=state.trouble.phase, reason=trouble)
        self._phase_trouble = trouble
