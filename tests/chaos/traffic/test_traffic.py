"""What traffic is made of, each part by itself: what is drawn, what is cut, and who waits."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from itertools import islice, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import jsonschema
import pytest

from chaos.mesh.shape import Server
from chaos.traffic.calls import Calls, UnansweredError
from chaos.traffic.counters import Counters
from chaos.traffic.frames import MESSAGE_BYTES_MAX, Frame, frames
from chaos.traffic.mix import Command, Mix
from chaos.traffic.pacing import Gate, paced
from chaos.traffic.subscribers import SEQ_MAX, losses_named, place_in
from tests.dying import dying

OPENAPI = Path(__file__).parents[3] / "protocols" / "openapi.json"
LOG_ID, OTHER_LOG_ID = "a" * 32, "b" * 32


def drawn(seed: int, number: int = 500) -> list[Command]:
    mix = Mix(7, random.Random(seed), "east-1")
    return [*mix.beginnings(), *(mix.draw() for _ in range(number))]


def test_a_seed_draws_the_same_commands_and_another_one_others() -> None:
    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    assert len({command.path.split("/")[2] for command in drawn(1)}) == 4


def test_every_command_is_one_that_meshd_knows() -> None:
    document = json.loads(OPENAPI.read_text())
    for command in drawn(3):
        path, body = _described(document, command)
        assert path is not None, command
        if command.body is not None:
            schema = {**body, "components": document["components"]}
            jsonschema.validate(command.body, schema)


def _described(document: dict[str, dict[str, object]], command: Command) -> tuple[str | None, dict]:  # type: ignore[type-arg]
    for path, methods in document["paths"].items():
        parts, wanted = command.path.split("/"), path.split("/")
        is_it = len(parts) == len(wanted) and all(
            one == other or other.startswith("{") for one, other in zip(parts, wanted, strict=True)
        )
        if is_it and command.method.lower() in methods:  # type: ignore[operator]
            method = methods[command.method.lower()]  # type: ignore[index]
            content = method.get("requestBody", {}).get("content", {})
            return path, content.get("application/json", {}).get("schema", {})
    return None, {}


# --- frames ---------------------------------------------------------------------------------------


async def _chunks(raw: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(raw), size):
        yield raw[start : start + size]


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
async def test_frames_are_whole_however_the_bytes_come(size: int) -> None:
    raw = 'retry: 2000\nid: p0\n\n:\n\nid: p1\nevent: a\ndata: {"ü": 1}\n\nevent: b\ndata: 2\n\n'
    raw += "id: p3\nevent: c\ndata: what a cut left"
    found = [one async for one in frames(_chunks(raw.encode(), size))]
    assert found == [Frame("", "p0", ""), Frame("a", "p1", '{"ü": 1}'), Frame("b", "", "2")]


async def test_a_message_without_an_end_is_not_gathered_for_ever() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(MESSAGE_BYTES_MAX // 3)

    with pytest.raises(ValueError, match="a message has more than"):
        async for _ in frames(endless()):
            pass


# --- what a problem says is lost ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("problem", "lost"),
    [
        ("seq 51 of south was lost in a restore; it ends at 34", [(35, 51, "")]),
        ("seq 51 of east was lost in a restore; it ends at 34", []),
        ("seq 51 of south was lost in a restore; another event is there now", [(51, 51, "")]),
        ("seq 51 of east was lost in a restore; another event is there now", []),
        (f"log {LOG_ID} of south was replaced by log {OTHER_LOG_ID}", [(1, SEQ_MAX, LOG_ID)]),
        (f"log {LOG_ID} of east was replaced by log {OTHER_LOG_ID}", []),
        ("the events of south up to 9 were cut off, and 3 is among them", []),
    ],
)
def test_what_is_lost_is_what_was_named(problem: str, lost: list[tuple[int, int, str]]) -> None:
    told = json.dumps({"detail": problem, "problems": [{"what": problem}]})
    assert losses_named("south", told) == lost


def test_who_begins_anew_for_anothers_sake_can_still_ask_for_its_own_log() -> None:
    place = f"east:{OTHER_LOG_ID}:7,south:{LOG_ID}:51~0123abcd"
    assert place_in(place, "south") == f"south:{LOG_ID}:51~0123abcd"
    assert place_in(f"south:{LOG_ID}:51", "south") == f"south:{LOG_ID}:51"
    assert not place_in(place, "sout")


# --- questions ------------------------------------------------------------------------------------


async def test_what_arrived_at_who_died_of_it_may_have_been_done() -> None:
    async with dying() as (address, arrived), Calls.opened() as calls:
        server = cast("Server", SimpleNamespace(address=address))
        with pytest.raises(UnansweredError) as caught:
            await calls.ask(server, "/v1/cluster", "PUT", {}, {"Idempotency-Key": "once"})
        assert caught.value.was_sent
        with pytest.raises(UnansweredError) as caught:
            await calls.ask(server, "/v1/cluster", "PUT", {})
        assert not caught.value.was_sent
    assert len(arrived) == 1


# --- pauses ---------------------------------------------------------------------------------------


@pytest.mark.looptime
async def test_a_pause_waits_for_what_was_begun_and_lets_nothing_begin() -> None:
    gate = Gate()
    begun: list[None] = []
    done: list[None] = []

    async def work() -> None:
        async for _ in paced(1.0, gate):
            begun.append(None)
            await asyncio.sleep(0.4)
            done.append(None)

    async with asyncio.TaskGroup() as tasks:
        working = tasks.create_task(work())
        await asyncio.sleep(2.1)
        assert (len(begun), len(done)) == (3, 2)
        await gate.close()
        assert (len(begun), len(done)) == (3, 3)
        await asyncio.sleep(10)
        assert len(begun) == 3
        gate.open()
        await asyncio.sleep(0.1)
        # What was missed isn't made up for.
        assert len(begun) == 4
        working.cancel()


@pytest.mark.looptime
async def test_who_rests_takes_its_share_of_the_time_and_no_more() -> None:
    loop, begun = asyncio.get_running_loop(), []
    async for _ in paced(1.0, Gate(), rest=4.0):
        begun.append(loop.time())
        if len(begun) == 5:
            break
        await asyncio.sleep((0.1, 0.1, 1.0, 8.0)[len(begun) - 1])
    steps = [round(later - one) for one, later in pairwise(begun)]
    # The last one would rest for 32 s.
    assert steps == [1, 1, 5, 13]


def test_figures_are_told_in_one_line() -> None:
    counters = Counters(events=3, behind={"east/meshd-1": 2, "west/meshd-1": 0})
    assert "events told 3" in str(counters)
    assert "lag now 2" in str(counters)
    assert list(islice(counters.figures().values(), 3)) == [0, 0, 0]
