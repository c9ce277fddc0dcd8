"""The state machine that follows one log, rule by rule, and over all states and all inputs.

Time is in seconds from the machine's begin; revisions are those of the peer's etcd.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from meshd.core.freshness import is_caught_up, is_fresh, phase_of
from meshd.core.position import Verdict, classify
from meshd.core.replica import CAUGHT_UP_RECORDS, begin_state, fast_forward, step
from meshd.model.codec import PROTOCOL_MAX, PROTOCOL_MIN, Descriptor
from meshd.model.event import EVENTS_PER_RECORD_MAX, Record
from meshd.model.ids import ClusterName, Head, Seq
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
    Pause,
    Quiet,
    ReadPart,
    ReadWindow,
    ReplicaState,
    Resume,
    Resync,
    Step,
    Todo,
    Trouble,
    Unreadable,
    Wait,
    Watch,
    Watched,
    WatchLost,
    WindowRead,
)
from meshd.model.snapshot import NO_MARK, Manifest, Mark, hash_part
from tests.logs import LOG_ID, OTHER_LOG_ID, WEST, Log, log_of

RULES = FollowRules(WEST, foreign_ids=frozenset({3}), window_seqs=5000)
DESCRIPTOR = Descriptor(WEST, 7, PROTOCOL_MIN, PROTOCOL_MAX, 0)

LOG = log_of(2, 3, 1)
"""Seqs 1 to 2, 3 to 5, and 6, at revisions 10, 12 and 14."""
FETCHED = LOG.fetched()
FIRST, SECOND, THIRD = FETCHED
HEADS = [record.head for record in LOG.records]
OTHER = log_of(1, 1, log_id=OTHER_LOG_ID)
BRANCH = log_of(2)
BRANCH.append(*LOG.records[1].events, time_ms=2000)
BRANCH.append()
"""The same log restored from a backup after its first record, and gone on differently."""
BAD = b"\xc1 no msgpack"


def at_cursor(seq: int, log: Log = LOG) -> Fetched | None:
    return next((item for item in log.fetched() if item.key_seq == seq), None)


def identified(
    log: Log = LOG,
    cursor_seq: int = 0,
    beat: int = 1,
    revision: int = 20,
    snapshot: Manifest | None = None,
) -> Input:
    found = at_cursor(cursor_seq, log)
    return Identified(DESCRIPTOR, log.head, beat, revision, found, snapshot)


PARTS = (b"part 0", b"part 1")


def snapshot_at(
    record: Record, parts: tuple[bytes, ...] = PARTS, trim: Record | None = None
) -> Manifest:
    """A snapshot at the end of a record; the machine never looks into the parts."""
    mark = Mark(trim.last_seq, trim.hash, 0, 0) if trim else NO_MARK
    return Manifest(record.head, 0, 0, 1, tuple(map(hash_part, parts)), mark)


SNAPSHOT = snapshot_at(LOG.records[1], trim=LOG.records[0])
"""At seq 5, of a log that was cut at 2."""
CUT_AT_5 = snapshot_at(LOG.records[1], trim=LOG.records[1])
NEWER = snapshot_at(LOG.records[2], trim=LOG.records[1])
PART_0, PART_1 = map(PartRead, PARTS)


def run(state: ReplicaState, *inputs: Input, now_s: float = 0.0) -> Step:
    """Step through inputs; returns the last state, all effects, and the last todo."""
    effects: list[Effect] = []
    todo: Todo | None = None
    for event in inputs:
        state, done, todo = step(state, RULES, event, now_s)
        effects.extend(done)
    assert todo is not None
    return state, tuple(effects), todo


def state_after(state: ReplicaState, *inputs: Input) -> ReplicaState:
    return run(state, *inputs)[0]


MISFIT = WindowRead(OTHER.fetched()[1:], complete=True)
EAST = Identified(replace(DESCRIPTOR, name=ClusterName("east")), LOG.head, 1, 20, None)

BEGUN = begin_state(0.0, None, 0)
RESUMED = begin_state(0.0, HEADS[1], 12)
STAGING = state_after(BEGUN, identified())
READING = state_after(BEGUN, identified(), identified(), WindowRead((FIRST,), complete=False))
WATCHING = state_after(RESUMED, identified(cursor_seq=5), WindowRead((THIRD,), complete=True))
READY = state_after(WATCHING, Watched((), None, 2))
CUT = state_after(READY, LinkFailed("cut"))
DOUBTING = state_after(RESUMED, identified(cursor_seq=5), MISFIT)
QUARANTINED = state_after(DOUBTING, identified(cursor_seq=5), MISFIT)
REFUSED = state_after(RESUMED, EAST)
FORKED = state_after(READY, identified(OTHER))
LOADING = state_after(BEGUN, identified(snapshot=SNAPSHOT), identified(snapshot=SNAPSHOT), PART_0)
LOADED = state_after(LOADING, PART_1)

STATES = {
    "begun": BEGUN,
    "resumed": RESUMED,
    "staging": STAGING,
    "reading": READING,
    "watching": WATCHING,
    "ready": READY,
    "cut": CUT,
    "doubting": DOUBTING,
    "quarantined": QUARANTINED,
    "refused": REFUSED,
    "forked": FORKED,
    "loading": LOADING,
    "loaded": LOADED,
}
EXPECTED_PHASES = {
    "begun": Phase.CONNECTING,
    "resumed": Phase.CONNECTING,
    "staging": Phase.SYNCING,
    "reading": Phase.SYNCING,
    "watching": Phase.SYNCING,
    "ready": Phase.READY,
    "cut": Phase.CONNECTING,
    "doubting": Phase.SYNCING,
    "quarantined": Phase.QUARANTINED,
    "refused": Phase.REFUSED,
    "forked": Phase.FORKED,
    "loading": Phase.SYNCING,
    "loaded": Phase.SYNCING,
}


def test_the_states_are_what_they_are_called() -> None:
    phases = {name: phase_of(state, RULES, 0.0)[0] for name, state in STATES.items()}
    assert phases == EXPECTED_PHASES


def window_inputs(log: Log) -> Iterable[Input]:
    items = log.fetched()
    for first in range(len(items) + 1):
        for complete in (False, True):
            yield WindowRead(items[first:], complete)
        yield Watched(items[first:], log.head, 3)


INPUTS: list[Input] = [
    Begin(),
    *(identified(log, seq) for log in (LOG, OTHER, BRANCH) for seq in (0, 2, 5, 6)),
    identified(log_of(), 0),
    Identified(None, None, -1, 20, None),
    Identified(DESCRIPTOR, None, -1, 20, None),
    Identified(None, LOG.head, -1, 20, None),
    Identified(replace(DESCRIPTOR, id=3), LOG.head, 1, 20, None),
    Identified(DESCRIPTOR, LOG.head, 1, 20, Fetched(5, 12, BAD)),
    Identified(DESCRIPTOR, LOG.head, 1, 20, Fetched(5, 13, SECOND.raw)),
    *(
        identified(LOG, seq, snapshot=snapshot)
        for snapshot in (SNAPSHOT, CUT_AT_5, NEWER, snapshot_at(OTHER.records[0]))
        for seq in (0, 5)
    ),
    PART_0,
    PART_1,
    PartRead(None),
    PartRead(b"another part"),
    *window_inputs(LOG),
    *window_inputs(OTHER),
    *window_inputs(BRANCH),
    WindowRead((Fetched(-1, 9, FIRST.raw),), complete=True),
    WindowRead((Fetched(7, 9, FIRST.raw),), complete=True),
    WindowRead((Fetched(7, 9, BAD),), complete=True),
    WindowRead((THIRD, SECOND, FIRST), complete=True),
    Watched((), None, None),
    Watched((), None, 1),
    Watched((), OTHER.head, None),
    Watched((), HEADS[1], 3),
    Watched((), replace(LOG.head, hash=HEADS[0].hash), 3),
    Watched((), replace(LOG.head, seq=Seq(9)), 3),
    Watched((Fetched(7, 9, BAD),), None, None),
    Quiet(),
    LinkFailed("cut"),
    LinkFailed("denied", denied=True),
    WatchLost("compacted"),
    Unreadable("no JSON"),
    Misread("bad address", Head.genesis(LOG_ID), 0),
    Misread("bad address", HEADS[0], 10),
    Pause(),
    Resume(),
    Resync(),
]


def _at_before(state: ReplicaState, event: Input) -> Head | None:
    match event:
        case Misread(_, given_at):
            return given_at
        case Resync():
            return None
        case _:
            return state.at


def _check_todo(after: ReplicaState, event: Input, todo: Todo) -> None:
    match todo:
        case Identify(cursor_seq):
            assert cursor_seq == (after.at.seq if after.at else 0)
        case ReadWindow(after_seq, through_seq):
            assert after.at is not None
            assert after.target is not None
            assert after_seq == after.at.seq < through_seq <= after.target.seq
        case ReadPart(seq, number):
            assert after.loading is not None
            assert (seq, number) == (after.loading.head.seq, after.parts_loaded)
        case Watch(from_revision):
            assert from_revision == after.watch_revision > 0
            assert is_caught_up(after)
            assert after.trouble is None
            assert after.linked
        case Hold():
            assert after.paused
            assert isinstance(event, Pause | Begin)
        case Wait(attempt, slow):
            assert attempt >= 0
            assert slow or not isinstance(event, Unreadable | Misread)


def check(state: ReplicaState, event: Input, now_s: float) -> ReplicaState:
    """Take a step and hold it against everything that is true of every step."""
    after, effects, todo = step(state, RULES, event, now_s)
    # `at` is the head of exactly what was given out since the generation began.
    at = _at_before(state, event)
    for number, effect in enumerate(effects):
        match effect:
            case BeginGeneration(log_id):
                at = Head.genesis(log_id)
                assert number == 0
                assert after.staging
            case Fold(record) | PassOver(record):
                assert at is not None
                assert classify(at, record) is Verdict.NEXT
                at = record.head
            case LoadPart(manifest, part):
                assert manifest == state.loading
                assert part == state.parts_loaded
            case FinishSnapshot(manifest):
                assert after.loading is None
                at = manifest.head
            case CompleteGeneration():
                assert state.staging
                assert not after.staging
                assert number == len(effects) - 1
    assert after.at == at
    _check_todo(after, event, todo)
    assert (after.watching_since_s is not None) == isinstance(todo, Watch)
    if after.trouble != state.trouble and after.trouble is not None:
        assert todo == Wait(0, slow=True)
    phase, reason = phase_of(after, RULES, now_s)
    assert reason or phase in {Phase.READY, Phase.SYNCING}
    return after


def is_possible(state: ReplicaState, event: Input) -> bool:
    """A driver gives a window only on a link, and a watch's response only while it watches."""
    is_watching = state.watching_since_s is not None
    match event:
        case Begin():
            return not is_watching
        case WindowRead():
            return (
                state.linked and state.at is not None and not is_watching and state.loading is None
            )
        case PartRead():
            return state.linked and not is_watching
        case Watched() | Quiet() | WatchLost():
            return is_watching
        case _:
            return True


