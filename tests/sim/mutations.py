"""Bugs to be found: each is put into the code for a while, and the simulator must notice it.

For: the mutation gate. Not for: product code, which has no switches for this. Invariant: leaving
the context restores the code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

from meshd.core import fold, identity, intake, replica, said, served, tables
from meshd.core.digest import Digest
from meshd.core.position import Verdict, classify
from meshd.core.state import ClusterState
from meshd.model.codec import decode_record
from meshd.model.errors import CorruptError
from meshd.model.event import Record
from meshd.model.ids import ClusterName, EndpointKey, Head, Seq, ServiceKey
from meshd.model.peer import Phase
from meshd.model.replica import (
    CompleteGeneration,
    Control,
    Fetched,
    FinishSnapshot,
    Hold,
    Identified,
    Identify,
    PartRead,
    Pause,
    ReadWindow,
    ReplicaState,
    Resume,
    Step,
    Trouble,
    Watch,
    Watched,
)
from meshd.model.snapshot import Manifest
from tests.sim import reader
from tests.sim.mutations_daemon import DAEMON_BUGS

# What a log is.


def _no_gap_no_chain(at: Head, record: Record) -> Verdict:
    """Forget to look for holes and at the chain."""
    found = classify(at, record)
    is_same_log = record.log_id == at.log_id and record.first_seq > at.seq
    return Verdict.NEXT if is_same_log else found


def _no_chain(at: Head, record: Record) -> Verdict:
    """Forget to look at the chain."""
    is_next = record.log_id == at.log_id and record.first_seq == at.seq + 1
    return Verdict.NEXT if is_next else classify(at, record)


def _no_duplicates(at: Head | None, item: Fetched, cluster: object) -> object:
    """Take every record that decodes, again and again."""
    del cluster
    try:
        record = decode_record(item.raw, "record")
    except CorruptError as error:
        return None, str(error)
    return record if at is not None and record.log_id == at.log_id else (Verdict.FORK, "fork")


def _any_log(at: Head, record: Record) -> Verdict:
    """Take records of another log, if they fit by their seqs."""
    return classify(at, replace(record, log_id=at.log_id, prev_hash=at.hash))


def _known_at_cursor(at: Head, at_revision: int, found: Fetched) -> str:
    """Believe that what lies at the cursor is what was read there."""
    del at, at_revision, found
    return ""


def _cut_is_fork(at: Head, manifest: Manifest | None) -> str:
    """Take a log that was cut at the cursor for another one."""
    del manifest
    return f"its record at {at.seq} is gone"


# Where reading goes on.


def _next_of_header(state: ReplicaState, *rest: Any) -> Step:
    """Resume behind the revision of a later answer's header."""
    moved, effects, todo = _ADVANCE(state, *rest)
    return moved._replace(watch_revision=moved.watch_revision + 1), effects, _later(todo, 1)


def _later(todo: Any, by: int) -> Any:
    return Watch(todo.from_revision + by) if isinstance(todo, Watch) else todo


def _from_before(state: ReplicaState, *rest: Any) -> Step:
    """Watch from well before what was read, for safety."""
    moved, effects, todo = _ADVANCE(state, *rest)
    return moved, effects, _later(todo, -3)


def _from_genesis(now_s: float, at: Head | None, at_revision: int) -> ReplicaState:
    """Begin at the beginning, though there is a cursor."""
    del at, at_revision
    return _BEGIN(now_s, None, 0)


def _anew_after_cut(state: ReplicaState, *rest: Any) -> Step:
    """Forget the place when a link fails."""
    moved, effects, todo = _LINK_FAILED(state, *rest)
    return moved._replace(at=None, at_revision=0), effects, todo


def _complete_early(state: ReplicaState, *rest: Any) -> Step:
    """Serve a new generation before it is whole."""
    moved, effects, todo = _ADVANCE(state, *rest)
    if isinstance(todo, ReadWindow) and moved.staging and moved.at and moved.at.seq:
        return moved._replace(staging=False), (*effects, CompleteGeneration()), todo
    return moved, effects, todo


