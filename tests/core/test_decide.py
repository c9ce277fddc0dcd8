"""What commands mean: the events that they make, none for what is so already, or all problems."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.core.decide import Decision, decide
from meshd.core.draft import Draft, OfState
from meshd.core.fold import fold_record
from meshd.core.state import ClusterState, Held
from meshd.model.cluster import Availability, ClusterInfo
from meshd.model.codec import decode_record, encode_record, event_bytes
from meshd.model.command import (
    AllocateIdentity,
    Command,
    DescribeCluster,
    IntroduceCluster,
    Outcome,
    RemoveEndpoint,
    RemoveIdentity,
    RemoveNode,
    RemovePeer,
    RemoveService,
    RemoveSkip,
    ReplaceEndpoints,
    SetCluster,
    SetEndpoint,
    SetIdentity,
    SetNode,
    SetPeer,
    SetService,
    SkipRecord,
    Submission,
)
from meshd.model.endpoint import Endpoint
from meshd.model.errors import MovedError, RejectedError
from meshd.model.event import (
    EVENT_BYTES_MAX,
    SUBMISSION_BYTES_MAX,
    SUBMISSION_EVENTS_MAX,
)
from meshd.model.identity import Identity, identity_number
from meshd.model.ids import ClusterName, EndpointKey, Head, Seq, ServiceKey
from meshd.model.listed import PEERS_MAX, SKIPS_MAX, ListedPeer, SkippedRecord
from meshd.model.node import Node
from meshd.model.service import Export, Service
from tests.logs import LOG_ID, OTHER_LOG_ID, WEST, histories, submission, submissions

NOW_MS = 1_700_000_000_000
WEB, CART = ServiceKey("shop", "web"), ServiceKey("shop", "cart")
A, B, C = (EndpointKey(WEB, name) for name in "abc")
INFO = ClusterInfo(name="west", id=7)
WITH_EU = SetCluster(replace(INFO, audiences=("eu",)))
UP, DOWN = Endpoint(address="10.0.0.1"), Endpoint(address="10.0.0.1", ready=False)
LOCAL, GLOBAL = Service(), Service(is_global=True)
PEER, OTHER_PEER = ClusterName("b"), ClusterName("b2")
NODE = Node(addresses=("10.0.1.1",))
DRAINING = DescribeCluster(Availability.DRAINING, 50, ("10.1.0.0/16",))
APP = {"app": "web", "tier": "front"}
FIRST = str(identity_number(7, 256))
LISTED = ListedPeer(endpoints=("b:2379",))
BAD = SkippedRecord(seq=7, hash="0" * 32)


def draft_of(*commands: Command, created_ms: int = 5) -> Draft:
    """Make a draft that holds what these commands make."""
    draft = Draft(OfState(ClusterState()))
    if commands:
        decide(draft, submission(*commands), created_ms)
    return draft


def made(draft: Draft, *commands: Command, cause: str = "") -> list[tuple[str, str]]:
    decision = decide(draft, submission(*commands, cause=cause), NOW_MS)
    return [(event.type, event.key) for event in decision.events]


# --- each command ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "command", "events"),
    [
        ([], SetCluster(INFO), [("cluster.set", "west")]),
        ([SetCluster(INFO)], SetCluster(INFO), []),
        ([SetCluster(INFO)], SetCluster(replace(INFO, zone="z")), [("cluster.set", "west")]),
        ([], IntroduceCluster(INFO), [("cluster.set", "west")]),
        ([SetCluster(INFO)], IntroduceCluster(INFO), []),
        ([SetCluster(INFO)], IntroduceCluster(replace(INFO, id=8)), [("cluster.set", "west")]),
        ([SetCluster(INFO)], DescribeCluster(), []),
        ([SetCluster(INFO)], DRAINING, [("cluster.set", "west")]),
        ([SetCluster(INFO), DRAINING], IntroduceCluster(INFO), []),
        ([SetCluster(INFO), DRAINING], DescribeCluster(), [("cluster.set", "west")]),
        ([], SetNode("n1", NODE), [("node.set", "n1")]),
        ([SetNode("n1", NODE)], SetNode("n1", replace(NODE, zone="z")), [("node.set", "n1")]),
        ([SetNode("n1", NODE)], RemoveNode("n1"), [("node.removed", "n1")]),
        ([SetNode("n1", NODE)], RemoveNode("n2"), []),
        ([SetCluster(INFO)], AllocateIdentity(APP), [("identity.set", FIRST)]),
        ([SetCluster(INFO), AllocateIdentity(APP)], AllocateIdentity(APP), []),
        ([WITH_EU, AllocateIdentity(APP, ("eu",))], AllocateIdentity(APP), []),
        (
            [WITH_EU, AllocateIdentity(APP)],
            AllocateIdentity(APP, ("eu",), "file"),
            [("identity.set", FIRST)],
        ),
        (
            [SetCluster(INFO), AllocateIdentity({"a": "b"}), AllocateIdentity(APP)],
            RemoveIdentity(int(FIRST)),
            [("identity.removed", FIRST)],
        ),
        ([SetCluster(INFO)], RemoveIdentity(int(FIRST)), []),
        (
            [SetCluster(INFO)],
            SetIdentity(int(FIRST) + 9, Identity(labels=APP)),
            [("identity.set", str(int(FIRST) + 9))],
        ),
        ([], SetService(WEB, LOCAL), [("service.set", "shop/web")]),
        ([SetService(WEB, LOCAL)], SetService(WEB, LOCAL), []),
        ([SetService(WEB, LOCAL)], SetService(WEB, GLOBAL), [("service.set", "shop/web")]),
        ([SetService(CART, LOCAL)], SetService(WEB, LOCAL), [("service.set", "shop/web")]),
        ([], RemoveService(WEB), []),
        ([SetService(WEB, LOCAL)], RemoveService(WEB), [("service.removed", "shop/web")]),
        ([SetEndpoint(A, UP)], RemoveService(WEB), [("service.removed", "shop/web")]),
        ([SetService(WEB, LOCAL), RemoveService(WEB)], RemoveService(WEB), []),
        ([], SetEndpoint(A, UP), [("endpoint.set", "shop/web/a")]),
        ([SetEndpoint(A, UP)], SetEndpoint(A, UP), []),
        ([SetEndpoint(A, UP)], SetEndpoint(A, DOWN), [("endpoint.set", "shop/web/a")]),
        ([], RemoveEndpoint(A), []),
        ([SetEndpoint(B, UP)], RemoveEndpoint(A), []),
        ([SetEndpoint(A, UP)], RemoveEndpoint(A), [("endpoint.removed", "shop/web/a")]),
        ([SetEndpoint(A, UP), RemoveService(WEB)], RemoveEndpoint(A), []),
        ([], ReplaceEndpoints(WEB, "s", {}), []),
        ([], ReplaceEndpoints(WEB, "s", {"a": UP}), [("endpoint.set", "shop/web/a")]),
        ([], SetPeer(PEER, LISTED), [("peer.set", "b")]),
        ([SetPeer(PEER, LISTED)], SetPeer(PEER, LISTED), []),
        (
            [SetPeer(PEER, LISTED)],
            SetPeer(PEER, replace(LISTED, username="u")),
            [("peer.set", "b")],
        ),
        ([SetPeer(OTHER_PEER, LISTED)], RemovePeer(PEER), []),
        ([SetPeer(PEER, LISTED)], RemovePeer(PEER), [("peer.removed", "b")]),
        ([], SkipRecord(PEER, LOG_ID, BAD), [("skip.set", "b")]),
        ([SkipRecord(PEER, LOG_ID, BAD)], SkipRecord(PEER, LOG_ID, BAD), []),
        ([SkipRecord(PEER, LOG_ID, BAD)], SkipRecord(PEER, OTHER_LOG_ID, BAD), [("skip.set", "b")]),
        ([SkipRecord(PEER, LOG_ID, BAD)], RemoveSkip(PEER, LOG_ID), [("skip.removed", "b")]),
        ([SkipRecord(PEER, LOG_ID, BAD)], RemoveSkip(PEER, OTHER_LOG_ID), []),
        ([], RemoveSkip(PEER, LOG_ID), []),
    ],
)
def test_a_command_makes_what_changes_and_nothing_else(
    before: list[Command], command: Command, events: list[tuple[str, str]]
) -> None:
    draft = draft_of(*before)
    assert made(draft, command) == events
    # And done once more it is a no-op, whatever it was.
    assert made(draft, command) == []


def refused(draft: Draft, command: Command) -> str:
    with pytest.raises(RejectedError) as caught:
        decide(draft, submission(command), NOW_MS)
    return str(caught.value)


def test_a_cluster_is_no_peer_of_its_own() -> None:
    draft = draft_of(SetCluster(INFO))
    assert "is this cluster itself" in refused(draft, SetPeer(WEST, LISTED))


def test_there_are_no_more_peers_than_ids() -> None:
    names = [ClusterName(f"c{number}") for number in range(PEERS_MAX)]
    draft = draft_of(*(SetPeer(name, LISTED) for name in names))
    assert f"{PEERS_MAX} peers already" in refused(draft, SetPeer(PEER, LISTED))
    assert made(draft, SetPeer(names[0], replace(LISTED, username="u"))) == [("peer.set", "c0")]


def test_a_peer_has_a_name() -> None:
    for command in (
        SetPeer(ClusterName("B"), LISTED),
        RemovePeer(ClusterName("a/b")),
        SkipRecord(ClusterName(""), LOG_ID, BAD),
        RemoveSkip(ClusterName("b."), LOG_ID),
    ):
        assert "is not a cluster name" in refused(draft_of(), command)


def test_only_so_many_records_of_one_log_are_passed_over() -> None:
    skips = [
        SkipRecord(PEER, LOG_ID, SkippedRecord(seq=seq, hash="0" * 32))
        for seq in range(SKIPS_MAX, 0, -1)
    ]
    draft = draft_of()
    for skip_one in skips:
        decide(draft, submission(skip_one), NOW_MS)
    skip = draft.skip(PEER)
    assert skip is not None
    assert [record.seq for record in skip.records] == list(range(1, SKIPS_MAX + 1))
    more = SkipRecord(PEER, LOG_ID, SkippedRecord(seq=1000, hash="0" * 32))
    assert f"{SKIPS_MAX} records of this log" in refused(draft, more)
    again = SkipRecord(PEER, LOG_ID, SkippedRecord(seq=5, hash="1" * 32))
    assert made(draft, again) == [("skip.set", "b")]
    changed = draft.skip(PEER)
    assert changed is not None
    assert changed.hash_at(5) == "1" * 32


def test_replacing_a_slice_touches_only_its_own_endpoints() -> None:
    mine, other = replace(UP, source="slice-1"), replace(UP, source="slice-2")
    draft = draft_of(SetEndpoint(A, mine), SetEndpoint(B, mine), SetEndpoint(C, other))
    d = EndpointKey(WEB, "d")
    asked = ReplaceEndpoints(WEB, "slice-1", {"d": UP, "b": mine})
    decision = decide(draft, submission(asked), NOW_MS)
    assert [(event.type, event.key) for event in decision.events] == [
        ("endpoint.removed", "shop/web/a"),
        ("endpoint.set", "shop/web/d"),
    ]
    assert dict(draft.endpoints_of(WEB)) == {"b": mine, "c": other, "d": mine}
    assert draft.endpoint(d) == mine


@pytest.mark.parametrize(
    ("known_ms", "asked_ms", "kept_ms"), [(None, 0, NOW_MS), (None, 9, 9), (5, 0, 5), (5, 9, 5)]
)
def test_a_definition_keeps_its_age_for_life(
    known_ms: int | None, asked_ms: int, kept_ms: int
) -> None:
    draft = draft_of() if known_ms is None else draft_of(SetService(WEB, LOCAL))
    decide(draft, submission(SetService(WEB, replace(GLOBAL, created_ms=asked_ms))), NOW_MS)
    service = draft.service(WEB)
    assert service is not None
    assert service.created_ms == kept_ms


def test_a_cluster_keeps_its_name_for_life() -> None:
    """Otherwise the log would hold an event that no reader folds, and end there."""
    draft = draft_of(SetCluster(INFO))
    with pytest.raises(RejectedError, match="this is cluster west, not east"):
        made(draft, SetCluster(replace(INFO, name="east")))


def test_what_was_said_of_a_cluster_while_it_ran_outlasts_what_its_settings_say() -> None:
    draft = draft_of(SetCluster(INFO), DRAINING, IntroduceCluster(replace(INFO, region="eu")))
    assert draft.cluster() == ClusterInfo(
        name="west",
        id=7,
        region="eu",
        state=Availability.DRAINING,
        weight=50,
        announces=("10.1.0.0/16",),
    )


def test_a_cluster_can_not_be_described_before_it_has_a_name() -> None:
    assert "has not said its name" in refused(draft_of(), DRAINING)
    assert "has not said its id" in refused(draft_of(), AllocateIdentity(APP))


def test_a_cluster_with_identities_keeps_its_id() -> None:
    draft = draft_of(SetCluster(INFO), AllocateIdentity(APP))
    for command in (SetCluster(replace(INFO, id=8)), IntroduceCluster(replace(INFO, id=8))):
        reason = refused(draft, command)
        assert "made of id 7; it can't become 8" in reason
        assert "set cluster.id back to 7, or remove all identities first" in reason
    assert made(draft, SetCluster(replace(INFO, zone="z"))) == [("cluster.set", "west")]
    assert made(draft, RemoveIdentity(int(FIRST)), SetCluster(replace(INFO, id=8))) != []


def numbers_of(draft: Draft, *labels: dict[str, str]) -> list[int]:
    return [draft.numbers().numbers_of(one)[0] - (7 << 16) for one in labels]


def test_labels_get_the_lowest_free_number_whatever_their_order() -> None:
    draft = draft_of(SetCluster(INFO))
    sets = [{"n": str(number)} for number in range(4)]
    for labels in sets:
        decide(draft, submission(AllocateIdentity(labels)), NOW_MS)
    assert numbers_of(draft, *sets) == [256, 257, 258, 259]
    decide(draft, submission(*(RemoveIdentity(identity_number(7, n)) for n in (258, 256))), NOW_MS)
    again = [dict(reversed(APP.items())), {"new": ""}, {"newer": ""}]
    for labels in again:
        decide(draft, submission(AllocateIdentity(labels)), NOW_MS)
    assert numbers_of(draft, *again) == [256, 258, 260]
    assert made(draft, AllocateIdentity(APP)) == []


def test_when_all_numbers_are_taken_a_new_set_of_labels_is_refused_and_a_known_one_is_not() -> None:
    state = ClusterState(info=Held(INFO, Seq(1), 0, "ann"))
    for local in range(256, 65_536):
        identity = Identity(labels={"n": str(local)})
        state.identities[identity_number(7, local)] = Held(identity, Seq(2), 0, "ann")
    draft = Draft(OfState(state))
    reason = refused(draft, AllocateIdentity(APP))
    assert "all 65280 numbers of this cluster are taken" in reason
    assert "meshd get identities" in reason
    assert made(draft, AllocateIdentity({"n": "65535"})) == []
    freed = RemoveIdentity(identity_number(7, 40_000))
    assert made(draft, freed, AllocateIdentity(APP)) == [
        ("identity.removed", str(identity_number(7, 40_000))),
        ("identity.set", str(identity_number(7, 40_000))),
    ]


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (
            SetIdentity(identity_number(8, 300), Identity(labels={"x": "y"})),
            "is a number of cluster id 8; this cluster has id 7",
        ),
        (
            SetIdentity(identity_number(7, 300), Identity(labels=APP)),
            f"these labels have the number {FIRST} already",
        ),
        (SetIdentity(5, Identity(labels=APP)), "is not the number of an identity"),
        (RemoveIdentity(7 << 16), "is not the number of an identity"),
        (AllocateIdentity({}), "holds no label"),
        (AllocateIdentity({"a": "\n"}), "holds a control character"),
        (SetNode("N1", NODE), "is not a node's name"),
        (RemoveNode("a/b"), "is not a node's name"),
    ],
)
def test_what_no_node_and_no_identity_can_have(command: Command, reason: str) -> None:
    draft = draft_of(SetCluster(INFO), AllocateIdentity(APP))
    assert reason in refused(draft, command)


def test_a_number_needs_a_cluster() -> None:
    asked = SetIdentity(identity_number(7, 300), Identity(labels=APP))
    assert "this cluster has not said its id yet" in refused(draft_of(), asked)


# --- whole submissions ----------------------------------------------------------------------------


def test_commands_of_one_submission_see_each_other() -> None:
    draft = draft_of()
    set_both = (SetService(WEB, LOCAL), SetEndpoint(A, UP))
    assert made(draft, *set_both, RemoveService(WEB), RemoveEndpoint(A)) == [
        ("service.set", "shop/web"),
        ("endpoint.set", "shop/web/a"),
        ("service.removed", "shop/web"),
    ]


def test_a_submission_may_be_meant_for_one_place_of_the_log() -> None:
    draft = Draft(OfState(ClusterState(seq=Seq(40))))
    asked = Submission((SetService(WEB, GLOBAL),), "ann", "key-1", expect_seq=Seq(40))
    other = Submission((SetService(CART, GLOBAL),), "ann", "", expect_seq=Seq(40))
    assert decide(draft, asked, NOW_MS).outcome == Outcome(Seq(41), Seq(41), 1)
    with pytest.raises(MovedError, match="has come to seq 41 since seq 40"):
        decide(draft, other, NOW_MS)
    assert draft.service(CART) is None
    # What was done under a key was done, wherever the log is now.
    assert decide(draft, asked, NOW_MS).outcome == Outcome(Seq(41), Seq(41), 1, repeated=True)


def test_an_outcome_says_where_the_events_are() -> None:
    draft = Draft(OfState(ClusterState(seq=Seq(40))))
    first = decide(draft, submission(SetService(WEB, GLOBAL), SetEndpoint(A, UP)), NOW_MS)
    nothing = decide(draft, submission(SetEndpoint(A, UP)), NOW_MS)
    second = decide(draft, submission(RemoveEndpoint(A)), NOW_MS)
    assert first.outcome == Outcome(Seq(41), Seq(42), 2)
    assert nothing == Decision((), {}, 0, 0, Outcome(Seq(42), Seq(42), 0))
    assert second.outcome == Outcome(Seq(43), Seq(43), 1)


def test_events_say_who_and_why_but_only_at_home() -> None:
    asked = Submission((SetService(WEB, GLOBAL),), actor="ann", cause="key-1")
    decision = decide(draft_of(), asked, NOW_MS)
    assert [(event.actor, event.cause) for event in decision.events] == [("ann", "key-1")]
    assert [(event.actor, event.cause) for event in decision.exports["mesh"]] == [("ann", "")]
    assert decision.events_bytes == sum(map(event_bytes, decision.events))
    assert decision.exports_bytes == sum(map(event_bytes, decision.exports["mesh"]))


# --- idempotency keys -----------------------------------------------------------------------------


def test_a_key_does_its_work_once_also_within_a_draft() -> None:
    draft = draft_of()
    first = decide(draft, submission(SetService(WEB, LOCAL), cause="key-1"), NOW_MS)
    decide(draft, submission(SetService(WEB, GLOBAL)), NOW_MS)
    again = decide(draft, submission(SetService(WEB, LOCAL), cause="key-1"), NOW_MS)
    assert again == Decision((), {}, 0, 0, replace(first.outcome, repeated=True))


def test_a_key_does_its_work_once_also_long_after() -> None:
    decision = decide(draft_of(), submission(SetService(WEB, LOCAL), cause="key-1"), NOW_MS)
    state = ClusterState()
    fold_record(state, encode_record(Head.genesis(LOG_ID), NOW_MS, decision.events), WEST)
    again = decide(Draft(OfState(state)), submission(RemoveService(WEB), cause="key-1"), NOW_MS)
    assert again.outcome == Outcome(Seq(1), Seq(1), 1, repeated=True)


def test_a_key_that_changed_nothing_is_not_used_up() -> None:
    draft = draft_of()
    assert made(draft, RemoveService(WEB), cause="key-1") == []
    assert made(draft, SetService(WEB, LOCAL), cause="key-1") == [("service.set", "shop/web")]


@given(histories, submissions)
def test_repeating_a_submission_changes_nothing(
    history: list[Submission], asked: Submission
) -> None:
    """With its key it is known; without one its commands find everything done, or undo it."""
    draft = draft_of()
    for before in history:
        decide(draft, before, NOW_MS)
    keyed = replace(asked, cause="the-key")
    first = decide(draft, keyed, NOW_MS)
    again = decide(draft, keyed, NOW_MS)
    if first.events:
        assert again.events == ()
        assert again.outcome == replace(first.outcome, repeated=True)


@given(histories)
def test_what_is_decided_folds_and_changes_something(history: list[Submission]) -> None:
    """No event for a no-op: each one, folded, makes a state that differs from the one before."""
    draft, state = draft_of(), ClusterState()
    prev = Head.genesis(LOG_ID)
    for asked in history:
        decision = decide(draft, asked, NOW_MS)
        for event in decision.events:
            before = deepcopy(state)
            record = encode_record(prev, NOW_MS, (event,))
            fold_record(state, decode_record(record.raw, "here"), WEST)
            prev = record.head
            before.seq, before.time_ms, before.causes = state.seq, state.time_ms, state.causes
            assert state != before
            assert not state.unknown


# --- rejections -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (submission(actor=""), ["actor: must have 1 to 256 characters (shorten it)"]),
        (submission(actor="a" * 257), ["actor: must have 1 to 256 characters (shorten it)"]),
        (
            submission(actor="a\nb"),
            ["actor: holds characters that can't be printed (leave them out)"],
        ),
        (
            submission(cause="\udcff"),
            ["idempotency key: holds characters that can't be printed (leave them out)"],
        ),
        (
            submission(cause="c" * 257),
            ["idempotency key: over 256 characters (shorten it)"],
        ),
        (
            submission(SetService(ServiceKey("a", "B"), LOCAL), RemoveService(ServiceKey("", "b"))),
            [
                "service: 'a/B' is not a service name (write namespace/name)",
                "service: '/b' is not a service name (write namespace/name)",
            ],
        ),
        (
            submission(RemoveService(ServiceKey("a/b", "c"))),
            ["service: 'a/b/c' is not a service name (write namespace/name)"],
        ),
        (
            submission(
                SetEndpoint(EndpointKey(WEB, ""), UP), RemoveEndpoint(EndpointKey(WEB, "/"))
            ),
            [
                "endpoint: 'shop/web/' is not an endpoint name (write namespace/service/name)",
                "endpoint: 'shop/web//' is not an endpoint name (write namespace/service/name)",
            ],
        ),
        (
            submission(ReplaceEndpoints(WEB, "", {"a/b": UP})),
            ["service: 'shop/web/a' is not a service name (write namespace/name)"],
        ),
    ],
)
def test_all_problems_are_told(asked: Submission, said: list[str]) -> None:
    with pytest.raises(RejectedError) as error:
        decide(draft_of(), asked, NOW_MS)
    assert [str(problem) for problem in error.value.problems] == said


def test_a_value_that_no_reader_would_take_is_rejected_as_well() -> None:
    with pytest.raises(RejectedError, match="source"):
        made(draft_of(), ReplaceEndpoints(WEB, "a\nb", {"a": UP}))


def test_a_good_submission_with_every_kind_of_name() -> None:
    asked = submission(
        SetCluster(INFO), ReplaceEndpoints(WEB, "s", {"web-0.web": UP}), actor="Änn @ büro"
    )
    assert len(decide(draft_of(), asked, NOW_MS).events) == 2


def many_endpoints(count: int) -> ReplaceEndpoints:
    return ReplaceEndpoints(WEB, "", {f"e{number}": UP for number in range(count)})


LARGE = Service(labels={f"l{number}": "x" * 253 for number in range(64)})


def test_a_submission_may_be_as_large_as_half_a_record_but_no_larger() -> None:
    few = decide(draft_of(), submission(many_endpoints(SUBMISSION_EVENTS_MAX)), NOW_MS)
    assert len(few.events) == SUBMISSION_EVENTS_MAX
    with pytest.raises(RejectedError, match=r"2049 changes of .*split it"):
        decide(draft_of(), submission(many_endpoints(SUBMISSION_EVENTS_MAX + 1)), NOW_MS)


def test_a_submission_may_not_be_too_many_bytes() -> None:
    services = [SetService(ServiceKey("shop", f"s{number}"), LARGE) for number in range(14)]
    size_bytes = decide(draft_of(), submission(*services[:13]), NOW_MS).events_bytes
    assert size_bytes <= SUBMISSION_BYTES_MAX < size_bytes / 13 * 14
    with pytest.raises(RejectedError, match="14 changes of"):
        decide(draft_of(), submission(*services), NOW_MS)


def test_a_service_with_many_endpoints_can_be_shared_at_once() -> None:
    """Sharing a service tells all its endpoints, far more than one submission may change."""
    draft = draft_of(many_endpoints(SUBMISSION_EVENTS_MAX))
    shared = decide(draft, submission(SetService(WEB, GLOBAL)), NOW_MS)
    assert len(shared.events) == 1
    assert len(shared.exports["mesh"]) == SUBMISSION_EVENTS_MAX + 1


def test_what_is_exported_has_a_limit_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshd.core.admission.SUBMISSION_EXPORTS_MAX", SUBMISSION_EVENTS_MAX)
    draft = draft_of(many_endpoints(SUBMISSION_EVENTS_MAX))
    with pytest.raises(RejectedError, match=r"tell peers 2049 changes .* then add the others"):
        decide(draft, submission(SetService(WEB, GLOBAL)), NOW_MS)
    assert draft.service(WEB) is None


def test_the_limit_is_that_of_all_audiences_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are all written in one request."""
    monkeypatch.setattr("meshd.core.admission.SUBMISSION_EXPORTS_MAX", 4)
    draft = draft_of(SetCluster(replace(INFO, audiences=("eu", "us"))), SetEndpoint(A, UP))
    to_two, to_three = (
        replace(GLOBAL, export=Export(audiences=audiences))
        for audiences in (("eu", "us"), ("eu", "mesh", "us"))
    )
    with pytest.raises(RejectedError, match=r"tell peers 6 changes of \d+ bytes in 3 audiences"):
        decide(draft, submission(SetService(WEB, to_three)), NOW_MS)
    told = decide(draft, submission(SetService(WEB, to_two)), NOW_MS)
    assert {audience: len(events) for audience, events in told.exports.items()} == {
        "eu": 2,
        "us": 2,
    }
    assert told.exports_bytes == 2 * sum(map(event_bytes, told.exports["eu"]))


