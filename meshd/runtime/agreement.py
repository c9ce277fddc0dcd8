"""Whether the mesh agrees, as far as one meshd can tell.

For: gathering what every peer last said, deriving what it should have come to, and looking up how
old is what it lacks. Not for: the comparing (`core.agreement`). Invariants: peers are asked
nothing; the table of a mesh is derived in a thread, on a copy, one perspective at a time; what was
derived for a vector isn't derived again, unless one of its logs was read anew since then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from meshd.core.agreement import (
    Comparison,
    Here,
    Memory,
    Standpoint,
    Times,
    Word,
    doubt_about,
    heads_of,
    here_as_read_by,
    lacking,
    own_standpoint,
    standpoint,
    unheard,
    vector_in,
)
from meshd.core.derive import digest_of_table
from meshd.core.excerpt import excerpts
from meshd.core.freshness import phase_of
from meshd.core.readers import states_in
from meshd.model.codec import decode_record
from meshd.model.errors import MeshdError
from meshd.model.ids import ClusterName, LogId, Position, Seq, format_vector
from meshd.model.keyspace import Keyspace, LogKeys
from meshd.runtime.peer import Peer
from meshd.runtime.peers import Peers
from meshd.runtime.ports import Clock, Kv
from meshd.runtime.projector import Projector
from meshd.runtime.settled import settled

DERIVE_FOR_S: Final = 15.0
"""How long one report derives; half of what a read may take. What is left is derived when it is
asked for again."""
LOOK_UP_FOR_S: Final = 2.0
"""How long ages are looked up in the own etcd; a report is worth more soon than whole."""


@dataclass(frozen=True, slots=True)
class Compared:
    """The last time that a cluster's digest could be compared, and how long ago that was."""

    comparison: Comparison
    at_s: float


@dataclass(frozen=True, slots=True)
class Report:
    """All clusters side by side, the own one first. compared: by cluster."""

    here: Here
    clusters: tuple[Standpoint, ...]
    compared: Mapping[ClusterName, Compared]
    now_s: float