@pytest.mark.parametrize("name", STATES)
def test_every_input_in_every_state_is_answered(name: str) -> None:
    """And every input after that: two steps on, nothing raises and nothing impossible is asked."""
    for event in INPUTS:
        if is_possible(STATES[name], event):
            after = check(STATES[name], event, 1.0)
            for following in INPUTS:
                if is_possible(after, following):
                    check(after, following, 2.0)


# --- rule 1: who is it ----------------------------------------------------------------------------


def test_every_beginning_identifies_at_the_cursor() -> None:
    assert run(BEGUN, Begin()) == (BEGUN, (), Identify(0))
    assert run(RESUMED, Begin()) == (RESUMED, (), Identify(5))


@pytest.mark.parametrize(
    ("descriptor", "reason"),
    [
        (replace(DESCRIPTOR, name=ClusterName("east")), "the cluster behind this address is east"),
        (replace(DESCRIPTOR, id=3), "cluster id 3 is already another cluster's"),
        (replace(DESCRIPTOR, protocol_min=2, protocol_max=3), "it speaks protocol 2..3"),
        (replace(DESCRIPTOR, protocol_min=0, protocol_max=0), "it speaks protocol 0..0"),
    ],
)
def test_a_stranger_is_refused_before_anything_is_read(descriptor: Descriptor, reason: str) -> None:
    state, effects, todo = run(RESUMED, Identified(descriptor, LOG.head, 1, 20, None))
    assert phase_of(state, RULES, 0.0)[0] is Phase.REFUSED
    assert phase_of(state, RULES, 0.0)[1].startswith(reason)
    assert (effects, todo, state.at) == ((), Wait(0, slow=True), RESUMED.at)


