"""Operations that go on by themselves: in their time, not into trouble, and whoever leads."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from copy import copy
from dataclasses import dataclass, replace

import pytest
from structlog.testing import capture_logs

from meshd.core.operations import ramp
from meshd.edges.memory import MemoryKv
from meshd.model.codec import decode_record
from meshd.model.command import Move, MoveOperation, StartOperation
from meshd.model.ids import ClusterName, ServiceKey
from meshd.model.keyspace import Keyspace
from meshd.model.operation import Conditions, OnTrouble, Operation, OperationKind, Progress, Stage
from meshd.model.peer import Phase
from meshd.runtime.operator import LOOK_EVERY_S
from meshd.runtime.ports import Delete, Txn
from meshd.runtime.signals import decode_signal
from tests.mesh import LoopClock, Mesh, Running, endpoint, service

pytestmark = pytest.mark.looptime

SPACE = Keyspace()
EAST, WEST = ClusterName("east"), ClusterName("west")
WEB = ServiceKey("shop", "web")
HOLD_S = 30.0
MOVE = Operation(
    kind=OperationKind.MIGRATION,
    subjects=(f"service/{WEB}",),
    stages=tuple(Stage(turned_percent=percent, hold_s=HOLD_S) for percent in (75, 50, 25, 0)),
    to="west",
    on_trouble=OnTrouble.ROLL_BACK,
)


def drain(*hold_s: float) -> Operation:
    """A drain of the cluster in as many stages as there are holds."""
    stages = tuple(
        Stage(turned_percent=100 - 100 * number // len(hold_s), hold_s=one)
        for number, one in enumerate(hold_s, 1)
    )
    return Operation(kind=OperationKind.DRAIN, subjects=("cluster",), stages=stages)


@dataclass(slots=True)
class Pair:
    """East, where the operation is, and west, which is to take over."""

    mesh: Mesh
    east: Running
    west: Running

    async def until_moved(self, what: Callable[[Operation], bool], timeout_s: float = 300) -> float:
        """Wait until the operation is so; returns for how long."""
        return await until_moved(self.east, what, timeout_s)


async def until_moved(
    east: Running, what: Callable[[Operation], bool], timeout_s: float = 300
) -> float:
    began_s = LoopClock().monotonic_s()
    await east.until(lambda: what(one_of(east)), timeout_s)
    return LoopClock().monotonic_s() - began_s


def one_of(east: Running) -> Operation:
    state = east.parts.node.projector.state(EAST)
    assert state is not None
    return state.operations["one"].value


async def begin(east: Running, operation: Operation) -> None:
    await east.submit(StartOperation("one", operation))


async def told(mesh: Mesh) -> list[tuple[int, str]]:
    """Every `operation.set` in east's log: the stage that it tells of, and how it stands."""
    found = await MemoryKv(mesh.etcds[EAST]).range(SPACE.local.log, SPACE.local.log_end)
    events = [event for kv in found.kvs for event in decode_record(kv.value, "log").events]
    return [
        (event.data.get("stage", 0), event.data.get("progress", "running"))  # type: ignore[misc]
        for event in events
        if event.type == "operation.set" and event.data is not None
    ]


@asynccontextmanager
async def a_pair(*overrides: str) -> AsyncIterator[Pair]:
    mesh = Mesh((EAST, WEST), overrides=overrides)
    async with mesh.running(EAST) as east, mesh.running(WEST) as west:
        await east.submit(service(), endpoint("shop/web/a"))
        await west.submit(service(), *(endpoint(f"shop/web/b{n}") for n in range(4)))
        await east.until_ready(WEST)
        await east.until_count("shop/web", 5)
        yield Pair(mesh, east, west)


async def test_stages_are_reached_in_their_time_and_each_once() -> None:
    async with a_pair() as pair:
        await begin(pair.east, MOVE)
        for stage in (2, 3, 4):
            waited_s = await pair.until_moved(lambda one, n=stage: one.stage == n)  # type: ignore[misc]
            assert waited_s + LOOK_EVERY_S >= HOLD_S
            assert waited_s < HOLD_S + 3 * LOOK_EVERY_S
        await pair.until_moved(lambda one: one.progress is Progress.DONE)
        assert await told(pair.mesh) == [
            *((stage, "running") for stage in (1, 2, 3, 4)),
            (4, "done"),
        ]
        assert {one[0] for one in pair.east.eligible("shop/web")} == {WEST}


