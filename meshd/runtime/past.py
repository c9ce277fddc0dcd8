"""Earlier states: what all logs held here came to at a vector, or at a time.

For: reading them out of the own etcd, from the nearest snapshot that is kept. Not for: which place
that is (`core.past`), nor deriving tables of them. Invariants: what is told is exactly the fold of
each log up to the place that the answer names; a place that can't be told is refused with the
reason; only the own etcd is asked, so no peer's trouble is in the way; the states that are given
out are nobody's to change. What it costs follows the distance from the snapshot and that one's
size, not the age of the log.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

from meshd.core.past import AsOf, base_seq, oldest, time_text
from meshd.core.state import ClusterState
from meshd.model.archive import LogName
from meshd.model.errors import CorruptError, NotFoundError, OverloadedError, TransientError
from meshd.model.ids import ClusterName, LogId, Position, Seq
from meshd.model.keyspace import Keyspace
from meshd.model.listed import Skip
from meshd.model.snapshot import Manifest, decode_manifest
from meshd.runtime.peers import Peers
from meshd.runtime.places import Places, beyond_reach, refused
from meshd.runtime.ports import Clock, Kv
from meshd.runtime.projector import Projector
from meshd.runtime.stored_log import LOCAL, StoredLog, empty_log, fold_until, open_log

FOLDING_MAX = 2
"""Moments that are folded at a time: each keeps a core busy, and the logs must be followed
meanwhile."""
WAITING_MAX = 8
"""Who may wait for that: a few seconds' worth; the next one is told to come again (429)."""
REMEMBERED = 4
"""Moments that are kept, since one is mostly asked of more than once: two comparisons of two. Each
is a copy of all states, as large as what is served, so not more. States that two moments have in
common are kept once."""
TRIES = 3
"""A log may be cut, and a replica replaced, while it is read; once more is mostly enough."""


@dataclass(frozen=True, slots=True)
class Moment:
    """What was known at some vector. at: in the logs whose events are told here, exactly. shared:
    in the positions that all clusters share, without the own cluster where none stands for that
    place. unknown: clusters whose logs are held here and of which nothing was known or is asked.
    """

    at: Mapping[ClusterName, Position]
    shared: Mapping[ClusterName, Position]
    states: Mapping[ClusterName, ClusterState]
    unknown: tuple[ClusterName, ...]

    @property
    def log_ids(self) -> dict[ClusterName, LogId]:
        """The log that each state is folded from."""
        return {name: position.log_id for name, position in self.at.items()}


T = TypeVar("T")
_Key = tuple[Position, Skip | None]