def test_a_known_id_must_stay_the_same() -> None:
    rules = FollowRules(WEST, cluster_id=8)
    state, _, _ = step(RESUMED, rules, identified(cursor_seq=5), 0.0)
    assert phase_of(state, rules, 0.0)[0] is Phase.REFUSED
    state, _, todo = step(RESUMED, replace(rules, cluster_id=7), identified(cursor_seq=5), 0.0)
    assert todo == ReadWindow(5, 6)
    assert state.trouble is None


def test_protocols_that_overlap_are_enough() -> None:
    wide = replace(DESCRIPTOR, protocol_min=0, protocol_max=9)
    assert run(RESUMED, Identified(wide, LOG.head, 1, 20, at_cursor(5)))[2] == ReadWindow(5, 6)


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (Identified(None, None, -1, 20, None), "its etcd holds no meshd cluster yet"),
        (Identified(DESCRIPTOR, None, -1, 20, None), "its etcd holds no such log"),
    ],
)
def test_nothing_there_yet_is_no_reason_to_give_up(seen: Identified, reason: str) -> None:
    state, effects, todo = run(READY, seen)
    assert state.link_reason.startswith(reason)
    assert (state.linked, state.at, effects, todo) == (False, READY.at, (), Wait(0))


@pytest.mark.parametrize("descriptor", [None, DESCRIPTOR])
def test_the_own_log_was_made_before_it_is_read_so_nothing_there_is_trouble(
    descriptor: Descriptor | None,
) -> None:
    own = replace(RULES, has_heartbeat=False)
    state, effects, todo = step(READY, own, Identified(descriptor, None, -1, 20, None), 1.0)
    assert state.trouble == Trouble(Phase.FORKED, "it is gone: its etcd was emptied")
    assert (state.at, effects, todo) == (READY.at, (), Wait(0, slow=True))


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (identified(OTHER, 5), f"log {LOG_ID} was replaced by log {OTHER_LOG_ID}"),
        (identified(log_of(2), 5), "its log ends at 2, before 5 which was read already"),
        (identified(BRANCH, 5), "its record at 5 is another one"),
        (Identified(DESCRIPTOR, LOG.head, 1, 20, None), "its record at 5 is gone"),
        (
            Identified(DESCRIPTOR, LOG.head, 1, 20, Fetched(5, 13, SECOND.raw)),
            "its record at 5 was written again",
        ),
        (
            Identified(DESCRIPTOR, LOG.head, 1, 20, Fetched(5, 12, BAD)),
            "record 5: not msgpack",
        ),
    ],
)
def test_another_history_is_taken_anew_beside_the_old(seen: Identified, reason: str) -> None:
    state, effects, todo = run(RESUMED, seen)
    assert seen.head is not None
    assert phase_of(state, RULES, 0.0)[0] is Phase.FORKED
    assert phase_of(state, RULES, 0.0)[1].startswith(reason)
    assert effects == (BeginGeneration(seen.head.log_id, is_fork=True),)
    assert state.at == Head.genesis(seen.head.log_id)
    assert state.traffic.forks == 1
    # What forked once may be forking right now: identified again before it is read.
    assert todo == Identify(0)


def test_the_same_history_is_resumed_where_it_stopped() -> None:
    state, effects, todo = run(RESUMED, identified(cursor_seq=5))
    assert (effects, todo) == ((), ReadWindow(5, 6))
    assert state.traffic.forks == 0


def test_an_unknown_revision_at_the_cursor_is_no_fork() -> None:
    """A cursor that the own writer moved knows no revision; the hash is enough."""
    unknown = begin_state(0.0, HEADS[1], 0)
    assert run(unknown, identified(cursor_seq=5))[2] == ReadWindow(5, 6)
    assert run(unknown, identified(BRANCH, 5))[0].traffic.forks == 1


