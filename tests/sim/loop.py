"""An event loop whose time is made up: it jumps to the next timer when nothing is left to do.

For: running the real asyncio code of a whole mesh by a seed, some of it held back as SIGSTOP would.
Not for: real I/O or threads, of which nothing is ever ready here. Invariants: callbacks that are
ready at the same time run in an order that the seed chooses; the same seed runs the same callbacks
in the same order; what a frozen process was to run waits until it is thawed, and nothing of it is
lost.
"""

from __future__ import annotations

import asyncio
import selectors
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Mapping
from contextvars import Context, ContextVar
from heapq import heappop
from random import Random
from typing import Any, Protocol, Self, TypeVar, TypeVarTuple

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")
TURNS_MAX = 50_000
"""A hundred times what a schedule takes: what turns on without end is a finding, too."""
FileObject = Any
"""A descriptor, or what has one; typeshed keeps its name to itself."""

PROCESS: ContextVar[int] = ContextVar("PROCESS", default=0)
"""Whose code runs: a task's children and callbacks inherit it. 0 is the world around all meshds."""


class _Handle(Protocol):
    """What asyncio keeps of a callback."""

    _context: Context
    _cancelled: bool
    _callback: Callable[..., object]
    _args: tuple[Any, ...]


class _Timer(_Handle, Protocol):
    """A callback at a time."""

    _scheduled: bool

    def when(self) -> float: ...

    def __lt__(self, other: Self) -> bool: ...


class _Task(asyncio.Task[_T]):
    """A task that hashes to its number: TaskGroup keeps tasks in sets, in the order of hashes."""

    number = 0

    def __hash__(self) -> int:
        return self.number


class _Selector(selectors.BaseSelector):
    """Nothing is ever ready but time."""

    def __init__(self) -> None:
        self._keys: dict[FileObject, selectors.SelectorKey] = {}

    def register(self, fileobj: FileObject, events: int, data: Any = None) -> selectors.SelectorKey:
        key = selectors.SelectorKey(fileobj, 0, events, data)
        self._keys[fileobj] = key
        return key

    def unregister(self, fileobj: FileObject) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return []

    def get_map(self) -> Mapping[FileObject, selectors.SelectorKey]:
        return self._keys


class SimLoop(asyncio.SelectorEventLoop):
    """turns: how often the loop has looked around, which is a part of a schedule's trace."""

    _ready: deque[_Handle]
    _scheduled: list[_Timer]
    _stopping: bool

    def __init__(self, seed: int) -> None:
        self._now_s = 0.0
        super().__init__(_Selector())
        self._order = Random(seed)
        self._tasks_made = 0
        self._frozen: dict[int, list[_Handle]] = {}
        self.turns = 0
        self.set_task_factory(self._make_task)

    def time(self) -> float:
        return self._now_s

    def call_soon(
        self, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)  # type: ignore[arg-type]
        return handle

    def freeze(self, process: int) -> None:
        """Run nothing of a process until it is thawed; time goes on."""
        self._frozen.setdefault(process, [])

    def thaw(self, process: int) -> None:
        """Let a process run on, with all that has become due meanwhile."""
        self._ready.extend(self._frozen.pop(process, ()))

    @property
    def has_frozen(self) -> bool:
        return bool(self._frozen)

    def is_frozen(self, process: int) -> bool:
        return process in self._frozen

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
        """Run what is ready, in some order; the base class would ask the system for the time."""
        self.turns += 1
        if self.turns > TURNS_MAX:
            raise RuntimeError(f"{TURNS_MAX} turns, and it is {self._now_s:g} s: it spins")
        ready = self._ready
        self._take_due()
        if self._frozen:
            self._hold_back()
        if len(ready) > 2:
            self._order.shuffle(ready)
        elif len(ready) > 1 and self._order.random() < 0.5:
            ready.rotate()
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                # What a callback raises ends the run: it is a finding.
                handle._context.run(handle._callback, *handle._args)

    def _take_due(self) -> None:
        """Move the timers that are due to what is ready; when nothing is, time passes."""
        ready, timers = self._ready, self._scheduled
        while timers and (timers[0]._cancelled or timers[0].when() <= self._now_s or not ready):
            timer = heappop(timers)
            timer._scheduled = False
            if not timer._cancelled:
                self._now_s = max(self._now_s, timer.when())
                ready.append(timer)
        if not ready and not self._stopping:
            raise RuntimeError("nothing is left to do and nothing is waited for: a deadlock")

    def _hold_back(self) -> None:
        ready = self._ready
        for _ in range(len(ready)):
            handle = ready.popleft()
            held = self._frozen.get(handle._context.get(PROCESS, 0))
            (ready if held is None else held).append(handle)

    def _make_self_pipe(self) -> None:
        """Make none: there are no threads and no signals that could wake this loop."""

    def _close_self_pipe(self) -> None:
        """Close nothing."""
