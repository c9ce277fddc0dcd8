"""Bugs to be found: each is put into the code for a while, and the simulator must notice it.

For: the mutation gate. Not for: product code, which has no switches for this. Invariant: leaving
the context restores the code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

from meshd.core import intake, replica
from meshd.core.position import Verdict, classify
from meshd.model.codec import decode_record
from meshd.model.errors import CorruptError
from meshd.model.event import Record
from meshd.model.ids import Head
from meshd.model.replica import Fetched, ReplicaState, Step, Watch
from meshd.runtime import replica_copy, writer
from meshd.runtime.ports import Put, Txn


def _no_gap_no_chain(at: Head, record: Record) -> Verdict:
    """Forget to look for holes and at the chain."""
    found = classify(at, record)
    is_same_log = record.log_id == at.log_id and record.first_seq > at.seq
    return Verdict.NEXT if is_same_log else found


def _no_duplicates(at: Head | None, item: Fetched, cluster: object) -> object:
    """Take every record that decodes, again and again."""
    del cluster
    try:
        record = decode_record(item.raw, "record")
    except CorruptError as error:
        return None, str(error)
    return record if at is not None and record.log_id == at.log_id else (Verdict.FORK, "fork")


def _next_of_header(state: ReplicaState, *rest: Any) -> Step:
    """Resume behind the revision of a later answer's header."""
    moved, effects, todo = _ADVANCE(state, *rest)
    return replace(moved, watch_revision=moved.watch_revision + 1), effects, _later(todo)


def _later(todo: Any) -> Any:
    is_watch = isinstance(todo, Watch)
    return Watch(todo.from_revision + 1) if is_watch else todo


def _always_alive(state: ReplicaState, beat: int, now_s: float) -> ReplicaState:
    """Take any answer of the etcd for a sign of life of the daemon."""
    return replace(state, beat=beat, beat_s=now_s)


async def _cursor_first(self: Any, compares: Any, mark: Put, operations: Any) -> Any:
    """Write the cursor, and then what it stands behind."""
    if not operations or not isinstance(operations[0], Put):
        return await _COMMIT(self, compares, mark, operations)
    revision = await _COMMIT(self, compares, mark, ())
    await self._kv.commit(Txn(success=tuple(operations)))
    return revision


def _no_fence(**fields: Any) -> Txn:
    """Commit whatever the head is."""
    return Txn(**(fields | {"compares": ()}))


_ADVANCE = replica._advance
_COMMIT = replica_copy.ReplicaCopy._commit


@dataclass(frozen=True, slots=True)
class Mutation:
    """ring: which one must find it. seeds_max: within how many seeds."""

    ring: int
    seeds_max: int
    patches: tuple[tuple[object, str, Callable[..., object]], ...]


MUTATIONS = {
    "noident": Mutation(1, 100, ((replica, "fork_reason", lambda *_: ""),)),
    "progress": Mutation(1, 100, ((replica, "_advance", _next_of_header),)),
    "nogap+nochain": Mutation(1, 500, ((intake, "classify", _no_gap_no_chain),)),
    "nodedup+nogap": Mutation(1, 500, ((intake, "_judge", _no_duplicates),)),
    "norefusal": Mutation(1, 100, ((replica, "refusal", lambda *_: ""),)),
    "alwaysalive": Mutation(1, 200, ((replica, "heard_beat", _always_alive),)),
    "cursorfirst": Mutation(2, 1000, ((replica_copy.ReplicaCopy, "_commit", _cursor_first),)),
    "nofence": Mutation(2, 100, ((writer, "Txn", _no_fence),)),
}


@contextmanager
def mutated(name: str) -> Iterator[None]:
    """Put the bug of this name in; '' for none."""
    patches = [patch.object(*one) for one in MUTATIONS[name].patches] if name else []
    for one in patches:
        one.start()
    try:
        yield
    finally:
        for one in patches:
            one.stop()
