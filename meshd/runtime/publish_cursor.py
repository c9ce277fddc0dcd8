"""How far the own log is published: a key of its own in the own etcd.

For: reading and writing it as the leader. Not for: publishing. Invariants: only a leader reads or
writes it, in a transaction that compares the leader's key; what it names was acknowledged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from meshd.model.errors import CorruptError, MeshdError
from meshd.model.ids import Position
from meshd.model.publishing import PublishCursor, decode_publish_cursor
from meshd.runtime.ports import Compare, Get, Kv, Put, Txn

log = structlog.get_logger(__name__)

Fence = Sequence[Compare]


class DeposedError(MeshdError):
    """This meshd doesn't lead any more: somebody else publishes."""


@dataclass(frozen=True, slots=True)
class Begin:
    """Where to go on. unreadable: why what the key holds says nothing, '' if it does."""

    cursor: PublishCursor | None
    unreadable: str = ""


class CursorKey:
    """The key, as one leader sees it."""

    def __init__(self, kv: Kv, key: bytes) -> None:
        self._kv = kv
        self._key = key

    async def read(self, fence: Fence) -> Begin:
        """Where to go on; raises DeposedError, and as etcd does."""
        result = await self._kv.commit(Txn(compares=tuple(fence), success=(Get(self._key),)))
        if not result.succeeded:
            raise DeposedError("another meshd leads")
        found = result.results[0]
        if found is None or not found.kvs:
            return Begin(None)
        try:
            return Begin(decode_publish_cursor(found.kvs[0].value, self._key.decode()))
        except CorruptError as error:
            log.warning("the publish cursor can't be read", reason=str(error))
            return Begin(None, f"how far was published can't be read: {error}")

    async def write(self, position: Position, fence: Fence) -> None:
        """Note that everything up to here was acknowledged; raises as `read` does."""
        value = PublishCursor(position.log_id, position.seq).encode()
        result = await self._kv.commit(Txn(compares=tuple(fence), success=(Put(self._key, value),)))
        if not result.succeeded:
            raise DeposedError("another meshd leads")
