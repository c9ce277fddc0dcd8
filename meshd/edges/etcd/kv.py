"""A client of a real etcd.

For: the door `Kv` in etcd's words. Not for: connections (`connection`), watches (`watch`), or any
retry. Invariant: one call of the door is one request to etcd, sent at most once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from meshd.edges.etcd.connection import Connection, Within
from meshd.edges.etcd.pb import etcd_pb2 as pb
from meshd.edges.etcd.target import EtcdTarget
from meshd.edges.etcd.watch import Watch
from meshd.edges.etcd.wire import range_result, txn_request, txn_result
from meshd.model.errors import CompactedError, MeshdError, NotFoundError
from meshd.runtime.ports import Get, KvStatus, RangeResult, Txn, TxnResult, WatchResponse

DEFRAGMENT_TIMEOUT_S = 120.0
"""Of one member; the largest database that etcd supports, 8 GiB, takes about so long."""


def connect(target: EtcdTarget) -> EtcdKv:
    """Return a client. It does no I/O until it is first asked for something."""
    return EtcdKv(Connection(target))


class EtcdKv:
    """Implements `Kv`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def range(
        self,
        key: bytes,
        end: bytes = b"",
        *,
        limit: int = 0,
        revision: int = 0,
        stretch: float = 1.0,
    ) -> RangeResult:
        """Read, as `Kv.range`."""
        request = pb.RangeRequest(key=key, range_end=end, limit=limit, revision=revision)
        try:
            return range_result(
                await self._connection.unary(
                    "/etcdserverpb.KV/Range",
                    request,
                    pb.RangeResponse,
                    within=Within(stretch=stretch),
                )
            )
        except CompactedError as error:
            oldest = await self._oldest_revision(key, end, at_least=revision + 1)
            raise CompactedError(oldest) from error

    async def commit(self, txn: Txn) -> TxnResult:
        """Run a transaction, as `Kv.commit`."""
        writes = any(not isinstance(done, Get) for done in txn.success + txn.failure)
        request = txn_request(txn)
        return txn_result(
            await self._connection.unary(
                "/etcdserverpb.KV/Txn",
                request,
                pb.TxnResponse,
                writes=writes,
                within=Within(txn.patience_s),
            )
        )

    def watch(
        self, key: bytes, end: bytes, *, start_revision: int, progress: bool = True
    ) -> AbstractAsyncContextManager[AsyncIterator[WatchResponse]]:
        """Follow a range, as `Kv.watch`."""
        if start_revision < 1:
            raise ValueError("a watch must say from which revision")
        request = pb.WatchCreateRequest(
            key=key,
            range_end=end,
            start_revision=start_revision,
            progress_notify=progress,
            fragment=True,
        )
        return self._watch(request)

    async def grant_lease(self, ttl_s: int) -> int:
        """Make a lease, as `Kv.grant_lease`."""
        response = await self._connection.unary(
            "/etcdserverpb.Lease/LeaseGrant",
            pb.LeaseGrantRequest(TTL=ttl_s),
            pb.LeaseGrantResponse,
            writes=True,
        )
        return response.ID

    async def keep_lease(self, lease: int) -> float:
        """Renew a lease, as `Kv.keep_lease`."""
        response = await self._connection.unary(
            "/etcdserverpb.Lease/LeaseKeepAlive",
            pb.LeaseKeepAliveRequest(ID=lease),
            pb.LeaseKeepAliveResponse,
            on_stream=True,
        )
        return max(0, response.TTL)

    async def keep_leases(self, leases: Sequence[int]) -> list[float]:
        """Renew many leases, as `Kv.keep_leases`."""
        answers = await self._connection.many_on_stream(
            "/etcdserverpb.Lease/LeaseKeepAlive",
            [pb.LeaseKeepAliveRequest(ID=lease) for lease in leases],
            pb.LeaseKeepAliveResponse,
        )
        return [max(0, answer.TTL) for answer in answers]

    async def lease_left_s(self, lease: int) -> float:
        """Look at a lease, as `Kv.lease_left_s`."""
        response = await self._connection.unary(
            "/etcdserverpb.Lease/LeaseTimeToLive",
            pb.LeaseTimeToLiveRequest(ID=lease),
            pb.LeaseTimeToLiveResponse,
        )
        return max(0, response.TTL)

    async def revoke_lease(self, lease: int) -> None:
        """End a lease, as `Kv.revoke_lease`."""
        try:
            await self._connection.unary(
                "/etcdserverpb.Lease/LeaseRevoke",
                pb.LeaseRevokeRequest(ID=lease),
                pb.LeaseRevokeResponse,
                writes=True,
            )
        except NotFoundError:
            return

    async def compact(self, revision: int) -> None:
        """Forget history, as `Kv.compact`."""
        request = pb.CompactionRequest(revision=revision)
        try:
            await self._connection.unary(
                "/etcdserverpb.KV/Compact", request, pb.CompactionResponse, writes=True
            )
        except CompactedError as error:
            oldest = await self._oldest_revision(b"\x00", b"", at_least=revision)
            raise CompactedError(oldest) from error

    async def status(self) -> KvStatus:
        """Ask for the status, as `Kv.status`."""
        response = await self._connection.unary(
            "/etcdserverpb.Maintenance/Status", pb.StatusRequest(), pb.StatusResponse
        )
        return KvStatus(
            version=response.version,
            revision=response.header.revision,
            cluster_id=response.header.cluster_id,
            member_id=response.header.member_id,
            db_size_bytes=response.db_size,
            db_used_bytes=response.db_size_in_use,
        )

    async def defragment(self, free_bytes_min: int) -> None:
        """Give back disk space, as `Kv.defragment`."""
        for member in self._connection.members(DEFRAGMENT_TIMEOUT_S):
            try:
                status = await member.unary(
                    "/etcdserverpb.Maintenance/Status", pb.StatusRequest(), pb.StatusResponse
                )
                if status.db_size - status.db_size_in_use >= free_bytes_min:
                    await member.unary(
                        "/etcdserverpb.Maintenance/Defragment",
                        pb.DefragmentRequest(),
                        pb.DefragmentResponse,
                        writes=True,
                    )
            finally:
                await member.close()

    async def close(self) -> None:
        """Close, as `Kv.close`."""
        await self._connection.close()

    @asynccontextmanager
    async def _watch(self, request: pb.WatchCreateRequest) -> AsyncIterator[Watch]:
        watch = Watch(self._connection, request)
        try:
            yield watch
        finally:
            watch.close()

    async def _oldest_revision(self, key: bytes, end: bytes, *, at_least: int) -> int:
        """Find where history begins: etcd's errors don't say, but a watch from 1 is told."""
        if at_least <= 1:
            return at_least
        try:
            async with (
                asyncio.timeout(self._connection.call_timeout_s),
                self.watch(key, end, start_revision=1) as responses,
            ):
                async for _ in responses:
                    pass
        except CompactedError as error:
            return error.compact_revision
        except (MeshdError, TimeoutError):
            pass
        return at_least