async def test_stages_that_are_not_held_follow_one_another_at_once() -> None:
    async with a_pair() as pair:
        await begin(pair.east, drain(0, 0, 0, 0))
        assert await pair.until_moved(lambda one: one.progress is Progress.DONE) < 5
        assert await told(pair.mesh) == [*((n, "running") for n in (1, 2, 3)), (4, "done")]


async def test_what_is_paused_stays_and_what_is_resumed_holds_its_stage_anew() -> None:
    async with a_pair() as pair:
        await begin(pair.east, drain(HOLD_S, HOLD_S, 0))
        await pair.until_moved(lambda one: one.stage == 2)
        await pair.east.submit(MoveOperation("one", Move.PAUSE))
        await asyncio.sleep(10 * HOLD_S)
        assert one_of(pair.east).stage == 2
        await pair.east.submit(MoveOperation("one", Move.RESUME))
        waited_s = await pair.until_moved(lambda one: one.progress is Progress.DONE)
        assert waited_s + LOOK_EVERY_S >= HOLD_S


async def test_a_clock_that_is_put_back_makes_nobody_wait() -> None:
    async with a_pair() as pair:
        await begin(pair.east, drain(HOLD_S, HOLD_S, 0))
        await asyncio.sleep(5)
        pair.mesh.clock.ahead_ms = -3_600_000
        assert await pair.until_moved(lambda one: one.stage == 2) < HOLD_S
        assert await pair.until_moved(lambda one: one.progress is Progress.DONE) < HOLD_S + 2


async def test_a_ramp_takes_its_time() -> None:
    async with a_pair() as pair:
        await begin(pair.east, drain(0))
        stages = ramp(0, 100, 60.0, 6)
        up = Operation(kind=OperationKind.UNDRAIN, subjects=("cluster",), stages=stages)
        await begin(pair.east, up)
        waited_s = await pair.until_moved(lambda one: one.progress is Progress.DONE)
        assert waited_s + 6 * LOOK_EVERY_S >= 60
        assert waited_s <= 60 + 12 * LOOK_EVERY_S


# --- trouble --------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_trouble", list(OnTrouble))
async def test_a_destination_that_gets_ill_half_way_ends_it_with_the_reason(
    on_trouble: OnTrouble,
) -> None:
    async with a_pair() as pair:
        ill = Conditions(healthy_percent_min=75)
        await begin(pair.east, replace(MOVE, conditions=ill, on_trouble=on_trouble))
        await pair.until_moved(lambda one: one.stage == 2)
        with capture_logs() as logs:
            await pair.west.submit(*(endpoint(f"shop/web/b{n}", ready=False) for n in range(2)))
            await pair.until_moved(lambda one: one.progress is not Progress.RUNNING)
            await asyncio.sleep(LOOK_EVERY_S)
        reason = "50 % of west's endpoints of shop/web take traffic; 75 % must"
        assert one_of(pair.east).reason == reason
        said = [entry for entry in logs if entry["event"] == "operation moved" and entry["reason"]]
        assert [(entry["move"], entry["reason"]) for entry in said] == [(on_trouble, reason)]
        progress = {OnTrouble.PAUSE: Progress.PAUSED, OnTrouble.ROLL_BACK: Progress.ROLLED_BACK}
        assert one_of(pair.east).progress is progress[on_trouble]
        state = pair.east.parts.node.projector.state(EAST)
        assert state is not None
        turned = 50 if on_trouble is OnTrouble.PAUSE else 100
        assert state.services[WEB].value.turned_percent == turned
        await asyncio.sleep(3 * HOLD_S)
        assert len(await told(pair.mesh)) == 3


async def test_a_destination_that_gets_ill_in_the_last_hold_is_left_as_well() -> None:
    async with a_pair() as pair:
        await begin(pair.east, MOVE)
        await pair.until_moved(lambda one: one.stage == 4)
        await pair.west.submit(*(endpoint(f"shop/web/b{n}", ready=False) for n in range(4)))
        await pair.until_moved(lambda one: one.progress is Progress.ROLLED_BACK)
        assert (EAST, "a", 0) in pair.east.eligible("shop/web")


async def test_a_destination_that_dies_rolls_it_back_once_that_is_known() -> None:
    async with a_pair() as pair:
        await begin(pair.east, MOVE)
        pair.mesh.etcds[WEST].set_up(up=False)
        await pair.until_moved(lambda one: one.progress is Progress.ROLLED_BACK)
        assert one_of(pair.east).reason == "west is Stale here: what it can take isn't known"


