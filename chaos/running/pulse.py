"""Whether this process itself keeps pace: who measures must know when it didn't look.

For: runs. Not for: judging (`validators`). Invariant: whenever the event loop stood still for
longer than LATE_S the history says so, from when until when; the file beside it has what it was
doing then.

The stack is taken by a thread that holds the interpreter's lock: `faulthandler` reads it without,
and ended a run of eight minutes by a segmentation fault.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from chaos.history import Stalled
from chaos.recorder import Recorder

BEAT_S: Final = 0.1
LATE_S: Final = 0.25
"""A busy machine is late by some ten milliseconds, and no answer has to come that fast."""
STACKS: Final = "stalled.txt"
NS_PER_S: Final = 1_000_000_000


@asynccontextmanager
async def pulse(recorder: Recorder, folder: Path) -> AsyncIterator[None]:
    """Note until the end of the block when nothing went on here."""
    with (folder / STACKS).open("a") as stacks:
        watch = _Watch(stacks, threading.get_ident())
        thread = threading.Thread(target=watch.run, name="pulse", daemon=True)
        thread.start()
        try:
            async with asyncio.TaskGroup() as tasks:
                beating = tasks.create_task(_beat(recorder, watch))
                try:
                    yield
                finally:
                    beating.cancel()
        finally:
            watch.is_over.set()
            thread.join()


@dataclass(slots=True)
class _Watch:
    """Looks whether the event loop of a thread turns. beat_s: when it did last."""

    stacks: IO[str]
    thread_id: int
    beat_s: float = field(default_factory=time.monotonic)
    is_over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        told_s = 0.0
        while not self.is_over.wait(BEAT_S):
            beat_s = self.beat_s
            late_s = time.monotonic() - beat_s - BEAT_S
            if late_s > LATE_S and told_s != beat_s:
                told_s = beat_s
                self._tell(late_s)

    def _tell(self, late_s: float) -> None:
        # There is no public way to another thread's stack.
        frame = sys._current_frames().get(self.thread_id)  # noqa: SLF001
        stack = traceback.format_stack(frame)
        self.stacks.write(f"{time.monotonic():.3f} s: late by {late_s:.2f} s\n{''.join(stack)}\n")
        self.stacks.flush()


async def _beat(recorder: Recorder, watch: _Watch) -> None:
    while True:
        due_ns = recorder.now_ns() + round(BEAT_S * NS_PER_S)
        watch.beat_s = time.monotonic()
        await asyncio.sleep(BEAT_S)
        now_ns = recorder.now_ns()
        if now_ns - due_ns > LATE_S * NS_PER_S:
            recorder.note(Stalled(at_ns=now_ns, from_ns=due_ns))
