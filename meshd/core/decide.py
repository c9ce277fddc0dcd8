"""What a command means: the events that it makes, or why it can't be.

For: the rules of the own cluster's state. Not for: writing anything (`runtime.writer`).
Invariants: a command that changes nothing makes no event; what is decided folds without an error;
a submission is decided as a whole or rejected as a whole, with all its problems.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import assert_never

from meshd.core.draft import Draft
from meshd.core.export import Exports, export_events
from meshd.core.naming import allocated, described, introduced, owned_number, renamed
from meshd.core.skipping import with_record
from meshd.core.standpoint import written
from meshd.model.codec import event_bytes
from meshd.model.command import (
    AllocateIdentity,
    ClusterCommand,
    Command,
    DescribeCluster,
    IdentityCommand,
    IntroduceCluster,
    NodeCommand,
    Outcome,
    PeerCommand,
    PolicyCommand,
    RemoveEndpoint,
    RemoveIdentity,
    RemoveNode,
    RemovePeer,
    RemovePolicy,
    RemoveService,
    RemoveSkip,
    ReplaceEndpoints,
    SetCluster,
    SetEndpoint,
    SetIdentity,
    SetNode,
    SetPeer,
    SetPolicy,
    SetService,
    SkipRecord,
    Submission,
)
from meshd.model.endpoint import Endpoint
from meshd.model.errors import MovedError, Problem, RejectedError
from meshd.model.event import (
    ACTOR_CHARS_MAX,
    CAUSE_CHARS_MAX,
    EVENT_BYTES_MAX,
    SUBMISSION_BYTES_MAX,
    SUBMISSION_EVENTS_MAX,
    SUBMISSION_EXPORT_BYTES_MAX,
    SUBMISSION_EXPORTS_MAX,
    Event,
    EventType,
)
from meshd.model.identity import Identity, parse_identity
from meshd.model.ids import (
    ClusterName,
    EndpointKey,
    PolicyKey,
    Seq,
    ServiceKey,
    parse_cluster_name,
)
from meshd.model.listed import PEERS_MAX, ListedPeer
from meshd.model.node import parse_node_name
from meshd.model.schema import to_data


@dataclass(frozen=True, slots=True)
class Decision:
    """What one submission makes.

    events: for the local log. exports: for the audiences'. events_bytes, exports_bytes: what they
    add to the request. outcome: where the events will be, if the record is committed as drafted.
    """

    events: tuple[Event, ...]
    exports: Mapping[str, tuple[Event, ...]]
    events_bytes: int
    exports_bytes: int
    outcome: Outcome


def decide(draft: Draft, submission: Submission, now_ms: int) -> Decision:
    """Decide a submission on what those before it did to `draft`, and fold it into the draft.

    Raises RejectedError with every problem, MovedError if it was meant for another state; the draft
    is untouched then.
    """
    seq, _ = draft.last
    known = draft.outcome_of(submission.cause) if submission.cause else None
    if known is not None:
        return Decision((), {}, 0, 0, replace(known, repeated=True))
    if submission.expect_seq not in {None, seq}:
        raise _moved(submission.expect_seq, seq)
    problems = [*_check_texts(submission), *_check_names(submission)]
    if problems:
        raise RejectedError(tuple(problems))
    trial = _Trial(draft, submission, now_ms)
    for command in submission.commands:
        trial.run(command)
    events = tuple(trial.events)
    exports = {audience: tuple(told) for audience, told in trial.exports.items()}
    event_sizes = [event_bytes(event) for event in events]
    events_bytes = sum(event_sizes)
    exports_bytes = sum(event_bytes(event) for told in exports.values() for event in told)
    problems.extend(trial.problems)
    problems.extend(_check_events(events, event_sizes))
    problems.extend(_check_exports(exports, exports_bytes))
    if problems:
        raise RejectedError(tuple(problems))
    outcome = Outcome(Seq(seq + 1) if events else seq, Seq(seq + len(events)), len(events))
    if submission.cause and events:
        trial.draft.remember(submission.cause, outcome)
    draft.absorb(trial.draft)
    return Decision(events, exports, events_bytes, exports_bytes, outcome)


def _moved(expected: Seq | None, seq: Seq) -> MovedError:
    what = f"the log has come to seq {seq} since seq {expected}, which this was decided on"
    return MovedError((Problem("position", what, "nothing was done: look again, then repeat"),))


def _check_texts(submission: Submission) -> Iterator[Problem]:
    if not 0 < len(submission.actor) <= ACTOR_CHARS_MAX:
        yield Problem("actor", f"must have 1 to {ACTOR_CHARS_MAX} characters", "shorten it")
    if len(submission.cause) > CAUSE_CHARS_MAX:
        yield Problem("idempotency key", f"over {CAUSE_CHARS_MAX} characters", "shorten it")
    for where, text in (("actor", submission.actor), ("idempotency key", submission.cause)):
        if not text.isprintable():
            # Among them lone surrogates, which no record could hold.
            yield Problem(where, "holds characters that can't be printed", "leave them out")


def _check_names(submission: Submission) -> Iterator[Problem]:
    for command in submission.commands:
        try:
            _check_name(command)
        except RejectedError as error:
            yield from error.problems


def _check_name(command: Command) -> None:
    """Raise RejectedError for a name that nothing can have."""
    match command:
        case SetService(key) | RemoveService(key) | ReplaceEndpoints(key):
            ServiceKey.parse(str(key))
            for name in command.endpoints if isinstance(command, ReplaceEndpoints) else ():
                EndpointKey.parse(f"{key}/{name}")
        case SetEndpoint(endpoint_key) | RemoveEndpoint(endpoint_key):
            EndpointKey.parse(str(endpoint_key))
        case SetNode(node_name) | RemoveNode(node_name):
            parse_node_name(node_name)
        case SetIdentity(number) | RemoveIdentity(number):
            parse_identity(str(number))
        case SetPolicy(policy_key) | RemovePolicy(policy_key):
            PolicyKey.parse(str(policy_key))
        case SetPeer(name) | RemovePeer(name) | SkipRecord(name) | RemoveSkip(name):
            parse_cluster_name(name)
        case SetCluster() | IntroduceCluster() | DescribeCluster() | AllocateIdentity():
            pass
        case _:
            assert_never(command)


def _check_events(events: tuple[Event, ...], sizes: list[int]) -> Iterator[Problem]:
    for event, event_size_bytes in zip(events, sizes, strict=True):
        if event_size_bytes > EVENT_BYTES_MAX:
            yield Problem(
                f"{event.type} {event.key}",
                f"{event_size_bytes} bytes; at most {EVENT_BYTES_MAX}",
                "use fewer or shorter labels and ports",
            )
    size_bytes = sum(sizes)
    if len(events) > SUBMISSION_EVENTS_MAX or size_bytes > SUBMISSION_BYTES_MAX:
        yield Problem(
            "",
            f"{len(events)} changes of {size_bytes} bytes at once; at most {SUBMISSION_EVENTS_MAX} "
            f"changes of {SUBMISSION_BYTES_MAX} bytes",
            "split it into several requests",
        )


def _check_exports(exports: Exports, size_bytes: int) -> Iterator[Problem]:
    """All audiences' logs are written in one request, so the limits hold for the sum of them."""
    count = sum(map(len, exports.values()))
    if count > SUBMISSION_EXPORTS_MAX or size_bytes > SUBMISSION_EXPORT_BYTES_MAX:
        logs = f" in {len(exports)} audiences" if len(exports) > 1 else ""
        yield Problem(
            "",
            f"it would tell peers {count} changes of {size_bytes} bytes{logs} at once; at most "
            f"{SUBMISSION_EXPORTS_MAX} changes of {SUBMISSION_EXPORT_BYTES_MAX} bytes",
            "share the service while it has fewer endpoints, then add the others",
        )


