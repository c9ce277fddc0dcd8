"""The state machine that follows one log: a peer's export log, or the own local one.

For: deciding what to read next, what to fold and what to say. Not for: reading, waiting or folding
(`runtime.follower` does what is decided here). Invariant: `at` is the head of exactly those
records that were given out as FOLD or PASS_OVER effects since the last generation began, or that
the writer of the own log handed over (`fast_forward`); nothing else moves it.

Rules (design, section 6):
1. Every link begins with IDENTIFY. Nothing there yet: as if the link had failed; but the own log
   was there before, so it is gone: Forked for good. The wrong cluster, id or protocol: Refused. A
   new log id, a head behind the cursor, or another record there: Forked, and the log is taken
   anew from its beginning as a new generation, beside the old one, which is served until then.
2. A new generation of a log that has a snapshot begins with it: READ its parts, one after the
   other, each once. A log that was cut beyond the cursor is a new generation too, without a fork.
   Then, behind the head: READ windows until the head that was identified. Behind by more than one
   window again: IDENTIFY again. Else WATCH from the revision of that identification.
3. A record is judged by `position.classify` alone. GAP and FORK are questions, answered by IDENTIFY
   and READ, since the log may have been replaced after it was identified; asked a second time at
   the same seq they are facts: Quarantined. A head, which every heartbeat repeats, that tells of
   another history, of a seq that didn't come, or twice of one before the cursor is a question too.
4. A failed link: WAIT with growing delay, then IDENTIFY. Nothing that was read is read again. A
   heartbeat that rose meanwhile, or while in trouble, may have been a dead daemon's last: it must
   rise once more.
5. Phases are not stored: they follow from the facts and the time (`freshness.phase_of`). Fresh
   means linked, caught up and, for a peer, the heartbeat advancing.
6. A watch that is silent for `silent_after_s` is doubted: IDENTIFY. So is one that has run for
   `recycle_after_s`, since etcd keeps a watch alive whose user was revoked. A progress notification
   breaks no silence: it proves that the stream lives, not that it tells everything.
7. A watch that ends, and a log replaced again while it is read, WAIT briefly: nothing can spin.
8. Quarantined and Refused wait `slow_retry_s` between tries and report once, not at every try.
9. A person may PAUSE a peer (HOLD until RESUME) or have it read anew (RESYNC: a new generation
   without a fork): `core.said`. What is served stays, and ages.
10. A record that a person said to pass over (`core.skipping`) is judged like any other, and then
   given out as PASS_OVER in place of FOLD.
"""

from __future__ import annotations

from typing import assert_never

from meshd.core.freshness import freshen, heard_beat, is_caught_up, target_seq
from meshd.core.identity import emptiness, fork_reason, heard_head, refusal, usable_snapshot
from meshd.core.intake import Stop, take
from meshd.core.position import Verdict
from meshd.core.said import identify, on_control
from meshd.core.skipping import is_skipped
from meshd.model.event import EVENTS_PER_RECORD_MAX, Record
from meshd.model.ids import Head, LogId
from meshd.model.peer import Phase
from meshd.model.replica import (
    Begin,
    BeginGeneration,
    CompleteGeneration,
    Effect,
    Fetched,
    FinishSnapshot,
    Fold,
    FollowRules,
    Hold,
    Identified,
    Identify,
    Input,
    LinkFailed,
    LoadPart,
    Misread,
    PartRead,
    PassOver,
    Quiet,
    ReadPart,
    ReadWindow,
    ReplicaState,
    Step,
    Trouble,
    Unreadable,
    Wait,
    Watch,
    Watched,
    WatchLost,
    WindowRead,
)
from meshd.model.snapshot import Manifest, hash_part


def begin_state(now_s: float, at: Head | None, at_revision: int) -> ReplicaState:
    """Start from a durable cursor, or from nothing."""
    return ReplicaState(began_s=now_s, fresh_s=now_s, at=at, at_revision=at_revision)


