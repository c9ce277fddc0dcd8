"""Whether a followed log is fresh, and which phase that makes.

For: the two facts of liveness, link and heartbeat (design, end of section 6). Not for: what
staleness does to backends (`liveness`). Invariant: a phase is computed from facts and the time when
it is asked for; none is stored, so none can go stale.
"""

from __future__ import annotations

from meshd.model.peer import Phase
from meshd.model.replica import FollowRules, ReplicaState


def heard_beat(state: ReplicaState, beat: int, now_s: float) -> ReplicaState:
    """A heartbeat proves life only by rising; the first one seen may be a dead daemon's last."""
    if beat == state.beat:
        return state
    first_seen = state.beat < 0
    beat_s = state.beat_s if first_seen else now_s
    return state._replace(heard_s=now_s, beat=beat, beat_s=beat_s)


def target_seq(state: ReplicaState) -> int:
    """The seq of the peer's head as last seen; 0 before that."""
    return state.target.seq if state.target else 0


def is_caught_up(state: ReplicaState) -> bool:
    """All that the peer's head promises was given out, and is served."""
    return state.at is not None and not state.staging and state.at.seq >= target_seq(state)


def is_fresh(state: ReplicaState, rules: FollowRules, now_s: float) -> bool:
    """Linked, caught up, not in trouble and, for a peer, its heartbeat advancing."""
    alive = not rules.has_heartbeat or (
        state.beat_s is not None and now_s - state.beat_s < rules.silent_after_s
    )
    return state.linked and alive and state.trouble is None and is_caught_up(state)


def freshen(state: ReplicaState, rules: FollowRules, now_s: float) -> ReplicaState:
    """Note that the log is fresh now, if it is."""
    return state._replace(fresh_s=now_s) if is_fresh(state, rules, now_s) else state


def unfresh_s(state: ReplicaState, rules: FollowRules, now_s: float) -> float:
    """For how long the log has not been fresh; 0 while it is."""
    return 0.0 if is_fresh(state, rules, now_s) else max(0.0, now_s - state.fresh_s)


def phase_of(state: ReplicaState, rules: FollowRules, now_s: float) -> tuple[Phase, str]:
    """The phase and its reason, from the facts and the time."""
    if state.paused:
        return Phase.PAUSED, "paused by a person; `meshd peer resume` reads it again"
    if state.trouble is not None:
        return state.trouble.phase, state.trouble.reason
    if is_fresh(state, rules, now_s):
        return Phase.READY, ""
    if state.linked and not is_caught_up(state):
        forked = state.staging and state.fork_reason
        return (Phase.FORKED, state.fork_reason) if forked else (Phase.SYNCING, "")
    reason = state.link_reason
    silence_s = unfresh_s(state, rules, now_s)
    if state.linked:
        reason = "the link looks up, but no new heartbeat of its meshd arrives"
        if state.beat_s is not None:
            # It counted as fresh while the heart already stood still.
            silence_s = max(silence_s, now_s - state.beat_s)
    if silence_s >= rules.lost_after_s:
        return Phase.LOST, reason
    if silence_s >= rules.silent_after_s:
        return Phase.STALE, reason
    return (
        (Phase.SYNCING, "waiting for its heartbeat") if state.linked else (Phase.CONNECTING, reason)
    )