def _unknown_audience(where: str, audience: str) -> Problem:
    return Problem(
        f"{where} audiences",
        f"this cluster has no audience {audience!r}",
        f"add it to cluster.audiences in the settings of its meshds, or take it out of {where}",
    )


class _Trial:
    """One submission being decided, on a draft of its own."""

    __slots__ = ("_now_ms", "_submission", "draft", "events", "exports", "problems")

    def __init__(self, draft: Draft, submission: Submission, now_ms: int) -> None:
        self.draft = Draft(draft)
        self.events: list[Event] = []
        self.exports: dict[str, list[Event]] = {}
        self.problems: list[Problem] = []
        self._submission = submission
        self._now_ms = now_ms

    def run(self, command: Command) -> None:
        match command:
            case SetService():
                self._set_service(command)
            case RemoveService(key):
                self._remove_service(key)
            case SetEndpoint(endpoint_key, endpoint):
                self._set_endpoint(endpoint_key, endpoint)
            case RemoveEndpoint(endpoint_key):
                self._remove_endpoint(endpoint_key)
            case ReplaceEndpoints():
                self._replace_endpoints(command)
            case SetCluster() | IntroduceCluster() | DescribeCluster():
                self._set_cluster(command)
            case SetNode() | RemoveNode():
                self._run_for_nodes(command)
            case AllocateIdentity() | SetIdentity() | RemoveIdentity():
                self._run_for_identities(command)
            case SetPolicy() | RemovePolicy():
                self._run_for_policies(command)
            case _:
                self._run_for_peers(command)

    def _run_for_nodes(self, command: NodeCommand) -> None:
        known = self.draft.node(command.name)
        match command:
            case SetNode(name, node):
                if node != known:
                    self._check_audiences(f"node {name}", node.audiences)
                    self._emit(EventType.NODE_SET, name, to_data(node))
            case RemoveNode(name):
                if known is not None:
                    self._emit(EventType.NODE_REMOVED, name, None)
            case _:
                assert_never(command)

    def _run_for_identities(self, command: IdentityCommand) -> None:
        match command:
            case AllocateIdentity():
                self._set_identity(*allocated(self.draft, command))
            case SetIdentity(number, identity):
                self._set_identity(owned_number(self.draft, number, identity), identity)
            case RemoveIdentity(number):
                if self.draft.identity(number) is not None:
                    self._emit(EventType.IDENTITY_REMOVED, str(number), None)
            case _:
                assert_never(command)

    def _set_identity(self, number: int, identity: Identity) -> None:
        if self.draft.identity(number) != identity:
            self._check_audiences(f"identity {number}", identity.audiences)
            self._emit(EventType.IDENTITY_SET, str(number), to_data(identity))

    def _run_for_policies(self, command: PolicyCommand) -> None:
        known = self.draft.policy(command.key)
        match command:
            case SetPolicy(key, policy):
                if policy != known:
                    self._check_audiences(f"policy {key}", policy.audiences)
                    self._emit(EventType.POLICY_SET, key, to_data(policy))
            case RemovePolicy(key):
                if known is not None:
                    self._emit(EventType.POLICY_REMOVED, key, None)
            case _:
                assert_never(command)

    def _run_for_peers(self, command: PeerCommand) -> None:
        match command:
            case SetPeer(name, peer):
                self._set_peer(name, peer)
            case RemovePeer(name):
                if name in self.draft.peers():
                    self._emit(EventType.PEER_REMOVED, name, None)
            case SkipRecord(name):
                known = self.draft.skip(name)
                skip = with_record(known, command)
                if skip != known:
                    self._emit(EventType.SKIP_SET, name, to_data(skip))
            case RemoveSkip(name, log_id):
                stale = self.draft.skip(name)
                if stale is not None and stale.log_id == log_id:
                    self._emit(EventType.SKIP_REMOVED, name, None)
            case _:
                assert_never(command)

    def _set_peer(self, name: ClusterName, peer: ListedPeer) -> None:
        known, own = self.draft.peers(), self.draft.cluster()
        if own is not None and name == own.name:
            raise RejectedError(
                (Problem("name", f"{name} is this cluster itself", "name another cluster"),)
            )
        if name not in known and len(known) >= PEERS_MAX:
            raise RejectedError(
                (Problem("name", f"there are {PEERS_MAX} peers already", "remove one first"),)
            )
        if known.get(name) != peer:
            self._emit(EventType.PEER_SET, name, to_data(peer))

    def _set_service(self, command: SetService) -> None:
        """A definition keeps its age for life, since the oldest one wins a conflict."""
        known = self.draft.service(command.key)
        created_ms = known.created_ms if known else command.service.created_ms or self._now_ms
        service = replace(command.service, created_ms=created_ms)
        if service == known:
            # Also one that names an audience that is written no more: it stays as it is.
            return
        self._check_audiences(f"service {command.key}", service.export.audiences)
        self._emit(EventType.SERVICE_SET, command.key, to_data(service))

    def _check_audiences(self, where: str, audiences: tuple[str, ...]) -> None:
        unknown = set(audiences) - written(self.draft.cluster())
        self.problems.extend(_unknown_audience(where, name) for name in sorted(unknown))

    def _set_cluster(self, command: ClusterCommand) -> None:
        known = self.draft.cluster()
        match command:
            case SetCluster(info):
                pass
            case IntroduceCluster(given):
                info = introduced(known, given)
            case DescribeCluster():
                info = described(known, command)
            case _:
                assert_never(command)
        if known is not None and known != info:
            renamed(known, info, self.draft)
        if known != info:
            self._emit(EventType.CLUSTER_SET, info.name, to_data(info))

    def _remove_service(self, key: ServiceKey) -> None:
        if self.draft.service(key) is not None or self.draft.has_endpoints(key):
            self._emit(EventType.SERVICE_REMOVED, key, None)

    def _remove_endpoint(self, key: EndpointKey) -> None:
        if self.draft.endpoint(key) is not None:
            self._emit(EventType.ENDPOINT_REMOVED, key, None)

    def _replace_endpoints(self, command: ReplaceEndpoints) -> None:
        key, source = command.service, command.source
        gone = sorted(
            name
            for name, endpoint in self.draft.endpoints_of(key)
            if endpoint.source == source and name not in command.endpoints
        )
        for name in gone:
            self._emit(EventType.ENDPOINT_REMOVED, EndpointKey(key, name), None)
        for name, endpoint in command.endpoints.items():
            self._set_endpoint(EndpointKey(key, name), replace(endpoint, source=source))

    def _set_endpoint(self, key: EndpointKey, endpoint: Endpoint) -> None:
        if self.draft.endpoint(key) != endpoint:
            self._emit(EventType.ENDPOINT_SET, key, to_data(endpoint))

    def _emit(
        self,
        kind: EventType,
        key: ServiceKey | EndpointKey | PolicyKey | str,
        data: dict[str, object] | None,
    ) -> None:
        event = Event(str(kind), str(key), data, self._submission.actor, self._submission.cause)
        for audience, told in export_events(self.draft, event).items():
            self.exports.setdefault(audience, []).extend(told)
        self.draft.fold(event)
        self.events.append(event)
