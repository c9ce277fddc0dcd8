"""Holding the cluster's leader key, and showing life to peers.

For: one meshd per cluster that is in charge, by an etcd lease, and its heartbeat in the export log.
Not for: the safety of the log, which rests on comparing the head and on no lease. Invariants: the
heartbeat is written only while the leader key is ours, in the same transaction that compares it;
stopping gives the key back, and a kill frees it within the lease's time.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass

import orjson
import structlog

from meshd.model.codec import Heartbeat, encode_heartbeat
from meshd.model.errors import FatalError, MeshdError, OutcomeUnknownError, TransientError
from meshd.model.ids import format_vector
from meshd.model.keyspace import DEFAULT_AUDIENCE, Keyspace
from meshd.runtime.ports import Clock, CreateRevisionIs, Get, Kv, Put, Txn
from meshd.runtime.projector import Projector

log = structlog.get_logger(__name__)

LEASE_TTL_S = 10
RESIGN_TIMEOUT_S = 2.0
KEEP_EVERY_S = LEASE_TTL_S / 3
PAUSE_S_MIN = 0.01
KEEP_AGAIN_S = 1.0
"""A renewal that failed is tried again soon: several fit into what the lease has left."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds the leader key. process: tells two starts on one machine apart."""

    host: str
    pid: int
    process: str
    api: str

    def encode(self) -> bytes:
        """As JSON, for a person with etcdctl and for the next one who wants the key."""
        return orjson.dumps(
            {"host": self.host, "pid": self.pid, "process": self.process, "api": self.api}
        )

    @staticmethod
    def decode(raw: bytes) -> Holder:
        """Read a holder; what can't be read is nobody known."""
        try:
            fields = orjson.loads(raw)
            return Holder(
                str(fields["host"]), int(fields["pid"]), str(fields["process"]), str(fields["api"])
            )
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            return Holder("an unknown host", 0, "", "")


@dataclass(frozen=True, slots=True)
class PresenceRules:
    """heartbeat_every_s: how often peers hear from us. claim_timeout_s: how long another holder is
    waited for before giving up; longer than a lease lives.
    """

    heartbeat_every_s: float = 1.0
    claim_timeout_s: float = LEASE_TTL_S + 5.0


HolderCheck = Callable[[Holder], bool]
"""Whether something is known of the one who holds the leader key."""


