"""Bugs in the daemon's waiting code, for ring 2 to find.

For: the mutation gate. Not for: product code, which has no switches for this. Invariant: a bug
changes one thing, or the two that hide each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from meshd.core.draft import Draft
from meshd.model.codec import Cursor
from meshd.model.errors import OutcomeUnknownError
from meshd.model.ids import Revision
from meshd.model.snapshot import Mark
from meshd.runtime import chores, replica_copy, shortening, writer
from meshd.runtime.leadership import Leadership
from meshd.runtime.ports import Delete, Put, Txn
from meshd.runtime.presence import Presence
from meshd.runtime.replica_store import ReplicaStore

Patch = tuple[object, str, Callable[..., object]]

_COPY = replica_copy.ReplicaCopy
_COMMIT = _COPY._commit
_SHORTEN = shortening._commit
_TRY_WRITE = writer.Writer._try_write


async def _cursor_first(self: Any, compares: Any, mark: Put, operations: Any) -> Any:
    """Write the cursor, and then what it stands behind."""
    if not operations or not isinstance(operations[0], Put):
        return await _COMMIT(self, compares, mark, operations)
    revision = await _COMMIT(self, compares, mark, ())
    await self._kv.commit(Txn(success=tuple(operations)))
    return revision


async def _cursor_ahead(self: Any, records: Any) -> None:
    """Move the cursor over one record more than was written."""
    last, revision = records[-1]
    await self._move(
        Cursor(last.head, Revision(revision)),
        lambda keys: [Put(keys.record(r.last_seq), r.raw) for r, _ in records[:-1]],
    )


def _no_fence(**fields: Any) -> Txn:
    """Commit whatever the head is."""
    return Txn(**(fields | {"compares": ()}))


def _believe(self: Leadership) -> tuple[()] | None:
    """Take the own belief for leadership."""
    return () if self._create_revision else None


async def _unknown_is_success(self: Any, plan: Any, patience_s: float, *, in_doubt: bool) -> bool:
    """Take a lost answer for a good one."""
    try:
        return await _TRY_WRITE(self, plan, patience_s, in_doubt=in_doubt)
    except OutcomeUnknownError:
        return True


async def _never_in_doubt(self: Any, plan: Any, patience_s: float, *, in_doubt: bool) -> bool:
    """Take a lost answer for a failure."""
    del in_doubt
    return await _TRY_WRITE(self, plan, patience_s, in_doubt=False)


def _answer_first(self: Any, plan: Any) -> None:
    """Answer, and let the watch bring what was written."""
    for waiting, outcome in plan.answers:
        if not waiting.answer.done():
            waiting.answer.set_result(outcome)


def _cut_all(manifest: Any, end: Mark, *_: Any) -> Mark | None:
    """Keep nothing but the snapshot."""
    return manifest.mark if manifest.trim.seq < manifest.head.seq and end.seq else None


async def _cut_unsaid(kv: Any, log: Any, mark: Mark, fence: Any) -> None:
    """Cut without publishing the trim point."""
    await _SHORTEN(kv, fence, (Delete(log.keys.record(0), log.keys.record(mark.seq + 1)),), ())


_kept_back: list[Any] = []


async def _parts_last(kv: Any, fence: Any, operations: Any, compares: Any) -> int:
    """Say that there is a snapshot, and then write it."""
    first = operations[0]
    if isinstance(first, Put) and b"/snapshot/0" in first.key:
        _kept_back.append(first)
        return 0
    kept = [one for one in compares if b"/snapshot/0" not in one.key]
    revision = await _SHORTEN(kv, fence, operations, kept)
    while _kept_back:
        await _SHORTEN(kv, fence, (_kept_back.pop(),), ())
    return revision


def _count_up(self: Any, now_ms: int) -> int:
    """Count beats from one, whatever the time: without looking for the last one it starts over."""
    del now_ms
    self._last_beat += 1
    return int(self._last_beat)


async def _nothing(*_: Any) -> None:
    """Leave it undone."""


DAEMON_BUGS: dict[str, tuple[int, tuple[Patch, ...]]] = {
    "cursorfirst": (100, ((_COPY, "_commit", _cursor_first),)),
    "cursorahead": (20, ((_COPY, "append", _cursor_ahead),)),
    "nofence": (100, ((writer, "Txn", _no_fence),)),
    "noleaderfence": (600, ((Leadership, "fence", _believe),)),
    "unknownisdone": (500, ((writer.Writer, "_try_write", _unknown_is_success),)),
    "noidem": (300, ((Draft, "outcome_of", lambda *_: None),)),
    "nodoubt": (800, ((writer.Writer, "_try_write", _never_in_doubt),)),
    "answerfirst": (300, ((writer.Writer, "_settle", _answer_first),)),
    "cutall": (100, ((chores, "trim_point", _cut_all),)),
    "cutunsaid": (1000, ((chores, "cut", _cut_unsaid),)),
    "partslast": (50, ((shortening, "_commit", _parts_last),)),
    "forgetreplicas": (150, ((ReplicaStore, "load", _nothing),)),
    "samebeat": (20, ((Presence, "_next_beat", lambda *_: 1),)),
    "nofollowon+nowall": (
        150,
        ((Presence, "_follow_on", _nothing), (Presence, "_next_beat", _count_up)),
    ),
}
"""By name: within how many seeds ring 2 must find it, at least five times as many as it takes."""
