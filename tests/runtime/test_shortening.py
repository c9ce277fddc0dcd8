"""Summing a log up and cutting it, in an etcd that is put back to a backup in the middle of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from meshd.edges.memory import MemoryEtcd, MemoryKv
from meshd.model.errors import TransientError
from meshd.model.keyspace import Keyspace
from meshd.runtime.ports import Delete, Put, Txn, TxnResult
from meshd.runtime.shortening import cut, sum_up
from meshd.runtime.stored_log import LOCAL, open_log
from tests.mesh import Mesh, endpoint, service

pytestmark = pytest.mark.looptime

SPACE = Keyspace()
Backup = object


class Unlucky(MemoryKv):
    """Whose etcd is put back to a backup just before a certain write."""

    def __init__(self, etcd: MemoryEtcd, backup: Backup, is_it: Callable[[Txn], bool]) -> None:
        super().__init__(etcd)
        self._server, self._backup, self._is_it = etcd, backup, is_it

    async def commit(self, txn: Txn) -> TxnResult:
        if self._is_it(txn):
            self._server.restore(self._backup)  # type: ignore[arg-type]
        return await super().commit(txn)


async def filled() -> MemoryEtcd:
    """An etcd with a log of some records."""
    mesh = Mesh(names=("east",))
    async with mesh.running("east") as east:
        await east.submit(service())
        for number in range(10):
            await east.submit(endpoint("shop/web/a", weight=1 + number))
    return mesh.etcds["east"]


async def keys_in(etcd: MemoryEtcd, start: bytes, end: bytes) -> list[bytes]:
    return [kv.key for kv in (await MemoryKv(etcd).range(start, end)).kvs]


async def test_a_snapshot_whose_parts_are_gone_with_a_restore_never_counts() -> None:
    """Ring 2, seed 34547: every reader was stopped by it until the next one was due."""
    etcd = await filled()
    manifest = SPACE.local.manifest

    def is_manifest(txn: Txn) -> bool:
        return any(isinstance(one, Put) and one.key == manifest for one in txn.success)

    unlucky = Unlucky(etcd, etcd.backup(), is_manifest)
    stored = await open_log(unlucky, SPACE, LOCAL)
    with pytest.raises(TransientError, match="put back to a backup"):
        await sum_up(unlucky, stored, lambda: ())
    assert await keys_in(etcd, SPACE.local.snapshots, SPACE.local.snapshots_end) == []
    kv = MemoryKv(etcd)
    await sum_up(kv, await open_log(kv, SPACE, LOCAL), lambda: ())
    assert manifest in await keys_in(etcd, SPACE.local.snapshots, SPACE.local.snapshots_end)


async def test_what_was_published_in_a_history_that_is_lost_is_not_cut_in_another() -> None:
    etcd = await filled()
    kv = MemoryKv(etcd)
    for _ in range(2):
        await sum_up(kv, await open_log(kv, SPACE, LOCAL), lambda: ())
    stored = await open_log(kv, SPACE, LOCAL)
    assert stored.snapshot is not None
    records = await keys_in(etcd, SPACE.local.log, SPACE.local.log_end)

    def is_deletion(txn: Txn) -> bool:
        return any(isinstance(one, Delete) for one in txn.success)

    unlucky = Unlucky(etcd, etcd.backup(), is_deletion)
    with pytest.raises(TransientError, match="put back to a backup"):
        await cut(unlucky, stored, stored.snapshot.mark, lambda: ())
    assert await keys_in(etcd, SPACE.local.log, SPACE.local.log_end) == records