class Past:
    """Tells earlier states."""

    def __init__(
        self, kv: Kv, keyspace: Keyspace, projector: Projector, peers: Peers, clock: Clock
    ) -> None:
        self._kv = kv
        self._keyspace = keyspace
        self._projector = projector
        self._peers = peers
        self._clock = clock
        self._folding = asyncio.Semaphore(FOLDING_MAX)
        self._waiting = 0
        self._moments: OrderedDict[frozenset[_Key], Moment] = OrderedDict()
        self._states: dict[_Key, ClusterState] = {}

    def now(self) -> Moment:
        """What is served now, standing still."""
        projector = self._projector
        states = {name: _copy(state) for name, state in projector.states.items()}
        at = projector.log_vector()
        return Moment(at, projector.vector(), states, self._others(at))

    async def at(self, as_of: AsOf) -> Moment:
        """What was known at a vector, or at a time.

        Raises RejectedError for a place that isn't reached yet or a cluster of which no log is
        held, GoneError for a place that was cut off or is of a log that was replaced,
        OverloadedError, CorruptError, TransientError, DeniedError.
        """
        if not isinstance(as_of, dict) and as_of > self._clock.wall_ms():
            now = time_text(self._clock.wall_ms())
            raise refused(f"{time_text(as_of)} is yet to come: here it is {now}", "ask of the past")
        return await self.look_back(lambda: self._tell(as_of))

    async def look_back(self, tell: Callable[[], Awaitable[T]]) -> T:
        """Read what was, when it is one's turn, and again if that changed meanwhile; raises
        OverloadedError if too many wait, and as `tell` does.
        """
        async with self._turn():
            for _ in range(TRIES - 1):
                try:
                    return await tell()
                except CorruptError:
                    continue
            return await tell()

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        if self._waiting >= WAITING_MAX:
            raise OverloadedError("the queue of those who ask for earlier states", 1.0)
        self._waiting += 1
        try:
            await self._folding.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._folding.release()

    async def open(self, cluster: ClusterName) -> StoredLog | None:
        """The log of a cluster as the own etcd holds it, also an empty one; None if nothing is
        known of it.

        Raises TransientError while it is folded here and not written yet.
        """
        is_own = cluster == self._projector.own
        name = LOCAL if is_own else LogName("replica", cluster)
        skip = None if is_own else self._peers.skip_of(cluster)
        try:
            stored = await open_log(self._kv, self._keyspace, name, skip)
        except NotFoundError:
            stored = None
        if stored is not None and (is_own or stored.head.seq):
            return stored
        head = self._projector.head(cluster)
        if head is None:
            return None
        if head.seq:
            raise TransientError(f"the log of {cluster} is not in the own etcd yet")
        # Its meshd founded its etcd and said nothing yet: there is nothing that could be written.
        return empty_log(self._kv, self._keyspace, self._projector.own, name, head.log_id)

    def held(self) -> list[ClusterName]:
        """The clusters whose logs are to be held here, the own one first."""
        own = self._projector.own
        return [own, *sorted(set(self._peers.names()) - {own})]

    def _others(self, known: Mapping[ClusterName, object]) -> tuple[ClusterName, ...]:
        return tuple(name for name in self.held() if name not in known)

    async def _tell(self, as_of: AsOf) -> Moment:
        places = Places(self._kv, self._keyspace, self._projector, self.open)
        logs, at = await places.find(as_of, self.held())
        for name, position in at.items():
            if position.seq < oldest(logs[name].snapshot).seq:
                raise beyond_reach(logs[name], name, f"seq {position.seq}")
        key = frozenset((position, logs[name].origin.skip) for name, position in at.items())
        known = self._moments.get(key)
        if known is not None:
            self._moments.move_to_end(key)
            return replace(known, unknown=self._others(at))
        states = {name: await self._state(logs[name], position) for name, position in at.items()}
        shared = await places.shared(logs, at)
        moment = Moment(at, shared, states, self._others(at))
        self._remember(key, moment, logs)
        return moment

    def _remember(
        self, key: frozenset[_Key], moment: Moment, logs: Mapping[ClusterName, StoredLog]
    ) -> None:
        self._moments[key] = moment
        if len(self._moments) > REMEMBERED:
            self._moments.popitem(last=False)
        for name, position in moment.at.items():
            self._states[position, logs[name].origin.skip] = moment.states[name]
        needed = {part for parts in self._moments for part in parts}
        self._states = {part: state for part, state in self._states.items() if part in needed}

    async def _state(self, log: StoredLog, position: Position) -> ClusterState:
        known = self._states.get((position, log.origin.skip))
        if known is not None:
            return known
        base = await self.base(log, position.seq)
        return await fold_until(log, position.seq, base)

    async def base(self, log: StoredLog, seq: Seq) -> Manifest | None:
        """The nearest snapshot at or before a place; None for the log's beginning.

        Raises CorruptError if it is gone, TransientError, DeniedError.
        """
        at_seq, newest = base_seq(log.snapshot, seq), log.snapshot
        if newest is None or not at_seq or at_seq == newest.head.seq:
            return newest if at_seq else None
        key = log.keys.kept_manifest(at_seq)
        found = await self._kv.range(key)
        if not found.kvs:
            raise CorruptError(log.reader.place(at_seq), "its kept snapshot is gone")
        manifest = decode_manifest(found.kvs[0].value, key.decode())
        if (manifest.head.log_id, manifest.head.seq) != (log.head.log_id, at_seq):
            raise CorruptError(key.decode(), "is the manifest of another snapshot")
        return manifest


def _copy(state: ClusterState) -> ClusterState:
    """The same state, which doesn't follow the log any more; its values never change."""
    endpoints = {key: dict(named) for key, named in state.endpoints.items()}
    return replace(
        state,
        services=dict(state.services),
        endpoints=endpoints,
        nodes=dict(state.nodes),
        identities=dict(state.identities),
        policies=dict(state.policies),
    )
