"""Whether this process itself keeps pace: who measures must know when it didn't look.

For: runs. Not for: judging (`validators`). Invariant: whenever the event loop stood still for
longer than LATE_S the history says so, from when until when; the file beside it has what this
process was doing then.
"""

from __future__ import annotations

import asyncio
import faulthandler
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

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
        async with asyncio.TaskGroup() as tasks:
            beating = tasks.create_task(_beat(recorder, stacks.fileno()))
            try:
                yield
            finally:
                beating.cancel()
                faulthandler.cancel_dump_traceback_later()


async def _beat(recorder: Recorder, stacks: int) -> None:
    while True:
        due_ns = recorder.now_ns() + round(BEAT_S * NS_PER_S)
        # A thread of the interpreter's own writes them, whatever this one is doing.
        faulthandler.dump_traceback_later(BEAT_S + LATE_S, file=stacks)
        await asyncio.sleep(BEAT_S)
        now_ns = recorder.now_ns()
        if now_ns - due_ns > LATE_S * NS_PER_S:
            recorder.note(Stalled(at_ns=now_ns, from_ns=due_ns))