def fast_forward(state: ReplicaState, folded: Head) -> ReplicaState:
    """Skip what reached the fold by another way: the own log's records, handed over by the writer.

    Their copies in the watch are duplicates then, told by seq and hash without being decoded.
    """
    at = state.at
    if state.staging or at is None or folded.log_id != at.log_id or folded.seq <= at.seq:
        return state
    return state._replace(at=folded, at_revision=0)


def step(state: ReplicaState, rules: FollowRules, event: Input, now_s: float) -> Step:
    """Take one input; returns the new state, the effects in order, and what to do next."""
    match event:
        case Begin():
            return state, (), Hold() if state.paused else identify(state)
        case Identified():
            return _on_identified(state, rules, event, now_s)
        case WindowRead() | PartRead() | Watched():
            return _on_read(state, rules, event, now_s)
        case Quiet():
            return state._replace(watching_since_s=None), (), identify(state)
        case LinkFailed():
            return _on_link_failed(state, event)
        case WatchLost(reason):
            return state._replace(watching_since_s=None, link_reason=reason), (), Wait(0)
        case Unreadable(reason):
            return _trouble(state, Trouble(Phase.QUARANTINED, reason))
        case Misread():
            return _on_misread(state, event)
        case _:
            return on_control(state, event)


def _on_misread(state: ReplicaState, event: Misread) -> Step:
    is_in = state.loading is not None and state.loading.head == event.at
    loading = None if is_in else state.loading
    stopped = state._replace(at=event.at, at_revision=event.at_revision, loading=loading)
    return _trouble(stopped, Trouble(Phase.QUARANTINED, event.reason, event.record))


def _on_read(
    state: ReplicaState, rules: FollowRules, got: WindowRead | PartRead | Watched, now_s: float
) -> Step:
    match got:
        case WindowRead():
            return _on_window(state, rules, got, now_s)
        case PartRead():
            return _on_part(state, rules, got, now_s)
        case Watched():
            return _on_watched(state, rules, got, now_s)
        case _:
            assert_never(got)


def _trouble(state: ReplicaState, trouble: Trouble, effects: list[Effect] | None = None) -> Step:
    """Stop at what is wrong; look again slowly, since a person must act."""
    stopped = state._replace(trouble=trouble, watching_since_s=None)
    return stopped, tuple(effects or ()), Wait(0, slow=True)


def _on_link_failed(state: ReplicaState, event: LinkFailed) -> Step:
    lost = state._replace(
        linked=False,
        watching_since_s=None,
        attempt=state.attempt + 1,
        link_reason=event.reason,
    )
    return lost, (), Wait(state.attempt, slow=event.denied)


# Rule 1.


def _on_identified(state: ReplicaState, rules: FollowRules, seen: Identified, now_s: float) -> Step:
    if seen.descriptor is None or seen.head is None:
        if not rules.has_heartbeat:
            return _trouble(state, Trouble(Phase.FORKED, "it is gone: its etcd was emptied"))
        return _on_link_failed(state, LinkFailed(emptiness(seen)))
    state = state._replace(
        linked=True,
        beat=state.beat if state.linked and state.trouble is None else seen.beat,
        attempt=0,
        traffic=state.traffic._replace(links=state.traffic.links + 1),
        watch_revision=seen.revision + 1,
        watching_since_s=None,
        heard_s=now_s,
    )
    refused = refusal(rules, seen.descriptor)
    if refused:
        return _trouble(state, Trouble(Phase.REFUSED, refused))
    state = heard_beat(state, seen.beat, now_s)
    state = state._replace(target=seen.head)
    if state.at is None:
        return _new_generation(state, seen.head.log_id, "")
    fork = fork_reason(state.at, state.at_revision, seen, seen.head)
    if fork:
        return _new_generation(state, seen.head.log_id, fork)
    snapshot = usable_snapshot(seen)
    if state.staging and state.at.seq == 0:
        return _begin_loading(state, rules, snapshot, now_s)
    if snapshot is not None and state.at.seq < snapshot.trim.seq:
        return _new_generation(state, seen.head.log_id, "")
    return _advance(state, rules, [], now_s)