def test_a_log_that_keeps_changing_is_not_asked_without_a_pause() -> None:
    """Two etcds behind one name: each look shows the other one."""
    state = READY
    for number in range(1, 5):
        log = (OTHER, LOG)[number % 2 - 1]
        state, _, todo = run(state, identified(log, state.at.seq if state.at else 0))
        assert todo == (Identify(0) if number == 1 else Wait(number))
    assert state.traffic.forks == 4


def test_a_fork_is_over_when_the_new_log_is_whole() -> None:
    state, effects, todo = run(
        FORKED, identified(OTHER), WindowRead(OTHER.fetched(), complete=True)
    )
    folds = [effect.record for effect in effects if isinstance(effect, Fold)]
    assert folds == OTHER.records
    assert effects[-1] == CompleteGeneration()
    assert (todo, state.staging, state.at) == (Watch(21), False, OTHER.head)


# --- rule 2: behind, read; else watch -------------------------------------------------------------


def test_a_first_sync_reads_up_to_the_head_that_was_identified_and_then_watches() -> None:
    state, effects, todo = run(BEGUN, Begin(), identified())
    assert (effects, todo) == ((BeginGeneration(LOG_ID),), Identify(0))
    state, effects, todo = run(state, identified(revision=33))
    assert (effects, todo) == ((), ReadWindow(0, 6))
    state, effects, todo = run(state, WindowRead((FIRST,), complete=False))
    assert (effects, todo) == ((Fold(LOG.records[0], 10),), ReadWindow(2, 6))
    state, effects, todo = run(state, WindowRead((SECOND, THIRD), complete=True))
    assert effects == (Fold(LOG.records[1], 12), Fold(LOG.records[2], 14), CompleteGeneration())
    assert todo == Watch(34)
    assert (state.at, state.at_revision, state.traffic.records_read) == (LOG.head, 14, 3)


def test_an_empty_log_is_whole_at_once() -> None:
    empty = log_of()
    state, effects, todo = run(BEGUN, identified(empty), identified(empty))
    assert effects == (BeginGeneration(LOG_ID), CompleteGeneration())
    assert (state.at, todo) == (Head.genesis(LOG_ID), Watch(21))


@pytest.mark.parametrize(
    ("window_seqs", "through_seq"),
    [
        (10_000, 10_000),
        (5000, 5000),
        # A record lies under its last seq, so a shorter window might not even hold one.
        (1, EVENTS_PER_RECORD_MAX),
        (10**9, 20_000),
    ],
)
def test_windows_are_bounded_but_never_shorter_than_a_record(
    window_seqs: int, through_seq: int
) -> None:
    far = log_of(*[4000] * 5)
    begin = begin_state(0.0, Head.genesis(LOG_ID), 0)
    _, _, todo = step(begin, replace(RULES, window_seqs=window_seqs), identified(far), 0.0)
    assert todo == ReadWindow(0, through_seq)


def test_after_reading_much_the_head_is_asked_for_again() -> None:
    """Else the watch, begun at the old head, would have to replay all that came meanwhile."""
    long = log_of(*[1] * (CAUGHT_UP_RECORDS + 1))
    state, _, _ = run(BEGUN, identified(long), identified(long))
    _, effects, todo = run(state, WindowRead(long.fetched(), complete=True))
    assert len(effects) == CAUGHT_UP_RECORDS + 1
    assert todo == Identify(long.head.seq)
    short = log_of(*[1] * CAUGHT_UP_RECORDS)
    state, _, _ = run(BEGUN, identified(short), identified(short))
    assert run(state, WindowRead(short.fetched(), complete=True))[2] == Watch(21)


# --- rule 3: every record is judged ---------------------------------------------------------------


def test_the_watch_gives_out_what_comes_next() -> None:
    before, _, _ = run(RESUMED, identified(log_of(2, 3), cursor_seq=5))
    state, effects, todo = run(before, Watched((THIRD,), LOG.head, None))
    assert (effects, todo) == ((Fold(LOG.records[2], 14),), Watch(21))
    assert (state.at, state.target, state.at_revision) == (LOG.head, LOG.head, 14)


def test_duplicates_are_counted_and_dropped_without_being_decoded() -> None:
    spoiled = Fetched(2, 10, BAD)
    state, effects, todo = run(WATCHING, Watched((spoiled, SECOND, THIRD), LOG.head, None))
    assert (effects, todo) == ((), Watch(21))
    assert state.traffic.records_duplicate == 3
    assert state.at == LOG.head


@pytest.mark.parametrize(
    ("records", "head"),
    [
        ((THIRD,), LOG.head),
        ((THIRD,), None),
        (log_of(3).fetched(), None),
        (log_of(1, 3, log_id=OTHER_LOG_ID).fetched(), None),
        (OTHER.fetched()[:1], OTHER.head),
    ],
    ids=["gap", "gap without head", "another record", "another log", "another log, far behind"],
)
def test_in_a_watch_a_misfit_is_a_question(records: tuple[Fetched, ...], head: Head | None) -> None:
    before, _, _ = run(begin_state(0.0, HEADS[0], 10), identified(log_of(2), cursor_seq=2))
    state, effects, todo = run(before, Watched(records, head, None))
    assert (effects, todo) == ((), Identify(2))
    assert (state.trouble, state.at) == (None, HEADS[0])


