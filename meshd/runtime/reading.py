"""Reading one log out of an etcd: who it is, windows of it, and what comes after.

For: keys and bytes to the inputs of `core.replica`. Not for: judging them. Invariant: nothing here
writes, so that the same code reads a peer's etcd with a read-only user (design, I16).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

from meshd.core.carried import RECORDS_MAX, Carried, answered, linked_anew, unanswered
from meshd.model.codec import (
    Heartbeat,
    LocalHead,
    decode_descriptor,
    decode_head,
    decode_heartbeat,
    decode_local_head,
    decode_record,
)
from meshd.model.control import CONTROL_BYTES_MAX
from meshd.model.errors import CorruptError
from meshd.model.event import RECORD_BYTES_MAX, Record
from meshd.model.ids import Head
from meshd.model.keyspace import Keyspace, LogKeys
from meshd.model.replica import Fetched, Identified, Watched, WindowRead
from meshd.model.snapshot import decode_manifest
from meshd.runtime.ports import Get, KeyValue, Kv, RangeResult, Txn, WatchResponse

WINDOW_BYTES_MAX = 32 * 1024 * 1024
"""Half of what one answer may hold; see `edges.etcd`."""
WINDOW_RECORDS_MIN = WINDOW_BYTES_MAX // RECORD_BYTES_MAX
"""So many records fit into an answer whatever their size."""
WINDOW_SEQS = 5000
"""How far a window reaches: more than one record holds, so that each has one; measured fastest."""
FOLDS_PER_TURN = 256
"""Who folds what was read lets others have their turn in the event loop after so many events or
records."""


class LogReader:
    """Reads one log. local_head: the local log's head with its exports, as last seen. heartbeat:
    as last seen.
    """

    def __init__(self, kv: Kv, keyspace: Keyspace, keys: LogKeys, *, is_local: bool) -> None:
        self._kv = kv
        self.keyspace = keyspace
        self._keys = keys
        self._is_local = is_local
        self._window_records = WINDOW_RECORDS_MIN
        self._carried = Carried()
        self._identifying = tuple(
            Get(key) for key in (keyspace.descriptor, keys.head, keys.heartbeat, keys.manifest)
        )
        self._head_key, self._heartbeat_key, self._log = keys.head, keys.heartbeat, keys.log
        self.local_head: LocalHead | None = None
        self.heartbeat: Heartbeat | None = None

    async def identify(self, cursor_seq: int) -> Identified:
        """Read descriptor, head, heartbeat, snapshot and the record at the cursor at one revision.

        Raises TransientError, DeniedError, OutcomeUnknownError, or CorruptError when what is there
        isn't meshd's.
        """
        descriptor_read, head_read, heartbeat_read, manifest_read = self._identifying
        at_cursor_read = Get(self._keys.record(cursor_seq))
        result = await self._kv.commit(
            Txn(success=(descriptor_read, head_read, heartbeat_read, at_cursor_read, manifest_read))
        )
        self._carried = linked_anew(self._carried)
        descriptor, head, heartbeat, at_cursor, manifest = map(_only, result.results)
        return Identified(
            descriptor=decode_descriptor(descriptor.value, _name(descriptor))
            if descriptor
            else None,
            head=self._head(head) if head else None,
            beat=self._beat(heartbeat).beat if heartbeat else -1,
            revision=result.revision,
            at_cursor=Fetched(cursor_seq, at_cursor.mod_revision, at_cursor.value)
            if at_cursor
            else None,
            snapshot=decode_manifest(manifest.value, _name(manifest)) if manifest else None,
        )

    async def part(self, seq: int, number: int) -> bytes | None:
        """Read a part of the snapshot at `seq`; None if it isn't there (any more)."""
        carried = self._carried
        self._carried = carried._replace(stretch=unanswered(carried, 1).stretch)
        found = await self._kv.range(self._keys.part(seq, number), stretch=carried.stretch)
        self._carried = carried._replace(stretch=answered(carried).stretch)
        return found.kvs[0].value if found.kvs else None

    async def window(self, after_seq: int, through_seq: int) -> WindowRead:
        """Read the records whose last seq is in (after_seq, through_seq], or the first of them.

        How many are asked for follows the size of those that came last, so that an answer stays
        within its limit whatever a peer's records weigh; and what its link carries in time.
        """
        carried = self._carried
        asked = min(self._window_records, carried.records)
        self._window_records = WINDOW_RECORDS_MIN
        self._carried = unanswered(carried, asked)
        found = await self._kv.range(
            self._keys.record(after_seq + 1),
            self._keys.record(through_seq + 1),
            limit=asked,
            stretch=carried.stretch,
        )
        self._carried = answered(carried)
        largest_bytes = max((len(kv.value) for kv in found.kvs), default=RECORD_BYTES_MAX)
        self._window_records = max(
            WINDOW_RECORDS_MIN, min(RECORDS_MAX, WINDOW_BYTES_MAX // (4 * max(largest_bytes, 1)))
        )
        return WindowRead(tuple(self._fetched(kv) for kv in found.kvs), complete=not found.more)

    async def records(self, after_seq: int, through_seq: int) -> AsyncGenerator[tuple[Record, int]]:
        """All records whose last seq is in (after_seq, through_seq], with their mod revisions.

        Whether they make one log is for the reader to judge. Raises as `window` does, and
        CorruptError where a seq has no record or a record isn't what its key says.
        """
        while after_seq < through_seq:
            window = await self.window(after_seq, min(through_seq, after_seq + WINDOW_SEQS))
            if not window.records:
                raise CorruptError(self.place(after_seq + 1), "is missing")
            for fetched in window.records:
                where = self.place(fetched.key_seq)
                record = decode_record(fetched.raw, where)
                if record.last_seq != fetched.key_seq:
                    raise CorruptError(where, f"the record ends with seq {record.last_seq}")
                yield record, fetched.revision
                after_seq = record.last_seq

    async def holding(self, seq: int) -> tuple[Record, int]:
        """The record that holds a seq, and its mod revision; raises as `records` does."""
        found = await self._kv.range(self._keys.record(seq), self._keys.log_end, limit=1)
        where = self.place(seq)
        if not found.kvs:
            raise CorruptError(where, "is missing")
        fetched = self._fetched(found.kvs[0])
        record = decode_record(fetched.raw, self.place(fetched.key_seq))
        if record.last_seq != fetched.key_seq or record.first_seq > seq:
            raise CorruptError(where, f"is not in the record at {fetched.key_seq}")
        return record, fetched.revision

    def place(self, seq: int) -> str:
        """A seq of this log, for messages: by the folder that its keys lie in."""
        root = self._keys.root.decode(errors="replace")
        return f"{root.removeprefix(self.keyspace.prefix).strip('/')} seq {seq}"

    @asynccontextmanager
    async def watch(self, from_revision: int) -> AsyncIterator[AsyncIterator[Watched]]:
        """Follow head, heartbeat and records together; raises as `Kv.watch` does."""
        async with (
            self._kv.watch(
                self._keys.head, self._keys.log_end, start_revision=from_revision
            ) as responses,
            aclosing(self._watched(responses)) as watched,
        ):
            yield watched

    async def _watched(self, responses: AsyncIterator[WatchResponse]) -> AsyncGenerator[Watched]:
        async for response in responses:
            records: list[Fetched] = []
            head: Head | None = None
            beat: int | None = None
            for event in response.events:
                kv = event.kv
                if event.is_delete:
                    continue
                if kv.key == self._head_key:
                    head = self._head(kv)
                elif kv.key == self._heartbeat_key:
                    heartbeat = self._beat(kv)
                    beat, head = heartbeat.beat, head or heartbeat.head
                elif kv.key.startswith(self._log):
                    records.append(self._fetched(kv))
            yield Watched(tuple(records), head, beat)

    def _beat(self, kv: KeyValue) -> Heartbeat:
        self.heartbeat = decode_heartbeat(kv.value, _name(kv))
        return self.heartbeat

    def _head(self, kv: KeyValue) -> Head:
        if not self._is_local:
            return decode_head(kv.value[: CONTROL_BYTES_MAX + 1], _name(kv))
        self.local_head = decode_local_head(kv.value, _name(kv))
        return self.local_head.local

    def _fetched(self, kv: KeyValue) -> Fetched:
        seq = self._keys.seq_of(kv.key)
        return Fetched(-1 if seq is None else seq, kv.mod_revision, kv.value)


def _only(found: RangeResult | None) -> KeyValue | None:
    return found.kvs[0] if found is not None and found.kvs else None


def _name(kv: KeyValue) -> str:
    return kv.key.decode(errors="replace")