def _no_head_in_beats(state: ReplicaState, seen: Watched) -> tuple[ReplicaState, bool]:
    """Don't compare the head that a heartbeat tells of."""
    del seen
    return state, False


def _only_other_heads(state: ReplicaState, seen: Watched) -> tuple[ReplicaState, bool]:
    """Believe that a heartbeat may be behind for ever, as it was before ring 1 found it (5561)."""
    moved, is_elsewhere = _HEARD_HEAD(state, seen)
    at, head = state.at, seen.head
    is_behind = at is not None and head is not None and head.seq < at.seq
    return moved, is_elsewhere and not is_behind


def _always_alive(state: ReplicaState, beat: int, now_s: float) -> ReplicaState:
    """Take any answer of the etcd for a sign of life of the daemon."""
    return state._replace(beat=beat, beat_s=now_s)


def _ever_watching(state: ReplicaState, rules: Any, effects: Any, now_s: float) -> Step:
    """Never ask again who is there."""
    return state, effects, Watch(state.watch_revision)


def _never_doubt(state: ReplicaState, stop: Any, effects: Any) -> Step:
    """Take whatever doesn't fit for a fact."""
    return replica._trouble(state, Trouble(Phase.QUARANTINED, stop[1]), effects)


def _doubt_for_ever(state: ReplicaState, stop: Any, effects: Any) -> Step:
    """Forget that it was asked before."""
    return _STOP(state._replace(doubted_seq=None), stop, effects)


# Snapshots.


class _AnyHash:
    """A hash that is as good as any other."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False


def _finish_one_early(state: ReplicaState, *rest: Any) -> Step:
    """Go on one seq before the snapshot's own."""
    moved, effects, todo = _LOAD_ON(state, *rest)
    if any(isinstance(effect, FinishSnapshot) for effect in effects) and moved.at:
        moved = moved._replace(at=replace(moved.at, seq=Seq(moved.at.seq - 1)))
    return moved, effects, todo


def _part_left_out(state: ReplicaState, rules: Any, got: PartRead, now_s: float) -> Step:
    """Go on without a part that is gone."""
    loading = state.loading
    if got.raw is not None or loading is None:
        return _PART(state, rules, got, now_s)
    state = state._replace(parts_loaded=state.parts_loaded + 1)
    return _LOAD_ON(state, loading, rules, [], now_s)


def _part_for_ever(state: ReplicaState, rules: Any, got: PartRead, now_s: float) -> Step:
    """Begin anew whenever a part is gone, as it was before ring 1 found it (seed 31)."""
    if got.raw is None and state.loading is not None:
        return replica._new_generation(state, state.loading.head.log_id, "")
    return _PART(state, rules, got, now_s)


def _newest_parts(state: ReplicaState, rules: Any, newest: Manifest | None, now_s: float) -> Step:
    """Go on with the parts of the newest snapshot where those of another stopped."""
    if state.loading is not None and newest is not None:
        state = state._replace(loading=newest)
    return _BEGIN_LOADING(state, rules, newest, now_s)


def _no_snapshot(seen: Identified) -> None:
    """Never read a snapshot."""
    del seen


def _wrong_place(state: ClusterState, manifest: Manifest) -> None:
    """Say that a snapshot stands where it was cut."""
    state.seq, state.time_ms = manifest.trim.seq, manifest.time_ms


# States and tables.


def _no_withdrawal(
    self: Any, cluster: ClusterName, states: Mapping[ClusterName, ClusterState], log_ids: Any
) -> Any:
    """Compare with what a new generation has, and not with what the old one had."""
    new = states[cluster].services
    touched = {key: served.Touched(whole=True) for key in new}
    return self._update(cluster, touched, served.Sources(states, log_ids))


