"""Processes of a bench that do one thing beside meshd: a load, a reference.

For: both ends of their standard streams, a JSON line each for a question and its answer. Not for:
what they do. Invariant: a child ends when its parent does, since its standard input ends then.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import orjson

from tests.bench.daemons import cpu_s_of

LINE_BYTES_MAX: Final = 64 * 1024 * 1024
"""Of a question: a table of a thousand backends is one of the largest things that are told."""
Answer = Callable[[Any], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Child:
    """One of them; one question at a time."""

    process: asyncio.subprocess.Process

    async def ask(self, question: object = None) -> Any:
        """Ask and wait; raises RuntimeError when it ends instead."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(orjson.dumps(question) + b"\n")
        line = await stdout.readline()
        if not line:
            raise RuntimeError("a process of the bench ended; what it said stands above")
        return orjson.loads(line)

    def cpu_s(self) -> float:
        """The processor time that it took so far."""
        return cpu_s_of(self.process.pid)


@asynccontextmanager
async def child(module: str, *arguments: str) -> AsyncIterator[Child]:
    """Run a module, which calls `answer_all`."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LINE_BYTES_MAX,
    )
    try:
        yield Child(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def answer_all(answer: Answer) -> None:
    """Be such a process: answer one question after the other, until there are no more."""
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader(limit=LINE_BYTES_MAX)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        sys.stdout.buffer.write(orjson.dumps(await answer(orjson.loads(line))) + b"\n")
        sys.stdout.buffer.flush()
