"""One watcher of the in-memory etcd.

For: whole responses, first out of history, then live, through a bounded buffer. Not for: deciding
what a change is (`store`). Invariant: every change of the range from the start revision on is
delivered once and in order, or the watcher ends by raising; unless one of etcd's own faults was
asked for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Self

from meshd.edges.memory.limits import is_in_range
from meshd.runtime.ports import WatchEvent, WatchResponse

if TYPE_CHECKING:
    from meshd.edges.memory.etcd import MemoryEtcd
    from meshd.model.errors import MeshdError

CATCH_UP_REVISIONS_MAX = 1000
"""As etcd: so many revisions of history at most make one response."""
FIRST_REVISION = 2
"""Of the first change; 1 is the empty store."""
BUFFERED_RESPONSES_MAX = 128
"""A reader that is further behind is served out of history again, as in etcd, and so may find
that its place was compacted away."""


class Watch:
    """An iterator of responses. `MemoryEtcd` feeds it, its reader drains it."""

    def __init__(
        self, etcd: MemoryEtcd, key: bytes, end: bytes, start_revision: int, *, progress: bool
    ) -> None:
        self._etcd = etcd
        self._key = key
        self._end = end
        self._next_revision = max(start_revision, FIRST_REVISION)
        self._wants_progress = progress
        self._is_live = self._next_revision > etcd.revision
        self._loses_next = False
        self._is_silent = False
        self._failure: MeshdError | None = None
        self._changed = asyncio.Event()
        created = WatchResponse(etcd.revision, (), is_created=True)
        self._waiting: deque[WatchResponse] = deque([created])

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> WatchResponse:
        # One turn of the loop per response, so that a busy watch can't keep everybody else out.
        await asyncio.sleep(0)
        while True:
            self._etcd.expire_leases()
            if self._failure is not None:
                raise self._failure
            if self._waiting:
                return self._waiting.popleft()
            if self._is_live or self._is_silent:
                await self._until_changed()
            else:
                self._catch_up()

    def deliver(self, revision: int, events: tuple[WatchEvent, ...]) -> None:
        """Take the changes of one new revision, or remember to fetch them from history."""
        if not self._is_live or revision < self._next_revision:
            return
        mine = self._mine(events)
        if mine and len(self._waiting) >= BUFFERED_RESPONSES_MAX:
            self._is_live = False
            return
        self._next_revision = revision + 1
        if mine and self._loses_next:
            self._loses_next = False
        elif mine and not self._is_silent:
            responses = 2 if self._etcd.repeats_events else 1
            self._waiting.extend([WatchResponse(revision, mine)] * responses)
            self._changed.set()

    def deliver_progress(self, revision: int) -> None:
        """Take a progress notification; etcd sends none to a watcher that is behind."""
        is_up_to_date = self._is_live and not self._waiting
        if self._wants_progress and is_up_to_date and not self._is_silent:
            self._waiting.append(WatchResponse(revision, ()))
            self._changed.set()

    def fail(self, failure: MeshdError) -> None:
        """End the watch. What the reader has not taken yet is lost with the connection."""
        self._failure = self._failure or failure
        self._waiting.clear()
        self._changed.set()

    def lose_next(self) -> None:
        """Miss the next changes."""
        self._loses_next = True

    def wake(self) -> None:
        """Look again: a key of this range may now be a lease's."""
        self._changed.set()

    def silence(self) -> None:
        """Say nothing more, and don't end."""
        self._is_silent = True
        self._waiting.clear()

    def _mine(self, events: tuple[WatchEvent, ...]) -> tuple[WatchEvent, ...]:
        return tuple(event for event in events if is_in_range(event.kv.key, self._key, self._end))

    def _catch_up(self) -> None:
        found: list[WatchEvent] = []
        history = self._etcd.history(self._next_revision, revisions_max=CATCH_UP_REVISIONS_MAX)
        for revision, events in history:
            found.extend(self._mine(events))
            self._next_revision = revision + 1
        self._is_live = self._next_revision > self._etcd.revision
        if found:
            # The header tells the store's revision, not how far this response has come.
            self._waiting.append(WatchResponse(self._etcd.revision, tuple(found)))

    async def _until_changed(self) -> None:
        self._changed.clear()
        is_leased = self._etcd.holds_leased(self._key, self._end)
        pause_s = self._etcd.next_expiry_in_s() if is_leased else None
        if pause_s is None:
            await self._changed.wait()
            return
        async with asyncio.TaskGroup() as group:
            timer = group.create_task(self._wake_in(pause_s), name="memory-etcd-lease-timer")
            await self._changed.wait()
            timer.cancel()

    async def _wake_in(self, pause_s: float) -> None:
        await self._etcd.clock.sleep(pause_s)
        self._changed.set()
