"""The peers that are followed: which, by what, and what their liveness does to the tables.

For: their tasks, which begin and end one by one as peers are listed and removed, and their
conditions. Not for: following (`follower`), nor who is listed (`listing`). Invariants: stopping
withdraws nothing, removing a peer withdraws its backends; one peer's task can neither end nor delay
another's; a peer that is followed otherwise is served on meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping

import structlog

from meshd.core.claims import Claims, trespass_in
from meshd.core.freshness import is_fresh, phase_of, unfresh_s
from meshd.core.liveness import Sight
from meshd.core.readers import needed_seq, vector_of
from meshd.core.skipping import skipped_seqs
from meshd.model.errors import FatalError, MeshdError, RejectedError
from meshd.model.ids import ClusterName, Head, LogId, Seq, Vector
from meshd.model.listed import Skip
from meshd.model.peer import NO_TRAFFIC, PeerCondition, Phase
from meshd.model.replica import Control, ReplicaState, Resume
from meshd.runtime.listing import Basis, Listing, Wish
from meshd.runtime.peer import Maker, Peer, close, end
from meshd.runtime.ports import Clock
from meshd.runtime.projector import Projector
from meshd.settings import PeerSettings
from meshd.telemetry import metrics

log = structlog.get_logger(__name__)

REVIEW_EVERY_S = 0.5
"""How often phases and standings are looked at: well below the seconds that their rules count."""
TRY_AGAIN_S = 5.0
"""How often a listed peer that can't be followed here is tried again: a person may just be putting
a file where it belongs."""


class Peers:
    """All peers of this cluster. listing: who they should be."""

    def __init__(self, projector: Projector, clock: Clock, listing: Listing, maker: Maker) -> None:
        self._projector = projector
        self._clock = clock
        self._maker = maker
        self._peers: dict[ClusterName, Peer] = {}
        self._unusable: dict[ClusterName, str] = {}
        self._basis: Basis | None = None
        self._unusable_since_s: dict[ClusterName, float] = {}
        self._kept_places: dict[ClusterName, int] = {}
        self._withheld: dict[ClusterName, Claims | None] = {}
        self._tried_s = 0.0
        self._tasks: asyncio.TaskGroup | None = None
        self.listing = listing

    def __iter__(self) -> Iterator[Peer]:
        return iter(self._peers.values())

    def names(self) -> list[ClusterName]:
        """All peers that are followed or should be, sorted."""
        return sorted({*self._peers, *self._unusable})

    def relist(self, peers: tuple[PeerSettings, ...]) -> None:
        """Take what the settings list now, and what their files hold; it is done soon."""
        self.listing.peers, self._basis = peers, None
        self._projector.touch()

    async def load_replicas(self) -> None:
        """Serve what the durable replicas hold, before any peer is asked (design, 6, rule 5).

        Raises TransientError when the own etcd can't be read.
        """
        await self._reconcile(is_start=True)

    async def run(self) -> None:
        """Follow all peers that are listed, for ever."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            tasks.create_task(self._maker.write(), name="write replicas")
            for peer in self:
                self._start(peer)
            tasks.create_task(self._review(), name="review peers")
            tasks.create_task(self._tend(), name="tend peers")

    # Who is followed.

    async def _tend(self) -> None:
        """Do what settings and log list, as it changes."""
        heard: Head | None = None
        while True:
            changed = self._projector.changed
            own = self._projector.head(self._projector.own)
            is_due = self._unusable and self._clock.monotonic_s() - self._tried_s >= TRY_AGAIN_S
            if is_due or self.listing.basis() != self._basis:
                await self._reconcile(is_start=False)
                heard = None
            if heard is None or own is not heard:
                # Most changes are of a peer's log, and there may be hundreds of peers.
                heard = own
                for peer in self:
                    self._hear_skip(peer)
            try:
                async with asyncio.timeout(TRY_AGAIN_S if self._unusable else None):
                    await changed.wait()
            except TimeoutError:
                continue

    async def _reconcile(self, *, is_start: bool) -> None:
        """Make those who are followed those who are listed."""
        self._basis, self._tried_s = self.listing.basis(), self._clock.monotonic_s()
        wanted, unusable = self.listing.wishes()
        await self._remove_all_but(frozenset({*wanted, *unusable}))
        for name, wish in wanted.items():
            try:
                await self._follow(wish)
            except (RejectedError, FatalError) as error:
                unusable[name] = str(error)
            except MeshdError as error:
                # At the start nothing may be served yet; later on only this peer must wait.
                if is_start:
                    raise
                unusable[name] = f"its replica can't be read yet: {error}"
        for name, reason in unusable.items():
            if self._unusable.get(name) != reason:
                log.warning("listed peer can't be followed", peer=name, reason=reason)
                self._unusable_since_s[name] = self._tried_s
            await self._serve_kept(name, is_start=is_start)
        self._unusable = unusable
        self._withheld = {name: self._withheld[name] for name in self._withheld if name in unusable}
        self._projector.touch()

    async def _serve_kept(self, name: ClusterName, *, is_start: bool) -> None:
        """Serve the replica of a peer that can't be followed here: as of one that is away."""
        claims = self.listing.claims(name)
        is_withheld = name in self._withheld and self._withheld[name] == claims
        if self._is_served(name) or is_withheld:
            return
        try:
            loaded = await self._maker.load(name)
        except MeshdError as error:
            if is_start:
                raise
            log.debug("replica can't be read", peer=name, reason=str(error))
            return
        if loaded is None or self._is_served(name):
            return
        reason = "its `announces` can't be read" if claims is None else ""
        reason = reason or trespass_in(claims or (), loaded.state)
        if reason:
            log.warning("replica is not served", peer=name, reason=reason)
            self._withheld[name] = claims
            return
        self._kept_places[name] = loaded.cursor.place
        self._projector.adopt(name, loaded.cursor.head, loaded.state)

    def _is_served(self, name: ClusterName) -> bool:
        return name in self._peers or self._projector.state(name) is not None

    async def _follow(self, wish: Wish) -> None:
        former, link = self._peers.get(wish.name), self._maker.link_of(wish)
        if former is None:
            await self._add(self._maker.make(wish, None))
        elif (former.wish, former.link) != (wish, link):
            await self._change(former, self._maker.make(wish, former))

    async def _add(self, peer: Peer) -> None:
        """Serve its replica, then follow it from there."""
        try:
            loaded = await peer.store.load()
        except MeshdError:
            await close(peer)
            raise
        reason = peer.guard.trespass_in(loaded.state) if loaded else ""
        if reason:
            log.warning("replica is not served", peer=peer.name, reason=reason)
            self._projector.remove(peer.name)
        elif loaded is not None:
            peer.guard.begin(loaded.state)
            cursor = loaded.cursor
            self._projector.adopt(peer.name, cursor.head, loaded.state)
            peer.follower.resume_at(cursor.head, cursor.revision)
        peer.since_s = self._clock.monotonic_s()
        self._peers[peer.name] = peer
        metrics.REPLICA_PHASE.labels(peer.name, peer.phase).set(1)
        metrics.REPLICA_UNFRESH_SECONDS.labels(peer.name).set(0)
        metrics.REPLICA_SKIPPED_RECORDS.labels(peer.name).set(0)
        log.info("peer is followed", peer=peer.name, source=peer.wish.source)
        self._start(peer)

    async def _change(self, former: Peer, peer: Peer) -> None:
        """Follow the same log otherwise, from where the former follower stopped."""
        await end(former)
        peer.phase, peer.reason, peer.since_s = former.phase, former.reason, former.since_s
        peer.silence_s, peer.skipped = former.silence_s, former.skipped
        if peer.wish.settings.endpoints == former.wish.settings.endpoints:
            # Another password or policy moves it nowhere, so it moves no traffic either.
            peer.round_trips.go_on_from(former.round_trips)
        peer.sink.guard = peer.guard
        peer.store.read_from(peer.source)
        states = [self._projector.folding(peer.name), self._projector.state(peer.name)]
        reasons = [peer.guard.trespass_in(state) for state in states if state is not None]
        if any(reasons):
            # What may not be said any more may not be served either.
            log.warning("peer is not served", peer=peer.name, reason=max(reasons))
            self._projector.remove(peer.name)
        peer.guard.begin(self._projector.folding(peer.name))
        peer.follower.go_on_from(former.follower, anew=any(reasons))
        self._peers[peer.name] = peer
        log.info("peer is followed otherwise", peer=peer.name, source=peer.wish.source)
        self._start(peer)
        await close(former)

    async def _remove_all_but(self, listed: frozenset[ClusterName]) -> None:
        for peer in list(self):
            if peer.name not in listed:
                await self._remove(peer)
        for name in set(self._unusable) - listed:
            self._projector.remove(name)

    async def _remove(self, peer: Peer) -> None:
        """Withdraw its backends, whether or not it can be reached: a person said so."""
        await end(peer)
        del self._peers[peer.name]
        self._projector.remove(peer.name)
        metrics.forget_peer(peer.name, Phase)
        log.info("peer is removed", peer=peer.name)
        await close(peer)

    def _start(self, peer: Peer) -> None:
        tasks = self._tasks
        if tasks is not None:
            peer.tasks = [
                tasks.create_task(peer.follower.run(), name=f"follow {peer.name}"),
                tasks.create_task(peer.store.run(), name=f"keep replica of {peer.name}"),
                tasks.create_task(peer.round_trips.run(), name=f"measure {peer.name}"),
            ]

    def _hear_skip(self, peer: Peer) -> None:
        """Have a peer that is stopped looked at again when there is something new to pass over."""
        skip = self.skip_of(peer.name)
        if skip == peer.skip:
            return
        peer.skip = skip
        state = peer.follower.state
        if state.trouble is not None and not state.paused:
            peer.follower.control(Resume())

    # How they are.

    async def _review(self) -> None:
        while True:
            for peer in list(self):
                # Its services may change by it, and hundreds may be seen otherwise at once.
                await asyncio.sleep(0)
                if self._peers.get(peer.name) is peer:
                    self._review_one(peer)
            for name in self._unusable:
                if name not in self._peers:
                    away_s = self._clock.monotonic_s() - self._unusable_since_s[name]
                    self._projector.see(name, Sight(self._maker.staleness, away_s))
            self._projector.see_unfresh(self.unfresh())
            await self._clock.sleep(REVIEW_EVERY_S)

    def _review_one(self, peer: Peer) -> None:
        now_s = self._clock.monotonic_s()
        state, rules = peer.follower.state, peer.follower.rules
        phase, reason = phase_of(state, rules, now_s)
        silence_s = unfresh_s(state, rules, now_s)
        if phase is not peer.phase:
            log.info("peer changed", peer=peer.name, phase=phase, was=peer.phase, reason=reason)
            metrics.REPLICA_PHASE.labels(peer.name, peer.phase).set(0)
            metrics.REPLICA_PHASE.labels(peer.name, phase).set(1)
            peer.phase, peer.since_s = phase, now_s
            self._projector.touch()
        peer.reason = reason
        if silence_s or peer.silence_s:
            metrics.REPLICA_UNFRESH_SECONDS.labels(peer.name).set(silence_s)
            peer.silence_s = silence_s
        skipped = len(self._skipped(peer.name))
        if skipped != peer.skipped:
            metrics.REPLICA_SKIPPED_RECORDS.labels(peer.name).set(skipped)
            peer.skipped = skipped
        sight = Sight(peer.staleness, silence_s, peer.round_trips.distance)
        if sight.standing() is not self._projector.standing(peer.name):
            log.info("peer's backends change", peer=peer.name, standing=sight.standing())
        self._projector.see(peer.name, sight)

    def control(self, name: ClusterName, what: Control, actor: str) -> bool:
        """Pause, resume or resync a peer, until meshd starts again; false if there is none such."""
        peer = self._peers.get(name)
        if peer is None:
            return False
        log.info("peer is controlled", peer=name, what=type(what).__name__.lower(), actor=actor)
        peer.follower.control(what)
        return True

    def needed_seq(self, log_id: LogId) -> Seq | None:
        """Up to where every peer has read one of our export logs, by what their heartbeats say;
        None if there is nobody who reads it.
        """
        vectors = [self.vector_of(peer.name) for peer in self]
        # Who can't be followed from here may follow us all the same.
        vectors += [None for name in self._unusable if name not in self._peers]
        return needed_seq(vectors, self._projector.own, log_id, self._projector.exports)

    @property
    def exports(self) -> Mapping[str, Head]:
        """The export logs that this cluster's peers read, by audience."""
        return self._projector.exports

    def vector_of(self, name: ClusterName) -> Vector | None:
        """How far a peer has read which log, by its last heartbeat; None if it wasn't heard."""
        peer = self._peers.get(name)
        beat = peer.follower.heartbeat if peer else None
        return vector_of(beat.vector if beat else None)

    def place(self, name: ClusterName) -> int:
        """In which of its two places a peer's replica lies."""
        peer = self._peers.get(name)
        return peer.store.place if peer else self._kept_places.get(name, 0)

    def state(self, name: ClusterName) -> ReplicaState | None:
        """How following a peer stands; None if it isn't followed."""
        peer = self._peers.get(name)
        return peer.follower.state if peer else None

    def condition(self, name: ClusterName) -> PeerCondition | None:
        """A peer as seen from here now; None if there is no such peer."""
        peer = self._peers.get(name)
        unusable = self._unusable.get(name, "")
        if peer is None:
            return self._unused(name, unusable) if unusable else None
        self._review_one(peer)
        state, head = peer.follower.state, self._projector.head(name)
        bad_seq = Seq(state.at.seq + 1) if state.at else Seq(1)
        return PeerCondition(
            name=name,
            phase=peer.phase,
            reason=peer.reason or (f"followed as before: {unusable}" if unusable else ""),
            since_s=peer.since_s,
            standing=self._projector.standing(name),
            is_linked=state.linked,
            head=head,
            target=state.target,
            unfresh_s=unfresh_s(state, peer.follower.rules, self._clock.monotonic_s()),
            replica_seq=peer.store.durable_seq,
            slowed_s=peer.follower.slowed_s,
            traffic=state.traffic,
            source=peer.wish.source,
            endpoints=tuple(map(str, peer.wish.settings.endpoints)),
            quarantined_seq=bad_seq if peer.phase is Phase.QUARANTINED else None,
            skipped=self._skipped(name),
        )

    def skip_of(self, name: ClusterName) -> Skip | None:
        """What is passed over of a peer's log."""
        own = self._projector.state(self._projector.own)
        return own.skip(name) if own else None

    def _skipped(self, name: ClusterName) -> tuple[Seq, ...]:
        return skipped_seqs(self.skip_of(name), self._projector.head(name))

    def _unused(self, name: ClusterName, reason: str) -> PeerCondition:
        """A peer that is listed and can't be followed."""
        since_s = self._unusable_since_s[name]
        return PeerCondition(
            name=name,
            phase=Phase.REFUSED,
            reason=reason,
            since_s=since_s,
            standing=self._projector.standing(name),
            is_linked=False,
            head=self._projector.head(name),
            target=None,
            unfresh_s=self._clock.monotonic_s() - since_s,
            replica_seq=Seq(0),
            traffic=NO_TRAFFIC,
            source="settings" if self.listing.is_in_settings(name) else "log",
            skipped=self._skipped(name),
        )

    def unfresh(self) -> frozenset[ClusterName]:
        """The peers whose part of the tables is as last known, since they are out of sight now."""
        now_s = self._clock.monotonic_s()
        followers = ((peer.name, peer.follower) for peer in self)
        unseen = {name for name, it in followers if not is_fresh(it.state, it.rules, now_s)}
        return frozenset(unseen | (self._unusable.keys() - self._peers.keys()))

    def conditions(self) -> tuple[PeerCondition, ...]:
        """All peers, by name."""
        found = (self.condition(name) for name in self.names())
        return tuple(condition for condition in found if condition is not None)

    async def close(self) -> None:
        """Close the links; withdraws nothing."""
        for peer in list(self):
            await close(peer)