async def test_a_drain_waits_for_a_person_once_nobody_else_is_left() -> None:
    async with a_pair() as pair:
        await begin(pair.east, drain(HOLD_S, HOLD_S, 0))
        await pair.west.submit(*(endpoint(f"shop/web/b{n}", ready=False) for n in range(4)))
        await pair.until_moved(lambda one: one.progress is Progress.PAUSED)
        assert one_of(pair.east).stage == 1
        assert one_of(pair.east).reason.startswith(
            "service shop/web: nobody else could take its traffic"
        )
        await pair.west.submit(*(endpoint(f"shop/web/b{n}") for n in range(4)))
        await pair.east.until_count("shop/web", 5)
        await pair.east.submit(MoveOperation("one", Move.RESUME))
        await pair.until_moved(lambda one: one.progress is Progress.DONE)


async def test_a_signal_that_nobody_gives_any_more_holds_it() -> None:
    async with a_pair() as pair:
        operator = pair.east.parts.node.operator
        watched = replace(MOVE, conditions=Conditions(error_percent_max=1.0))
        # Of an earlier operation of that name, so not of this one.
        await operator.signals.tell("one", 0.0)
        await asyncio.sleep(1)
        await begin(pair.east, watched)
        await asyncio.sleep(3 * HOLD_S)
        assert one_of(pair.east).stage == 1
        assert operator.waits["one"].startswith("nobody has told an error rate yet")
        await operator.signals.tell("one", 0.5)
        await pair.until_moved(lambda one: one.stage == 2)
        assert operator.waits == {}
        await asyncio.sleep(3 * 60)
        assert one_of(pair.east).stage == 3, "a minute is long enough for one more stage"
        assert "was last told" in operator.waits["one"]
        await operator.signals.tell("one", 2.0)
        await pair.until_moved(lambda one: one.progress is Progress.ROLLED_BACK)


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b'{"error_percent": null, "at_ms": 1}'])
def test_a_signal_that_can_not_be_read_was_never_told(raw: bytes) -> None:
    assert decode_signal(raw) is None


async def test_a_full_etcd_holds_it_and_is_tried_again() -> None:
    async with a_pair() as pair:
        await begin(pair.east, drain(HOLD_S, 0))
        pair.mesh.etcds[EAST].is_out_of_space = True
        await pair.east.until(lambda: bool(pair.east.parts.node.operator.waits), timeout_s=120)
        assert one_of(pair.east).stage == 1
        pair.mesh.etcds[EAST].is_out_of_space = False
        await pair.until_moved(lambda one: one.progress is Progress.DONE)
        assert await told(pair.mesh) == [(1, "running"), (2, "done")]


# --- leaders --------------------------------------------------------------------------------------


async def test_a_leader_that_dies_half_way_is_followed_by_one_that_goes_on() -> None:
    mesh = Mesh((EAST, WEST))
    async with AsyncExitStack() as stack:
        west = await stack.enter_async_context(mesh.running(WEST))
        await west.submit(service(), endpoint("shop/web/b"))
        dying = await stack.enter_async_context(AsyncExitStack())
        first = await dying.enter_async_context(mesh.running(EAST))
        other = await stack.enter_async_context(mesh.running(EAST, is_alone=False))
        await first.submit(service(), endpoint("shop/web/a"))
        for one in (first, other):
            await one.until_ready(WEST)
            await one.until_count("shop/web", 2)
        await begin(first, MOVE)
        await until_moved(other, lambda one: one.stage == 2)
        assert not leads(other)
        await dying.aclose()
        await until_moved(other, lambda one: one.progress is Progress.DONE)
        assert leads(other)
    assert await told(mesh) == [*((stage, "running") for stage in (1, 2, 3, 4)), (4, "done")]


async def test_who_does_not_lead_moves_nothing() -> None:
    mesh = Mesh((EAST, WEST))
    async with AsyncExitStack() as stack:
        west = await stack.enter_async_context(mesh.running(WEST))
        await west.submit(service(), endpoint("shop/web/b"))
        dying = await stack.enter_async_context(AsyncExitStack())
        first = await dying.enter_async_context(mesh.running(EAST))
        other = await stack.enter_async_context(mesh.running(EAST, is_alone=False))
        await first.submit(service(), endpoint("shop/web/a"))
        await begin(first, drain(2.0, 0))
        await other.until(lambda: "one" in names_of(other))
        await dying.aclose()
        await until_moved(other, lambda one: one.progress is Progress.DONE)
        assert leads(other), "it waited for the lease, which is longer than the stage is held"


