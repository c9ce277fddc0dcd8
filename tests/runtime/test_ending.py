"""That a meshd ends is said at once, and it has so much time."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from meshd.daemon.ending import ENDED_AFTER_S, Ending


async def fail() -> None:
    raise ValueError("no such thing")


async def go_on() -> None:
    await asyncio.Event().wait()


async def test_a_part_that_fails_is_named_before_the_others_have_ended() -> None:
    times: list[float] = []
    ending = Ending(5.0, times.append)

    async def take_long() -> None:
        """End only once it was told that something failed."""
        try:
            await go_on()
        finally:
            while not times:  # noqa: ASYNC110 the test's own list
                await asyncio.sleep(0)

    async def run() -> None:
        async with asyncio.TaskGroup() as tasks:
            ending.watch(tasks.create_task(take_long(), name="writer"))
            ending.watch(tasks.create_task(fail(), name="probes"))

    with capture_logs() as logs, pytest.raises(ExceptionGroup):
        await run()
    assert times == [5.0 + ENDED_AFTER_S]
    assert [(one["part"], one["reason"]) for one in logs] == [("probes", "no such thing")]


async def test_one_that_is_ended_has_not_failed() -> None:
    times: list[float] = []
    ending = Ending(0.0, times.append)
    async with asyncio.TaskGroup() as tasks:
        part = tasks.create_task(go_on(), name="part")
        ending.watch(part)
        part.cancel()
    assert times == []


def test_the_time_counts_from_the_first_reason() -> None:
    times: list[float] = []
    ending = Ending(1.0, times.append)
    ending.begin()
    ending.begin()
    assert times == [1.0 + ENDED_AFTER_S]