def test_in_a_window_a_misfit_is_a_question_once_and_then_a_fact() -> None:
    """The log may have been replaced between the identification and the window."""
    gap = WindowRead((THIRD,), complete=True)
    reading, _, todo = run(begin_state(0.0, HEADS[0], 10), identified(cursor_seq=2))
    assert todo == ReadWindow(2, 6)
    doubting, effects, todo = run(reading, gap)
    assert (doubting.trouble, effects, todo) == (None, (), Identify(2))
    again, _, todo = run(doubting, identified(cursor_seq=2))
    assert todo == ReadWindow(2, 6)
    stopped, _, todo = run(again, gap)
    assert todo == Wait(0, slow=True)
    assert stopped.trouble == Trouble(Phase.QUARANTINED, "seq 3 is missing before seq 6")
    # Later looks report the same at once, and reading on ends it.
    assert run(stopped, Begin(), identified(cursor_seq=2), gap)[0].trouble == stopped.trouble
    healed, _, _ = run(stopped, identified(cursor_seq=2), WindowRead(FETCHED[1:], complete=True))
    assert (healed.trouble, healed.doubted_seq, healed.at) == (None, None, LOG.head)


def test_a_misfit_that_was_a_replacement_is_a_fork_and_no_quarantine() -> None:
    reading, _, _ = run(begin_state(0.0, HEADS[0], 10), identified(cursor_seq=2))
    state, effects, todo = run(
        reading,
        WindowRead(OTHER.fetched(), complete=True),
        identified(OTHER, 2),
        identified(OTHER),
        WindowRead(OTHER.fetched(), complete=True),
    )
    assert effects[-1] == CompleteGeneration()
    assert (state.trouble, state.traffic.forks, todo) == (None, 1, Watch(21))


@pytest.mark.parametrize(
    ("window", "reason"),
    [
        (WindowRead((), complete=True), "its log says it reaches seq 6 but seq 3 is missing"),
        (WindowRead((THIRD,), complete=True), "seq 3 is missing before seq 6"),
        (
            WindowRead(BRANCH.fetched()[2:], complete=True),
            "seq 3 is missing before seq 6",
        ),
        (
            WindowRead(OTHER.fetched()[1:], complete=True),
            "the record at seq 2 does not continue the log after seq 2",
        ),
    ],
)
def test_why_a_window_does_not_fit(window: WindowRead, reason: str) -> None:
    reading, _, _ = run(begin_state(0.0, HEADS[0], 10), identified(cursor_seq=2))
    state, _, _ = run(reading, window, identified(cursor_seq=2), window)
    assert state.trouble == Trouble(Phase.QUARANTINED, reason)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (Fetched(5, 12, BAD), "west record 5: not msgpack"),
        (Fetched(7, 12, SECOND.raw), "the record at key 7 ends with seq 5"),
        (Fetched(-1, 12, SECOND.raw), "the record at key -1 ends with seq 5"),
    ],
)
@pytest.mark.parametrize("by_watch", [False, True])
def test_bad_bytes_are_a_fact_at_once_and_what_came_before_is_kept(
    item: Fetched, reason: str, *, by_watch: bool
) -> None:
    begin, _, _ = run(begin_state(0.0, Head.genesis(LOG_ID), 0), identified())
    found = (FIRST, item, THIRD)
    event = Watched(found, LOG.head, 5) if by_watch else WindowRead(found, complete=True)
    state, effects, todo = run(begin, event)
    assert effects == (Fold(LOG.records[0], 10),)
    assert (state.at, todo) == (HEADS[0], Wait(0, slow=True))
    assert state.trouble is not None
    assert state.trouble.reason.startswith(reason)


def test_records_before_any_identification_are_not_believed() -> None:
    """No driver does this; the machine is safe against it all the same."""
    state, effects, todo = run(BEGUN, WindowRead((FIRST,), complete=True))
    assert (effects, state.at, todo) == ((), None, Identify(0))
    assert run(state, WindowRead((FIRST,), complete=True))[2] == Wait(0, slow=True)
    assert run(BEGUN, WindowRead((), complete=True))[2] == Identify(0)


# --- rule 3, in a watch: heads --------------------------------------------------------------------


def test_a_head_without_its_record_is_asked_for() -> None:
    ahead = log_of(2, 3, 1, 1)
    state, effects, todo = run(WATCHING, Watched((), ahead.head, None))
    assert (effects, todo) == ((), Identify(6))
    assert phase_of(state, RULES, 0.0)[0] is Phase.SYNCING
    _, _, todo = run(state, identified(ahead, 6))
    assert todo == ReadWindow(6, 7)


@pytest.mark.parametrize(
    ("head", "todo"),
    [
        (LOG.head, Watch(21)),
        # A heartbeat is written beside the appends, and may be a little behind them.
        (HEADS[1], Watch(21)),
        (replace(LOG.head, seq=Seq(9)), Identify(6)),
        (replace(LOG.head, hash=HEADS[0].hash), Identify(6)),
        (OTHER.head, Identify(6)),
    ],
)
def test_a_heartbeat_that_tells_of_something_else_is_looked_into(head: Head, todo: Todo) -> None:
    """Also where nothing is appended: the watch may have been opened on another history."""
    assert run(READY, Watched((), head, 3))[2] == todo


def test_heartbeats_that_stay_behind_tell_of_a_log_that_was_shortened() -> None:
    """Ring 1, seed 5561: ready on what a restored peer had lost, until the watch was recycled."""
    state, _, todo = run(READY, Watched((), HEADS[1], 3))
    assert todo == Watch(21)
    # The next beat was put together after the first was written, so after all that was read.
    state, effects, todo = run(state, Watched((), HEADS[1], 4))
    assert (effects, todo) == ((), Identify(6))
    restored = log_of(2, 3)
    state, effects, _ = run(state, identified(restored, 6))
    assert effects == (BeginGeneration(LOG_ID, is_fork=True),)