def _names_of_new(
    self: Any, cluster: ClusterName, states: Mapping[ClusterName, ClusterState], log_ids: Any
) -> Any:
    """Of a new generation, look only at the endpoints that it has."""
    endpoints = states[cluster].endpoints
    touched = {
        key: served.Touched(set(endpoints.get(key, ())))
        for key in {*self.keys(), *states[cluster].services}
    }
    return self._update(cluster, touched, served.Sources(states, log_ids))


def _anybodys(self: Any, cluster: ClusterName, key: ServiceKey) -> Any:
    """Take the endpoints of whoever comes first for this cluster's."""
    for state in self.states.values():
        if key in state.endpoints:
            return state.endpoints[key]
    return _ENDPOINTS(self, cluster, key)


def _keep_endpoints(state: ClusterState, event: Any, meaning: Any, stamp: Any) -> Any:
    """Leave the endpoints of a service that is removed."""
    key = meaning[0].key if isinstance(meaning[0], fold.ServiceChange) else None
    left = state.endpoints.get(key) if key else None
    changes = _FOLD(state, event, meaning, stamp)
    if key is not None and left is not None:
        state.endpoints[key] = left
    return changes


def _drop_all(state: ClusterState, key: EndpointKey) -> None:
    """Let an endpoint that goes take the others of its service along."""
    state.endpoints.pop(key.service, None)


def _keep_digest(digest: Digest, other: Digest) -> Digest:
    """Forget to take what goes out of a digest."""
    del other
    return digest


# Controls.


def _deaf(state: ReplicaState, what: Control) -> Step:
    """Read on though it is paused."""
    if isinstance(what, Pause):
        return state._replace(paused=True), (), Identify(state.at.seq if state.at else 0)
    return _CONTROL(state, what)


def _held_for_ever(state: ReplicaState, what: Control) -> Step:
    """Go on holding after it was resumed."""
    moved, effects, todo = _CONTROL(state, what)
    return moved, effects, Hold() if isinstance(what, Resume) else todo


_ADVANCE, _BEGIN, _BEGIN_LOADING = replica._advance, replica.begin_state, replica._begin_loading
_CONTROL, _LINK_FAILED, _LOAD_ON = said.on_control, replica._on_link_failed, replica._load_on
_PART, _STOP, _HEARD_HEAD = replica._on_part, replica._on_stop, identity.heard_head
_ENDPOINTS, _FOLD = served.Sources.endpoints, fold._fold

Patch = tuple[object, str, Callable[..., object]]


@dataclass(frozen=True, slots=True)
class Mutation:
    """ring: which one must find it. seeds_max: within how many seeds; five times as many as it took
    when this was written, or more, since a change of the simulator deals all schedules anew.
    first_seed: where to begin, for what takes many; shortly before the one that found it.
    """

    ring: int
    seeds_max: int
    patches: tuple[Patch, ...]
    first_seed: int = 0


NO_GAP: Patch = (intake, "classify", _no_gap_no_chain)
NO_CHAIN: Patch = (intake, "classify", _no_chain)
NO_HEAD_IN_BEATS: Patch = (replica, "heard_head", _no_head_in_beats)
NO_CURSOR: Patch = (identity, "_where_a_record_is", _known_at_cursor)
NO_HASH: Patch = (replica, "hash_part", lambda _: _AnyHash())

