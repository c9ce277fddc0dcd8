"""One peer's copy as it lies in the own etcd: a cursor, and two places that are used in turn.

For: the transactions. Not for: what is still to be written (`replica_store`). Invariants: what lies
behind the cursor is a whole copy of one generation, at every moment: another one is built in the
other place and becomes the copy in one transaction; everything is compared against how it was left,
and against leadership.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

import structlog

from meshd.core.state import ClusterState
from meshd.model.codec import Cursor, decode_cursor, encode_cursor
from meshd.model.errors import CorruptError, TransientError
from meshd.model.event import Record
from meshd.model.ids import ClusterName, Head, LogId, Revision
from meshd.model.keyspace import Keyspace, LogKeys
from meshd.model.listed import Skip
from meshd.model.snapshot import Manifest, encode_manifest
from meshd.runtime.ports import (
    Compare,
    Delete,
    Get,
    Kv,
    ModRevisionIs,
    Operation,
    Put,
    Txn,
    TxnResult,
)
from meshd.runtime.reading import LogReader
from meshd.runtime.stored_log import fold_log

log = structlog.get_logger(__name__)

Fence = Callable[[], Sequence[Compare] | None]
"""What a leader's write compares besides; None while somebody else leads."""
Commit = Callable[[Txn], Awaitable[TxnResult]]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A replica as it was found: how far it goes, and what it folds into."""

    cursor: Cursor
    state: ClusterState


@dataclass(frozen=True, slots=True)
class _Building:
    """A copy that isn't the copy yet. revision: of the key that holds its cursor."""

    cursor: Cursor
    revision: int