def test_heartbeats_that_are_behind_while_more_is_read_say_nothing() -> None:
    longer = log_of(2, 3, 1, 1)
    state, _, _ = run(READY, Watched((), HEADS[1], 3))
    state, _, todo = run(state, Watched((longer.fetched()[3],), longer.head, None))
    assert isinstance(todo, Watch)
    _, _, todo = run(state, Watched((), HEADS[1], 4))
    assert isinstance(todo, Watch)


def test_heads_without_a_heartbeat_may_be_behind_again_and_again() -> None:
    """The own log's records are handed over before its watch tells of them."""
    state, _, _ = run(READY, Watched((), HEADS[1], None))
    assert isinstance(run(state, Watched((), HEADS[1], None))[2], Watch)


def test_the_head_of_another_log_is_asked_about() -> None:
    """A peer whose keys were deleted and made anew under a running watch."""
    state, effects, todo = run(READY, Watched((), Head.genesis(OTHER_LOG_ID), 9))
    assert (effects, todo) == ((), Identify(6))
    assert state.at == READY.at


# --- rule 4: links fail ---------------------------------------------------------------------------


def test_a_failed_link_is_tried_again_ever_more_slowly_from_where_it_was() -> None:
    state = READY
    for attempt in range(3):
        state, effects, todo = run(state, LinkFailed("cut"), Begin())
        assert (effects, todo) == ((), Identify(6))
        assert (state.linked, state.at, state.attempt) == (False, READY.at, attempt + 1)
        assert run(state, LinkFailed("cut"))[2] == Wait(attempt + 1)
    back, effects, todo = run(state, identified(cursor_seq=6))
    assert (back.attempt, back.linked, effects, todo) == (0, True, (), Watch(21))


def test_a_refusal_of_the_etcd_is_tried_again_slowly() -> None:
    assert run(READY, LinkFailed("permission denied", denied=True))[2] == Wait(0, slow=True)


def test_a_watch_that_ends_is_no_failed_link_but_does_not_spin() -> None:
    state, effects, todo = run(READY, WatchLost("compacted"))
    assert (state.linked, state.at, effects, todo) == (True, READY.at, (), Wait(0))
    assert run(state, Begin())[2] == Identify(6)


# --- rules 5 and 6: heartbeats and silence --------------------------------------------------------


def test_the_first_heartbeat_after_a_cut_may_be_a_dead_daemons_last() -> None:
    """An hour without a link, in which the peer's meshd lived on and then died."""
    back, _, _ = run(CUT, identified(cursor_seq=6, beat=99), now_s=3600)
    assert phase_of(back, RULES, 3600)[0] is Phase.LOST
    alive, _, _ = run(back, Watched((), None, 100), now_s=3601)
    assert phase_of(alive, RULES, 3601)[0] is Phase.READY


def test_a_short_cut_is_over_when_the_link_is_back() -> None:
    cut, _, _ = run(READY, LinkFailed("cut"), now_s=2)
    back, _, _ = run(cut, identified(cursor_seq=6, beat=4), now_s=4)
    assert phase_of(back, RULES, 4)[0] is Phase.READY


def test_a_heartbeat_that_stands_still_makes_stale_and_lost_though_linked() -> None:
    state = READY
    for now_s in range(0, 70, 2):
        state, _, _ = run(state, Watched((), None, 2), now_s=now_s)
        state = state._replace(watching_since_s=float(now_s))
        expected = Phase.READY if now_s < 10 else Phase.STALE if now_s < 60 else Phase.LOST
        assert phase_of(state, RULES, now_s)[0] is expected
    state, _, _ = run(state, Watched((), None, 3), now_s=70)
    assert phase_of(state, RULES, 70)[0] is Phase.READY


def test_an_old_watch_is_opened_anew() -> None:
    young, _, todo = run(READY, Watched((), None, 3), now_s=299.9)
    assert todo == Watch(21)
    assert young.watching_since_s == 0
    old, _, todo = run(READY, Watched((), None, 3), now_s=300)
    assert (todo, old.watching_since_s) == (Identify(6), None)


def test_a_silent_watch_is_doubted_though_progress_is_notified() -> None:
    """A notification proves that the stream lives, not that it tells everything."""
    heard, _, todo = run(READY, Watched((), None, 3), now_s=5)
    assert todo == Watch(21)
    quiet, _, todo = run(heard, Watched((), None, None), now_s=14)
    assert (todo, quiet.heard_s) == (Watch(21), 5)
    assert run(quiet, Watched((), None, None), now_s=15)[2] == Identify(6)
    assert run(heard, Quiet(), now_s=15)[2] == Identify(6)
    # The own log has no heartbeat to miss.
    own = replace(RULES, has_heartbeat=False)
    assert step(heard, own, Watched((), None, None), 15)[2] == Watch(21)


# --- rule 8: trouble ------------------------------------------------------------------------------


def test_what_can_not_be_read_at_all_quarantines() -> None:
    state, effects, todo = run(READY, Unreadable("not JSON"))
    assert (state.trouble, effects) == (Trouble(Phase.QUARANTINED, "not JSON"), ())
    assert todo == Wait(0, slow=True)
    assert run(state, Begin())[2] == Identify(6)
    assert run(state, identified(cursor_seq=6))[0].trouble is None


