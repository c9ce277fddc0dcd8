"""A stored log as an archive's bytes.

For: files and REST alike. Not for: what is done with the bytes. Invariants: what is given out was
checked to be one unbroken piece; a log that was cut begins with its snapshot, so that an archive of
the whole log says all of it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from meshd.core.audit import Audit
from meshd.model.archive import ArchiveWriter
from meshd.model.errors import Problem, RejectedError
from meshd.runtime.stored_log import StoredLog


def audit_of(stored: StoredLog) -> Audit:
    """What judges the records on their way into an archive, without folding them."""
    origin = stored.origin
    return Audit(origin.speaker, origin.log_id, is_folding=False, skip=origin.skip)


async def archived(
    stored: StoredLog, audit: Audit, first_seq: int | None = None
) -> AsyncGenerator[bytes]:
    """The archive of a log as far as it goes now, or from a seq on, in pieces that may be empty.

    Raises RejectedError for a seq that was cut off or that the log doesn't reach, and what
    `StoredLog.entries` does.
    """
    oldest, last = stored.first_seq, stored.head.seq
    first = oldest if first_seq is None else first_seq
    if first < oldest:
        raise _refused(f"seq {first} was cut off; the log begins with {oldest}", "begin there")
    snapshot = stored.snapshot if first == oldest > 1 else None
    if first > last and snapshot is None:
        raise _refused(
            f"{stored.origin.log} ends with seq {last}: there is nothing", "begin before"
        )
    writer = ArchiveWriter(stored.origin, snapshot)
    yield writer.begin()
    if snapshot is not None:
        async with aclosing(stored.parts()) as parts:
            async for raw in parts:
                yield writer.add_part(raw)
    async with aclosing(stored.entries(first)) as entries:
        async for entry in entries:
            audit.take(entry)
            yield writer.add(entry.record, entry.revision)
    yield writer.end()


def _refused(what: str, remedy: str) -> RejectedError:
    return RejectedError((Problem("from", what, remedy),))