class ReplicaCopy:
    """The copy of one peer's log. cursor: of the copy that counts, as last seen."""

    def __init__(
        self,
        kv: Kv,
        keyspace: Keyspace,
        peer: ClusterName,
        fence: Fence,
        commit: Commit,
        skip: Callable[[], Skip | None] = lambda: None,
    ) -> None:
        """commit: how it is written, as `Kv.commit`, or together with others'. skip: what is passed
        over of the peer's log, and so of its copy.
        """
        self.peer = peer
        self._skip = skip
        self.fence = fence
        self._kv = kv
        self._commit_txn = commit
        self._keyspace = keyspace
        self.cursor: Cursor | None = None
        self._cursor_revision = 0
        self._building: _Building | None = None

    @property
    def is_building(self) -> bool:
        """Whether another copy is being built beside the one that counts."""
        return self._building is not None

    @property
    def head(self) -> Head | None:
        """How far the copy that is written to has come."""
        cursor = self._building.cursor if self._building else self.cursor
        return cursor.head if cursor else None

    @property
    def _cursor_key(self) -> bytes:
        return self._keyspace.replica(self.peer).cursor

    def _keys(self, place: int) -> LogKeys:
        return self._keyspace.replica(self.peer, place)

    async def look(self) -> None:
        """Read where the copy stands now; what was being built is forgotten."""
        found = await self._kv.range(self._cursor_key)
        self._building = None
        if not found.kvs:
            self.cursor, self._cursor_revision = None, 0
            return
        self._cursor_revision = found.kvs[0].mod_revision
        try:
            self.cursor = decode_cursor(found.kvs[0].value, f"replica of {self.peer}")
        except CorruptError as error:
            # It will be written over: a cursor that can't be read stands before every record.
            log.warning("replica's cursor is damaged", peer=self.peer, reason=str(error))
            self.cursor = None

    async def load(self) -> Loaded | None:
        """Read the copy back; None if there is none, or if it is damaged and must be read anew.

        Raises TransientError when the own etcd can't be read.
        """
        await self.look()
        cursor = self.cursor
        if cursor is None or cursor.head.seq == 0:
            # Begun and not yet written: that is not a peer that offers nothing.
            self.cursor = None
            return None
        try:
            return Loaded(cursor, await self._fold(cursor))
        except CorruptError as error:
            log.warning(
                "replica is damaged and will be read anew", peer=self.peer, reason=str(error)
            )
            self.cursor = None
            return None

    async def _fold(self, cursor: Cursor) -> ClusterState:
        keys = self._keys(cursor.place)
        reader = LogReader(self._kv, self._keyspace, keys, is_local=False)
        snapshot = (await reader.identify(0)).snapshot
        return (await fold_log(reader, self.peer, cursor.head, snapshot, self._skip())).state

    async def holds(self, record: Record) -> bool:
        """Whether the copy has this very record."""
        keys = self._keys(self.cursor.place if self.cursor else 0)
        found = await self._kv.range(keys.record(record.last_seq))
        return bool(found.kvs) and found.kvs[0].value == record.raw

    # Writing: to what is being built, else to the copy itself.

    async def begin(self, log_id: LogId) -> None:
        """Begin to build a copy of another generation, in the place that isn't in use."""
        await self.look()
        place = 0 if self.cursor is not None and self.cursor.place else 1
        begun = _begun(log_id, place)
        revision = await self._commit(
            (ModRevisionIs(self._cursor_key, self._cursor_revision),),
            Put(self._build_key, encode_cursor(begun)),
            _clear(self._keys(place)),
        )
        self._building = _Building(begun, revision)

    @property
    def _build_key(self) -> bytes:
        """The cursor of what is being built; it doesn't count."""
        return self._keys(1).cursor

    async def append(self, records: Sequence[tuple[Record, int]]) -> None:
        """Add records that continue the copy; each comes with its mod revision at the peer."""
        last, revision = records[-1]
        await self._move(
            Cursor(last.head, Revision(revision)),
            lambda keys: [Put(keys.record(record.last_seq), record.raw) for record, _ in records],
        )

    async def add_part(self, manifest: Manifest, number: int, raw: bytes) -> None:
        """Add a part of the snapshot that a copy begins with."""
        await self._move(
            _begun(manifest.head.log_id, 0),
            lambda keys: [Put(keys.part(manifest.head.seq, number), raw)],
        )

    async def finish_snapshot(self, manifest: Manifest) -> None:
        """All parts are there: records follow from here. What was before is nowhere in the copy."""
        await self._move(
            Cursor(manifest.head, Revision(0)),
            lambda keys: [Put(keys.manifest, encode_manifest(manifest.alone))],
        )

    async def serve(self) -> None:
        """Make what was built the copy, and drop the former one, at once."""
        built = self._building
        if built is None:
            return
        revision = await self._commit(
            (
                ModRevisionIs(self._cursor_key, self._cursor_revision),
                ModRevisionIs(self._build_key, built.revision),
            ),
            Put(self._cursor_key, encode_cursor(built.cursor)),
            (*_clear(self._keys(1 - built.cursor.place)), Delete(self._build_key)),
        )
        self.cursor, self._cursor_revision, self._building = built.cursor, revision, None

    async def _move(self, to: Cursor, puts: Callable[[LogKeys], Sequence[Operation]]) -> None:
        built, cursor = self._building, self.cursor
        if built is not None:
            moved = replace(to, place=built.cursor.place)
            revision = await self._commit(
                (ModRevisionIs(self._build_key, built.revision),),
                Put(self._build_key, encode_cursor(moved)),
                puts(self._keys(moved.place)),
            )
            self._building = _Building(moved, revision)
            return
        moved = replace(to, place=cursor.place if cursor else 0)
        revision = await self._commit(
            (ModRevisionIs(self._cursor_key, self._cursor_revision),),
            Put(self._cursor_key, encode_cursor(moved)),
            puts(self._keys(moved.place)),
        )
        self.cursor, self._cursor_revision = moved, revision

    async def _commit(
        self, compares: Sequence[Compare], mark: Put, operations: Sequence[Operation]
    ) -> int:
        """Do the operations and put `mark` if everything is still as it was left; returns the
        revision of `mark`.

        A mark that is there already was put by an earlier try whose answer was lost. Raises
        TransientError if it is another, after having read how everything is now: another meshd of
        this cluster has taken over.
        """
        fence = self.fence()
        if fence is None:
            raise TransientError("another meshd of this cluster keeps the replicas")
        result = await self._commit_txn(
            Txn(
                compares=(*compares, *fence),
                success=(*operations, mark),
                failure=(Get(mark.key),),
            )
        )
        if result.succeeded:
            return result.revision
        found = result.results[0]
        if found is not None and found.kvs and found.kvs[0].value == mark.value:
            return found.kvs[0].mod_revision
        await self.look()
        raise TransientError(f"the replica of {self.peer} was moved by another writer")


def _begun(log_id: LogId, place: int) -> Cursor:
    return Cursor(Head.genesis(log_id), Revision(0), place)


def _clear(keys: LogKeys) -> tuple[Delete, ...]:
    """Remove everything that may lie in a place."""
    return (
        Delete(keys.log, keys.log_end),
        Delete(keys.snapshots, keys.snapshots_end),
    )