async def test_two_that_believe_to_lead_make_each_stage_once() -> None:
    mesh = Mesh((EAST, WEST))
    async with (
        mesh.running(WEST) as west,
        mesh.running(EAST) as first,
        mesh.running(EAST, is_alone=False) as other,
    ):
        await west.submit(service(), endpoint("shop/web/b"))
        await first.submit(service(), endpoint("shop/web/a"))
        for one in (first, other):
            await one.until_ready(WEST)
        # It was deposed and doesn't know; and what the true one asks for takes longer than a look.
        first.kv.latency_s = 2 * LOOK_EVERY_S
        other.parts.node.operator._leadership = first.parts.node.leadership
        began_s = LoopClock().monotonic_s()
        await begin(first, MOVE)
        await until_moved(first, lambda one: one.progress is Progress.DONE)
        assert LoopClock().monotonic_s() - began_s >= len(MOVE.stages) * HOLD_S, (
            "each stage was held for its time"
        )
    assert await told(mesh) == [*((stage, "running") for stage in (1, 2, 3, 4)), (4, "done")]


async def test_who_was_deposed_and_does_not_know_moves_nothing() -> None:
    mesh = Mesh((EAST, WEST))
    async with mesh.running(WEST) as west, mesh.running(EAST) as east:
        await west.submit(service(), endpoint("shop/web/b"))
        await east.submit(service(), endpoint("shop/web/a"))
        await east.until_ready(WEST)
        operator, leadership = east.parts.node.operator, east.parts.node.leadership
        # The key that it holds by its own word is another one than the etcd has.
        deposed = copy(leadership)
        deposed._create_revision += 1
        deposed._valid_until_s = math.inf
        operator._leadership = deposed
        await begin(east, MOVE)
        await asyncio.sleep((len(MOVE.stages) + 1) * HOLD_S)
        assert await told(mesh) == [(1, "running")]
        operator._leadership = leadership
        await until_moved(east, lambda one: one.progress is Progress.DONE)


@pytest.mark.parametrize("is_known", [True, False], ids=["with a replica", "without one"])
async def test_a_new_leader_whose_peers_are_not_there_yet_waits(*, is_known: bool) -> None:
    mesh = Mesh((EAST, WEST))
    async with mesh.running(WEST) as west:
        await west.submit(service(), endpoint("shop/web/b"))
        async with mesh.running(EAST) as east:
            await east.submit(service(), endpoint("shop/web/a"))
            await east.until_ready(WEST)
            await east.until_count("shop/web", 2)
            await begin(east, MOVE)
            await asyncio.sleep(5)
        if not is_known:
            replica = b"/meshd/v1/replica/"
            await forget(MemoryKv(mesh.etcds[EAST]), replica)
        mesh.etcds[WEST].set_up(up=False)
        async with mesh.running(EAST) as east:
            assert east.phase(WEST) is Phase.CONNECTING
            await east.until(lambda: waits_of(east) == {"one": "west is Connecting here"})
            assert one_of(east).progress is Progress.RUNNING
            mesh.etcds[WEST].set_up(up=True)
            await until_moved(east, lambda one: one.progress is Progress.DONE)
    assert await told(mesh) == [*((stage, "running") for stage in (1, 2, 3, 4)), (4, "done")]


async def test_an_operation_outlives_the_part_of_the_log_that_began_it() -> None:
    short = (
        "retention.check_every_s=1",
        "retention.snapshot_every_events=10",
        "retention.keep_events=20",
        "retention.cap_events=30",
    )
    async with a_pair(*short) as pair:
        await begin(pair.east, drain(300, HOLD_S, 0))
        for number in range(80):
            await pair.east.submit(endpoint("shop/web/a", weight=1 + number))
            await asyncio.sleep(0.5)
        assert await told(pair.mesh) == [], "its beginning is cut off"
        mesh, before = pair.mesh, one_of(pair.east)
        async with mesh.running(EAST, is_alone=False) as other:
            await until_moved(other, lambda one: one == before)
            await until_moved(other, lambda one: one.progress is Progress.DONE, 600)


def names_of(running: Running) -> set[str]:
    state = running.parts.node.projector.state(EAST)
    return set(state.operations) if state is not None else set()


def leads(running: Running) -> bool:
    return running.parts.node.leadership.is_leader


def waits_of(running: Running) -> dict[str, str]:
    return running.parts.node.operator.waits


async def forget(kv: MemoryKv, prefix: bytes) -> None:
    await kv.commit(Txn(success=(Delete(prefix, prefix + b"\xff"),)))