MUTATIONS = {
    "noident": Mutation(1, 500, ((replica, "fork_reason", lambda *_: ""),)),
    "progress": Mutation(1, 500, ((replica, "_advance", _next_of_header),)),
    "frombefore": Mutation(1, 500, ((replica, "_advance", _from_before),)),
    "genesis": Mutation(1, 500, ((replica, "begin_state", _from_genesis),)),
    "anewaftercut": Mutation(1, 500, ((replica, "_on_link_failed", _anew_after_cut),)),
    "completeearly": Mutation(1, 500, ((replica, "_advance", _complete_early),)),
    "nogap+nochain": Mutation(1, 500, (NO_GAP,)),
    "nodedup+nogap": Mutation(1, 500, ((intake, "_judge", _no_duplicates),)),
    "nochain+nocursor": Mutation(1, 5000, (NO_CHAIN, NO_CURSOR)),
    "nobeathead+nocursor": Mutation(1, 5000, (NO_HEAD_IN_BEATS, NO_CURSOR)),
    "onlyotherheads": Mutation(1, 16_000, ((replica, "heard_head", _only_other_heads),)),
    "anylog+nobeathead": Mutation(1, 500, ((intake, "classify", _any_log), NO_HEAD_IN_BEATS)),
    "cutisfork": Mutation(1, 1000, ((identity, "_where_nothing_is", _cut_is_fork),)),
    "forkiscut": Mutation(1, 5000, ((identity, "_where_nothing_is", lambda *_: ""),)),
    "norefusal": Mutation(1, 500, ((replica, "refusal", lambda *_: ""),)),
    "alwaysalive": Mutation(1, 500, ((replica, "heard_beat", _always_alive),)),
    "everwatching": Mutation(1, 1500, ((replica, "_watch_on", _ever_watching),)),
    "neverdoubt": Mutation(1, 500, ((replica, "_on_stop", _never_doubt),)),
    "doubtforever": Mutation(1, 500, ((replica, "_on_stop", _doubt_for_ever),)),
    "nohash": Mutation(1, 1500, (NO_HASH,)),
    "finishoneearly": Mutation(1, 500, ((replica, "_load_on", _finish_one_early),)),
    "partleftout": Mutation(1, 500, ((replica, "_on_part", _part_left_out),)),
    "partforever": Mutation(1, 500, ((replica, "_on_part", _part_for_ever),)),
    "newestparts+nohash": Mutation(1, 1500, ((replica, "_begin_loading", _newest_parts), NO_HASH)),
    "nosnapshot": Mutation(1, 500, ((replica, "usable_snapshot", _no_snapshot),)),
    "wrongplace": Mutation(1, 500, ((reader, "finish_loading", _wrong_place),)),
    "nowithdrawal": Mutation(1, 500, ((tables.Tables, "replace", _no_withdrawal),)),
    "namesofnew": Mutation(1, 500, ((tables.Tables, "replace", _names_of_new),)),
    "anybodys": Mutation(1, 500, ((served.Sources, "endpoints", _anybodys),)),
    "keependpoints": Mutation(1, 500, ((fold, "_fold", _keep_endpoints),)),
    "dropall": Mutation(1, 500, ((fold, "_drop_endpoint", _drop_all),)),
    "nocarry": Mutation(1, 500, ((fold, "_carry", lambda *_: None),)),
    "keepdigest": Mutation(1, 500, ((served, "minus", _keep_digest),)),
    "pauseignored": Mutation(1, 500, ((replica, "on_control", _deaf),)),
    "heldforever": Mutation(1, 500, ((replica, "on_control", _held_for_ever),)),
} | {name: Mutation(2, seeds_max, patches) for name, (seeds_max, patches) in DAEMON_BUGS.items()}

FIRST_SEEDS = {
    "onlyotherheads": 3100,
    "forkiscut": 600,
    "nochain+nocursor": 260,
    "nobeathead+nocursor": 260,
    "noleaderfence": 105,
    "nodoubt": 130,
    "cutunsaid": 180,
}
MUTATIONS |= {name: replace(MUTATIONS[name], first_seed=seed) for name, seed in FIRST_SEEDS.items()}


@contextmanager
def mutated(name: str) -> Iterator[None]:
    """Put the bug of this name in; '' for none."""
    patches = [patch.object(*one) for one in MUTATIONS[name].patches] if name else []
    for one in patches:
        one.start()
    try:
        yield
    finally:
        for one in patches:
            one.stop()
