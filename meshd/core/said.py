"""What a person, or a change of settings, does to following a log.

For: pause, resume, resync, and following the same log in another way. Not for: the log itself
(`replica`). Invariant: nothing here moves the position but RESYNC, which gives it up; what is
served stays, and ages.
"""

from __future__ import annotations

from typing import assert_never

from meshd.model.replica import (
    Control,
    Hold,
    Identify,
    Pause,
    ReplicaState,
    Resume,
    Resync,
    Step,
)


def identify(state: ReplicaState) -> Identify:
    """Look who is there, and what lies at our position."""
    return Identify(state.at.seq if state.at else 0)


def on_control(state: ReplicaState, what: Control) -> Step:
    """Take what a person says."""
    match what:
        case Pause():
            return _unlinked(state, "paused", paused=True), (), Hold()
        case Resume():
            resumed = _unlinked(state, "resumed just now", paused=False)
            return resumed, (), identify(resumed)
        case Resync():
            anew = _unlinked(state, "resync was asked for", paused=False)
            anew = anew._replace(at=None, at_revision=0, trouble=None, doubted_seq=None)
            return anew, (), identify(anew)
        case _:
            assert_never(what)


def followed_otherwise(state: ReplicaState, *, anew: bool) -> ReplicaState:
    """Go on from where another follower of the same log stopped, or read it anew; a pause outlasts
    the change.
    """
    again = _unlinked(state, "its settings were changed", paused=state.paused)
    again = again._replace(trouble=None)
    if not anew:
        return again
    return again._replace(at=None, at_revision=0, staging=False, loading=None, doubted_seq=None)


def _unlinked(state: ReplicaState, reason: str, *, paused: bool) -> ReplicaState:
    return state._replace(
        linked=False, watching_since_s=None, attempt=0, link_reason=reason, paused=paused
    )
