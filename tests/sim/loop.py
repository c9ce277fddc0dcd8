"""An event loop whose time is made up: it jumps to the next timer when nothing is left to do.

For: running the real asyncio code of a whole mesh by a seed. Not for: real I/O or threads, of which
nothing is ever ready here. Invariants: callbacks that are ready at the same time run in an order
that the seed chooses; the same seed runs the same callbacks in the same order.
"""

from __future__ import annotations

import asyncio
import selectors
from collections import deque
from collections.abc import Coroutine, Generator, Mapping
from contextvars import Context
from random import Random
from typing import Any, TypeVar

_T = TypeVar("_T")
FileObject = Any
"""A descriptor, or what has one; typeshed keeps its name to itself."""


class _Task(asyncio.Task[_T]):
    """A task that hashes to its number: TaskGroup keeps tasks in sets, in the order of hashes."""

    number = 0

    def __hash__(self) -> int:
        return self.number


class _Selector(selectors.BaseSelector):
    """Nothing is ever ready but time."""

    def __init__(self) -> None:
        self._keys: dict[FileObject, selectors.SelectorKey] = {}
        self.passed_s = 0.0

    def register(self, fileobj: FileObject, events: int, data: Any = None) -> selectors.SelectorKey:
        key = selectors.SelectorKey(fileobj, 0, events, data)
        self._keys[fileobj] = key
        return key

    def unregister(self, fileobj: FileObject) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("nothing is left to do and nothing is waited for: a deadlock")
        self.passed_s += max(0.0, timeout)
        return []

    def get_map(self) -> Mapping[FileObject, selectors.SelectorKey]:
        return self._keys


class SimLoop(asyncio.SelectorEventLoop):
    """turns: how often the loop has looked around, which is a part of a schedule's trace."""

    _ready: deque[asyncio.Handle]

    def __init__(self, seed: int) -> None:
        self._time = _Selector()
        super().__init__(self._time)
        self._order = Random(seed)
        self._tasks_made = 0
        self.turns = 0
        self.set_task_factory(self._make_task)

    def time(self) -> float:
        return self._time.passed_s

    def _make_task(
        self,
        _loop: asyncio.AbstractEventLoop,
        coroutine: Coroutine[Any, Any, _T] | Generator[Any, None, _T],
        context: Context | None = None,
    ) -> asyncio.Task[_T]:
        _Task.number = self._tasks_made = self._tasks_made + 1
        task = _Task(coroutine, loop=self, context=context)
        task.number = self._tasks_made
        return task

    def _run_once(self) -> None:
        self.turns += 1
        if len(self._ready) > 1:
            self._order.shuffle(self._ready)
        super()._run_once()  # type: ignore[misc]

    def _make_self_pipe(self) -> None:
        """Make none: there are no threads and no signals that could wake this loop."""

    def _close_self_pipe(self) -> None:
        """Close nothing."""
