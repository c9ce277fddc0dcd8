"""What a command means: the events that it makes, or why it can't be.

For: the rules of the own cluster's state. Not for: writing anything (`runtime.writer`).
Invariants: a command that changes nothing makes no event; what is decided folds without an error;
a submission is decided as a whole or rejected as a whole, with all its problems.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import assert_never

from meshd.core.admission import check_events, check_exports, check_names, check_texts
from meshd.core.draft import Draft
from meshd.core.export import export_events
from meshd.core.naming import allocated, described, introduced, owned_number, renamed
from meshd.core.operating import operated
from meshd.core.probing import nobodys_port, recorded, with_result
from meshd.core.registered import hindrances, is_registered, reserved, taken
from meshd.core.skipping import with_record
from meshd.core.standpoint import unknown_audience, written
from meshd.model.codec import event_bytes
from meshd.model.command import (
    AllocateIdentity,
    ClusterCommand,
    Command,
    DescribeCluster,
    DropRegistered,
    HealthCommand,
    IdentityCommand,
    IntroduceCluster,
    MoveOperation,
    NodeCommand,
    OperationCommand,
    Outcome,
    PeerCommand,
    PolicyCommand,
    RecordProbe,
    RegisterEndpoint,
    RemoveEndpoint,
    RemoveIdentity,
    RemoveNode,
    RemoveOperation,
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
    StartOperation,
    Submission,
)
from meshd.model.endpoint import Endpoint
from meshd.model.errors import MovedError, Problem, RejectedError
from meshd.model.event import (
    Event,
    EventType,
)
from meshd.model.forms import TURNED_UP
from meshd.model.identity import Identity
from meshd.model.ids import ClusterName, EndpointKey, PolicyKey, Seq, ServiceKey
from meshd.model.listed import PEERS_MAX, ListedPeer
from meshd.model.registration import REGISTRATION_SOURCE
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
    problems = [*check_texts(submission), *check_names(submission)]
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
    problems.extend(check_events(events, event_sizes))
    problems.extend(check_exports(exports, exports_bytes))
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


class _Trial:
    """One submission being decided, on a draft of its own."""

    __slots__ = (
        "_now_ms",
        "_submission",
        "draft",
        "events",
        "exports",
        "problems",
    )

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
            case RegisterEndpoint() | DropRegistered() | RecordProbe():
                self._run_for_health(command)
            case StartOperation() | MoveOperation() | RemoveOperation():
                self._operate(command)
            case _:
                self._run_beside_services(command)

    def _run_beside_services(
        self, command: ClusterCommand | NodeCommand | IdentityCommand | PolicyCommand | PeerCommand
    ) -> None:
        match command:
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

    def _run_for_health(self, command: HealthCommand) -> None:
        known = self.draft.endpoint(command.key)
        match command:
            case RegisterEndpoint(key, endpoint):
                self.problems.extend(taken(key, known))
                registered = with_result(known, replace(endpoint, source=REGISTRATION_SOURCE))
                self._put_endpoint(key, known, self._as_turned(known, registered))
            case DropRegistered(key):
                if is_registered(known):
                    self._emit(EventType.ENDPOINT_REMOVED, key, None)
            case RecordProbe(key):
                found = recorded(command, known, self.draft.service(key.service))
                if found is not None:
                    self._put_endpoint(key, known, found)
            case _:
                assert_never(command)

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

    def _operate(self, command: OperationCommand) -> None:
        # Decided as a whole before the draft changes under it.
        for word in list(operated(self.draft, command, self._now_ms, self._submission.actor)):
            self._emit(word.type, word.key, word.data)

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
        """A definition keeps its age for life, since the oldest one wins a conflict; and only an
        operation turns it.
        """
        known = self.draft.service(command.key)
        created_ms = known.created_ms if known else command.service.created_ms or self._now_ms
        turned = known.turned_percent if known else TURNED_UP
        service = replace(command.service, created_ms=created_ms, turned_percent=turned)
        if service == known:
            # Also one that names an audience that is written no more: it stays as it is.
            return
        self._check_audiences(f"service {command.key}", service.export.audiences)
        self.problems.extend(nobodys_port(command.key, service, self.draft))
        self._emit(EventType.SERVICE_SET, command.key, to_data(service))

    def _check_audiences(self, where: str, audiences: tuple[str, ...]) -> None:
        unknown = set(audiences) - written(self.draft.cluster())
        self.problems.extend(unknown_audience(where, name) for name in sorted(unknown))

    def _set_cluster(self, command: ClusterCommand) -> None:
        known = self.draft.cluster()
        match command:
            case SetCluster(given):
                turned = known.turned_percent if known else TURNED_UP
                info = replace(given, turned_percent=turned)
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
        known = self.draft.endpoint(key)
        if known is not None:
            self.problems.extend(hindrances(key, known, None))
            self._emit(EventType.ENDPOINT_REMOVED, key, None)

    def _replace_endpoints(self, command: ReplaceEndpoints) -> None:
        key, source = command.service, command.source
        self.problems.extend(reserved(f"endpoints of {key}", source))
        for name in self.draft.endpoints_from(key, source):
            if name not in command.endpoints:
                self._emit(EventType.ENDPOINT_REMOVED, EndpointKey(key, name), None)
        for name, endpoint in command.endpoints.items():
            self._set_endpoint(EndpointKey(key, name), replace(endpoint, source=source))

    def _set_endpoint(self, key: EndpointKey, endpoint: Endpoint) -> None:
        known = self.draft.endpoint(key)
        endpoint = self._as_turned(known, with_result(known, endpoint))
        if known != endpoint:
            self.problems.extend(hindrances(key, known, endpoint))
        self._put_endpoint(key, known, endpoint)

    def _put_endpoint(self, key: EndpointKey, known: Endpoint | None, endpoint: Endpoint) -> None:
        if endpoint != known:
            self._emit(EventType.ENDPOINT_SET, key, to_data(endpoint))

    def _as_turned(self, known: Endpoint | None, endpoint: Endpoint) -> Endpoint:
        """Only an operation turns an endpoint; one that comes is turned as its node is."""
        if known is None:
            turned = self.draft.nodes_turned().get(endpoint.node, TURNED_UP)
        else:
            turned = known.turned_percent
        return replace(endpoint, turned_percent=turned)

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
