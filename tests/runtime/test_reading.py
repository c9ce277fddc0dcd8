"""Windows of a log are as large as its link carries in time."""

from __future__ import annotations

import pytest

from meshd.edges.memory import MemoryEtcd, MemoryKv
from meshd.model.errors import TransientError
from meshd.model.keyspace import Keyspace
from meshd.runtime.ports import Put, RangeResult, Txn
from meshd.runtime.reading import LogReader
from tests.mesh import LoopClock

KEYS = Keyspace().export()
RECORDS = 300
RECORD_BYTES = 1000
TRIES_MAX = 80


class SlowLink(MemoryKv):
    """An etcd behind a link that carries so many bytes before a call's deadline."""

    def __init__(self, etcd: MemoryEtcd, carries_bytes: int) -> None:
        super().__init__(etcd)
        self.carries_bytes = carries_bytes

    async def range(
        self, key: bytes, end: bytes = b"", *, limit: int = 0, revision: int = 0
    ) -> RangeResult:
        found = await super().range(key, end, limit=limit, revision=revision)
        if sum(len(kv.value) for kv in found.kvs) > self.carries_bytes:
            raise TransientError("no answer in time")
        return found


@pytest.mark.parametrize("records_carried", [1, 10, 100])
async def test_a_slow_link_carries_a_long_log_in_smaller_windows(records_carried: int) -> None:
    etcd = MemoryEtcd(LoopClock())
    kv = SlowLink(etcd, records_carried * RECORD_BYTES)
    for seq in range(1, RECORDS + 1):
        await kv.commit(Txn(success=(Put(KEYS.record(seq), b"x" * RECORD_BYTES),)))
    reader = LogReader(kv, Keyspace(), KEYS, is_local=False)
    seqs: list[int] = []
    failed = 0
    while len(seqs) < RECORDS:
        try:
            window = await reader.window(len(seqs), RECORDS)
        except TransientError:
            failed += 1
            assert failed < TRIES_MAX + RECORDS // records_carried
            continue
        seqs += [one.key_seq for one in window.records]
    assert seqs == list(range(1, RECORDS + 1))
