"""Phases over time: what is said of a peer follows from facts and the clock, no rosier."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.core.freshness import (
    freshen,
    heard_beat,
    is_caught_up,
    is_fresh,
    phase_of,
    target_seq,
    unfresh_s,
)
from meshd.model.ids import Head
from meshd.model.peer import Phase
from meshd.model.replica import FollowRules, ReplicaState, Trouble
from tests.logs import LOG_ID, WEST, log_of

RULES = FollowRules(WEST, silent_after_s=10, lost_after_s=60)
OWN = FollowRules(WEST, has_heartbeat=False)
LOG = log_of(1, 1)
BEHIND, AHEAD = (record.head for record in LOG.records)

NOTHING = ReplicaState(began_s=100, fresh_s=100)
"""Just begun at 100 s."""
LINKED = NOTHING._replace(linked=True, at=AHEAD, target=AHEAD, beat=7)
"""Linked and caught up, with a first heartbeat that may be a dead daemon's last."""
ALIVE = LINKED._replace(beat=8, beat_s=100.0)


@pytest.mark.parametrize(
    ("state", "now_s", "phase", "reason"),
    [
        # Nobody there yet; then for too long.
        (NOTHING, 100, Phase.CONNECTING, "not linked yet"),
        (NOTHING, 109.9, Phase.CONNECTING, "not linked yet"),
        (NOTHING, 110, Phase.STALE, "not linked yet"),
        (NOTHING, 159.9, Phase.STALE, "not linked yet"),
        (NOTHING, 160, Phase.LOST, "not linked yet"),
        # Linked, and reading.
        (LINKED._replace(at=None, target=None), 100, Phase.SYNCING, ""),
        (ALIVE._replace(at=BEHIND), 100, Phase.SYNCING, ""),
        (ALIVE._replace(staging=True), 100, Phase.SYNCING, ""),
        (
            ALIVE._replace(staging=True, fork_reason="it was replaced"),
            100,
            Phase.FORKED,
            "it was replaced",
        ),
        (ALIVE._replace(fork_reason="it was replaced"), 100, Phase.READY, ""),
        # Linked, but is anybody alive there?
        (LINKED, 100, Phase.SYNCING, "waiting for its heartbeat"),
        (LINKED, 110, Phase.STALE, "the link looks up, but no new heartbeat"),
        (LINKED, 160, Phase.LOST, "the link looks up, but no new heartbeat"),
        # Alive, then silent.
        (ALIVE, 100, Phase.READY, ""),
        (ALIVE, 109.9, Phase.READY, ""),
        (ALIVE, 110, Phase.STALE, "the link looks up"),
        (ALIVE, 160, Phase.LOST, "the link looks up"),
        # The link is gone: not fresh at once, stale in time.
        (ALIVE._replace(linked=False, link_reason="cut"), 101, Phase.CONNECTING, "cut"),
        (ALIVE._replace(linked=False, link_reason="cut"), 110, Phase.STALE, "cut"),
        (ALIVE._replace(linked=False, link_reason="cut"), 160, Phase.LOST, "cut"),
        # Trouble is said, whatever else is true.
        (ALIVE._replace(trouble=Trouble(Phase.REFUSED, "no")), 100, Phase.REFUSED, "no"),
        (NOTHING._replace(trouble=Trouble(Phase.QUARANTINED, "x")), 999, Phase.QUARANTINED, "x"),
    ],
)
def test_phases(state: ReplicaState, now_s: float, phase: Phase, reason: str) -> None:
    found, said = phase_of(state, RULES, now_s)
    assert found is phase
    assert said.startswith(reason)
    assert said or not reason


@pytest.mark.parametrize(
    ("state", "caught_up"),
    [
        (NOTHING, False),
        (LINKED, True),
        (LINKED._replace(at=BEHIND), False),
        (LINKED._replace(target=BEHIND), True),
        (LINKED._replace(target=None), True),
        (LINKED._replace(staging=True), False),
        (LINKED._replace(at=Head.genesis(LOG_ID), target=Head.genesis(LOG_ID)), True),
    ],
)
def test_caught_up(state: ReplicaState, *, caught_up: bool) -> None:
    assert is_caught_up(state) is caught_up


def test_the_own_log_needs_no_heartbeat() -> None:
    assert is_fresh(LINKED, OWN, 10**6)
    assert not is_fresh(LINKED, RULES, 100)
    assert not is_fresh(LINKED._replace(linked=False), OWN, 100)


def test_a_heartbeat_proves_life_by_rising_only() -> None:
    first = heard_beat(NOTHING, 7, 200)
    assert (first.beat, first.beat_s) == (7, None)
    assert heard_beat(first, 7, 201) == first
    risen = heard_beat(first, 8, 202)
    assert (risen.beat, risen.beat_s) == (8, 202)
    assert heard_beat(risen, 8, 203) == risen


def test_how_long_it_was_not_fresh() -> None:
    assert unfresh_s(ALIVE, RULES, 105) == 0
    assert unfresh_s(ALIVE, RULES, 130) == 30
    noted = freshen(ALIVE, RULES, 105)
    assert noted.fresh_s == 105
    assert unfresh_s(noted, RULES, 130) == 25
    assert freshen(NOTHING, RULES, 105) == NOTHING
    # A clock that is read a little earlier than the last note makes no negative time.
    assert unfresh_s(NOTHING._replace(fresh_s=106), RULES, 105) == 0


def test_the_target_is_what_was_last_seen() -> None:
    assert target_seq(NOTHING) == 0
    assert target_seq(LINKED) == 2


states = st.builds(
    ReplicaState,
    began_s=st.just(0.0),
    fresh_s=st.floats(0, 100),
    at=st.sampled_from((None, BEHIND, AHEAD)),
    target=st.sampled_from((None, BEHIND, AHEAD)),
    staging=st.booleans(),
    linked=st.booleans(),
    beat=st.sampled_from((-1, 7)),
    beat_s=st.none() | st.floats(0, 100),
    trouble=st.sampled_from((None, Trouble(Phase.REFUSED, "no"))),
    fork_reason=st.sampled_from(("", "it was replaced")),
)


@given(states, st.floats(0, 300), st.sampled_from((RULES, OWN)))
def test_ready_is_never_said_without_all_of_its_reasons(
    state: ReplicaState, now_s: float, rules: FollowRules
) -> None:
    phase, reason = phase_of(state, rules, now_s)
    if phase is Phase.READY:
        assert state.linked
        assert state.trouble is None
        assert not state.staging
        assert state.at is not None
        assert state.at.seq >= target_seq(state)
        assert not rules.has_heartbeat or (
            state.beat_s is not None and now_s - state.beat_s < rules.silent_after_s
        )
        assert reason == ""
        assert unfresh_s(state, rules, now_s) == 0


@given(states, st.floats(0, 300), st.floats(0, 300))
def test_silence_alone_never_makes_a_phase_better(
    state: ReplicaState, now_s: float, later_s: float
) -> None:
    order = [Phase.READY, Phase.CONNECTING, Phase.STALE, Phase.LOST]
    before, _ = phase_of(state, RULES, now_s)
    after, _ = phase_of(state, RULES, now_s + later_s)
    if before in order:
        assert order.index(after) >= order.index(before)