def _new_generation(state: ReplicaState, log_id: LogId, fork: str) -> Step:
    is_again = state.staging
    state = state._replace(
        at=Head.genesis(log_id),
        at_revision=0,
        staging=True,
        loading=None,
        trouble=None,
        doubted_seq=None,
        fork_reason=fork or state.fork_reason,
        traffic=state.traffic._replace(forks=state.traffic.forks + bool(fork)),
    )
    # Identified again before reading: what forked once may be forking right now.
    todo = Wait(state.traffic.forks) if is_again else Identify(0)
    return state, (BeginGeneration(log_id, bool(fork)),), todo


# Rule 2: the snapshot.


def _begin_loading(
    state: ReplicaState, rules: FollowRules, snapshot: Manifest | None, now_s: float
) -> Step:
    """Begin with the snapshot, or go on with that which was begun while nothing speaks against it.

    A newer one doesn't by itself: on a slow link there would always be a newer one. But where a
    part doesn't fit, or is gone, it tells why.
    """
    loading = state.loading
    is_amiss = state.trouble is not None or state.doubted_seq is not None
    if loading is not None and is_amiss and snapshot != loading:
        return _new_generation(state, loading.head.log_id, "")
    if loading is None:
        if snapshot is None:
            return _advance(state, rules, [], now_s)
        state = state._replace(loading=snapshot, parts_loaded=0, doubted_seq=None)
        loading = snapshot
    return _load_on(state, loading, rules, [], now_s)


def _load_on(
    state: ReplicaState,
    loading: Manifest,
    rules: FollowRules,
    effects: list[Effect],
    now_s: float,
) -> Step:
    if state.parts_loaded < len(loading.parts):
        return state, tuple(effects), ReadPart(loading.head.seq, state.parts_loaded)
    loaded = state._replace(
        at=loading.head,
        loading=None,
        traffic=state.traffic._replace(snapshots=state.traffic.snapshots + 1),
    )
    return _advance(loaded, rules, [*effects, FinishSnapshot(loading)], now_s)


def _on_part(state: ReplicaState, rules: FollowRules, got: PartRead, now_s: float) -> Step:
    loading = state.loading
    if loading is None:
        return state, (), identify(state)
    state = state._replace(heard_s=now_s)
    number = state.parts_loaded
    if got.raw is None or hash_part(got.raw) != loading.parts[number]:
        wrong = "is gone" if got.raw is None else "is not what the manifest says"
        place = f"part {number} of its snapshot at {loading.head.seq}"
        return _on_stop(state, (Verdict.FORK, f"{place} {wrong}"), [])
    state = state._replace(parts_loaded=number + 1, doubted_seq=None)
    return _load_on(state, loading, rules, [LoadPart(loading, number, got.raw)], now_s)


# Rules 2 and 3.


def _advance(state: ReplicaState, rules: FollowRules, effects: list[Effect], now_s: float) -> Step:
    """Read on towards the target, or begin to watch once it is reached."""
    at, target = state.at, state.target
    if at is not None and target is not None and at.seq < target.seq:
        # A record lies in the window of its last seq, so no window may be shorter than a record.
        through = min(target.seq, at.seq + max(rules.window_seqs, EVENTS_PER_RECORD_MAX))
        return state, tuple(effects), ReadWindow(at.seq, through)
    if state.staging:
        effects.append(CompleteGeneration())
    caught_up = state._replace(
        staging=False,
        trouble=None,
        doubted_seq=None,
        fork_reason="",
        watching_since_s=now_s,
    )
    return freshen(caught_up, rules, now_s), tuple(effects), Watch(state.watch_revision)


def _on_window(state: ReplicaState, rules: FollowRules, window: WindowRead, now_s: float) -> Step:
    before = state.at
    state, effects, stop = _take(state, rules, window.records, now_s)
    if stop is None and window.complete and state.at == before:
        missing_seq = before.seq + 1 if before else 1
        reason = f"its log says it reaches seq {target_seq(state)} but seq {missing_seq} is missing"
        stop = (Verdict.GAP, reason)
    if stop is not None:
        return _on_stop(state, stop, effects)
    reached = state.at is not None and state.at.seq >= target_seq(state)
    if reached and len(window.records) > CAUGHT_UP_RECORDS:
        # The head has moved on while so much was read; a watch from back then would replay it.
        return state, tuple(effects), identify(state)
    return _advance(state, rules, effects, now_s)


