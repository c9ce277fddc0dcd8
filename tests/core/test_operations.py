"""Which move an operation makes by itself."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.core.operations import (
    WAITS,
    Destination,
    Facts,
    Next,
    Signal,
    Taking,
    held_until_ms,
    next_move,
    ramp,
    troubles_of,
    unseen,
)
from meshd.model.command import Move
from meshd.model.errors import Problem
from meshd.model.ids import ClusterName, ServiceKey
from meshd.model.operation import (
    Conditions,
    OnTrouble,
    Operation,
    OperationKind,
    Progress,
    Stage,
)
from meshd.model.peer import Phase

WEB = ServiceKey("shop", "web")
SINCE_MS = 1_700_000_000_000
DUE_MS = SINCE_MS + 10_000
WEST = Destination(ClusterName("west"), Phase.READY, 0, {WEB: Taking(4, 4)})
CONDITIONS = Conditions(healthy_percent_min=75, lag_events_max=5, error_percent_max=1.0)
RUNNING = Operation(
    kind=OperationKind.MIGRATION,
    subjects=(f"service/{WEB}",),
    stages=(
        Stage(turned_percent=90, hold_s=10.0),
        Stage(turned_percent=0, hold_s=10.0),
    ),
    to="west",
    conditions=CONDITIONS,
    on_trouble=OnTrouble.ROLL_BACK,
    stage=1,
    started_ms=SINCE_MS,
    since_ms=SINCE_MS,
)
GOOD = Facts(DUE_MS, WEST, Signal(0.5, DUE_MS - 1000))
LACKS = (Problem("service shop/web", "nobody else could take its traffic", "mend"),)


def test_the_next_stage_is_reached_when_all_is_well_and_its_time_has_come() -> None:
    assert next_move(RUNNING, GOOD) == Next(Move.ADVANCE)
    assert next_move(RUNNING, replace(GOOD, now_ms=DUE_MS - 1)) == WAITS
    assert held_until_ms(RUNNING) == DUE_MS
    assert held_until_ms(replace(RUNNING, stage=0)) == SINCE_MS


def test_a_clock_that_is_put_back_holds_a_stage_no_longer_than_its_time() -> None:
    back = replace(GOOD, now_ms=SINCE_MS - 3_600_000, signal=Signal(0.5, SINCE_MS))
    assert next_move(RUNNING, replace(back, seen_s=9.9)) == WAITS
    assert next_move(RUNNING, replace(back, seen_s=10.0)) == Next(Move.ADVANCE)


@pytest.mark.parametrize("progress", [one for one in Progress if one is not Progress.RUNNING])
def test_only_what_is_running_moves(progress: Progress) -> None:
    assert next_move(replace(RUNNING, progress=progress), GOOD) == WAITS


def test_the_last_stage_is_held_like_the_others_and_watched_like_them() -> None:
    last = replace(RUNNING, stage=2)
    assert next_move(last, replace(GOOD, now_ms=DUE_MS - 1)) == WAITS
    # Nothing is turned down any more, so what would be left is no question any more.
    assert next_move(last, replace(GOOD, too_little=LACKS)) == Next(Move.ADVANCE)
    gone = replace(GOOD, destination=replace(WEST, phase=Phase.STALE))
    assert next_move(last, gone).move is Move.ROLL_BACK


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (
            replace(GOOD, destination=replace(WEST, phase=Phase.STALE)),
            "west is Stale here: what it can take isn't known",
        ),
        (
            replace(GOOD, destination=replace(WEST, phase=None)),
            "west is not followed here: what it can take isn't known",
        ),
        (
            replace(GOOD, destination=replace(WEST, lag_events=6)),
            "west is read 6 events behind; at most 5 may be",
        ),
        (
            replace(GOOD, destination=replace(WEST, services={WEB: None})),
            "west does not serve shop/web: define it there, global and shared",
        ),
        (
            replace(GOOD, destination=replace(WEST, services={WEB: Taking(3, 0)})),
            "west has no endpoint of shop/web that takes traffic",
        ),
        (
            replace(GOOD, destination=replace(WEST, services={WEB: Taking(4, 2)})),
            "50 % of west's endpoints of shop/web take traffic; 75 % must",
        ),
        (
            replace(GOOD, destination=replace(WEST, services={WEB: Taking(4, 4, 80)})),
            "west turns shop/web away itself: it is turned to 80 % there",
        ),
        (
            replace(GOOD, signal=Signal(1.5, DUE_MS)),
            "1.5 % of requests fail, as was told; at most 1 % may",
        ),
    ],
)
def test_trouble_ends_it_at_once_however_long_the_stage_is_held(facts: Facts, reason: str) -> None:
    early = replace(facts, now_ms=SINCE_MS)
    if facts.signal is not None:
        early = replace(early, signal=replace(facts.signal, at_ms=SINCE_MS))
    assert next_move(RUNNING, early) == Next(Move.ROLL_BACK, reason)
    pausing = replace(RUNNING, on_trouble=OnTrouble.PAUSE)
    assert next_move(pausing, early) == Next(Move.PAUSE, reason)


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (
            replace(GOOD, destination=replace(WEST, phase=Phase.CONNECTING)),
            "west is Connecting here",
        ),
        (replace(GOOD, signal=None), "nobody has told an error rate yet: meshd migration signal"),
        (
            replace(GOOD, signal=Signal(9.0, DUE_MS - 61_000)),
            "the error rate was last told 61 s ago: meshd migration signal",
        ),
    ],
)
def test_what_is_not_known_holds_it(facts: Facts, reason: str) -> None:
    assert next_move(RUNNING, facts) == Next(None, reason)


@pytest.mark.parametrize("phase", [Phase.CONNECTING, Phase.SYNCING])
@pytest.mark.parametrize("taking", [None, Taking(0, 0)])
def test_not_knowing_is_never_nothing(phase: Phase, taking: Taking | None) -> None:
    unread = replace(WEST, phase=phase, lag_events=99, services={WEB: taking})
    assert next_move(RUNNING, replace(GOOD, destination=unread)) == Next(
        None, f"west is {phase} here"
    )
    # What was told of the error rate is known all the same.
    failing = replace(GOOD, destination=unread, signal=Signal(9.0, DUE_MS))
    assert next_move(RUNNING, failing).move is Move.ROLL_BACK
    assert unseen(WEST) == ""


def test_all_that_speaks_against_a_destination_is_said() -> None:
    cart = ServiceKey("shop", "cart")
    lost = replace(WEST, phase=Phase.LOST, services={WEB: None, cart: Taking(2, 0)})
    assert [one[:30] for one in troubles_of(lost, CONDITIONS)] == [
        "west is Lost here: what it can",
        "west does not serve shop/web: ",
        "west has no endpoint of shop/c",
    ]


def test_where_it_was_forced_the_destination_may_turn_it_away_itself() -> None:
    facts = replace(GOOD, destination=replace(WEST, services={WEB: Taking(4, 4, 80)}))
    assert next_move(replace(RUNNING, is_forced=True), facts) == Next(Move.ADVANCE)


def test_without_conditions_only_the_destination_counts() -> None:
    free = replace(RUNNING, conditions=Conditions())
    facts = Facts(DUE_MS, replace(WEST, lag_events=999, services={WEB: Taking(100, 1)}), None)
    assert next_move(free, facts) == Next(Move.ADVANCE)
    assert next_move(free, Facts(DUE_MS)) == Next(Move.ADVANCE)


def test_it_is_paused_before_too_little_is_left_unless_it_was_forced_or_goes_up() -> None:
    facts = replace(GOOD, too_little=LACKS)
    expected = "service shop/web: nobody else could take its traffic (mend)"
    assert next_move(RUNNING, facts) == Next(Move.PAUSE, expected)
    assert next_move(replace(RUNNING, is_forced=True), facts) == Next(Move.ADVANCE)
    up = replace(RUNNING, kind=OperationKind.UNDRAIN)
    assert next_move(up, facts) == Next(Move.ADVANCE)


@given(
    level=st.integers(0, 100),
    to=st.integers(0, 100),
    over_s=st.floats(0, 600),
    steps=st.integers(1, 100),
)
def test_a_ramp_goes_one_way_and_ends_there_in_its_time(
    level: int, to: int, over_s: float, steps: int
) -> None:
    stages = ramp(level, to, over_s, steps)
    levels = [stage.turned_percent for stage in stages]
    assert levels == sorted(set(levels), reverse=to < level)
    assert levels[-1] == to
    assert len(levels) <= steps
    assert all(min(level, to) <= one <= max(level, to) for one in levels)
    assert sum(stage.hold_s for stage in stages) == pytest.approx(over_s)


def test_a_ramp_of_five_steps() -> None:
    levels = [stage.turned_percent for stage in ramp(100, 0, 50.0, 5)]
    assert levels == [80, 60, 40, 20, 0]
    assert ramp(100, 0, 0.0, 5) == (Stage(turned_percent=0),), "in no time there is only one"
