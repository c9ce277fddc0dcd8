"""Who leads: one of the meshds of a cluster, by an etcd lease.

For: electing one that does the chores, and the fence that its writes compare. Not for: the safety
of the log, which rests on comparing the head and on no lease: any meshd may append. Invariants:
whoever was deposed, even without knowing, fails at the fence; giving up frees the key at once, and
a kill frees it within the lease's time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import orjson
import structlog

from meshd.model.errors import MeshdError
from meshd.model.keyspace import Keyspace
from meshd.runtime.ports import Clock, Compare, CreateRevisionIs, Get, Kv, Put, Txn, ValueIs

log = structlog.get_logger(__name__)

LEASE_TTL_S = 5
"""A leader that died is replaced within it and a second more: before peers, who hear no heartbeat
meanwhile, take the cluster for stale (`replication.silent_after_s`).
"""
KEEP_EVERY_S = LEASE_TTL_S / 3
KEEP_AGAIN_S = 0.5
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


HolderCheck = Callable[[Holder], bool]
"""Whether something is known of the one who holds the leader key."""


class Leadership:
    """One meshd's part in the election.

    leader: who held the key when it was last looked at; None for nobody. keep_due_s: when the lease
    is to be renewed.
    """

    def __init__(
        self, kv: Kv, keyspace: Keyspace, holder: Holder, clock: Clock, is_gone: HolderCheck
    ) -> None:
        """is_gone: a holder that is known to be dead, whose lease needn't be waited for."""
        self._kv = kv
        self._keyspace = keyspace
        self._holder = holder
        self._value = holder.encode()
        self._clock = clock
        self._is_gone = is_gone
        self._lease = 0
        self._create_revision = 0
        self._valid_until_s = -math.inf
        self.keep_due_s = -math.inf
        self.leader: Holder | None = None

    @property
    def is_leader(self) -> bool:
        """Whether we lead, as far as we know: the key was ours and the lease still runs."""
        return self._create_revision != 0 and self._clock.monotonic_s() < self._valid_until_s

    def fence(self) -> Sequence[Compare] | None:
        """What a write that only the leader may do compares; None if that is somebody else."""
        if not self.is_leader:
            return None
        key = self._keyspace.leader
        # Another history, restored from a backup, may hold another's key of the same revision.
        return (
            CreateRevisionIs(key, self._create_revision),
            ValueIs(key, self._value),
        )

    async def campaign(self) -> bool:
        """Take the key if it is free; says whether it is ours."""
        if self.is_leader:
            return True
        if not self._lease:
            await self._grant()
        return await self._try_key(self._is_gone)

    async def _grant(self) -> None:
        asked_s = self._clock.monotonic_s()
        self._lease = await self._kv.grant_lease(LEASE_TTL_S)
        self._valid_until_s = asked_s + LEASE_TTL_S
        self.keep_due_s = asked_s + KEEP_EVERY_S

    async def _try_key(self, is_gone: HolderCheck) -> bool:
        key = self._keyspace.leader
        result = await self._kv.commit(
            Txn(
                compares=(CreateRevisionIs(key, 0),),
                success=(Put(key, self._value, self._lease),),
                failure=(Get(key),),
            )
        )
        if result.succeeded:
            return self._won(result.revision)
        found = result.results[0]
        if found is None or not found.kvs:
            return False
        held = found.kvs[0]
        holder = Holder.decode(held.value)
        if holder == self._holder and held.lease == self._lease:
            # Ours from an earlier try whose answer was lost.
            return self._won(held.create_revision)
        if is_gone(holder):
            await self._kv.revoke_lease(held.lease)
            return await self._try_key(lambda _: False)
        if holder != self.leader:
            log.info("another meshd leads", host=holder.host, pid=holder.pid, api=holder.api)
        self.leader = holder
        return False

    def _won(self, create_revision: int) -> bool:
        self._create_revision = create_revision
        self.leader = self._holder
        log.info("this meshd leads")
        return True

    async def keep(self) -> bool:
        """Renew the lease; without one there is no leadership either."""
        asked_s = self._clock.monotonic_s()
        self.keep_due_s = asked_s + KEEP_AGAIN_S
        if self._lease and await self._kv.keep_lease(self._lease):
            self._valid_until_s = asked_s + LEASE_TTL_S
            self.keep_due_s = asked_s + KEEP_EVERY_S
            return True
        self.lose()
        return False

    def lose(self) -> None:
        """Take note that the lease is gone, or that a fence didn't hold."""
        if self._create_revision:
            log.warning("leadership lost; the lease ran out")
        self._lease = self._create_revision = 0

    async def resign(self) -> None:
        """Give the key back, so that the next leader needn't wait."""
        lease, self._lease, self._create_revision = self._lease, 0, 0
        if lease:
            try:
                await self._kv.revoke_lease(lease)
            except MeshdError as error:
                log.info("the lease is left to run out", reason=str(error))
