"""A log as it lies in the own cluster's etcd, read whole, once.

For: archives and checks, whether or not a meshd runs. Not for: following a log (`follower`).
Invariants: nothing is written; never more than a window is held; what is read ends where the log
ended when it was opened.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from meshd.model.archive import Entry, LogName, Origin
from meshd.model.codec import decode_cursor
from meshd.model.errors import NotFoundError
from meshd.model.ids import Head
from meshd.model.keyspace import Keyspace
from meshd.runtime.ports import Kv
from meshd.runtime.reading import LogReader


@dataclass(frozen=True, slots=True)
class StoredLog:
    """One log. head: where it ends."""

    origin: Origin
    head: Head
    reader: LogReader

    async def entries(self, first_seq: int = 1) -> AsyncGenerator[Entry]:
        """The records from that which holds a seq; raises CorruptError, TransientError."""
        async with aclosing(self.reader.records(first_seq - 1, self.head.seq)) as records:
            async for record, revision in records:
                yield Entry(record, revision, self.reader.place(record.last_seq))


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