def test_a_record_that_can_not_be_folded_stops_the_log_before_it() -> None:
    state, effects, todo = run(READY, Misread("bad address", HEADS[1], 12))
    assert (state.at, state.at_revision) == (HEADS[1], 12)
    assert state.trouble == Trouble(Phase.QUARANTINED, "bad address")
    assert (effects, todo) == ((), Wait(0, slow=True))
    assert run(state, Begin(), identified(cursor_seq=5))[2] == ReadWindow(5, 6)


def test_a_refused_peer_that_turns_out_right_is_read_on() -> None:
    state, _, todo = run(REFUSED, Begin(), identified(cursor_seq=5))
    assert todo == ReadWindow(5, 6)
    state, _, _ = run(state, WindowRead((THIRD,), complete=True))
    assert state.trouble is None


# --- the own log, handed over by its writer -------------------------------------------------------


def test_what_the_writer_handed_over_is_skipped() -> None:
    behind = READY._replace(at=HEADS[0], at_revision=10)
    ahead = fast_forward(behind, HEADS[1])
    assert (ahead.at, ahead.at_revision) == (HEADS[1], 0)
    _, effects, _ = run(ahead, Watched(FETCHED, LOG.head, None))
    assert effects == (Fold(LOG.records[2], 14),)


@pytest.mark.parametrize(
    ("state", "folded"),
    [
        (BEGUN, HEADS[1]),
        (STAGING, HEADS[1]),
        (READY, HEADS[1]),
        (READY, READY.at),
        (READY, OTHER.head),
    ],
)
def test_nothing_else_is_skipped(state: ReplicaState, folded: Head) -> None:
    assert fast_forward(state, folded) is state


# --- rule 9: what a person says -------------------------------------------------------------------


def test_a_paused_peer_is_held_whatever_happens_and_read_on_when_it_is_resumed() -> None:
    paused, effects, todo = run(READY, Pause())
    assert (effects, todo) == ((), Hold())
    assert phase_of(paused, RULES, 1000.0)[0] is Phase.PAUSED
    assert not is_fresh(paused, RULES, 0.0)
    resumed, effects, todo = run(paused, Resume())
    assert (effects, todo) == ((), Identify(6))
    assert phase_of(resumed, RULES, 0.0) == (Phase.CONNECTING, "resumed just now")


def test_resync_reads_the_log_anew_without_calling_it_a_fork() -> None:
    anew, effects, todo = run(QUARANTINED, Resync())
    assert (anew.at, anew.trouble, effects, todo) == (None, None, (), Identify(0))
    again, effects, _ = run(anew, identified())
    assert effects == (BeginGeneration(LOG_ID),)
    assert again.traffic.forks == 0


# --- rule 2: snapshots and cuts -------------------------------------------------------------------


def test_a_new_generation_begins_with_the_snapshot() -> None:
    again = identified(snapshot=SNAPSHOT)
    state, effects, todo = run(BEGUN, again, again)
    assert (effects, todo) == ((BeginGeneration(LOG_ID),), ReadPart(5, 0))
    state, effects, todo = run(state, PART_0)
    assert (effects, todo) == ((LoadPart(SNAPSHOT, 0, PARTS[0]),), ReadPart(5, 1))
    state, effects, todo = run(state, PART_1)
    assert effects == (LoadPart(SNAPSHOT, 1, PARTS[1]), FinishSnapshot(SNAPSHOT))
    assert todo == ReadWindow(5, 6)
    state, effects, todo = run(state, WindowRead((THIRD,), complete=True))
    assert effects == (Fold(LOG.records[2], 14), CompleteGeneration())
    assert todo == Watch(21)
    assert state.traffic.snapshots == 1


def test_a_snapshot_of_nothing_is_loaded_at_once() -> None:
    empty = snapshot_at(LOG.records[2], parts=())
    _, effects, todo = run(STAGING, identified(snapshot=empty))
    assert effects == (FinishSnapshot(empty), CompleteGeneration())
    assert todo == Watch(21)


@pytest.mark.parametrize(
    "other",
    [snapshot_at(OTHER.records[0]), replace(SNAPSHOT, head=replace(LOG.head, seq=Seq(9)))],
    ids=["of another log", "beyond the head"],
)
def test_a_snapshot_that_is_not_of_this_log_is_no_snapshot(other: Manifest) -> None:
    assert run(STAGING, identified(snapshot=other))[2] == ReadWindow(0, 6)
    assert run(RESUMED, identified(cursor_seq=5, snapshot=other))[2] == ReadWindow(5, 6)


def test_a_link_that_fails_costs_no_part_that_was_read() -> None:
    again = identified(snapshot=SNAPSHOT)
    assert run(LOADING, LinkFailed("cut"), Begin(), again)[2] == ReadPart(5, 1)
    # On a slow link there is always a newer one: what was begun is finished.
    newer = identified(snapshot=NEWER)
    assert run(LOADING, LinkFailed("cut"), Begin(), newer)[2] == ReadPart(5, 1)
    assert run(LOADING, LinkFailed("cut"), Begin(), identified())[2] == ReadPart(5, 1)


def test_a_snapshot_that_is_gone_is_begun_anew_if_another_took_its_place() -> None:
    state, effects, todo = run(LOADING, PartRead(None))
    assert (effects, todo) == ((), Identify(0))
    state, effects, todo = run(state, identified(snapshot=NEWER))
    assert effects == (BeginGeneration(LOG_ID),)
    assert isinstance(todo, Wait)
    assert run(state, identified(snapshot=NEWER))[2] == ReadPart(6, 0)


