"""The state machine that follows one log: a peer's export log, or the own local one.

For: deciding what to read next, what to fold and what to say. Not for: reading, waiting or folding
(`runtime.follower` does what is decided here). Invariant: `at` is the head of exactly those
records that were given out as FOLD effects since the last generation began, or that the writer of
the own log handed over (`fast_forward`); nothing else moves it.

Rules (design, section 6):
1. Every link begins with IDENTIFY. Nothing there yet: as if the link had failed. The wrong cluster,
   id or protocol: Refused. Another log id, a head behind the cursor, or another record at the
   cursor: Forked, and the log is taken anew from its beginning as a new generation, beside the old
   one, which is served until the new one is complete.
2. Behind the head: READ windows until the head that was identified. Behind by more than one window
   again: IDENTIFY again. Else WATCH from the revision of that identification.
3. A record is judged by `position.classify` alone. GAP and FORK are questions, answered by IDENTIFY
   and READ, since the log may have been replaced after it was identified; asked a second time at
   the same seq they are facts: Quarantined. A head, which every heartbeat repeats, that tells of
   another history or of a seq that didn't come is such a question too.
4. A failed link: WAIT with growing delay, then IDENTIFY. Nothing that was read is read again. A
   heartbeat that rose meanwhile, or while in trouble, may have been a dead daemon's last: it must
   rise once more.
5. Phases are not stored: they follow from the facts and the time (`freshness.phase_of`). Fresh
   means linked, caught up and, for a peer, the heartbeat advancing.
6. A watch that is silent for `silent_after_s` is doubted: IDENTIFY. So is one that has run for
   `recycle_after_s`, since etcd keeps a watch alive whose user was revoked. A progress notification
   breaks no silence: it proves that the stream lives, not that it tells everything.
7. A watch that ends, and a log that is replaced again while it is read, WAIT, however briefly, so
   that nothing here can spin.
8. Quarantined and Refused wait `slow_retry_s` between tries and report once, not at every try.
9. A person may PAUSE a peer (HOLD until RESUME) or have it read anew (RESYNC: a new generation
   without a fork). What is served stays, and ages.
"""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from meshd.core.freshness import freshen, heard_beat, is_caught_up, target_seq
from meshd.core.position import Verdict, classify
from meshd.model.codec import PROTOCOL_MAX, PROTOCOL_MIN, Descriptor, decode_record, hash_record
from meshd.model.errors import CorruptError
from meshd.model.event import EVENTS_PER_RECORD_MAX, Record
from meshd.model.ids import ClusterName, Head
from meshd.model.peer import Phase
from meshd.model.replica import (
    Begin,
    BeginGeneration,
    CompleteGeneration,
    Control,
    Effect,
    Fetched,
    Fold,
    FollowRules,
    Hold,
    Identified,
    Identify,
    Input,
    LinkFailed,
    Misread,
    Pause,
    Quiet,
    ReadWindow,
    ReplicaState,
    Resume,
    Resync,
    Todo,
    Trouble,
    Unreadable,
    Wait,
    Watch,
    Watched,
    WatchLost,
    WindowRead,
)

Step = tuple[ReplicaState, tuple[Effect, ...], Todo]


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
    return replace(state, at=folded, at_revision=0)


def step(state: ReplicaState, rules: FollowRules, event: Input, now_s: float) -> Step:
    """Take one input; returns the new state, the effects in order, and what to do next."""
    match event:
        case Begin():
            return state, (), _identify(state)
        case Identified():
            return _on_identified(state, rules, event, now_s)
        case WindowRead():
            return _on_window(state, rules, event, now_s)
        case Watched():
            return _on_watched(state, rules, event, now_s)
        case Quiet():
            return replace(state, watching_since_s=None), (), _identify(state)
        case LinkFailed():
            return _on_link_failed(state, event)
        case WatchLost(reason):
            return replace(state, watching_since_s=None, link_reason=reason), (), Wait(0)
        case Unreadable() | Misread():
            if isinstance(event, Misread):
                state = replace(state, at=event.at, at_revision=event.at_revision)
            return _trouble(state, Phase.QUARANTINED, event.reason)
        case _:
            return _on_control(state, event)


def _on_control(state: ReplicaState, what: Control) -> Step:
    match what:
        case Pause():
            return _unlinked(state, "paused", paused=True), (), Hold()
        case Resume():
            resumed = _unlinked(state, "resumed just now", paused=False)
            return resumed, (), _identify(resumed)
        case Resync():
            anew = _unlinked(state, "resync was asked for", paused=False)
            anew = replace(anew, at=None, at_revision=0, trouble=None, doubted_seq=None)
            return anew, (), _identify(anew)
        case _:
            assert_never(what)


def _unlinked(state: ReplicaState, reason: str, *, paused: bool) -> ReplicaState:
    return replace(
        state, linked=False, watching_since_s=None, attempt=0, link_reason=reason, paused=paused
    )


