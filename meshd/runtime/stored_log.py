"""A log as it lies in the own cluster's etcd, read whole, once.

For: archives and checks, whether or not a meshd runs. Not for: following a log (`follower`).
Invariants: nothing is written; never more than a window is held; what is read ends where the log
ended when it was opened.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from meshd.model.archive import Entry, LogName, Origin
from meshd.model.codec import decode_cursor, decode_record
from meshd.model.errors import CorruptError, NotFoundError
from meshd.model.ids import Head
from meshd.model.keyspace import Keyspace
from meshd.runtime.ports import Kv
from meshd.runtime.reading import LogReader

WINDOW_SEQS = 5000
"""More than a record holds, so that each window has one."""


@dataclass(frozen=True, slots=True)
class StoredLog:
    """One log. head: where it ends."""

    origin: Origin
    head: Head
    reader: LogReader

    async def entries(self, first_seq: int = 1) -> AsyncGenerator[Entry]:
        """The records from that which holds a seq; raises CorruptError, TransientError."""
        after = first_seq - 1
        while after < self.head.seq:
            through = min(self.head.seq, after + WINDOW_SEQS)
            window = await self.reader.window(after, through)
            if not window.records:
                raise CorruptError(f"{self.origin.log} seq {after + 1}", "is missing")
            for fetched in window.records:
                where = f"{self.origin.log} seq {fetched.key_seq}"
                record = decode_record(fetched.raw, where)
                if record.last_seq != fetched.key_seq:
                    raise CorruptError(where, f"the record ends with seq {record.last_seq}")
                yield Entry(record, fetched.revision, where)
                after = record.last_seq


async def open_log(kv: Kv, keyspace: Keyspace, log: LogName) -> StoredLog:
    """Find a log and its end; raises NotFoundError, TransientError, DeniedError, CorruptError."""
    keys = log.keys(keyspace)
    reader = LogReader(kv, keyspace, keys, is_local=log.kind == "local")
    found = await reader.identify(0)
    if found.descriptor is None:
        raise NotFoundError(f"there is no meshd cluster under {keyspace.prefix} in this etcd")
    head = found.head
    if log.kind == "replica":
        cursor = await kv.range(keys.cursor)
        head = decode_cursor(cursor.kvs[0].value, f"{log}").head if cursor.kvs else None
    if head is None:
        raise NotFoundError(f"cluster {found.descriptor.name} has no log {log}")
    return StoredLog(Origin(found.descriptor.name, head.log_id, log, keyspace.prefix), head, reader)