def test_a_part_that_is_gone_though_its_manifest_still_counts_is_a_fact() -> None:
    """Ring 1, seed 31: it was begun anew ten times a second, for ever, and was never said."""
    again = identified(snapshot=SNAPSHOT)
    state, _, todo = run(LOADING, PartRead(None), again)
    assert todo == ReadPart(5, 1)
    state, effects, todo = run(state, PartRead(None))
    assert (effects, todo) == ((), Wait(0, slow=True))
    phase, reason = phase_of(state, RULES, 0.0)
    assert phase is Phase.QUARANTINED
    assert "part 1 of its snapshot at 5 is gone" in reason


def test_a_doubt_about_one_part_says_nothing_of_the_next() -> None:
    again = identified(snapshot=SNAPSHOT)
    begun = LOADING._replace(parts_loaded=0)
    state, _, todo = run(begun, PartRead(None), again, PART_0, PartRead(None))
    assert todo == Identify(0)
    assert state.trouble is None


def test_a_part_that_is_not_what_the_manifest_says_is_read_twice_and_then_a_fact() -> None:
    again = identified(snapshot=SNAPSHOT)
    wrong = PartRead(b"another part")
    state, effects, todo = run(LOADING, wrong)
    assert (effects, todo) == ((), Identify(0))
    state, effects, todo = run(state, again, wrong)
    assert phase_of(state, RULES, 0.0)[0] is Phase.QUARANTINED
    assert (
        "part 1 of its snapshot at 5 is not what the manifest says" in phase_of(state, RULES, 0)[1]
    )
    # The same snapshot is tried where it stopped; another one is begun anew.
    assert run(state, Begin(), again)[2] == ReadPart(5, 1)
    state, effects, _ = run(state, Begin(), identified(snapshot=NEWER))
    assert effects == (BeginGeneration(LOG_ID),)
    assert state.loading is None


def test_a_log_that_was_cut_while_it_was_begun_is_no_reason_to_doubt_its_snapshot() -> None:
    """Ring 1, seed 1178: a log that was cut and then restored was quarantined for half a minute."""
    gone = WindowRead((), complete=True)
    state, _, todo = run(BEGUN, identified(), identified(), gone)
    assert todo == Identify(0)
    state, _, todo = run(state, identified(snapshot=SNAPSHOT))
    assert todo == ReadPart(5, 0)
    state, _, todo = run(state, PartRead(None))
    assert todo == Identify(0)
    assert state.trouble is None


def test_a_part_that_cannot_be_folded_stops_the_peer_before_it() -> None:
    state, _, todo = run(LOADING, Misread("bad part", Head.genesis(LOG_ID), 0))
    assert todo == Wait(0, slow=True)
    assert run(state, Begin(), identified(snapshot=SNAPSHOT))[2] == ReadPart(5, 1)


def test_a_generation_that_is_not_served_though_its_snapshot_is_in_goes_on_behind_it() -> None:
    """Ring 1, seed 10478: it claimed another's id, and its last part was read and loaded again."""
    state, _, todo = run(LOADING, Misread("taken", SNAPSHOT.head, 0))
    assert todo == Wait(0, slow=True)
    assert (state.at, state.loading, state.staging) == (SNAPSHOT.head, None, True)
    _, _, todo = run(state, Begin(), identified(cursor_seq=5, snapshot=SNAPSHOT))
    assert todo == ReadWindow(5, 6)
    state, effects, _ = run(
        state, Begin(), identified(log_of(2, 3), cursor_seq=5, snapshot=SNAPSHOT)
    )
    assert effects == (CompleteGeneration(),)


def test_a_part_that_nobody_asked_for_is_no_part() -> None:
    assert run(CUT, identified(cursor_seq=6), PART_0)[2] == Identify(6)


def test_a_log_that_was_cut_beyond_the_cursor_is_read_anew_and_is_no_fork() -> None:
    behind = begin_state(0.0, HEADS[0], 10)
    state, effects, _ = run(behind, identified(snapshot=CUT_AT_5))
    assert effects == (BeginGeneration(LOG_ID),)
    assert (state.traffic.forks, state.fork_reason) == (0, "")
    assert phase_of(state, RULES, 0.0)[0] is Phase.SYNCING


def test_a_log_that_was_cut_right_at_the_cursor_is_read_on() -> None:
    resumed = begin_state(0.0, HEADS[1], 12)
    cut_here = Identified(DESCRIPTOR, LOG.head, 1, 20, None, CUT_AT_5)
    _, effects, todo = run(resumed, cut_here)
    assert (effects, todo) == ((), ReadWindow(5, 6))
    # Cut at the same seq, but of another past.
    other = replace(CUT_AT_5, trim=replace(CUT_AT_5.trim, hash=HEADS[0].hash))
    state, _, _ = run(resumed, replace(cut_here, snapshot=other))
    assert state.fork_reason == "it was cut at 5, where it is another log"


def test_a_record_that_is_gone_beyond_the_cut_is_a_fork() -> None:
    resumed = begin_state(0.0, HEADS[1], 12)
    state, _, _ = run(resumed, Identified(DESCRIPTOR, LOG.head, 1, 20, None, SNAPSHOT))
    assert state.fork_reason == "its record at 5 is gone"


def test_a_fork_and_a_resync_in_the_middle_begin_anew() -> None:
    state, effects, _ = run(LOADING, identified(OTHER))
    assert effects == (BeginGeneration(OTHER_LOG_ID, is_fork=True),)
    assert state.loading is None
    assert state.fork_reason
    state, effects, _ = run(LOADING, Resync(), identified(snapshot=SNAPSHOT))
    assert effects == (BeginGeneration(LOG_ID),)
    assert state.loading is None
