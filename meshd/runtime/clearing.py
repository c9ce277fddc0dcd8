"""Clearing up behind peers that were removed: their replicas, and what was passed over of them.

For: a leader's chore. Not for: withdrawing their backends, which happens at once (`peers`).
Invariants: a replica goes only after its peer was unlisted for a whole grace, as seen by one leader
without a break; a deleted range is closed by the slash behind the peer's name, so that `b` never
takes `b2` along; every deletion compares leadership.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from meshd.model.command import Outcome, RemoveSkip, Submission
from meshd.model.errors import MeshdError, TransientError
from meshd.model.ids import ClusterName, is_cluster_name
from meshd.model.keyspace import Keyspace, prefix_end
from meshd.model.listed import Skip
from meshd.runtime.leadership import Leadership
from meshd.runtime.peers import Peers
from meshd.runtime.ports import Clock, Delete, Kv, Txn
from meshd.runtime.projector import Projector

log = structlog.get_logger(__name__)

ACTOR = "meshd"
DELETED_SEQS_MAX = 10_000
"""Records are deleted in pieces, since etcd serves nobody while it deletes."""
PIECES_MAX = 10_000
"""A replica of more pieces than that is cleared in several rounds."""
NAMES_MAX = 1024
"""More replicas than there are ids for clusters: whatever else lies there, the search ends."""

Submit = Callable[[Submission], Awaitable[Outcome]]


@dataclass(frozen=True, slots=True)
class Own:
    """The own etcd, what is folded of its log, and the way to append to it."""

    kv: Kv
    keyspace: Keyspace
    projector: Projector
    submit: Submit


@dataclass(frozen=True, slots=True)
class ClearingRules:
    """check_every_s: how often it is looked. grace_s: how long a replica is kept that nobody
    lists.
    """

    check_every_s: float
    grace_s: float


class Clearing:
    """The leader's clearing up."""

    def __init__(
        self, own: Own, peers: Peers, leadership: Leadership, clock: Clock, rules: ClearingRules
    ) -> None:
        self._own = own
        self._peers = peers
        self._leadership = leadership
        self._clock = clock
        self._rules = rules
        self._unlisted_since_s: dict[ClusterName, float] = {}

    async def run(self) -> None:
        """Clear up, for ever."""
        while True:
            await self._clock.sleep(self._rules.check_every_s)
            if not self._leadership.is_leader:
                # Somebody else leads, and counts from when it first looked.
                self._unlisted_since_s.clear()
                continue
            try:
                await self._look()
            except MeshdError as error:
                log.warning("what is left of removed peers can't be cleared", reason=str(error))

    async def _look(self) -> None:
        now_s, listed = self._clock.monotonic_s(), self._peers.listing.names()
        found = await self._replicas()
        unlisted = [name for name in found if name not in listed]
        self._unlisted_since_s = {
            name: self._unlisted_since_s.get(name, now_s) for name in unlisted
        }
        for name in unlisted:
            is_over = now_s - self._unlisted_since_s[name] >= self._rules.grace_s
            # Asked anew: much may have been deleted since it was asked for all of them.
            if is_over and name not in self._peers.listing.names():
                await self._delete(name)
                found.remove(name)
        await self._tidy_skips(frozenset(found) | listed)

    async def _replicas(self) -> list[ClusterName]:
        """Whose replicas there are: one key of each is read."""
        start = self._own.keyspace.replicas
        key, end, names = start, prefix_end(start), []
        for _ in range(NAMES_MAX):
            got = await self._own.kv.range(key, end, limit=1)
            if not got.kvs:
                break
            name, _, _ = got.kvs[0].key.removeprefix(start).partition(b"/")
            text = name.decode(errors="replace")
            if is_cluster_name(text):
                names.append(ClusterName(text))
            key = prefix_end(start + name + b"/")
        return names

    async def _delete(self, name: ClusterName) -> None:
        """Delete everything below the peer's name, its cursor first: without it nothing counts."""
        keys = self._own.keyspace.replica(name)
        end = prefix_end(keys.root)
        await self._commit(Delete(keys.cursor))
        for _ in range(PIECES_MAX):
            got = await self._own.kv.range(keys.root, end, limit=1)
            if not got.kvs:
                break
            if name in self._peers.listing.names():
                log.info("replica is needed again", peer=name)
                return
            await self._commit(self._piece(name, got.kvs[0].key))
        log.info("replica deleted", peer=name)

    def _piece(self, name: ClusterName, first: bytes) -> Delete:
        """What to delete at once, from the first key of all that is left."""
        for place in (0, 1):
            keys = self._own.keyspace.replica(name, place)
            seq = keys.seq_of(first)
            if seq is not None:
                return Delete(first, keys.record(seq + DELETED_SEQS_MAX))
            if first.startswith(keys.snapshots):
                return Delete(keys.snapshots, keys.snapshots_end)
        return Delete(first)

    async def _commit(self, operation: Delete) -> None:
        fence = self._leadership.fence()
        if fence is None:
            raise TransientError("another meshd of this cluster leads now")
        result = await self._own.kv.commit(Txn(compares=tuple(fence), success=(operation,)))
        if not result.succeeded:
            raise TransientError("another meshd of this cluster leads now")

    async def _tidy_skips(self, known: frozenset[ClusterName]) -> None:
        """Forget what was passed over of logs that aren't followed, served or kept any more."""
        state = self._own.projector.state(self._own.projector.own)
        for name, held in list(state.skips.items()) if state is not None else ():
            if name not in known or self._is_stale(name, held.value):
                removal = RemoveSkip(name, held.value.log_id)
                await self._own.submit(Submission((removal,), ACTOR))

    def _is_stale(self, name: ClusterName, skip: Skip) -> bool:
        """Whether a peer's log is another one, here as in its replica."""
        served = self._own.projector.log_ids.get(name)
        kept = next((peer.store.durable_log_id for peer in self._peers if peer.name == name), None)
        return None not in {served, kept} and skip.log_id not in {served, kept}