class Agreement:
    """What one meshd can say of the mesh's agreement."""

    def __init__(
        self, kv: Kv, keyspace: Keyspace, projector: Projector, peers: Peers, clock: Clock
    ) -> None:
        self._kv = kv
        self._keyspace = keyspace
        self._projector = projector
        self._peers = peers
        self._clock = clock
        self._memories: dict[ClusterName, Memory] = {}
        self._generations: dict[ClusterName, int] = {}
        self._compared: dict[ClusterName, Compared] = {}
        # One report at a time: each may hold a copy of all states.
        self._turn = asyncio.Lock()

    async def report(self) -> Report:
        """Compare all clusters now. The own log must have been read to its end.

        Raises TransientError while it is read on for long.
        """
        async with self._turn:
            await settled(self._projector)
            words = [self._word_of(peer) for peer in self._peers]
            heard = [word for word in words if word is not None]
            here = self._here(heard)
            self._forget_derived()
            self._forget({word.cluster for word in heard})
            for word in heard:
                if word.vector is not None:
                    said = self._memory(word).hear(format_vector(word.vector), word.digest)
                    self._note(word, said)
            derived = await self._derive(heard, here)
            times = await self._times({it for word in heard for it in lacking(word, here)})
            skipped = list(self._skipped())
            found = {
                word.cluster: standpoint(word, here, derived.get(word.cluster), times, skipped)
                for word in heard
            }
            others = [found.get(name) or self._unheard(name) for name in self._peers.names()]
            now_s = self._clock.monotonic_s()
            return Report(here, (own_standpoint(here), *others), dict(self._compared), now_s)

    def _word_of(self, peer: Peer) -> Word | None:
        """What a peer last said; None before it was heard."""
        beat, state = peer.follower.heartbeat, peer.follower.state
        if beat is None:
            return None
        now_s, rules = self._clock.monotonic_s(), peer.follower.rules
        age_s = None if state.beat_s is None else max(0.0, now_s - state.beat_s)
        doubt = doubt_about(age_s, rules.silent_after_s, *phase_of(state, rules, now_s))
        return Word(peer.name, vector_in(beat.vector), beat.digest, age_s, doubt)

    def _here(self, words: Sequence[Word]) -> Here:
        projector = self._projector
        own, local_head = projector.own, projector.local_head
        vector = projector.vector()
        places = {at.log_id: at.seq for name, at in vector.items() if name != own}
        if local_head is not None:
            places |= {head.log_id: head.seq for head in local_head.exports.values()}
        said = [at for word in words for at in (word.vector or {}).values()]
        return Here(
            own=own,
            vector=vector,
            digest=projector.tables.digest,
            places=places,
            heads=heads_of(places, said, self._targets()),
            now_ms=self._clock.wall_ms(),
        )

    def _targets(self) -> Iterator[Position]:
        """How far the peers' logs go, as last seen."""
        for peer in self._peers:
            target = peer.follower.state.target
            if target is not None:
                yield Position(peer.name, target.log_id, target.seq)

    def _memory(self, word: Word) -> Memory:
        return self._memories.setdefault(word.cluster, Memory())

    def _forget(self, heard: set[ClusterName]) -> None:
        """Forget those who aren't followed any more."""
        for name in self._memories.keys() - heard:
            del self._memories[name]
        for name in self._compared.keys() - heard:
            del self._compared[name]

    def _forget_derived(self) -> None:
        """Forget what was derived of states that are served no more: the same places may have come
        to something else since.
        """
        generations = dict(self._projector.generations)
        if generations != self._generations:
            for memory in self._memories.values():
                memory.derived.clear()
        self._generations = generations

    def _note(self, word: Word, comparison: Comparison | None) -> None:
        if comparison is not None:
            self._compared[word.cluster] = Compared(comparison, self._clock.monotonic_s())

    def _unheard(self, name: ClusterName) -> Standpoint:
        condition = self._peers.condition(name)
        reason = condition.reason if condition is not None else ""
        return unheard(name, reason or "no heartbeat of it was seen yet")

    def _skipped(self) -> Iterator[str]:
        for name in self._peers.names():
            condition = self._peers.condition(name)
            if condition is not None and condition.skipped:
                yield f"{name} seq {', '.join(map(str, condition.skipped))}"

    # What they should have come to.

    async def _derive(self, words: Sequence[Word], here: Here) -> dict[ClusterName, str]:
        """The digest of each cluster's table where this one stands, as far as time allows; of those
        first that are at the same vector.
        """
        places = [(word, at) for word in words if (at := here_as_read_by(word, here)) is not None]
        wanted = [(word, format_vector(at)) for word, at in places if word.vector == at]
        wanted += [(word, format_vector(at)) for word, at in places if word.vector != at]
        found = {
            word.cluster: self._memory(word).derived[text]
            for word, text in wanted
            if text in self._memory(word).derived
        }
        wanted = [(word, text) for word, text in wanted if word.cluster not in found]
        if not wanted:
            return found
        # Without a wait since `here` was made, so that both are of one moment.
        states, log_ids = excerpts(self._projector.states), dict(self._projector.log_ids)
        own, until_s = self._projector.own, self._clock.monotonic_s() + DERIVE_FOR_S
        seen = [(*it, self._projector.outlook_of(it[0].cluster, it[0].vector)) for it in wanted]
        for word, text, outlook in seen:
            read = states_in(outlook, own, states)
            digest = await asyncio.to_thread(digest_of_table, word.cluster, read, log_ids)
            found[word.cluster] = digest
            self._note(word, self._memory(word).derive(text, digest))
            if self._clock.monotonic_s() >= until_s:
                break
        return found

    # How old is what they lack.

    async def _times(self, wanted: set[Position]) -> Times:
        found: dict[tuple[LogId, Seq], int] = {}
        try:
            async with asyncio.timeout(LOOK_UP_FOR_S):
                for position in sorted(wanted, key=str):
                    time_ms = await self._time_of(position)
                    if time_ms is not None:
                        found[position.log_id, position.seq] = time_ms
        except (TimeoutError, MeshdError):
            # Their age stays unknown.
            return found
        return found

    async def _time_of(self, position: Position) -> int | None:
        """When the record with an event was made; None if it isn't here."""
        records = self._projector.ring.after(position.cluster, position.seq - 1)
        kept = next(records, None) if records is not None else None
        if kept is not None and kept.log_id == position.log_id:
            return kept.time_ms
        keys = self._keys(position)
        if keys is None:
            return None
        result = await self._kv.range(keys.record(position.seq), keys.log_end, limit=1)
        if not result.kvs:
            return None
        kv = result.kvs[0]
        record = decode_record(kv.value, kv.key.decode(errors="replace"))
        is_it = record.log_id == position.log_id and record.first_seq <= position.seq
        return record.time_ms if is_it else None

    def _keys(self, position: Position) -> LogKeys | None:
        """Where a log lies in the own etcd."""
        if position.cluster != self._projector.own:
            return self._keyspace.replica(position.cluster, self._peers.place(position.cluster))
        local_head = self._projector.local_head
        for audience, head in local_head.exports.items() if local_head is not None else ():
            if head.log_id == position.log_id:
                return self._keyspace.export(audience)
        return None