def _identify(state: ReplicaState) -> Identify:
    return Identify(state.at.seq if state.at else 0)


def _trouble(
    state: ReplicaState, phase: Phase, reason: str, effects: list[Effect] | None = None
) -> Step:
    """Stop at what is wrong; look again slowly, since a person must act."""
    stopped = replace(state, trouble=Trouble(phase, reason), watching_since_s=None)
    return stopped, tuple(effects or ()), Wait(0, slow=True)


def _on_link_failed(state: ReplicaState, event: LinkFailed) -> Step:
    lost = replace(
        state,
        linked=False,
        watching_since_s=None,
        attempt=state.attempt + 1,
        link_reason=event.reason,
    )
    return lost, (), Wait(state.attempt, slow=event.denied)


# Rule 1.


def _on_identified(state: ReplicaState, rules: FollowRules, seen: Identified, now_s: float) -> Step:
    if seen.descriptor is None or seen.head is None:
        return _on_link_failed(state, LinkFailed(_emptiness(seen)))
    state = replace(
        state,
        linked=True,
        beat=state.beat if state.linked and state.trouble is None else seen.beat,
        attempt=0,
        traffic=replace(state.traffic, links=state.traffic.links + 1),
        watch_revision=seen.revision + 1,
        watching_since_s=None,
        heard_s=now_s,
    )
    refusal = _refusal(rules, seen.descriptor)
    if refusal:
        return _trouble(state, Phase.REFUSED, refusal)
    state = heard_beat(state, seen.beat, now_s)
    state = replace(state, target=seen.head)
    if state.at is None:
        return _new_generation(state, seen.head, "")
    fork = _fork_reason(state, state.at, seen, seen.head)
    if fork:
        return _new_generation(state, seen.head, fork)
    return _advance(state, rules, [], now_s)


def _emptiness(seen: Identified) -> str:
    """An etcd whose meshd never ran is no reason to give up on it: it may run soon."""
    if seen.descriptor is None:
        return "its etcd holds no meshd cluster yet; check the peer's endpoints and prefix"
    return "its etcd holds no such log; check the peer's audience"


def _refusal(rules: FollowRules, descriptor: Descriptor) -> str:
    if descriptor.name != rules.cluster:
        return (
            f"the cluster behind this address is {descriptor.name}, not {rules.cluster};"
            " check the peer's name and endpoints"
        )
    if (rules.cluster_id and descriptor.id != rules.cluster_id) or (
        descriptor.id in rules.foreign_ids
    ):
        return f"cluster id {descriptor.id} is already another cluster's; give each its own"
    if descriptor.protocol_min > PROTOCOL_MAX or descriptor.protocol_max < PROTOCOL_MIN:
        return (
            f"it speaks protocol {descriptor.protocol_min}..{descriptor.protocol_max},"
            f" this meshd {PROTOCOL_MIN}..{PROTOCOL_MAX}; upgrade the older one"
        )
    return ""


def _fork_reason(state: ReplicaState, at: Head, seen: Identified, head: Head) -> str:
    if head.log_id != at.log_id:
        return f"log {at.log_id} was replaced by log {head.log_id}"
    if head.seq < at.seq:
        return f"its log ends at {head.seq}, before {at.seq} which was read already"
    if at.seq == 0:
        return ""
    found = seen.at_cursor
    if found is None:
        return f"its record at {at.seq} is gone"
    if state.at_revision and found.revision != state.at_revision:
        return f"its record at {at.seq} was written again"
    try:
        record = decode_record(found.raw, f"record {at.seq}")
    except CorruptError as error:
        return str(error)
    return "" if record.hash == at.hash else f"its record at {at.seq} is another one"


def _new_generation(state: ReplicaState, head: Head, fork: str) -> Step:
    is_again = state.staging
    state = replace(
        state,
        at=Head.genesis(head.log_id),
        at_revision=0,
        staging=True,
        trouble=None,
        doubted_seq=None,
        fork_reason=fork or state.fork_reason,
        traffic=replace(state.traffic, forks=state.traffic.forks + bool(fork)),
    )
    # Identified again before reading: what forked once may be forking right now.
    todo = Wait(state.traffic.forks) if is_again else Identify(0)
    return state, (BeginGeneration(head.log_id),), todo


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
    caught_up = replace(
        state, staging=False, trouble=None, doubted_seq=None, watching_since_s=now_s
    )
    return freshen(caught_up, rules, now_s), tuple(effects), Watch(state.watch_revision)


def _on_window(state: ReplicaState, rules: FollowRules, window: WindowRead, now_s: float) -> Step:
    before = state.at
    state, effects, stop = _take(state, rules, window.records)
    state = replace(state, heard_s=now_s)
    if stop is None and window.complete and state.at == before:
        missing_seq = before.seq + 1 if before else 1
        reason = f"its log says it reaches seq {target_seq(state)} but seq {missing_seq} is missing"
        stop = (Verdict.GAP, reason)
    if stop is not None:
        return _on_stop(state, stop, effects)
    reached = state.at is not None and state.at.seq >= target_seq(state)
    if reached and len(window.records) > CAUGHT_UP_RECORDS:
        # The head has moved on while so much was read; a watch from back then would replay it.
        return state, tuple(effects), _identify(state)
    return _advance(state, rules, effects, now_s)


