"""A state as parts and back: nothing is lost, and equal states make equal bytes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.core.decide import decide
from meshd.core.draft import Draft, OfState
from meshd.core.fold import fold_record
from meshd.core.snapshot import finish_loading, load_part, manifest_of, obstacle, parts_of
from meshd.core.state import CARRIED_MAX, ClusterState
from meshd.model.cluster import ClusterInfo
from meshd.model.codec import encode_record
from meshd.model.command import (
    Command,
    Move,
    MoveOperation,
    SetCluster,
    SetEndpoint,
    SetService,
    StartOperation,
    Submission,
)
from meshd.model.endpoint import Endpoint
from meshd.model.errors import CorruptError, RejectedError
from meshd.model.event import Event
from meshd.model.ids import EndpointKey, Head, Seq, ServiceKey
from meshd.model.operation import Operation, OperationKind, Stage
from meshd.model.service import Service
from meshd.model.snapshot import (
    MARKS_MAX,
    NO_MARK,
    PART_BYTES,
    PART_BYTES_MAX,
    Kept,
    Manifest,
    Part,
    decode_part,
    hash_part,
)
from tests.logs import LOG_ID, WEST, histories, submission

UNKNOWN = Event("moon.set", "a", {"phase": "full"}, "ann")


def grown(history: list[Submission], state: ClusterState, head: Head) -> Head:
    """Decide and fold a history on a state; returns where its log stands then."""
    for number, asked in enumerate(history):
        try:
            events = decide(Draft(OfState(state)), asked, 1000 + number).events
        except RejectedError:
            continue
        if events:
            record = encode_record(head, 1000 + number, (*events, UNKNOWN))
            fold_record(state, record, WEST)
            head = record.head
    return head


def loaded(parts: list[bytes], manifest: Manifest) -> ClusterState:
    state = ClusterState()
    for number, raw in enumerate(parts):
        load_part(state, decode_part(raw, f"part {number}"), WEST, manifest)
    finish_loading(state, manifest)
    return state


def manifest(state: ClusterState, head: Head, parts: list[bytes]) -> Manifest:
    return manifest_of(state, head, 0, [hash_part(part) for part in parts], None)


def without_counts(state: ClusterState) -> ClusterState:
    return replace(state, unknown=type(state.unknown)())


@given(histories, histories)
def test_a_snapshot_loads_to_the_state_that_it_was_made_of(
    first: list[Submission], then: list[Submission]
) -> None:
    state = ClusterState()
    head = grown(first, state, Head.genesis(LOG_ID))
    parts = list(parts_of(state))
    copy = loaded(parts, manifest(state, head, parts))
    assert without_counts(copy) == without_counts(state)
    # What comes after it means the same to both.
    assert grown(then, state, head) == grown(then, copy, head)
    assert without_counts(copy) == without_counts(state)
    assert list(parts_of(copy)) == list(parts_of(state))


def test_operations_come_back_in_the_order_of_their_last_change() -> None:
    stages = (Stage(turned_percent=50, hold_s=9.0), Stage(turned_percent=0))
    subjects = {"a": "service/shop/web", "b": "cluster", "c": "node/n1"}
    starts = [
        StartOperation(
            name, Operation(kind=OperationKind.DRAIN, subjects=(subject,), stages=stages)
        )
        for name, subject in subjects.items()
    ]
    web = ServiceKey("shop", "web")
    world: list[Command] = [
        SetCluster(ClusterInfo(name="west", id=7)),
        SetService(web, Service(is_global=True)),
        SetEndpoint(EndpointKey(web, "x"), Endpoint(address="10.0.0.1", node="n1")),
    ]
    then = [MoveOperation("a", Move.ADVANCE), MoveOperation("b", Move.ROLL_BACK)]
    state = ClusterState()
    history = [submission(one) for one in (*world, *starts, *then)]
    head = grown(history, state, Head.genesis(LOG_ID))
    parts = list(parts_of(state))
    copy = loaded(parts, manifest(state, head, parts))
    assert list(copy.operations.items()) == list(state.operations.items())
    assert list(copy.operations) == ["c", "a", "b"]
    assert without_counts(copy) == without_counts(state)


def big_state(endpoints: int) -> tuple[ClusterState, Head]:
    state, head = ClusterState(), Head.genesis(LOG_ID)
    for first in range(0, endpoints, 1000):
        events = [
            Event("endpoint.set", f"shop/web/e{n}", {"address": "10.0.0.1"}, "ann", f"cause-{n}")
            for n in range(first, min(first + 1000, endpoints))
        ]
        record = encode_record(head, first, events)
        fold_record(state, record, WEST)
        head = record.head
    return state, head


def test_a_large_state_takes_several_parts_of_bounded_size() -> None:
    state, head = big_state(5000)
    parts = list(parts_of(state))
    assert len(parts) > 2
    decoded = [decode_part(raw, "part") for raw in parts]
    assert sum(len(part.kept) for part in decoded) == 5000
    assert sum(len(part.causes) for part in decoded) == 5000
    seqs = [item.seq for part in decoded for item in part.kept]
    assert seqs == sorted(seqs)
    assert PART_BYTES < PART_BYTES_MAX
    assert loaded(parts, manifest(state, head, parts)) == state


def test_an_empty_state_has_no_parts() -> None:
    assert list(parts_of(ClusterState())) == []
    assert manifest(ClusterState(), Head.genesis(LOG_ID), []).items == 0


def test_a_part_that_cannot_be_folded_changes_nothing() -> None:
    state, head = big_state(3)
    bad = Kept(Seq(2), 0, Event("endpoint.set", "shop/web/a", {"address": "nowhere"}, "ann"))
    good = Kept(Seq(1), 0, Event("endpoint.set", "shop/web/x", {"address": "10.0.0.9"}, "ann"))
    late = Kept(Seq(9), 0, good.event)
    before = loaded([], manifest(state, head, []))
    for items in ((good, bad), (good, late)):
        fresh = loaded([], manifest(state, head, []))
        with pytest.raises(CorruptError):
            load_part(fresh, Part(items), WEST, manifest(state, head, []))
        assert fresh == before


def test_a_state_that_lost_unknown_events_makes_no_snapshot() -> None:
    state = ClusterState()
    assert obstacle(state) == ""
    state.is_whole = False
    state.unknown["moon.set"] = CARRIED_MAX + 1
    assert "moon.set among them; upgrade it" in obstacle(state)


def test_a_manifest_goes_on_from_the_one_before() -> None:
    state, head = big_state(3)
    first = manifest_of(state, head, 100, [], None)
    assert (first.trim, first.previous_seq, first.marks, first.log_bytes) == (NO_MARK, 0, (), 100)
    second = manifest_of(state, replace(head, seq=Seq(7)), 200, [], first)
    assert (second.previous_seq, second.marks) == (3, (first.mark,))
    cut = replace(second, trim=first.mark, marks=())
    third = manifest_of(state, replace(head, seq=Seq(9)), 300, [], cut)
    assert (third.trim, third.marks) == (first.mark, (second.mark,))


def test_a_log_with_a_past_is_cut_at_kept_snapshots_only() -> None:
    state, head = big_state(3)
    first = manifest_of(state, head, 100, [], None)
    second = manifest_of(state, replace(head, seq=Seq(7)), 200, [], first, (Seq(3),))
    assert (second.marks, second.kept) == ((first.mark,), (3,))
    third = manifest_of(state, replace(head, seq=Seq(9)), 300, [], second, (Seq(7),))
    assert (third.marks, third.kept) == ((second.mark,), (7,))
    alone = third.alone
    assert (alone.head, alone.parts, alone.trim) == (third.head, third.parts, third.mark)
    assert (alone.previous_seq, alone.marks, alone.kept) == (0, (), ())


@given(st.integers(1, 3 * MARKS_MAX))
def test_marks_are_thinned_when_they_are_too_many(count: int) -> None:
    state, head = big_state(1)
    last = manifest_of(state, head, 0, [], None)
    for number in range(count):
        at = replace(head, seq=Seq(2 + number))
        last = manifest_of(state, at, 0, [], last)
        assert len(last.marks) <= MARKS_MAX
        assert last.marks[-1].seq == last.previous_seq
        assert list(last.marks) == sorted(last.marks, key=lambda mark: mark.seq)
