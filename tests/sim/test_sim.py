"""Some seeds of each ring in every run, the mutation gate, and that a seed replays itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import structlog

from meshd.core.freshness import phase_of
from meshd.core.replica import step
from meshd.model.ids import ClusterName, Head, LogId
from meshd.model.peer import Phase
from meshd.model.replica import Identified, LinkFailed, Misread, ReplicaState
from tests.sim import core_ring, daemon_ring
from tests.sim.link import RULES
from tests.sim.loop import PROCESS, SimLoop
from tests.sim.mutations import MUTATIONS, mutated
from tests.sim.sayings import DESCRIPTORS
from tests.sim.tally import Tally

SIMULATE: dict[int, Callable[[int, Tally], int]] = {
    1: core_ring.simulate,
    2: daemon_ring.simulate,
}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


def test_two_thousand_schedules_of_the_core_break_nothing() -> None:
    tally = Tally()
    for seed in range(2000):
        core_ring.simulate(seed, tally)
    assert tally.checks.keys() == {
        "I3", "I5", "I6", "I7", "I8", "I10", "I11", "I14", "I15", "I18",
    }  # fmt: skip
    for what in (
        "fork seen", "gap seen", "duplicate seen", "quarantine seen", "refusal seen",
        "compaction seen", "snapshot loaded", "snapshot replaced while loading",
        "log cut past the cursor", "resync seen", "paused seen", "crash in a window",
        "crash in a watch", "crash in a snapshot", "link failure seen", "flood seen",
        "collision seen", "swap seen", "demoted", "without any fault",
    ):  # fmt: skip
        assert tally.sometimes[what] > 0, what


REFILLING = (861, 4084)
"""A store that fell so far behind that it reads from the peer again is rare: once in hundreds."""


def test_some_hundred_schedules_of_the_daemons_break_nothing() -> None:
    tally = Tally()
    for seed in (*range(400), *REFILLING):
        daemon_ring.simulate(seed, tally)
    assert tally.checks.keys() == {
        "I1", "I2", "I3", "I4", "I5", "I6", "I8", "I9", "I11", "I15", "I18",
    }  # fmt: skip
    for what in (
        "fork seen", "unknown outcome seen", "full queue seen", "leader change in mid-append seen",
        "frozen leader seen", "leader deposed while frozen", "snapshot written", "log cut",
        "kept snapshot",
        "snapshot taken", "refill from the peer", "repeated answer seen", "slowed",
        "start again after an error", "several meshds", "without any fault",
    ):  # fmt: skip
        assert tally.sometimes[what] > 0, what
    for fault in daemon_ring.FAULTS:
        assert tally.sometimes[f"{fault} seen"] > 0, fault


def test_a_frozen_process_does_nothing_and_goes_on_with_everything() -> None:
    loop, ran = SimLoop(1), list[str]()

    async def process(number: int) -> None:
        PROCESS.set(number)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(tick(f"child of {number}"))
            await tick(f"{number}")

    async def tick(name: str) -> None:
        for _ in range(3):
            await asyncio.sleep(1)
            ran.append(name)

    async def world() -> None:
        async with asyncio.TaskGroup() as tasks:
            for number in (1, 2):
                tasks.create_task(process(number))
            await asyncio.sleep(0.5)
            loop.freeze(1)
            await asyncio.sleep(10)
            assert sorted(ran) == sorted(3 * ["2", "child of 2"])
            loop.thaw(1)

    loop.run_until_complete(world())
    loop.close()
    assert sorted(ran[6:]) == sorted(3 * ["1", "child of 1"])
    assert loop.time() == 12.5


@pytest.mark.parametrize("ring", [1, 2])
def test_a_seed_runs_twice_in_the_same_way(ring: int) -> None:
    first, second = ([SIMULATE[ring](seed, Tally()) for seed in range(20)] for _ in range(2))
    assert first == second
    assert len(set(first)) == 20


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_bug_is_found(name: str) -> None:
    mutation = MUTATIONS[name]
    with mutated(name):
        for seed in range(mutation.first_seed, mutation.first_seed + mutation.seeds_max):
            try:
                SIMULATE[mutation.ring](seed, Tally())
            except AssertionError:
                return
    pytest.fail(f"{name} survived {mutation.seeds_max} seeds")


# Found by the simulator.


@pytest.mark.parametrize("trouble", ["misread", "refused"])
def test_a_heartbeat_that_rose_during_trouble_is_no_sign_of_life(trouble: str) -> None:
    """Ring 1, as it was once, seed 2250: ready for 10 s though the last heartbeat was 30 s old."""
    mine = DESCRIPTORS[ClusterName("west")]
    head = Head.genesis(LogId("f" * 32))
    rules, now_s = RULES[mine.name], 0.0
    state = ReplicaState(began_s=0.0, fresh_s=0.0, at=head)
    state, _, _ = step(state, rules, Identified(mine, head, 1, 1, None), now_s)
    stranger = Identified(replace(mine, name=ClusterName("nowhere")), head, 1, 1, None)
    wrong = Misread("poison", head, 0) if trouble == "misread" else stranger
    state, _, _ = step(state, rules, wrong, now_s)
    state, _, _ = step(state, rules, Identified(mine, head, 2, 2, None), now_s + 30)
    assert phase_of(state, rules, now_s + 30)[0] is not Phase.READY
    state, _, _ = step(state, rules, Identified(mine, head, 3, 3, None), now_s + 31)
    assert phase_of(state, rules, now_s + 31)[0] is Phase.READY
    state, _, _ = step(state, rules, LinkFailed("cut"), now_s + 31)
    assert phase_of(state, rules, now_s + 31)[0] is not Phase.READY
