"""What an event loop could not tell anybody is in the log, and no storm of it."""

from __future__ import annotations

import asyncio
import socket

import pytest
import structlog

from meshd.telemetry.loop_errors import QUIET_S, LoopErrors

pytestmark = pytest.mark.looptime


async def test_a_hundred_times_the_same_is_one_line_and_the_next_one_counts_them() -> None:
    loop = asyncio.get_running_loop()
    handle = LoopErrors()
    lack = {"message": "no descriptor", "exception": OSError(24, "Too many open files")}
    with structlog.testing.capture_logs() as lines:
        for _ in range(100):
            handle(loop, lack)
        handle(loop, {"message": "something else"})
        await asyncio.sleep(QUIET_S + 1)
        handle(loop, lack)
    assert [(line["detail"], line["unsaid"]) for line in lines] == [
        ("no descriptor", 0),
        ("something else", 0),
        ("no descriptor", 99),
    ]
    assert "Too many open files" in lines[0]["error"]


async def test_messages_that_are_never_the_same_take_no_more_and_more_memory() -> None:
    loop = asyncio.get_running_loop()
    handle = LoopErrors()
    with structlog.testing.capture_logs() as lines:
        for number in range(1000):
            handle(loop, {"message": f"number {number}", "socket": socket.SOCK_STREAM})
    assert len(lines) == 1000
    assert len(handle._last_s) <= 100