def _on_stop(state: ReplicaState, stop: Stop, effects: list[Effect]) -> Step:
    """Bad bytes are a fact at once; a misfit is one when it is still there after a second look."""
    verdict, reason = stop
    seq = state.at.seq if state.at else 0
    if verdict is None or state.doubted_seq == seq:
        return _trouble(state, Phase.QUARANTINED, reason, effects)
    doubting = replace(state, doubted_seq=seq, link_reason=reason)
    return doubting, tuple(effects), _identify(doubting)


CAUGHT_UP_RECORDS = 1000
"""etcd gives a watch 1,000 revisions of backlog at once; up to that a watch is as good."""


def _on_watched(state: ReplicaState, rules: FollowRules, seen: Watched, now_s: float) -> Step:
    state, effects, stop = _take(state, rules, seen.records)
    if seen.records or seen.head is not None or seen.beat is not None:
        state = replace(state, heard_s=now_s)
    if seen.beat is not None:
        state = heard_beat(state, seen.beat, now_s)
    if stop is not None:
        verdict, reason = stop
        if verdict is None:
            return _trouble(state, Phase.QUARANTINED, reason, effects)
        asked = replace(state, watching_since_s=None, link_reason=reason)
        return asked, tuple(effects), _identify(asked)
    if seen.head is not None and seen.head.seq > target_seq(state):
        state = replace(state, target=seen.head)
    if _is_elsewhere(state.at, seen.head) or not is_caught_up(state):
        return replace(state, watching_since_s=None), tuple(effects), _identify(state)
    return _watch_on(state, rules, tuple(effects), now_s)


def _is_elsewhere(at: Head | None, head: Head | None) -> bool:
    """Whether a head that was told is certainly not of the history that is read."""
    if at is None or head is None:
        return False
    return head.log_id != at.log_id or (head.seq == at.seq and head.hash != at.hash)


def _watch_on(
    state: ReplicaState, rules: FollowRules, effects: tuple[Effect, ...], now_s: float
) -> Step:
    """Go on watching unless the watch is silent or old (rule 6), or misses what it should say."""
    since_s = state.watching_since_s
    is_old = since_s is None or now_s - since_s >= rules.recycle_after_s
    is_silent = rules.has_heartbeat and now_s - state.heard_s >= rules.silent_after_s
    if is_old or is_silent:
        return replace(state, watching_since_s=None), effects, _identify(state)
    return freshen(state, rules, now_s), effects, Watch(state.watch_revision)


Stop = tuple[Verdict | None, str]
"""Why taking records stopped; a verdict of None means that the bytes themselves are bad."""


def _take(
    state: ReplicaState, rules: FollowRules, fetched: tuple[Fetched, ...]
) -> tuple[ReplicaState, list[Effect], Stop | None]:
    """Judge records in order and give out those that come next, up to the first that doesn't."""
    folds: list[Effect] = []
    at, revision = state.at, state.at_revision
    duplicates = 0
    stop: Stop | None = None
    for item in fetched:
        found = _judge(at, item, rules.cluster)
        if found is None:
            duplicates += 1
        elif isinstance(found, Record):
            folds.append(Fold(found, item.revision))
            at, revision = found.head, item.revision
        else:
            stop = found
            break
    traffic = replace(
        state.traffic,
        records_read=state.traffic.records_read + len(folds),
        records_duplicate=state.traffic.records_duplicate + duplicates,
    )
    return replace(state, at=at, at_revision=revision, traffic=traffic), folds, stop


def _judge(at: Head | None, item: Fetched, cluster: ClusterName) -> Record | Stop | None:
    """Return the record if it comes next, None if it was read before, else why reading stops."""
    if at is None:
        return Verdict.FORK, "records came before the log was identified"
    if 0 <= item.key_seq < at.seq or (item.key_seq == at.seq and hash_record(item.raw) == at.hash):
        return None
    try:
        record = decode_record(item.raw, f"{cluster} record {item.key_seq}")
    except CorruptError as error:
        return None, str(error)
    if record.last_seq != item.key_seq:
        return None, f"the record at key {item.key_seq} ends with seq {record.last_seq}"
    verdict = classify(at, record)
    return record if verdict is Verdict.NEXT else (verdict, _misfit(verdict, at, record))


def _misfit(verdict: Verdict, at: Head, record: Record) -> str:
    have = at.seq
    if verdict is Verdict.GAP:
        return f"seq {have + 1} is missing before seq {record.first_seq}"
    return f"the record at seq {record.last_seq} does not continue the log after seq {have}"