def test_a_service_may_only_name_audiences_that_are_written() -> None:
    draft = draft_of(SetCluster(replace(INFO, audiences=("eu",))))
    services = [
        SetService(WEB, Service(export=Export(audiences=("eu", "us")))),
        SetService(ServiceKey("shop", "cart"), Service(export=Export(audiences=("asia", "mesh")))),
    ]
    with pytest.raises(RejectedError) as error:
        decide(draft, submission(*services), NOW_MS)
    assert [str(problem) for problem in error.value.problems] == [
        f"service {key} audiences: this cluster has no audience '{name}' (add it to"
        f" cluster.audiences in the settings of its meshds, or take it out of service {key})"
        for key, name in (("shop/web", "us"), ("shop/cart", "asia"))
    ]
    assert draft.service(WEB) is None


def test_a_service_that_names_what_is_written_no_more_stays_as_it_is() -> None:
    was = SetService(WEB, Service(is_global=True, export=Export(audiences=("eu", "mesh"))))
    draft = draft_of(
        SetCluster(replace(INFO, audiences=("eu",))), was, SetCluster(replace(INFO, audiences=()))
    )
    assert made(draft, was) == []
    changed = replace(was, service=replace(was.service, source="x"))
    with pytest.raises(RejectedError, match="no audience 'eu'"):
        decide(draft, submission(changed), NOW_MS)


def test_an_event_may_not_be_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """No value can be as large as the limit today; it is held all the same."""
    monkeypatch.setattr("meshd.core.admission.EVENT_BYTES_MAX", 1000)
    with pytest.raises(RejectedError, match=r"service\.set shop/web: .* bytes; at most 1000"):
        decide(draft_of(), submission(SetService(WEB, LARGE)), NOW_MS)


@given(st.sampled_from((LARGE, replace(LARGE, source="s" * 512))))
def test_no_value_is_larger_than_an_event_may_be(service: Service) -> None:
    decision = decide(draft_of(), submission(SetService(WEB, service)), NOW_MS)
    assert max(event_bytes(event) for event in decision.events) <= EVENT_BYTES_MAX