def _on_stop(state: ReplicaState, stop: Stop, effects: list[Effect]) -> Step:
    """Bad bytes are a fact at once; a misfit is one when it is still there after a second look."""
    verdict, reason = stop
    seq = state.at.seq if state.at else 0
    if verdict is None or state.doubted_seq == seq:
        return _trouble(state, Trouble(Phase.QUARANTINED, reason), effects)
    doubting = state._replace(doubted_seq=seq, link_reason=reason)
    return doubting, tuple(effects), identify(doubting)


CAUGHT_UP_RECORDS = 1000
"""etcd gives a watch 1,000 revisions of backlog at once; up to that a watch is as good."""


def _on_watched(state: ReplicaState, rules: FollowRules, seen: Watched, now_s: float) -> Step:
    effects: list[Effect] = []
    stop: Stop | None = None
    if seen.records:
        state, effects, stop = _take(state, rules, seen.records, now_s)
    if seen.beat is not None and seen.beat != state.beat:
        state = heard_beat(state, seen.beat, now_s)
    elif seen.records or seen.head is not None or seen.beat is not None:
        state = state._replace(heard_s=now_s)
    if stop is not None:
        verdict, reason = stop
        if verdict is None:
            return _trouble(state, Trouble(Phase.QUARANTINED, reason), effects)
        asked = state._replace(watching_since_s=None, link_reason=reason)
        return asked, tuple(effects), identify(asked)
    if seen.head is not None and seen.head.seq > target_seq(state):
        state = state._replace(target=seen.head)
    state, is_elsewhere = heard_head(state, seen)
    if is_elsewhere or not is_caught_up(state):
        return state._replace(watching_since_s=None), tuple(effects), identify(state)
    return _watch_on(state, rules, tuple(effects), now_s)


def _watch_on(
    state: ReplicaState, rules: FollowRules, effects: tuple[Effect, ...], now_s: float
) -> Step:
    """Go on watching unless the watch is silent or old (rule 6), or misses what it should say."""
    since_s = state.watching_since_s
    is_old = since_s is None or now_s - since_s >= rules.recycle_after_s
    is_silent = rules.has_heartbeat and now_s - state.heard_s >= rules.silent_after_s
    if is_old or is_silent:
        return state._replace(watching_since_s=None), effects, identify(state)
    return freshen(state, rules, now_s), effects, Watch(state.watch_revision)


def _take(
    state: ReplicaState, rules: FollowRules, fetched: tuple[Fetched, ...], heard_s: float
) -> tuple[ReplicaState, list[Effect], Stop | None]:
    """Take the records that come next, and move to the last of them."""
    intake = take(state.at, fetched, rules.cluster)
    at, at_revision, traffic = state.at, state.at_revision, state.traffic
    if intake.taken:
        last, at_revision = intake.taken[-1]
        at = last.head
    if fetched:
        traffic = traffic._replace(
            records_read=traffic.records_read + len(intake.taken),
            records_duplicate=traffic.records_duplicate + intake.duplicates,
        )
    trouble = state.trouble
    if intake.taken and trouble is not None and trouble.phase is Phase.QUARANTINED:
        trouble = None  # It lies behind: nobody may take it for one that there is at `at`.
    moved = state._replace(
        at=at, at_revision=at_revision, traffic=traffic, heard_s=heard_s, trouble=trouble
    )
    effects = [_given_out(rules, record, revision) for record, revision in intake.taken]
    return moved, effects, intake.stop


def _given_out(rules: FollowRules, record: Record, revision: int) -> Effect:
    is_passed = is_skipped(rules.skip, record)
    return PassOver(record, revision) if is_passed else Fold(record, revision)