class Presence:
    """The leader key and the heartbeat of one meshd."""

    def __init__(
        self,
        kv: Kv,
        keyspace: Keyspace,
        projector: Projector,
        holder: Holder,
        rules: PresenceRules,
        clock: Clock,
    ) -> None:
        self._kv = kv
        self._keyspace = keyspace
        self._projector = projector
        self._holder = holder
        self._rules = rules
        self._clock = clock
        self._lease = 0
        self._create_revision = 0
        self._last_beat = 0
        self._keep_due_s = self._beat_due_s = -math.inf

    @property
    def is_leader(self) -> bool:
        """Whether the key was ours when it was last looked at."""
        return self._create_revision != 0

    async def claim(self, is_gone: HolderCheck, is_alive: HolderCheck = lambda _: False) -> None:
        """Take the leader key; waits for a holder that may have died.

        is_gone: known to be, so that a restart after a kill needn't wait for its lease. is_alive:
        known to be, so that waiting for it is no use. Raises FatalError if it keeps the key.
        """
        until_s = self._clock.monotonic_s() + self._rules.claim_timeout_s
        while True:
            is_last = self._clock.monotonic_s() >= until_s
            try:
                holder = await self._try_claim(is_gone)
            except (TransientError, OutcomeUnknownError) as error:
                if is_last:
                    raise
                log.info("the leader key is out of reach", reason=str(error))
                await self._clock.sleep(1.0)
                continue
            if holder is None:
                return
            if is_last or is_alive(holder):
                raise FatalError(
                    f"another meshd serves cluster {self._projector.own} on this etcd:"
                    f" process {holder.pid} on {holder.host} ({holder.api}); stop it first, or give"
                    " this one its own cluster.name and etcd"
                )
            log.info("waiting for the leader key", held_by=f"{holder.host} pid {holder.pid}")
            await self._clock.sleep(1.0)

    async def _try_claim(self, is_gone: HolderCheck) -> Holder | None:
        """Try once; returns who holds the key if it isn't us."""
        if not await self._keep_lease():
            self._lease = await self._kv.grant_lease(LEASE_TTL_S)
            self._keep_due_s = self._clock.monotonic_s() + KEEP_EVERY_S
        key = self._keyspace.leader
        put = Put(key, self._holder.encode(), self._lease)
        result = await self._kv.commit(
            Txn(compares=(CreateRevisionIs(key, 0),), success=(put,), failure=(Get(key),))
        )
        if result.succeeded:
            self._create_revision = result.revision
            return None
        found = result.results[0]
        if found is None or not found.kvs:
            return None if self.is_leader else self._holder
        held = found.kvs[0]
        holder = Holder.decode(held.value)
        if holder == self._holder:
            self._create_revision = held.create_revision
            return None
        if is_gone(holder):
            await self._kv.revoke_lease(held.lease)
            return await self._try_claim(lambda _: False)
        return holder

    async def run(self) -> None:
        """Beat and keep the lease for ever; lost, it is claimed anew as soon as it is free."""
        while True:
            await self._run_once()
            due_s = min(self._keep_due_s, self._beat_due_s)
            await self._clock.sleep(max(PAUSE_S_MIN, due_s - self._clock.monotonic_s()))

    async def _run_once(self) -> None:
        """Keep the lease apart from all else: it can be kept even where nothing can be written."""
        now_s = self._clock.monotonic_s()
        try:
            if now_s >= self._keep_due_s:
                await self._keep_lease()
            if now_s >= self._beat_due_s:
                self._beat_due_s = now_s + self._rules.heartbeat_every_s
                if not self.is_leader:
                    await self._try_claim(lambda _: False)
                if self.is_leader:
                    await self._beat()
        except MeshdError as error:
            log.debug("heartbeat failed", reason=str(error))

    async def _keep_lease(self) -> bool:
        """Renew the lease; without one there is no leadership either."""
        now_s = self._clock.monotonic_s()
        self._keep_due_s = now_s + KEEP_AGAIN_S
        if self._lease and await self._kv.keep_lease(self._lease):
            self._keep_due_s = now_s + KEEP_EVERY_S
            return True
        self._lease = self._create_revision = 0
        return False

    async def _beat(self) -> None:
        now_ms = self._clock.wall_ms()
        local_head = self._projector.local_head
        beat = Heartbeat(
            beat=self._next_beat(now_ms),
            time_ms=now_ms,
            vector=format_vector(self._projector.vector()),
            digest=self._projector.tables.digest,
            head=local_head.exports[DEFAULT_AUDIENCE] if local_head else None,
        )
        result = await self._kv.commit(
            Txn(
                compares=(CreateRevisionIs(self._keyspace.leader, self._create_revision),),
                success=(Put(self._keyspace.export().heartbeat, encode_heartbeat(beat)),),
            )
        )
        if not result.succeeded:
            log.warning("leadership lost; the lease ran out")
            self._lease = self._create_revision = 0

    def _next_beat(self, now_ms: int) -> int:
        """A number that differs from all before, also from those of an earlier process."""
        self._last_beat = max(self._last_beat + 1, now_ms)
        return self._last_beat

    async def resign(self) -> None:
        """Give the key back, so that the next meshd needn't wait."""
        lease, self._lease, self._create_revision = self._lease, 0, 0
        if lease:
            try:
                async with asyncio.timeout(RESIGN_TIMEOUT_S):
                    await self._kv.revoke_lease(lease)
            except (MeshdError, TimeoutError) as error:
                log.info("the lease is left to run out", reason=str(error))
